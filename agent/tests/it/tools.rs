//! The stand-in's tools, each with a trick, and what is expected of whoever calls them.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::home::{Home, limits};
use crate::script::{Script, Step};

/// A call that came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) arguments: Value,
    pub(crate) resumed: bool,
}

pub(crate) async fn post(
    State(home): State<Home>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let (id, method) = (body["id"].clone(), body["method"].as_str().unwrap());
    let params = &body["params"];
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let version = params["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str();
    let fits = said("mcp-method") == Some(method)
        && said("mcp-protocol-version") == Some("2026-07-28")
        && version == Some("2026-07-28")
        && said("mcp-name") == params["name"].as_str();
    if !fits {
        let error = json!({ "code": -32020, "message": "headers against body" });
        let body = json!({ "jsonrpc": "2.0", "id": id, "error": error });
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    let result = |result: Value| {
        Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response()
    };
    if method == "tools/list" {
        let tool = |name: &str| json!({ "name": name, "description": "d", "inputSchema": { "type": "object" } });
        return result(match params["cursor"].as_str() {
            None => json!({ "tools": [tool("t__echo"), tool("t__wait")], "nextCursor": "two" }),
            Some(_) => json!({ "tools": [
                tool("t__held"), tool("t__shot"), tool("t__dump"), tool("t__fail"), tool("t/odd.one"),
            ] }),
        });
    }
    let (name, arguments) = (
        params["name"].as_str().unwrap(),
        params["arguments"].clone(),
    );
    let resumed = params["_meta"][agent::RESUMED] == true;
    home.change(|known| {
        let named = |line: &String| line.starts_with("Assistant") && line.contains("=t_");
        assert!(
            known.story().iter().any(named),
            "called before it was stored"
        );
        known.calls.push(Seen {
            name: name.to_owned(),
            arguments: arguments.clone(),
            resumed,
        });
    });
    let text = |text: String| json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] });
    match name {
        "t__echo" | "t/odd.one" => result(text(arguments["say"].as_str().unwrap().to_owned())),
        "t__shot" => result(json!({ "content": [
            { "type": "text", "text": "look" },
            { "type": "image", "mimeType": "image/png", "data": "aGVsbG8=" },
        ] })),
        "t__dump" => result(text("x".repeat(5_000_000))),
        "t__fail" => {
            let error = json!({ "code": -32602, "message": "not for you" });
            Json(json!({ "jsonrpc": "2.0", "id": id, "error": error })).into_response()
        }
        // Held until the test opens the gate; the first stream of `t__held` breaks when it does.
        _ => {
            let gate = arguments["gate"].as_str().unwrap().to_owned();
            let breaks = name == "t__held" && !resumed;
            let answer =
                json!({ "jsonrpc": "2.0", "id": id, "result": text(format!("{gate} is open")) });
            held(home, gate, breaks, answer)
        }
    }
}

fn held(home: Home, gate: String, breaks: bool, answer: Value) -> Response {
    let (send, mut frames) = mpsc::channel::<Result<String, std::io::Error>>(1);
    tokio::spawn(async move {
        _ = send.send(Ok(": waiting\n\n".to_owned())).await;
        tokio::select! {
            () = home.passed(&gate) => {}
            () = send.closed() => return home.change(|known| known.dropped += 1),
        }
        let last = if breaks {
            Err(std::io::Error::other("cut"))
        } else {
            Ok(format!(": still\n\nevent: message\ndata: {answer}\n\n"))
        };
        _ = send.send(last).await;
    });
    let body = Body::from_stream(futures::stream::poll_fn(move |cx| frames.poll_recv(cx)));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

#[tokio::test]
async fn calls_of_one_turn_run_side_by_side_and_come_back_in_their_order() {
    let home = Home::start().await;
    home.script([
        Script::calls(&[
            ("a", "t__wait", json!({ "gate": "one" })),
            ("b", "t__wait", json!({ "gate": "two" })),
            ("c", "t__echo", json!({ "say": "hi" })),
        ]),
        Script::text("Both are open."),
    ]);
    home.begin("open them");
    let agent = home.agent();
    home.until(|known| known.calls.len() == 3).await;
    home.open("two");
    home.until(|known| {
        known
            .story()
            .iter()
            .any(|line| line.starts_with("result b"))
    })
    .await;
    home.open("one");
    let story = home.told().await;
    assert_eq!(
        story,
        [
            "hello native",
            r#"Assistant: a=t__wait({"gate":"one"}) + b=t__wait({"gate":"two"}) + c=t__echo({"say":"hi"})"#,
            "result c[hi]",
            "result b[two is open]",
            "result a[one is open]",
            "User: a[one is open] + b[two is open] + c[hi]",
            "Assistant: Both are open.",
            "done",
        ]
    );
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn no_more_calls_run_at_the_same_time_than_may() {
    let home = Home::start().await;
    let call = |id: &'static str| (id, "t__wait", json!({ "gate": id }));
    home.script([
        Script::calls(&[call("a"), call("b"), call("c")]),
        Script::text("ok"),
    ]);
    home.begin_with(
        "go",
        agent::Limits {
            parallel: 2,
            ..limits()
        },
    );
    let agent = home.agent();
    home.until(|known| known.calls.len() == 2).await;
    home.open("b");
    home.until(|known| known.calls.len() == 3).await;
    let order: Vec<String> = home
        .lock()
        .calls
        .iter()
        .map(|call| call.arguments["gate"].to_string())
        .collect();
    assert_eq!(order, [r#""a""#, r#""b""#, r#""c""#]);
    home.open("a");
    home.open("c");
    home.told().await;
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_held_call_whose_stream_breaks_is_made_again_and_says_so() {
    let home = Home::start().await;
    let call = ("a", "t__held", json!({ "gate": "yes", "b": 1.5 }));
    home.script([Script::calls(&[call]), Script::text("Sent.")]);
    home.begin("send it");
    let agent = home.agent();
    home.until(|known| known.calls.len() == 1).await;
    home.open("yes");
    let story = home.told().await;
    assert_eq!(
        story[2..],
        [
            "result a[yes is open]",
            "User: a[yes is open]",
            "Assistant: Sent.",
            "done"
        ]
    );
    let calls = home.lock().calls.clone();
    assert_eq!(
        calls.iter().map(|call| call.resumed).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(calls[0].arguments, calls[1].arguments);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn the_time_of_a_held_call_does_not_count() {
    let home = Home::start().await;
    let call = ("a", "t__wait", json!({ "gate": "yes" }));
    home.script([Script::calls(&[call]), Script::text("ok")]);
    home.begin_with(
        "go",
        agent::Limits {
            seconds: 1,
            ..limits()
        },
    );
    let agent = home.agent();
    home.until(|known| known.calls.len() == 1).await;

    // Another with as much time, whose model says nothing: when it has run out, so would this have.
    let other = Home::start().await;
    other.script([Script::text("x").broken(2, Step::Hang)]);
    other.begin_with(
        "go",
        agent::Limits {
            seconds: 1,
            ..limits()
        },
    );
    let slow = other.agent();
    let limit = "failed Limit: the limit of 1 seconds of work is reached; say more to go on";
    assert_eq!(other.told().await, ["hello native", limit]);
    assert_eq!(slow.ended().await.0, Some(0));

    home.open("yes");
    assert_eq!(home.told().await.last().unwrap(), "done");
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn images_long_results_errors_and_unknown_tools_reach_the_model() {
    let home = Home::start().await;
    home.script([
        Script::calls(&[
            ("a", "t__shot", json!({})),
            ("b", "t__dump", json!({})),
            ("c", "t__fail", json!({})),
            ("d", "t__none", json!({})),
        ]),
        Script::text("ok"),
    ]);
    home.begin("go");
    let agent = home.agent();
    let story = home.told().await;
    let cut = format!(
        "b[{}, [cut: the first 2000 of 5000000 bytes]]",
        "x".repeat(2000)
    );
    let results = format!(
        "User: a[look, <image>] + {cut} + c error[not for you] + d error[there is no such tool; use one of those that are listed]"
    );
    assert_eq!(story[story.len() - 3], results);
    let asked = home.lock().asked[1]["messages"][2]["content"].clone();
    let source = json!({ "type": "base64", "media_type": "image/png", "data": "aGVsbG8=" });
    assert_eq!(
        asked[0]["content"][1],
        json!({ "type": "image", "source": source })
    );
    assert_eq!(asked[2]["is_error"], true);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_tool_whose_name_no_model_takes_is_offered_under_another() {
    let home = Home::start().await;
    home.script([Script::text("hi")]);
    home.begin("what can you do?");
    let agent = home.agent();
    home.told().await;
    agent.ended().await;
    let asked = home.lock().asked[0].clone();
    let names: Vec<&str> = asked["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[..6],
        [
            "t__echo", "t__wait", "t__held", "t__shot", "t__dump", "t__fail"
        ]
    );
    assert!(names[6].starts_with("t_odd_one_"), "{names:?}");
    assert_eq!(
        asked["tools"][0]["input_schema"],
        json!({ "type": "object" })
    );

    let again = Home::start().await;
    let name = names[6];
    again.script([
        Script::calls(&[("a", name, json!({ "say": "x" }))]),
        Script::text("ok"),
    ]);
    again.begin("do it");
    let agent = again.agent();
    again.told().await;
    assert_eq!(again.lock().calls[0].name, "t/odd.one");
    assert_eq!(agent.ended().await.0, Some(0));
}
