//! What a group's agent keeps for later: short texts under a title.
//!
//! A note is stored with the labels of the conversation that wrote it, and whoever reads it gets
//! them back with it: what strangers wrote stays what strangers wrote, however often it is noted
//! down.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use policy::ids::GroupName;
use policy::label::{Label, Labels};
use tokio::sync::Mutex;

use crate::db::notes::Rows;

/// The most notes of a group.
pub const MOST: u64 = 500;
/// The longest title, in characters.
pub const TITLE: usize = 120;
/// The longest text, in bytes.
pub const TEXT: usize = 64 * 1024;

/// Why it was not done, in words for a model.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The title cannot be one.
    #[error(
        "a title is one line of 1 to {TITLE} characters, without control characters and without \
         spaces at its ends"
    )]
    Title,
    /// The text is too long.
    #[error("the text is longer than {} KiB; keep less, or several notes", TEXT / 1024)]
    TooLong,
    /// There are too many notes.
    #[error("there are {MOST} notes already; delete one that is not needed")]
    Full,
    /// There is no such note.
    #[error("there is no note `{0}`; `list` tells which there are")]
    Absent(String),
    /// What an untrusted conversation writes never takes the place of what a trusted one wrote.
    #[error(
        "the note `{0}` was written before this conversation read what strangers wrote, and is not \
         replaced by it; write under another title"
    )]
    Trusted(String),
    /// The database could not do it; for operators.
    #[error("the notes cannot be reached now; try again later")]
    Storage(String),
}

/// A note's title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title(String);

impl Title {
    /// The title as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Title {
    type Error = NoteError;
    fn try_from(text: String) -> Result<Self, NoteError> {
        let fits = !text.is_empty()
            && text.chars().count() <= TITLE
            && text.trim() == text
            && !text.contains(char::is_control);
        fits.then_some(Self(text)).ok_or(NoteError::Title)
    }
}

/// One note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its title, which no other note of the group has.
    pub title: String,
    /// Its text.
    pub text: String,
    /// What the conversation that wrote it had read, and where that came from.
    pub labels: Labels,
    /// When it was written.
    pub updated_at: Timestamp,
}

impl Note {
    /// The labels that whoever reads it takes on.
    pub fn marks(&self) -> BTreeSet<Label> {
        [Label::Untrusted, Label::Secret]
            .into_iter()
            .filter(|label| self.labels.has(*label))
            .collect()
    }
}

/// The notes of all groups.
#[derive(Clone, Debug)]
pub struct Notes {
    rows: Rows,
    /// One change at a time: what is looked at before it still holds when it is made.
    changing: Arc<Mutex<()>>,
}

impl Notes {
    pub(crate) fn over(rows: Rows) -> Self {
        Self {
            rows,
            changing: Arc::default(),
        }
    }

    /// A group's notes, the latest first.
    ///
    /// # Errors
    /// [`NoteError::Storage`].
    pub async fn list(&self, group: &GroupName) -> Result<Vec<Note>, NoteError> {
        self.rows.all(group, MOST).await
    }

    /// One note.
    ///
    /// # Errors
    /// [`NoteError::Absent`] and [`NoteError::Storage`].
    pub async fn read(&self, group: &GroupName, title: &Title) -> Result<Note, NoteError> {
        let absent = || NoteError::Absent(title.as_str().to_owned());
        self.rows.one(group, title).await?.ok_or_else(absent)
    }

    /// Writes a note, in the place of one with the same title; `labels` are those of the
    /// conversation that writes it. It is stored when this returns.
    ///
    /// # Errors
    /// [`NoteError`], and then nothing was changed.
    pub async fn write(
        &self,
        group: &GroupName,
        title: Title,
        text: String,
        labels: Labels,
        now: Timestamp,
    ) -> Result<(), NoteError> {
        if text.len() > TEXT {
            return Err(NoteError::TooLong);
        }
        let _one = self.changing.lock().await;
        match self.rows.one(group, &title).await? {
            Some(before)
                if labels.has(Label::Untrusted) && !before.labels.has(Label::Untrusted) =>
            {
                return Err(NoteError::Trusted(title.0));
            }
            None if self.rows.count(group).await? >= MOST => return Err(NoteError::Full),
            Some(_) | None => {}
        }
        let note = Note {
            title: title.0,
            text,
            labels,
            updated_at: now,
        };
        self.rows.put(group, note).await
    }

    /// Deletes a note. It is gone when this returns.
    ///
    /// # Errors
    /// [`NoteError::Absent`] and [`NoteError::Storage`].
    pub async fn delete(&self, group: &GroupName, title: &Title) -> Result<(), NoteError> {
        let _one = self.changing.lock().await;
        if self.rows.remove(group, title).await? {
            return Ok(());
        }
        Err(NoteError::Absent(title.as_str().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use policy::ids::ActionId;
    use policy::label::Provenance;

    use super::*;
    use crate::db::notes::scratch;

    fn group(name: &str) -> GroupName {
        name.parse().unwrap()
    }

    fn title(text: &str) -> Title {
        Title::try_from(text.to_owned()).unwrap()
    }

    fn with(label: Label) -> Labels {
        let mut labels = Labels::default();
        let from = Provenance {
            action: ActionId::new("act_1"),
            tool: "postbox__read".into(),
            at: Timestamp::UNIX_EPOCH,
        };
        labels.add(label, &from);
        labels
    }

    async fn write(notes: &Notes, name: &str, text: &str, labels: Labels) -> Result<(), NoteError> {
        let now = Timestamp::from_second(text.len().try_into().unwrap()).unwrap();
        notes
            .write(&group("a"), title(name), text.to_owned(), labels, now)
            .await
    }

    #[tokio::test]
    async fn a_note_comes_back_with_its_labels_and_only_to_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let notes = scratch(dir.path()).await;
        let untrusted = with(Label::Untrusted);
        write(&notes, "plan", "b", Labels::default()).await.unwrap();
        write(&notes, "plan", "bb", with(Label::Secret))
            .await
            .unwrap();
        write(&notes, "mail", "aaa", untrusted.clone())
            .await
            .unwrap();
        let read = notes.read(&group("a"), &title("mail")).await.unwrap();
        assert_eq!((read.text.as_str(), &read.labels), ("aaa", &untrusted));
        assert_eq!(read.marks(), BTreeSet::from([Label::Untrusted]));
        let all = notes.list(&group("a")).await.unwrap();
        let told: Vec<_> = all
            .iter()
            .map(|note| (note.title.as_str(), note.text.as_str()))
            .collect();
        assert_eq!(told, [("mail", "aaa"), ("plan", "bb")]);
        assert_eq!(notes.list(&group("b")).await.unwrap(), []);
        let other = notes.read(&group("b"), &title("plan")).await.unwrap_err();
        assert!(matches!(other, NoteError::Absent(_)));
        let other = notes.delete(&group("b"), &title("plan")).await.unwrap_err();
        assert!(matches!(other, NoteError::Absent(_)));
        notes.delete(&group("a"), &title("plan")).await.unwrap();
        assert_eq!(notes.list(&group("a")).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_strangers_may_have_written_replaces_only_its_like() {
        let dir = tempfile::tempdir().unwrap();
        let notes = scratch(dir.path()).await;
        let untrusted = || with(Label::Untrusted);
        write(&notes, "iban", "mine", Labels::default())
            .await
            .unwrap();
        let refused = write(&notes, "iban", "theirs", untrusted()).await;
        assert!(matches!(refused, Err(NoteError::Trusted(_))));
        assert_eq!(
            notes.read(&group("a"), &title("iban")).await.unwrap().text,
            "mine"
        );
        write(&notes, "new", "one", untrusted()).await.unwrap();
        write(&notes, "new", "two", untrusted()).await.unwrap();
        // A clean conversation wrote all of this one, so it is clean.
        write(&notes, "new", "three", Labels::default())
            .await
            .unwrap();
        let read = notes.read(&group("a"), &title("new")).await.unwrap();
        assert_eq!((read.text.as_str(), read.marks().len()), ("three", 0));
    }

    #[tokio::test]
    async fn size_and_number_are_limited() {
        let dir = tempfile::tempdir().unwrap();
        let notes = scratch(dir.path()).await;
        for text in ["", " a", "a\n", "a\u{0}", &"x".repeat(TITLE + 1)] {
            assert!(Title::try_from(text.to_owned()).is_err(), "{text:?}");
        }
        let long = write(&notes, "long", &"x".repeat(TEXT + 1), Labels::default()).await;
        assert!(matches!(long, Err(NoteError::TooLong)));
        for n in 0..MOST {
            write(&notes, &n.to_string(), "", Labels::default())
                .await
                .unwrap();
        }
        let full = write(&notes, "one more", "", Labels::default()).await;
        assert!(matches!(full, Err(NoteError::Full)));
        write(&notes, "7", "again", Labels::default())
            .await
            .unwrap();
    }
}
