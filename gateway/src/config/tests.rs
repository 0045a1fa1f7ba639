use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use expect_test::{Expect, expect};
use policy::traits::Level;

use super::*;
use crate::secrets::Secret;

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new("portcullis.toml"))
}

fn check(text: &str, problems: Expect) {
    problems.assert_eq(&match parse(text) {
        Ok(_) => "ok".to_owned(),
        Err(problems) => problems.to_string(),
    });
}

/// The example of the product, without what comes later.
const WHOLE: &str = r#"
[gateway]
listen = "127.0.0.1:0"
public_url = "https://Gate.example.org/"
database = "sqlite"
max_body = "1 MiB"

[mcp_servers.files]
command = "npx"
args = ["-y", "@modelcontextprotocol/server-filesystem", "/srv/files", ""]
env = { MODE = "quiet", KEY = { file = "/run/key" } }
env_forward = ["FILES_TOKEN"]
idle_timeout = "1m"

[mcp_servers.wiki]
url = "http://127.0.0.1:9000/mcp"
headers = { Authorization = { env = "WIKI_AUTH" }, X-Key = { command = ["pass", "wiki"] } }
[mcp_servers.wiki.trust]
public_source = true
secret_data = false
public_sink = "forbidden"
[mcp_servers.wiki.tools.search]
read_only = true

[mcp_servers.mail]
command = "/usr/bin/portcullis-mail"
env_forward = { INSIDE = "OUTSIDE" }
annotations = "trust"
[mcp_servers.mail.trust]
public_source = false
[mcp_servers.mail.tools.send]
destinations = ["to", "cc", "bcc"]

[models.main]
api = "anthropic"
key = { env = "ANTHROPIC_API_KEY" }
[models.near]
api = "anthropic"
base_url = "http://[::1]:8080/claude/"
key = "s3cr3t"
silence_timeout = "30s"
[models.demo]
api = "scripted"

[[rules]]
name = "no-opus"
tools = ["model:main__*opus*", "model:*"]
servers = ["model:main"]
then = "deny"
[[rules]]
name = "mail-to-colleagues"
groups = ["work"]
tools = ["mail__send", "wiki__*", "*"]
servers = ["m*"]
when = '(args.to + args.?cc.orValue([]) + args.?bcc.orValue([])).all(a, a.endsWith("@example.org"))'
until = 2099-12-31T18:00:00+01:00
then = "allow"
lifts = ["dangerous_writes", "public_sink"]

[groups.work]
servers = ["files", "wiki", "mail"]
channels = ["slack:C0123", "web"]
members = ["ana", "bo"]
approvers = ["ana"]
model = "main/claude-sonnet-4-5"
agent = { command = ["script.py"] }
contains_secrets = true
[groups.office]
servers = ["mail"]
admin = true

[users.ana]
slack = "U0123"
whatsapp = "4915112345678"
role = "owner"
[users.bo]

[approvals]
expire = "1d"
cli = false
"#;

#[test]
fn a_whole_configuration_is_read() {
    let config = parse(WHOLE).unwrap();
    assert_eq!(config.listen.port(), 0);
    assert_eq!(
        config.public_url.as_deref(),
        Some("https://gate.example.org")
    );
    assert_eq!((config.max_body, config.max_message), (MIB, 16 * MIB));
    assert_eq!(config.revision.len(), 12);
    let server = |name: &str| &config.servers[&name.parse::<ServerName>().unwrap()];
    let files = server("files");
    assert_eq!(files.idle_timeout, Duration::from_mins(1));
    assert_eq!(files.call_timeout, Duration::from_mins(5));
    assert_eq!(files.start_timeout, Duration::from_secs(30));
    let Transport::Stdio { args, env, cwd, .. } = &files.transport else {
        panic!("files is a program");
    };
    assert_eq!((args.len(), cwd), (4, &None));
    expect![[r#"{"FILES_TOKEN": Env("FILES_TOKEN"), "KEY": File("/run/key"), "MODE": Plain(…)}"#]]
        .assert_eq(&format!("{env:?}"));
    let Transport::Http { headers, .. } = &server("wiki").transport else {
        panic!("wiki is an address");
    };
    expect![[r#"{"authorization": Env("WIKI_AUTH"), "x-key": Command(Some("pass"))}"#]]
        .assert_eq(&format!("{headers:?}"));
    assert_eq!(server("wiki").trust.public_sink, Some(Level::Forbidden));
    assert_eq!(server("wiki").trust.dangerous_writes, None);
    assert_eq!(server("wiki").tools["search"].traits.read_only, Some(true));
    let Transport::Stdio { env, .. } = &server("mail").transport else {
        panic!("mail is a program");
    };
    assert_eq!(env["INSIDE"], Secret::Env("OUTSIDE".into()));
    assert!(server("mail").annotations_trusted);
    assert_eq!(server("mail").tools["send"].destinations.len(), 3);
    assert!(config.groups[&"work".parse().unwrap()].contains_secrets);
    assert!(config.groups[&"office".parse().unwrap()].admin);
    assert_eq!(config.users[&"ana".parse().unwrap()].role, Role::Owner);
    assert_eq!(config.users[&"bo".parse().unwrap()].role, Role::Member);
    assert_eq!(config.approvals.expire, Duration::from_hours(24));
    assert!(!config.approvals.cli);
    assert_eq!(config.policy.rules.len(), 2);
    let colleagues = &config.policy.rules[1];
    assert_eq!(
        colleagues.when.as_ref().map(|when| when.paths().len()),
        Some(3)
    );
    assert_eq!(
        colleagues.until,
        Some("2099-12-31T17:00:00Z".parse().unwrap())
    );
    let model = |name: &str| &config.models[&name.parse::<ModelName>().unwrap()];
    expect![[r#"
        Model { api: Anthropic { base_url: "https://api.anthropic.com", key: Env("ANTHROPIC_API_KEY") }, silence_timeout: 300s }
        Model { api: Anthropic { base_url: "http://[::1]:8080/claude", key: Plain(…) }, silence_timeout: 30s }
        Model { api: Scripted, silence_timeout: 300s }"#]]
    .assert_eq(&format!("{:?}\n{:?}\n{:?}", model("main"), model("near"), model("demo")));
    let named = config.groups[&"work".parse().unwrap()]
        .model
        .clone()
        .unwrap();
    assert_eq!(named.to_string(), "main/claude-sonnet-4-5");
    assert_eq!(config.groups[&"office".parse().unwrap()].model, None);
    expect![[r#"
        portcullis.toml:62: `groups.work.channels` names "slack:C0123", which has no effect in this version; people speak in `web`
        portcullis.toml:73: `users.ana.slack` has no effect in this version
        portcullis.toml:74: `users.ana.whatsapp` has no effect in this version"#]]
    .assert_eq(&config.notes.join("\n"));
}

#[test]
fn an_agent_that_is_not_there_yet_is_refused() {
    check(
        r#"
[groups.one]
agent = "claude-code"
[groups.two]
agent = "codex"
[groups.three]
agent = { command = [] }
[groups.four]
agent = "other"
"#,
        expect![[r#"
            portcullis.toml:3:9: `groups.one.agent`: this agent is not there yet
              3 | agent = "claude-code"
                |         ^^^^^^^^^^^^^
                = accepted: "native", or a program that speaks to portcullis-agent, as { command = ["program"] }

            portcullis.toml:5:9: `groups.two.agent`: this agent is not there yet
              5 | agent = "codex"
                |         ^^^^^^^
                = accepted: "native", or a program that speaks to portcullis-agent, as { command = ["program"] }

            portcullis.toml:7:21: `groups.three.agent.command`: it is empty
              7 | agent = { command = [] }
                |                     ^^
                = accepted: a program and its arguments

            portcullis.toml:9:9: `groups.four.agent`: "other" is none of them
              9 | agent = "other"
                |         ^^^^^^^
                = accepted: "native", "claude-code", "codex""#]],
    );
    let config = parse("[groups.one]\nagent = { command = [\"x\", \"y\"] }\n[groups.two]").unwrap();
    let agent = |name: &str| config.groups[&name.parse().unwrap()].agent.clone();
    assert_eq!(agent("one"), Agent::Command(vec!["x".into(), "y".into()]));
    assert_eq!(agent("two"), Agent::Native);
}

#[test]
fn an_empty_file_is_the_empty_configuration() {
    assert_eq!(parse("").unwrap(), Config::empty());
    assert_eq!(
        Config::empty().users[&"local".parse().unwrap()].role,
        Role::Owner
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one snapshot of everything")]
fn every_problem_is_told_at_once_and_where() {
    check(
        r#"
[gateway]
listen = "0.0.0.0:4010"
lisen = 3
max_body = "4 GB"
public_url = "https://example.org/path"
[mcp_servers.both]
command = "npx"
url = "http://x"
[mcp_servers.neither]
args = ["a", 1]
[mcp_servers.Bad]
command = "x"
[mcp_servers.portcullis]
command = "./x"
idle_timeout = 10
[mcp_servers.wiki]
url = "http://127.0.0.1:9000/mcp"
cwd = "/srv"
trust = { public_source = "maybe", read_only = true }
[[rules]]
name = "r"
tools = ["nope__x", "mail"]
groups = []
then = "allow"
[[rules]]
name = "r"
then = "deny"
lifts = ["x"]
[groups.work]
servers = ["both", "mial", "wiki", "wiki"]
approvers = ["ana"]
admin = true
[approvals]
expire = "soon"
cli = "yes"
max_open = 0
"#,
        expect![[r#"
            portcullis.toml:3:10: `gateway.listen`: `0.0.0.0:4010` can be reached from other machines, and without TLS tokens would travel in the clear; listen on 127.0.0.1, or put a proxy that does TLS in front and say `gateway.behind_proxy = true`
              3 | listen = "0.0.0.0:4010"
                |          ^^^^^^^^^^^^^^
                = accepted: a loopback address, or any with `behind_proxy = true`

            portcullis.toml:4:1: `gateway.lisen`: unknown key
              4 | lisen = 3
                | ^^^^^
                = accepted: `behind_proxy`, `database`, `listen`, `max_body`, `max_depth`, `max_message`, `max_values`, `public_url`

            portcullis.toml:5:12: `gateway.max_body`: it is not a size that fits here
              5 | max_body = "4 GB"
                |            ^^^^^^
                = accepted: from 1 KiB to 256 MiB, as a number of bytes or such as "4 MiB", "512 KiB"

            portcullis.toml:6:14: `gateway.public_url`: it has a path; the gateway has an origin of its own
              6 | public_url = "https://example.org/path"
                |              ^^^^^^^^^^^^^^^^^^^^^^^^^^
                = accepted: an origin, such as "https://gate.example.org"

            portcullis.toml:9:1: `mcp_servers.both.url`: a server has either `command` or `url`, not both
              9 | url = "http://x"
                | ^^^
                = remove one of them

            portcullis.toml:10:14: `mcp_servers.neither`: it does not say how the server is reached
              10 | [mcp_servers.neither]
                 |              ^^^^^^^
                 = accepted: `command` (a program that speaks MCP on stdin and stdout), `url` (streamable HTTP) or `bundled` (a server inside the gateway)

            portcullis.toml:11:14: `mcp_servers.neither.args[1]`: an argument is a text without a NUL character
              11 | args = •••
                 |           ^
                 = accepted: a text, in quotes

            portcullis.toml:12:14: `mcp_servers.Bad`: `Bad` is not a server name: 1 to 32 of `a-z`, `0-9` and `-`, the first a letter
              12 | [mcp_servers.Bad]
                 |              ^^^

            portcullis.toml:14:14: `mcp_servers.portcullis`: `portcullis` is not a server name: this name is reserved
              14 | [mcp_servers.portcullis]
                 |              ^^^^^^^^^^

            portcullis.toml:15:11: `mcp_servers.portcullis.command`: the path is relative, and nothing is started from the current directory
              15 | command = "./x"
                 |           ^^^^^
                 = accepted: a program's name, looked up in PATH, or an absolute path

            portcullis.toml:16:16: `mcp_servers.portcullis.idle_timeout`: it is not a duration
              16 | idle_timeout = 10
                 |                ^^
                 = accepted: a whole number and a unit (`ms`, `s`, `m`, `h`, `d`), such as "90s", "10m", "12h", "30d"

            portcullis.toml:19:1: `mcp_servers.wiki.cwd`: it belongs to a server with `command`
              19 | cwd = "/srv"
                 | ^^^
                 = remove it

            portcullis.toml:20:27: `mcp_servers.wiki.trust.public_source`: it is not a trait's value
              20 | trust = { public_source = "maybe", read_only = true }
                 |                           ^^^^^^^
                 = accepted: `true`, `false`, "forbidden"

            portcullis.toml:20:36: `mcp_servers.wiki.trust.read_only`: unknown key
              20 | trust = { public_source = "maybe", read_only = true }
                 |                                    ^^^^^^^^^
                 = accepted: `dangerous_writes`, `public_sink`, `public_source`, `secret_data`

            portcullis.toml:21:1: `rules[0]`: an `allow` without `lifts` allows nothing
              21 | [[rules]]
                 | ^^^^^^^^^
                 = accepted: `lifts` with some of ["public_sink", "dangerous_writes", "credential", "changed_tool"]

            portcullis.toml:23:10: `rules[0].tools[0]`: there is no server `nope`
              23 | tools = ["nope__x", "mail"]
                 |          ^^^^^^^^^
                 = accepted: `both`, `neither`, `wiki`

            portcullis.toml:23:21: `rules[0].tools[1]`: "mail" names no tool
              23 | tools = ["nope__x", "mail"]
                 |                     ^^^^^^
                 = accepted: `server__tool`, where `*` stands for anything, such as "mail__send", "mail__*", "model:main__*"

            portcullis.toml:24:10: `rules[0].groups`: the list is empty, so the rule fits nothing
              24 | groups = []
                 |          ^^
                 = leave it out to fit everything

            portcullis.toml:27:8: `rules[1].name`: another rule has this name
              27 | name = "r"
                 |        ^^^
                 = every rule has its own: the log tells them apart by it

            portcullis.toml:29:1: `rules[1].lifts`: only an `allow` lifts gates
              29 | lifts = ["x"]
                 | ^^^^^
                 = remove it

            portcullis.toml:31:20: `groups.work.servers[1]`: there is no server `mial`
              31 | servers = ["both", "mial", "wiki", "wiki"]
                 |                    ^^^^^^
                 = accepted: `both`, `neither`, `wiki`

            portcullis.toml:31:28: `groups.work.servers[2]`: an `admin` group is a clean room, and `wiki` may deliver what strangers wrote
              31 | servers = ["both", "mial", "wiki", "wiki"]
                 |                            ^^^^^^
                 = say `public_source = false` in `[mcp_servers.wiki.trust]` if that is true, and on none of its tools `true`; or take the server out

            portcullis.toml:31:36: `groups.work.servers[3]`: it is listed twice
              31 | servers = ["both", "mial", "wiki", "wiki"]
                 |                                    ^^^^^^
                 = name it once

            portcullis.toml:32:14: `groups.work.approvers[0]`: there is no user `ana`
              32 | approvers = ["ana"]
                 |              ^^^^^
                 = accepted: `local`

            portcullis.toml:35:10: `approvals.expire`: it is not a duration
              35 | expire = "soon"
                 |          ^^^^^^
                 = accepted: a whole number and a unit (`ms`, `s`, `m`, `h`, `d`), such as "90s", "10m", "12h", "30d"

            portcullis.toml:36:7: `approvals.cli`: a text does not fit here
              36 | cli = "yes"
                 |       ^^^^^
                 = accepted: `true`, `false`

            portcullis.toml:37:12: `approvals.max_open`: the number is too small or too large
              37 | max_open = 0
                 |            ^
                 = accepted: a whole number from 1 to 10000"#]],
    );
}

#[test]
fn what_comes_later_is_refused_and_never_ignored() {
    check(
        r#"
database = "sqlite"
[gateway]
database = "postgres://user:hunter22@db/x"
tls = { cert = "/x" }
[models.main]
api = "openai"
key = "s3cr3t"
[channels.slack]
bot_token = "xoxb-1234567890-abc"
[mcp_servers.browser]
image = "mcp/playwright:latest"
port = 8931
network = ["example.org"]
[mcp_servers.a]
url = "http://u:secretpw@h/"
headers = { A = { secret = "x" } }
"#,
        expect![[r#"
            portcullis.toml:2:1: `database`: unknown key
              2 | database = "sqlite"
                | ^^^^^^^^
                = accepted: `approvals`, `audit`, `gateway`, `groups`, `mcp_servers`, `models`, `reviewer`, `rules`, `users`

            portcullis.toml:4:12: `gateway.database`: another database is not available in this version
              4 | database = •••
                |            ^^^
                = accepted: "sqlite"

            portcullis.toml:5:1: `gateway.tls`: not available in this version
              5 | tls = { cert = "/x" }
                | ^^^
                = put a proxy that does TLS in front, and say `behind_proxy = true`

            portcullis.toml:7:7: `models.main.api`: "openai" is not available in this version
              7 | api = "openai"
                |       ^^^^^^^^
                = accepted: "anthropic", "scripted"

            portcullis.toml:9:2: `channels`: not available in this version
              9 | [channels.slack]
                |  ^^^^^^^^
                = answer questions with `portcullis approve` and `portcullis deny`

            portcullis.toml:12:1: `mcp_servers.browser.image`: not available in this version
              12 | image = "mcp/playwright:latest"
                 | ^^^^^
                 = run the server with `command`, or reach it with `url`

            portcullis.toml:13:1: `mcp_servers.browser.port`: not available in this version
              13 | port = 8931
                 | ^^^^
                 = it belongs to `image`

            portcullis.toml:14:1: `mcp_servers.browser.network`: not available in this version
              14 | network = ["example.org"]
                 | ^^^^^^^
                 = it belongs to `image`; without it the server's network is not limited

            portcullis.toml:16:7: `mcp_servers.a.url`: it holds a user name or password
              16 | url = •••
                 |       ^^^
                 = put the credential into `headers`, such as { Authorization = { env = "NAME" } }

            portcullis.toml:17:28: `mcp_servers.a.headers.A.secret`: the secret store is not available in this version: it comes later
              17 | headers = { A = { secret = "x" } }
                 |                            ^^^
                 = accepted: a text, { env = "NAME" }, { file = "/path" } or { command = ["program", "argument"] }"#]],
    );
}

#[test]
fn everything_wrong_with_a_condition_is_told_where_it_is_written() {
    check(
        r#"
[mcp_servers.a]
url = "http://h/"
[[rules]]
name = "words"
when = 'arg.to == 1 && args.to.ends("é")'
then = "deny"
[[rules]]
name = "escaped"
when = "args.to == \"a\" && too"
then = "deny"
[[rules]]
name = "lines"
when = """
args.a == 1 &&
  args.b ==
"""
then = "deny"
[[rules]]
name = "times"
when = 7
until = "tomorrow"
then = "deny"
[[rules]]
name = "no zone"
until = 2026-12-31
when = ""
then = "deny"
"#,
        expect![[r#"
            portcullis.toml:6:9: `rules[0].when`: there is no `arg` to read here
              6 | when = 'arg.to == 1 && args.to.ends("é")'
                |         ^^^
                = accepted: `args`, `tool`, `server`, `group`, `person`, `labels`, `traits`, `now`

            portcullis.toml:6:32: `rules[0].when`: there is no function `ends`
              6 | when = 'arg.to == 1 && args.to.ends("é")'
                |                                ^^^^
                = accepted: `has`, `all`, `exists`, `exists_one`, `map`, `filter`, `size`, `contains`, `startsWith`, `endsWith`, `matches`, `lowerAscii`, `upperAscii`, `trim`, `split`, `substring`, `indexOf`, `lastIndexOf`, `charAt`, `orValue`, `or`, `hasValue`, `value`, `type`, `int`, `uint`, `double`, `string`, `bool`, `timestamp`, `duration`, `getFullYear`, `getMonth`, `getDate`, `getDayOfMonth`, `getDayOfWeek`, `getDayOfYear`, `getHours`, `getMinutes`

            portcullis.toml:10:8: `rules[1].when`: there is no `too` to read here
              10 | when = "args.to == \"a\" && too"
                 |        ^^^^^^^^^^^^^^^^^^^^^^^^^
                 = accepted: `args`, `tool`, `server`, `group`, `person`, `labels`, `traits`, `now`

            portcullis.toml:17:1: `rules[2].when`: this is no CEL: mismatched input '<EOF>'
              17 | """
                 | ^
                 = accepted: an expression in CEL, such as args.to.endsWith("@example.org")

            portcullis.toml:21:8: `rules[3].when`: a whole number does not fit here
              21 | when = 7
                 |        ^
                 = accepted: a text, in quotes

            portcullis.toml:22:9: `rules[3].until`: it is not a time with its zone
              22 | until = "tomorrow"
                 |         ^^^^^^^^^^
                 = accepted: such as 2026-12-31T18:00:00Z or "2026-12-31T19:00:00+01:00"

            portcullis.toml:26:9: `rules[4].until`: it is not a time with its zone
              26 | until = 2026-12-31
                 |         ^^^^^^^^^^
                 = accepted: such as 2026-12-31T18:00:00Z or "2026-12-31T19:00:00+01:00"

            portcullis.toml:27:8: `rules[4].when`: it is empty
              27 | when = ""
                 |        ^^
                 = accepted: a text"#]],
    );
}

#[test]
fn a_provider_of_models_is_checked_like_everything_else() {
    check(
        r#"
[models.a]
key = "s3cr3t-one"
[models.b]
api = "anthropic"
[models.c]
api = "anthropic"
base_url = "http://example.org"
key = { env = "K", file = "/k" }
[models.d]
api = "anthropic"
base_url = "https://u:s3cr3t-two@example.org"
key = "k"
[models.e]
api = "scripted"
key = "s3cr3t-three"
silence_timeout = "long"
[models.F]
api = "anthropic"
base_url = "https://api.anthropic.com/v1"
key = "k"
[[rules]]
name = "r"
tools = ["model:e__*", "model:x__*"]
then = "ask"
[groups.one]
model = "claude"
[groups.two]
model = "nope/claude"
[groups.three]
model = "e/claude sonnet"
"#,
        expect![[r#"
            portcullis.toml:2:9: `models.a`: it does not say what it speaks
              2 | [models.a]
                |         ^
                = accepted: `api` = "anthropic" or "scripted"

            portcullis.toml:4:9: `models.b`: it has no `key`
              4 | [models.b]
                |         ^
                = accepted: such as `key` = { env = "ANTHROPIC_API_KEY" }

            portcullis.toml:8:12: `models.c.base_url`: the key and all that is said would travel in the clear
              8 | base_url = "http://example.org"
                |            ^^^^^^^^^^^^^^^^^^^^
                = accepted: an https address, or http on this machine, such as "http://127.0.0.1:8080"

            portcullis.toml:9:1: `models.c.key`: a secret comes from exactly one place
              9 | key = { env = "K", file = "/k" }
                | ^^^
                = accepted: a text, { env = "NAME" }, { file = "/path" } or { command = ["program", "argument"] }

            portcullis.toml:12:12: `models.d.base_url`: it holds a user name or password
              12 | base_url = •••
                 |            ^^^
                 = the credential is `key`

            portcullis.toml:16:1: `models.e.key`: the script is in the gateway: it has no address and no key
              16 | key = •••
                 | ^^^
                 = remove it

            portcullis.toml:17:19: `models.e.silence_timeout`: it is not a duration
              17 | silence_timeout = "long"
                 |                   ^^^^^^
                 = accepted: a whole number and a unit (`ms`, `s`, `m`, `h`, `d`), such as "90s", "10m", "12h", "30d"

            portcullis.toml:18:9: `models.F`: `F` is not a provider name: 1 to 32 of `a-z`, `0-9` and `-`, the first a letter
              18 | [models.F]
                 |         ^

            portcullis.toml:20:12: `models.F.base_url`: `/v1` is added by itself
              20 | base_url = "https://api.anthropic.com/v1"
                 |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
                 = accepted: an address such as "https://api.anthropic.com", without `/v1`

            portcullis.toml:24:9: `rules[0].tools`: no group that the rule is for has such a server, so it fits nothing
              24 | tools = ["model:e__*", "model:x__*"]
                 |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
                 = give one of its groups a server of accepted: `model:e`

            portcullis.toml:24:10: `rules[0].tools[0]`: a model call does not wait for a person
              24 | tools = ["model:e__*", "model:x__*"]
                 |          ^^^^^^^^^^^^
                 = say `then` = "deny", or take it out

            portcullis.toml:24:24: `rules[0].tools[1]`: a model call does not wait for a person
              24 | tools = ["model:e__*", "model:x__*"]
                 |                        ^^^^^^^^^^^^
                 = say `then` = "deny", or take it out

            portcullis.toml:24:24: `rules[0].tools[1]`: there is no server `model:x`
              24 | tools = ["model:e__*", "model:x__*"]
                 |                        ^^^^^^^^^^^^
                 = accepted: `model:a`, `model:b`, `model:c`, `model:d`, `model:e`

            portcullis.toml:27:9: `groups.one.model`: "claude" names no provider
              27 | model = "claude"
                 |         ^^^^^^^^
                 = accepted: `PROVIDER/MODEL`, such as "main/claude-sonnet-4-5"

            portcullis.toml:29:9: `groups.two.model`: there is no provider `nope`
              29 | model = "nope/claude"
                 |         ^^^^^^^^^^^^^
                 = accepted: `a`, `b`, `c`, `d`, `e`

            portcullis.toml:31:9: `groups.three.model`: "claude sonnet" is no name of a model
              31 | model = "e/claude sonnet"
                 |         ^^^^^^^^^^^^^^^^^
                 = accepted: `PROVIDER/MODEL`, such as "main/claude-sonnet-4-5""#]],
    );
}

#[test]
fn a_secret_never_shows_in_a_problem() {
    let text = r#"
[mcp_servers.a]
url = "http://h/"
headers = { A = "s3cr3t-one", Host = "s3cr3t-two", B = ["s3cr3t-three"], C = { command = ["s3cr3t-four", ""] } }
[mcp_servers.b]
command = "x"
args = ["s3cr3t-five", 1]
env = { "1A" = "s3cr3t-six" }
"#;
    let problems = parse(text).unwrap_err();
    assert!(
        !format!("{problems} {problems:?}").contains("s3cr3t"),
        "{problems}"
    );
    check(
        text,
        expect![[r#"
        portcullis.toml:4:31: `mcp_servers.a.headers.Host`: the gateway sets this header itself
          4 | headers = { A = •••, Host = •••, B = •••, C = { command = ••• } }
            |                      ^^^^
            = remove it

        portcullis.toml:4:56: `mcp_servers.a.headers.B`: it is not a secret
          4 | headers = { A = •••, Host = •••, B = •••, C = { command = ••• } }
            |                                      ^^^
            = accepted: a text, { env = "NAME" }, { file = "/path" } or { command = ["program", "argument"] }

        portcullis.toml:4:106: `mcp_servers.a.headers.C.command[1]`: it is empty
          4 | headers = { A = •••, Host = •••, B = •••, C = { command = ••• } }
            |                                                              ^
            = accepted: a text

        portcullis.toml:7:24: `mcp_servers.b.args[1]`: an argument is a text without a NUL character
          7 | args = •••
            |           ^
            = accepted: a text, in quotes

        portcullis.toml:8:9: `mcp_servers.b.env.1A`: it is no name of an environment variable
          8 | env = { "1A" = ••• }
            |         ^^^^
            = accepted: letters, digits and `_`, the first no digit, such as "API_TOKEN""#]],
    );
}

#[test]
fn text_that_is_no_toml_is_told_with_its_place() {
    check(
        "[gateway\nlisten = 1\na = \"\u{202e}\nb = 1\nb = 2\n",
        expect![[r#"
            portcullis.toml:1:9: this is no TOML: unclosed table, expected `]`
              1 | [gateway
                |         ^"#]],
    );
}

#[test]
fn one_person_has_one_id() {
    check(
        "[users.a]\nslack = \"U1\"\n[users.b]\nslack = \"U1\"\nrole = \"boss\"\n[users.c]\nslack = \"@ana\"\nwhatsapp = \"+49 1\"\n",
        expect![[r#"
            portcullis.toml:4:9: `users.b.slack`: another user has this id
              4 | slack = "U1"
                |         ^^^^
                = one person, one id

            portcullis.toml:5:8: `users.b.role`: "boss" is none of them
              5 | role = "boss"
                |        ^^^^^^
                = accepted: "owner", "approver", "member"

            portcullis.toml:7:9: `users.c.slack`: "@ana" is no stable id
              7 | slack = "@ana"
                |         ^^^^^^
                = accepted: a member id such as "U0123ABCD", never a display name

            portcullis.toml:8:12: `users.c.whatsapp`: "+49 1" is no stable id
              8 | whatsapp = "+49 1"
                |            ^^^^^^^
                = accepted: the number with its country, digits only, such as "4915112345678""#]],
    );
}

/// A problem in every table, so that every list of accepted keys is printed.
const UNKNOWN: &str = r#"
zzz = 1
[gateway]
zzz = 1
[mcp_servers.a]
command = "x"
zzz = 1
[mcp_servers.a.trust]
zzz = 1
[mcp_servers.a.tools.t]
zzz = 1
[mcp_servers.b]
url = "http://h/"
headers = { A = { env = "X", zzz = 1 } }
[models.m]
api = "scripted"
zzz = 1
[[rules]]
name = "r"
then = "deny"
zzz = 1
[groups.g]
zzz = 1
agent = { command = ["x"], zzz = 1 }
[users.u]
zzz = 1
[approvals]
zzz = 1
"#;

#[test]
fn the_document_tells_every_key() {
    let document = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/configuration.md"
    ))
    .unwrap();
    let problems = parse(UNKNOWN).unwrap_err();
    assert_eq!(
        problems.0.len(),
        UNKNOWN.matches("zzz").count(),
        "{problems}"
    );
    let accepted: Vec<String> = problems
        .0
        .into_iter()
        .filter_map(|one| one.accepted)
        .collect();
    let keys: BTreeSet<&str> = accepted
        .iter()
        .flat_map(|list| list.split('`').skip(1).step_by(2))
        .collect();
    assert!(keys.len() > 40, "{keys:?}");
    for key in keys {
        let told = [
            format!("`{key}`"),
            format!("`[{key}]"),
            format!("`[[{key}]]"),
            format!("`[{key}."),
            format!("`{{ {key} = "),
        ];
        assert!(
            told.iter().any(|form| document.contains(form)),
            "`{key}` is not in docs/configuration.md"
        );
    }
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("portcullis.toml");
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let refused = |what: &str| {
        let problems = Config::load(&file).unwrap_err();
        assert!(problems.to_string().contains(what), "{problems}");
    };
    refused("there is no configuration");
    fs::write(&file, "").unwrap();
    mode(&file, 0o600);
    assert_eq!(Config::load(&file).unwrap(), Config::empty());
    for bad in [0o620, 0o602, 0o666] {
        mode(&file, bad);
        refused("others can write it");
    }
    mode(&file, 0o644);
    mode(dir.path(), 0o777);
    refused("others can write it");
    mode(dir.path(), 0o755);
    assert_eq!(Config::load(&file).unwrap(), Config::empty());
    // A link into a directory that others can write.
    let open = tempfile::tempdir().unwrap();
    let real = open.path().join("real.toml");
    fs::rename(&file, &real).unwrap();
    std::os::unix::fs::symlink(&real, &file).unwrap();
    assert_eq!(Config::load(&file).unwrap(), Config::empty());
    mode(open.path(), 0o777);
    refused("others can write it");
    fs::write(&real, [b'a', b'\n', 0xff]).unwrap();
    mode(open.path(), 0o700);
    refused("line 2 is not UTF-8");
    assert!(
        Config::load(dir.path())
            .unwrap_err()
            .to_string()
            .contains("not a regular file")
    );
}

/// The traits of the tools of one server, as the policy sees them, beside the server's own.
fn traits(text: &str, tools: &[&str]) -> String {
    use policy::traits::{Declared, Hints, resolve};
    let config = parse(text).unwrap();
    let server = config.servers.values().next().unwrap();
    let mut lines = String::new();
    for tool in tools {
        let declared = server
            .tools
            .get(*tool)
            .map_or_else(Declared::default, |tool| tool.traits);
        let traits = resolve(server.trust, declared, Hints::default());
        let has = [
            (traits.public_source.holds(), " public_source"),
            (traits.secret_data.holds(), " secret_data"),
            (traits.public_sink.holds(), " public_sink"),
            (traits.dangerous_writes.holds(), " dangerous_writes"),
            (traits.read_only, " read_only"),
        ];
        lines += tool;
        lines.extend(has.iter().filter(|(has, _)| *has).map(|(_, name)| *name));
        lines += "\n";
    }
    lines
}

#[test]
fn what_comes_with_the_gateway_has_known_traits_until_somebody_writes_others() {
    let notes = "[mcp_servers.memo]\nbundled = \"notes\"\n";
    let tools = ["list", "read", "write", "delete"];
    expect![[r#"
        list secret_data read_only
        read secret_data read_only
        write secret_data
        delete secret_data dangerous_writes
    "#]]
    .assert_eq(&traits(notes, &tools));
    let postbox = "[mcp_servers.mail]\ncommand = \"portcullis-postbox\"\n";
    let tools = ["list", "read", "send", "other"];
    expect![[r#"
        list public_source read_only
        read public_source read_only
        send public_sink
        other public_source secret_data public_sink dangerous_writes
    "#]]
    .assert_eq(&traits(postbox, &tools));
    let single = format!("{postbox}[mcp_servers.mail.tools.read]\nsecret_data = true\n");
    expect![[r#"
        read public_source secret_data read_only
        send public_sink
    "#]]
    .assert_eq(&traits(&single, &["read", "send"]));
    let written = format!("{postbox}[mcp_servers.mail.trust]\nsecret_data = false\n");
    expect![[r#"
        read public_source public_sink dangerous_writes
    "#]]
    .assert_eq(&traits(&written, &["read"]));
    // Another program of that name is not what is known.
    let other = "[mcp_servers.mail]\ncommand = \"/opt/portcullis-postbox\"\n";
    expect![[r#"
        read public_source secret_data public_sink dangerous_writes
    "#]]
    .assert_eq(&traits(other, &["read"]));
}

#[test]
fn what_is_inside_is_neither_started_nor_reached() {
    check(
        r#"
[mcp_servers.a]
bundled = "diary"
[mcp_servers.b]
bundled = "notes"
url = "http://x"
idle_timeout = "1m"
"#,
        expect![[r#"
            portcullis.toml:3:11: `mcp_servers.a.bundled`: "diary" is none of them
              3 | bundled = "diary"
                |           ^^^^^^^
                = accepted: "notes"

            portcullis.toml:6:1: `mcp_servers.b.url`: it belongs to a server that is started or reached, not to one inside the gateway
              6 | url = "http://x"
                | ^^^
                = remove it

            portcullis.toml:7:1: `mcp_servers.b.idle_timeout`: it belongs to a server that is started or reached, not to one inside the gateway
              7 | idle_timeout = "1m"
                | ^^^^^^^^^^^^
                = remove it"#]],
    );
}

#[test]
fn a_reviewer_is_a_model_of_a_provider_that_thinks() {
    let with = |reviewer: &str| {
        let text = format!(
            "[models.main]\napi = \"anthropic\"\nkey = \"k\"\n[models.demo]\napi = \"scripted\"\n[reviewer]\n{reviewer}"
        );
        parse(&text)
    };
    let config = with("model = \"main/claude-haiku-4-5\"\ntimeout = \"3s\"\n").unwrap();
    let reviewer = config.reviewer.unwrap();
    assert_eq!(reviewer.model.to_string(), "main/claude-haiku-4-5");
    assert_eq!(
        (reviewer.timeout, reviewer.max_per_run),
        (Duration::from_secs(3), 50)
    );
    for wrong in [
        "",
        "model = \"demo/script\"",
        "model = \"nobody/x\"",
        "model = \"main/m\"\ntimeout = \"2m\"",
        "model = \"main/m\"\nmax_per_run = 0",
    ] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}
