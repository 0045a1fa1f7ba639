use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::action::{Action, Digest, Kind, Method};
use crate::decision::Facts;
use crate::ids::{ActionId, ConversationId, RunId};
use crate::label::{Label, Labels, Provenance};
use crate::traits::{Level, Traits};

fn facts(args: Value) -> Facts {
    let mut labels = Labels::default();
    let from = Provenance {
        action: ActionId::new("act_0"),
        tool: "wiki__read".into(),
        at: Timestamp::UNIX_EPOCH,
    };
    labels.add(Label::Untrusted, &from);
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
            public_sink: Level::Yes,
            read_only: true,
            ..Traits::ORDINARY
        },
        labels,
        contains_secrets: false,
        clean_room: false,
        changed: false,
        credentials: Vec::new(),
        destinations: Vec::new(),
        read: false,
        grants: Vec::new(),
        person: Some("ana".into()),
        review: None,
        now: "2026-11-28T09:30:00Z".parse().unwrap(),
    }
}

fn told(source: &str, args: Value) -> Result<bool, String> {
    let condition =
        Condition::parse(source).unwrap_or_else(|flaws| panic!("`{source}` is refused: {flaws:?}"));
    let facts = facts(args);
    let tool = facts.action.tool();
    condition
        .holds(&Scope::new(&facts, &tool))
        .map_err(|why| why.to_string())
}

fn flaws(source: &str) -> String {
    let flaws = Condition::parse(source).unwrap_err();
    let lines: Vec<String> = flaws
        .iter()
        .map(|flaw| {
            let marked = source.get(flaw.at.clone()).unwrap_or("?");
            let accepted: String = flaw.accepted.chars().take(60).collect();
            format!("`{marked}`: {} ({accepted})", flaw.message)
        })
        .collect();
    lines.join("\n")
}

/// The condition of the product's own description.
const COLLEAGUES: &str = r#"(args.to + args.?cc.orValue([]) + args.?bcc.orValue([])).all(a, a.endsWith("@example.org"))"#;

#[test]
fn the_rule_of_the_manual_tells_colleagues_from_strangers() {
    for (args, holds) in [
        (json!({"to": ["ana@example.org"]}), true),
        (
            json!({"to": ["ana@example.org"], "cc": ["bo@example.org"]}),
            true,
        ),
        (
            json!({"to": ["ana@example.org"], "cc": ["eve@evil.test"]}),
            false,
        ),
        (
            json!({"to": ["ana@example.org"], "bcc": ["eve@evil.test"]}),
            false,
        ),
        (json!({"to": ["eve@example.org.evil.test"]}), false),
    ] {
        assert_eq!(told(COLLEAGUES, args.clone()), Ok(holds), "{args}");
    }
    // Neither a text in place of a list nor nothing at all is a colleague.
    for args in [
        json!({"to": "ana@example.org"}),
        json!({}),
        json!({"to": ["ana@example.org"], "cc": "eve@evil.test"}),
        json!({"to": ["ana@example.org"], "cc": null}),
        json!({"to": [1]}),
        json!({"to": {"ana@example.org": "eve@evil.test"}}),
    ] {
        assert!(told(COLLEAGUES, args.clone()).is_err(), "{args}");
    }
}

#[test]
fn every_name_and_every_kind_of_value_can_be_read() {
    let args = json!({
        "n": 5, "big": 18_446_744_073_709_551_615_u64, "x": 5.5, "on": true, "none": null,
        "text": "Été à Paris", "list": [1, 2, 3], "of": {"a": {"b": "c"}},
    });
    for source in [
        "args.n == 5",
        "args.n < 6 && args.n > 4",
        "args.n == 5.0",
        "args.big > 5",
        "args.x > 5",
        "args.on",
        "args.none == null",
        "args.text.contains(\"é\") || args.text.startsWith(\"É\")",
        "args.text.lowerAscii().endsWith(\"paris\")",
        "2 in args.list",
        "args.list.exists(n, n == 3)",
        "args.list.all(n, n > 0)",
        "args.list.filter(n, n > 1).size() == 2",
        "args.list.map(n, n * 2) == [2, 4, 6]",
        "args.list.exists_one(n, n == 1)",
        "size(args.list) == 3",
        "args.list[0] == 1",
        "args.of.a.b == \"c\"",
        "args[\"of\"][\"a\"].b == \"c\"",
        "has(args.of.a)",
        "!has(args.missing)",
        "args.?missing.orValue(7) == 7",
        "!args.?missing.hasValue()",
        "args.?of.?a.?b.orValue(\"\") == \"c\"",
        "optional.of(args.n).value() == 5",
        "optional.none().or(optional.of(1)).value() == 1",
        "type(args.n) == int && type(args.text) == string",
        "tool == \"mail__send\"",
        "server == \"mail\" && group == \"work\"",
        "person == \"ana\" && person in [\"ana\", \"bo\"]",
        "\"untrusted\" in labels && !(\"secret\" in labels)",
        "traits.public_sink && traits.read_only && !traits.secret_data",
        "now > timestamp(\"2026-11-28T00:00:00Z\") && now - duration(\"24h\") < now",
        "now.getHours() == 9 && now.getHours(\"Europe/Berlin\") == 10",
        "now.getDayOfWeek() == 6 && now.getFullYear() == 2026 && now.getMinutes() == 30",
        "now.getMonth() == 10 && now.getDate() == 28 && now.getDayOfMonth() == 27",
        "now.getDayOfYear() > 300",
        "args.text.matches(\"^.t. . P\") && matches(args.text, \"Paris$\")",
        "!args.text.matches(\"^Paris\")",
        "args.text.split(\" \").size() == 3 && args.text.split(\" \", 2).size() == 2",
        "\" a \".trim() == \"a\" && \"abc\".substring(1) == \"bc\" && \"abc\".substring(1, 2) == \"b\"",
        "\"abc\".indexOf(\"c\") == 2 && \"abcb\".lastIndexOf(\"b\") == 3 && \"abc\".charAt(1) == \"b\"",
        "\"abcb\".indexOf(\"b\", 2) == 3 && \"a\".upperAscii() == \"A\"",
        "int(\"5\") == 5 && uint(5) == 5u && double(\"5.5\") == 5.5 && string(5) == \"5\"",
        "bool(\"true\") && {\"a\": 1}.a == 1 && (args.n > 4 ? true : false)",
        "true",
    ] {
        assert_eq!(told(source, args.clone()), Ok(true), "{source}");
    }
    assert_eq!(told("args.big == 5", args), Ok(false));
}

#[test]
fn every_function_that_is_accepted_is_there() {
    // A name in the list that the environment does not know would be refused to nobody and hold for
    // nobody: what it says then is told from an error of its arguments.
    for (name, after, alone) in check::FUNCTIONS {
        for (many, global) in after
            .iter()
            .map(|many| (*many, false))
            .chain(alone.iter().map(|many| (*many, true)))
        {
            let args = vec!["\"1\""; many].join(", ");
            let call = if global {
                format!("{name}({args})")
            } else {
                format!("args.x.{name}({args})")
            };
            let expression = cel::Env::compile(&ENV, &call).unwrap();
            let facts = facts(json!({"x": "1"}));
            let tool = facts.action.tool();
            let scope = Scope::new(&facts, &tool);
            let patterns = BTreeMap::new();
            let names = scope::Names {
                scope: &scope,
                patterns: &patterns,
            };
            let mut context = Context::with_env(Arc::clone(&ENV));
            context.set_variable_resolver(&names);
            let result = expression.execute(&context);
            assert!(
                !matches!(result, Err(ExecutionError::UndeclaredReference(_))),
                "`{call}`: {result:?}"
            );
        }
    }
}

#[test]
fn what_goes_wrong_is_told_without_a_value_of_the_call() {
    let args = json!({"secret": "hunter2", "n": 1, "list": [1], "of": {"hunter2": 1}});
    let mut lines = Vec::new();
    for source in [
        "args.missing == 1",
        "args.secret > 1",
        "args.secret + 1 == 2",
        "args.of[args.secret + \"x\"] == 1",
        "args.list[5] == 1",
        "args.n / 0 == 1",
        "args.n + 9223372036854775807 > 1",
        "int(args.secret) == 1",
        "timestamp(args.secret) < now",
        "args.secret.startsWith(args.n)",
        "args.secret",
        "args.list.all(x, x.endsWith(\"a\"))",
        "now.getHours(args.secret) == 1",
        "args.?missing.value() == 1",
        "duration(args.secret) > duration(\"1s\")",
    ] {
        let why = told(source, args.clone()).unwrap_err();
        assert!(!why.contains("hunter2"), "{source}: {why}");
        lines.push(format!("{source}: {why}"));
    }
    expect_test::expect![[r#"
        args.missing == 1: there is no `missing`
        args.secret > 1: a value is of a kind that it does not expect
        args.secret + 1 == 2: a value is of a kind that it does not expect
        args.of[args.secret + "x"] == 1: something it reads is not there
        args.list[5] == 1: something it reads is not there
        args.n / 0 == 1: it divides by zero
        args.n + 9223372036854775807 > 1: a number is too large for it
        int(args.secret) == 1: `int` cannot be worked out
        timestamp(args.secret) < now: `timestamp` cannot be worked out
        args.secret.startsWith(args.n): a value is of a kind that it does not expect
        args.secret: it says neither true nor false
        args.list.all(x, x.endsWith("a")): a value is of a kind that it does not expect
        now.getHours(args.secret) == 1: a value is of a kind that it does not expect
        args.?missing.value() == 1: `value` cannot be worked out
        duration(args.secret) > duration("1s"): `duration` cannot be worked out
    "#]]
    .assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, one row a line")]
fn every_flaw_is_told_with_its_place() {
    let mut lines = Vec::new();
    for source in [
        "arg.to == 1",
        "args.to == \"é\" && too == 1",
        "args.to.ends(\"x\")",
        "args.to.endsWith(\"x\", \"y\")",
        "endsWith(args.to)",
        "args.to.size(1) == 1 || size() == 1",
        "args.to.timestamp() == now",
        "traits.publik == true",
        "labels.untrusted",
        "tool.name == \"a\"",
        "args.x.matches(args.y)",
        "args.x.matches(\"(\")",
        "args.x.matches(\"a{1000}{1000}{1000}\")",
        "((((((((((((((((((true))))))))))))))))))",
        "optional.maybe(1) == 1",
        "math.abs(1) == 1",
        "args.x.replace(\"a\", \"b\") == \"\"",
        "\"a\".format([1]) == \"\"",
        "args.to.all(x, x == y)",
        "args.to ==",
        "args.to == 'a' &&\n  args..x",
        "1",
        "args.n + 1",
        "[true]",
        "size(args.to)",
        "labels",
        "",
        "Point{x: 1}.x == 1",
        "args.a.all(a, args.b.all(b, args.c.all(c, args.d.all(d, d == a))))",
        "args.a.all(a, args.a.all(b, args.a.all(c, a == b && b == c)))",
        "a && b && c",
    ] {
        lines.push(format!(
            "{source}\n    {}",
            flaws(source).replace('\n', "\n    ")
        ));
    }
    expect_test::expect![[r#"
        arg.to == 1
            `arg`: there is no `arg` to read here (accepted: `args`, `tool`, `server`, `group`, `person`, `labe)
        args.to == "é" && too == 1
            `too`: there is no `too` to read here (accepted: `args`, `tool`, `server`, `group`, `person`, `labe)
        args.to.ends("x")
            `ends`: there is no function `ends` (accepted: `has`, `all`, `exists`, `exists_one`, `map`, `filt)
        args.to.endsWith("x", "y")
            `endsWith`: `endsWith` does not take these arguments (accepted: 1 of them after a value, as value.endsWith(...))
        endsWith(args.to)
            `endsWith`: `endsWith` does not take these arguments (write it after a value, as value.endsWith(...))
        args.to.size(1) == 1 || size() == 1
            `size`: `size` does not take these arguments (accepted: 0 of them after a value, as value.size(...))
            `size`: `size` does not take these arguments (accepted: 1 of them by itself, as size(...))
        args.to.timestamp() == now
            `timestamp`: `timestamp` does not take these arguments (write it by itself, as timestamp(value))
        traits.publik == true
            `publik`: there is no trait `publik` (accepted: `public_source`, `secret_data`, `public_sink`, `da)
        labels.untrusted
            `untrusted`: `labels` has no parts (accepted: parts of `args` and `traits`)
        tool.name == "a"
            `name`: `tool` has no parts (accepted: parts of `args` and `traits`)
        args.x.matches(args.y)
            `.`: the pattern is not written out (accepted: a text in quotes; an agent chooses no pattern)
        args.x.matches("(")
            `"("`: this is no pattern: unclosed group (accepted: a regular expression, such as "^[a-z]+$")
        args.x.matches("a{1000}{1000}{1000}")
            `"a{1000}{1000}{1000}"`: this is no pattern: Compiled regex exceeds size limit of 1048576 bytes. (accepted: a regular expression, such as "^[a-z]+$")
        ((((((((((((((((((true))))))))))))))))))
            `((((((((((((((((((true))))))))))))))))))`: the condition has too many parts (make several rules of it)
        optional.maybe(1) == 1
            `optional.maybe`: there is no function `optional.maybe` (accepted: `has`, `all`, `exists`, `exists_one`, `map`, `filt)
        math.abs(1) == 1
            `math`: there is no `math` to read here (accepted: `args`, `tool`, `server`, `group`, `person`, `labe)
            `abs`: there is no function `abs` (accepted: `has`, `all`, `exists`, `exists_one`, `map`, `filt)
        args.x.replace("a", "b") == ""
            `replace`: there is no function `replace` (accepted: `has`, `all`, `exists`, `exists_one`, `map`, `filt)
        "a".format([1]) == ""
            `format`: there is no function `format` (accepted: `has`, `all`, `exists`, `exists_one`, `map`, `filt)
        args.to.all(x, x == y)
            `y`: there is no `y` to read here (accepted: `args`, `tool`, `server`, `group`, `person`, `labe)
        args.to ==
            ``: this is no CEL: mismatched input '<EOF>' (accepted: an expression in CEL, such as args.to.endsWith("@e)
        args.to == 'a' &&
          args..x
            `.`: this is no CEL: no viable alternative at input '..' (accepted: an expression in CEL, such as args.to.endsWith("@e)
        1
            `1`: it says neither true nor false (accepted: a comparison, such as args.amount < 100)
        args.n + 1
            `args.n + 1`: it says neither true nor false (accepted: a comparison, such as args.amount < 100)
        [true]
            `[true]`: it says neither true nor false (accepted: a comparison, such as args.amount < 100)
        size(args.to)
            `size(args.to)`: it says neither true nor false (accepted: a comparison, such as args.amount < 100)
        labels
            `labels`: it says neither true nor false (accepted: a comparison, such as args.amount < 100)

            ``: this is no CEL: mismatched input '<EOF>' (accepted: an expression in CEL, such as args.to.endsWith("@e)
        Point{x: 1}.x == 1
            `{`: a condition makes no structures (write a map, as { "key": value })
        args.a.all(a, args.b.all(b, args.c.all(c, args.d.all(d, d == a))))
            `(`: there are more than 3 loops in each other (make several rules of it)
        args.a.all(a, args.a.all(b, args.a.all(c, a == b && b == c)))
            `args.a.all(a, args.a.all(b, args.a.all(c, a == b && b == c)))`: the condition takes too long even for a small call (compare with values that are written here, not every one wit)
        a && b && c
            `a`: there is no `a` to read here (accepted: `args`, `tool`, `server`, `group`, `person`, `labe)
            `b`: there is no `b` to read here (accepted: `args`, `tool`, `server`, `group`, `person`, `labe)
            `c`: there is no `c` to read here (accepted: `args`, `tool`, `server`, `group`, `person`, `labe)
    "#]]
    .assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn paths_of_the_arguments_are_known_with_their_places() {
    let paths = |source: &str| {
        let condition = Condition::parse(source).unwrap();
        let paths: Vec<String> = condition
            .paths()
            .iter()
            .map(|path| {
                let marked = source.get(path.at.clone()).unwrap_or("?");
                format!("{path} at `{marked}`@{}", path.at.start)
            })
            .collect();
        paths.join(", ")
    };
    for (source, read) in [
        (
            COLLEAGUES,
            "args.to at `to`@6, args.cc at `cc`@17, args.bcc at `bcc`@40",
        ),
        (
            r#""é" == args.a.b.b && has(args.a) && args.?c.?d.orValue(1) == 1"#,
            "args.a.b.b at `b`@17, args.a.b at `b`@15, args.a at `a`@13, args.a at `a`@31, args.c.d at `d`@46, args.c at `c`@43",
        ),
        (
            r#"args.list.all(x, x.name == args.list[0].other) && args["quoted"].x == 1"#,
            "args.list at `list`@5, args.list[].name at `name`@19, args.list[].other at `other`@40, args.list at `list`@32",
        ),
        (
            "args.?list.orValue([]).exists(args, args.x == 1) && tool == \"a\"",
            "args.list at `list`@6, args.list[].x at `x`@41",
        ),
    ] {
        assert_eq!(paths(source), read, "{source}");
    }
}

#[test]
fn what_a_condition_reads_is_known() {
    let condition = Condition::parse("args.a == tool && labels.all(now, now == group)").unwrap();
    let reads: Vec<&str> = scope::VARIABLES
        .into_iter()
        .filter(|name| condition.reads(name))
        .collect();
    assert_eq!(reads, ["args", "tool", "group", "labels"]);
}

#[test]
fn a_hostile_call_cannot_make_a_condition_slow() {
    let many: Vec<String> = (0..200_000).map(|n| format!("a{n}@example.org")).collect();
    let large = "the arguments are too large for it";
    assert_eq!(told(COLLEAGUES, json!({"to": many})), Err(large.into()));
    let pairs = "args.to.all(a, args.to.exists(b, a == b))";
    let some: Vec<u32> = (0..5000).collect();
    assert_eq!(told(pairs, json!({"to": some})), Err(large.into()));
    assert_eq!(told(pairs, json!({"to": [1, 2, 3]})), Ok(true));
    // A long text or a list of a few hundred is nothing special.
    let text = "x".repeat(4 * 1024 * 1024);
    assert_eq!(
        told("args.text.contains(\"y\")", json!({"text": text})),
        Ok(false)
    );
    let some: Vec<String> = (0..1000).map(|n| format!("a{n}@example.org")).collect();
    assert_eq!(told(COLLEAGUES, json!({"to": some})), Ok(true));
    let doubled = vec!["args.text"; 20].join(" + ");
    assert!(told(&format!("{doubled} == \"\""), json!({"text": text})).is_err());
    // What would take a backtracking engine for ever is linear here.
    let text = "a".repeat(50_000) + "!";
    assert_eq!(
        told("args.text.matches(\"^(a+)+$\")", json!({"text": text})),
        Ok(false)
    );
}

#[test]
fn no_text_of_a_condition_breaks_its_reading() {
    // As long as it may be, and as long as it is read.
    let deep = |open: &str, middle: &str, close: &str| {
        let n = (LONGEST - middle.len()) / (open.len() + close.len());
        let whole = |n| open.repeat(n) + middle + &close.repeat(n);
        let most = (1..=n).rev().map(whole).find(|text| {
            let (deepest, operators) = check::shape(text);
            deepest <= usize::from(DEEPEST) && operators <= OPERATORS
        });
        [whole(n), most.unwrap_or_default()]
    };
    let plain = [
        "x".repeat(LONGEST),
        "\"".repeat(LONGEST),
        "x".repeat(LONGEST + 1),
        "\u{0}\u{202e}".to_owned(),
    ];
    let shapes = [
        deep("(", "true", ")"),
        deep("!", "true", ""),
        deep("-", "1 == 1", ""),
        deep("[", "1", "]"),
        deep("", "args", ".a"),
        deep("", "args", "[0]"),
        deep("", "args", ".?a"),
        deep("true?true:", "true", ""),
        deep("true||", "true", ""),
        deep("1+", "1 == 1", ""),
        deep("{1:", "1", "}"),
        deep("f(", "1", ")"),
        deep("", "args", ".trim()"),
        deep("args.all(x,", "true", ")"),
    ];
    for source in shapes.into_iter().flatten().chain(plain) {
        if let Ok(condition) = Condition::parse(&source) {
            let facts = facts(json!({}));
            let tool = facts.action.tool();
            let _ = condition.holds(&Scope::new(&facts, &tool));
        }
    }
}

#[test]
fn a_condition_is_stored_as_its_text() {
    let condition = Condition::parse(COLLEAGUES).unwrap();
    let stored = serde_json::to_value(&condition).unwrap();
    assert_eq!(stored, json!(COLLEAGUES));
    assert_eq!(
        serde_json::from_value::<Condition>(stored).unwrap(),
        condition
    );
    assert!(serde_json::from_value::<Condition>(json!("nosuch")).is_err());
}
