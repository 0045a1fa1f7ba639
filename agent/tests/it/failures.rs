//! A provider that fails in every way: the person reads what happened, and nothing hangs.

use serde_json::json;

use crate::home::Home;
use crate::script::{Script, Step};

/// How often the model is asked before the agent gives up.
const TRIES: usize = 5;

/// What is told after the greeting, and how often the model was asked.
async fn check(scripts: Vec<Script>, told: &[&str], asked: usize) -> Home {
    let home = Home::start().await;
    home.script(scripts);
    home.begin("hello?");
    let agent = home.agent_with(&[("PORTCULLIS_STALL_MS", "300")], &[]);
    assert_eq!(home.told().await[1..], *told);
    assert_eq!(home.lock().asked.len(), asked);
    assert_eq!(agent.ended().await.0, Some(0));
    home
}

/// An answer that fails in some way once is asked for again, and nothing of it is kept.
async fn check_once(wrong: Script, status: &str) -> Home {
    let told = [status, "Assistant: Here I am.", "done"];
    check(vec![wrong, Script::text("Here I am.")], &told, 2).await
}

/// One that fails every time is given up.
async fn check_always(wrong: Script, status: &str, failed: &str) {
    let mut told = vec![status; TRIES - 1];
    told.push(failed);
    check(vec![wrong; TRIES], &told, TRIES).await;
}

#[tokio::test]
async fn a_key_that_is_not_accepted() {
    let told = "failed Credential: the provider does not accept the key of the model; check the key and the account in the configuration";
    for status in [401, 402, 403] {
        check(vec![Script::refuse(status, "other")], &[told], 1).await;
    }
}

#[tokio::test]
async fn a_request_that_is_refused() {
    let told = "failed Refused: the provider refuses the request: not like this";
    for status in [400, 404, 413] {
        check(vec![Script::refuse(status, "other")], &[told], 1).await;
    }
    let told = "failed Refused: the provider refuses the request: HTTP 405";
    check(vec![Script::refuse(405, "")], &[told], 1).await;
}

#[tokio::test]
async fn no_room_for_a_moment() {
    let now = "status: the model is busy; asking again now";
    for status in [429, 503, 529] {
        let busy = Script::refuse(status, "overloaded_error");
        check_once(busy.clone().with("retry-after", "0"), now).await;
    }
    let soon = "status: the model is busy; asking again in 1 s";
    check_once(Script::refuse(529, "").with("retry-after", "soon"), soon).await;
    check_once(Script::refuse(429, "").with("retry-after", "1"), soon).await;
}

#[tokio::test]
async fn no_room_at_all() {
    let busy = Script::refuse(529, "overloaded_error").with("retry-after", "0");
    let status = "status: the model is busy; asking again now";
    let failed = "failed Overloaded: the model is busy; try again later";
    check_always(busy, status, failed).await;
}

#[tokio::test]
async fn a_wait_that_nobody_has_time_for() {
    let busy = Script::refuse(429, "").with("retry-after", "3600");
    let failed =
        "failed Overloaded: the model is busy and asks for 3600 s of patience; try again then";
    check(vec![busy], &[failed], 1).await;
}

#[tokio::test]
async fn a_provider_that_fails() {
    let status = "status: the provider of the model failed; asking again in 1 s";
    for code in [500, 502, 504] {
        check_once(Script::refuse(code, ""), status).await;
    }
    let failed = "failed Provider: the provider of the model failed; try again later";
    check_always(Script::refuse(500, "other"), status, failed).await;
}

#[tokio::test]
async fn half_a_stream() {
    let status = "status: the model's answer broke off; asking again in 1 s";
    let whole = Script::text("A half is no answer.");
    let steps = whole.steps.len();
    let home = check_once(whole.clone().broken(4, Step::Cut), status).await;
    assert_eq!(home.streamed(), "A half is no answer.Here I am.");
    // Without its last event it is half, however well it ended.
    check_once(whole.clone().broken(steps - 1, Step::Raw("")), status).await;
    let failed = "failed Provider: the model's answer broke off; try again later";
    check_always(whole.broken(2, Step::Cut), status, failed).await;
}

#[tokio::test]
async fn a_stall() {
    let status = "status: the model fell silent; asking again in 1 s";
    check_once(Script::text("x").broken(4, Step::Hang), status).await;
    check_once(Script::text("x").broken(0, Step::Hang), status).await;
}

#[tokio::test]
async fn garbage() {
    let status = "status: what came from the model was no answer; asking again in 1 s";
    for raw in [
        "data: {\"type\":\n\n",
        "data: []\n\n",
        "data: {}\n\n",
        "data: \u{0}\n\n",
    ] {
        check_once(Script::text("x").broken(3, Step::Raw(raw)), status).await;
    }
    let page = Script {
        status: 200,
        headers: vec![("content-type", "text/html")],
        steps: vec![Step::Raw("<html>")],
    };
    check_once(page, status).await;
    let call = json!({ "type": "tool_use", "id": "a", "name": "t__echo", "input": {} });
    let delta = json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "input_json_delta", "partial_json": "{\"say\":" } });
    let cut = Script::blocks(&[call], "tool_use").insert(2, Step::Event(delta));
    let home = check_once(cut, status).await;
    assert!(home.lock().calls.is_empty());
    let failed = "failed Provider: what came from the model was no answer; try again later";
    check_always(
        Script::stream(vec![Step::Raw("data: <html>\n\n")]),
        status,
        failed,
    )
    .await;
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream() {
    let error = |kind: &str| {
        let error = json!({ "type": kind, "message": "too much" });
        Script::text("x").broken(3, Step::Event(json!({ "type": "error", "error": error })))
    };
    check_once(
        error("overloaded_error"),
        "status: the model is busy; asking again in 1 s",
    )
    .await;
    check_once(
        error("api_error"),
        "status: the provider of the model failed; asking again in 1 s",
    )
    .await;
    let told = "failed Refused: the provider refuses the request: too much";
    check(vec![error("invalid_request_error")], &[told], 1).await;
    let told = "failed Credential: the provider does not accept the key of the model; check the key and the account in the configuration";
    check(vec![error("authentication_error")], &[told], 1).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let moved = Script::refuse(307, "").with("location", "/elsewhere");
    let status = "status: what came from the model was no answer; asking again in 1 s";
    let home = check_once(moved, status).await;
    assert_eq!(home.lock().elsewhere, 0);
}
