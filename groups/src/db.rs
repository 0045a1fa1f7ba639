//! The tables of groups. No database type leaves this module but through the gateway's own.

pub(crate) mod notes;

use sea_orm_migration::MigrationTrait;

/// The steps that make these tables, in their order. A step that has landed is never changed.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(notes::Migration)]
}
