//! One server that changes: what is served, what is gated, what is asked.

use serde_json::{Value, json};

use super::*;
use policy::action::Method;
use policy::pin::What;

fn raw(tools: &[Value], instructions: &str) -> Raw {
    let tools = tools.iter();
    Raw {
        tools: tools
            .map(|tool| serde_json::value::to_raw_value(tool).unwrap())
            .collect(),
        instructions: Some(instructions.to_owned()),
        ..Raw::default()
    }
}

fn tool(name: &str, description: &str) -> Value {
    json!({ "name": name, "description": description, "x-unknown": { "a": 1 } })
}

/// `name+` is changed, `name?` gone; then what is asked.
fn told(pin: &Pin) -> String {
    let listing = pin.listing();
    let served: Vec<String> = listing
        .tools
        .iter()
        .map(|tool| {
            let raw: Value = serde_json::from_str(tool.item.raw.get()).unwrap();
            let mark = match (
                listing.stand(Method::Call, &tool.item.name),
                listing.changed(Method::Call, &tool.item.name),
            ) {
                (crate::catalog::Stand::Gone, _) => "?",
                (_, true) => "+",
                _ => "",
            };
            format!(
                "{}{mark}={}",
                tool.item.name,
                raw["description"].as_str().unwrap()
            )
        })
        .collect();
    let asked: Vec<String> = pin
        .differences()
        .iter()
        .map(|one| {
            let renamed = one.renamed.as_ref();
            let renamed = renamed.map_or_else(String::new, |name| format!(" (was {name})"));
            let returned = if one.returned { " (and is back)" } else { "" };
            format!("{}{renamed}{returned}", one.moved())
        })
        .collect();
    format!("{} | {}", served.join(" "), asked.join("; "))
}

fn first() -> Pin {
    Pin::first(
        raw(&[tool("a", "one"), tool("b", "two")], "be good"),
        Timestamp::UNIX_EPOCH,
    )
}

fn answer(pin: &mut Pin, word: Word) {
    let differences = pin.differences();
    pin.answer(word, &differences, "ana", Timestamp::UNIX_EPOCH);
}

#[test]
fn a_rug_pull_serves_the_old_text_and_gates_the_call() {
    let mut pin = first();
    assert_eq!(told(&pin), "a=one b=two | ");
    pin.see(raw(&[tool("a", "evil"), tool("b", "two")], "be good"));
    assert_eq!(told(&pin), "a+=one b=two | tool `a` changed");
    answer(&mut pin, Word::Accept);
    assert_eq!(told(&pin), "a=evil b=two | ");
}

#[test]
fn a_member_that_nobody_knows_is_pinned_too() {
    let mut pin = first();
    let mut a = tool("a", "one");
    a["x-unknown"]["a"] = json!(2);
    pin.see(raw(&[a, tool("b", "two")], "be good"));
    assert_eq!(told(&pin), "a+=one b=two | tool `a` changed");
}

#[test]
fn another_order_is_no_change() {
    let mut pin = first();
    pin.see(raw(&[tool("b", "two"), tool("a", "one")], "be good"));
    assert_eq!(told(&pin), "a=one b=two | ");
}

#[test]
fn new_names_are_hidden_and_lost_ones_stay_listed() {
    let mut pin = first();
    pin.see(raw(&[tool("b", "two"), tool("c", "three")], "be good"));
    assert_eq!(
        told(&pin),
        "a?=one b=two | tool `a` is gone; tool `c` is new"
    );
    answer(&mut pin, Word::Accept);
    assert_eq!(told(&pin), "b=two c=three | ");
}

#[test]
fn a_rename_is_a_new_name_and_says_what_it_was() {
    let mut pin = first();
    pin.see(raw(&[tool("a2", "one"), tool("b", "two")], "be good"));
    assert_eq!(
        told(&pin),
        "a?=one b=two | tool `a` is gone; tool `a2` is new (was a)"
    );
}

#[test]
fn instructions_are_served_as_pinned() {
    let mut pin = first();
    pin.see(raw(&[tool("a", "one"), tool("b", "two")], "be evil"));
    assert_eq!(told(&pin), "a=one b=two | the instructions changed");
    assert_eq!(pin.listing().instructions.as_deref(), Some("be good"));
    answer(&mut pin, Word::Accept);
    assert_eq!(pin.listing().instructions.as_deref(), Some("be evil"));
}

#[test]
fn one_that_showed_something_else_in_between_is_still_asked_about() {
    let mut pin = first();
    pin.see(raw(&[tool("a", "evil"), tool("b", "two")], "be good"));
    let asked = question(&pin.differences());
    pin.see(raw(&[tool("a", "one"), tool("b", "two")], "be good"));
    assert_eq!(told(&pin), "a+=one b=two | tool `a` changed (and is back)");
    // Back and forth is one question, not one each time.
    pin.see(raw(&[tool("a", "evil"), tool("b", "two")], "be good"));
    assert_eq!(question(&pin.differences()), asked);
    pin.see(raw(&[tool("a", "one"), tool("b", "two")], "be good"));
    answer(&mut pin, Word::Keep);
    assert_eq!(told(&pin), "a=one b=two | ");
}

#[test]
fn what_is_kept_is_not_asked_again_and_stays_gated() {
    let mut pin = first();
    pin.see(raw(&[tool("a", "evil"), tool("c", "three")], "be good"));
    answer(&mut pin, Word::Keep);
    assert_eq!(told(&pin), "a+=one b?=two | ");
    // A third text is another question.
    pin.see(raw(&[tool("a", "worse"), tool("c", "four")], "be good"));
    assert_eq!(
        told(&pin),
        "a+=one b?=two | tool `a` changed; tool `c` is new"
    );
}

#[test]
fn one_answer_can_be_about_one_name() {
    let mut pin = first();
    pin.see(raw(&[tool("a", "evil"), tool("b", "worse")], "be good"));
    let only: Vec<Difference> = pin
        .differences()
        .into_iter()
        .filter(|one| one.key.name == "a")
        .collect();
    pin.answer(Word::Accept, &only, "ana", Timestamp::UNIX_EPOCH);
    assert_eq!(told(&pin), "a=evil b+=two | tool `b` changed");
}

#[test]
fn a_second_tool_of_one_name_changes_nothing() {
    let mut pin = first();
    pin.see(raw(
        &[tool("a", "one"), tool("b", "two"), tool("a", "evil")],
        "be good",
    ));
    assert_eq!(told(&pin), "a=one b=two | ");
    assert!(pin.listing().doubled.contains("a"));
}

#[test]
fn a_server_that_is_another_one_each_time_does_not_fill_the_log() {
    let mut pin = first();
    let told = (0..1000)
        .filter(|n| {
            let text = n.to_string();
            pin.see(raw(&[tool("a", &text), tool("b", "two")], "be good"));
            let asked = question(&pin.differences());
            pin.tell(&asked)
        })
        .count();
    assert_eq!(told, MOST_TOLD);
    assert_eq!(pin.differences().len(), 1);
}

#[test]
fn a_stored_pin_is_the_same_pin() {
    let mut pin = first();
    pin.see(raw(&[tool("a", "evil"), tool("c", "three")], "be good"));
    let stored = serde_json::to_string(&pin.state).unwrap();
    let again = Pin::again(
        serde_json::from_str(&stored).unwrap(),
        Some(pin.seen.clone()),
    );
    assert_eq!(told(&again), told(&pin));
    // Where it is not known what it showed last, what was noticed still counts.
    let again = Pin::again(serde_json::from_str(&stored).unwrap(), None);
    assert!(again.listing().is_changed(&Key::new(What::Tool, "a")));
}

#[test]
fn a_read_is_gated_where_its_template_changed() {
    let template = |text: &str| Raw {
        templates: vec![
            serde_json::value::to_raw_value(
                &json!({ "uriTemplate": "file:///notes/{name}", "description": text }),
            )
            .unwrap(),
        ],
        ..Raw::default()
    };
    let mut pin = Pin::first(template("one"), Timestamp::UNIX_EPOCH);
    pin.see(template("evil"));
    let listing = pin.listing();
    assert!(listing.changed(Method::Read, "file:///notes/x"));
    assert!(!listing.changed(Method::Read, "file:///other/x"));
    assert!(listing.changed(Method::Complete, "file:///notes/{name}"));
}
