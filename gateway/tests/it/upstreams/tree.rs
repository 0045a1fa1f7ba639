//! What a server may be and see, and that nothing of it survives the gateway.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use super::*;

const SERVER: &str = include_str!("server.py");

#[tokio::test]
async fn a_server_gets_an_environment_of_its_own() {
    let house = house(vec![python(&[("TOKEN", "t")])]);
    let env = house.call("env", json!({})).await.unwrap();
    let home = house.dir.path().join("homes/python");
    let mut names: Vec<_> = env
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    // Python sets LC_CTYPE itself where it needs to.
    names.retain(|name| *name != "LC_CTYPE");
    names.sort_unstable();
    assert_eq!(names, ["CWD", "HOME", "LANG", "PATH", "TMPDIR", "TOKEN"]);
    assert_eq!(env["HOME"], home.to_str().unwrap());
    assert_eq!(env["CWD"], home.to_str().unwrap());
    assert_eq!(env["TMPDIR"], home.join("tmp").to_str().unwrap());
    let mode = fs::metadata(&home).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_server_is_somebody_else_and_cannot_see_what_is_protected() {
    let house = house(vec![python(&[])]);
    let ids = house.call("ids", json!({})).await.unwrap();
    assert_eq!(ids["NoNewPrivs"], json!(["1"]));
    if is_root() {
        let uid: u32 = ids["Uid"][0].as_str().unwrap().parse().unwrap();
        assert!((1_900_000_000..1_901_000_000).contains(&uid));
        assert_eq!(ids["Gid"][0], ids["Uid"][0]);
        assert_eq!(ids["Groups"], json!([]));
    }
    let secret = house.dir.path().join("data/secret");
    let read = house.call("read", json!({ "path": secret })).await.unwrap();
    assert_eq!(read, "refused: Permission denied");
    let kill = house
        .call("kill", json!({ "pid": std::process::id() }))
        .await
        .unwrap();
    assert_eq!(kill, "refused: Operation not permitted");
    house.upstreams.shutdown().await;
}

/// Runs `supervise` without being root, as a gateway on a laptop does.
#[test]
fn without_root_landlock_hides_what_is_protected() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    // A copy that every user may run.
    let program = dir.path().join("portcullis");
    fs::copy(portcullis(), &program).unwrap();
    let (data, home) = (dir.path().join("data"), dir.path().join("home"));
    fs::create_dir(&data).unwrap();
    fs::create_dir(&home).unwrap();
    fs::write(data.join("secret"), "hush").unwrap();
    fs::write(home.join("mine"), "mine").unwrap();
    let script = "cat mine; cat ../data/secret; ls ../data; kill -0 $PPID; cat /proc/$PPID/environ";
    let mut command = Command::new(&program);
    if is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command
        .args(["supervise", "--protect"])
        .arg(&data)
        .arg("--home")
        .arg(&home)
        .arg("--cwd")
        .arg(&home)
        .args(["--", "/bin/sh", "-c", script])
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "mine");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said.lines().filter(|line| !line.is_empty()).count(),
        4,
        "each of the four was refused: {said}"
    );
}

#[tokio::test]
async fn a_stopped_server_takes_its_runaways_along() {
    let house = house(vec![python(&[])]);
    let escaped = house
        .call("escape", json!({}))
        .await
        .unwrap()
        .as_u64()
        .unwrap();
    assert!(is_alive(escaped));
    house.upstreams.stop("python").await;
    assert!(!is_alive(escaped));
    assert_eq!(house.status().state, State::Stopped);
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_server_that_dies_takes_its_runaways_along() {
    let house = house(vec![python(&[])]);
    let escaped = house
        .call("escape", json!({}))
        .await
        .unwrap()
        .as_u64()
        .unwrap();
    house.call("die", json!({})).await.unwrap_err();
    until("the runaway is gone", || !is_alive(escaped)).await;
    house.upstreams.shutdown().await;
}

/// A process that holds a supervisor's pipe as the gateway does, and is then killed.
struct StandIn {
    process: Child,
    supervisor: u64,
}

impl StandIn {
    fn start(dir: &Path, server: &str) -> Self {
        let code = "import subprocess,sys\n\
            p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)\n\
            print(p.pid, flush=True)\n\
            for line in sys.stdin: p.stdin.write(line.encode()); p.stdin.flush()\n";
        let mut process = Command::new("/usr/bin/python3")
            .args(["-c", code])
            .arg(portcullis())
            .args(["supervise", "--home"])
            .arg(dir)
            .arg("--cwd")
            .arg(dir)
            .args([
                "--protect",
                "/nonexistent",
                "--",
                "/usr/bin/python3",
                "-c",
                server,
            ])
            .env("HOME", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let supervisor = line.trim().parse().unwrap();
        // It escapes, reads no more, and then its pipe is filled until the supervisor is stuck.
        for tool in ["escape", "deaf"] {
            let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": { "name": tool } });
            writeln!(process.stdin.as_mut().unwrap(), "{call}").unwrap();
            line.clear();
            output.read_line(&mut line).unwrap();
        }
        let filler = "x".repeat(160 * 1024);
        writeln!(process.stdin.as_mut().unwrap(), "{filler}").unwrap();
        Self {
            process,
            supervisor,
        }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
async fn killing_the_gateway_leaves_nothing_within_five_seconds() {
    // The second ignores SIGTERM as well.
    let stubborn = SERVER.replace(
        "pings, pongs",
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\npings, pongs",
    );
    for server in [SERVER.to_owned(), stubborn] {
        let dir = tempfile::tempdir().unwrap();
        let stand_in = StandIn::start(dir.path(), &server);
        // The file is there before its text is.
        let mut escaped = 0;
        until("the one that escapes has said which it is", || {
            let text = fs::read_to_string(dir.path().join("escaped"));
            escaped = text.unwrap_or_default().parse().unwrap_or_default();
            escaped != 0
        })
        .await;
        let supervisor = stand_in.supervisor;
        assert!(is_alive(escaped) && is_alive(supervisor));
        let killed = Instant::now();
        stand_in.kill();
        until("all are gone", || {
            !is_alive(escaped) && !is_alive(supervisor)
        })
        .await;
        assert!(killed.elapsed() < Duration::from_secs(5));
    }
}
