//! A conversation as the API takes it.

use agent::{Message, Role};
use serde_json::{Value, json};

/// What stands for the result of a call whose run ended before there was one.
const NO_RESULT: &str = "there is no result: the run was ended; whether it was done is not known";

/// The messages of a request: one user message after another is one, every call has a result and
/// every result a call, results come first. All of it may be cached, since the next request begins
/// with it.
pub(super) fn messages(messages: &[Message]) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    for message in messages.iter().filter(|one| !one.content.is_empty()) {
        match (all.last_mut(), message.role) {
            (Some(last), Role::User) if last.role == Role::User => {
                last.content.extend(message.content.iter().cloned());
            }
            (_, Role::User | Role::Assistant) => all.push(message.clone()),
        }
    }
    let mut calls = Vec::new();
    for message in &mut all {
        match message.role {
            Role::User => answer(message, std::mem::take(&mut calls)),
            Role::Assistant => calls.extend(ids(message, "tool_use", "id")),
        }
    }
    all.retain(|one| !one.content.is_empty());
    let last = all.last_mut().filter(|last| last.role == Role::User);
    let last = last.and_then(|last| last.content.last_mut());
    if let Some(last) = last.and_then(Value::as_object_mut) {
        last.insert("cache_control".to_owned(), json!({ "type": "ephemeral" }));
    }
    all
}

/// Makes the results in a user's message those of the calls before it.
fn answer(message: &mut Message, calls: Vec<String>) {
    let id = |block: &Value| {
        block
            .get("tool_use_id")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    message.content.retain(|block| {
        !is(block, "tool_result") || id(block).is_some_and(|id| calls.contains(&id))
    });
    let known = ids(message, "tool_result", "tool_use_id");
    for call in calls.iter().filter(|call| !known.contains(call)) {
        message.content.push(json!({
            "type": "tool_result", "tool_use_id": call, "content": NO_RESULT, "is_error": true,
        }));
    }
    message
        .content
        .sort_by_key(|block| !is(block, "tool_result"));
}

fn ids(message: &Message, kind: &str, member: &str) -> Vec<String> {
    let blocks = message.content.iter().filter(|block| is(block, kind));
    let id = |block: &Value| block.get(member).and_then(Value::as_str).map(str::to_owned);
    blocks.filter_map(id).collect()
}

fn is(block: &Value, kind: &str) -> bool {
    block.get("type").and_then(Value::as_str) == Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> Value {
        json!({ "type": "tool_use", "id": id, "name": "t", "input": {} })
    }

    fn result(id: &str) -> Value {
        json!({ "type": "tool_result", "tool_use_id": id, "content": [] })
    }

    fn message(role: Role, content: &[Value]) -> Message {
        let content = content.to_vec();
        Message { role, content }
    }

    #[test]
    fn what_people_said_meanwhile_joins_the_results_and_comes_after_them() {
        let sent = messages(&[
            Message::text(Role::User, "a"),
            message(Role::Assistant, &[call("1")]),
            Message::text(Role::User, "c"),
            message(Role::User, &[result("1")]),
        ]);
        assert_eq!(sent[0], Message::text(Role::User, "a"));
        let mut said = json!({ "type": "text", "text": "c" });
        said["cache_control"] = json!({ "type": "ephemeral" });
        assert_eq!(sent[2].content, [result("1"), said]);
        assert_eq!(sent.len(), 3);
    }

    #[test]
    fn a_call_without_a_result_and_a_result_without_a_call_spoil_nothing() {
        let sent = messages(&[
            message(
                Role::User,
                &[result("0"), json!({ "type": "text", "text": "a" })],
            ),
            message(Role::Assistant, &[call("1"), call("2")]),
            message(Role::User, &[result("2")]),
            Message::text(Role::User, "b"),
        ]);
        assert_eq!(sent[0], Message::text(Role::User, "a"));
        let none = json!({ "type": "tool_result", "tool_use_id": "1", "content": NO_RESULT, "is_error": true });
        assert_eq!(sent[2].content[..2], [result("2"), none]);
        assert_eq!(sent[2].content[2]["text"], "b");
    }
}
