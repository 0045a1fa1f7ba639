//! Messages of conversations.

use agent::{Message, Role};
use jiff::Timestamp;
use policy::ids::{ConversationId, RunId};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, QueryTrait as _, Set,
};
use serde_json::Value;

use super::tables::{messages, results, runs};
use super::{Db, DbError, Unshown, millis};
use crate::bounds::{KEPT, PAGE};
use crate::history::{Kind, Stored};
use crate::host::RunKey;

/// Adds a message at the end.
pub(super) async fn add(
    conn: &impl ConnectionTrait,
    key: &RunKey,
    kind: Kind,
    message: &Message,
    item: Option<u64>,
    at: Timestamp,
) -> Result<(), DbError> {
    let item = item.and_then(|item| i64::try_from(item).ok());
    let row = messages::ActiveModel {
        conversation: Set(key.conversation.as_str().to_owned()),
        run: Set(key.run.as_str().to_owned()),
        kind: Set(kind.name().to_owned()),
        role: Set(role(message.role).to_owned()),
        content: Set(Value::from(message.content.clone()).to_string()),
        shown: Set(item.is_none()),
        item: Set(item),
        at: Set(millis(at)),
        ..Default::default()
    };
    row.insert(conn).await?;
    Ok(())
}

/// Forgets the oldest messages of a conversation.
pub(super) async fn prune(conn: &impl ConnectionTrait, conversation: &str) -> Result<(), DbError> {
    let oldest = messages::Entity::find()
        .filter(messages::Column::Conversation.eq(conversation))
        .order_by_desc(messages::Column::Seq)
        .offset(KEPT)
        .one(conn)
        .await?;
    if let Some(oldest) = oldest {
        messages::Entity::delete_many()
            .filter(messages::Column::Conversation.eq(conversation))
            .filter(messages::Column::Seq.lte(oldest.seq))
            .filter(messages::Column::Shown.eq(true))
            .exec(conn)
            .await?;
    }
    Ok(())
}

impl Db {
    /// The end of a conversation: the messages of a run, and at least `budget` bytes before them if
    /// there are as many.
    pub(crate) async fn end(&self, key: &RunKey, budget: usize) -> Result<Vec<Stored>, DbError> {
        let run = key.run.as_str();
        let mut found: Vec<Stored> = Vec::new();
        let mut bytes = 0;
        loop {
            let before = found.last().map_or(i64::MAX, |one| one.seq);
            let rows = messages::Entity::find()
                .filter(messages::Column::Conversation.eq(key.conversation.as_str()))
                .filter(messages::Column::Seq.lt(before))
                .order_by_desc(messages::Column::Seq)
                .limit(PAGE)
                .all(&self.conn)
                .await?;
            let more = !rows.is_empty();
            for row in rows {
                let one = Stored::try_from(row)?;
                bytes += one.bytes;
                found.push(one);
            }
            let before_run = found.last().is_none_or(|oldest| oldest.run != run);
            if !more || (bytes > budget && before_run) {
                break;
            }
        }
        found.reverse();
        Ok(found)
    }

    /// The messages of a run, oldest first.
    pub(crate) async fn messages(&self, run: &RunId) -> Result<Vec<Stored>, DbError> {
        let rows = messages::Entity::find()
            .filter(messages::Column::Run.eq(run.as_str()))
            .order_by_asc(messages::Column::Seq);
        let rows = rows.all(&self.conn).await?;
        rows.into_iter().map(Stored::try_from).collect()
    }

    /// Results of a run's open calls.
    pub(crate) async fn results(&self, run: &RunId) -> Result<Vec<(String, Value)>, DbError> {
        let rows = results::Entity::find().filter(results::Column::Run.eq(run.as_str()));
        let rows = rows.all(&self.conn).await?;
        let read = rows.into_iter().map(|row| {
            let block = serde_json::from_str(&row.block);
            Ok((row.call, block.map_err(|_| DbError::Unreadable("result"))?))
        });
        read.collect()
    }

    /// Messages, of a conversation or of all, that people are still to see.
    pub(crate) async fn unshown(
        &self,
        conversation: Option<&ConversationId>,
    ) -> Result<Vec<Unshown>, DbError> {
        let rows = messages::Entity::find()
            .filter(Expr::cust("NOT messages.shown"))
            .apply_if(conversation, |rows, conversation| {
                rows.filter(messages::Column::Conversation.eq(conversation.as_str()))
            })
            .order_by_asc(messages::Column::Seq);
        let mut found = Vec::new();
        for row in rows.all(&self.conn).await? {
            let run = runs::Entity::find_by_id(row.run.as_str())
                .one(&self.conn)
                .await?;
            let item = row.item.and_then(|item| u64::try_from(item).ok());
            found.push(Unshown {
                seq: row.seq,
                group: run.ok_or(DbError::Unreadable("run"))?.grp,
                run: row.run.clone(),
                item: item.ok_or(DbError::Unreadable("message"))?,
                content: Stored::try_from(row)?.message.content,
            });
        }
        Ok(found)
    }

    /// People see this message.
    pub(crate) async fn seen(&self, seq: i64) -> Result<(), DbError> {
        messages::Entity::update_many()
            .col_expr(messages::Column::Shown, Expr::value(true))
            .filter(messages::Column::Seq.eq(seq))
            .exec(&self.conn)
            .await?;
        Ok(())
    }
}

impl TryFrom<messages::Model> for Stored {
    type Error = DbError;
    fn try_from(row: messages::Model) -> Result<Self, DbError> {
        let unreadable = || DbError::Unreadable("message");
        let kinds = [Kind::Person, Kind::Agent, Kind::Note];
        let roles = [Role::User, Role::Assistant];
        Ok(Self {
            seq: row.seq,
            run: row.run,
            kind: kinds
                .into_iter()
                .find(|kind| kind.name() == row.kind)
                .ok_or_else(unreadable)?,
            bytes: row.content.len(),
            message: Message {
                role: roles
                    .into_iter()
                    .find(|one| role(*one) == row.role)
                    .ok_or_else(unreadable)?,
                content: serde_json::from_str(&row.content).map_err(|_| unreadable())?,
            },
        })
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}
