//! From people to agents: order, members, limits.

use std::sync::Arc;

use channels::web::{Body, RunState};
use policy::ids::RunId;

use crate::house::{
    Agent, House, World, asked, calls, demo, group, hello, message, results, says, words,
};
use agent::{Event, Role};

#[tokio::test]
async fn a_message_becomes_a_run_and_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let house = House::open(folder.path(), &world, vec![group("demo")]).await;
    house.groups.start().await;
    house.say("demo", "ana", "hello").await;
    let agent = house.agent().await;
    assert_eq!(agent.begin.history, [asked("hello")]);
    assert_eq!(agent.begin.system, "You help.");
    assert!(!agent.begin.resumed);
    let key = &agent.process.key;
    assert_eq!(key.run.as_str(), "demo-1");
    assert_eq!(key.conversation.as_str(), "group:demo");
    assert_eq!(key.person, "ana");
    let run = agent.run();
    house.until_run(&run, RunState::Working).await;
    agent.answer("hi").await;
    house.until_run(&run, RunState::Done).await;
    assert_eq!(house.words("demo").await, ["ana: hello", "agent: hi"]);

    house.say("demo", "ana", "and now?").await;
    let agent = house.agent().await;
    let history = [asked("hello"), says("hi"), asked("and now?")];
    assert_eq!(agent.begin.history, history);
    assert_eq!(*world.overs.lock().unwrap(), ["demo-1"]);
}

#[tokio::test]
async fn what_is_said_during_work_is_told_and_stands_where_it_was_heard() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "read").await;
    let mut agent = house.agent().await;
    agent.report(vec![hello(), message(calls(&["t1"]))]).await;
    house.say("demo", "ana", "only the first").await;
    let (seq, said) = agent.said().await;
    assert_eq!(said, [asked("only the first")]);
    // Not between a call and its result, where no provider takes it.
    agent.refused(vec![Event::Heard { seq }]).await;
    agent.refused(vec![Event::Heard { seq: seq + 1 }]).await;
    agent
        .report(vec![
            message(results(&["t1"])),
            Event::Heard { seq },
            message(says("the first")),
        ])
        .await;
    // What was heard is not told again, to whoever asks anew.
    let anew = house.groups.turns(&agent.run(), 0).unwrap();
    let mut anew = Box::pin(anew);
    futures::StreamExt::next(&mut anew).await.unwrap();
    assert!(futures::StreamExt::next(&mut agent.turns).await.is_none());
    house.say("demo", "ana", "thanks").await;
    let turn = futures::StreamExt::next(&mut anew).await.unwrap();
    assert_eq!(turn.seq, seq + 1);
    agent
        .report(vec![Event::Heard { seq: turn.seq }, Event::Done])
        .await;
    agent.process.exit.cancel();

    house.say("demo", "ana", "more").await;
    let agent = house.agent().await;
    let history = &agent.begin.history;
    let texts: Vec<_> = history.iter().map(|one| &one.content[0]["text"]).collect();
    assert_eq!(history.len(), 7, "{texts:?}");
    assert_eq!(
        history[3..],
        [
            asked("only the first"),
            says("the first"),
            asked("thanks"),
            asked("more"),
        ]
    );
}

#[tokio::test]
async fn what_nobody_heard_is_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "one").await;
    let mut agent = house.agent().await;
    house.say("demo", "ana", "two").await;
    agent.said().await;
    house.say("demo", "ana", "three").await;
    agent.said().await;
    agent.answer("1").await;
    let agent = house.agent().await;
    assert_eq!(agent.run().as_str(), "demo-2");
    let history = [asked("one"), says("1"), asked("two"), asked("three")];
    assert_eq!(agent.begin.history, history);
}

#[tokio::test]
async fn nobody_speaks_into_the_run_of_somebody_else_or_overtakes_them() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "one").await;
    let agent = house.agent().await;
    house.say("demo", "bo", "two").await;
    house.say("demo", "ana", "three").await;
    house
        .until_run(&RunId::new("demo-3"), RunState::Queued)
        .await;
    let status = house.groups.status().await;
    assert_eq!(
        (status[0].queued, status[0].state),
        (2, Some(RunState::Working))
    );
    agent.answer("1").await;
    for (person, text) in [("bo", "two"), ("ana", "three")] {
        let agent = house.agent().await;
        assert_eq!(agent.process.key.person, person);
        assert_eq!(agent.begin.history.last(), Some(&asked(text)));
        assert!(house.nobody_else());
        agent.answer("2").await;
    }
}

#[tokio::test]
async fn a_stranger_is_told_so_and_nothing_else_happens() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = group("demo");
    settings.members = vec!["ana".to_owned()];
    let world = Arc::new(World::default());
    let house = House::open(folder.path(), &world, vec![settings]).await;
    house.groups.start().await;
    house.say("demo", "eve", "let me in").await;
    house.say("demo", "ana", "hello").await;
    let agent = house.agent().await;
    assert_eq!(agent.begin.history, [asked("hello")]);
    assert_eq!(
        house.words("demo").await,
        [
            "eve: let me in",
            "ana: hello",
            "notice: only members of this group may speak here; this message was not read",
        ]
    );
}

#[tokio::test]
async fn a_full_queue_and_a_message_too_long_are_said_to_the_person() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "0").await;
    let mut agent = house.agent().await;
    house
        .say("demo", "ana", &"x".repeat(groups::bounds::SAID_BYTES + 1))
        .await;
    for n in 1..=groups::bounds::QUEUED + 1 {
        house.say("demo", "ana", &n.to_string()).await;
    }
    let items = house.until("demo", |items| {
        let notices = |items: &[channels::web::Item]| {
            let notices = items
                .iter()
                .filter(|item| matches!(item.body, Body::Notice { .. }));
            notices.count()
        };
        notices(items) == 2
    });
    let mut words = words(&items.await);
    words.retain(|one| one.starts_with("notice"));
    assert_eq!(
        words,
        [
            "notice: this message is longer than 64 KiB and was not read; write it in pieces",
            "notice: 20 messages wait to be read already, and this one was not taken; write it again \
         when they are answered",
        ]
    );
    for n in 1..=groups::bounds::QUEUED {
        assert_eq!(agent.said().await.1, [asked(&n.to_string())]);
    }
    agent.report(vec![hello(), message(says("ok"))]).await;
    // What was heard makes room.
    agent.report(vec![Event::Heard { seq: 21 }]).await;
    house.say("demo", "ana", "now").await;
    assert_eq!(agent.said().await.1, [asked("now")]);
}

#[tokio::test]
async fn no_more_runs_work_than_may_and_those_that_wait_for_a_person_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let names: Vec<String> = (0..=groups::bounds::RUNS)
        .map(|n| format!("g{n}"))
        .collect();
    let settings = names.iter().map(|name| group(name)).collect();
    let house = House::open(folder.path(), &world, settings).await;
    house.groups.start().await;
    let mut agents = Vec::new();
    for name in &names[1..] {
        house.say(name, "ana", "hello").await;
        agents.push(house.agent().await);
    }
    let seq = house.say("g0", "ana", "hello").await;
    let late = RunId::new(format!("g0-{seq}"));
    let words = house.until_run(&late, RunState::Queued).await;
    assert_eq!(words.as_deref(), Some("waits for its turn"));
    assert!(house.nobody_else());
    let first = &mut agents[0];
    first.report(vec![hello()]).await;
    house.groups.waiting(&first.run(), true);
    let words = house.until_run(&first.run(), RunState::Waiting).await;
    assert_eq!(words.as_deref(), Some("waits for a person"));
    let agent = house.agent().await;
    assert_eq!(agent.run(), late);
    house.groups.waiting(&first.run(), false);
    house.until_run(&first.run(), RunState::Working).await;
}

#[tokio::test]
async fn a_message_for_no_group_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("nowhere", "ana", "hello?").await;
    house.say("No Group", "ana", "hello there?").await;
    house.say("demo", "ana", "hello").await;
    let agent = house.agent().await;
    assert_eq!(agent.begin.history, [asked("hello")]);
}

#[tokio::test]
async fn a_person_stops_a_run_and_the_queue_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    assert!(!house.groups.stop(&demo(), "ana").await.unwrap());
    house.say("demo", "ana", "delete it").await;
    let mut agent = house.agent().await;
    agent
        .report(vec![
            hello(),
            message(calls(&["t1", "t2"])),
            Event::Result {
                block: crate::house::result("t2", "gone"),
            },
        ])
        .await;
    house.say("demo", "bo", "hello").await;
    house
        .until_run(&RunId::new("demo-2"), RunState::Queued)
        .await;
    assert!(house.groups.stop(&demo(), "ana").await.unwrap());
    agent.process.stopped.cancelled().await;
    let words = house.until_run(&agent.run(), RunState::Stopped).await;
    assert_eq!(words.as_deref(), Some("stopped by `ana`"));
    agent.refused(vec![message(says("late"))]).await;

    let agent = Agent::of(&house.groups, house.launched().await).await;
    let history = &agent.begin.history;
    assert_eq!(history.len(), 4);
    // Every call has its result, the one that is known and the one that is not.
    let closing = &history[2];
    assert_eq!(closing.role, Role::User);
    let ids: Vec<_> = history[1].content.iter().map(|call| &call["id"]).collect();
    assert_eq!(closing.content[0]["tool_use_id"], *ids[0]);
    assert_eq!(closing.content[0]["is_error"], true);
    assert_eq!(closing.content[1]["tool_use_id"], *ids[1]);
    assert_eq!(closing.content[1]["content"][0]["text"], "gone");
    let note = closing.content[2]["text"].as_str().unwrap();
    assert!(note.contains("stopped"), "{note}");
    assert_eq!(history[3], asked("hello"));
}
