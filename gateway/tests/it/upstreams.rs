//! Servers of other people: started, called, disturbed and stopped as real processes and sockets.

mod http;
mod stdio;
mod tree;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gateway::{
    secrets::Secret,
    upstreams::{
        Event, MAX_MESSAGE, Reply, Request, Spec, State, Status, Transport, UpstreamError,
        Upstreams,
    },
};
use runtimes::house::Plan;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// Servers in a directory of their own, and what they tell.
struct House {
    upstreams: Arc<Upstreams>,
    events: UnboundedReceiver<Event>,
    dir: TempDir,
}

fn spec(name: &str, transport: Transport) -> Spec {
    Spec {
        name: name.to_owned(),
        transport,
        idle_timeout: Duration::from_mins(10),
        start_timeout: PATIENCE,
        max_message: MAX_MESSAGE,
    }
}

fn python(env: &[(&str, &str)]) -> Spec {
    let env: BTreeMap<_, _> = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), Secret::Plain((*v).to_owned())))
        .collect();
    let args = vec![
        "-c".to_owned(),
        include_str!("upstreams/server.py").to_owned(),
    ];
    let command = "/usr/bin/python3".to_owned();
    spec(
        "python",
        Transport::Stdio {
            command,
            args,
            env,
            cwd: None,
        },
    )
}

fn house(specs: Vec<Spec>) -> House {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    house_in(dir, specs)
}

fn house_in(dir: TempDir, specs: Vec<Spec>) -> House {
    let protected = dir.path().join("data");
    fs::create_dir_all(&protected).unwrap();
    fs::set_permissions(&protected, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(protected.join("secret"), "hush").unwrap();
    let (tx, events) = mpsc::unbounded_channel();
    let plan = Plan {
        root: dir.path().join("homes"),
        protected: vec![protected],
        supervisor: portcullis(),
        path: None,
        bundled: None,
    };
    let upstreams = Upstreams::new(
        specs,
        BTreeMap::new(),
        runtimes::house::House::new(plan),
        std::sync::Arc::default(),
        tx,
    );
    House {
        upstreams,
        events,
        dir,
    }
}

fn portcullis() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_portcullis"))
}

/// Servers with a uid of their own must be able to pass.
fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

fn request(tool: &str, arguments: Value) -> Request {
    Request {
        method: "tools/call".to_owned(),
        params: json!({ "name": tool, "arguments": arguments }),
        deadline: PATIENCE,
        cancel: CancellationToken::new(),
        progress: None,
        only: None,
    }
}

impl House {
    async fn send(&self, request: Request) -> Result<Reply, UpstreamError> {
        self.upstreams.request(&self.status().name, request).await
    }

    async fn call(&self, tool: &str, arguments: Value) -> Result<Value, UpstreamError> {
        self.send(request(tool, arguments)).await.map(told)
    }

    fn status(&self) -> Status {
        self.upstreams.status().remove(0)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Status) -> bool) {
        until(what, || holds(&self.status())).await;
    }
}

/// The JSON in the text of a tool's result.
fn told(reply: Reply) -> Value {
    match reply {
        Reply::Result(raw) => {
            let result: Value = serde_json::from_str(raw.get()).unwrap();
            serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap()
        }
        Reply::Error(error) => panic!("an error: {error}"),
    }
}

/// Waits until the condition holds, and fails with its name when it does not come to hold.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    let mut tick = interval(Duration::from_millis(10));
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        tick.tick().await;
    }
}

fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
