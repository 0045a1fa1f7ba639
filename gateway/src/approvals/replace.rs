//! A person changes the arguments: a new question takes the place of the old one, and its answer goes
//! to whoever waits for that.

use std::sync::Arc;

use jiff::Timestamp;
use policy::approval::{self, Event, State};
use policy::decision::Question;
use policy::ids::QuestionId;
use policy::record;
use serde_json::{Value, json};

use super::{Answer, Approvals, DecideError, Held, lock};
use crate::audit::Write;
use crate::db::approvals::{Decided, Execution};
use crate::fault;

impl Approvals {
    /// Withdraws a question and puts one with other arguments in its place: both, or neither. Its
    /// deadline is the old one's.
    ///
    /// # Errors
    /// [`DecideError`], and then nothing changed.
    pub async fn replace(
        &self,
        old: &str,
        id: QuestionId,
        question: Question,
        shown: (String, Value),
        by: &str,
    ) -> Result<Arc<Held>, DecideError> {
        let _one = self.deciding.lock().await;
        let old = self.open_held(old).await?;
        let from = old.state();
        let now = Timestamp::now();
        let event = Event::Approve {
            anyway: true,
            missing: 0,
        };
        if approval::apply(from, event, now, old.expires_at)? == State::Expired {
            self.settle_as(old.clone(), Event::Tick, Decided::by_time(now), None)
                .await?;
            return Err(self.was_first(old.id.as_str()).await);
        }
        let decided = Decided {
            by: Some(by.to_owned()),
            reason: Some(format!("its arguments were changed: see {id}")),
            scope: None,
            at: now,
        };
        let answered = record::Event::Answered {
            approval: old.id.clone(),
            state: State::Withdrawn,
            by: decided.by.clone(),
            reason: decided.reason.clone(),
        };
        let write = Write::new(old.action.id.as_str(), answered);
        self.audit.write(write).await?;
        fault::point("edit.recorded").await;
        let (mut row, mut held) = self.prepare(id.clone(), question, shown, now)?;
        row.expires_at = old.expires_at;
        row.edits = Some(old.id.to_string());
        held.expires_at = old.expires_at;
        held.edits = Some(old.id.clone());
        // It is shown by itself: somebody has looked at it alone.
        (row.batch, held.batch) = (None, None);
        let first = old.id.as_str();
        if !self
            .db
            .question_replace(first, from, &decided, &row)
            .await?
        {
            return Err(self.was_first(first).await);
        }
        let held = Arc::new(held);
        *lock(&old.state) = State::Withdrawn;
        *lock(&old.edited_as) = Some(id.clone());
        lock(&self.held).insert(id, held.clone());
        fault::point("edit.replaced").await;
        self.close(&old, record::Outcome::Refused, decided.reason, None)
            .await;
        self.changed(&old).await;
        self.changed(&held).await;
        Ok(held)
    }

    /// The question that took the place of another, else that one itself.
    pub(super) fn latest<'a>(&self, held: &'a Arc<Held>) -> std::borrow::Cow<'a, Arc<Held>> {
        let next = lock(&held.edited_as).clone();
        let next = next.and_then(|id| lock(&self.held).get(&id).cloned());
        next.map_or(std::borrow::Cow::Borrowed(held), std::borrow::Cow::Owned)
    }

    /// What came of changed arguments goes to whoever waits for the first ones.
    pub(super) async fn hand_on(&self, held: &Held, answer: &Answer) {
        let Some(old) = &held.edits else { return };
        let Some(old) = lock(&self.held).get(old).cloned() else {
            return;
        };
        if old.is_answered() {
            return;
        }
        let told = with_words(answer, &changes(&old.shown.1, &held.shown.1));
        fault::point("edit.answered").await;
        let (from, to) = (Execution::None, Execution::Refused);
        if let Err(error) = self.store(&old, from, to, &told).await {
            tracing::error!("the end of question `{}`: {error}", old.id);
            lock(&self.owed).push((old.clone(), from, to, told.clone()));
        }
        *lock(&old.execution) = Execution::Refused;
        self.changed(&old).await;
        old.answer.send_replace(Some(told));
        // Nobody waits for this one itself.
        self.delivered(&held.id).await;
    }
}

/// The most characters of a value that are repeated to the agent.
const LONGEST: usize = 300;

/// What a person changed, in words for the agent.
fn changes(old: &Value, new: &Value) -> String {
    let none = serde_json::Map::new();
    let old = old.as_object().unwrap_or(&none);
    let new = new.as_object().unwrap_or(&none);
    let cut = |value: &Value| {
        let text = value.to_string();
        if text.chars().count() <= LONGEST {
            return text;
        }
        let head: String = text.chars().take(LONGEST).collect();
        format!("{head}… ({} characters)", text.chars().count())
    };
    let changed = new.iter().filter_map(|(name, value)| match old.get(name) {
        Some(was) if was == value => None,
        Some(was) => Some(format!("`{name}` from {} to {}", cut(was), cut(value))),
        None => Some(format!("`{name}` was added as {}", cut(value))),
    });
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let gone = gone.map(|name| format!("`{name}` was left out"));
    let all: Vec<String> = changed.chain(gone).collect();
    format!(
        "A person changed the arguments of this call before deciding it: {}. What follows is of the changed call.",
        all.join("; ")
    )
}

/// An answer with words before it.
fn with_words(answer: &Answer, words: &str) -> Answer {
    match answer {
        Answer::Refused(text) => Answer::Refused(format!("{words} {text}")),
        Answer::Error(raw) => {
            let mut error: Value = serde_json::from_str(raw).unwrap_or_else(|_| json!({}));
            let message = error.get("message").and_then(Value::as_str);
            let message = format!("{words} {}", message.unwrap_or_default());
            if let Some(members) = error.as_object_mut() {
                members.insert("message".to_owned(), Value::String(message));
            }
            Answer::Error(error.to_string())
        }
        Answer::Result(raw) => {
            let Ok(mut result) = serde_json::from_str::<Value>(raw) else {
                return answer.clone();
            };
            let Some(members) = result.as_object_mut() else {
                return answer.clone();
            };
            let content = members.entry("content").or_insert_with(|| json!([]));
            if let Some(blocks) = content.as_array_mut() {
                blocks.insert(0, json!({ "type": "text", "text": words }));
            }
            Answer::Result(result.to_string())
        }
    }
}
