//! A log for tests.

use std::sync::Arc;

use policy::record::{Event, Outcome};
use serde_json::json;
use tokio::task::JoinHandle;

use super::find::Wanted;
use super::index::Index;
use super::read::{VerifyError, verify};
use super::{Audit, Opens, Write};
use crate::db::Db;
use crate::keys::Keys;

/// A log in a directory of its own.
pub(super) struct Log {
    pub(super) data: tempfile::TempDir,
    pub(super) db: Db,
    pub(super) index: Index,
    pub(super) audit: Audit,
    pub(super) keys: Arc<Keys>,
    writer: JoinHandle<()>,
}

impl Log {
    pub(super) async fn open() -> Self {
        Self::open_in(tempfile::tempdir().unwrap()).await
    }

    /// Goes on with the log of a directory.
    pub(super) async fn open_in(data: tempfile::TempDir) -> Self {
        let keys = Arc::new(Keys::open(data.path()).unwrap());
        let db = Db::open(data.path()).await.unwrap();
        let start = Audit::start(db.clone(), keys.clone(), None);
        let (audit, writer) = start.await.unwrap();
        let index = Index::open(data.path(), db.clone()).await.unwrap();
        Self {
            data,
            db,
            index,
            audit,
            keys,
            writer,
        }
    }

    /// Stops as the gateway does.
    pub(super) async fn stop(self) -> tempfile::TempDir {
        drop(self.audit);
        self.writer.await.unwrap();
        self.index.close().await;
        self.db.close().await;
        self.data
    }

    /// The first record that does not fit.
    pub(super) async fn first_bad(&self) -> Option<i64> {
        match verify(self.data.path(), &[]).await {
            Ok(_) => None,
            Err(VerifyError::Bad(bad)) => Some(bad.seq),
            Err(other) => panic!("{other}"),
        }
    }

    pub(super) async fn noted(&self, what: &str) {
        let write = Write::noted("user:ana", None, what);
        self.audit.write(write).await.unwrap();
    }

    pub(super) async fn decided(&self, id: &str, group: &str, tool: &str, args: serde_json::Value) {
        let digest = "0".repeat(64);
        let event = json!({
            "event": "decided",
            "facts": {
                "action": {
                    "id": id, "kind": "mcp", "group": group, "conversation": "token:tok_1", "run": "run_1",
                    "principal": "token:tok_1 (laptop)", "server": "mail", "method": "tools/call", "name": tool,
                    "args": args, "definition": digest, "identity": digest,
                },
                "traits": {"public_source": true, "secret_data": true, "public_sink": true, "dangerous_writes": true, "read_only": false},
                "labels": {}, "contains_secrets": false, "changed": false, "credentials": [], "grants": [],
                "now": "2026-01-01T00:00:00Z",
            },
            "why": {"decision": "allow", "gates": [], "lifted": [], "rules": [], "reasons": [], "adds": []},
            "revision": "1",
        });
        let event = serde_json::from_value(event).unwrap();
        let write = Write::new(id, event).opens(Opens::Begins);
        self.audit.write(write).await.unwrap();
    }

    pub(super) async fn closed(&self, id: &str, outcome: Outcome) {
        let event = Event::Closed {
            outcome,
            detail: None,
            result: None,
        };
        self.audit
            .write(Write::new(id, event).opens(Opens::Ends))
            .await
            .unwrap();
    }

    pub(super) async fn found(&self, wanted: Wanted) -> Vec<String> {
        let found = self.index.find(&wanted, None, 10, |_| true).await.unwrap();
        found
            .0
            .into_iter()
            .map(|story| story.id.to_string())
            .collect()
    }

    pub(super) async fn search(&self, text: &str) -> Vec<String> {
        let text = text.to_owned();
        self.found(Wanted {
            text,
            ..Wanted::default()
        })
        .await
    }
}
