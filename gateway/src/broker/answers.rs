//! What people say to questions, and what comes of it.

use std::sync::Arc;

use jiff::Timestamp;
use policy::approval::{self, Scope};
use policy::decision::Grant;

use super::Broker;
use crate::approvals::{Assent, DecideError, Held, LIFTED};
use crate::conversations::{RUN_LONGEST, lock};
use crate::db::approvals::Decided;
use crate::fault;
use crate::hosted;

impl Broker {
    /// A person says yes. Returns when that is stored; where it takes no other's, the action then runs
    /// by itself.
    ///
    /// # Errors
    /// [`DecideError`].
    pub async fn approve(
        self: &Arc<Self>,
        id: &str,
        by: String,
        scope: Scope,
        anyway: bool,
    ) -> Result<(), DecideError> {
        let assent = Assent {
            by,
            scope,
            anyway,
            at: Timestamp::now(),
            rule: None,
        };
        self.assent(id, assent).await
    }

    /// Stores a yes; where it takes no other's, the action then runs by itself.
    pub(super) async fn assent(
        self: &Arc<Self>,
        id: &str,
        assent: Assent,
    ) -> Result<(), DecideError> {
        let scope = assent.scope;
        let may = |held: &Held, name: &str| self.may_answer(held, name);
        let (held, enough) = self.approvals.approve(id, assent, may).await?;
        fault::point("approve.stored").await;
        if !enough {
            return Ok(());
        }
        if scope == Scope::Run {
            self.grant(&held);
        }
        self.run_approved(held);
        Ok(())
    }

    /// Whether somebody may still answer a question: of those who said yes before the last.
    fn may_answer(&self, held: &Held, name: &str) -> bool {
        let config = self.config.now();
        let may = config.approvers(held.action.group.as_str());
        may.iter().any(|one| one.as_str() == name)
    }

    /// A person says no. Returns when that is stored.
    ///
    /// # Errors
    /// [`DecideError`].
    pub async fn deny(
        &self,
        id: &str,
        by: String,
        reason: Option<String>,
    ) -> Result<(), DecideError> {
        let finder = self.kept.finder();
        let decided = Decided {
            by: Some(by),
            reason: reason.map(|reason| finder.mask_text(&reason)),
            scope: None,
            at: Timestamp::now(),
        };
        self.approvals
            .decide(id, approval::Event::Deny, decided)
            .await
            .map(drop)
    }

    /// *For this task*: the gates that were shown are lifted for this tool until the run ends. A
    /// credential and a changed tool are asked about each time.
    fn grant(&self, held: &Held) {
        let action = &held.action;
        let hosted = hosted::is_hosted(action);
        if hosted && !self.goes_on(action) {
            return;
        }
        let lifts = held.approved.gates.iter().copied();
        let grant = Grant {
            question: held.id.to_string(),
            run: action.run.clone(),
            tool: action.tool(),
            definition: action.definition.clone(),
            identity: action.identity.clone(),
            lifts: lifts.filter(|gate| LIFTED.contains(gate)).collect(),
            // A hosted run says itself when it is over.
            until: Timestamp::now()
                .checked_add(RUN_LONGEST)
                .ok()
                .filter(|_| !hosted)
                .unwrap_or(Timestamp::MAX),
        };
        let conversation = self.conversations.get(&action.conversation);
        let mut conversation = lock(&conversation);
        if hosted {
            conversation.hosted(&action.run, Timestamp::now());
        }
        conversation.grant(grant);
    }
}
