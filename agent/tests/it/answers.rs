//! From a question to its answer.

use serde_json::json;

use crate::home::{Home, TOKEN, limits};
use crate::script::{Script, Step};

#[tokio::test]
async fn an_answer_streams_and_is_kept_whole() {
    let home = Home::start().await;
    let answer = Script::text("Hello, you there!").insert(3, Step::Gate("rest"));
    home.script([answer]);
    home.begin("hello?");
    let agent = home.agent();
    // Its first half is there while the model is still writing.
    let delta = |known: &crate::home::Known| known.stored.len() == 2;
    home.until(delta).await;
    assert_eq!(home.streamed(), "Hello, y");
    home.open("rest");
    assert_eq!(
        home.told().await,
        ["hello native", "Assistant: Hello, you there!", "done"]
    );
    assert_eq!(home.streamed(), "Hello, you there!");
    assert_eq!(agent.ended().await, (Some(0), String::new()));

    let asked = home.lock().asked[0].clone();
    assert_eq!(asked["model"], "claude-of-tests");
    assert_eq!(asked["system"], "You are a test.");
    assert_eq!(asked["max_tokens"], 1000);
    assert_eq!(asked["stream"], true);
    assert_eq!(asked["messages"][0]["content"][0]["text"], "hello?");
}

#[tokio::test]
async fn thoughts_go_back_to_the_model_as_they_came() {
    let home = Home::start().await;
    let thought = json!({ "type": "thinking", "thinking": "hm", "signature": "sig" });
    let call = json!({ "type": "tool_use", "id": "a", "name": "t__echo", "input": { "say": "x" } });
    home.script([
        Script::blocks(&[thought.clone(), call.clone()], "tool_use"),
        Script::text("ok"),
    ]);
    home.begin("think");
    let agent = home.agent();
    home.told().await;
    assert_eq!(
        home.lock().asked[1]["messages"][1]["content"],
        json!([thought, call])
    );
    assert_eq!(home.streamed(), "ok");
    agent.ended().await;
}

#[tokio::test]
async fn what_people_say_meanwhile_joins_the_next_turn() {
    let home = Home::start().await;
    let held = ("a", "t__wait", json!({ "gate": "one" }));
    let last = Script::text("Done that.").insert(3, Step::Gate("two"));
    home.script([Script::calls(&[held]), last, Script::text("And that.")]);
    home.begin("do this");
    let agent = home.agent();
    home.until(|known| known.calls.len() == 1).await;
    home.say("be quick");
    home.open("one");
    home.until(|known| known.asked.len() == 2).await;
    home.say("one more thing");
    home.open("two");
    let story = home.told().await;
    assert_eq!(
        story[3..],
        [
            "User: a[one is open]",
            "heard 2",
            "Assistant: Done that.",
            "heard 3",
            "Assistant: And that.",
            "done"
        ]
    );
    let asked = home.lock().asked.clone();
    assert_eq!(asked[1]["messages"][2]["content"][0]["type"], "tool_result");
    assert_eq!(asked[1]["messages"][2]["content"][1]["text"], "be quick");
    assert_eq!(
        asked[2]["messages"][4]["content"][0]["text"],
        "one more thing"
    );
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn stop_ends_a_call_that_waits_and_nothing_more_is_said() {
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
    home.until(|known| known.dropped == 1).await;
    assert!(!home.story().iter().any(|line| line == "done"));
}

#[tokio::test]
async fn a_signal_ends_it_in_the_middle() {
    let home = Home::start().await;
    home.script([Script::text("x").broken(3, Step::Hang)]);
    home.begin("go");
    let agent = home.agent();
    home.until(|known| known.asked.len() == 1).await;
    let id = i32::try_from(agent.0.id().unwrap()).unwrap();
    let id = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(agent.ended().await.0, Some(143));
}

#[tokio::test]
async fn the_token_is_in_no_environment_and_no_argument() {
    let home = Home::start().await;
    home.script([Script::text("x").broken(3, Step::Hang)]);
    home.begin("go");
    let agent = home.agent();
    home.until(|known| known.asked.len() == 1).await;
    for file in ["environ", "cmdline"] {
        let path = format!("/proc/{}/{file}", agent.0.id().unwrap());
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        assert!(
            text.contains("portcullis-agent") || text.contains("PORTCULLIS_URL"),
            "{text}"
        );
        assert!(!text.contains(TOKEN), "{file}");
    }
    assert_eq!(home.lock().strangers, 0);
}

#[tokio::test]
async fn the_last_turn_calls_no_tools() {
    let home = Home::start().await;
    let call = |id| Script::calls(&[(id, "t__echo", json!({ "say": "x" }))]);
    home.script([call("a"), call("b"), call("c")]);
    home.begin_with(
        "go",
        agent::Limits {
            turns: 2,
            ..limits()
        },
    );
    let agent = home.agent();
    let story = home.told().await;
    assert_eq!(
        story[3..],
        [
            "User: a[x]",
            r#"Assistant: b=t__echo({"say":"x"})"#,
            "User: b error[not executed: the run's limit of turns is reached]",
            "failed Limit: the limit of 2 turns of the model is reached; say more to go on",
        ]
    );
    assert_eq!(home.lock().calls.len(), 1);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_for_its_length_is_kept_and_says_so() {
    let home = Home::start().await;
    let text = json!({ "type": "text", "text": "Once upon" });
    home.script([Script::blocks(&[text], "max_tokens")]);
    home.begin("tell me a story");
    let agent = home.agent();
    let limit = "failed Limit: the model's answer was cut off at the limit of 1000 tokens";
    assert_eq!(
        home.told().await,
        ["hello native", "Assistant: Once upon", limit]
    );
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_refusal_is_told_and_not_kept() {
    let home = Home::start().await;
    let text = json!({ "type": "text", "text": "I ca" });
    home.script([Script::blocks(&[text], "refusal")]);
    home.begin("harm");
    let agent = home.agent();
    let refused = "failed Refused: the model declines to answer this; say it differently";
    assert_eq!(home.told().await, ["hello native", refused]);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn an_answer_that_pauses_goes_on() {
    let home = Home::start().await;
    let text = json!({ "type": "text", "text": "Looking" });
    home.script([
        Script::blocks(&[text], "pause_turn"),
        Script::text("Found."),
    ]);
    home.begin("look");
    let agent = home.agent();
    let story = home.told().await;
    assert_eq!(
        story,
        [
            "hello native",
            "Assistant: Looking",
            "Assistant: Found.",
            "done"
        ]
    );
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn an_empty_answer_is_no_message() {
    let home = Home::start().await;
    home.script([Script::blocks(&[], "end_turn")]);
    home.begin("bye");
    let agent = home.agent();
    assert_eq!(home.told().await, ["hello native", "done"]);
    assert_eq!(agent.ended().await.0, Some(0));
}
