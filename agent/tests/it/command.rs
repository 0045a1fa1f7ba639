//! A core of one's own: any program.

use std::io::Read as _;

use crate::home::{Home, TOKEN};

/// What is told after the greeting when the core is a shell script.
async fn check(script: &str, told: &[&str]) -> Home {
    let home = Home::start().await;
    home.begin("hello?");
    let agent = home.agent_with(&[("SECRET_OF_THE_HOST", "x")], &["--", "sh", "-c", script]);
    assert_eq!(home.told().await[1..], *told);
    assert_eq!(home.story()[0], "hello command");
    assert_eq!(agent.ended().await.0, Some(0));
    home
}

#[tokio::test]
async fn plain_lines_are_the_answer() {
    let home = check(
        "echo Hello,; echo 'it is me'",
        &["Assistant: Hello,\nit is me", "done"],
    )
    .await;
    assert_eq!(home.streamed(), "Hello,\nit is me\n");
    check("exit 0", &["done"]).await;
}

#[tokio::test]
async fn lines_of_json_are_events() {
    let script = r#"
        read -r line
        case "$line" in *'"type":"begin"'*'"group":"demo"'*'hello?'*) ;; *) exit 1;; esac
        echo '{"type":"status","text":"working"}'
        echo '{"type":"delta","text":"He"}'
        echo '{"type":"message","message":{"role":"assistant","content":[{"type":"text","text":"Hello"}]}}'
        echo '{"type":"done"}'
        echo '{"type":"status","text":"after the end"}'"#;
    let home = check(script, &["status: working", "Assistant: Hello", "done"]).await;
    assert_eq!(home.streamed(), "He");
}

#[tokio::test]
async fn it_gets_what_it_needs_and_nothing_else() {
    let script = r#"
        case "$PORTCULLIS_MCP_URL" in http://127.0.0.1:*/mcp) ;; *) exit 1;; esac
        case "$PORTCULLIS_LLM_URL" in http://127.0.0.1:*/llm/anthropic) ;; *) exit 2;; esac
        echo "token $PORTCULLIS_TOKEN"
        env | cut -d= -f1 | grep -v -e '^PWD$' -e '^SHLVL$' -e '^_$' -e '^LANG$' -e '^TMPDIR$' | sort | tr '\n' ' '"#;
    let names = "HOME PATH PORTCULLIS_LLM_URL PORTCULLIS_MCP_URL PORTCULLIS_TOKEN";
    // It knows its token, and cannot get it into the conversation by accident.
    check(
        script,
        &[&format!("Assistant: token [masked]\n{names}"), "done"],
    )
    .await;
}

#[tokio::test]
async fn a_crash_is_told_with_its_last_words() {
    let script =
        "echo partial; echo first >&2; printf 'bad key %s\\n\\n' $PORTCULLIS_TOKEN >&2; exit 3";
    let told = "failed Agent: the agent's program ended with status 3: bad key [masked]";
    check(script, &[told]).await;
    let told = "failed Agent: the agent's program was ended by a signal";
    check("kill -9 $$", &[told]).await;
}

#[tokio::test]
async fn what_is_no_event_is_refused() {
    let told = r#"failed Agent: the agent's program wrote what is no event: {"type":"approve"}"#;
    check(
        r#"echo '{"type":"approve"}'; read -r a; read -r b"#,
        &[told],
    )
    .await;
}

#[tokio::test]
async fn endless_output_ends_it() {
    let told = "failed Agent: the agent's program wrote more than 1048576 bytes of text";
    check("yes", &[told]).await;
    let told = "failed Agent: the agent's program wrote a line of more than 4194304 bytes";
    check("yes | tr -d '\\n'", &[told]).await;
}

#[tokio::test]
async fn a_program_that_is_not_there() {
    let home = Home::start().await;
    home.begin("hello?");
    let agent = home.agent_with(&[], &["--", "/nowhere/at/all"]);
    let told = [
        "hello command",
        "failed Agent: the agent's program does not start",
    ];
    assert_eq!(home.told().await, told);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn it_hears_what_people_say_meanwhile() {
    let script = r#"
        read -r begin
        echo '{"type":"status","text":"ready"}'
        read -r said
        case "$said" in '{"seq":2,"type":"say",'*quickly*) ;; *) exit 1;; esac
        echo '{"type":"heard","seq":2}'
        echo 'Yes.'"#;
    let home = Home::start().await;
    home.begin("hello?");
    let agent = home.agent_with(&[], &["--", "sh", "-c", script]);
    home.until(|known| known.story().len() == 2).await;
    home.say("quickly");
    let told = [
        "hello command",
        "status: ready",
        "heard 2",
        "Assistant: Yes.",
        "done",
    ];
    assert_eq!(home.told().await, told);
    assert_eq!(agent.ended().await.0, Some(0));
}

/// A pipe in the file system, and everybody who holds its other end.
struct Held(tempfile::TempDir);

impl Held {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(folder.path().join("pipe"))
            .status();
        assert!(made.unwrap().success());
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.path().join("pipe").to_str().unwrap().to_owned()
    }

    /// Waits until nobody holds it any more.
    async fn free(self) {
        let path = self.path();
        let read = move || {
            std::fs::File::open(path)
                .unwrap()
                .read_to_end(&mut Vec::new())
        };
        tokio::task::spawn_blocking(read).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn stop_is_told_and_ends_all_that_it_started() {
    let held = Held::new();
    // Neither it nor its child listens to a polite word.
    let script = r#"
        trap '' TERM
        exec 3>"$HOME"
        tail -f /dev/null &
        read -r begin
        echo '{"type":"status","text":"ready"}'
        read -r stop
        echo "$stop" >&2
        wait"#;
    let home = Home::start().await;
    home.begin("hello?");
    let path = held.path();
    let agent = home.agent_with(&[("HOME", &path)], &["--", "sh", "-c", script]);
    let free = tokio::spawn(held.free());
    home.until(|known| known.story().len() == 2).await;
    home.say_stop();
    let (code, said) = agent.ended().await;
    assert_eq!(code, Some(0));
    assert!(
        said.contains(r#""type":"stop","reason":"a person said so""#),
        "{said}"
    );
    free.await.unwrap();
}

#[tokio::test]
async fn a_child_that_keeps_the_pipes_does_not_keep_the_run() {
    let held = Held::new();
    let home = Home::start().await;
    home.begin("hello?");
    let script = r#"exec 3>"$HOME"; tail -f /dev/null & echo Hello"#;
    let path = held.path();
    let agent = home.agent_with(&[("HOME", &path)], &["--", "sh", "-c", script]);
    let free = tokio::spawn(held.free());
    assert_eq!(
        home.told().await,
        ["hello command", "Assistant: Hello", "done"]
    );
    assert_eq!(agent.ended().await.0, Some(0));
    free.await.unwrap();
}

#[tokio::test]
async fn a_kill_of_the_agent_takes_the_program_with_it() {
    let held = Held::new();
    let home = Home::start().await;
    home.begin("hello?");
    let script =
        r#"exec 3>"$HOME"; tail -f /dev/null & echo '{"type":"status","text":"ready"}'; wait"#;
    let path = held.path();
    let agent = home.agent_with(&[("HOME", &path)], &["--", "sh", "-c", script]);
    let free = tokio::spawn(held.free());
    home.until(|known| known.story().len() == 2).await;
    let id = i32::try_from(agent.0.id().unwrap()).unwrap();
    let id = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(agent.ended().await.0, Some(143));
    free.await.unwrap();
    assert!(!home.story().iter().any(|line| line.contains(TOKEN)));
}

#[tokio::test]
async fn the_example_in_the_documentation_works() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agents.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("```python\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let home = Home::start().await;
    home.begin("hello?");
    let agent = home.agent_with(&[], &["--", "python3", "-c", example]);
    let told = [
        "hello command",
        "status: looking at 2 tools",
        "Assistant: You said: hello?\nI may call: t__echo, t__wait",
        "done",
    ];
    assert_eq!(home.told().await, told);
    assert_eq!(agent.ended().await.0, Some(0));
}

#[tokio::test]
async fn wrong_arguments_are_a_wrong_start() {
    let home = Home::start().await;
    for args in [&["--model"][..], &["--"], &["sh"]] {
        let (code, said) = home.agent_with(&[], args).ended().await;
        assert_eq!(code, Some(2), "{args:?}");
        assert!(said.contains("usage:"), "{said}");
    }
    for env in [
        ("PORTCULLIS_URL", "ftp://x"),
        ("PORTCULLIS_GONE_MS", "soon"),
        ("PORTCULLIS_RUN_TOKEN", ""),
    ] {
        let (code, said) = home.agent_with(&[env], &[]).ended().await;
        assert_eq!(code, Some(2), "{env:?}");
        assert!(said.contains(env.0), "{said}");
    }
}
