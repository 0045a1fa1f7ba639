//! *Edit and allow*: a person changes the arguments. That is a new action with a decision and a
//! record of its own; its result goes to whoever waits for the first one.

use std::sync::Arc;

use jiff::Timestamp;
use policy::action::{Kind, Method, canonical};
use policy::approval::{Scope, State};
use policy::decision::{Decision, Question, explain};
use policy::destination::{Destination, Origin};
use policy::ids::{ActionId, QuestionId};
use policy::record;
use serde_json::Value;

use super::Broker;
use crate::approvals::{Assent, DecideError, Held};
use crate::audit::{Opens, Write};
use crate::conversations::lock;

impl Broker {
    /// A person allows a call with other arguments. Where these close a gate that they were not shown,
    /// or where it takes others, the new question stays open. Returns its id when that is stored.
    ///
    /// # Errors
    /// [`DecideError`]; whatever is wrong with the arguments leaves the question as it is.
    pub async fn edit(
        self: &Arc<Self>,
        id: &str,
        by: String,
        args: Value,
    ) -> Result<QuestionId, DecideError> {
        let held = self
            .approvals
            .held(id)
            .filter(|held| held.state().is_open());
        let Some(held) = held else {
            return Err(self.approvals.was_first(id).await);
        };
        self.fits(&held, &args)?;
        let mut action = held.action.clone();
        action.id = ActionId::new(format!("act_{}", uuid::Uuid::now_v7().simple()));
        action.args = args;
        let config = self.config.now();
        let policy = self.policy_by(&config);
        let (facts, why) = {
            let conversation = self.conversations.get(&action.conversation);
            let conversation = lock(&conversation);
            let credentials = self.credentials(&action.args, None);
            let traits = self.traits_of(&config, &action);
            let mut facts = self.facts(
                &config,
                action.clone(),
                traits,
                credentials,
                None,
                &conversation,
            );
            for one in &mut facts.destinations {
                typed(one, &held.action.args, &by);
            }
            let why = explain(&policy.policy, &facts);
            (facts, why)
        };
        if why.decision == Decision::Deny {
            let text = format!("the policy denies it: {}", why.reasons.join("; "));
            return Err(DecideError::Edit(text));
        }
        let new = self.approvals.new_id();
        let seen = why.gates.is_subset(&held.approved.gates);
        let mut write = self
            .decided(facts, why.clone(), &policy.revision)
            .opens(Opens::Waits);
        let mut shown = (self.shown_tool(&action), Value::Null);
        if let record::Event::Decided {
            facts, approval, ..
        } = &mut write.event
        {
            *approval = Some(new.clone());
            shown.1 = facts.action.args.clone();
        }
        self.audit.write(write).await?;
        let record = action.id.clone();
        let mut question = Question { action, why };
        // What the person was shown of the first call counts for what they made of it.
        question.why.gates.extend(&held.approved.gates);
        let replaced = self
            .approvals
            .replace(id, new.clone(), question, shown, &by)
            .await;
        if let Err(error) = replaced {
            let closed = record::Event::Closed {
                outcome: record::Outcome::Refused,
                detail: Some(error.to_string()),
                result: None,
            };
            let write = Write::new(record.as_str(), closed).opens(Opens::Ends);
            self.audit.write(write).await?;
            return Err(error);
        }
        if seen {
            let assent = Assent {
                by,
                scope: Scope::Once,
                anyway: held.state() == State::CallerGone,
                at: Timestamp::now(),
                rule: None,
            };
            self.assent(new.as_str(), assent).await?;
        }
        Ok(new)
    }

    /// Whether arguments can take the place of a question's.
    fn fits(&self, held: &Held, args: &Value) -> Result<(), DecideError> {
        let no = |text: &str| Err(DecideError::Edit(text.to_owned()));
        let action = &held.action;
        if action.kind != Kind::Mcp || action.method != Method::Call {
            return no("only the arguments of a tool's call can be changed");
        }
        if held.shown.1 != action.args {
            return no(
                "its arguments hold a credential, which is not shown, so they cannot be changed",
            );
        }
        if !args.is_object() {
            return no("arguments are a JSON object, such as {\"to\": \"ana\"}");
        }
        if canonical(args) == canonical(&action.args) {
            return no("nothing was changed; allow it as it is");
        }
        let listing = self.catalog.known(&action.server);
        let Some(tool) = listing.as_ref().and_then(|all| all.tool(&action.name)) else {
            return no("its server does not offer the tool any more");
        };
        let problems = tool.problems(args);
        if !problems.is_empty() {
            let problems = problems.join("; ");
            return Err(DecideError::Edit(format!(
                "the arguments do not fit the schema of `{}`: {problems}",
                action.name
            )));
        }
        Ok(())
    }
}

/// What a person typed, they chose. What was there before, they left.
fn typed(one: &mut Destination, before: &Value, by: &str) {
    let there = before.pointer(&one.at);
    let same = match there {
        Some(Value::String(text)) => text.contains(&one.value),
        Some(Value::Number(number)) => number.to_string() == one.value,
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => false,
    };
    if one.found.is_none() && !same {
        one.found = Some(Origin::Person {
            by: by.to_owned(),
            message: 0,
        });
    }
}
