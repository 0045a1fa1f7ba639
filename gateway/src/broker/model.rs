//! The way of a call to a model: resolve → decide → record → do → record. Nobody is asked on it: a
//! request that would need a person's word is refused.

use std::sync::Arc;

use jiff::Timestamp;
use policy::action::{Action, Digest, Kind, Method};
use policy::decision::{self, Permit, Verdict};
use policy::ids::ActionId;
use policy::record::{Event, Outcome};

use super::{Broker, NoRecord, take_labels};
use crate::approvals::Answer;
use crate::audit::{Opens, Write};
use crate::conversations::{Underway, lock};
use crate::db::usage::{Tokens, Usage};
use crate::fault;
use crate::identity::Principal;
use crate::models::{Answered, Incoming, Ledger, SendError};

/// A call to a model that was not answered by its provider; for the agent.
#[derive(Debug, thiserror::Error)]
pub enum ModelRefused {
    /// The group has none.
    #[error(
        "this group has no model; whoever runs the gateway can name one, with `model` in `[groups.NAME]`"
    )]
    NoModel,
    /// The policy says no.
    #[error("{0}")]
    Denied(String),
    /// It cannot be recorded.
    #[error("{0}")]
    NoRecord(#[from] NoRecord),
    /// The provider gave no answer.
    #[error("{0}")]
    Send(#[from] SendError),
}

impl Broker {
    /// Every call to a model goes this way, once.
    ///
    /// # Errors
    /// [`ModelRefused`], if no provider answered it.
    pub async fn pass_to_model(
        self: &Arc<Self>,
        principal: &Principal,
        incoming: &Incoming,
    ) -> Result<(Answered, Ledger), ModelRefused> {
        let action = self
            .resolve_model(principal, incoming)
            .ok_or(ModelRefused::NoModel)?;
        if !self.speaks(principal) {
            let text = "NOT EXECUTED. The task is over.".to_owned();
            return Err(ModelRefused::Denied(text));
        }
        let (verdict, record, underway) = self.decide_model(action, incoming);
        match verdict {
            Verdict::Allow(permit, _) => {
                let mut ledger = self.open(&permit, record).await?;
                ledger.keeps(underway);
                self.perform_model(permit, ledger, incoming).await
            }
            Verdict::Ask(question) => {
                let why = question.why.reasons.join("; ");
                let text = format!(
                    "NOT EXECUTED. A person would have to allow this, and a call to a model does not wait for one: {why}. Ask without it."
                );
                let closed = Event::Closed {
                    outcome: Outcome::Refused,
                    detail: Some("a call to a model does not wait for a person".to_owned()),
                    result: None,
                };
                let id = record.id.clone();
                self.audit.write(record.opens(Opens::Waits)).await?;
                fault::point("model.refused").await;
                let closed = Write::new(id, closed).opens(Opens::Ends);
                self.audit.write_or_keep(closed).await?;
                Err(ModelRefused::Denied(text))
            }
            Verdict::Deny(refusal) => match self.refuse(refusal, record).await.answer {
                Some(Answer::Refused(text)) => Err(ModelRefused::Denied(text)),
                Some(Answer::Result(_) | Answer::Error(_)) | None => Err(ModelRefused::NoModel),
            },
        }
    }

    fn resolve_model(&self, principal: &Principal, incoming: &Incoming) -> Option<Action> {
        let (named, identity) = self.models.of(&principal.group)?;
        let run = lock(&self.conversations.get(&principal.conversation()))
            .run_of(principal, Timestamp::now());
        let asked = &incoming.asked;
        Some(Action {
            id: ActionId::new(format!("act_{}", uuid::Uuid::now_v7().simple())),
            kind: Kind::Model,
            group: principal.group.clone(),
            conversation: principal.conversation(),
            run,
            principal: principal.label(),
            server: format!("model:{}", named.provider),
            method: Method::Model,
            name: asked.model.clone(),
            args: asked.args(incoming.route, &incoming.body),
            meta: None,
            // The name is all that a model is known by.
            definition: Digest::of(asked.model.as_bytes()),
            identity,
        })
    }

    /// Decides and, where it is allowed, takes the labels: one step under the conversation's lock.
    pub(super) fn decide_model(
        &self,
        action: Action,
        incoming: &Incoming,
    ) -> (Verdict, Write, Option<Underway>) {
        let credentials = self.secrets_in(&incoming.body);
        let shared = self.conversations.get(&action.conversation);
        let mut conversation = lock(&shared);
        let mut underway = None;
        let traits = incoming.asked.traits();
        let config = self.config.now();
        let facts = self.facts(&config, action, traits, credentials, None, &conversation);
        let policy = self.policy_by(&config);
        let verdict = decision::decide(&policy.policy, facts.clone());
        let mut write = self.decided(facts, verdict.why().clone(), &policy.revision);
        if let Verdict::Allow(permit, why) = &verdict {
            let tool = self.shown_tool(permit.action());
            write.labels = take_labels(&mut conversation, permit.action(), tool, why);
            let id = &permit.action().id;
            let begun = Underway::begin(shared.clone(), &mut conversation, id, &why.adds);
            underway = Some(begun);
        }
        drop(conversation);
        (verdict, write, underway)
    }

    /// Whether a body holds a secret of the gateway, as it is or as JSON writes it: the pointer to
    /// the whole of it, for where in it is not looked.
    fn secrets_in(&self, body: &[u8]) -> Vec<String> {
        // JSON is UTF-8; a body that is not was refused before.
        let text = std::str::from_utf8(body).unwrap_or_default();
        if self.kept.finder().holds_kept(text) {
            vec![String::new()]
        } else {
            Vec::new()
        }
    }

    /// Writes the record; from here on it is closed whatever happens, even if the caller goes away
    /// while it is being written.
    pub(super) async fn open(
        self: &Arc<Self>,
        permit: &Permit,
        record: Write,
    ) -> Result<Ledger, NoRecord> {
        let action = permit.action();
        let usage = Usage {
            action: action.id.clone(),
            at: Timestamp::now(),
            group: action.group.clone(),
            conversation: action.conversation.clone(),
            run: action.run.clone(),
            provider: action
                .server
                .strip_prefix("model:")
                .unwrap_or_default()
                .to_owned(),
            model: action.name.clone(),
            tokens: Tokens::default(),
            status: 0,
        };
        let broker = self.clone();
        let opening = self.tasks.spawn(async move {
            broker.audit.write(record.opens(Opens::Begins)).await?;
            fault::point("model.recorded").await;
            Ok(Ledger::open(broker, usage))
        });
        match opening.await {
            Ok(opened) => opened,
            Err(_) => Err(NoRecord::stopped()),
        }
    }

    /// Sends a permitted call to its provider. Dropped, it ends the call at once.
    pub(super) async fn perform_model(
        &self,
        permit: Permit,
        mut ledger: Ledger,
        incoming: &Incoming,
    ) -> Result<(Answered, Ledger), ModelRefused> {
        match self.models.send(&permit, incoming).await {
            Ok(answered) => {
                fault::point("model.answered").await;
                ledger.answered(&answered);
                Ok((answered, ledger))
            }
            Err(error) => {
                ledger.failed(&error.to_string());
                Err(error.into())
            }
        }
    }

    /// A text about a model call, with every credential hidden that it could hold.
    pub(crate) fn masked_of_models(&self, text: &str) -> String {
        self.masked(&self.models.mask(text))
    }
}
