//! What questions need beyond their first table.

use sea_orm_migration::prelude::*;

pub(super) fn steps() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(People), Box::new(Always)]
}

struct People;

impl MigrationName for People {
    fn name(&self) -> &'static str {
        "m0007_people"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for People {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const TABLES: [&str; 4] = [
            // Of questions that take more than one person; nobody counts twice.
            "CREATE TABLE approval_yes (question TEXT NOT NULL, person TEXT NOT NULL, at BIGINT NOT NULL, \
             PRIMARY KEY (question, person))",
            // The question whose arguments a person changed, and the one that took its place.
            "ALTER TABLE approvals ADD COLUMN edits TEXT",
            "ALTER TABLE approvals ADD COLUMN edited_as TEXT",
            // Questions that are shown on one card.
            "ALTER TABLE approvals ADD COLUMN batch TEXT",
        ];
        for table in TABLES {
            manager.get_connection().execute_unprepared(table).await?;
        }
        Ok(())
    }
}

struct Always;

impl MigrationName for Always {
    fn name(&self) -> &'static str {
        "m0008_always"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Always {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const TABLE: &str = "CREATE TABLE always_rules (question TEXT PRIMARY KEY NOT NULL, \"group\" TEXT NOT NULL, \
             rule TEXT NOT NULL, words TEXT NOT NULL, \"by\" TEXT NOT NULL, at BIGINT NOT NULL, until BIGINT NOT NULL, \
             revoked_by TEXT, revoked_at BIGINT)";
        manager.get_connection().execute_unprepared(TABLE).await?;
        Ok(())
    }
}
