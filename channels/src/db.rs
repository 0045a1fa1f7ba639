//! The tables of channels: the inbox and what people see.

use jiff::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, QueryOrder as _,
    QuerySelect as _, Set, SqliteTransactionMode, TransactionOptions, TransactionTrait as _,
    TryInsertResult,
};
use sea_orm_migration::prelude::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::inbox::{Received, Said};
use crate::web::{Body, Item};

/// Something the database could not do.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The engine said no.
    #[error("the database refused: {0}")]
    Refused(#[from] DbErr),
    /// A row that cannot be read as what it should be.
    #[error("a stored {0} cannot be read")]
    Unreadable(&'static str),
}

/// The store over the tables.
#[derive(Clone, Debug)]
pub struct Db {
    conn: DatabaseConnection,
}

/// The steps that make the tables; a step that has landed is never changed.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(First)]
}

struct First;

impl MigrationName for First {
    fn name(&self) -> &'static str {
        "channels_0001_first"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for First {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const TABLES: [&str; 4] = [
            "CREATE TABLE inbox (seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, channel TEXT NOT NULL, place TEXT NOT NULL, \
             external_id TEXT NOT NULL, \"by\" TEXT NOT NULL, text TEXT NOT NULL, at BIGINT NOT NULL, \
             UNIQUE (channel, place, external_id))",
            // `seq` is the last change and the order of changes, `pos` the order in which it is shown.
            "CREATE TABLE items (pos INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, seq BIGINT NOT NULL, place TEXT NOT NULL, \
             id TEXT NOT NULL, at BIGINT NOT NULL, body TEXT NOT NULL, UNIQUE (place, id))",
            "CREATE UNIQUE INDEX items_by_seq ON items (seq)",
            "CREATE INDEX items_by_place ON items (place, pos)",
        ];
        for table in TABLES {
            manager.get_connection().execute_unprepared(table).await?;
        }
        Ok(())
    }
}

mod inbox {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "inbox")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub seq: i64,
        pub channel: String,
        pub place: String,
        pub external_id: String,
        pub by: String,
        pub text: String,
        pub at: i64,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

mod items {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "items")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub pos: i64,
        pub seq: i64,
        pub place: String,
        pub id: String,
        pub at: i64,
        pub body: String,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

impl TryFrom<inbox::Model> for Received {
    type Error = DbError;
    fn try_from(row: inbox::Model) -> Result<Self, DbError> {
        Ok(Self {
            seq: row.seq,
            said: Said {
                channel: row.channel,
                place: row.place,
                external_id: row.external_id,
                by: row.by,
                text: row.text,
                at: time(row.at, "message")?,
            },
        })
    }
}

impl TryFrom<items::Model> for Item {
    type Error = DbError;
    fn try_from(row: items::Model) -> Result<Self, DbError> {
        Ok(Self {
            seq: row.seq,
            pos: row.pos,
            id: row.id,
            place: row.place,
            at: time(row.at, "item")?,
            body: serde_json::from_str(&row.body).map_err(|_| DbError::Unreadable("item"))?,
        })
    }
}

fn time(ms: i64, what: &'static str) -> Result<Timestamp, DbError> {
    Timestamp::from_millisecond(ms).map_err(|_| DbError::Unreadable(what))
}

impl Db {
    /// The store over an open database whose [`migrations`] have run.
    pub fn new(conn: DatabaseConnection) -> Self {
        Self { conn }
    }

    /// Begins as the one who writes: to read first and find then that another has written is an error
    /// that no waiting mends.
    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        self.conn.begin_with_options(options).await
    }

    /// Stores a message and its item, unless it is there; then only says what is there.
    pub(crate) async fn receive(&self, said: &Said) -> Result<(Received, Option<Item>), DbError> {
        let txn = self.begin().await?;
        let row = inbox::ActiveModel {
            channel: Set(said.channel.clone()),
            place: Set(said.place.clone()),
            external_id: Set(said.external_id.clone()),
            by: Set(said.by.clone()),
            text: Set(said.text.clone()),
            at: Set(said.at.as_millisecond()),
            ..Default::default()
        };
        let once = OnConflict::columns([
            inbox::Column::Channel,
            inbox::Column::Place,
            inbox::Column::ExternalId,
        ])
        .do_nothing()
        .to_owned();
        let added = inbox::Entity::insert(row)
            .on_conflict(once)
            .try_insert()
            .exec_without_returning(&txn)
            .await?;
        let fresh = matches!(added, TryInsertResult::Inserted(1..));
        let stored = inbox::Entity::find()
            .filter(inbox::Column::Channel.eq(&said.channel))
            .filter(inbox::Column::Place.eq(&said.place))
            .filter(inbox::Column::ExternalId.eq(&said.external_id))
            .one(&txn)
            .await?
            .ok_or(DbError::Unreadable("message"))?;
        let received = Received::try_from(stored)?;
        let item = if fresh {
            let body = Body::Person {
                by: said.by.clone(),
                text: said.text.clone(),
            };
            let id = format!("in_{}", received.seq);
            Some(put(&txn, &said.place, &id, body, said.at).await?)
        } else {
            None
        };
        txn.commit().await?;
        Ok((received, item))
    }

    pub(crate) async fn received(&self, after: i64, limit: u64) -> Result<Vec<Received>, DbError> {
        let rows = inbox::Entity::find()
            .filter(inbox::Column::Seq.gt(after))
            .order_by_asc(inbox::Column::Seq)
            .limit(limit)
            .all(&self.conn)
            .await?;
        rows.into_iter().map(Received::try_from).collect()
    }

    pub(crate) async fn put(
        &self,
        place: &str,
        id: &str,
        body: Body,
        at: Timestamp,
    ) -> Result<Item, DbError> {
        let txn = self.begin().await?;
        let item = put(&txn, place, id, body, at).await?;
        txn.commit().await?;
        Ok(item)
    }

    pub(crate) async fn page(
        &self,
        place: &str,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<Item>, DbError> {
        let mut rows = items::Entity::find()
            .filter(items::Column::Place.eq(place))
            .filter(items::Column::Pos.lt(before.unwrap_or(i64::MAX)))
            .order_by_desc(items::Column::Pos)
            .limit(limit)
            .all(&self.conn)
            .await?;
        rows.reverse();
        rows.into_iter().map(Item::try_from).collect()
    }

    pub(crate) async fn item(&self, place: &str, id: &str) -> Result<Option<Item>, DbError> {
        let row = find(&self.conn, place, id).await?;
        row.map(Item::try_from).transpose()
    }

    pub(crate) async fn changed(&self, after: i64, limit: u64) -> Result<Vec<Item>, DbError> {
        let rows = items::Entity::find()
            .filter(items::Column::Seq.gt(after))
            .order_by_asc(items::Column::Seq)
            .limit(limit)
            .all(&self.conn)
            .await?;
        rows.into_iter().map(Item::try_from).collect()
    }

    pub(crate) async fn newest(&self) -> Result<i64, DbError> {
        newest(&self.conn).await
    }
}

async fn newest(conn: &impl ConnectionTrait) -> Result<i64, DbError> {
    let row = items::Entity::find()
        .order_by_desc(items::Column::Seq)
        .one(conn)
        .await?;
    Ok(row.map_or(0, |row| row.seq))
}

async fn find(
    conn: &impl ConnectionTrait,
    place: &str,
    id: &str,
) -> Result<Option<items::Model>, DbError> {
    let found = items::Entity::find()
        .filter(items::Column::Place.eq(place))
        .filter(items::Column::Id.eq(id));
    Ok(found.one(conn).await?)
}

/// Adds an item or changes it. Callers do this one after the other: the numbers have no gap and no
/// twin.
async fn put(
    conn: &impl ConnectionTrait,
    place: &str,
    id: &str,
    body: Body,
    at: Timestamp,
) -> Result<Item, DbError> {
    let text = serde_json::to_string(&body).map_err(|_| DbError::Unreadable("item"))?;
    let seq = newest(conn).await? + 1;
    let row = if let Some(row) = find(conn, place, id).await? {
        let row = items::ActiveModel {
            pos: Set(row.pos),
            seq: Set(seq),
            body: Set(text),
            ..Default::default()
        };
        row.update(conn).await?
    } else {
        let row = items::ActiveModel {
            seq: Set(seq),
            place: Set(place.to_owned()),
            id: Set(id.to_owned()),
            at: Set(at.as_millisecond()),
            body: Set(text),
            ..Default::default()
        };
        row.insert(conn).await?
    };
    row.try_into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt as _;
    use sea_orm_migration::MigratorTrait;

    use super::*;
    use crate::web::{Live, RunState, SayError, Web};

    struct Migrator;
    #[async_trait::async_trait]
    impl MigratorTrait for Migrator {
        fn migrations() -> Vec<Box<dyn MigrationTrait>> {
            super::migrations()
        }
    }

    async fn web(folder: &tempfile::TempDir) -> Arc<Web> {
        let path = folder.path().join("t.db");
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let conn = sea_orm::Database::connect(url).await.unwrap();
        Migrator::up(&conn, None).await.unwrap();
        Web::new(Db::new(conn))
    }

    fn said(id: &str, text: &str) -> Said {
        Said {
            channel: Web::NAME.into(),
            place: "demo".into(),
            external_id: id.into(),
            by: "ana".into(),
            text: text.into(),
            at: Timestamp::now(),
        }
    }

    fn notice(text: &str) -> Body {
        Body::Notice { text: text.into() }
    }

    #[tokio::test]
    async fn a_message_that_comes_twice_is_there_once() {
        let folder = tempfile::tempdir().unwrap();
        let web = web(&folder).await;
        let first = web.say(said("1", "hello")).await.unwrap();
        let again = web.say(said("1", "hello")).await.unwrap();
        assert_eq!(first.seq, again.seq);
        assert_eq!(web.received(0, 10).await.unwrap().len(), 1);
        assert_eq!(web.page("demo", None, 10).await.unwrap().len(), 1);
        let other = web.say(said("1", "other words")).await;
        assert!(matches!(other, Err(SayError::Taken(_))), "{other:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn others_who_write_to_the_same_database_are_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (web(&folder).await, web(&folder).await);
        let say = |web: Arc<Web>, place: &'static str| async move {
            for n in 0..100 {
                web.put(place, &n.to_string(), notice("x")).await.unwrap();
            }
        };
        let writing = [
            tokio::spawn(say(one.clone(), "a")),
            tokio::spawn(say(other, "b")),
        ];
        for written in writing {
            written.await.unwrap();
        }
        assert_eq!(one.newest().await.unwrap(), 200);
    }

    #[tokio::test]
    async fn a_follower_that_comes_late_or_again_misses_nothing_and_gets_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let web = web(&folder).await;
        for n in 0..450 {
            web.put("demo", &format!("n{n}"), notice("x"))
                .await
                .unwrap();
        }
        // A change of an old item comes at the end, at its old place.
        let changed = web.put("demo", "n3", notice("y")).await.unwrap();
        let items = |web: &Arc<Web>, after| Box::pin(web.follow(after));
        let mut all = items(&web, 0);
        let mut seen = Vec::new();
        while seen.len() < 450 {
            match all.next().await.unwrap().unwrap() {
                Live::Item(item) => seen.push(item),
                Live::Writing { .. } | Live::Dropped { .. } => panic!("nothing is written"),
            }
        }
        assert!(seen.is_sorted_by_key(|item| item.seq));
        assert_eq!(seen.last().unwrap(), &changed);
        assert_eq!(changed.pos, 4);

        web.write("demo", "m", "he");
        web.write("demo", "m", "llo");
        let mut late = items(&web, changed.seq);
        let writing = late.next().await.unwrap().unwrap();
        assert!(
            matches!(&writing, Live::Writing { from: 0, text, .. } if text == "hello"),
            "{writing:?}"
        );
        let run = Body::Run {
            run: "r".into(),
            state: RunState::Done,
            text: None,
        };
        let put = web.put("demo", "m", run).await.unwrap();
        assert_eq!(late.next().await.unwrap().unwrap(), Live::Item(put));
    }
}
