//! The link to the gateway, when it breaks.

use serde_json::json;

use crate::home::{Home, PostFault};
use crate::script::Script;

const GONE: (&str, &str) = ("PORTCULLIS_GONE_MS", "500");

fn three_turns() -> [Script; 3] {
    let call = |id| Script::calls(&[(id, "t__echo", json!({ "say": id }))]);
    [call("a"), call("b"), Script::text("ok")]
}

const STORY: [&str; 9] = [
    "hello native",
    r#"Assistant: a=t__echo({"say":"a"})"#,
    "result a[a]",
    "User: a[a]",
    r#"Assistant: b=t__echo({"say":"b"})"#,
    "result b[b]",
    "User: b[b]",
    "Assistant: ok",
    "done",
];

/// Whatever happens to the requests with events, each arrives once and in its place.
async fn check(faults: &[PostFault]) {
    let home = Home::start().await;
    home.script(three_turns());
    home.change(|known| known.post_faults.extend(faults));
    home.begin("go");
    let agent = home.agent();
    assert_eq!(home.told().await, STORY, "{faults:?}");
    assert_eq!(agent.ended().await.0, Some(0));
    assert!(home.lock().post_faults.is_empty());
}

#[tokio::test]
async fn events_that_are_refused_are_sent_again() {
    check(&[PostFault::Refused, PostFault::Refused]).await;
}

#[tokio::test]
async fn events_whose_acknowledgement_is_lost_are_sent_again_and_not_doubled() {
    check(&[PostFault::Unanswered, PostFault::Unanswered]).await;
}

#[tokio::test]
async fn nothing_is_called_before_it_is_stored_that_it_will_be() {
    // Long enough for a call to be made, if nobody waited.
    check(&[PostFault::Late; 4]).await;
    check(&[PostFault::Refused; 4]).await;
}

#[tokio::test]
async fn an_acknowledgement_of_some_or_of_the_past_is_only_that() {
    check(&[
        PostFault::Late,
        PostFault::First,
        PostFault::Late,
        PostFault::First,
    ])
    .await;
}

#[tokio::test]
async fn events_that_are_too_long_together_are_sent_one_by_one() {
    let home = Home::start().await;
    let text = serde_json::json!({ "type": "text", "text": "Looking" });
    home.script([
        Script::blocks(&[text], "pause_turn"),
        Script::text("Found."),
    ]);
    home.change(|known| {
        known.post_gate = Some("post");
        known.one_by_one = true;
    });
    home.begin("go");
    let agent = home.agent();
    home.until(|known| known.asked.len() == 2).await;
    home.open("post");
    let story = [
        "hello native",
        "Assistant: Looking",
        "Assistant: Found.",
        "done",
    ];
    assert_eq!(home.told().await, story);
    assert_eq!(home.streamed(), "LookingFound.");
    assert!(home.lock().posts.iter().any(|post| post.len() > 1));
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_message_that_the_gateway_cannot_take_ends_the_run() {
    let home = Home::start().await;
    home.script([Script::text("x")]);
    home.begin("go");
    home.change(|known| known.post_faults.extend([PostFault::TooLong; 8]));
    let agent = home.agent();
    let told = home.told().await;
    assert_eq!(
        told,
        ["failed Limit: a message is longer than the gateway takes"]
    );
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn turns_are_followed_again_from_where_they_broke() {
    let home = Home::start().await;
    home.change(|known| known.cut_followers = 2);
    home.script([
        Script::calls(&[("a", "t__wait", json!({ "gate": "yes" }))]),
        Script::text("ok"),
    ]);
    home.begin("go");
    let agent = home.agent();
    home.until(|known| known.calls.len() == 1).await;
    home.say("first");
    home.until(|known| known.followed.len() == 3).await;
    home.say("second");
    home.open("yes");
    let story = home.told().await;
    // Nothing was heard twice, whenever the second was heard.
    let heard = story
        .iter()
        .filter(|line| line.starts_with("heard"))
        .count();
    let followed = home.lock().followed.clone();
    assert!(
        heard >= 1 && followed[..3] == [0, 1, 2],
        "{story:?} {followed:?}"
    );
    let asked = home.lock().asked.clone();
    let last = asked.last().unwrap()["messages"].to_string();
    assert_eq!(
        (
            last.matches("first").count(),
            last.matches("second").count()
        ),
        (1, 1)
    );
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_run_that_is_over_ends_the_agent() {
    for status in [401, 404, 410] {
        let home = Home::start().await;
        home.change(|known| known.over = Some(status));
        let agent = home.agent();
        assert_eq!(agent.ended().await.0, Some(0));
    }
}

#[tokio::test]
async fn a_run_that_ends_in_the_middle_ends_the_agent() {
    let home = Home::start().await;
    let held = Script::calls(&[("a", "t__wait", json!({ "gate": "yes" }))]);
    home.script([held, Script::text("ok")]);
    home.begin("go");
    let agent = home.agent();
    home.until(|known| known.calls.len() == 1).await;
    home.change(|known| known.over = Some(410));
    home.open("yes");
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_gateway_that_is_gone_ends_the_agent() {
    let home = Home::start().await;
    home.script([Script::calls(&[(
        "a",
        "t__wait",
        json!({ "gate": "never" }),
    )])]);
    home.begin("go");
    let agent = home.agent_with(&[GONE], &[]);
    home.until(|known| known.calls.len() == 1).await;
    home.vanish();
    let (code, said) = agent.ended().await;
    assert_eq!(
        (code, said.as_str()),
        (
            Some(1),
            "portcullis-agent: the gateway was gone for 0.5 seconds\n"
        )
    );
}

#[tokio::test]
async fn a_gateway_of_another_version_is_said_to_people() {
    let home = Home::start().await;
    home.begin("go");
    home.change(|known| {
        if let agent::Ask::Begin(begin) = &mut known.turns[0].ask {
            begin.protocol = 2;
        }
    });
    let agent = home.agent();
    let text = "failed Agent: the gateway speaks version 2 and the agent version 1; install both from one release";
    assert_eq!(home.told().await, ["hello native", text]);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_gateway_of_another_kind_is_said() {
    let home = Home::start().await;
    home.change(|known| known.over = Some(400));
    let (code, said) = home.agent().ended().await;
    let told = "portcullis-agent: the gateway's answer is not understood: HTTP 400; use the agent that came with it\n";
    assert_eq!((code, said.as_str()), (Some(1), told));
}
