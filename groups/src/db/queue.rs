//! What was said, until an agent hears it.

use channels::inbox::Received;
use jiff::Timestamp;
use policy::ids::{GroupName, RunId};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, EntityTrait as _,
    PaginatorTrait as _, QueryFilter as _, QueryOrder as _, Set,
};

use super::runs::{Run, open};
use super::tables::{inbox_read, refusals, runs, said};
use super::{Db, DbError, millis};
use crate::life::{Life, State};

/// What a person said and no agent has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its number in the inbox.
    pub(crate) seq: i64,
    pub(crate) text: String,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It goes on what this run works on, or will.
    Joined(RunId),
    /// A run was made for it.
    New {
        /// Which.
        run: RunId,
        /// Another is ahead of it.
        waits: bool,
    },
    /// It was not taken; a person is to be told.
    Refused,
}

impl Db {
    /// Up to which number the inbox was read.
    pub(crate) async fn read_up_to(&self) -> Result<i64, DbError> {
        let row = inbox_read::Entity::find_by_id(1).one(&self.conn).await?;
        row.map(|row| row.seq).ok_or(DbError::Unreadable("cursor"))
    }

    /// Leaves out everything up to a message of no group.
    pub(crate) async fn skip(&self, from: i64, to: i64) -> Result<(), DbError> {
        advance(&self.conn, from, to).await
    }

    /// Takes a message of a group, or refuses it with these words, or because there is no room. In
    /// one step with the inbox's cursor, so that each message is taken once.
    pub(crate) async fn place(
        &self,
        from: i64,
        message: &Received,
        group: &GroupName,
        refusal: Option<String>,
        room: usize,
    ) -> Result<Placed, DbError> {
        let txn = self.begin().await?;
        advance(&txn, from, message.seq).await?;
        let placed = match refusal {
            Some(text) => refuse(&txn, message, text).await?,
            None if queued(&txn, group).await? >= room => {
                let text = format!(
                    "{room} messages wait to be read already, and this one was not taken; \
                     write it again when they are answered"
                );
                refuse(&txn, message, text).await?
            }
            None => join(&txn, message, group).await?,
        };
        txn.commit().await?;
        Ok(placed)
    }

    /// How many messages of a group wait.
    pub(crate) async fn queued(&self, group: &GroupName) -> Result<usize, DbError> {
        queued(&self.conn, group).await
    }

    /// What was said for a run and not heard, in its order.
    pub(crate) async fn said(&self, run: &RunId) -> Result<Vec<Said>, DbError> {
        let rows = of(&self.conn, run.as_str()).await?;
        let said = rows.into_iter().map(|row| Said {
            seq: row.seq,
            text: row.text,
        });
        Ok(said.collect())
    }

    /// Refusals that nobody was told: number, place, words.
    pub(crate) async fn refusals(&self) -> Result<Vec<(i64, String, String)>, DbError> {
        let rows = refusals::Entity::find().order_by_asc(refusals::Column::Seq);
        let rows = rows.all(&self.conn).await?;
        let told = rows.into_iter().map(|row| (row.seq, row.place, row.text));
        Ok(told.collect())
    }

    /// A refusal was told.
    pub(crate) async fn told(&self, seq: i64) -> Result<(), DbError> {
        refusals::Entity::delete_by_id(seq).exec(&self.conn).await?;
        Ok(())
    }
}

async fn advance(conn: &impl ConnectionTrait, from: i64, to: i64) -> Result<(), DbError> {
    let moved = inbox_read::Entity::update_many()
        .col_expr(inbox_read::Column::Seq, Expr::value(to))
        .filter(inbox_read::Column::Seq.eq(from))
        .exec(conn)
        .await?;
    if moved.rows_affected == 1 {
        Ok(())
    } else {
        Err(DbError::Changed("cursor"))
    }
}

async fn queued(conn: &impl ConnectionTrait, group: &GroupName) -> Result<usize, DbError> {
    let rows = said::Entity::find().filter(said::Column::Grp.eq(group.as_str()));
    Ok(usize::try_from(rows.count(conn).await?).unwrap_or(usize::MAX))
}

/// What was said for a run, in its order.
pub(super) async fn of(
    conn: &impl ConnectionTrait,
    run: &str,
) -> Result<Vec<said::Model>, DbError> {
    let rows = said::Entity::find().filter(said::Column::Run.eq(run));
    Ok(rows.order_by_asc(said::Column::Seq).all(conn).await?)
}

async fn refuse(
    conn: &impl ConnectionTrait,
    message: &Received,
    text: String,
) -> Result<Placed, DbError> {
    let row = refusals::ActiveModel {
        seq: Set(message.seq),
        place: Set(message.said.place.clone()),
        text: Set(text),
    };
    row.insert(conn).await?;
    Ok(Placed::Refused)
}

/// The last run in the queue takes it if it is the same person's; else it gets a run of its own. So
/// nobody overtakes anybody, and each run works for one person.
async fn join(
    conn: &impl ConnectionTrait,
    message: &Received,
    group: &GroupName,
) -> Result<Placed, DbError> {
    let ahead = open(conn, group).await?;
    let placed = match ahead.last() {
        Some(last) if last.key.person == message.said.by => Placed::Joined(last.key.run.clone()),
        last => {
            let waits = last.is_some();
            let person = &message.said.by;
            let run = add(conn, group, person, message.seq, message.said.at).await?;
            Placed::New { run, waits }
        }
    };
    let (Placed::Joined(run) | Placed::New { run, .. }) = &placed else {
        return Ok(placed);
    };
    let row = said::ActiveModel {
        seq: Set(message.seq),
        run: Set(run.as_str().to_owned()),
        grp: Set(group.as_str().to_owned()),
        text: Set(message.said.text.clone()),
        at: Set(millis(message.said.at)),
    };
    row.insert(conn).await?;
    Ok(placed)
}

/// Adds a run to the queue, named by the message that begins it.
pub(super) async fn add(
    conn: &impl ConnectionTrait,
    group: &GroupName,
    person: &str,
    first: i64,
    at: Timestamp,
) -> Result<RunId, DbError> {
    let run = Run::new(group, person, first);
    let row = runs::ActiveModel {
        id: Set(run.key.run.as_str().to_owned()),
        grp: Set(group.as_str().to_owned()),
        conversation: Set(run.key.conversation.as_str().to_owned()),
        person: Set(person.to_owned()),
        state: Set(Life::NEW.state.name().to_owned()),
        launch: Set(0),
        lost: Set(0),
        first: Set(first),
        last_event: Set(0),
        began: Set(millis(at)),
        ended: Set(None),
        error: Set(None),
        // Most do not wait long enough to be shown waiting.
        shown: Set(State::Queued.name().to_owned()),
        closed: Set(true),
    };
    row.insert(conn).await?;
    Ok(run.key.run)
}
