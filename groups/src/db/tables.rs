//! The tables of queue, runs and conversations.

use sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::prelude::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub(super) struct Engine;

impl MigrationName for Engine {
    fn name(&self) -> &'static str {
        "groups_0001_engine"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Engine {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const STEPS: [&str; 13] = [
            // Up to which number the inbox was read.
            "CREATE TABLE inbox_read (id INTEGER PRIMARY KEY NOT NULL, seq BIGINT NOT NULL)",
            "INSERT INTO inbox_read (id, seq) VALUES (1, 0)",
            // `first` is the number of the message that began it, and the order of the queue; `shown`
            // the state that people see; `closed` whether the gateway was told that it is over.
            "CREATE TABLE runs (id TEXT PRIMARY KEY NOT NULL, grp TEXT NOT NULL, conversation TEXT NOT NULL, \
             person TEXT NOT NULL, state TEXT NOT NULL, launch BIGINT NOT NULL, lost BIGINT NOT NULL, first BIGINT NOT NULL, \
             last_event BIGINT NOT NULL, began BIGINT NOT NULL, ended BIGINT, error TEXT, shown TEXT NOT NULL, \
             closed BOOLEAN NOT NULL)",
            "CREATE UNIQUE INDEX runs_one_at_a_time ON runs (grp) WHERE state IN ('starting', 'working', 'waiting')",
            "CREATE INDEX runs_by_group ON runs (grp, first)",
            // What was said and no agent has heard; its number is that of the inbox.
            "CREATE TABLE said (seq BIGINT PRIMARY KEY NOT NULL, run TEXT NOT NULL, grp TEXT NOT NULL, text TEXT NOT NULL, \
             at BIGINT NOT NULL)",
            "CREATE INDEX said_by_run ON said (run, seq)",
            "CREATE TABLE messages (seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, conversation TEXT NOT NULL, \
             run TEXT NOT NULL, kind TEXT NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL, item BIGINT, \
             shown BOOLEAN NOT NULL, at BIGINT NOT NULL)",
            "CREATE INDEX messages_by_conversation ON messages (conversation, seq)",
            "CREATE INDEX messages_by_run ON messages (run, seq)",
            "CREATE INDEX messages_not_shown ON messages (seq) WHERE NOT shown",
            // Results of tool calls whose message is still to come.
            "CREATE TABLE results (run TEXT NOT NULL, call TEXT NOT NULL, block TEXT NOT NULL, PRIMARY KEY (run, call))",
            // Why a message was not taken, until a person was told.
            "CREATE TABLE refusals (seq BIGINT PRIMARY KEY NOT NULL, place TEXT NOT NULL, text TEXT NOT NULL)",
        ];
        for step in STEPS {
            manager.get_connection().execute_unprepared(step).await?;
        }
        Ok(())
    }
}

macro_rules! table {
    ($module:ident, $name:literal, { $($(#[$attribute:meta])* $column:ident: $type:ty,)* }) => {
        #[expect(unreachable_pub, reason = "the derives name what is made here in public items")]
        pub(super) mod $module {
            use sea_orm::entity::prelude::*;
            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
            #[sea_orm(table_name = $name)]
            pub struct Model {
                $($(#[$attribute])* pub $column: $type,)*
            }
            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}
            impl ActiveModelBehavior for ActiveModel {}
        }
    };
}

table!(inbox_read, "inbox_read", {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    seq: i64,
});
table!(runs, "runs", {
    #[sea_orm(primary_key, auto_increment = false)]
    id: String,
    grp: String,
    conversation: String,
    person: String,
    state: String,
    launch: i64,
    lost: i64,
    first: i64,
    last_event: i64,
    began: i64,
    ended: Option<i64>,
    error: Option<String>,
    shown: String,
    closed: bool,
});
table!(said, "said", {
    #[sea_orm(primary_key, auto_increment = false)]
    seq: i64,
    run: String,
    grp: String,
    text: String,
    at: i64,
});
table!(messages, "messages", {
    #[sea_orm(primary_key)]
    seq: i64,
    conversation: String,
    run: String,
    kind: String,
    role: String,
    content: String,
    item: Option<i64>,
    shown: bool,
    at: i64,
});
table!(results, "results", {
    #[sea_orm(primary_key, auto_increment = false)]
    run: String,
    #[sea_orm(primary_key, auto_increment = false)]
    call: String,
    block: String,
});
table!(refusals, "refusals", {
    #[sea_orm(primary_key, auto_increment = false)]
    seq: i64,
    place: String,
    text: String,
});
