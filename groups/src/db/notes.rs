//! Rows of notes.

use jiff::Timestamp;
use policy::ids::GroupName;
use policy::label::Labels;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{DatabaseConnection, QueryOrder, QuerySelect, Set};
use sea_orm_migration::prelude::*;

use crate::notes::{Note, NoteError, Notes, Title};

mod row {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notes")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub group: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub title: String,
        pub text: String,
        pub labels: String,
        pub updated_at: i64,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// The step that makes the table.
pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "groups_0001_notes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = "CREATE TABLE notes (\"group\" TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL, \
                     labels TEXT NOT NULL, updated_at BIGINT NOT NULL, PRIMARY KEY (\"group\", title))";
        manager.get_connection().execute_unprepared(table).await?;
        Ok(())
    }
}

impl Notes {
    /// The notes of a database whose tables are there.
    pub fn new(conn: DatabaseConnection) -> Self {
        Self::over(Rows(conn))
    }
}

/// The table.
#[derive(Clone, Debug)]
pub(crate) struct Rows(DatabaseConnection);

impl From<DbErr> for NoteError {
    fn from(error: DbErr) -> Self {
        Self::Storage(error.to_string())
    }
}

impl TryFrom<row::Model> for Note {
    type Error = NoteError;
    fn try_from(row: row::Model) -> Result<Self, NoteError> {
        let unreadable = || NoteError::Storage(format!("the note `{}` cannot be read", row.title));
        Ok(Self {
            labels: labels(&row.labels).ok_or_else(unreadable)?,
            updated_at: Timestamp::from_millisecond(row.updated_at).map_err(|_| unreadable())?,
            title: row.title,
            text: row.text,
        })
    }
}

fn labels(stored: &str) -> Option<Labels> {
    serde_json::from_str(stored).ok()
}

impl Rows {
    pub(crate) async fn all(&self, group: &GroupName, most: u64) -> Result<Vec<Note>, NoteError> {
        let rows = row::Entity::find()
            .filter(row::Column::Group.eq(group.as_str()))
            .order_by_desc(row::Column::UpdatedAt)
            .order_by_asc(row::Column::Title)
            .limit(most)
            .all(&self.0)
            .await?;
        rows.into_iter().map(Note::try_from).collect()
    }

    pub(crate) async fn one(
        &self,
        group: &GroupName,
        title: &Title,
    ) -> Result<Option<Note>, NoteError> {
        let key = (group.to_string(), title.as_str().to_owned());
        let row = row::Entity::find_by_id(key).one(&self.0).await?;
        row.map(Note::try_from).transpose()
    }

    pub(crate) async fn count(&self, group: &GroupName) -> Result<u64, NoteError> {
        let all = row::Entity::find().filter(row::Column::Group.eq(group.as_str()));
        Ok(all.count(&self.0).await?)
    }

    pub(crate) async fn put(&self, group: &GroupName, note: Note) -> Result<(), NoteError> {
        let unwritable = |_| NoteError::Storage("its labels cannot be written".to_owned());
        let row = row::ActiveModel {
            group: Set(group.to_string()),
            title: Set(note.title),
            text: Set(note.text),
            labels: Set(serde_json::to_string(&note.labels).map_err(unwritable)?),
            updated_at: Set(note.updated_at.as_millisecond()),
        };
        let columns = [
            row::Column::Text,
            row::Column::Labels,
            row::Column::UpdatedAt,
        ];
        row::Entity::insert(row)
            .on_conflict(
                OnConflict::columns([row::Column::Group, row::Column::Title])
                    .update_columns(columns)
                    .to_owned(),
            )
            .exec_without_returning(&self.0)
            .await?;
        Ok(())
    }

    pub(crate) async fn remove(&self, group: &GroupName, title: &Title) -> Result<bool, NoteError> {
        let key = (group.to_string(), title.as_str().to_owned());
        let gone = row::Entity::delete_by_id(key).exec(&self.0).await?;
        Ok(gone.rows_affected > 0)
    }
}

#[cfg(test)]
pub(crate) async fn scratch(dir: &std::path::Path) -> Notes {
    use sea_orm::sqlx::sqlite::SqliteSynchronous;
    let url = format!("sqlite://{}/test.db?mode=rwc", dir.display());
    let mut options = sea_orm::ConnectOptions::new(url);
    // A test need not outlive a power cut.
    options.map_sqlx_sqlite_opts(|sqlite| sqlite.synchronous(SqliteSynchronous::Off));
    let conn = sea_orm::Database::connect(options).await.unwrap();
    Migration.up(&SchemaManager::new(&conn)).await.unwrap();
    Notes::new(conn)
}
