use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::action::{Kind, Method};
use crate::condition::Condition;
use crate::ids::{ActionId, ConversationId};
use crate::label::Provenance;
use crate::review::{Opinion, Review};
use crate::rule::Pattern;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn action(method: Method) -> Action {
    Action {
        id: ActionId::new("act_1"),
        kind: Kind::Mcp,
        group: "work".parse().unwrap(),
        conversation: ConversationId::new("token:t"),
        run: RunId::new("r1"),
        principal: "token:t".into(),
        server: "mail".into(),
        method,
        name: "send".into(),
        args: json!({"to": "ana@example.org"}),
        definition: Digest::of(b"definition"),
        meta: None,
        identity: Digest::of(b"identity"),
    }
}

fn labels(untrusted: bool, secret: bool) -> Labels {
    let mut labels = Labels::default();
    let from = Provenance {
        action: ActionId::new("act_0"),
        tool: "wiki__read".into(),
        at: at(1),
    };
    if untrusted {
        labels.add(Label::Untrusted, &from);
    }
    if secret {
        labels.add(Label::Secret, &from);
    }
    labels
}

fn facts(traits: Traits, labels: Labels) -> Facts {
    Facts {
        action: action(Method::Call),
        traits,
        labels,
        contains_secrets: false,
        clean_room: false,
        changed: false,
        credentials: Vec::new(),
        destinations: Vec::new(),
        read: false,
        grants: Vec::new(),
        person: None,
        review: None,
        now: at(100),
    }
}

fn rule(name: &str, then: Effect, lifts: &[Gate]) -> Rule {
    Rule {
        name: name.into(),
        groups: None,
        servers: None,
        tools: Some(vec![Pattern::new("mail__*")]),
        when: None,
        until: None,
        then,
        lifts: lifts.to_vec(),
        people: 1,
    }
}

/// As [`rule`], when something holds.
fn rule_when(name: &str, when: &str, then: Effect, lifts: &[Gate]) -> Rule {
    Rule {
        when: Some(Condition::parse(when).unwrap()),
        ..rule(name, then, lifts)
    }
}

fn decided(policy: &Policy, facts: &Facts) -> Decision {
    explain(policy, facts).decision
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, one row a line")]
fn the_default_matrix_as_people_read_it() {
    let ordinary = Traits::ORDINARY;
    let rows: [(&str, Facts); 12] = [
        ("ordinary server", facts(ordinary, labels(false, false))),
        (
            "public_sink, read-only tool",
            facts(
                Traits {
                    public_sink: Level::Yes,
                    read_only: true,
                    ..ordinary
                },
                labels(false, false),
            ),
        ),
        (
            "public_sink, other tool",
            facts(
                Traits {
                    public_sink: Level::Yes,
                    ..ordinary
                },
                labels(false, false),
            ),
        ),
        (
            "dangerous_writes, read-only",
            facts(
                Traits {
                    dangerous_writes: Level::Yes,
                    read_only: true,
                    ..ordinary
                },
                labels(false, false),
            ),
        ),
        (
            "dangerous_writes, not read-only",
            facts(
                Traits {
                    dangerous_writes: Level::Yes,
                    ..ordinary
                },
                labels(false, false),
            ),
        ),
        (
            "undeclared tool",
            facts(Traits::UNDECLARED, labels(false, false)),
        ),
        (
            "undeclared server, resource read",
            Facts {
                action: action(Method::Read),
                ..facts(Traits::UNDECLARED, labels(false, false))
            },
        ),
        (
            "forbidden public_source",
            facts(
                Traits {
                    public_source: Level::Forbidden,
                    ..ordinary
                },
                labels(false, false),
            ),
        ),
        (
            "forbidden public_sink",
            facts(
                Traits {
                    public_sink: Level::Forbidden,
                    read_only: true,
                    ..ordinary
                },
                labels(false, false),
            ),
        ),
        (
            "forbidden dangerous_writes, read",
            facts(
                Traits {
                    dangerous_writes: Level::Forbidden,
                    read_only: true,
                    ..ordinary
                },
                labels(false, false),
            ),
        ),
        (
            "forbidden dangerous_writes, other",
            facts(
                Traits {
                    dangerous_writes: Level::Forbidden,
                    ..ordinary
                },
                labels(false, false),
            ),
        ),
        (
            "arguments hold a credential",
            Facts {
                credentials: vec!["/key".into()],
                ..facts(ordinary, labels(false, false))
            },
        ),
    ];
    let mut table = format!(
        "{:<34} {:<24} {:<24} {:<24} {}\n",
        "call to", "nothing", "untrusted", "secret", "untrusted + secret"
    );
    for (name, facts) in rows {
        let cells: Vec<String> = [(false, false), (true, false), (false, true), (true, true)]
            .into_iter()
            .map(|(untrusted, secret)| {
                let why = explain(
                    &Policy::default(),
                    &Facts {
                        labels: labels(untrusted, secret),
                        ..facts.clone()
                    },
                );
                let gates: Vec<&str> = why.gates.iter().map(|gate| gate.as_str()).collect();
                if gates.is_empty() {
                    why.decision.as_str().to_owned()
                } else {
                    format!("{} {}", why.decision.as_str(), gates.join("+"))
                }
            })
            .collect();
        table += format!(
            "{name:<34} {:<24} {:<24} {:<24} {}",
            cells[0], cells[1], cells[2], cells[3]
        )
        .trim_end();
        table.push('\n');
    }
    expect_test::expect_file!["../../tests/snapshots/matrix.txt"].assert_eq(&table);
}

#[test]
fn deny_beats_ask_beats_allow() {
    let risky = facts(
        Traits {
            dangerous_writes: Level::Yes,
            ..Traits::ORDINARY
        },
        labels(false, false),
    );
    let allow = rule("a", Effect::Allow, &[Gate::DangerousWrites]);
    let ask = rule("b", Effect::Ask, &[]);
    let deny = rule("c", Effect::Deny, &[]);
    let with = |rules: &[&Rule]| Policy {
        rules: rules.iter().map(|r| (*r).clone()).collect(),
    };
    assert_eq!(decided(&with(&[]), &risky), Decision::Ask);
    assert_eq!(decided(&with(&[&allow]), &risky), Decision::Allow);
    assert_eq!(decided(&with(&[&allow, &ask]), &risky), Decision::Ask);
    assert_eq!(
        decided(&with(&[&allow, &ask, &deny]), &risky),
        Decision::Deny
    );
}

#[test]
fn an_allow_lifts_the_gates_it_names_and_no_other() {
    let both = Facts {
        credentials: vec!["/k".into()],
        ..facts(
            Traits {
                dangerous_writes: Level::Yes,
                ..Traits::ORDINARY
            },
            labels(false, false),
        )
    };
    let why = explain(
        &Policy {
            rules: vec![rule("a", Effect::Allow, &[Gate::DangerousWrites])],
        },
        &both,
    );
    assert_eq!(
        (why.decision, why.gates, why.rules),
        (
            Decision::Ask,
            BTreeSet::from([Gate::Credential]),
            vec!["a".to_owned()]
        )
    );
}

#[test]
fn nothing_that_strangers_wrote_comes_into_a_clean_room() {
    let all = [
        Gate::PublicSink,
        Gate::DangerousWrites,
        Gate::Credential,
        Gate::ChangedTool,
    ];
    let policy = Policy {
        rules: vec![rule("a", Effect::Allow, &all)],
    };
    for (source, clean_room, decision) in [
        (Level::Yes, true, Decision::Deny),
        (Level::Forbidden, true, Decision::Deny),
        (Level::No, true, Decision::Allow),
        (Level::Yes, false, Decision::Allow),
    ] {
        let facts = Facts {
            clean_room,
            ..facts(
                Traits {
                    public_source: source,
                    ..Traits::ORDINARY
                },
                labels(false, false),
            )
        };
        assert_eq!(
            decided(&policy, &facts),
            decision,
            "{source:?} {clean_room}"
        );
        // Whatever the method: a resource is read as well as a tool is called.
        let read = Facts {
            action: action(Method::Read),
            ..facts
        };
        assert_eq!(decided(&policy, &read), decision, "{source:?} {clean_room}");
    }
}

#[test]
fn an_allow_never_lifts_a_forbidden_trait() {
    let facts = facts(
        Traits {
            public_sink: Level::Forbidden,
            ..Traits::ORDINARY
        },
        labels(false, false),
    );
    let all = [
        Gate::PublicSink,
        Gate::DangerousWrites,
        Gate::Credential,
        Gate::ChangedTool,
    ];
    assert_eq!(
        decided(
            &Policy {
                rules: vec![rule("a", Effect::Allow, &all)]
            },
            &facts
        ),
        Decision::Deny
    );
}

#[test]
fn a_rule_speaks_only_of_what_it_selects() {
    let mut here = rule("here", Effect::Deny, &[]);
    here.groups = Some(vec!["home".parse().unwrap()]);
    let elsewhere = Rule {
        tools: Some(vec![Pattern::new("wiki__*")]),
        ..rule("wiki", Effect::Deny, &[])
    };
    let facts = facts(Traits::ORDINARY, labels(false, false));
    assert_eq!(
        decided(
            &Policy {
                rules: vec![here, elsewhere]
            },
            &facts
        ),
        Decision::Allow
    );
    let server = Rule {
        tools: None,
        servers: Some(vec![Pattern::new("mail")]),
        ..rule("mail", Effect::Deny, &[])
    };
    let read = Facts {
        action: action(Method::Read),
        ..facts.clone()
    };
    assert_eq!(
        decided(
            &Policy {
                rules: vec![server]
            },
            &read
        ),
        Decision::Deny
    );
    assert_eq!(
        decided(
            &Policy {
                rules: vec![rule("tools", Effect::Deny, &[])]
            },
            &read
        ),
        Decision::Allow
    );
}

#[test]
fn a_rule_speaks_only_when_its_condition_holds() {
    let risky = facts(
        Traits {
            dangerous_writes: Level::Yes,
            ..Traits::ORDINARY
        },
        labels(false, false),
    );
    let colleagues = r#"args.to.endsWith("@example.org")"#;
    let strangers = Facts {
        action: Action {
            args: json!({"to": "eve@evil.test"}),
            ..risky.action.clone()
        },
        ..risky.clone()
    };
    let lifts = [Gate::DangerousWrites];
    for (then, lifts, here, there) in [
        (Effect::Allow, &lifts[..], Decision::Allow, Decision::Ask),
        (Effect::Deny, &[][..], Decision::Deny, Decision::Ask),
    ] {
        let policy = Policy {
            rules: vec![rule_when("colleagues", colleagues, then, lifts)],
        };
        assert_eq!(decided(&policy, &risky), here);
        assert_eq!(decided(&policy, &strangers), there);
        assert!(explain(&policy, &strangers).rules.is_empty());
    }
}

#[test]
fn a_condition_that_cannot_be_told_counts_against_the_call() {
    let risky = facts(
        Traits {
            dangerous_writes: Level::Yes,
            ..Traits::ORDINARY
        },
        labels(false, false),
    );
    let broken = "args.amount < 100";
    let with = |then, lifts: &[Gate], facts: &Facts| {
        let policy = Policy {
            rules: vec![rule_when("small", broken, then, lifts)],
        };
        explain(&policy, facts)
    };
    let why = with(Effect::Allow, &[Gate::DangerousWrites], &risky);
    assert_eq!(
        (why.decision, why.rules.as_slice()),
        (Decision::Ask, &[][..])
    );
    assert!(why.reasons.contains(
        &"rule `small` does not allow it: its condition cannot be told, for there is no `amount`"
            .to_owned()
    ));
    let ordinary = facts(Traits::ORDINARY, labels(false, false));
    let why = with(Effect::Ask, &[], &ordinary);
    assert_eq!(
        (why.decision, why.rules),
        (Decision::Ask, vec!["small".to_owned()])
    );
    assert_eq!(
        why.reasons,
        ["rule `small` asks: its condition cannot be told, for there is no `amount`"]
    );
    let why = with(Effect::Deny, &[], &ordinary);
    assert_eq!(
        (why.decision, why.rules),
        (Decision::Deny, vec!["small".to_owned()])
    );
}

#[test]
fn a_rule_is_spent_at_its_time() {
    let risky = facts(
        Traits {
            dangerous_writes: Level::Yes,
            ..Traits::ORDINARY
        },
        labels(false, false),
    );
    for (until, decision) in [
        (99, Decision::Ask),
        (100, Decision::Ask),
        (101, Decision::Allow),
    ] {
        let policy = Policy {
            rules: vec![Rule {
                until: Some(at(until)),
                ..rule("a", Effect::Allow, &[Gate::DangerousWrites])
            }],
        };
        assert_eq!(decided(&policy, &risky), decision, "until {until}");
    }
}

fn grant(facts: &Facts) -> Grant {
    Grant {
        question: "q1".into(),
        run: facts.action.run.clone(),
        tool: facts.action.tool(),
        definition: facts.action.definition.clone(),
        identity: facts.action.identity.clone(),
        lifts: BTreeSet::from([Gate::DangerousWrites]),
        until: at(200),
    }
}

#[test]
fn a_grant_lifts_what_was_shown_for_this_run_this_tool_and_a_while() {
    let risky = facts(
        Traits {
            dangerous_writes: Level::Yes,
            public_sink: Level::Yes,
            ..Traits::ORDINARY
        },
        labels(false, false),
    );
    let with = |change: fn(&mut Grant), facts: &Facts| {
        let mut grant = grant(facts);
        change(&mut grant);
        decided(
            &Policy::default(),
            &Facts {
                grants: vec![grant],
                ..facts.clone()
            },
        )
    };
    assert_eq!(with(|_| {}, &risky), Decision::Allow);
    assert_eq!(with(|g| g.run = RunId::new("r2"), &risky), Decision::Ask);
    assert_eq!(
        with(|g| g.tool = "mail__delete".into(), &risky),
        Decision::Ask
    );
    assert_eq!(
        with(|g| g.definition = Digest::of(b"x"), &risky),
        Decision::Ask
    );
    assert_eq!(
        with(|g| g.identity = Digest::of(b"x"), &risky),
        Decision::Ask
    );
    assert_eq!(with(|g| g.until = at(100), &risky), Decision::Ask);
    // It has read something since: a gate that nobody has seen.
    assert_eq!(
        with(
            |_| {},
            &Facts {
                labels: labels(true, false),
                ..risky
            }
        ),
        Decision::Ask
    );
}

#[test]
fn a_release_stands_unless_something_got_stricter() {
    let risky = facts(
        Traits {
            dangerous_writes: Level::Yes,
            public_sink: Level::Yes,
            ..Traits::ORDINARY
        },
        labels(false, false),
    );
    let approved = Approved {
        binding: risky.action.binding(),
        gates: BTreeSet::from([Gate::DangerousWrites]),
        people: 1,
    };
    let again =
        |policy: &Policy, facts: Facts| release(policy, facts, &approved).map(|(permit, _)| permit);
    assert_eq!(
        again(&Policy::default(), risky.clone()).unwrap().action(),
        &risky.action
    );
    let deny = Policy {
        rules: vec![rule("no", Effect::Deny, &[])],
    };
    assert!(matches!(again(&deny, risky.clone()), Err(Void::Denied(_))));
    assert!(matches!(
        again(
            &Policy::default(),
            Facts {
                labels: labels(true, false),
                ..risky.clone()
            }
        ),
        Err(Void::Stricter(_))
    ));
    let two = Policy {
        rules: vec![Rule {
            people: 2,
            ..rule("two", Effect::Ask, &[])
        }],
    };
    assert_eq!(
        again(&two, risky.clone()),
        Err(Void::Fewer { said: 1, needed: 2 })
    );
    let both = Approved {
        people: 2,
        ..approved.clone()
    };
    assert!(release(&two, risky.clone(), &both).is_ok());
    for change in [
        |a: &mut Action| a.args = json!({"to": "eve@example.org"}),
        |a: &mut Action| a.definition = Digest::of(b"another"),
        |a: &mut Action| a.identity = Digest::of(b"another"),
        |a: &mut Action| a.name = "delete".into(),
    ] {
        let mut changed = risky.clone();
        change(&mut changed.action);
        assert_eq!(again(&Policy::default(), changed), Err(Void::Changed));
    }
}

#[test]
fn the_most_people_that_any_rule_asks_for_must_say_yes_whatever_another_allows() {
    let risky = facts(
        Traits {
            dangerous_writes: Level::Yes,
            ..Traits::ORDINARY
        },
        labels(false, false),
    );
    let asks = |name: &str, people| Rule {
        people,
        ..rule(name, Effect::Ask, &[])
    };
    let allow = rule("allow", Effect::Allow, &[Gate::DangerousWrites]);
    let policy = |rules: &[Rule]| Policy {
        rules: rules.to_vec(),
    };
    for (rules, decision, people) in [
        (vec![], Decision::Ask, 1),
        (vec![allow.clone()], Decision::Allow, 1),
        (vec![allow.clone(), asks("two", 2)], Decision::Ask, 2),
        (
            vec![asks("one", 1), asks("three", 3), asks("two", 2), allow],
            Decision::Ask,
            3,
        ),
    ] {
        let why = explain(&policy(&rules), &risky);
        assert_eq!((why.decision, why.people), (decision, people), "{rules:?}");
    }
}

fn any_level() -> impl Strategy<Value = Level> {
    prop_oneof![Just(Level::No), Just(Level::Yes), Just(Level::Forbidden)]
}

prop_compose! {
    fn any_traits()(a in any_level(), b in any_level(), c in any_level(), d in any_level(), read_only: bool) -> Traits {
        Traits { public_source: a, secret_data: b, public_sink: c, dangerous_writes: d, read_only }
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let gates = prop::collection::btree_set(
        prop_oneof![
            Just(Gate::PublicSink),
            Just(Gate::DangerousWrites),
            Just(Gate::Credential),
            Just(Gate::ChangedTool)
        ],
        0..4,
    );
    let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Ask), Just(Effect::Deny)];
    let tools = prop_oneof![
        Just("*"),
        Just("mail__*"),
        Just("mail__send"),
        Just("wiki__*")
    ];
    // None of them reads `labels`: such a rule may say that one label is better than none.
    let when = prop_oneof![
        Just(None),
        Just(Some("args.to.endsWith(\"@example.org\")")),
        Just(Some("args.to.endsWith(\"@evil.test\")")),
        Just(Some("args.missing == 1")),
        Just(Some("traits.public_sink || person == \"ana\"")),
    ];
    let until = prop_oneof![Just(None), Just(Some(at(50))), Just(Some(at(150)))];
    let rule = ("[a-z]{1,3}", effect, gates, tools, when, until);
    rule.prop_map(|(name, then, lifts, tool, when, until)| Rule {
        name,
        groups: None,
        servers: None,
        tools: Some(vec![Pattern::new(tool)]),
        when: when.map(|when| Condition::parse(when).unwrap()),
        until,
        then,
        lifts: lifts.into_iter().collect(),
        people: 1,
    })
}

fn review(action: &Action, opinion: Opinion, of_another: bool) -> Review {
    let mut action = action.clone();
    if of_another {
        action.args = serde_json::json!({ "to": "somebody else" });
    }
    Review {
        binding: action.binding(),
        call: ActionId::new("act_review"),
        model: "main/reviewer".to_owned(),
        opinion,
        reason: "it looks ordinary".to_owned(),
    }
}

#[test]
fn a_review_is_wanted_where_it_is_all_that_is_missing() {
    let sink = Traits {
        public_sink: Level::Yes,
        ..Traits::ORDINARY
    };
    let untrusted = facts(sink, labels(true, false));
    let wants = |facts: &Facts, rules: &[Rule]| {
        let rules = rules.to_vec();
        wants_review(&Policy { rules }, facts)
    };
    assert!(wants(&untrusted, &[]));
    assert!(
        !wants(&facts(sink, labels(false, false)), &[]),
        "it is allowed already"
    );
    assert!(
        !wants(&facts(sink, labels(true, true)), &[]),
        "there are secrets"
    );
    assert!(
        !wants(&facts(Traits::UNDECLARED, labels(true, false)), &[]),
        "it may do harm"
    );
    assert!(
        !wants(&untrusted, &[rule("look", Effect::Ask, &[])]),
        "a rule asks"
    );
    assert!(
        !wants(&untrusted, &[rule("no", Effect::Deny, &[])]),
        "a rule denies"
    );
    assert!(
        !wants(
            &untrusted,
            &[rule("yes", Effect::Allow, &[Gate::PublicSink])]
        ),
        "a rule lifts it"
    );
    let credential = Facts {
        credentials: vec!["/k".into()],
        ..untrusted.clone()
    };
    assert!(!wants(&credential, &[]), "it carries a credential");
    let passed = Facts {
        review: Some(review(&untrusted.action, Opinion::Allow, false)),
        ..untrusted
    };
    assert_eq!(
        explain(&Policy::default(), &passed).decision,
        Decision::Allow
    );
    let back: Facts = serde_json::from_str(&serde_json::to_string(&passed).unwrap()).unwrap();
    assert_eq!(
        explain(&Policy::default(), &back).decision,
        Decision::Allow,
        "the record is enough"
    );
}

prop_compose! {
    fn any_facts()(traits in any_traits(), untrusted: bool, secret: bool, changed: bool, credential: bool, call: bool) -> Facts {
        Facts {
            action: action(if call { Method::Call } else { Method::Read }),
            changed,
            credentials: if credential { vec!["/k".into()] } else { Vec::new() },
            ..facts(traits, labels(untrusted, secret))
        }
    }
}

proptest! {
    #[test]
    fn more_labels_are_never_more_lenient(facts in any_facts(), rules in prop::collection::vec(any_rule(), 0..6), untrusted: bool, secret: bool) {
        let policy = Policy { rules };
        let mut more = facts.clone();
        let from = Provenance { action: ActionId::new("x"), tool: "t".into(), at: at(1) };
        if untrusted { more.labels.add(Label::Untrusted, &from); }
        if secret { more.labels.add(Label::Secret, &from); }
        prop_assert!(decided(&policy, &more) >= decided(&policy, &facts));
    }

    #[test]
    fn the_order_of_rules_never_matters(facts in any_facts(), rules in prop::collection::vec(any_rule(), 0..8), seed: u64) {
        let mut shuffled = rules.clone();
        let len = shuffled.len().max(1);
        for n in 0..shuffled.len() {
            shuffled.swap(n, usize::try_from(seed.rotate_left(u32::try_from(n * 7).unwrap()) % len as u64).unwrap());
        }
        prop_assert_eq!(explain(&Policy { rules }, &facts), explain(&Policy { rules: shuffled }, &facts));
    }

    #[test]
    fn a_fitting_deny_beats_everything(facts in any_facts(), mut rules in prop::collection::vec(any_rule(), 0..6), place in 0usize..6) {
        let deny = Rule { tools: None, ..rule("no", Effect::Deny, &[]) };
        rules.insert(place.min(rules.len()), deny);
        prop_assert_eq!(decided(&Policy { rules }, &facts), Decision::Deny);
    }

    #[test]
    fn a_review_opens_its_cell_and_nothing_else(facts in any_facts(), rules in prop::collection::vec(any_rule(), 0..6), other: bool, ask: bool) {
        let policy = Policy { rules };
        let opinion = if ask { Opinion::Ask } else { Opinion::Allow };
        let reviewed = Facts { review: Some(review(&facts.action, opinion, other)), ..facts.clone() };
        let (before, after) = (explain(&policy, &facts), explain(&policy, &reviewed));
        let passes = !other && !ask;
        let cell = facts.labels.has(Label::Untrusted) && !facts.labels.has(Label::Secret)
            && facts.traits.public_sink.holds() && !facts.traits.read_only && facts.action.method == Method::Call;
        let mut left = before.gates.clone();
        if passes && cell { left.remove(&Gate::PublicSink); }
        prop_assert_eq!(&after.gates, &left);
        prop_assert!(after.decision <= before.decision);
        prop_assert!(before.decision != Decision::Deny || after.decision == Decision::Deny);
        if passes {
            let turned = before.decision == Decision::Ask && after.decision == Decision::Allow;
            prop_assert_eq!(wants_review(&policy, &facts), turned);
        }
    }

    #[test]
    fn facts_survive_the_record(facts in any_facts(), rules in prop::collection::vec(any_rule(), 0..6)) {
        let back: Facts = serde_json::from_str(&serde_json::to_string(&facts).unwrap()).unwrap();
        let policy = Policy { rules };
        prop_assert_eq!(explain(&policy, &back), explain(&policy, &facts));
        prop_assert_eq!(back, facts);
    }
}

/// A call to a model: its traits follow from what its provider is asked to do besides.
fn model_facts(traits: Traits, labels: Labels) -> Facts {
    let facts = facts(traits, labels);
    Facts {
        action: Action {
            kind: Kind::Model,
            method: Method::Model,
            server: "model:main".into(),
            name: "claude-sonnet-4-5".into(),
            ..facts.action
        },
        ..facts
    }
}

fn rule_for(tool: &str, then: Effect, lifts: Vec<Gate>) -> Policy {
    Policy {
        rules: vec![Rule {
            name: "r".into(),
            groups: None,
            servers: None,
            tools: Some(vec![Pattern::new(tool)]),
            when: None,
            until: None,
            then,
            lifts,
            people: 1,
        }],
    }
}

#[test]
fn a_model_call_is_allowed_whatever_was_read_and_what_it_holds_is_noted() {
    for read in [labels(false, false), labels(true, true)] {
        let mut facts = model_facts(Traits::ORDINARY, read);
        facts.credentials = vec![String::new()];
        let why = explain(&Policy::default(), &facts);
        assert_eq!(why.decision, Decision::Allow);
        assert_eq!(why.reasons, ["the request to the model holds a credential"]);
    }
}

#[test]
fn a_model_whose_provider_reaches_out_for_it_meets_the_matrix() {
    let search = Traits {
        public_source: Level::Yes,
        public_sink: Level::Yes,
        read_only: true,
        ..Traits::ORDINARY
    };
    let policy = Policy::default();
    let clean = explain(&policy, &model_facts(search, labels(false, false)));
    assert_eq!(clean.decision, Decision::Allow);
    assert_eq!(clean.adds, [Label::Untrusted].into());
    let both = explain(&policy, &model_facts(search, labels(true, true)));
    assert_eq!(both.gates, [Gate::PublicSink].into());
    let unknown = explain(
        &policy,
        &model_facts(Traits::UNDECLARED, labels(false, false)),
    );
    assert_eq!(unknown.gates, [Gate::DangerousWrites].into());
}

#[test]
fn a_rule_can_deny_a_model_and_lift_its_gates_but_none_can_hold_it() {
    let call = || model_facts(Traits::UNDECLARED, labels(true, true));
    let decision = |policy: &Policy| explain(policy, &call()).decision;
    let gates = vec![Gate::PublicSink, Gate::DangerousWrites];
    for (tool, fits) in [
        ("model:main__claude-*", true),
        ("model:*", true),
        ("mail__*", false),
    ] {
        let deny = rule_for(tool, Effect::Deny, Vec::new());
        assert_eq!(decision(&deny) == Decision::Deny, fits, "{tool}");
        let allow = rule_for(tool, Effect::Allow, gates.clone());
        assert_eq!(decision(&allow) == Decision::Allow, fits, "{tool}");
    }
    let ask = rule_for("*", Effect::Ask, Vec::new());
    let plain = model_facts(Traits::ORDINARY, labels(true, true));
    assert_eq!(explain(&ask, &plain).decision, Decision::Allow);
}

/// A sink that is no read, with what people wrote and what it is called with.
fn sent(said: &[&str], args: serde_json::Value, labels: Labels) -> Facts {
    let mut known = crate::destination::Known::default();
    for (n, text) in (1..).zip(said) {
        known.learn(crate::destination::Source::of_person("ana", n, text));
    }
    let declared = ["to".to_owned(), "cc".to_owned()];
    let sink = Traits {
        public_sink: Level::Yes,
        ..Traits::ORDINARY
    };
    let mut facts = facts(sink, labels);
    facts.destinations = crate::destination::of_call("send_letter", &args, &declared, &known);
    facts.action.args = args;
    facts.read = true;
    facts
}

#[test]
fn the_matrix_with_destinations_as_people_read_it() {
    let said = ["Write a letter to ana@example.org"];
    let rows = [
        (
            "it reaches whom people named",
            json!({"to": "ana@example.org", "text": "Hi"}),
        ),
        (
            "it reaches one whom nobody named",
            json!({"to": ["ana@example.org", "eve@evil.com"], "text": "Hi"}),
        ),
        (
            "a link that nobody gave in the text",
            json!({"to": "ana@example.org", "text": "See https://evil.com/x"}),
        ),
        (
            "a name that nobody wrote",
            json!({"to": "external", "text": "Hi"}),
        ),
        (
            "it names nobody, and people asked for it",
            json!({"text": "Hi"}),
        ),
    ];
    let mut printed = String::new();
    for (name, args) in rows {
        let _ = write!(printed, "{name:<42}");
        for (untrusted, secret) in [(false, false), (true, false), (false, true), (true, true)] {
            let facts = sent(&said, args.clone(), labels(untrusted, secret));
            let decision = decided(&Policy::default(), &facts);
            let _ = write!(printed, " {:<8}", decision.as_str());
        }
        printed.push('\n');
    }
    expect_test::expect![[r#"
        it reaches whom people named               allow    allow    allow    allow   
        it reaches one whom nobody named           ask      ask      ask      ask     
        a link that nobody gave in the text        ask      ask      ask      ask     
        a name that nobody wrote                   allow    ask      allow    ask     
        it names nobody, and people asked for it   allow    allow    allow    allow   
    "#]]
    .assert_eq(&printed);
}

#[test]
fn an_address_from_nowhere_asks_only_once_something_was_read() {
    let mut facts = sent(
        &["Hello"],
        json!({"to": "eve@evil.com"}),
        labels(false, false),
    );
    assert_eq!(decided(&Policy::default(), &facts), Decision::Ask);
    facts.read = false;
    assert_eq!(decided(&Policy::default(), &facts), Decision::Allow);
}

#[test]
fn chosen_destinations_open_no_other_gate() {
    let mut facts = sent(
        &["Write to ana@example.org"],
        json!({"to": "ana@example.org"}),
        labels(true, true),
    );
    facts.traits.dangerous_writes = Level::Yes;
    facts.credentials = vec!["/text".into()];
    facts.changed = true;
    let why = explain(&Policy::default(), &facts);
    assert_eq!(
        why.gates,
        BTreeSet::from([Gate::DangerousWrites, Gate::Credential, Gate::ChangedTool])
    );
    facts.traits.public_sink = Level::Forbidden;
    assert_eq!(decided(&Policy::default(), &facts), Decision::Deny);
}

#[test]
fn reasons_say_who_named_a_destination_and_which_nobody_did() {
    let said = ["Write to ana@example.org"];
    let ask = sent(
        &said,
        json!({"to": "ana@example.org", "cc": "eve@evil.com"}),
        labels(true, false),
    );
    let allow = sent(&said, json!({"to": "ana@example.org"}), labels(true, false));
    let reasons = |facts: &Facts| explain(&Policy::default(), facts).reasons.join("\n");
    expect_test::expect!["public_sink: it can reach strangers, and this conversation has read what strangers wrote; nobody of the group wrote `eve@evil.com`, and no trusted source told of it"].assert_eq(&reasons(&ask));
    expect_test::expect!["whom it reaches was chosen: `ana@example.org` (`ana` wrote it)"]
        .assert_eq(&reasons(&allow));
}

proptest! {
    #[test]
    fn more_that_people_wrote_is_never_stricter(
        one in "[a-z@. ]{0,30}", two in "[a-z@.: ]{0,30}", to in "[a-z@.]{1,12}", text in "[a-z@./: ]{0,20}",
        untrusted: bool, secret: bool,
    ) {
        let decide = |said: &[&str]| {
            let facts = sent(said, json!({"to": to, "text": text}), labels(untrusted, secret));
            decided(&Policy::default(), &facts)
        };
        prop_assert!(decide(&[&one, &two]) <= decide(&[&one]));
        let all = format!("{to} {text}");
        prop_assert!(decide(&[&one, &all]) <= decide(&[&one]));
    }

    #[test]
    fn with_or_without_destinations_more_labels_are_never_more_lenient(to in "(ana@example.org|eve@evil.com|external)", read: bool) {
        let decide = |untrusted, secret| {
            let mut facts = sent(&["ana@example.org"], json!({"to": to}), labels(untrusted, secret));
            facts.read = read;
            decided(&Policy::default(), &facts)
        };
        prop_assert!(decide(false, false) <= decide(true, false));
        prop_assert!(decide(false, true) <= decide(true, true));
        prop_assert!(decide(true, false) <= decide(true, true));
    }
}
