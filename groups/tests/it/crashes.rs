//! What is left after the gateway ended: by a signal, or between two writes.

use std::sync::Arc;

use channels::web::RunState;
use policy::ids::RunId;

use crate::house::{House, World, asked, calls, delta, demo, group, hello, message, result, says};
use agent::Event;

#[tokio::test]
async fn a_run_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let house = House::open(folder.path(), &world, vec![group("demo")]).await;
    house.groups.start().await;
    house.say("demo", "ana", "read").await;
    let mut agent = house.agent().await;
    let block = result("t1", "one");
    let kept = Event::Result {
        block: block.clone(),
    };
    agent
        .report(vec![hello(), message(calls(&["t1"])), kept, delta("wri")])
        .await;
    house.groups.waiting(&agent.run(), true);
    house.until_run(&agent.run(), RunState::Waiting).await;
    house.say("demo", "ana", "hurry").await;
    agent.said().await;
    house.close().await;
    assert!(agent.process.stopped.is_cancelled());
    assert!(world.overs.lock().unwrap().is_empty(), "its questions stay");

    let house = House::open(folder.path(), &world, vec![group("demo")]).await;
    house.say("demo", "bo", "hello").await;
    house.groups.start().await;
    let mut again = house.agent().await;
    assert_eq!(again.run(), agent.run());
    assert!(again.begin.resumed);
    assert_eq!(again.begin.history, [asked("read"), calls(&["t1"])]);
    assert_eq!(again.begin.results, [block]);
    assert!(again.begin.next_event > agent.next);
    assert_eq!(again.said().await.1, [asked("hurry")]);
    house.until_run(&again.run(), RunState::Working).await;
    house
        .until_run(&RunId::new("demo-3"), RunState::Queued)
        .await;
    again.refused(vec![message(says("too early"))]).await;
}

#[tokio::test]
async fn a_run_that_was_answered_before_the_restart_is_done_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let house = House::open(folder.path(), &world, vec![group("demo")]).await;
    house.groups.start().await;
    house.say("demo", "ana", "one").await;
    let mut agent = house.agent().await;
    agent.report(vec![hello(), message(says("1"))]).await;
    house.say("demo", "ana", "two").await;
    agent.said().await;
    house.close().await;

    let house = House::open(folder.path(), &world, vec![group("demo")]).await;
    house.groups.start().await;
    house.until_run(&agent.run(), RunState::Done).await;
    let next = house.agent().await;
    assert_eq!(next.begin.history, [asked("one"), says("1"), asked("two")]);
    assert!(!next.begin.resumed);
    assert_eq!(*world.overs.lock().unwrap(), ["demo-1"]);
}

#[tokio::test]
async fn the_runs_of_a_group_that_is_gone_fail_with_words() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let house = House::open(folder.path(), &world, vec![group("demo")]).await;
    house.groups.start().await;
    house.say("demo", "ana", "one").await;
    let mut agent = house.agent().await;
    agent.report(vec![hello(), message(calls(&["t1"]))]).await;
    house.say("demo", "ana", "two").await;
    agent.said().await;
    house.say("demo", "bo", "three").await;
    house
        .until_run(&RunId::new("demo-3"), RunState::Queued)
        .await;
    house.close().await;

    let house = House::open(folder.path(), &world, vec![group("other")]).await;
    house.groups.start().await;
    for run in ["demo-1", "demo-3"] {
        let words = house.until_run(&RunId::new(run), RunState::Failed).await;
        let gone = "this group is not in the configuration any more";
        assert_eq!(words.as_deref(), Some(gone));
    }
    assert_eq!(*world.overs.lock().unwrap(), ["demo-1"]);
    assert!(!house.groups.stop(&demo(), "ana").await.unwrap());
    house.close().await;

    // It comes back, with everything that was said.
    let house = House::open(folder.path(), &world, vec![group("demo")]).await;
    house.groups.start().await;
    house.say("demo", "ana", "four").await;
    let agent = house.agent().await;
    let persons: Vec<_> = agent
        .begin
        .history
        .iter()
        .filter_map(|one| {
            let text = one.content[0]["text"].as_str()?;
            (!text.starts_with('[')).then(|| text.to_owned())
        })
        .collect();
    assert_eq!(persons, ["one", "two", "three", "four"]);
}
