//! The demo: what runs where there is no configuration.

use std::io::ErrorKind;
use std::path::Path;

use groups::notes::{NoteError, Title};
use jiff::Timestamp;
use policy::ids::GroupName;
use policy::label::Labels;

use crate::config::{Config, Paths, Problems};
use crate::db::Db;

/// Its one group.
pub const GROUP: &str = "demo";

/// Tells that the notes were there once: who deletes them is not given them again.
const MARK: &str = "demo-notes";

/// Private notes, oldest first.
const NOTES: [(&str, &str); 3] = [
    (
        "Doctor on Thursday",
        "Thursday 14:30, Dr. Okafor, second floor. Bring the list of what I take; ask about the knee and whether the \
         tests came back. Do not tell Mara before I know more.",
    ),
    (
        "Where the spare key is",
        "Under the blue pot at the back door. The alarm is off while somebody is at home; the code is in the kitchen \
         drawer, in the red envelope.",
    ),
    (
        "Savings",
        "Roof repair: 4,200 put aside, 1,800 to go by spring. The rest stays untouched until the house is paid. Sell \
         nothing in a hurry.",
    ),
];

/// Whether `up` runs the demo: nobody named a configuration, for a mistyped path starts none, and
/// there is surely none at the usual place. What cannot be looked at is no reason to go on without it.
pub fn runs(paths: &Paths) -> bool {
    !paths.named
        && std::fs::symlink_metadata(&paths.config)
            .is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The configuration of the demo.
///
/// # Errors
/// [`Problems`], if the program was built wrongly.
pub fn config(path: &Path) -> Result<Config, Problems> {
    Config::parse(include_str!("demo.toml"), path)
}

/// Writes the notes, once in the life of a data directory.
///
/// # Errors
/// [`NoteError`], if they cannot be written.
pub async fn seed(db: &Db, data: &Path) -> Result<(), NoteError> {
    let mark = data.join(MARK);
    if mark.exists() {
        return Ok(());
    }
    let Ok(group) = GROUP.parse::<GroupName>() else {
        return Ok(());
    };
    let notes = db.notes();
    for (title, text) in NOTES {
        let title = Title::try_from(title.to_owned())?;
        let now = Timestamp::now();
        notes
            .write(&group, title, text.to_owned(), Labels::default(), now)
            .await?;
    }
    // Last: where the power goes before, they are written again with the next start.
    if let Err(error) = std::fs::write(&mark, "") {
        tracing::warn!("`{}` cannot be written: {error}", mark.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_a_sound_configuration() {
        let config = config(Path::new("demo.toml")).unwrap();
        assert!(config.notes.is_empty(), "{:?}", config.notes);
        let group = &config.groups[&GROUP.parse().unwrap()];
        assert!(group.model.is_some());
    }

    #[tokio::test]
    async fn notes_that_were_deleted_do_not_come_back() {
        let data = tempfile::tempdir().unwrap();
        let db = Db::open(data.path()).await.unwrap();
        let group = GROUP.parse().unwrap();
        seed(&db, data.path()).await.unwrap();
        let all = db.notes().list(&group).await.unwrap();
        assert_eq!(all.len(), NOTES.len());
        for note in all {
            let title = Title::try_from(note.title).unwrap();
            db.notes().delete(&group, &title).await.unwrap();
        }
        seed(&db, data.path()).await.unwrap();
        assert!(db.notes().list(&group).await.unwrap().is_empty());
    }
}
