//! Whatever comes between: no two agents at once in a group, and nothing that was said, by people
//! or agents, lost or doubled, in the conversation and on the screen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use agent::{Event, Message, Role};
use channels::web::{Body, Item, RunState};
use futures::{FutureExt as _, StreamExt as _};
use proptest::prelude::*;

use crate::house::{
    Agent, Clock, House, World, calls, delta, group, hello, message, results, says,
};

const GROUPS: [&str; 2] = ["demo", "other"];

#[derive(Clone, Debug)]
enum Op {
    /// A person says something in a group.
    Say(usize, usize),
    /// Others have their turn.
    Yield(u8),
    /// Time goes by.
    Seconds(u64),
    /// A person stops what goes on.
    Stop(usize),
    /// The broker holds a question of whoever works, or none.
    Waits(usize, bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..GROUPS.len(), 0..2usize).prop_map(|(group, person)| Op::Say(group, person)),
        5 => (1..60u8).prop_map(Op::Yield),
        2 => (1..40u64).prop_map(Op::Seconds),
        1 => (0..GROUPS.len()).prop_map(Op::Stop),
        1 => (0..GROUPS.len(), any::<bool>()).prop_map(|(group, waits)| Op::Waits(group, waits)),
    ]
}

/// What agents do, one choice after the other.
#[derive(Debug, Default)]
struct Choices {
    left: Mutex<VecDeque<u8>>,
    said: Mutex<u32>,
    /// What was acknowledged.
    acked: Mutex<Vec<String>>,
}

impl Choices {
    /// The next choice; in the end all agents do well.
    fn next(&self) -> u8 {
        self.left.lock().unwrap().pop_front().unwrap_or(100)
    }

    fn word(&self, kind: &str) -> String {
        let mut said = self.said.lock().unwrap();
        *said += 1;
        format!("{kind}{said}")
    }
}

/// An agent that works as it should, but for what the choices say.
async fn live(mut agent: Agent, choices: Arc<Choices>) -> Option<()> {
    let mut history = agent.begin.history.clone();
    report(&mut agent, &choices, vec![hello()]).await?;
    loop {
        let last = history.last()?.clone();
        let open: Vec<String> = last
            .content
            .iter()
            .filter_map(|block| Some(block.get("name").and(block.get("id"))?.as_str()?.to_owned()))
            .collect();
        if !open.is_empty() {
            let ids: Vec<&str> = open.iter().map(String::as_str).collect();
            let results = results(&ids);
            if choices.next() < 60 {
                let block = results.content[0].clone();
                report(&mut agent, &choices, vec![Event::Result { block }]).await?;
            }
            history.push(results.clone());
            report(&mut agent, &choices, vec![message(results)]).await?;
        }
        let mut heard = None;
        while let Some(Some(turn)) = agent.turns.next().now_or_never() {
            let agent::Ask::Say { messages } = turn.ask else {
                return None;
            };
            heard = Some(turn.seq);
            history.extend(messages);
        }
        if let Some(seq) = heard {
            report(&mut agent, &choices, vec![Event::Heard { seq }]).await?;
        }
        if history.last()?.role == Role::Assistant {
            report(&mut agent, &choices, vec![Event::Done]).await?;
            agent.process.exit.cancel();
            return Some(());
        }
        let answer = match choices.next() {
            0..30 => {
                let id = choices.word("call");
                calls(&[&id, &format!("{id}b")])
            }
            30..40 => {
                let failed = Event::Failed {
                    failure: agent::Failure::Provider,
                    text: "no".to_owned(),
                };
                report(&mut agent, &choices, vec![failed]).await?;
                return None;
            }
            _ => says(&choices.word("answer")),
        };
        history.push(answer.clone());
        report(&mut agent, &choices, vec![delta("…"), message(answer)]).await?;
    }
}

/// Reports once or twice, or dies before or after it.
async fn report(agent: &mut Agent, choices: &Choices, events: Vec<Event>) -> Option<()> {
    let texts: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Message { message } => Some(text(message)),
            _ => None,
        })
        .filter(|text| !text.is_empty())
        .collect();
    let events = agent.numbered(events);
    let choice = choices.next();
    if choice < 8 {
        agent.process.exit.cancel();
        return None;
    }
    for _ in 0..=usize::from(choice < 30) {
        match agent.post(events.clone()).await {
            Ok(_) => choices.acked.lock().unwrap().extend(texts.clone()),
            Err(groups::EventError::Invalid(what)) => panic!("an honest agent is refused: {what}"),
            Err(_) => {
                agent.process.exit.cancel();
                return None;
            }
        }
    }
    if choice > 245 {
        agent.process.exit.cancel();
        return None;
    }
    Some(())
}

fn text(message: &Message) -> String {
    let texts = message
        .content
        .iter()
        .filter_map(|block| block.get("text")?.as_str());
    texts.collect()
}

async fn settled() {
    for _ in 0..8 {
        tokio::task::spawn_blocking(std::thread::yield_now)
            .await
            .unwrap();
    }
}

/// One life of the gateway, which ends in the middle of whatever happens.
fn life(
    folder: &std::path::Path,
    world: &Arc<World>,
    choices: &Arc<Choices>,
    said: &Mutex<Vec<String>>,
    ops: &[Op],
    last: bool,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let clock = runtime.block_on(async {
        let settings = GROUPS.map(group).to_vec();
        let house = Arc::new(House::open(folder, world, settings).await);
        let clock = Clock::stop();
        house.groups.start().await;
        let (starter, its) = (house.clone(), choices.clone());
        tokio::spawn(async move {
            loop {
                let process = starter.launched().await;
                let (groups, choices) = (starter.groups.clone(), its.clone());
                tokio::spawn(async move {
                    if let Some(agent) = Agent::try_of(&groups, process.clone()).await {
                        live(agent, choices).await;
                    }
                    process.exit.cancel();
                });
            }
        });
        for op in ops {
            match op {
                Op::Say(group, person) => {
                    let text = format!("m{}", said.lock().unwrap().len());
                    said.lock().unwrap().push(text.clone());
                    house
                        .say(GROUPS[*group], ["ana", "bo"][*person], &text)
                        .await;
                }
                Op::Yield(times) => {
                    for _ in 0..*times {
                        tokio::task::spawn_blocking(|| ()).await.unwrap();
                    }
                }
                Op::Seconds(seconds) => clock.advance(*seconds).await,
                Op::Stop(group) => {
                    let name = GROUPS[*group].parse().unwrap();
                    house.groups.stop(&name, "ana").await.unwrap();
                }
                Op::Waits(group, waits) => {
                    for n in 0..40 {
                        let run = policy::ids::RunId::new(format!("{}-{n}", GROUPS[*group]));
                        house.groups.waiting(&run, *waits);
                    }
                }
            }
        }
        if last {
            rest(&house, &clock).await;
            let items = [house.items(GROUPS[0]).await, house.items(GROUPS[1]).await].concat();
            let later = House::open(folder, &Arc::default(), GROUPS.map(group).to_vec()).await;
            later.groups.start().await;
            let mut histories = Vec::new();
            for name in GROUPS {
                later.say(name, "zoe", &format!("and {name}?")).await;
                histories.push(later.agent().await.begin.history);
            }
            check(&histories, items, choices, &said.lock().unwrap());
        }
        clock
    });
    drop(clock);
    drop(runtime);
}

/// Waits until nothing is to be done any more.
async fn rest(house: &House, clock: &Clock) {
    let mut idle = 0;
    for _ in 0..3000 {
        let status = house.groups.status().await;
        let rests = status
            .iter()
            .all(|one| one.state.is_none() && one.queued == 0);
        idle = if rests { idle + 1 } else { 0 };
        if idle == 20 {
            return;
        }
        settled().await;
        clock.advance(1).await;
    }
    panic!("it never comes to rest: {:?}", house.groups.status().await);
}

/// What the next agent begins with, and what people see, against what was said.
fn check(histories: &[Vec<Message>], items: Vec<Item>, choices: &Choices, said: &[String]) {
    let mut heard = Vec::new();
    let mut agents = Vec::new();
    let mut shown = Vec::new();
    let mut persons = Vec::new();
    for history in histories {
        let mut open: Vec<String> = Vec::new();
        for message in history {
            let ids = |member: &str| -> Vec<String> {
                let ids = message
                    .content
                    .iter()
                    .filter_map(|block| block.get(member)?.as_str());
                ids.map(str::to_owned).collect()
            };
            let mut answered = ids("tool_use_id");
            answered.sort();
            open.sort();
            assert_eq!(answered, open, "results follow their calls: {history:#?}");
            open = ids("id");
            let text = text(message);
            match message.role {
                Role::Assistant if !text.is_empty() => agents.push(text),
                Role::User if text.starts_with('m') => heard.push(text),
                Role::Assistant | Role::User => {}
            }
        }
        assert!(open.is_empty(), "no call is left open");
    }
    for item in items {
        match item.body {
            Body::Agent { text, .. } => shown.push(text),
            Body::Person { text, .. } => persons.push(text),
            Body::Run { state, .. } => assert!(
                matches!(state, RunState::Done | RunState::Failed | RunState::Stopped),
                "{} is shown as {state:?}",
                item.id
            ),
            Body::Tool { .. } | Body::Notice { .. } => {}
        }
    }
    let counted = |texts: &[String]| {
        let mut counts = BTreeMap::new();
        for text in texts {
            *counts.entry(text.clone()).or_insert(0) += 1;
        }
        counts
    };
    let once = |texts: &[String]| texts.iter().map(|text| (text.clone(), 1)).collect();
    let all: BTreeMap<String, i32> = once(said);
    assert_eq!(counted(&persons), all, "people see what they said");
    assert_eq!(counted(&heard), all, "agents heard what people said");
    assert_eq!(
        counted(&agents),
        once(&agents),
        "the conversation has everything once"
    );
    assert_eq!(
        counted(&shown),
        once(&agents),
        "people see what agents said"
    );
    for text in choices.acked.lock().unwrap().iter() {
        assert!(
            agents.contains(text),
            "`{text}` was acknowledged and is lost"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        max_shrink_iters: 30,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn nothing_is_lost_or_doubled_and_no_two_work_at_once(
        lives in prop::collection::vec(prop::collection::vec(op(), 1..14), 1..5),
        left in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        let choices = Arc::new(Choices { left: Mutex::new(left.into()), ..Choices::default() });
        let said = Mutex::new(Vec::new());
        for (nth, ops) in lives.iter().enumerate() {
            life(folder.path(), &world, &choices, &said, ops, nth + 1 == lives.len());
        }
    }
}
