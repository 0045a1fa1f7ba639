//! An agent that was killed and started again loses and doubles nothing.

use agent::{Event, Numbered};
use serde_json::json;

use crate::home::Home;
use crate::script::{Script, Step};

#[tokio::test]
async fn calls_with_a_result_are_not_made_again_and_open_ones_say_that_they_are() {
    let home = Home::start().await;
    home.script([Script::calls(&[
        ("a", "t__echo", json!({ "say": "x" })),
        ("b", "t__wait", json!({ "gate": "yes" })),
    ])]);
    home.begin("go");
    let agent = home.agent();
    let result = |one: &Numbered| matches!(one.event, Event::Result { .. });
    home.until(|known| known.calls.len() == 2 && known.stored.iter().any(result))
        .await;
    drop(agent);
    home.until(|known| known.dropped == 1).await;

    home.script([Script::text("ok")]);
    home.begin_again();
    let agent = home.agent();
    home.until(|known| known.calls.len() == 3).await;
    home.open("yes");
    assert_eq!(
        home.told().await,
        [
            "hello native",
            r#"Assistant: a=t__echo({"say":"x"}) + b=t__wait({"gate":"yes"})"#,
            "result a[x]",
            "hello native",
            "result b[yes is open]",
            "User: a[x] + b[yes is open]",
            "Assistant: ok",
            "done",
        ]
    );
    let calls = home.lock().calls.clone();
    let calls: Vec<_> = calls
        .iter()
        .map(|call| (call.name.as_str(), call.resumed))
        .collect();
    assert_eq!(calls[2], ("t__wait", true));
    assert!(!calls[0].1 && !calls[1].1);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn an_answer_that_was_being_written_is_asked_for_again() {
    let home = Home::start().await;
    home.script([Script::text("Hello, you!").broken(3, Step::Hang)]);
    home.begin("hello?");
    let agent = home.agent();
    home.until(|known| known.stored.len() == 2).await;
    drop(agent);
    home.script([Script::text("Hello!")]);
    home.begin_again();
    let agent = home.agent();
    let story = ["hello native", "hello native", "Assistant: Hello!", "done"];
    assert_eq!(home.told().await, story);
    assert_eq!(home.lock().asked.len(), 2);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn an_answer_that_was_stored_is_not_given_twice() {
    let home = Home::start().await;
    home.script([Script::text("Hello!")]);
    home.begin("hello?");
    let agent = home.agent();
    home.told().await;
    agent.ended().await;
    // As if the end of the run had not been stored.
    home.change(|known| known.stored.retain(|one| one.event != Event::Done));
    home.begin_again();
    let agent = home.agent();
    let story = ["hello native", "Assistant: Hello!", "hello native", "done"];
    assert_eq!(home.told().await, story);
    assert_eq!(home.lock().asked.len(), 1);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_call_that_was_stopped_spoils_no_later_run() {
    let home = Home::start().await;
    home.script([Script::calls(&[(
        "a",
        "t__wait",
        json!({ "gate": "never" }),
    )])]);
    home.begin("go");
    let agent = home.agent();
    home.until(|known| known.calls.len() == 1).await;
    home.say_stop();
    assert_eq!(agent.ended().await.0, Some(0));
    home.script([Script::text("ok")]);
    home.begin_anew("something else");
    let agent = home.agent();
    assert_eq!(
        home.told().await[2..],
        ["hello native", "Assistant: ok", "done"]
    );
    let content = home.lock().asked[1]["messages"][2]["content"].clone();
    assert_eq!(content[0]["tool_use_id"], "a");
    assert_eq!(content[0]["is_error"], true);
    assert_eq!(content[1]["text"], "something else");
    assert_eq!(agent.ended().await.0, Some(0));
}
