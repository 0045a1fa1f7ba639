//! Runs: read as what they are, changed by compare-and-set.

use agent::{Message, Role};
use jiff::Timestamp;
use policy::ids::{ConversationId, GroupName, RunId};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, QueryTrait as _, Set,
};
use serde_json::Value;

use super::tables::{results, runs, said};
use super::{Db, DbError, conversation, millis, queue};
use crate::bounds::{KEPT, LOOKED_BACK};
use crate::history::Kind;
use crate::host::RunKey;
use crate::intake::is_refusal;
use crate::life::{Life, State};

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) key: RunKey,
    pub(crate) life: Life,
    pub(crate) last_event: u64,
    pub(crate) error: Option<String>,
}

/// Something that people are to see.
#[derive(Clone, Debug)]
pub(crate) struct Unshown {
    pub(crate) seq: i64,
    pub(crate) group: String,
    pub(crate) run: String,
    pub(crate) item: u64,
    pub(crate) content: Vec<Value>,
}

/// A change of a run and of its conversation, in one transaction.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a RunKey,
    pub(crate) before: Life,
    pub(crate) after: Life,
    /// The numbers of the last event that was stored, and of that which is now.
    pub(crate) events: (u64, u64),
    /// What joins the conversation, in this order.
    pub(crate) entries: Vec<Entry>,
    /// Results whose message is still to come.
    pub(crate) keep: Vec<(String, Value)>,
    /// Why it ended, for people.
    pub(crate) error: Option<String>,
    pub(crate) at: Timestamp,
}

/// What joins a conversation.
#[derive(Debug)]
pub(crate) enum Entry {
    /// What a person said, by its number.
    Said(i64),
    /// Everything that was said for the run and not heard.
    AllSaid,
    /// A message, and the number of the item that shows it.
    Own(Kind, Message, Option<u64>),
}

/// The conversation of a group.
pub(crate) fn conversation_of(group: &GroupName) -> ConversationId {
    ConversationId::new(format!("group:{group}"))
}

impl Run {
    /// A run that begins with this message.
    pub(crate) fn new(group: &GroupName, person: &str, first: i64) -> Self {
        Self {
            key: RunKey {
                run: RunId::new(format!("{group}-{first}")),
                group: group.clone(),
                conversation: conversation_of(group),
                person: person.to_owned(),
            },
            life: Life::NEW,
            last_event: 0,
            error: None,
        }
    }
}

impl TryFrom<runs::Model> for Run {
    type Error = DbError;
    fn try_from(row: runs::Model) -> Result<Self, DbError> {
        let unreadable = |_| DbError::Unreadable("run");
        let state = State::ALL.into_iter().find(|one| one.name() == row.state);
        Ok(Self {
            key: RunKey {
                run: RunId::new(row.id),
                group: row.grp.parse().map_err(|_| DbError::Unreadable("run"))?,
                conversation: ConversationId::new(row.conversation),
                person: row.person,
            },
            life: Life {
                state: state.ok_or(DbError::Unreadable("run"))?,
                launch: u32::try_from(row.launch).map_err(unreadable)?,
                lost: u32::try_from(row.lost).map_err(unreadable)?,
            },
            last_event: u64::try_from(row.last_event).map_err(unreadable)?,
            error: row.error,
        })
    }
}

fn over() -> [&'static str; 3] {
    [State::Done, State::Failed, State::Stopped].map(State::name)
}

fn runs(rows: Vec<runs::Model>) -> Result<Vec<Run>, DbError> {
    rows.into_iter().map(Run::try_from).collect()
}

/// The runs of a group that are not over, in the order of the queue.
pub(super) async fn open(
    conn: &impl ConnectionTrait,
    group: &GroupName,
) -> Result<Vec<Run>, DbError> {
    let rows = runs::Entity::find()
        .filter(runs::Column::Grp.eq(group.as_str()))
        .filter(runs::Column::State.is_not_in(over()))
        .order_by_asc(runs::Column::First);
    runs(rows.all(conn).await?)
}

impl Db {
    /// One run.
    pub(crate) async fn run(&self, run: &RunId) -> Result<Option<Run>, DbError> {
        let row = runs::Entity::find_by_id(run.as_str())
            .one(&self.conn)
            .await?;
        row.map(Run::try_from).transpose()
    }

    /// The runs of a group that are not over, in the order of the queue.
    pub(crate) async fn open(&self, group: &GroupName) -> Result<Vec<Run>, DbError> {
        open(&self.conn, group).await
    }

    /// How many of the last few runs of a group the provider refused.
    pub(crate) async fn refused(&self, group: &GroupName) -> Result<usize, DbError> {
        let rows = runs::Entity::find()
            .filter(runs::Column::Grp.eq(group.as_str()))
            .filter(runs::Column::State.is_in(over()))
            .order_by_desc(runs::Column::First)
            .limit(LOOKED_BACK);
        let rows = rows.all(&self.conn).await?;
        let refused = |row: &&runs::Model| row.error.as_deref().is_some_and(is_refusal);
        Ok(rows.iter().filter(refused).count())
    }

    /// The runs of all groups that are not over.
    pub(crate) async fn all_open(&self) -> Result<Vec<Run>, DbError> {
        let rows = runs::Entity::find().filter(runs::Column::State.is_not_in(over()));
        runs(rows.all(&self.conn).await?)
    }

    /// Runs, of a group or of all, that are over and of which the gateway was not told so.
    pub(crate) async fn unclosed(&self, group: Option<&GroupName>) -> Result<Vec<Run>, DbError> {
        let rows = runs::Entity::find()
            .filter(runs::Column::State.is_in(over()))
            .filter(runs::Column::Closed.eq(false))
            .apply_if(group, |rows, group| {
                rows.filter(runs::Column::Grp.eq(group.as_str()))
            });
        runs(rows.all(&self.conn).await?)
    }

    /// The gateway was told that a run is over.
    pub(crate) async fn closed(&self, run: &RunId) -> Result<(), DbError> {
        runs::Entity::update_many()
            .col_expr(runs::Column::Closed, Expr::value(true))
            .filter(runs::Column::Id.eq(run.as_str()))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// The state of a run that people see.
    pub(crate) async fn shown(&self, run: &RunId) -> Result<String, DbError> {
        let row = runs::Entity::find_by_id(run.as_str())
            .one(&self.conn)
            .await?;
        row.map(|row| row.shown).ok_or(DbError::Unreadable("run"))
    }

    /// People see this state of a run from now on.
    pub(crate) async fn show(&self, run: &RunId, state: &str) -> Result<(), DbError> {
        runs::Entity::update_many()
            .col_expr(runs::Column::Shown, Expr::value(state))
            .filter(runs::Column::Id.eq(run.as_str()))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// Runs, of a group or of all, that are over and are shown as if they were not.
    pub(crate) async fn stale(&self, group: Option<&GroupName>) -> Result<Vec<Run>, DbError> {
        let rows = runs::Entity::find()
            .filter(runs::Column::State.is_in(over()))
            .filter(Expr::cust("runs.shown <> runs.state"))
            .apply_if(group, |rows, group| {
                rows.filter(runs::Column::Grp.eq(group.as_str()))
            });
        runs(rows.all(&self.conn).await?)
    }

    /// Changes a run, if it is where it was.
    pub(crate) async fn change(&self, change: Change<'_>) -> Result<(), DbError> {
        let txn = self.begin().await?;
        let run = change.key.run.as_str();
        set(&txn, &change).await?;
        if change
            .entries
            .iter()
            .any(|entry| matches!(entry, Entry::Own(..)))
        {
            // Results wait for the message that holds them, which is the next one.
            results::Entity::delete_many()
                .filter(results::Column::Run.eq(run))
                .exec(&txn)
                .await?;
        }
        for entry in change.entries {
            match entry {
                Entry::Own(kind, message, item) => {
                    conversation::add(&txn, change.key, kind, &message, item, change.at).await?;
                }
                Entry::Said(seq) => {
                    let row = said::Entity::find_by_id(seq).one(&txn).await?;
                    hear(&txn, change.key, row.ok_or(DbError::Changed("message"))?).await?;
                }
                Entry::AllSaid => {
                    for row in queue::of(&txn, run).await? {
                        hear(&txn, change.key, row).await?;
                    }
                }
            }
        }
        let once = OnConflict::columns([results::Column::Run, results::Column::Call])
            .do_nothing()
            .to_owned();
        for (call, block) in change.keep {
            let row = results::ActiveModel {
                run: Set(run.to_owned()),
                call: Set(call),
                block: Set(block.to_string()),
            };
            results::Entity::insert(row)
                .on_conflict(once.clone())
                .exec_without_returning(&txn)
                .await?;
        }
        if change.after.state.is_over() {
            requeue(&txn, change.key, change.at).await?;
            prune(&txn, change.key).await?;
        }
        txn.commit().await?;
        Ok(())
    }
}

async fn set(txn: &DatabaseTransaction, change: &Change<'_>) -> Result<(), DbError> {
    let over = change.after.state.is_over();
    let mut update = runs::Entity::update_many()
        .col_expr(runs::Column::State, Expr::value(change.after.state.name()))
        .col_expr(runs::Column::Launch, Expr::value(change.after.launch))
        .col_expr(runs::Column::Lost, Expr::value(change.after.lost))
        .col_expr(
            runs::Column::LastEvent,
            Expr::value(number(change.events.1)),
        )
        .filter(runs::Column::Id.eq(change.key.run.as_str()))
        .filter(runs::Column::State.eq(change.before.state.name()))
        .filter(runs::Column::Launch.eq(change.before.launch))
        .filter(runs::Column::LastEvent.eq(number(change.events.0)));
    if change.after.launch != change.before.launch {
        update = update.col_expr(runs::Column::Closed, Expr::value(false));
    }
    if over {
        update = update
            .col_expr(runs::Column::Ended, Expr::value(millis(change.at)))
            .col_expr(runs::Column::Error, Expr::value(change.error.clone()));
    }
    if update.exec(txn).await?.rows_affected == 1 {
        Ok(())
    } else {
        Err(DbError::Changed("run"))
    }
}

fn number(event: u64) -> i64 {
    i64::try_from(event).unwrap_or(i64::MAX)
}

/// Moves what a person said into the conversation.
async fn hear(txn: &DatabaseTransaction, key: &RunKey, row: said::Model) -> Result<(), DbError> {
    said::Entity::delete_by_id(row.seq).exec(txn).await?;
    let message = Message::text(Role::User, &row.text);
    let at = Timestamp::from_millisecond(row.at).map_err(|_| DbError::Unreadable("message"))?;
    conversation::add(txn, key, Kind::Person, &message, None, at).await
}

/// What nobody heard becomes the next run.
async fn requeue(txn: &DatabaseTransaction, key: &RunKey, at: Timestamp) -> Result<(), DbError> {
    let Some(first) = queue::of(txn, key.run.as_str()).await?.first().cloned() else {
        return Ok(());
    };
    let next = queue::add(txn, &key.group, &key.person, first.seq, at).await?;
    said::Entity::update_many()
        .col_expr(said::Column::Run, Expr::value(next.as_str()))
        .filter(said::Column::Run.eq(key.run.as_str()))
        .exec(txn)
        .await?;
    Ok(())
}

/// Forgets the oldest.
async fn prune(txn: &DatabaseTransaction, key: &RunKey) -> Result<(), DbError> {
    conversation::prune(txn, key.conversation.as_str()).await?;
    let kept = runs::Entity::find()
        .filter(runs::Column::Grp.eq(key.group.as_str()))
        .order_by_desc(runs::Column::First)
        .offset(KEPT)
        .one(txn)
        .await?;
    if let Some(oldest) = kept {
        runs::Entity::delete_many()
            .filter(runs::Column::Grp.eq(key.group.as_str()))
            .filter(runs::Column::First.lte(oldest.first))
            .filter(runs::Column::State.is_in(over()))
            .filter(runs::Column::Closed.eq(true))
            .exec(txn)
            .await?;
    }
    Ok(())
}
