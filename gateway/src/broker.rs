//! The one way that every action takes: resolve → decide → record → (ask) → do → record.

mod always;
mod answers;
mod choices;
mod declassify;
mod edit;
mod fenced;
mod flights;
mod inside;
mod model;
mod results;
mod resumed;
mod review;
mod told;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use jiff::Timestamp;
use policy::action::{Action, Digest, Kind, Method};
use policy::decision::{self, Facts, Permit, Question, Refusal, Verdict, Why};
use policy::ids::{ActionId, QuestionId, ServerName};
use policy::label::{Label, Provenance};
use policy::record::{Event, Outcome};
use policy::review::Review;
use policy::traits::{self, Declared, Hints, Traits};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::approvals::{self, Answer, Approvals, AskError, DecideError, Held};
use crate::audit::{Audit, NoRecord, Opens, Write};
use crate::catalog::{Catalog, Stand};
use crate::choices::Choices;
use crate::config::Config;
use crate::conversations::{Conversation, Conversations, Underway, lock};
use crate::db::Db;
use crate::fault;
use crate::hosted::{self, Hosted, Item};
use crate::identity::{Credential, Identity, Principal};
use crate::keys::Keys;
use crate::live::Live;
use crate::models::Models;
use crate::secrets::Kept;
use crate::upstreams::{Hold, Reply, Request, UpstreamError, Upstreams};

use flights::Flights;
use review::Reviews;

pub use always::{Before, Offer, Taken, Tried};
pub use declassify::{Declassified, Request as Declassify};
pub use model::ModelRefused;

/// What an agent asks for, as it came in.
#[derive(Debug)]
pub struct Call {
    /// For whom.
    pub principal: Principal,
    /// Of which server.
    pub server: String,
    /// What.
    pub method: Method,
    /// The tool, prompt or resource, by the server's own name.
    pub name: String,
    /// The arguments, in the form of [`Action::args`].
    pub args: Value,
    /// The caller's `_meta` without what is reserved; `None` if there was none.
    pub meta: Option<Map<String, Value>>,
    /// The caller may have made this call before it was restarted; only a hosted run can say so.
    pub resumed: bool,
    /// The caller no longer wants it.
    pub cancel: CancellationToken,
    /// How many streams of the caller are there; one that breaks is none.
    pub present: Arc<AtomicUsize>,
    /// What the caller is told on the way.
    pub notes: mpsc::Sender<Note>,
}

/// What a caller is told while it waits.
#[derive(Debug)]
pub enum Note {
    /// A person is asked; from here on it may take long.
    Held(QuestionId),
    /// The server reports progress: raw parameters of the notification.
    Progress(Value),
}

/// The end of a call. Whoever hands the answer over keeps the receipt's word.
#[derive(Debug)]
pub struct Done {
    /// For the caller; `None` when the gateway is stopping and the question stays open.
    pub answer: Option<Answer>,
    /// To be redeemed when the transport took all of the answer.
    pub receipt: Option<Receipt>,
}

impl Done {
    fn refused(text: impl Into<String>) -> Self {
        Self {
            answer: Some(Answer::Refused(text.into())),
            receipt: None,
        }
    }
}

/// What is still owed for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The answer of a question.
    Question(QuestionId),
    /// The answer of an allowed action that is not known to be read-only.
    Flight(Digest, ActionId),
}

/// How long an approved action waits when it could not be stored that it begins.
const RELEASE_AGAIN: Duration = Duration::from_secs(5);

/// The one way, and what is on it right now.
#[derive(Debug)]
pub struct Broker {
    parts: Parts,
    /// What was begun and must be waited for.
    pub tasks: TaskTracker,
    flights: Flights,
    reviews: Reviews,
    asking: tokio::sync::Mutex<()>,
}

/// The parts that the way leads through.
#[derive(Debug)]
pub struct Parts {
    /// Names, grants, traits and rules, as they are in force.
    pub config: Arc<Live>,
    /// What servers offer.
    pub catalog: Arc<Catalog>,
    /// The servers.
    pub upstreams: Arc<Upstreams>,
    /// The providers of models.
    pub models: Arc<Models>,
    /// Questions.
    pub approvals: Approvals,
    /// The log.
    pub audit: Audit,
    /// Labels and runs.
    pub conversations: Conversations,
    /// What people wrote, and what was put into servers.
    pub choices: Choices,
    /// Tokens.
    pub identity: Arc<Identity>,
    /// The instance's keys.
    pub keys: Arc<Keys>,
    /// What people see of hosted runs.
    pub hosted: Arc<Hosted>,
    /// Secrets, to be found in arguments and hidden wherever they would be shown.
    pub kept: Arc<Kept>,
    /// The database.
    pub db: Db,
    /// The gateway is stopping.
    pub stopping: CancellationToken,
}

impl std::ops::Deref for Broker {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Broker {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            tasks: TaskTracker::new(),
            flights: Flights::default(),
            reviews: Reviews::default(),
            asking: tokio::sync::Mutex::default(),
        })
    }

    /// Every action goes this way, once.
    pub async fn pass(self: &Arc<Self>, call: Call) -> Done {
        let action = match self.resolve(&call).await {
            Ok(action) => action,
            Err(answer) => {
                return Done {
                    answer: Some(answer),
                    receipt: None,
                };
            }
        };
        let same = approvals::same(&action);
        if let Some(held) = self.approvals.find(&same) {
            return self.wait(held, &call).await;
        }
        if let Some(done) = self.reattach(&same, call.resumed).await {
            return done;
        }
        if let Some(done) = self.begun_before(&action, call.resumed) {
            return done;
        }
        if !self.speaks(&call.principal) {
            return Done::refused("NOT EXECUTED. The task is over.");
        }
        let review = self.review(&action).await;
        let (verdict, record, underway) = self.decide(action, review);
        let item = item(&record);
        match verdict {
            Verdict::Allow(permit, _) => {
                match self.audit.write(record.opens(Opens::Begins)).await {
                    Ok(()) => {
                        fault::point("call.recorded").await;
                        self.carry_out(permit, call, item, Arc::new(underway)).await
                    }
                    Err(no_record) => Done::refused(format!("NOT EXECUTED. {no_record}.")),
                }
            }
            Verdict::Ask(question) => match self.ask(question, record).await {
                Ok(held) => self.wait(held, &call).await,
                Err(error) => Done::refused(format!("NOT EXECUTED. {error}.")),
            },
            Verdict::Deny(refusal) => {
                let done = self.refuse(refusal, record).await;
                self.show(item.as_ref(), Outcome::Refused).await;
                done
            }
        }
    }

    /// Whether nobody took a caller's place meanwhile: a hosted run that goes on in another process,
    /// or is over, has nothing to say here any more.
    fn speaks(&self, principal: &Principal) -> bool {
        match &principal.by {
            Credential::Token { .. } => true,
            Credential::Run { run, launch, .. } => {
                !self.identity.runs.speaks(run, *launch).is_cancelled()
            }
        }
    }

    /// Shows people of a hosted run how an action goes.
    async fn show(&self, item: Option<&Item>, outcome: Outcome) {
        if let Some(item) = item {
            self.hosted.show(item, hosted::state_of(outcome)).await;
        }
    }

    /// Names and arguments become an [`Action`], or an answer that says what is wrong with them.
    async fn resolve(&self, call: &Call) -> Result<Action, Answer> {
        let unknown = || Answer::Error(unknown(call.method).to_string());
        let config = self.config.now();
        let group = config
            .groups
            .get(&call.principal.group)
            .ok_or_else(unknown)?;
        if !group
            .servers
            .iter()
            .any(|server| server.as_str() == call.server)
        {
            return Err(unknown());
        }
        if let Some(too_much) = self.too_much(call) {
            return Err(too_much);
        }
        let listing = self
            .catalog
            .get(&call.server)
            .await
            .map_err(|error| failure(&call.server, &error).0)?;
        let identity = self
            .catalog
            .identity(&call.server)
            .cloned()
            .ok_or_else(unknown)?;
        let definition = match listing.stand(call.method, &call.name) {
            Stand::There(definition) => definition,
            Stand::Gone => return Err(Answer::Refused(gone(&call.name))),
            Stand::Unknown => return Err(unknown()),
        };
        if call.method == Method::Call
            && let Some(tool) = listing.tool(&call.name)
        {
            let problems = tool.problems(&call.args);
            if !problems.is_empty() {
                return Err(Answer::Refused(format!(
                    "NOT EXECUTED. The arguments do not fit the schema of `{}`: {}. Correct them and call again.",
                    call.name,
                    problems.join("; ")
                )));
            }
        }
        let run = lock(&self.conversations.get(&call.principal.conversation()))
            .run_of(&call.principal, Timestamp::now());
        Ok(Action {
            id: ActionId::new(format!("act_{}", uuid::Uuid::now_v7().simple())),
            kind: Kind::Mcp,
            group: call.principal.group.clone(),
            conversation: call.principal.conversation(),
            run,
            principal: call.principal.label(),
            server: call.server.clone(),
            method: call.method,
            name: call.name.clone(),
            args: call.args.clone(),
            meta: call.meta.clone(),
            definition,
            identity,
        })
    }

    /// What the target of an action can do.
    fn traits_of(&self, config: &Config, action: &Action) -> Traits {
        let Ok(server) = ServerName::try_from(action.server.clone()) else {
            return Traits::UNDECLARED;
        };
        let Some(server) = config.servers.get(&server) else {
            return Traits::UNDECLARED;
        };
        if action.method != Method::Call {
            return traits::resolve(server.trust, Declared::default(), Hints::default());
        }
        let listing = self.catalog.known(&action.server);
        let hints = listing.map_or([Hints::default(); 2], |listing| listing.hints(&action.name));
        let tool = server
            .tools
            .get(&action.name)
            .map(|tool| tool.traits)
            .unwrap_or_default();
        let [pinned, now] = hints.map(|hints| {
            let trusted = server.annotations_trusted;
            traits::resolve(server.trust, tool, Hints { trusted, ..hints })
        });
        // A server that takes back what it said of itself may only make it stricter.
        pinned.worse(now)
    }

    /// Where arguments and `_meta` hold a credential.
    fn credentials(&self, args: &Value, meta: Option<&Map<String, Value>>) -> Vec<String> {
        let finder = self.kept.finder();
        let mut credentials = finder.find(args);
        if let Some(meta) = meta {
            let found = finder.find(&Value::Object(meta.clone()));
            credentials.extend(found.into_iter().map(|place| format!("/_meta{place}")));
        }
        credentials
    }

    fn facts(
        &self,
        config: &Config,
        action: Action,
        traits: Traits,
        credentials: Vec<String>,
        review: Option<Review>,
        conversation: &Conversation,
    ) -> Facts {
        let listing = self.catalog.known(&action.server);
        let group = config.groups.get(&action.group);
        Facts {
            destinations: Self::destinations(config, &action, traits, conversation),
            read: conversation.has_read() && conversation.known.heard(),
            traits,
            labels: conversation.labels.clone(),
            contains_secrets: group.is_none_or(|group| group.contains_secrets),
            clean_room: group.is_some_and(|group| group.admin),
            changed: listing.is_some_and(|listing| {
                // Also if it changed between being looked up and this.
                listing.changed(action.method, &action.name)
                    || listing.stand(action.method, &action.name)
                        != Stand::There(action.definition.clone())
            }),
            credentials,
            grants: conversation.grants.clone(),
            person: self.identity.runs.person(&action.run),
            review,
            now: Timestamp::now(),
            action,
        }
    }

    /// Decides and, where it is allowed, takes the labels: one step under the conversation's lock.
    fn decide(&self, action: Action, review: Option<Review>) -> (Verdict, Write, Option<Underway>) {
        let credentials = self.credentials(&action.args, action.meta.as_ref());
        let shared = self.conversations.get(&action.conversation);
        let mut conversation = lock(&shared);
        let mut underway = None;
        let config = self.config.now();
        let traits = self.traits_of(&config, &action);
        let facts = self.facts(&config, action, traits, credentials, review, &conversation);
        let policy = self.policy_by(&config);
        let verdict = decision::decide(&policy.policy, facts.clone());
        let mut write = self.decided(facts, verdict.why().clone(), &policy.revision);
        if let Verdict::Allow(permit, why) = &verdict {
            let tool = self.shown_tool(permit.action());
            // Before its own labels: what it puts in, it has from what was read before it.
            write.put = Some((
                permit.action().server.clone(),
                self.put_into(permit.action(), &conversation),
            ));
            write.labels = take_labels(&mut conversation, permit.action(), tool, why);
            let id = &permit.action().id;
            let begun = Underway::begin(shared.clone(), &mut conversation, id, &why.adds);
            underway = Some(begun);
        }
        drop(conversation);
        (verdict, write, underway)
    }

    /// The record of a decision, with the credentials in the arguments and `_meta` masked.
    fn decided(&self, mut facts: Facts, why: Why, revision: &str) -> Write {
        let finder = self.kept.finder();
        let reviewed = facts
            .review
            .as_ref()
            .is_some_and(|one| one.binding == facts.action.binding());
        let Action { args, meta, .. } = &mut facts.action;
        let whole = match &meta {
            Some(meta) => json!([args, meta]),
            None => args.clone(),
        };
        let (masked, mut hidden) = finder.mask(args);
        *args = masked;
        if let Some(meta) = meta {
            let (masked, any) = finder.mask(&Value::Object(std::mem::take(meta)));
            *meta = masked.as_object().cloned().unwrap_or_default();
            hidden |= any;
        }
        let sealed_args = hidden.then(|| self.keys.mac(&policy::action::canonical(&whole)));
        // A resource's name is its URI, which can hold a credential like any argument.
        facts.action.name = finder.mask_text(&facts.action.name);
        for one in &mut facts.destinations {
            one.value = finder.mask_text(&one.value);
        }
        for grant in &mut facts.grants {
            grant.tool = finder.mask_text(&grant.tool);
        }
        // A replay finds the review bound to the action as the record has it.
        if let Some(review) = facts.review.as_mut().filter(|_| reviewed) {
            review.binding = facts.action.binding();
        }
        let id = facts.action.id.to_string();
        let event = Event::Decided {
            facts: Box::new(facts),
            why,
            sealed_args,
            approval: None,
            revision: revision.to_owned(),
        };
        Write::new(id, event)
    }

    async fn refuse(&self, refusal: Refusal, record: Write) -> Done {
        let text = format!(
            "NOT EXECUTED. `{}` is not allowed: {}. Do not try it in another way; go on without it.",
            refusal.action.tool(),
            refusal.why.reasons.join("; ")
        );
        let id = record.id.clone();
        let closed = Event::Closed {
            outcome: Outcome::Refused,
            detail: None,
            result: None,
        };
        let written = async {
            self.audit.write(record.opens(Opens::Waits)).await?;
            fault::point("refuse.recorded").await;
            let closed = Write::new(id, closed).opens(Opens::Ends);
            self.audit.write_or_keep(closed).await
        };
        match written.await {
            Ok(()) => Done::refused(text),
            Err(no_record) => Done::refused(format!("NOT EXECUTED. {no_record}.")),
        }
    }

    /// Puts a question; the identical one that was put meanwhile is joined.
    async fn ask(&self, mut question: Question, record: Write) -> Result<Arc<Held>, AskError> {
        // People are shown the arguments, so nothing else runs after their yes.
        question.action.meta = None;
        let _one = self.asking.lock().await;
        if let Some(held) = self.approvals.find(&approvals::same(&question.action)) {
            return Ok(held);
        }
        let room = if self.goes_on(&question.action) {
            self.approvals.room(&question.action)
        } else {
            Err(AskError::Over)
        };
        if let Err(full) = room {
            let closed = Event::Closed {
                outcome: Outcome::Refused,
                detail: Some(full.to_string()),
                result: None,
            };
            let id = record.id.clone();
            self.audit.write(record.opens(Opens::Waits)).await?;
            fault::point("ask.full").await;
            let closed = Write::new(id, closed).opens(Opens::Ends);
            self.audit.write_or_keep(closed).await?;
            return Err(full);
        }
        let id = self.approvals.new_id();
        let mut record = record.opens(Opens::Waits);
        let mut shown = (self.shown_tool(&question.action), Value::Null);
        if let Event::Decided {
            facts, approval, ..
        } = &mut record.event
        {
            *approval = Some(id.clone());
            shown.1 = facts.action.args.clone();
        }
        self.audit.write(record).await?;
        fault::point("ask.recorded").await;
        let action = question.action.id.clone();
        let asked = self
            .approvals
            .ask(id, question, shown, Timestamp::now())
            .await;
        if asked.is_err() {
            let closed = Event::Closed {
                outcome: Outcome::Refused,
                detail: Some("the question could not be stored".into()),
                result: None,
            };
            let closed = Write::new(action.as_str(), closed).opens(Opens::Ends);
            self.audit.write_or_keep(closed).await?;
        }
        asked
    }

    /// Waits with a caller for the answer of a question.
    async fn wait(&self, held: Arc<Held>, call: &Call) -> Done {
        self.approvals.join(&held).await;
        fault::point("wait.joined").await;
        if hosted::is_hosted(&held.action) {
            self.hosted.joined(&held);
        }
        let mut progress = held.progress.subscribe();
        let _ = call.notes.send(Note::Held(held.id.clone())).await;
        loop {
            tokio::select! {
                answer = held.answered() => {
                    fault::point("wait.answered").await;
                    self.approvals.part(&held);
                    return Done { answer: Some(answer), receipt: Some(Receipt::Question(held.id.clone())) };
                }
                () = call.cancel.cancelled() => {
                    self.approvals.leave(&held).await;
                    return Done::refused("NOT EXECUTED. The call was cancelled.");
                }
                () = self.stopping.cancelled() => {
                    self.approvals.part(&held);
                    return Done { answer: None, receipt: None };
                }
                // One that fell behind goes on with what is newest.
                report = progress.recv() => if let Ok(report) = report {
                    let _ = call.notes.try_send(Note::Progress(report));
                },
            }
        }
    }

    /// The answer of an identical action whose caller's stream broke before it was handed over.
    async fn reattach(&self, sameness: &Digest, resumed: bool) -> Option<Done> {
        let flight = self.flights.abandoned(sameness, resumed)?;
        let mut answer = flight.answer;
        let answer = answer.wait_for(Option::is_some).await.ok()?.clone();
        Some(Done {
            answer,
            receipt: Some(Receipt::Flight(sameness.clone(), flight.action)),
        })
    }

    /// Does an allowed action. It runs to its end even if the caller's future is dropped.
    async fn carry_out(
        self: &Arc<Self>,
        permit: Permit,
        call: Call,
        item: Option<Item>,
        underway: Arc<Option<Underway>>,
    ) -> Done {
        self.note_begun(permit.action());
        self.show(item.as_ref(), Outcome::Running).await;
        let receipt = (!self.reads_only(permit.action()))
            .then(|| (approvals::same(permit.action()), permit.action().id.clone()));
        let (tell, answer) = tokio::sync::watch::channel(None);
        let owed = receipt.is_some();
        if let Some((sameness, _)) = &receipt {
            self.flights.begin(
                sameness.clone(),
                permit.action(),
                call.present.clone(),
                answer,
                underway.clone(),
            );
        }
        let (reports, mut progress) = mpsc::channel(64);
        let broker = self.clone();
        let cancel = call.cancel.clone();
        let ends = underway.clone();
        let doing = self.tasks.spawn(async move {
            let _ends = ends;
            let id = permit.action().id.to_string();
            let (answer, outcome, detail) = broker.perform(&permit, cancel, reports).await;
            fault::point("call.replied").await;
            let result = broker.told(&answer);
            let closed = Event::Closed {
                outcome,
                detail,
                result,
            };
            broker
                .audit
                .write_later(Write::new(id, closed).opens(Opens::Ends))
                .await;
            fault::point("call.closed").await;
            broker.show(item.as_ref(), outcome).await;
            if owed {
                tell.send_replace(Some(answer.clone()));
                broker.flights.ended(&permit.action().conversation);
            }
            answer
        });
        let mut doing = std::pin::pin!(doing);
        let mut open = true;
        let answer = loop {
            tokio::select! {
                biased;
                report = progress.recv(), if open => match report {
                    Some(report) => { let _ = call.notes.try_send(Note::Progress(report)); }
                    None => open = false,
                },
                answer = &mut doing => break answer,
            }
        };
        while let Ok(report) = progress.try_recv() {
            let _ = call.notes.try_send(Note::Progress(report));
        }
        let cancelled = call.cancel.is_cancelled();
        match answer {
            Ok(answer) => {
                let receipt = receipt.map(|(sameness, action)| Receipt::Flight(sameness, action));
                if cancelled && let Some(receipt) = &receipt {
                    self.redeem(receipt).await;
                }
                Done {
                    answer: Some(answer),
                    receipt: receipt.filter(|_| !cancelled),
                }
            }
            Err(error) => {
                tracing::error!("a call ended badly: {error}");
                Done::refused(
                    "UNKNOWN. The gateway failed while this was done: it may or may not have happened.",
                )
            }
        }
    }

    /// Whether the configuration still grants an action's server to its group.
    fn granted(&self, action: &Action) -> bool {
        let config = self.config.now();
        let group = config.groups.get(&action.group);
        group.is_some_and(|group| {
            let mut servers = group.servers.iter();
            servers.any(|server| server.as_str() == action.server)
        })
    }

    /// Whether an action's run is under way, or its token is not revoked.
    fn goes_on(&self, action: &Action) -> bool {
        if hosted::is_hosted(action) {
            return self.identity.runs.is_open(&action.run);
        }
        let token = action.conversation.as_str().strip_prefix("token:");
        self.identity.not_revoked(token.unwrap_or_default())
    }

    fn reads_only(&self, action: &Action) -> bool {
        action.method.reads_only() || self.traits_of(&self.config.now(), action).read_only
    }

    /// Sends a permitted action to its server. Only here, and in `perform_model`, does an
    /// action leave the gateway.
    async fn perform(
        &self,
        permit: &Permit,
        cancel: CancellationToken,
        progress: mpsc::Sender<Value>,
    ) -> (Answer, Outcome, Option<String>) {
        let action = permit.action();
        if let Some(inside) = self.upstreams.inside(&action.server) {
            return self.perform_inside(permit, inside).await;
        }
        fault::point("call.send").await;
        let sent = self.send(action, cancel, progress).await;
        match sent {
            Err(moved) => (moved, Outcome::Refused, None),
            Ok(sent) => self.answered(permit, sent).await,
        }
    }

    /// Sends an action over the connection by which its server showed the definition that was decided
    /// on, and over no other.
    ///
    /// # Errors
    /// The answer for the agent, where that is not what the server shows now; nothing was sent.
    async fn send(
        &self,
        action: &Action,
        cancel: CancellationToken,
        progress: mpsc::Sender<Value>,
    ) -> Result<Result<Reply, UpstreamError>, Answer> {
        /// How often a server may be started anew between being looked at and being sent to.
        const TRIES: usize = 3;
        let deadline = self.deadline(&action.server);
        for _ in 0..TRIES {
            let asked = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(UpstreamError::NotStarted {
                    reason: "the call was cancelled".to_owned(),
                }),
                current = self.catalog.current(&action.server) => current,
                () = tokio::time::sleep(deadline) => Err(UpstreamError::NotStarted {
                    reason: "it did not say in time what it offers".to_owned(),
                }),
            };
            let hold = match asked {
                Ok(hold) => hold,
                Err(UpstreamError::Another) => continue,
                Err(error) => return Ok(Err(error)),
            };
            let listing = self.catalog.known(&action.server);
            match listing.map(|listing| listing.stand(action.method, &action.name)) {
                Some(Stand::There(now)) if now == action.definition => {}
                Some(Stand::There(_)) => return Err(Answer::Refused(moved(&action.name))),
                Some(Stand::Gone | Stand::Unknown) | None => {
                    return Err(Answer::Refused(gone(&action.name)));
                }
            }
            let request = Request {
                method: action.method.as_str().to_owned(),
                params: params(action),
                deadline,
                cancel: cancel.clone(),
                progress: Some(progress.clone()),
                only: hold.as_ref().map(Hold::connection),
            };
            match self.upstreams.request(&action.server, request).await {
                Err(UpstreamError::Another) => {}
                sent => return Ok(sent),
            }
        }
        Ok(Err(UpstreamError::Another))
    }

    /// What a server answered, for the caller and for the log.
    async fn answered(
        &self,
        permit: &Permit,
        sent: Result<Reply, UpstreamError>,
    ) -> (Answer, Outcome, Option<String>) {
        let action = permit.action();
        match sent {
            Ok(Reply::Result(raw)) => {
                let failed = action.method == Method::Call && is_error(raw.get());
                let outcome = if failed { Outcome::Error } else { Outcome::Ok };
                self.learn(action, raw.get()).await;
                let answer = Answer::Result(raw.get().to_owned());
                self.hand_over(permit, answer, outcome, None).await
            }
            Ok(Reply::Error(error)) => {
                let detail = error
                    .get("message")
                    .and_then(Value::as_str)
                    .map(|text| self.masked(text));
                let answer = Answer::Error(error.to_string());
                self.hand_over(permit, answer, Outcome::Error, detail).await
            }
            Err(error) => {
                let (answer, outcome) = failure(&action.server, &error);
                (answer, outcome, Some(error.to_string()))
            }
        }
    }

    /// [`Action::tool`] with credentials hidden, for whatever is stored or shown.
    fn shown_tool(&self, action: &Action) -> String {
        self.kept.finder().mask_text(&action.tool())
    }

    fn masked(&self, text: &str) -> String {
        const LONGEST: usize = 500;
        let masked = self.kept.finder().mask_text(text);
        masked.chars().take(LONGEST).collect()
    }

    fn deadline(&self, server: &str) -> Duration {
        const DEFAULT: Duration = Duration::from_mins(5);
        let server = ServerName::try_from(server.to_owned()).ok();
        server
            .and_then(|server| Some(self.config.now().servers.get(&server)?.call_timeout))
            .unwrap_or(DEFAULT)
    }

    /// Begins an approved action, once; it runs whether or not somebody waits for it.
    pub fn run_approved(self: &Arc<Self>, held: Arc<Held>) {
        let broker = self.clone();
        self.tasks.spawn(async move {
            while let Err(error) = broker.release(&held).await {
                tracing::error!("question `{}`: {error}", held.id);
                if held.is_answered() {
                    return;
                }
                // It has not begun and nobody was told anything: a yes outlives a full disk.
                tokio::select! {
                    () = broker.stopping.cancelled() => return,
                    () = tokio::time::sleep(RELEASE_AGAIN) => {}
                }
            }
        });
    }

    /// Decides the stored action again, and does it.
    async fn release(&self, held: &Arc<Held>) -> Result<(), DecideError> {
        let void = async |why: String| {
            let text = format!(
                "NOT EXECUTED. A person approved this call, but {why}. Call again to ask anew."
            );
            self.approvals
                .void(held, Outcome::Refused, why, Answer::Refused(text))
                .await
        };
        if !self.goes_on(&held.action) {
            let why = if hosted::is_hosted(&held.action) {
                "the task it was asked for is over"
            } else {
                "the credential it was asked with has been revoked"
            };
            return Ok(void(why.to_owned()).await?);
        }
        if !self.granted(&held.action) {
            return Ok(void("this group may no longer use its server".to_owned()).await?);
        }
        fault::point("release.asks").await;
        // The server as it is now, not as it was when the question was put.
        if let Err(error) = self.catalog.refresh(&held.action.server).await {
            let (answer, outcome) = failure(&held.action.server, &error);
            let why = error.to_string();
            return Ok(self.approvals.void(held, outcome, why, answer).await?);
        }
        let mut action = held.action.clone();
        let listing = self.catalog.known(&action.server);
        let now = listing.map(|listing| listing.stand(action.method, &action.name));
        let identity = self.catalog.identity(&action.server).cloned();
        let (Some(Stand::There(now)), Some(identity)) = (now, identity) else {
            return Ok(void("the tool is not there any more".to_owned()).await?);
        };
        (action.definition, action.identity) = (now, identity);
        let (permit, write) = match self.release_now(action, held) {
            Ok(released) => released,
            Err(reason) => return Ok(void(reason.to_string()).await?),
        };
        if !self.approvals.begin(held).await? {
            return Ok(()); // It has begun before.
        }
        fault::point("release.begun").await;
        if let Err(no_record) = self.audit.write(write).await {
            let answer = Answer::Refused(format!("NOT EXECUTED. {no_record}."));
            let why = Some(no_record.to_string());
            self.approvals
                .close(held, Outcome::Refused, why, None)
                .await;
            self.approvals.finish(held, Outcome::Refused, answer).await;
            return Ok(());
        }
        fault::point("release.recorded").await;
        self.note_begun(permit.action());
        let (reports, mut progress) = mpsc::channel(64);
        let forward = held.progress.clone();
        let forwarding = self.tasks.spawn(async move {
            while let Some(report) = progress.recv().await {
                let _ = forward.send(report);
            }
        });
        // Nobody's going away cancels what a person approved; stopping the gateway does.
        let (answer, outcome, detail) = self
            .perform(&permit, self.stopping.child_token(), reports)
            .await;
        let _ = forwarding.await;
        fault::point("release.replied").await;
        let result = self.told(&answer);
        self.approvals.close(held, outcome, detail, result).await;
        fault::point("release.closed").await;
        self.approvals.finish(held, outcome, answer).await;
        fault::point("release.settled").await;
        Ok(())
    }

    /// The second decision, and the labels: one step under the conversation's lock.
    fn release_now(&self, action: Action, held: &Held) -> Result<(Permit, Write), decision::Void> {
        let credentials = self.credentials(&action.args, action.meta.as_ref());
        let conversation = self.conversations.get(&action.conversation);
        let mut conversation = lock(&conversation);
        let config = self.config.now();
        let traits = self.traits_of(&config, &action);
        // A person's word is in the place of a reviewer's.
        let facts = self.facts(&config, action, traits, credentials, None, &conversation);
        let (permit, why) =
            decision::release(&self.policy_by(&config).policy, facts, &held.approved)?;
        let tool = self.shown_tool(permit.action());
        let put = self.put_into(permit.action(), &conversation);
        let put = Some((permit.action().server.clone(), put));
        let labels = take_labels(&mut conversation, permit.action(), tool, &why);
        let write =
            Write::new(held.action.id.as_str(), Event::Released { why }).opens(Opens::Begins);
        let write = Write {
            labels,
            put,
            ..write
        };
        Ok((permit, write))
    }

    /// The transport took all of an answer.
    pub async fn redeem(&self, receipt: &Receipt) {
        match receipt {
            Receipt::Question(id) => {
                fault::point("answer.taken").await;
                self.approvals.delivered(id).await;
            }
            Receipt::Flight(sameness, action) => {
                self.flights.redeem(sameness, action);
            }
        }
    }

    /// After a start: what was being done when the gateway died is `unknown`, and is never done
    /// again by itself; what was approved and not begun is done now. Returns what was closed.
    ///
    /// # Errors
    /// [`NoRecord`], if that cannot be recorded.
    pub async fn recover(
        self: &Arc<Self>,
        running: Vec<(String, bool)>,
        approved: Vec<Arc<Held>>,
    ) -> Result<Vec<String>, NoRecord> {
        let mut closed_now = Vec::new();
        for (id, doing) in running {
            let waits = !doing && self.approvals.waits(&id);
            if waits || approved.iter().any(|held| held.action.id.as_str() == id) {
                continue;
            }
            let (outcome, detail) = match (doing, self.approvals.asked_about(&id)) {
                (true, _) => (
                    Outcome::Unknown,
                    "the gateway stopped while it was being done",
                ),
                (false, true) => (Outcome::Refused, "the gateway stopped before it was done"),
                (false, false) => (
                    Outcome::Refused,
                    "the gateway stopped before anybody was asked",
                ),
            };
            let closed = Event::Closed {
                outcome,
                detail: Some(detail.to_owned()),
                result: None,
            };
            self.audit
                .write(Write::new(id.clone(), closed).opens(Opens::Ends))
                .await?;
            fault::point("recover.closed").await;
            closed_now.push(id);
        }
        for held in approved {
            fault::point("recover.runs").await;
            self.run_approved(held);
        }
        Ok(closed_now)
    }
}

/// What people of a hosted run see of an action.
fn item(record: &Write) -> Option<Item> {
    match &record.event {
        Event::Decided { facts, .. } => Item::of(&facts.action),
        Event::Agreed { .. }
        | Event::Answered { .. }
        | Event::Labelled { .. }
        | Event::Released { .. }
        | Event::Closed { .. }
        | Event::Refused { .. }
        | Event::Pinned(_)
        | Event::Declassified { .. }
        | Event::Noted { .. } => None,
    }
}

fn take_labels(
    conversation: &mut Conversation,
    action: &Action,
    tool: String,
    why: &Why,
) -> Vec<(policy::ids::ConversationId, Label, Provenance)> {
    let from = Provenance {
        action: action.id.clone(),
        tool,
        at: Timestamp::now(),
    };
    conversation.read |= action.kind == Kind::Mcp;
    // Also those that are there already: the record of the action that brought one may come later
    // than this one, or never.
    let taken = why.adds.iter();
    taken
        .map(|label| {
            conversation.take(*label, &from);
            (action.conversation.clone(), *label, from.clone())
        })
        .collect()
}

/// What a caller is told where its server turned out to be another one when it was started.
fn moved(name: &str) -> String {
    format!(
        "NOT EXECUTED. `{name}` is not what it was when this was decided. Call again: a person will be asked."
    )
}

/// What a caller is told of something that is served and that its server does not have.
fn gone(name: &str) -> String {
    format!(
        "NOT EXECUTED. `{name}` is not there any more: its server has taken it back. Go on without it."
    )
}

/// The request's parameters, made from the action alone.
fn params(action: &Action) -> Value {
    let mut params = match action.method {
        Method::Call | Method::Prompt => json!({ "name": action.name, "arguments": action.args }),
        Method::Read | Method::Subscribe | Method::Unsubscribe | Method::Complete => {
            action.args.clone()
        }
        Method::Model => Value::Null,
    };
    if let (Some(meta), Some(params)) = (&action.meta, params.as_object_mut()) {
        params.insert("_meta".to_owned(), Value::Object(meta.clone()));
    }
    params
}

/// One text for what is not there, not granted and not to be known of.
pub fn unknown(method: Method) -> Value {
    let noun = match method {
        Method::Call => "tool",
        Method::Prompt => "prompt",
        Method::Read | Method::Subscribe | Method::Unsubscribe => "resource",
        Method::Complete => "reference",
        Method::Model => "model",
    };
    json!({ "code": -32602, "message": format!("unknown {noun}") })
}

fn is_error(result: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Flag {
        #[serde(rename = "isError", default)]
        is_error: bool,
    }
    serde_json::from_str::<Flag>(result).is_ok_and(|flag| flag.is_error)
}

/// A server's failure in words for an agent, and what is known of the action.
fn failure(server: &str, error: &UpstreamError) -> (Answer, Outcome) {
    if error.sent() {
        let text = format!(
            "UNKNOWN. `{server}`: {error}. It may or may not have happened: look before you try again."
        );
        (Answer::Refused(text), Outcome::Unknown)
    } else {
        let text =
            format!("NOT EXECUTED. `{server}`: {error}. Try again later, or go on without it.");
        (Answer::Refused(text), Outcome::Error)
    }
}
