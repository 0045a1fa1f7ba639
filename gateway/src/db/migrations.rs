//! The tables, and the steps that made them. A step that has landed is never changed.

mod approvals;
mod pins;
mod secrets;

use sea_orm_migration::prelude::*;

pub(super) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut steps: Vec<Box<dyn MigrationTrait>> = vec![
            Box::new(First),
            Box::new(Usage),
            Box::new(Sessions),
            Box::new(Known),
        ];
        steps.extend(approvals::steps());
        steps.push(Box::new(pins::Pins));
        steps.extend(secrets::steps());
        steps.push(Box::new(Log));
        steps.extend(channels::db::migrations());
        steps.extend(groups::db::migrations());
        steps
    }
}

struct First;

impl MigrationName for First {
    fn name(&self) -> &'static str {
        "m0001_first"
    }
}

const TABLES: [&str; 8] = [
    "CREATE TABLE audit (seq INTEGER PRIMARY KEY NOT NULL, id TEXT NOT NULL, at BIGINT NOT NULL, body TEXT NOT NULL, \
     prev TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE INDEX audit_by_id ON audit (id)",
    // One row: where the chain ends, with a keyed digest, so that cutting off its tail is noticed.
    "CREATE TABLE chain_end (one INTEGER PRIMARY KEY NOT NULL, seq BIGINT NOT NULL, hash TEXT NOT NULL, mac TEXT NOT NULL)",
    // Actions that were recorded and not closed yet; `doing` once they may have begun.
    "CREATE TABLE running (id TEXT PRIMARY KEY NOT NULL, doing BOOLEAN NOT NULL)",
    "CREATE TABLE labels (conversation TEXT NOT NULL, label TEXT NOT NULL, action TEXT NOT NULL, tool TEXT NOT NULL, \
     at BIGINT NOT NULL, PRIMARY KEY (conversation, label))",
    "CREATE TABLE approvals (id TEXT PRIMARY KEY NOT NULL, action TEXT NOT NULL, state TEXT NOT NULL, execution TEXT NOT NULL, \
     \"group\" TEXT NOT NULL, conversation TEXT NOT NULL, tool TEXT NOT NULL, shown TEXT NOT NULL, sealed BLOB, \
     approved TEXT NOT NULL, reasons TEXT NOT NULL, scope TEXT, decided_by TEXT, decided_at BIGINT, reason TEXT, \
     asked_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, answer BLOB, delivered BOOLEAN NOT NULL)",
    "CREATE TABLE tokens (id TEXT PRIMARY KEY NOT NULL, \"group\" TEXT NOT NULL, name TEXT NOT NULL, kid TEXT NOT NULL, \
     created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, revoked_at BIGINT)",
    "CREATE TABLE listings (server TEXT PRIMARY KEY NOT NULL, identity TEXT NOT NULL, listing TEXT NOT NULL, at BIGINT NOT NULL)",
];

#[async_trait::async_trait]
impl MigrationTrait for First {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            manager.get_connection().execute_unprepared(table).await?;
        }
        Ok(())
    }
}

struct Usage;

impl MigrationName for Usage {
    fn name(&self) -> &'static str {
        "m0002_usage"
    }
}

const USAGE: [&str; 2] = [
    "CREATE TABLE usage (action TEXT PRIMARY KEY NOT NULL, at BIGINT NOT NULL, \"group\" TEXT NOT NULL, \
     conversation TEXT NOT NULL, run TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, input BIGINT NOT NULL, \
     output BIGINT NOT NULL, cache_read BIGINT NOT NULL, cache_write BIGINT NOT NULL, status INTEGER NOT NULL)",
    "CREATE INDEX usage_by_time ON usage (at)",
];

#[async_trait::async_trait]
impl MigrationTrait for Usage {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in USAGE {
            manager.get_connection().execute_unprepared(table).await?;
        }
        Ok(())
    }
}

struct Sessions;

impl MigrationName for Sessions {
    fn name(&self) -> &'static str {
        "m0003_sessions"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Sessions {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const TABLES: [&str; 2] = [
            // Secrets are stored as digests; `refused` counts the attempts that were turned away.
            "CREATE TABLE login_links (id TEXT PRIMARY KEY NOT NULL, secret TEXT NOT NULL, person TEXT NOT NULL, \
             origin TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, used_at BIGINT, \
             refused BIGINT NOT NULL)",
            "CREATE TABLE sessions (id TEXT PRIMARY KEY NOT NULL, cookie TEXT NOT NULL, token TEXT NOT NULL, \
             person TEXT NOT NULL, origin TEXT NOT NULL, created_at BIGINT NOT NULL, seen_at BIGINT NOT NULL, \
             expires_at BIGINT NOT NULL, ended_at BIGINT)",
        ];
        for table in TABLES {
            manager.get_connection().execute_unprepared(table).await?;
        }
        Ok(())
    }
}

struct Known;

impl MigrationName for Known {
    fn name(&self) -> &'static str {
        "m0006_known"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Known {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const TABLES: [&str; 4] = [
            // What people wrote and trusted sources told, by conversation: digests of words and addresses.
            "CREATE TABLE known (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, conversation TEXT NOT NULL, \
             person BOOLEAN NOT NULL, origin TEXT NOT NULL, marks BLOB NOT NULL, addresses BLOB NOT NULL)",
            "CREATE UNIQUE INDEX known_once ON known (conversation, origin)",
            "CREATE INDEX known_by_conversation ON known (conversation, person, id)",
            // What conversations that had read what strangers wrote put into servers.
            "CREATE TABLE soil (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, server TEXT NOT NULL, marks BLOB NOT NULL)",
        ];
        for table in TABLES {
            manager.get_connection().execute_unprepared(table).await?;
        }
        Ok(())
    }
}

struct Log;

impl MigrationName for Log {
    fn name(&self) -> &'static str {
        "m0005_log"
    }
}

const LOG: [&str; 5] = [
    // Large values of entries, once each; `seq` is the last entry that names one.
    "CREATE TABLE payloads (digest TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL, seq BIGINT NOT NULL)",
    "CREATE INDEX payloads_by_entry ON payloads (seq)",
    // One row, once the oldest entries were removed: what the first that is left follows, signed.
    "CREATE TABLE chain_start (one INTEGER PRIMARY KEY NOT NULL, seq BIGINT NOT NULL, hash TEXT NOT NULL, \
     at BIGINT NOT NULL, signature TEXT NOT NULL)",
    // Entries are only ever added, and only the oldest go. Whoever writes SQL can drop this; it holds
    // us to it, and the chain tells of the others.
    "CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the log is only added to'); END",
    "CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit \
     WHEN OLD.seq > (SELECT COALESCE(MAX(seq), 0) FROM chain_start) \
     BEGIN SELECT RAISE(ABORT, 'the log is only added to'); END",
];

#[async_trait::async_trait]
impl MigrationTrait for Log {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for step in LOG {
            manager.get_connection().execute_unprepared(step).await?;
        }
        Ok(())
    }
}
