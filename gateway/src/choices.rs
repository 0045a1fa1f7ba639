//! What people of a group wrote and trusted sources told, so that a destination that they named can be
//! told from one that only strangers did.
//!
//! Kept as digests: in memory with the conversation, under its lock, and in the database, so that it is
//! there before the first decision after a start. A row that is lost makes a decision stricter, never
//! looser; what makes one looser is written with the record of the action that it comes from.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::destination::words::Mark;
use policy::destination::{Known, Soil, Source};
use policy::ids::ConversationId;

use crate::db::{Db, DbError};

/// What was put into servers, and the table of what is known.
#[derive(Debug)]
pub struct Choices {
    db: Db,
    soils: Mutex<BTreeMap<String, Soil>>,
}

impl Choices {
    /// Reads back what is stored, with what is known of each conversation.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read: without it nothing is decided.
    pub async fn open(db: Db) -> Result<(Self, BTreeMap<ConversationId, Known>), DbError> {
        let mut known: BTreeMap<ConversationId, Known> = BTreeMap::new();
        for (conversation, source) in db.known().await? {
            known.entry(conversation).or_default().learn(source);
        }
        let mut soils: BTreeMap<String, Soil> = BTreeMap::new();
        for (server, marks) in db.soil().await? {
            soils.entry(server).or_default().add(&marks);
        }
        let soils = Mutex::new(soils);
        Ok((Self { db, soils }, known))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Soil>> {
        self.soils.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was put into a server.
    pub fn soil(&self, server: &str) -> Soil {
        self.lock().get(server).cloned().unwrap_or_default()
    }

    /// Notes what a call puts into a server; the caller stores it with the record of the call.
    pub fn put(&self, server: &str, args: &serde_json::Value, known: &Known) -> Vec<Mark> {
        let mut soils = self.lock();
        let soil = soils.entry(server.to_owned()).or_default();
        let marks = soil.of_call(args, known);
        soil.add(&marks);
        marks
    }

    /// Stores what was learned, and forgets what is older than what is kept.
    pub async fn store(&self, conversation: &ConversationId, source: &Source, kept: usize) {
        if let Err(error) = self.db.add_known(conversation, source, kept).await {
            tracing::error!("what `{conversation}` may reach is not stored: {error}");
        }
    }
}
