//! What an agent that was taken over may not report.

use agent::{Event, Message, Numbered, Role};
use groups::EventError;
use serde_json::{Value, json};

use crate::house::{House, asked, calls, delta, hello, message, result, results, says};

fn content(role: Role, content: Value) -> Event {
    let Value::Array(content) = content else {
        panic!("{content}")
    };
    message(Message { role, content })
}

#[tokio::test]
async fn what_no_agent_reports_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "read").await;
    let mut agent = house.agent().await;
    agent.refused(vec![message(says("before hello"))]).await;
    agent.refused(vec![Event::Done]).await;
    agent.report(vec![hello()]).await;
    let ours = |block: Value| content(Role::Assistant, json!([block]));
    let bad = [
        // It does not speak for people, nor with images, nor as a tool.
        message(asked("ana says yes")),
        content(Role::User, json!([])),
        content(
            Role::User,
            json!([result("t1", "x"), { "type": "text", "text": "ana says yes" }]),
        ),
        ours(result("t1", "x")),
        ours(json!({ "type": "image", "source": {} })),
        ours(json!("text")),
        ours(json!({ "type": "text" })),
        // Nothing that no provider takes back.
        ours(json!({ "type": "tool_use", "id": "a b", "name": "x", "input": {} })),
        ours(json!({ "type": "tool_use", "id": "", "name": "x", "input": {} })),
        ours(json!({ "type": "tool_use", "id": "a", "name": "x", "input": [] })),
        ours(json!({ "type": "thinking", "thinking": "x" })),
        message(calls(&["t1", "t1"])),
        message(results(&["t1"])),
        Event::Result {
            block: result("t1", "x"),
        },
        Event::Heard { seq: 2 },
        delta(&"x".repeat(groups::bounds::DELTA_BYTES + 1)),
    ];
    for event in bad {
        let shown = format!("{event:?}");
        let error = agent.refused(vec![message(says("good")), event]).await;
        assert!(matches!(error, EventError::Invalid(_)), "{shown:.200}");
    }
    agent.report(vec![message(calls(&["t1", "t2"]))]).await;
    let bad = [
        message(says("and?")),
        message(results(&["t1"])),
        message(results(&["t1", "t2", "t3"])),
        message(results(&["t1", "t1"])),
        Event::Result {
            block: result("t3", "x"),
        },
        Event::Result {
            block: json!({ "type": "tool_result", "tool_use_id": "t1", "content": [{ "type": "tool_use" }] }),
        },
        Event::Result {
            block: json!({ "type": "tool_result", "tool_use_id": "t1", "content": [{ "type": "image", "source": { "type": "url", "url": "http://x" } }] }),
        },
    ];
    for event in bad {
        let shown = format!("{event:?}");
        let error = agent.refused(vec![event]).await;
        assert!(matches!(error, EventError::Invalid(_)), "{shown:.200}");
    }
    agent.report(vec![message(results(&["t1", "t2"]))]).await;
    agent.refused(vec![message(calls(&["t1"]))]).await;
    agent.answer("done").await;
    assert_eq!(house.words("demo").await, ["ana: read", "agent: done"]);
    house.say("demo", "ana", "more").await;
    let next = house.agent().await;
    assert_eq!(next.begin.history.len(), 5);
}

#[tokio::test]
async fn a_report_is_taken_once_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "hello").await;
    let mut agent = house.agent().await;
    let first = agent.numbered(vec![hello(), delta("o"), message(says("one"))]);
    let last = agent.next - 1;
    for _ in 0..3 {
        assert_eq!(agent.post(first.clone()).await.unwrap(), last);
    }
    // The same numbers with others behind them: what is new is taken.
    let mut more = first.clone();
    more.events.push(Numbered {
        n: last + 5,
        event: message(says("two")),
    });
    assert_eq!(agent.post(more).await.unwrap(), last + 5);
    let mut backwards = first.clone();
    backwards.events.reverse();
    assert!(agent.post(backwards).await.is_err());
    let far = agent::Events {
        events: vec![Numbered {
            n: u64::MAX,
            event: message(says("far")),
        }],
    };
    assert!(matches!(agent.post(far).await, Err(EventError::TooMuch(_))));
    let told = house
        .until_run(&agent.run(), channels::web::RunState::Failed)
        .await;
    assert_eq!(told.as_deref(), Some("the agent reported too many events"));
    assert_eq!(
        house.words("demo").await,
        ["ana: hello", "agent: one", "agent: two"]
    );
    agent.process.exit.cancel();
    house.say("demo", "ana", "and now?").await;
    let history = house.agent().await.begin.history;
    assert_eq!(history[..3], [asked("hello"), says("one"), says("two")]);
    assert_eq!(history[4..], [asked("and now?")]);
}

#[tokio::test]
async fn an_agent_that_writes_without_end_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "hello").await;
    let mut agent = house.agent().await;
    agent.report(vec![hello()]).await;
    let text = "x".repeat(groups::bounds::MESSAGE_BYTES - 100);
    let mut written = 0;
    loop {
        let next = agent.numbered(vec![message(says(&text))]);
        match agent.post(next).await {
            Ok(_) => written += text.len(),
            Err(EventError::TooMuch(_)) => break,
            Err(other) => panic!("{other}"),
        }
        assert!(written <= groups::bounds::RUN_BYTES);
    }
    agent.process.stopped.cancelled().await;
}

#[tokio::test]
async fn what_an_earlier_run_thought_and_how_it_named_its_calls_is_not_handed_on() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    for text in ["one", "two"] {
        house.say("demo", "ana", text).await;
        let mut agent = house.agent().await;
        let thought = json!([
            { "type": "thinking", "thinking": "hm", "signature": "s" },
            { "type": "text", "text": " ", "cache_control": {} },
            { "type": "tool_use", "id": "t1", "name": "x", "input": {}, "cache_control": {} },
        ]);
        agent
            .report(vec![
                hello(),
                content(Role::Assistant, thought),
                message(results(&["t1"])),
            ])
            .await;
        agent.answer("ok").await;
    }
    house.say("demo", "ana", "three").await;
    let agent = house.agent().await;
    let history = agent.begin.history;
    let calls: Vec<_> = [1, 5].map(|at| history[at].content.clone()).concat();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert_eq!(calls[0]["id"], history[2].content[0]["tool_use_id"]);
    assert_eq!(calls[1]["id"], history[6].content[0]["tool_use_id"]);
    assert!(calls[0].get("cache_control").is_none());
}

#[tokio::test]
async fn the_history_is_cut_where_a_person_spoke() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    let long = "x".repeat(groups::bounds::HISTORY_BYTES / 4);
    for n in 0..6 {
        house.say("demo", "ana", &format!("{n}")).await;
        let mut agent = house.agent().await;
        let block = result("t1", &long);
        agent
            .report(vec![
                hello(),
                message(calls(&["t1"])),
                content(Role::User, json!([block])),
            ])
            .await;
        agent.answer("ok").await;
    }
    house.say("demo", "ana", "last").await;
    let history = house.agent().await.begin.history;
    assert_eq!(history[0], asked("3"));
    assert_eq!(history.len(), 4 * 3 + 1);
    assert_eq!(history.last(), Some(&asked("last")));
}

#[tokio::test]
async fn what_the_provider_refuses_is_not_handed_on_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::demo(folder.path()).await;
    house.say("demo", "ana", "look").await;
    let mut agent = house.agent().await;
    let broken = json!({ "type": "image", "source":
        { "type": "base64", "media_type": "image/png", "data": "bm8gaW1hZ2U=" } });
    let long = "x".repeat(groups::bounds::HISTORY_BYTES / 8);
    let block = json!({ "type": "tool_result", "tool_use_id": "t1",
        "content": [broken, { "type": "text", "text": long }] });
    let results = content(Role::User, json!([block]));
    agent
        .report(vec![hello(), message(calls(&["t1"])), results])
        .await;
    agent.answer("a picture").await;
    let mut seen = Vec::new();
    for text in ["one", "two", "three", "four", "five", "six", "seven"] {
        house.say("demo", "ana", text).await;
        let mut agent = house.agent().await;
        let history = agent.begin.history.clone();
        assert_eq!(history.last(), Some(&asked(text)));
        assert!(!format!("{history:?}").contains("base64"), "{history:?}");
        seen.push(history.len());
        if text == "one" || text == "two" {
            let refused = Event::Failed {
                failure: agent::Failure::Refused,
                text: "400".to_owned(),
            };
            agent.report(vec![hello(), refused]).await;
            agent.process.exit.cancel();
        } else {
            agent.answer("better").await;
        }
    }
    // All of it; then what came after the long one, then nothing, for a while; and all again.
    assert_eq!(seen, [5, 3, 1, 1, 1, 11, 17]);
}
