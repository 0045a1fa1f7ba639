//! Agents as child processes, each under a supervisor: no sandbox, and never called one.
//!
//! As root each agent has a uid of its own, else Landlock keeps it from the gateway's files. Its
//! network and whatever else a user of this machine may do are its own.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::house::{House, Lodger, Tenant};
use crate::lock;
use crate::runtime::{Ended, Launch, LaunchError, Running, Runtime};
use crate::tail::Tail;

/// The runtime of agents without containers.
#[derive(Clone, Debug)]
pub struct ChildProcesses {
    house: Arc<House>,
    names: Arc<Mutex<BTreeSet<String>>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// A name in use; free again when dropped.
#[derive(Debug)]
struct Taken {
    name: String,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        lock(&self.names).remove(&self.name);
    }
}

impl ChildProcesses {
    /// Agents that live in a house; nothing is started yet.
    pub fn new(house: Arc<House>) -> Self {
        Self {
            house,
            names: Arc::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    fn take(&self, name: &str) -> Result<Taken, LaunchError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(LaunchError::Name(name.to_owned()));
        }
        let mut names = lock(&self.names);
        // Asked under the lock that `shutdown` takes, so that nothing starts behind its back.
        if self.closing.is_cancelled() {
            return Err(LaunchError::Closing);
        }
        if !names.insert(name.to_owned()) {
            return Err(LaunchError::Runs(name.to_owned()));
        }
        Ok(Taken {
            name: name.to_owned(),
            names: Arc::clone(&self.names),
        })
    }

    fn start(&self, launch: Launch) -> Result<Running, LaunchError> {
        let taken = self.take(&launch.name)?;
        let Launch {
            name,
            program,
            args,
            env,
        } = launch;
        // No server has a dot in its name.
        let home = format!("agent.{name}");
        let lodger = Lodger {
            home: &home,
            program: program.as_os_str(),
            args: &args,
            env: &env,
            cwd: None,
        };
        let failed = |source| LaunchError::Start {
            name: name.clone(),
            source,
        };
        let mut tenant = self.house.take_in(&lodger).map_err(failed)?;
        let said = Tail::default();
        let no_pipe = || failed(io::Error::other("a pipe is missing"));
        let stdout = tenant.stdout.take().ok_or_else(no_pipe)?;
        let stderr = tenant.stderr.take().ok_or_else(no_pipe)?;
        let following = [
            self.tasks.spawn(said.clone().follow(stdout)),
            self.tasks.spawn(said.clone().follow(stderr)),
        ];
        let (tell, ended) = watch::channel(None);
        let running = Running {
            name: name.clone(),
            pid: Some(tenant.pid),
            stop: self.closing.child_token(),
            ended,
            said: said.clone(),
        };
        let stop = running.stop.clone();
        self.tasks.spawn(async move {
            let end = see_out(tenant, &stop, &said, following).await;
            drop(taken);
            tell.send_replace(Some(end));
        });
        Ok(running)
    }
}

async fn see_out(
    tenant: Tenant,
    stop: &CancellationToken,
    said: &Tail,
    following: [tokio::task::JoinHandle<()>; 2],
) -> Ended {
    /// How long the rest of the output may take after the process ended.
    const DRAIN: std::time::Duration = std::time::Duration::from_secs(1);
    let status = tenant.see_out(stop).await;
    for mut one in following {
        if tokio::time::timeout(DRAIN, &mut one).await.is_err() {
            // Somebody outside the tree holds the pipe open.
            one.abort();
        }
    }
    let how = status.map_or_else(
        || "its supervisor had to be killed".to_owned(),
        |status| format!("it ended with {status}"),
    );
    let lines = said.lines();
    Ended {
        ok: status.is_some_and(|status| status.success()),
        how: if lines.is_empty() {
            how
        } else {
            format!("{how}: {lines}")
        },
    }
}

impl Runtime for ChildProcesses {
    fn launch(&self, launch: Launch) -> BoxFuture<'_, Result<Running, LaunchError>> {
        Box::pin(async move { self.start(launch) })
    }

    fn list(&self) -> Vec<String> {
        lock(&self.names).iter().cloned().collect()
    }

    fn is_sandbox(&self) -> bool {
        false
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            {
                let _nobody_takes_a_name = lock(&self.names);
                self.closing.cancel();
            }
            self.tasks.close();
            self.tasks.wait().await;
        })
    }
}
