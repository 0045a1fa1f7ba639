//! Agents that end, keep silent, write and are restarted within one life of the gateway.

use agent::{Ask, Event, Failure};
use channels::web::{Body, Live, RunState};
use futures::StreamExt as _;

use crate::house::{
    Clock, House, asked, calls, delta, demo, hello, message, result, results, says,
};

#[tokio::test]
async fn an_agent_that_ends_is_started_again_with_all_that_it_reported() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    let clock = Clock::stop();
    house.say("demo", "ana", "read").await;
    let mut agent = house.agent().await;
    let run = agent.run();
    let block = result("t1", "one");
    let kept = Event::Result {
        block: block.clone(),
    };
    agent
        .report(vec![
            hello(),
            delta("I'll"),
            message(calls(&["t1", "t2"])),
            kept,
        ])
        .await;
    house.say("demo", "ana", "hurry").await;
    agent.said().await;
    let old = agent.numbered(vec![message(results(&["t1", "t2"]))]);
    agent.process.exit.cancel();
    let (mut again, seconds) = next_agent(&house, &clock).await;
    assert!(seconds >= 1);
    assert!(again.begin.resumed);
    assert_eq!(again.begin.history, [asked("read"), calls(&["t1", "t2"])]);
    assert_eq!(again.begin.results, [block]);
    assert!(again.begin.next_event > old.events[0].n);
    assert_eq!(again.said().await.1, [asked("hurry")]);
    again.report(vec![hello()]).await;
    // What is left of the old process says nothing any more.
    let stale = again.post(old).await;
    assert!(matches!(stale, Err(groups::EventError::NoRun)), "{stale:?}");
    again.report(vec![message(results(&["t1", "t2"]))]).await;
    again.answer("done").await;
    house.until_run(&run, RunState::Done).await;
    assert_eq!(
        house.words("demo").await,
        ["ana: read", "ana: hurry", "agent: done"]
    );
    // That was never heard.
    assert_eq!(
        next_agent(&house, &clock).await.0.begin.history.last(),
        Some(&asked("hurry"))
    );
}

/// Lets time go until an agent is started.
async fn next_agent(house: &House, clock: &Clock) -> (crate::house::Agent, u64) {
    let mut seconds = 0;
    let launched = house.launched();
    tokio::pin!(launched);
    let process = loop {
        tokio::select! {
            biased;
            process = &mut launched => break process,
            () = settled() => {
                clock.advance(1).await;
                seconds += 1;
            }
        }
        assert!(seconds < 600, "no agent is started");
    };
    let agent = crate::house::Agent::of(&house.groups, process);
    (agent.await, seconds)
}

/// Long enough in real time for the database's threads to answer.
async fn settled() {
    for _ in 0..20 {
        tokio::task::spawn_blocking(std::thread::yield_now)
            .await
            .unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_agent_that_keeps_ending_is_given_up_with_words() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    let clock = Clock::stop();
    house.say("demo", "ana", "hello").await;
    let first = house.agent().await;
    let run = first.run();
    first.process.exit.cancel();
    for _ in 0..groups::bounds::RELAUNCHES {
        let (agent, _) = next_agent(&house, &clock).await;
        agent.process.exit.cancel();
    }
    let words = house.until_run(&run, RunState::Failed).await.unwrap();
    assert!(words.contains("Write again"), "{words}");
    // The next one has its chance.
    house.say("demo", "ana", "again").await;
    let (agent, _) = next_agent(&house, &clock).await;
    assert_eq!(agent.begin.history.last(), Some(&asked("again")));
}

#[tokio::test]
async fn an_agent_that_cannot_be_started_fails_the_run_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    let clock = Clock::stop();
    *house.refuses.lock().unwrap() = true;
    house.say("demo", "ana", "hello").await;
    let run = policy::ids::RunId::new("demo-1");
    let failed = house.until_run(&run, RunState::Failed);
    tokio::pin!(failed);
    for _ in 0..600 {
        tokio::select! {
            biased;
            words = &mut failed => {
                assert!(words.unwrap().contains("Write again"));
                return;
            }
            () = settled() => clock.advance(1).await,
        }
    }
    panic!("the run goes on");
}

#[tokio::test]
async fn an_agent_that_never_says_hello_is_ended_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    let clock = Clock::stop();
    house.say("demo", "ana", "hello").await;
    let silent = house.agent().await;
    let (mut again, seconds) = next_agent(&house, &clock).await;
    assert!(silent.process.stopped.is_cancelled());
    let most = groups::bounds::HELLO.as_secs();
    assert!((most..most * 3).contains(&seconds), "{seconds}");
    again.report(vec![hello()]).await;
    for _ in 0..100 {
        settled().await;
        clock.advance(1).await;
    }
    assert!(!again.process.stopped.is_cancelled());
}

#[tokio::test]
async fn an_agent_that_falls_silent_is_ended_and_started_again_but_a_person_may_take_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    let clock = Clock::stop();
    house.say("demo", "ana", "hello").await;
    let mut silent = house.agent().await;
    let run = silent.run();
    silent.report(vec![hello(), message(calls(&["t1"]))]).await;
    house.groups.waiting(&run, true);
    house.until_run(&run, RunState::Waiting).await;
    let most = crate::house::group("demo").silence.as_secs();
    for _ in 0..20 {
        settled().await;
        clock.advance(most / 4).await;
    }
    assert!(!silent.process.stopped.is_cancelled());
    house.groups.waiting(&run, false);
    house.until_run(&run, RunState::Working).await;
    silent.report(vec![message(results(&["t1"]))]).await;
    let (again, seconds) = next_agent(&house, &clock).await;
    assert!(silent.process.stopped.is_cancelled());
    assert!((most..most + 60).contains(&seconds), "{seconds}");
    assert_eq!(again.begin.history.last(), Some(&results(&["t1"])));
}

#[tokio::test]
async fn an_agent_that_answered_and_ended_is_not_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "hello").await;
    let mut agent = house.agent().await;
    agent.report(vec![hello(), message(says("hi"))]).await;
    agent.process.exit.cancel();
    house.until_run(&agent.run(), RunState::Done).await;
    assert!(house.nobody_else());
}

#[tokio::test]
async fn text_is_seen_while_it_is_written_and_once_it_is_whole_once() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "hello").await;
    let mut agent = house.agent().await;
    agent.report(vec![hello()]).await;
    let mut live = Box::pin(house.web.follow(house.web.newest().await.unwrap()));
    agent.report(vec![delta("He")]).await;
    let Live::Writing { id: first, .. } = live.next().await.unwrap().unwrap() else {
        panic!("something is written")
    };
    agent.report(vec![delta("llo")]).await;
    // The stream broke, and the model is asked again.
    let status = Event::Status {
        text: "asking\nagain".to_owned(),
    };
    agent.report(vec![status]).await;
    let mut text = "He".to_owned();
    let dropped = loop {
        match live.next().await.unwrap().unwrap() {
            // A follower may be told a piece twice.
            Live::Writing {
                from, text: more, ..
            } => text.replace_range(from.., &more),
            Live::Dropped { id, .. } => break id,
            other @ Live::Item(_) => panic!("{other:?}"),
        }
    };
    assert_eq!((text.as_str(), &dropped), ("Hello", &first));
    let told = live.next().await.unwrap().unwrap();
    let Live::Item(item) = &told else {
        panic!("{told:?}")
    };
    assert!(
        matches!(&item.body, Body::Run { text: Some(text), .. } if text == "asking again"),
        "{item:?}"
    );
    agent.report(vec![delta("Hi")]).await;
    let Live::Writing { id, from: 0, .. } = live.next().await.unwrap().unwrap() else {
        panic!("a new text begins at its beginning")
    };
    assert_ne!(id, first);
    let item = live.next().await.unwrap().unwrap();
    assert!(
        matches!(&item, Live::Item(item) if matches!(&item.body, Body::Run { text: None, .. })),
        "{item:?}"
    );
    agent.report(vec![message(says("Hi there"))]).await;
    let whole = live.next().await.unwrap().unwrap();
    let Live::Item(item) = &whole else {
        panic!("{whole:?}")
    };
    assert_eq!(item.id, id, "it takes the place of what was written");
    assert_eq!(house.words("demo").await, ["ana: hello", "agent: Hi there"]);
}

#[tokio::test]
async fn what_a_stopped_agent_was_writing_is_not_shown_as_written_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "hello").await;
    let mut agent = house.agent().await;
    agent.report(vec![hello(), delta("He")]).await;
    let mut live = Box::pin(house.web.follow(house.web.newest().await.unwrap()));
    let Live::Writing { id: begun, .. } = live.next().await.unwrap().unwrap() else {
        panic!("something is written")
    };
    assert!(house.groups.stop(&demo(), "ana").await.unwrap());
    loop {
        match live.next().await.unwrap().unwrap() {
            Live::Dropped { id, .. } => break assert_eq!(id, begun),
            Live::Item(item) => {
                let over = matches!(
                    item.body,
                    Body::Run {
                        state: RunState::Stopped,
                        ..
                    }
                );
                assert!(!over, "it is over, and the text stands there");
            }
            Live::Writing { .. } => {}
        }
    }
}

#[tokio::test]
async fn a_failure_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "hello").await;
    let mut agent = house.agent().await;
    let failed = Event::Failed {
        failure: Failure::Credential,
        text: "401 from the provider\u{7}".to_owned(),
    };
    agent.report(vec![hello(), delta("x"), failed]).await;
    let words = house.until_run(&agent.run(), RunState::Failed).await;
    assert_eq!(
        words.as_deref(),
        Some(
            "the model's provider does not accept the key; check the configuration; the agent says: 401 from the provider"
        )
    );
    agent.process.exit.cancel();
    house.say("demo", "ana", "and now?").await;
    let next = house.agent().await;
    assert_eq!(next.begin.history.len(), 3);
    assert_eq!(next.begin.history[2], asked("and now?"));
}

#[tokio::test]
async fn an_agent_of_another_version_is_told_to_the_person() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "hello").await;
    let mut agent = house.agent().await;
    let hello = Event::Hello {
        protocol: 99,
        core: "new".to_owned(),
    };
    agent.report(vec![hello]).await;
    let words = house.until_run(&agent.run(), RunState::Failed).await;
    assert!(words.unwrap().contains("version 99"));
}

#[tokio::test]
async fn the_newest_stream_of_turns_is_served_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "one").await;
    let mut agent = house.agent().await;
    house.say("demo", "ana", "two").await;
    let (seq, _) = agent.said().await;
    house.say("demo", "ana", "three").await;
    let mut newer = Box::pin(house.groups.turns(&agent.run(), seq).unwrap());
    let turn = newer.next().await.unwrap();
    assert_eq!(turn.seq, seq + 1);
    assert_eq!(
        turn.ask,
        Ask::Say {
            messages: vec![asked("three")]
        }
    );
    assert!(agent.turns.next().await.is_none());
    house.groups.stop(&demo(), "ana").await.unwrap();
    let turn = newer.next().await;
    assert!(matches!(
        turn.map(|turn| turn.ask),
        None | Some(Ask::Stop { .. })
    ));
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "one").await;
    let agent = house.agent().await;
    let begin = || house.groups.turns(&agent.run(), 0).map(Box::pin);
    let mut open: Vec<_> = (1..groups::bounds::AT_ONCE)
        .map(|_| begin().unwrap())
        .collect();
    assert_eq!(begin().err(), Some(groups::NotServed::TooMany));
    open.pop();
    let mut newest = begin().unwrap();
    assert_eq!(newest.next().await.unwrap().seq, 1);
}
