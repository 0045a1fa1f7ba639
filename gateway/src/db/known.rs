//! Rows of what people wrote and trusted sources told, and of what was put into servers: digests only.

use policy::destination::words::Mark;
use policy::destination::{Origin, Source};
use policy::ids::ConversationId;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{Condition, ConnectionTrait, QueryOrder, QuerySelect, Set};

use super::{Db, DbError};

mod row {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "known")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub conversation: String,
        pub person: bool,
        pub origin: String,
        pub marks: Vec<u8>,
        pub addresses: Vec<u8>,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

mod soil {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "soil")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub server: String,
        pub marks: Vec<u8>,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

impl TryFrom<row::Model> for Source {
    type Error = DbError;
    fn try_from(row: row::Model) -> Result<Self, DbError> {
        let read = || {
            Some(Self {
                origin: serde_json::from_str::<Origin>(&row.origin).ok()?,
                marks: Mark::unpack(&row.marks)?,
                values: Mark::unpack(&row.addresses)?,
            })
        };
        read().ok_or(DbError::Unreadable {
            what: "word of a person or a source",
        })
    }
}

/// Adds what an action puts into a server, in the transaction of its record.
pub(super) async fn add_soil(
    conn: &impl ConnectionTrait,
    server: &str,
    marks: &[Mark],
) -> Result<(), DbError> {
    if marks.is_empty() {
        return Ok(());
    }
    let row = soil::ActiveModel {
        server: Set(server.to_owned()),
        marks: Set(Mark::pack(marks)),
        ..Default::default()
    };
    soil::Entity::insert(row)
        .exec_without_returning(conn)
        .await?;
    Ok(())
}

impl Db {
    /// All that is known, each conversation's in its order.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn known(&self) -> Result<Vec<(ConversationId, Source)>, DbError> {
        let rows = row::Entity::find().order_by_asc(row::Column::Id);
        let rows = rows.all(&self.conn).await?;
        rows.into_iter()
            .map(|row| {
                let conversation = ConversationId::new(row.conversation.clone());
                Ok((conversation, Source::try_from(row)?))
            })
            .collect()
    }

    /// What was put into servers.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn soil(&self) -> Result<Vec<(String, Vec<Mark>)>, DbError> {
        let rows = soil::Entity::find().order_by_asc(soil::Column::Id);
        let rows = rows.all(&self.conn).await?;
        let unreadable = DbError::Unreadable {
            what: "trace of what was put into a server",
        };
        rows.into_iter()
            .map(|row| Some((row.server, Mark::unpack(&row.marks)?)))
            .collect::<Option<Vec<_>>>()
            .ok_or(unreadable)
    }

    /// Adds a message, once, or an answer; of its kind, the newest `kept` of the conversation stay.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be stored.
    pub async fn add_known(
        &self,
        conversation: &ConversationId,
        source: &Source,
        kept: usize,
    ) -> Result<(), DbError> {
        let unreadable = DbError::Unreadable { what: "origin" };
        let person = matches!(source.origin, Origin::Person { .. });
        let row = row::ActiveModel {
            conversation: Set(conversation.to_string()),
            person: Set(person),
            origin: Set(serde_json::to_string(&source.origin).map_err(|_| unreadable)?),
            marks: Set(Mark::pack(&source.marks)),
            addresses: Set(Mark::pack(&source.values)),
            ..Default::default()
        };
        let once = OnConflict::columns([row::Column::Conversation, row::Column::Origin])
            .do_nothing()
            .to_owned();
        row::Entity::insert(row)
            .on_conflict(once)
            .try_insert()
            .exec_without_returning(&self.conn)
            .await?;
        let of_its_kind = Condition::all()
            .add(row::Column::Conversation.eq(conversation.as_str()))
            .add(row::Column::Person.eq(person));
        let oldest = row::Entity::find()
            .filter(of_its_kind.clone())
            .order_by_desc(row::Column::Id)
            .offset(u64::try_from(kept).unwrap_or(u64::MAX))
            .limit(1)
            .one(&self.conn)
            .await?;
        if let Some(oldest) = oldest {
            row::Entity::delete_many()
                .filter(of_its_kind.add(row::Column::Id.lte(oldest.id)))
                .exec(&self.conn)
                .await?;
        }
        Ok(())
    }
}
