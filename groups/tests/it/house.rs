//! A house with groups in it: a database in a folder, a web channel, and agents in the test's hands.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::{Ask, Begin, Event, Events, Limits, Message, Numbered, Role, Turn, VERSION};
use channels::inbox::Said;
use channels::web::{Body, Item, RunState, Web};
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};
use groups::{Ended, EventError, Groups, Host, LaunchError, Launched, RunKey, Settings};
use policy::ids::{ConversationId, GroupName, RunId};
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

struct Migrator;
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let all = channels::db::migrations().into_iter();
        all.chain(groups::db::migrations()).collect()
    }
}

/// What stays when the gateway goes: who runs, and what was seen.
#[derive(Debug, Default)]
pub(crate) struct World {
    running: Mutex<BTreeSet<String>>,
    pub(crate) overs: Mutex<Vec<String>>,
}

/// A gateway that hands its agents to the test.
struct Hands {
    world: Arc<World>,
    launched: mpsc::UnboundedSender<Process>,
    refuses: Arc<Mutex<bool>>,
}

/// An agent's process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) key: RunKey,
    pub(crate) exit: CancellationToken,
    pub(crate) stopped: CancellationToken,
}

struct Leash {
    process: Process,
    world: Arc<World>,
}

impl Leash {
    fn gone(&self) {
        let group = self.process.key.group.as_str();
        self.world.running.lock().unwrap().remove(group);
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.gone();
    }
}

impl Launched for Leash {
    fn ended(&mut self) -> BoxFuture<'_, Ended> {
        async move {
            tokio::select! {
                () = self.process.exit.cancelled() => {}
                () = self.process.stopped.cancelled() => {}
            }
            self.gone();
            Ended("it ended".to_owned())
        }
        .boxed()
    }
    fn stop(&mut self) -> BoxFuture<'_, ()> {
        self.process.stopped.cancel();
        self.gone();
        async {}.boxed()
    }
}

impl Host for Hands {
    fn heard<'a>(
        &'a self,
        _: &'a ConversationId,
        _: &'a str,
        _: i64,
        _: &'a str,
    ) -> BoxFuture<'a, ()> {
        async {}.boxed()
    }
    fn launch(&self, run: &RunKey) -> BoxFuture<'_, Result<Box<dyn Launched>, LaunchError>> {
        if *self.refuses.lock().unwrap() {
            return async { Err(LaunchError("no such program".to_owned())) }.boxed();
        }
        let fresh = self
            .world
            .running
            .lock()
            .unwrap()
            .insert(run.group.as_str().to_owned());
        assert!(fresh, "two agents at once in `{}`", run.group);
        let process = Process {
            key: run.clone(),
            exit: CancellationToken::new(),
            stopped: CancellationToken::new(),
        };
        let leash = Leash {
            process: process.clone(),
            world: self.world.clone(),
        };
        let _ = self.launched.send(process);
        async move { Ok(Box::new(leash) as Box<dyn Launched>) }.boxed()
    }
    fn over(&self, run: &RunKey) -> BoxFuture<'_, ()> {
        let mut overs = self.world.overs.lock().unwrap();
        if !overs.contains(&run.run.as_str().to_owned()) {
            overs.push(run.run.as_str().to_owned());
        }
        async {}.boxed()
    }
}

/// One life of the gateway.
pub(crate) struct House {
    pub(crate) web: Arc<Web>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) refuses: Arc<Mutex<bool>>,
    launched: tokio::sync::Mutex<mpsc::UnboundedReceiver<Process>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

pub(crate) fn group(name: &str) -> Settings {
    Settings {
        name: name.parse().unwrap(),
        model: "model-1".to_owned(),
        script: false,
        system: "You help.".to_owned(),
        limits: Limits {
            turns: 10,
            seconds: 60,
            max_tokens: 1000,
            result_bytes: 10_000,
            parallel: 2,
        },
        silence: Duration::from_secs(500),
        members: Vec::new(),
    }
}

impl House {
    pub(crate) async fn open(folder: &Path, world: &Arc<World>, groups: Vec<Settings>) -> Self {
        let url = format!("sqlite://{}?mode=rwc", folder.join("t.db").display());
        let mut options = sea_orm::ConnectOptions::new(url);
        options.max_connections(4).map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .journal_mode(sea_orm::sqlx::sqlite::SqliteJournalMode::Wal)
                // The power does not go in a test.
                .synchronous(sea_orm::sqlx::sqlite::SqliteSynchronous::Off)
                .busy_timeout(Duration::from_secs(5))
        });
        let conn = sea_orm::Database::connect(options).await.unwrap();
        Migrator::up(&conn, None).await.unwrap();
        let web = Web::new(channels::db::Db::new(conn.clone()));
        let (sender, launched) = mpsc::unbounded_channel();
        let refuses = Arc::new(Mutex::new(false));
        let host = Arc::new(Hands {
            world: world.clone(),
            launched: sender,
            refuses: refuses.clone(),
        });
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let db = groups::db::Db::new(conn);
        let opened = Groups::open(
            db,
            web.clone(),
            host,
            groups,
            stopping.clone(),
            tasks.clone(),
        );
        let groups = opened.await.unwrap();
        Self {
            web,
            groups,
            refuses,
            launched: tokio::sync::Mutex::new(launched),
            stopping,
            tasks,
        }
    }

    /// A house with the group `demo`, which reads its inbox.
    pub(crate) async fn demo(folder: &Path) -> Self {
        let world = Arc::new(World::default());
        let house = Self::open(folder, &world, vec![group("demo")]).await;
        house.groups.start().await;
        house
    }

    /// Ends this life as a signal does.
    pub(crate) async fn close(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) async fn say(&self, place: &str, by: &str, text: &str) -> i64 {
        let said = Said {
            channel: Web::NAME.into(),
            place: place.into(),
            external_id: text.into(),
            by: by.into(),
            text: text.into(),
            at: jiff::Timestamp::now(),
        };
        self.web.say(said).await.unwrap().seq
    }

    /// The next agent that is started.
    pub(crate) async fn launched(&self) -> Process {
        self.launched.lock().await.recv().await.unwrap()
    }

    /// The next agent that is started, once it was told to begin.
    pub(crate) async fn agent(&self) -> Agent {
        Agent::of(&self.groups, self.launched().await).await
    }

    /// Whether no further agent was started.
    pub(crate) fn nobody_else(&self) -> bool {
        self.launched.try_lock().unwrap().try_recv().is_err()
    }

    pub(crate) async fn items(&self, place: &str) -> Vec<Item> {
        self.web.page(place, None, 1000).await.unwrap()
    }

    /// Waits until what people see is so.
    pub(crate) async fn until(&self, place: &str, so: impl Fn(&[Item]) -> bool) -> Vec<Item> {
        let mut changes = Box::pin(self.web.follow(self.web.newest().await.unwrap()));
        loop {
            let items = self.items(place).await;
            if so(&items) {
                return items;
            }
            changes.next().await.unwrap().unwrap();
        }
    }

    /// Waits until the run has come to this, and gives its words.
    pub(crate) async fn until_run(&self, run: &RunId, state: RunState) -> Option<String> {
        let place = run.as_str().rsplit_once('-').unwrap().0.to_owned();
        let find = |items: &[Item]| {
            items.iter().find_map(|item| match &item.body {
                Body::Run {
                    run: id,
                    state: is,
                    text,
                } if id == run.as_str() && *is == state => Some(text.clone()),
                _ => None,
            })
        };
        let items = self.until(&place, |items| find(items).is_some()).await;
        find(&items).unwrap()
    }

    /// What people read, in order: person's and agent's words, notices.
    pub(crate) async fn words(&self, place: &str) -> Vec<String> {
        words(&self.items(place).await)
    }
}

pub(crate) fn words(items: &[Item]) -> Vec<String> {
    let words = items.iter().filter_map(|item| match &item.body {
        Body::Person { by, text } => Some(format!("{by}: {text}")),
        Body::Agent { text, .. } => Some(format!("agent: {text}")),
        Body::Notice { text } => Some(format!("notice: {text}")),
        Body::Tool { .. } | Body::Run { .. } => None,
    });
    words.collect()
}

/// An agent that does what the test says.
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) begin: Begin,
    pub(crate) turns: Pin<Box<dyn Stream<Item = Turn> + Send>>,
    pub(crate) next: u64,
    groups: Arc<Groups>,
}

impl Agent {
    pub(crate) async fn of(groups: &Arc<Groups>, process: Process) -> Self {
        Self::try_of(groups, process).await.unwrap()
    }

    /// The agent, if its run goes on.
    pub(crate) async fn try_of(groups: &Arc<Groups>, process: Process) -> Option<Self> {
        let turns = groups.turns(&process.key.run, 0).ok()?;
        let mut turns: Pin<Box<dyn Stream<Item = Turn> + Send>> = Box::pin(turns);
        let first = turns.next().await?;
        assert_eq!(first.seq, 1);
        let Ask::Begin(begin) = first.ask else {
            panic!("{first:?}")
        };
        Some(Self {
            process,
            next: begin.next_event,
            begin: *begin,
            turns,
            groups: groups.clone(),
        })
    }

    pub(crate) fn run(&self) -> RunId {
        self.process.key.run.clone()
    }

    pub(crate) fn numbered(&mut self, events: Vec<Event>) -> Events {
        let numbered = events.into_iter().map(|event| {
            let n = self.next;
            self.next += 1;
            Numbered { n, event }
        });
        Events {
            events: numbered.collect(),
        }
    }

    pub(crate) async fn post(&mut self, events: Events) -> Result<u64, EventError> {
        let acked = self.groups.events(&self.run(), events).await?;
        Ok(acked.acked)
    }

    /// Reports, and is believed.
    pub(crate) async fn report(&mut self, events: Vec<Event>) {
        let events = self.numbered(events);
        let acked = self.post(events).await.unwrap();
        assert_eq!(acked, self.next - 1);
    }

    /// Reports, and is not; the numbers are used again.
    pub(crate) async fn refused(&mut self, events: Vec<Event>) -> EventError {
        let next = self.next;
        let events = self.numbered(events);
        self.next = next;
        self.post(events).await.unwrap_err()
    }

    pub(crate) async fn said(&mut self) -> (u64, Vec<Message>) {
        let turn = self.turns.next().await.unwrap();
        match turn.ask {
            Ask::Say { messages } => (turn.seq, messages),
            other => panic!("{other:?}"),
        }
    }

    /// Answers and ends.
    pub(crate) async fn answer(mut self, text: &str) {
        self.report(vec![hello(), message(says(text)), Event::Done])
            .await;
        self.process.exit.cancel();
    }
}

pub(crate) fn hello() -> Event {
    Event::Hello {
        protocol: VERSION,
        core: "test/1".to_owned(),
    }
}

pub(crate) fn delta(text: &str) -> Event {
    Event::Delta {
        text: text.to_owned(),
    }
}

pub(crate) fn message(message: Message) -> Event {
    Event::Message { message }
}

pub(crate) fn says(text: &str) -> Message {
    Message::text(Role::Assistant, text)
}

pub(crate) fn asked(text: &str) -> Message {
    Message::text(Role::User, text)
}

pub(crate) fn calls(ids: &[&str]) -> Message {
    let call = |id: &&str| json!({ "type": "tool_use", "id": id, "name": "box__read", "input": { "a": 1 } });
    Message {
        role: Role::Assistant,
        content: ids.iter().map(call).collect(),
    }
}

pub(crate) fn result(id: &str, text: &str) -> Value {
    json!({ "type": "tool_result", "tool_use_id": id, "content": [{ "type": "text", "text": text }] })
}

pub(crate) fn results(ids: &[&str]) -> Message {
    Message {
        role: Role::User,
        content: ids.iter().map(|id| result(id, "read")).collect(),
    }
}

pub(crate) fn demo() -> GroupName {
    "demo".parse().unwrap()
}

/// Time that goes only when the test says so.
pub(crate) struct Clock(Option<std::sync::mpsc::Sender<()>>);

impl Clock {
    /// Stops the time. Not by itself either when nothing is to do: the database works in threads
    /// that the runtime does not see.
    pub(crate) fn stop() -> Self {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || receiver.recv());
        tokio::time::pause();
        Self(Some(sender))
    }

    pub(crate) async fn advance(&self, seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.take();
    }
}
