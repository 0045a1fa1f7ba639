use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::action::{Action, Digest, Kind, Method};
use crate::condition::Condition;
use crate::decision::explain;
use crate::ids::{ActionId, ConversationId, RunId};
use crate::label::Labels;
use crate::rule::{Gate, Pattern};
use crate::traits::{Level, Traits};

fn facts(args: Value) -> Facts {
    Facts {
        action: Action {
            id: ActionId::new("act_1"),
            kind: Kind::Mcp,
            group: "work".parse().unwrap(),
            conversation: ConversationId::new("token:t"),
            run: RunId::new("r1"),
            principal: "token:t".into(),
            server: "mail".into(),
            method: Method::Call,
            name: "send".into(),
            args,
            definition: Digest::of(b"definition"),
            meta: None,
            identity: Digest::of(b"identity"),
        },
        traits: Traits {
            dangerous_writes: Level::Yes,
            ..Traits::ORDINARY
        },
        labels: Labels::default(),
        contains_secrets: false,
        clean_room: false,
        changed: false,
        credentials: Vec::new(),
        destinations: Vec::new(),
        read: false,
        grants: Vec::new(),
        person: None,
        review: None,
        now: Timestamp::UNIX_EPOCH,
    }
}

fn rule(name: &str, when: Option<&str>, then: Effect) -> Rule {
    Rule {
        name: name.into(),
        groups: None,
        servers: None,
        tools: Some(vec![Pattern::new("mail__send")]),
        when: when.map(|when| Condition::parse(when).unwrap()),
        until: None,
        then,
        lifts: if then == Effect::Allow {
            vec![Gate::DangerousWrites]
        } else {
            Vec::new()
        },
        people: 1,
    }
}

/// What rules make of a call that was asked about without any.
fn check(rules: &[Rule], args: Value, masked: bool) -> Replayed {
    let facts = facts(args);
    let why = explain(&Policy::default(), &facts);
    assert_eq!(why.decision, Decision::Ask);
    let policy = Policy {
        rules: rules.to_vec(),
    };
    let past = Past {
        facts: &facts,
        why: &why,
        masked,
    };
    replay(&policy, past)
}

const COLLEAGUES: &str = r#"args.to.endsWith("@example.org")"#;

#[test]
fn what_nothing_changes_is_the_same() {
    let ana = || json!({"to": "ana@example.org"});
    assert_eq!(check(&[], ana(), false), Replayed::Same);
    let elsewhere = Rule {
        tools: Some(vec![Pattern::new("wiki__*")]),
        ..rule("a", None, Effect::Deny)
    };
    assert_eq!(check(&[elsewhere], ana(), true), Replayed::Same);
    // One more reason to ask is no other decision.
    assert_eq!(
        check(&[rule("a", None, Effect::Ask)], ana(), false),
        Replayed::Same
    );
}

#[test]
fn what_a_rule_would_have_changed_is_told_with_its_reasons() {
    let allow = rule("colleagues", Some(COLLEAGUES), Effect::Allow);
    let ana = json!({"to": "ana@example.org"});
    let Replayed::Otherwise(why) = check(std::slice::from_ref(&allow), ana, false) else {
        panic!("it is decided otherwise");
    };
    assert_eq!(why.decision, Decision::Allow);
    assert_eq!(why.rules, ["colleagues"]);
    assert_eq!(
        check(&[allow], json!({"to": "eve@evil.test"}), false),
        Replayed::Same
    );
}

#[test]
fn a_lifted_gate_is_a_difference_though_another_still_asks() {
    let mut facts = facts(json!({}));
    facts.credentials = vec!["/key".to_owned()];
    let why = explain(&Policy::default(), &facts);
    let past = Past {
        facts: &facts,
        why: &why,
        masked: false,
    };
    let policy = Policy {
        rules: vec![rule("a", None, Effect::Allow)],
    };
    let Replayed::Otherwise(now) = replay(&policy, past) else {
        panic!("other gates are closed");
    };
    assert_eq!(now.decision, Decision::Ask);
    assert_eq!(now.gates, [Gate::Credential].into());
}

#[test]
fn a_condition_over_masked_arguments_cannot_be_told_unless_it_makes_no_difference() {
    let masked = || json!({"to": "ana@example.org", "key": "***"});
    let allow = rule("colleagues", Some(COLLEAGUES), Effect::Allow);
    let untold = Replayed::Untold {
        rules: vec!["colleagues".to_owned()],
    };
    assert_eq!(check(std::slice::from_ref(&allow), masked(), true), untold);
    // A deny that stands whatever they were decides it.
    let both = [allow, rule("never", None, Effect::Deny)];
    assert!(
        matches!(check(&both, masked(), true), Replayed::Otherwise(why) if why.decision == Decision::Deny)
    );
    // It asks either way.
    let ask = rule("ask", Some(COLLEAGUES), Effect::Ask);
    assert_eq!(check(&[ask], masked(), true), Replayed::Same);
    let deny = rule("deny", Some(COLLEAGUES), Effect::Deny);
    assert!(matches!(
        check(&[deny], masked(), true),
        Replayed::Untold { .. }
    ));
    // What does not read them is told.
    let of_group = rule("group", Some("group == \"work\""), Effect::Allow);
    assert!(matches!(
        check(&[of_group], masked(), true),
        Replayed::Otherwise(_)
    ));
}
