use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::action::{Action, Digest, Kind};
use crate::ids::{ActionId, ConversationId, RunId};
use crate::label::Labels;
use crate::traits::{Level, Traits};

fn facts(args: Value) -> Facts {
    let text = json!({
        "action": Action {
            id: ActionId::new("act_1"),
            kind: Kind::Mcp,
            group: "work".parse().unwrap(),
            conversation: ConversationId::new("token:t"),
            run: RunId::new("run_1"),
            principal: "token:t".to_owned(),
            server: "mail".to_owned(),
            method: Method::Call,
            name: "send".to_owned(),
            args,
            meta: None,
            definition: Digest::of(b"d"),
            identity: Digest::of(b"i"),
        },
        "traits": Traits { dangerous_writes: Level::Yes, ..Traits::ORDINARY },
        "labels": Labels::default(),
        "contains_secrets": false,
        "changed": false,
        "credentials": [],
        "grants": [],
        "now": "2026-01-01T00:00:00Z",
    });
    serde_json::from_value(text).unwrap()
}

fn wish(destinations: &[String]) -> Wish<'_> {
    Wish {
        name: "always q1",
        destinations,
        until: "2026-02-01T00:00:00Z".parse().unwrap(),
    }
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

fn shown(args: Value, destinations: &[&str]) -> String {
    let names = names(destinations);
    let all = proposals(&Policy::default(), &facts(args), wish(&names));
    let told: Vec<String> = all
        .iter()
        .map(|one| {
            let when = one.rule.when.as_ref().map_or("-", Condition::source);
            format!("{:?}: {}\n  {when}\n", one.width, one.words)
        })
        .collect();
    told.concat()
}

#[test]
fn rules_go_from_these_destinations_to_their_like_to_the_tool() {
    expect![[r#"
        Narrow: allow `mail__send` in group `work`, with exactly cc = ["bo@example.org","cy@partner.com"], to = ana@example.org
          args.all(name, name in ["body", "cc", "to"]) && args.cc == ["bo@example.org", "cy@partner.com"] && args.to == "ana@example.org"
        Middle: allow `mail__send` in group `work`, with cc = anybody at example.org or anybody at partner.com, to = anybody at example.org
          args.all(name, name in ["body", "cc", "to"]) && args.cc.all(one, one.matches("^[^@\\s,;:<>()\\[\\]\"\\\\]+@example\\.org$") || one.matches("^[^@\\s,;:<>()\\[\\]\"\\\\]+@partner\\.com$")) && args.to.matches("^[^@\\s,;:<>()\\[\\]\"\\\\]+@example\\.org$")
        Wide: allow `mail__send` in group `work`, whatever its arguments
          -
    "#]]
    .assert_eq(&shown(
        json!({"to": "ana@example.org", "cc": ["bo@example.org", "cy@partner.com"], "body": "x"}),
        &["to", "cc", "bcc"],
    ));
    expect![[r#"
        Narrow: allow `mail__send` in group `work`, with exactly path = /srv/a/b.txt, url = https://example.org/x?y
          args.all(name, name in ["path", "url"]) && args.path == "/srv/a/b.txt" && args.url == "https://example.org/x?y"
        Middle: allow `mail__send` in group `work`, with path = anything in /srv/a/, url = anything at https://example.org/
          args.all(name, name in ["path", "url"]) && (args.path.startsWith("/srv/a/") && !args.path.contains("..")) && args.url.startsWith("https://example.org/")
        Wide: allow `mail__send` in group `work`, whatever its arguments
          -
    "#]]
    .assert_eq(&shown(
        json!({"path": "/srv/a/b.txt", "url": "https://example.org/x?y"}),
        &["path", "url"],
    ));
    expect![[r#"
        Narrow: allow `mail__send` in group `work`, with exactly these arguments: n = 5, odd name = x
          args.all(name, name in ["n", "odd name"]) && args.n == 5 && args["odd name"] == "x"
        Wide: allow `mail__send` in group `work`, whatever its arguments
          -
    "#]]
    .assert_eq(&shown(json!({"n": 5, "odd name": "x"}), &["to"]));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, one case a line")]
fn what_a_proposed_rule_lets_through_beside_the_call() {
    let names = names(&["to", "cc", "path", "url"]);
    let allowed = |asked: Value, width: Width, other: Value| {
        let all = proposals(&Policy::default(), &facts(asked), wish(&names));
        let one = all.iter().find(|one| one.width == width).unwrap();
        let policy = with(&Policy::default(), &one.rule);
        explain(&policy, &facts(other)).decision == Decision::Allow
    };
    let mail = || json!({"to": "ana@example.org", "body": "x"});
    for (asked, width, other, lets) in [
        (
            mail(),
            Width::Narrow,
            json!({"to": "ana@example.org", "body": "other"}),
            true,
        ),
        (
            mail(),
            Width::Narrow,
            json!({"to": "bo@example.org", "body": "x"}),
            false,
        ),
        (
            mail(),
            Width::Narrow,
            json!({"to": "ana@example.org", "body": "x", "bcc": "eve@x.com"}),
            false,
        ),
        (
            mail(),
            Width::Middle,
            json!({"to": "bo@example.org", "body": "x"}),
            true,
        ),
        (
            mail(),
            Width::Middle,
            json!({"to": "bo@example.org", "cc": "eve@x.com"}),
            false,
        ),
        (
            mail(),
            Width::Middle,
            json!({"to": "eve@x.com, bo@example.org"}),
            false,
        ),
        (
            mail(),
            Width::Middle,
            json!({"to": "eve@x.com\nbo@example.org"}),
            false,
        ),
        (
            mail(),
            Width::Middle,
            json!({"to": "bo@example.org\n"}),
            false,
        ),
        (
            mail(),
            Width::Middle,
            json!({"to": "bo@examplexorg"}),
            false,
        ),
        (
            mail(),
            Width::Middle,
            json!({"to": "bo@evil.example.org"}),
            false,
        ),
        (
            mail(),
            Width::Middle,
            json!({"to": ["bo@example.org", "eve@x.com"]}),
            false,
        ),
        (mail(), Width::Middle, json!({"body": "x"}), false),
        (
            json!({"path": "/srv/a/b"}),
            Width::Middle,
            json!({"path": "/srv/a/c/d"}),
            true,
        ),
        (
            json!({"path": "/srv/a/b"}),
            Width::Middle,
            json!({"path": "/srv/a/../../etc/passwd"}),
            false,
        ),
        (
            json!({"path": "/srv/a/b"}),
            Width::Middle,
            json!({"path": "/srv/ab"}),
            false,
        ),
        (
            json!({"url": "https://example.org/a"}),
            Width::Middle,
            json!({"url": "https://example.org.evil.com/a"}),
            false,
        ),
        (
            json!({"url": "https://example.org/a"}),
            Width::Middle,
            json!({"url": "https://example.org@evil.com/"}),
            false,
        ),
        (mail(), Width::Wide, json!({"to": "eve@x.com"}), true),
    ] {
        assert_eq!(
            allowed(asked.clone(), width, other.clone()),
            lets,
            "{asked} {width:?} {other}"
        );
    }
}

#[test]
fn nothing_is_proposed_that_would_not_let_the_call_through() {
    let none = |facts: &Facts, policy: &Policy| {
        assert_eq!(proposals(policy, facts, wish(&[])), [], "{facts:?}");
    };
    let asked = facts(json!({"to": "a@b.com"}));
    let empty = Policy::default();
    none(
        &Facts {
            credentials: vec!["/to".to_owned()],
            ..asked.clone()
        },
        &empty,
    );
    none(
        &Facts {
            changed: true,
            ..asked.clone()
        },
        &empty,
    );
    let mut starred = asked.clone();
    starred.action.name = "se*".to_owned();
    none(&starred, &empty);
    let mut read = asked.clone();
    read.action.method = Method::Read;
    none(&read, &empty);
    // Where a rule asks, or denies, no other lifts that.
    for (then, people) in [(Effect::Ask, 1), (Effect::Ask, 2), (Effect::Deny, 1)] {
        let rule = Rule {
            name: "r".to_owned(),
            groups: None,
            servers: None,
            tools: None,
            when: None,
            until: None,
            then,
            lifts: Vec::new(),
            people,
        };
        none(&asked, &Policy { rules: vec![rule] });
    }
    assert_eq!(proposals(&empty, &asked, wish(&[])).len(), 2);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<String>().prop_map(Value::String),
        r#"["'\\ \n{}\[\]@./:a-c]{0,12}"#.prop_map(Value::String),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever an agent writes into an argument stays a value: the narrow rule fits this call, and not
    /// one with another value.
    #[test]
    fn no_value_becomes_part_of_a_rule(name in r"[a-z]{1,4}|\PC{1,6}", value in any_value(), other in any_value()) {
        let with_value = |value: &Value| {
            let mut args = Map::new();
            args.insert(name.clone(), value.clone());
            facts(Value::Object(args))
        };
        let names = vec![name.clone()];
        let all = proposals(&Policy::default(), &with_value(&value), wish(&names));
        if let Some(narrow) = all.iter().find(|one| one.width == Width::Narrow) {
            let policy = with(&Policy::default(), &narrow.rule);
            let allowed = |value: &Value| explain(&policy, &with_value(value)).decision == Decision::Allow;
            prop_assert!(allowed(&value));
            prop_assert_eq!(allowed(&other), value == other);
        }
    }
}
