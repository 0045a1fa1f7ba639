//! The secrets that the gateway has fetched, and the words of those that servers told: what is looked
//! for in arguments, and hidden in the log and from people.
//!
//! The values are in memory alone. Of what servers told only keyed digests of its words are kept,
//! there and in the database.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use policy::secret::Finder;

use crate::db::{Db, DbError};
use crate::keys::Keys;

/// The most words that are remembered. Later ones are not: a flood must not fill the memory.
const MOST_WORDS: usize = 100_000;
/// The most words of one answer that are remembered.
const MOST_WORDS_AT_ONCE: usize = 1000;
/// The longest word that is remembered, in bytes.
const LONGEST_WORD: usize = 4096;

/// The secrets that are known. One for the whole gateway.
#[derive(Default)]
pub struct Kept {
    finder: RwLock<Arc<Finder>>,
    secrets: Mutex<BTreeSet<String>>,
    words: Option<Arc<Words>>,
}

/// Keyed digests of the words that are known again, by their length.
struct Words {
    keys: Arc<Keys>,
    digests: RwLock<HashMap<usize, HashSet<String>>>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(…)")
    }
}

impl Words {
    fn knows(&self, word: &str) -> bool {
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        let same_length = digests.get(&word.len());
        same_length.is_some_and(|digests| digests.contains(&self.keys.mac(word)))
    }

    fn add(&self, length: usize, digest: String) {
        let mut digests = self.digests.write().unwrap_or_else(PoisonError::into_inner);
        digests.entry(length).or_default().insert(digest);
    }

    fn count(&self) -> usize {
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        digests.values().map(HashSet::len).sum()
    }
}

impl Kept {
    /// With the words that were remembered before this start.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn open(keys: Arc<Keys>, db: &Db) -> Result<Self, DbError> {
        let words = Arc::new(Words {
            keys,
            digests: RwLock::default(),
        });
        for (length, digest) in db.secret_words().await? {
            words.add(length, digest);
        }
        let kept = Self {
            words: Some(words),
            ..Self::default()
        };
        kept.rebuild(&BTreeSet::new());
        Ok(kept)
    }

    /// What finds them. Take it anew for each use: secrets are exchanged while the gateway runs.
    pub fn finder(&self) -> Arc<Finder> {
        let finder = self.finder.read().unwrap_or_else(PoisonError::into_inner);
        finder.clone()
    }

    /// A secret was fetched. The one that it took the place of stays known.
    pub fn learn(&self, secret: &str) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if secrets.insert(secret.to_owned()) {
            self.rebuild(&secrets);
        }
    }

    fn rebuild(&self, secrets: &BTreeSet<String>) {
        let mut finder = Finder::new(secrets.iter().map(String::as_str));
        if let Some(words) = &self.words {
            let words = words.clone();
            finder = finder.remembering(Arc::new(move |word: &str| words.knows(word)));
        }
        *self.finder.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(finder);
    }

    /// Remembers the words of secrets that a server told. They are on the disk when this returns.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be stored.
    pub async fn remember(&self, told: BTreeSet<String>, db: &Db) -> Result<(), DbError> {
        let Some(words) = &self.words else {
            return Ok(());
        };
        let fits = told.iter().filter(|word| word.len() <= LONGEST_WORD);
        let fresh: Vec<(usize, String)> = fits
            .filter(|word| !words.knows(word))
            .take(MOST_WORDS_AT_ONCE)
            .map(|word| (word.len(), words.keys.mac(word)))
            .collect();
        if fresh.is_empty() {
            return Ok(());
        }
        if words.count() + fresh.len() > MOST_WORDS {
            tracing::error!("{MOST_WORDS} words of secrets are remembered already; no more are");
            return Ok(());
        }
        db.secret_words_add(&fresh, jiff::Timestamp::now()).await?;
        for (length, digest) in fresh {
            words.add(length, digest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_that_was_exchanged_and_one_that_was_told_stay_known() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::open(folder.path()).unwrap());
        let db = Db::open(folder.path()).await.unwrap();
        let kept = Kept::open(keys.clone(), &db).await.unwrap();
        kept.learn("the old secret");
        kept.learn("the new secret");
        let told = BTreeSet::from(["correcthorsebattery".to_owned()]);
        kept.remember(told, &db).await.unwrap();
        for text in [
            "the old secret",
            "the new secret",
            "is it correcthorsebattery?",
        ] {
            assert!(kept.finder().holds(text), "{text}");
        }
        let kept = Kept::open(keys, &db).await.unwrap();
        assert!(kept.finder().holds("is it correcthorsebattery?"));
        assert!(!kept.finder().holds("the old secret"));
    }
}
