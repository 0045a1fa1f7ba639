//! Rows of the log: the chain, its end, what is open, and the labels that go with it.

mod start;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use policy::action::Digest;
use policy::destination::words::Mark;
use policy::ids::{ActionId, ConversationId};
use policy::label::{Label, Labels, Provenance};
use policy::record::{Entry, Walk};
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, QueryOrder, Statement, TransactionTrait};

use super::{Db, DbError};
use crate::fault;

/// The most ids that are asked for at once.
const MOST_IDS: usize = 500;

mod audit {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub seq: i64,
        pub id: String,
        pub at: i64,
        pub body: String,
        pub prev: String,
        pub hash: String,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

mod chain_end {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "chain_end")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub one: i32,
        pub seq: i64,
        pub hash: String,
        pub mac: String,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

mod running {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "running")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub doing: bool,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

mod labels {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "labels")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub conversation: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub label: String,
        pub action: String,
        pub tool: String,
        pub at: i64,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

impl From<audit::Model> for Entry {
    fn from(row: audit::Model) -> Self {
        let audit::Model {
            seq,
            id,
            at,
            body,
            prev,
            hash,
        } = row;
        Self {
            seq,
            id,
            at,
            body,
            prev,
            hash,
        }
    }
}

pub use start::Start;

/// What an entry does to the list of open actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// Nothing.
    No,
    /// The action waits for a person.
    Waits,
    /// The action may have begun when this is written.
    Begins,
    /// The action has ended.
    Ends,
}

/// One entry with what goes into the same transaction.
#[derive(Clone, Debug)]
pub struct Link {
    /// The entry.
    pub entry: Entry,
    /// Its large values, by their digests.
    pub apart: Vec<(Digest, String)>,
    /// What it does to the list of open actions.
    pub opens: Opens,
    /// The labels that a conversation takes on.
    pub labels: Vec<(ConversationId, Label, Provenance)>,
    /// What the action puts into its server.
    pub put: Option<(String, Vec<Mark>)>,
    /// The labels that a conversation loses.
    pub loses: Option<(ConversationId, BTreeSet<Label>)>,
}

/// Where the chain ends, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The last position.
    pub walk: Walk,
    /// Keyed digest over it.
    pub mac: String,
}

impl Db {
    /// Where the chain ends; `None` while it is empty.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn chain_end(&self) -> Result<Option<End>, DbError> {
        let row = chain_end::Entity::find_by_id(1).one(&self.conn).await?;
        Ok(row.map(|row| End {
            walk: Walk {
                seq: row.seq,
                hash: row.hash,
            },
            mac: row.mac,
        }))
    }

    /// Adds links to the chain in one transaction; they are on the disk when it returns.
    ///
    /// # Errors
    /// [`DbError`], and then nothing was added.
    pub async fn chain_add(&self, links: &[Link], mac: String) -> Result<(), DbError> {
        let Some(last) = links.last() else {
            return Ok(());
        };
        fault::db("log.write").await?;
        let tx = self.conn.begin().await?;
        write::entries(&tx, links).await?;
        write::payloads(&tx, links).await?;
        write::end(&tx, &last.entry, mac).await?;
        write::open(&tx, links).await?;
        // In their order: a label that was taken after it was lost is there again.
        for some in links.split_inclusive(|link| link.loses.is_some()) {
            write::labels(&tx, some).await?;
            write::lost(&tx, some).await?;
        }
        for (server, marks) in links.iter().filter_map(|link| link.put.as_ref()) {
            super::known::add_soil(&tx, server, marks).await?;
        }
        fault::db("log.commit").await?;
        tx.commit().await?;
        fault::db("log.committed").await
    }

    /// Whether the log is empty though there is what only comes with a record: tokens, questions,
    /// labels, open actions.
    ///
    /// # Errors
    /// [`DbError`], if that cannot be read.
    pub async fn chain_is_missing(&self) -> Result<bool, DbError> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM audit) AND NOT EXISTS (SELECT 1 FROM chain_end) \
                   AND (EXISTS (SELECT 1 FROM tokens) OR EXISTS (SELECT 1 FROM approvals) \
                   OR EXISTS (SELECT 1 FROM labels) OR EXISTS (SELECT 1 FROM running)) AS missing";
        let statement = Statement::from_string(self.conn.get_database_backend(), sql);
        let row = self.conn.query_one_raw(statement).await?;
        Ok(row.is_some_and(|row| row.try_get("", "missing").unwrap_or(true)))
    }

    /// Adds a link and leaves the end where it was, as only SQL by hand does.
    #[cfg(test)]
    pub(crate) async fn chain_forge(&self, link: &Link, end: &End) -> Result<(), DbError> {
        self.chain_add(std::slice::from_ref(link), end.mac.clone())
            .await?;
        let back = chain_end::ActiveModel {
            one: sea_orm::Set(1),
            seq: sea_orm::Set(end.walk.seq),
            hash: sea_orm::Set(end.walk.hash.clone()),
            mac: sea_orm::Set(end.mac.clone()),
        };
        chain_end::Entity::update(back).exec(&self.conn).await?;
        Ok(())
    }

    /// The actions that were recorded and not closed: id, and whether they may have begun.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn running(&self) -> Result<Vec<(String, bool)>, DbError> {
        let rows = running::Entity::find().all(&self.conn).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.doing)).collect())
    }

    /// The labels of every conversation.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn labels(&self) -> Result<BTreeMap<ConversationId, Labels>, DbError> {
        let mut all: BTreeMap<ConversationId, Labels> = BTreeMap::new();
        for row in labels::Entity::find().all(&self.conn).await? {
            let unreadable = DbError::Unreadable { what: "label" };
            let label = match row.label.as_str() {
                "untrusted" => Label::Untrusted,
                "secret" => Label::Secret,
                _ => return Err(unreadable),
            };
            let from = Provenance {
                action: ActionId::new(row.action),
                tool: row.tool,
                at: Timestamp::from_millisecond(row.at).map_err(|_| unreadable)?,
            };
            all.entry(ConversationId::new(row.conversation))
                .or_default()
                .add(label, &from);
        }
        Ok(all)
    }

    /// A page of the chain in its order, from a position on.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn chain_page(&self, after: i64, rows: u64) -> Result<Vec<Entry>, DbError> {
        // By position: names cost more than reading the row.
        let sql =
            "SELECT seq, id, at, body, prev, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?";
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let backend = self.conn.get_database_backend();
        let query = Statement::from_sql_and_values(backend, sql, [after.into(), limit.into()]);
        let rows = self.conn.query_all_raw(query).await?;
        rows.into_iter()
            .map(|row| {
                Ok(Entry {
                    seq: row.try_get_by_index(0)?,
                    id: row.try_get_by_index(1)?,
                    at: row.try_get_by_index(2)?,
                    body: row.try_get_by_index(3)?,
                    prev: row.try_get_by_index(4)?,
                    hash: row.try_get_by_index(5)?,
                })
            })
            .collect()
    }

    /// All entries of some actions, oldest first.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn entries_of(&self, ids: Vec<String>) -> Result<Vec<Entry>, DbError> {
        let rows = audit::Entity::find()
            .filter(audit::Column::Id.is_in(ids))
            .order_by_asc(audit::Column::Seq)
            .all(&self.conn)
            .await?;
        self.whole(rows.into_iter().map(Entry::from).collect())
            .await
    }

    /// All entries of the actions in whose entries a text occurs, oldest first.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn entries_with(&self, text: &str) -> Result<Vec<Entry>, DbError> {
        let sql = "SELECT DISTINCT id FROM audit WHERE instr(body, ?1) > 0";
        let mut entries = Vec::new();
        for ids in self.ids(sql, [text.into()]).await?.chunks(MOST_IDS) {
            entries.extend(self.entries_of(ids.to_vec()).await?);
        }
        Ok(entries)
    }

    /// The column `id` of what a query finds.
    async fn ids(
        &self,
        sql: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<String>, DbError> {
        let backend = self.conn.get_database_backend();
        let query = Statement::from_sql_and_values(backend, sql, values);
        let rows = self.conn.query_all_raw(query).await?;
        rows.into_iter()
            .map(|row| Ok(row.try_get("", "id")?))
            .collect()
    }
}
