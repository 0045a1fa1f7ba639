//! The command line as a person meets it: the built binary, without an instance.

mod live;

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use expect_test::{Expect, expect};
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = r#"
[mcp_servers.files]
command = "npx"
[mcp_servers.files.trust]
public_source = false
secret_data = false
public_sink = false
dangerous_writes = true
[mcp_servers.files.tools.read_text_file]
read_only = true
[mcp_servers.files.tools.shred]
dangerous_writes = "forbidden"

[mcp_servers.wiki]
url = "http://127.0.0.1:9000/mcp"

[[rules]]
name = "notes"
groups = ["work"]
tools = ["files__write_note"]
then = "allow"
lifts = ["dangerous_writes"]
[[rules]]
name = "no-admin"
tools = ["wiki__admin*"]
then = "deny"

[groups.work]
servers = ["files", "wiki"]
[groups.lone]
servers = ["files"]
contains_secrets = true
"#;

/// A configuration and an empty data directory.
struct Desk(TempDir);

/// What a command said.
struct Said {
    status: i32,
    out: String,
    err: String,
}

impl Desk {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("portcullis.toml");
        fs::write(&file, config).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        Self(dir)
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .arg("--config")
            .arg(self.0.path().join("portcullis.toml"))
            .arg("--data")
            .arg(self.0.path().join("data"))
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .unwrap()
                .replace(&self.0.path().display().to_string(), "DIR")
        };
        Said {
            status: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    fn check(&self, arguments: &[&str], expected: Expect) {
        let said = self.run(arguments);
        expected.assert_eq(&format!("{}{}[{}]", said.out, said.err, said.status));
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.run(&[arguments, &["--json"]].concat());
        serde_json::from_str(&said.out).unwrap()
    }
}

#[test]
fn check_tells_what_is_there_or_what_is_wrong() {
    Desk::new(CONFIG).check(
        &["check"],
        expect![[r#"
        ok: DIR/portcullis.toml (2 servers, 2 groups, 1 user, 2 rules)
        [0]"#]],
    );
    let bad = Desk::new("[gateway]\nlisten = 1\n[groups.g]\nserver = []\n");
    bad.check(&["check"], expect![[r#"
        DIR/portcullis.toml:2:10: `gateway.listen`: a whole number does not fit here
          2 | listen = 1
            |          ^
            = accepted: a text, in quotes

        DIR/portcullis.toml:4:1: `groups.g.server`: unknown key
          4 | server = []
            | ^^^^^^
            = accepted: `admin`, `agent`, `approvers`, `channels`, `contains_secrets`, `members`, `model`, `servers`

        2 problems
        [2]"#]]);
    let told = bad.json(&["check"]);
    assert_eq!(told["ok"], false);
    assert_eq!(told["problems"][1]["line"], 4);
    // Every command that needs it says the same, and `up` does not start.
    let said = bad.run(&["up"]);
    assert_eq!((said.status, said.out.as_str()), (2, ""));
    assert!(said.err.contains("unknown key"), "{}", said.err);
}

#[test]
fn the_policy_is_a_table() {
    Desk::new(CONFIG).check(&["policy", "show"], expect![[r#"
        What a call meets, by what its conversation has read (`*`: every other tool).
        A credential in the arguments, a changed definition or the server's own hints can turn `allow` into `ask`; rules with a condition are not in the table.

        GROUP  TOOL                   NOTHING  UNTRUSTED  SECRET  BOTH   TRAITS
        lone   files__*               ask      ask        ask     ask    dangerous_writes
        lone   files__read_text_file  allow    allow      allow   allow  dangerous_writes, read_only
        lone   files__shred           deny     deny       deny    deny   dangerous_writes (forbidden)
        lone   files__write_note      ask      ask        ask     ask    dangerous_writes
        work   files__*               ask      ask        ask     ask    dangerous_writes
        work   files__read_text_file  allow    allow      allow   allow  dangerous_writes, read_only
        work   files__shred           deny     deny       deny    deny   dangerous_writes (forbidden)
        work   files__write_note      allow    allow      allow   allow  dangerous_writes
        work   wiki__*                ask      ask        ask     ask    public_source, secret_data, public_sink, dangerous_writes
        work   wiki__admin*           deny     deny       deny    deny   public_source, secret_data, public_sink, dangerous_writes

        Rules (deny beats ask beats allow; their order never matters)
          notes: allow · groups work · tools files__write_note · lifts dangerous_writes
          no-admin: deny · tools wiki__admin*
        [0]"#]]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one snapshot of every reason")]
fn a_decision_explains_itself() {
    let desk = Desk::new(CONFIG);
    let explain = |tool: &str, more: &[&str]| {
        desk.run(
            &[
                &["policy", "explain", "--group", "work", "--tool", tool],
                more,
            ]
            .concat(),
        )
    };
    let mut all = String::new();
    for (tool, more) in [
        ("files__read_text_file", &[][..]),
        ("files__write_file", &[]),
        ("files__write_note", &["--label", "untrusted"]),
        ("files__shred", &[]),
        ("wiki__admin_drop", &[]),
        (
            "wiki__search",
            &["--label", "untrusted", "--label", "secret"],
        ),
        (
            "files__read_text_file",
            &[
                "--args",
                r#"{"path": "ghp_0123456789abcdef0123456789abcdef0123"}"#,
            ],
        ),
    ] {
        let said = explain(tool, more);
        let head = format!("# {tool} {}", more.join(" "));
        let _ = write!(all, "{}\n{}{}", head.trim_end(), said.out, said.err);
    }
    expect![[r##"
        # files__read_text_file
        decision  allow
        why       nothing stands against it
        gates     -
        lifted    -
        rules     -
        labels    -
        it adds   -
        traits    dangerous_writes, read_only
        note      the server's own hints are not known here; at a call they may make it stricter
        # files__write_file
        decision   ask
        why        dangerous_writes: it may change something that cannot be undone
        gates      dangerous_writes
        lifted     -
        rules      -
        labels     -
        it adds    -
        traits     dangerous_writes
        otherwise  if the tool were declared `read_only`: allow
                   if `dangerous_writes` were not true of it: allow
                   with a rule that allows it and lifts dangerous_writes: allow
        note       the server's own hints are not known here; at a call they may make it stricter
        # files__write_note --label untrusted
        decision   allow
        why        dangerous_writes: it may change something that cannot be undone
        gates      -
        lifted     dangerous_writes
        rules      notes
        labels     untrusted
        it adds    -
        traits     dangerous_writes
        otherwise  without the rule `notes`: ask (dangerous_writes)
        note       the server's own hints are not known here; at a call they may make it stricter
        # files__shred
        decision   deny
        why        `dangerous_writes` is forbidden here
                   dangerous_writes: it may change something that cannot be undone
        gates      dangerous_writes
        lifted     -
        rules      -
        labels     -
        it adds    -
        traits     dangerous_writes (forbidden)
        otherwise  if the tool were declared `read_only`: allow
                   if `dangerous_writes` were not forbidden of it: allow
                   with a rule that allows it and lifts dangerous_writes: deny
        note       the server's own hints are not known here; at a call they may make it stricter
        # wiki__admin_drop
        decision   deny
        why        dangerous_writes: it may change something that cannot be undone
                   rule `no-admin` denies it
        gates      dangerous_writes
        lifted     -
        rules      no-admin
        labels     -
        it adds    untrusted, secret
        traits     public_source, secret_data, public_sink, dangerous_writes
        otherwise  if the tool were declared `read_only`: deny
                   if `dangerous_writes` were not true of it: deny
                   without the rule `no-admin`: ask (dangerous_writes)
                   with a rule that allows it and lifts dangerous_writes: deny
        note       the server's own hints are not known here; at a call they may make it stricter
        # wiki__search --label untrusted --label secret
        decision   ask
        why        dangerous_writes: it may change something that cannot be undone
                   public_sink: it can reach strangers, and this conversation has read both secrets and what strangers wrote
        gates      public_sink, dangerous_writes
        lifted     -
        rules      -
        labels     untrusted, secret
        it adds    untrusted, secret
        traits     public_source, secret_data, public_sink, dangerous_writes
        otherwise  without the label `untrusted`: ask (dangerous_writes)
                   if the tool were declared `read_only`: ask (public_sink)
                   if `public_sink` were not true of it: ask (dangerous_writes)
                   if `dangerous_writes` were not true of it: ask (public_sink)
                   with a rule that allows it and lifts public_sink, dangerous_writes: allow
        note       the server's own hints are not known here; at a call they may make it stricter
        # files__read_text_file --args {"path": "ghp_0123456789abcdef0123456789abcdef0123"}
        decision   ask
        why        credential: its arguments hold a credential, at /path
        gates      credential
        lifted     -
        rules      -
        labels     -
        it adds    -
        traits     dangerous_writes, read_only
        otherwise  with a rule that allows it and lifts credential: allow
        note       the server's own hints are not known here; at a call they may make it stricter
    "##]].assert_eq(&all);
}

#[test]
fn an_explanation_has_the_fields_that_stay() {
    let desk = Desk::new(CONFIG);
    let told = desk.json(&[
        "policy",
        "explain",
        "--group",
        "work",
        "--tool",
        "files__write_file",
        "--args",
        "{}",
        "--label",
        "secret",
    ]);
    assert_eq!(told["decision"], "ask");
    assert_eq!(told["gates"], serde_json::json!(["dangerous_writes"]));
    assert_eq!(told["rules"], serde_json::json!([]));
    assert_eq!(told["labels"], serde_json::json!(["secret"]));
    let lone = desk.json(&["policy", "explain", "--group", "lone", "--tool", "wiki__x"]);
    assert_eq!(
        (&lone["decision"], &lone["granted"]),
        (&"deny".into(), &false.into())
    );
}

#[test]
fn wrong_usage_is_status_2_and_no_instance_is_status_1() {
    let desk = Desk::new(CONFIG);
    for arguments in [
        &["policy", "explain", "--group", "nope", "--tool", "files__x"][..],
        &["policy", "explain", "--group", "work", "--tool", "files"],
        &["policy", "explain", "--group", "work", "--tool", "mail__x"],
        &[
            "policy", "explain", "--group", "work", "--tool", "files__x", "--args", "[1]",
        ],
        &[
            "policy", "explain", "--group", "work", "--tool", "files__x", "--label", "odd",
        ],
        &["approve", "q1", "--for", "ever"],
        &["approve"],
        &["token", "issue", "--group", "work", "--ttl", "30"],
        &["up", "--listen", "0.0.0.0:0"],
        &["frobnicate"],
        &[],
    ] {
        let said = desk.run(arguments);
        assert_eq!(said.status, 2, "{arguments:?}: {}{}", said.out, said.err);
        assert_eq!(said.out, "", "{arguments:?}");
        assert_ne!(said.err, "", "{arguments:?}");
    }
    for arguments in [
        &["approvals"][..],
        &["approve", "q1"],
        &["deny", "q1", "--reason", "no"],
        &["token", "issue", "--group", "work"],
        &["token", "list"],
        &["token", "revoke", "t1"],
        &["servers"],
        &["tools"],
        &["status"],
    ] {
        let said = desk.run(arguments);
        let expected = "portcullis is not running on DIR/data; start it with `portcullis up`\n";
        assert_eq!(
            (said.status, said.out.as_str(), said.err.as_str()),
            (1, "", expected),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_first_run_says_how_to_write_a_configuration() {
    let desk = Desk::new("");
    fs::remove_file(desk.0.path().join("portcullis.toml")).unwrap();
    desk.check(
        &["up"],
        expect![[r#"
        DIR/portcullis.toml: there is no configuration
          = write one, such as:
                [mcp_servers.files]
                command = "npx"
                args = ["-y", "@modelcontextprotocol/server-filesystem", "/srv/files"]
                [mcp_servers.files.trust]
                public_source = false     # delivers nothing that strangers wrote
                secret_data = false       # nothing in it would hurt if it leaked
                public_sink = false       # sends nothing to strangers
                dangerous_writes = true   # what it writes cannot be undone: a person is asked
                [mcp_servers.files.tools.read_text_file]
                read_only = true
                [groups.work]
                servers = ["files"]
            then `portcullis check`, `portcullis up` and `portcullis token issue --group work`
        [2]"#]],
    );
}

#[test]
fn the_example_of_a_first_run_is_sound() {
    let desk = Desk::new("");
    let file = desk.0.path().join("portcullis.toml");
    fs::remove_file(&file).unwrap();
    let said = desk.run(&["check"]).out;
    let lines: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("        "))
        .collect();
    let example = lines.join("\n");
    fs::write(&file, &example).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let said = desk.run(&["check"]);
    assert_eq!(said.status, 0, "{example}\n{}", said.out);
}

#[test]
fn doctor_says_what_to_do() {
    let desk = Desk::new(CONFIG);
    fs::create_dir(desk.0.path().join("data")).unwrap();
    fs::set_permissions(desk.0.path().join("data"), Permissions::from_mode(0o755)).unwrap();
    let said = desk.run(&["doctor"]);
    assert_eq!(said.status, 1);
    assert!(said.out.contains("chmod 0700 DIR/data"), "{}", said.out);
    let told = desk.json(&["doctor"]);
    let levels: Vec<&str> = told
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["level"].as_str())
        .collect();
    assert!(levels.contains(&"ok") && levels.contains(&"fail"), "{told}");
}
