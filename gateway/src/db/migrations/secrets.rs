//! What is remembered of secrets that servers told.

use sea_orm_migration::prelude::*;

/// Its steps.
pub(super) fn steps() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(Words)]
}

struct Words;

impl MigrationName for Words {
    fn name(&self) -> &'static str {
        "m0009_secrets"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Words {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Keyed digests of words, and how long each is: what to compare with which.
        let table = "CREATE TABLE secret_words (digest TEXT PRIMARY KEY NOT NULL, length BIGINT NOT NULL, at BIGINT NOT NULL)";
        manager.get_connection().execute_unprepared(table).await?;
        Ok(())
    }
}
