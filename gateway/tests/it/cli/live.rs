//! The command line in front of an instance: a stand-in that answers on the owner's socket as
//! `/api/v1` does, and keeps what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

const QUESTION: &str = r#"{"id": "q7", "state": "pending", "group": "work", "conversation": "token:t", "tool": "mail__send",
    "args": {"to": "ana@example.org", "body": "pay\u202e me\u001b[2J"}, "reasons": ["it may change something that cannot be undone"],
    "asked_at": "2026-01-02T03:04:05Z", "expires_at": "2001-01-02T15:04:05Z", "decided_by": null, "outcome": null}"#;

impl Desk {
    /// Answers every request with the same status and body; gives the requests as they came.
    fn answering(status: u16, body: &str) -> (Self, Receiver<String>) {
        let desk = Self::new(CONFIG);
        let data = desk.0.path().join("data");
        fs::create_dir(&data).unwrap();
        let listener = UnixListener::bind(data.join("portcullis.sock")).unwrap();
        let (sender, receiver) = channel();
        let body = body.to_owned();
        // Ends with the test's process: nothing waits for it.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if answer(stream, status, &body, &sender).is_none() {
                    return;
                }
            }
        });
        (desk, receiver)
    }
}

fn answer(stream: UnixStream, status: u16, body: &str, asked: &Sender<String>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut told = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
        if header.starts_with("x-portcullis-user") {
            told = format!("{told} [{header}]");
        }
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).ok()?;
    asked
        .send(format!("{told} {}", String::from_utf8(sent).ok()?))
        .ok()?;
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .ok()
}

#[test]
fn what_an_agent_wrote_cannot_deceive_who_approves_it() {
    let (desk, asked) = Desk::answering(200, &format!("[{QUESTION}]"));
    let said = desk.run(&["approvals", "--all"]);
    // How long ago it expired depends on today.
    let out: Vec<&str> = said
        .out
        .lines()
        .map(|line| line.split(" UTC, ").next().unwrap())
        .collect();
    expect![[r#"
        q7  pending  mail__send  in group work
            arguments   to = ana@example.org
                        body = pay\u{202e} me\u{1b}[2J
            why         it may change something that cannot be undone
            asked       2026-01-02 03:04:05 UTC
            expires     2001-01-02 15:04:05
            may answer  -"#]]
    .assert_eq(&out.join("\n"));
    assert_eq!(
        asked.recv().unwrap().trim(),
        "GET /api/v1/approvals?all=true"
    );
}

#[test]
fn an_answer_is_sent_as_it_was_given() {
    let (desk, asked) = Desk::answering(200, QUESTION);
    for arguments in [
        &["approve", "q7"][..],
        &[
            "approve",
            "q7",
            "--for",
            "run",
            "--run-anyway",
            "--user",
            "ana",
        ],
        &["deny", "q/7?x", "--reason", "no"],
        &["deny", "q7"],
        &[
            "token", "issue", "--group", "work", "--ttl", "12h", "--name", "laptop",
        ],
        &["token", "revoke", "t1"],
    ] {
        assert_eq!(desk.run(arguments).status, 0, "{arguments:?}");
    }
    let asked: Vec<String> = asked.try_iter().map(|one| one.trim().to_owned()).collect();
    expect![[r#"
        POST /api/v1/approvals/q7/approve {"for":"once","run_anyway":false}
        POST /api/v1/approvals/q7/approve [x-portcullis-user: ana] {"for":"run","run_anyway":true}
        POST /api/v1/approvals/q%2F7%3Fx/deny {"reason":"no"}
        POST /api/v1/approvals/q7/deny {"reason":null}
        POST /api/v1/tokens {"group":"work","name":"laptop","ttl_seconds":43200}
        DELETE /api/v1/tokens/t1"#]]
    .assert_eq(&asked.join("\n"));
}

#[test]
fn a_token_is_all_that_issue_prints() {
    let (desk, _asked) = Desk::answering(
        200,
        r#"{"id": "t1", "token": "eyJ.abc.def", "group": "work"}"#,
    );
    assert_eq!(
        desk.run(&["token", "issue", "--group", "work"]).out,
        "eyJ.abc.def\n"
    );
    assert_eq!(
        desk.json(&["token", "issue", "--group", "work"])["id"],
        "t1"
    );
}

#[test]
fn who_is_late_reads_who_was_first() {
    for (status, code) in [(409, 1), (404, 1), (403, 1), (500, 1), (400, 2)] {
        let (desk, _asked) =
            Desk::answering(status, r#"{"error": "it is already denied, by ana"}"#);
        let said = desk.run(&["approve", "q7"]);
        assert_eq!(
            (said.status, said.err.as_str(), said.out.as_str()),
            (code, "it is already denied, by ana\n", "")
        );
    }
}

#[test]
fn an_explanation_uses_the_hints_that_the_instance_knows() {
    let tools = r#"[{"name": "files__read_text_file", "server": "files", "annotations": {"openWorldHint": true}}]"#;
    let (desk, _asked) = Desk::answering(200, tools);
    let told = desk.json(&[
        "policy",
        "explain",
        "--group",
        "work",
        "--tool",
        "files__read_text_file",
        "--label",
        "untrusted",
        "--label",
        "secret",
    ]);
    assert_eq!(
        (&told["decision"], &told["hints_known"]),
        (&"ask".into(), &true.into()),
        "{told}"
    );
}

#[test]
fn lists_are_tables_or_json() {
    let tokens = r#"[{"id": "t1", "group": "work", "name": "laptop", "created_at": "2026-01-02T03:04:05Z", "expires_at": "2026-02-02T03:04:05Z", "revoked_at": "2026-01-03T00:00:00Z"}]"#;
    let (desk, _asked) = Desk::answering(200, tokens);
    desk.check(
        &["token", "list"],
        expect![[r#"
        ID  GROUP  NAME    CREATED (UTC)        STATE
        t1  work   laptop  2026-01-02 03:04:05  revoked 2026-01-03 00:00:00
        [0]"#]],
    );
    assert_eq!(desk.json(&["token", "list"])[0]["id"], "t1");
    let servers = r#"[{"name": "files", "state": "running", "transport": "stdio", "tools": 14, "last_error": null}, {"name": "wiki", "state": "failed", "transport": "http", "tools": 0, "last_error": "cannot connect"}]"#;
    let (desk, _asked) = Desk::answering(200, servers);
    desk.check(
        &["servers"],
        expect![[r#"
            NAME   STATE    TRANSPORT  TOOLS  PINS  LAST ERROR
            files  running  stdio      14     -     -
            wiki   failed   http       0      -     cannot connect
            [0]"#]],
    );
    let status = r#"{"version": "0.1.0", "listen": "127.0.0.1:4010", "uptime_seconds": 93784, "groups": ["work"], "servers": [{"name": "files", "state": "idle"}], "open_approvals": 0}"#;
    let (desk, _asked) = Desk::answering(200, status);
    desk.check(
        &["status"],
        expect![[r#"
        data            DIR/data
        version         0.1.0
        listen          127.0.0.1:4010
        uptime          1d 2h
        groups          work
        servers         files (idle)
        open approvals  0
        [0]"#]],
    );
}
