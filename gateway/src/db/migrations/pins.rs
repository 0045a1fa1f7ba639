//! What was pinned of each server.

use sea_orm_migration::prelude::*;

pub(super) struct Pins;

impl MigrationName for Pins {
    fn name(&self) -> &'static str {
        "m0004_pins"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Pins {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const TABLE: &str = "CREATE TABLE pins (server TEXT NOT NULL, identity TEXT NOT NULL, digest TEXT NOT NULL, \
             state TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (server, identity))";
        manager.get_connection().execute_unprepared(TABLE).await?;
        Ok(())
    }
}
