//! Agents as child processes: launched, watched, stopped, and nothing of them left.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use runtimes::{
    child::ChildProcesses,
    house::{House, Plan},
    runtime::{Launch, LaunchError, Running, Runtime},
};
use tempfile::TempDir;
use tokio::time::{Instant, interval};

/// A runtime in a directory of its own.
struct Site {
    runtime: Arc<dyn Runtime>,
    house: Arc<House>,
    dir: TempDir,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    // Agents with a uid of their own must be able to pass.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let house = House::new(Plan {
        root: dir.path().join("homes"),
        protected: vec![],
        supervisor: PathBuf::from(env!("CARGO_BIN_EXE_portcullis")),
        path: None,
        bundled: Some(dir.path().join("private")),
    });
    Site {
        runtime: Arc::new(ChildProcesses::new(Arc::clone(&house))),
        house,
        dir,
    }
}

fn shell(name: &str, script: &str) -> Launch {
    Launch {
        name: name.to_owned(),
        program: PathBuf::from("/bin/sh"),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: BTreeMap::from([("TOKEN".to_owned(), "t".into())]),
    }
}

impl Site {
    /// What an agent said, after it ended well.
    async fn said(&self, launch: Launch) -> String {
        let running = self.runtime.launch(launch).await.unwrap();
        let ended = running.wait().await;
        assert!(ended.ok, "{ended:?}");
        running.said()
    }
}

/// Waits until an agent has said so much.
async fn says(running: &Running, text: &str) {
    let started = Instant::now();
    let mut tick = interval(Duration::from_millis(10));
    while !running.said().contains(text) {
        assert!(started.elapsed() < Duration::from_secs(20), "never said it");
        tick.tick().await;
    }
}

fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn an_agent_has_a_home_and_an_environment_of_its_own_and_finds_them_again() {
    let site = site();
    let home = site.dir.path().join("homes/agent.work");
    let said = site
        .said(shell(
            "work",
            "pwd; echo $TOKEN; id -u; umask; env | cut -d= -f1 | sort | tr '\\n' ' '; touch mine",
        ))
        .await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], [home.to_str().unwrap(), "t"], "{said}");
    assert_eq!(lines[4].trim(), "HOME LANG PATH PWD TMPDIR TOKEN");
    if rustix::process::geteuid().is_root() {
        let uid: u32 = lines[2].parse().unwrap();
        assert!((1_900_000_000..1_901_000_000).contains(&uid));
        let other = site
            .said(shell("other", "id -u; cat ../agent.work/mine 2>&1 || true"))
            .await;
        assert!(
            !other.starts_with(lines[2]) && other.contains("denied"),
            "{other}"
        );
    }
    let again = site.said(shell("work", "id -u; ls")).await;
    assert_eq!(again, format!("{}\nmine\ntmp", lines[2]));
    assert!(!site.runtime.is_sandbox());
}

#[tokio::test]
async fn an_agent_that_fails_is_told_with_its_last_words() {
    let site = site();
    let running = site
        .runtime
        .launch(shell("work", "echo out; echo broken >&2; exit 3"))
        .await
        .unwrap();
    let ended = running.wait().await;
    assert!(!ended.ok);
    assert!(
        ended.how.starts_with("it ended with exit status: 3: "),
        "{ended:?}"
    );
    assert!(
        ended.how.contains("broken") && ended.how.contains("out"),
        "{ended:?}"
    );
    assert_eq!(running.wait().await, ended, "asked again");
    assert!(site.house.supervisors().is_empty() && site.runtime.list().is_empty());
}

#[tokio::test]
async fn a_name_is_used_once_at_a_time_and_stopping_takes_all_along() {
    let site = site();
    let script = "setsid sleep 1000 & echo $!; echo begun; wait";
    let running = site.runtime.launch(shell("work", script)).await.unwrap();
    says(&running, "begun").await;
    assert_eq!(site.house.supervisors(), [running.supervisor().unwrap()]);
    assert_eq!(site.runtime.list(), ["work"]);
    let second = site
        .runtime
        .launch(shell("work", "true"))
        .await
        .unwrap_err();
    assert!(matches!(second, LaunchError::Runs(_)), "{second}");
    let said = running.said();
    let runaway = said.lines().next().unwrap();
    assert!(lives(runaway));
    running.stop().await;
    assert!(!lives(runaway));
    assert!(site.house.supervisors().is_empty());
    site.said(shell("work", "true")).await;
}

#[tokio::test]
async fn a_name_that_is_none_makes_no_home() {
    let site = site();
    for name in ["", "..", "a/b", "A", &"x".repeat(65)] {
        let refused = site.runtime.launch(shell(name, "true")).await.unwrap_err();
        assert!(matches!(refused, LaunchError::Name(_)), "{refused}");
    }
    assert!(!site.dir.path().join("homes").exists());
}

#[tokio::test]
async fn after_shutdown_nothing_is_left_and_nothing_starts() {
    let site = site();
    let running = site
        .runtime
        .launch(shell(
            "work",
            "trap '' TERM; echo begun; sleep 1000; sleep 1000",
        ))
        .await
        .unwrap();
    says(&running, "begun").await;
    let supervisor = running.supervisor().unwrap().to_string();
    site.runtime.shutdown().await;
    assert!(!lives(&supervisor) && site.runtime.list().is_empty());
    let late = site
        .runtime
        .launch(shell("work", "true"))
        .await
        .unwrap_err();
    assert!(matches!(late, LaunchError::Closing), "{late}");
}

#[tokio::test]
async fn what_comes_with_the_gateway_runs_from_where_only_its_owner_can_reach_it() {
    let site = site();
    let probe = Launch {
        program: PathBuf::from("portcullis-probe"),
        ..shell(
            "work",
            "id -u; ls -l /proc/self/fd | grep -c probe; ls ../../private",
        )
    };
    let missing = site.runtime.launch(probe.clone()).await.unwrap_err();
    let LaunchError::Start { source, .. } = missing else {
        panic!("{missing}")
    };
    let told = source.to_string();
    assert!(
        told.contains("`cargo build --bin portcullis-probe`"),
        "{told}"
    );

    let private = site.dir.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::copy("/bin/sh", private.join("portcullis-probe")).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let running = site.runtime.launch(probe.clone()).await.unwrap();
    let how = running.wait().await.how;
    let said = running.said();
    let lines: Vec<&str> = said.lines().collect();
    if rustix::process::geteuid().is_root() {
        assert!(lines[0].starts_with("19"), "{how}");
        assert!(lines[2].contains("denied"), "{how}");
    }
    assert_eq!(lines[1], "0", "it holds its own file open: {how}");

    let file = private.join("portcullis-probe");
    fs::set_permissions(file, fs::Permissions::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        let running = site.runtime.launch(probe).await.unwrap();
        let how = running.wait().await.how;
        assert!(how.contains("let every user execute it"), "{how}");
    }
}
