//! What people see of a tool call, in the gateway's own words: one item an action.

use std::collections::BTreeSet;
use std::sync::Arc;

use channels::db::DbError;
use channels::web::{Body, ToolState, Web};
use policy::action::{Action, Kind};
use policy::approval::State;
use policy::decision::Decision;
use policy::record::{Outcome, Story};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{CONVERSATION, is_hosted};
use crate::approvals::Held;
use crate::audit::read;
use crate::db::Db;
use crate::db::approvals::Execution;
use crate::fault;

/// The longest arguments that are shown with a call, in bytes of JSON; the log has them whole.
const ARGS: usize = 32 * 1024;
/// How many items of a group are looked through at the start.
const LOOKED_THROUGH: usize = 1000;

/// A tool call as it is shown, but for how it goes.
#[derive(Clone, Debug)]
pub struct Item {
    place: String,
    action: String,
    tool: String,
    args: Value,
}

/// The state of one item, to be stored and told.
#[derive(Debug)]
pub(super) struct Put {
    place: String,
    id: String,
    body: Body,
}

impl Item {
    /// The item of an action whose arguments and name are masked; `None` if it is not of a hosted run.
    pub fn of(masked: &Action) -> Option<Self> {
        (masked.kind == Kind::Mcp && is_hosted(masked)).then(|| Self {
            place: masked.group.to_string(),
            action: masked.id.to_string(),
            tool: masked.tool(),
            args: short(&masked.args),
        })
    }

    pub(super) fn put(&self, state: ToolState, question: Option<String>) -> Put {
        Put {
            place: self.place.clone(),
            id: item_id(&self.action),
            body: Body::Tool {
                action: self.action.clone(),
                tool: self.tool.clone(),
                args: self.args.clone(),
                state,
                question,
            },
        }
    }
}

fn item_id(action: &str) -> String {
    format!("tool_{action}")
}

fn short(args: &Value) -> Value {
    let bytes = args.to_string().len();
    if bytes <= ARGS {
        args.clone()
    } else {
        json!({ "…": format!("{bytes} bytes of arguments, which are in the log") })
    }
}

/// How an action went that is over.
pub(crate) fn state_of(outcome: Outcome) -> ToolState {
    match outcome {
        Outcome::Running => ToolState::Running,
        Outcome::Ok => ToolState::Ok,
        Outcome::Error => ToolState::Error,
        Outcome::Refused => ToolState::Refused,
        Outcome::Unknown => ToolState::Unknown,
    }
}

pub(super) fn of_question(held: &Held) -> Put {
    let (tool, args) = &held.shown;
    let item = Item {
        place: held.action.group.to_string(),
        action: held.action.id.to_string(),
        tool: tool.clone(),
        args: short(args),
    };
    let state = match (held.state(), held.execution()) {
        (State::Pending | State::CallerGone, _) => ToolState::Waiting,
        (State::Denied | State::Expired | State::Withdrawn, _) | (_, Execution::Refused) => {
            ToolState::Refused
        }
        (State::Approved, Execution::None | Execution::Running) => ToolState::Running,
        (State::Approved, Execution::Ok) => ToolState::Ok,
        (State::Approved, Execution::Error) => ToolState::Error,
        (State::Approved, Execution::Unknown) => ToolState::Unknown,
    };
    item.put(state, Some(held.id.to_string()))
}

/// Stores and tells what is put, one after the other, and tells whoever put it.
pub(super) async fn write_all(
    web: Arc<Web>,
    mut queue: mpsc::Receiver<(Put, oneshot::Sender<()>)>,
) {
    while let Some((Put { place, id, body }, stored)) = queue.recv().await {
        fault::point("item.store").await;
        if let Err(error) = write(&web, &place, &id, body).await {
            tracing::error!("`{id}` cannot be shown: {error}");
        }
        fault::point("item.stored").await;
        // Nobody may wait for it any more.
        let _ = stored.send(());
    }
}

/// Who puts a question and who answers it tell of it at the same time: what is further on stays.
async fn write(web: &Web, place: &str, id: &str, body: Body) -> Result<(), DbError> {
    let shown = web.item(place, id).await?;
    if shown.is_none_or(|shown| how_far(&shown.body) <= how_far(&body)) {
        web.put(place, id, body).await?;
    }
    Ok(())
}

/// How far an action has come. It only goes on.
fn how_far(body: &Body) -> u8 {
    match body {
        Body::Tool { state, .. } => match state {
            ToolState::Waiting => 1,
            ToolState::Running => 2,
            ToolState::Ok | ToolState::Error | ToolState::Refused | ToolState::Unknown => 3,
        },
        Body::Person { .. } | Body::Agent { .. } | Body::Run { .. } | Body::Notice { .. } => 0,
    }
}

/// Puts right what people see of tool calls, by the log: those whose end was not shown because the
/// gateway died, and those that it closed at this start. Questions that are held tell themselves.
pub(super) async fn put_right(
    web: &Web,
    db: &Db,
    places: &[String],
    closed: Vec<String>,
    held: &BTreeSet<String>,
) -> Vec<Put> {
    let mut open: BTreeSet<String> = closed.into_iter().collect();
    for place in places {
        match unfinished(web, place).await {
            Ok(found) => open.extend(found),
            Err(error) => tracing::error!("the items of `{place}` cannot be read: {error}"),
        }
    }
    open.retain(|action| !held.contains(action));
    if open.is_empty() {
        return Vec::new();
    }
    match read::stories_of(db, open.into_iter().collect()).await {
        Ok(stories) => stories.iter().filter_map(of_story).collect(),
        Err(error) => {
            tracing::error!("the ends of tool calls cannot be read: {error}");
            Vec::new()
        }
    }
}

/// The actions whose items do not show an end.
async fn unfinished(web: &Web, place: &str) -> Result<Vec<String>, DbError> {
    const PAGE: u64 = 200;
    let mut found = Vec::new();
    let (mut before, mut seen) = (None, 0);
    while seen < LOOKED_THROUGH {
        let page = web.page(place, before, PAGE).await?;
        let Some(first) = page.first() else { break };
        before = Some(first.pos);
        seen += page.len();
        found.extend(page.into_iter().filter_map(|item| match item.body {
            Body::Tool {
                action,
                state: ToolState::Running | ToolState::Waiting,
                ..
            } => Some(action),
            Body::Tool { .. }
            | Body::Person { .. }
            | Body::Agent { .. }
            | Body::Run { .. }
            | Body::Notice { .. } => None,
        }));
    }
    Ok(found)
}

fn of_story(story: &Story) -> Option<Put> {
    if story.kind != Kind::Mcp || !story.conversation.starts_with(CONVERSATION) {
        return None;
    }
    let item = Item {
        place: story.group.clone(),
        action: story.id.to_string(),
        tool: story.tool.clone(),
        args: short(&story.args),
    };
    let state = match (story.outcome, story.decision) {
        // Its question was answered and nobody is owed anything any more: the row knows no more.
        (Outcome::Running, Decision::Ask) => ToolState::Unknown,
        (outcome, _) => state_of(outcome),
    };
    Some(item.put(state, story.approval.as_ref().map(ToString::to_string)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosted::Hosted;

    fn item() -> Item {
        Item {
            place: "demo".to_owned(),
            action: "act_1".to_owned(),
            tool: "postbox__send".to_owned(),
            args: json!({}),
        }
    }

    async fn state(web: &Web) -> Option<ToolState> {
        let shown = web.item("demo", "tool_act_1").await.unwrap()?;
        let Body::Tool { state, .. } = shown.body else {
            panic!("{shown:?}")
        };
        Some(state)
    }

    #[tokio::test]
    async fn a_call_has_its_place_before_anything_follows_from_it() {
        let data = tempfile::tempdir().unwrap();
        let db = Db::open(data.path()).await.unwrap();
        let web = Web::new(db.channels());
        let (hosted, _shower) = Hosted::start(web.clone());
        hosted.show(&item(), ToolState::Running).await;
        assert_eq!(state(&web).await, Some(ToolState::Running));
    }

    #[tokio::test]
    async fn who_tells_late_does_not_take_an_action_back() {
        let data = tempfile::tempdir().unwrap();
        let db = Db::open(data.path()).await.unwrap();
        let web = Web::new(db.channels());
        let (hosted, _shower) = Hosted::start(web.clone());
        let told = [
            ToolState::Running,
            ToolState::Waiting,
            ToolState::Ok,
            ToolState::Running,
        ];
        let seen = [
            ToolState::Running,
            ToolState::Running,
            ToolState::Ok,
            ToolState::Ok,
        ];
        for (told, seen) in told.into_iter().zip(seen) {
            hosted.show(&item(), told).await;
            assert_eq!(state(&web).await, Some(seen));
        }
    }
}
