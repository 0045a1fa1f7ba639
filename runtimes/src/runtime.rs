//! The port: what starts an agent, and what is left to say of one that runs.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use futures::future::BoxFuture;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::tail::Tail;

/// Where agents run.
pub trait Runtime: fmt::Debug + Send + Sync {
    /// Starts an agent. It runs until it ends, is stopped, or [`Runtime::shutdown`] is called;
    /// dropping what this returns changes nothing about that.
    ///
    /// # Errors
    /// [`LaunchError`], and then nothing runs.
    fn launch(&self, launch: Launch) -> BoxFuture<'_, Result<Running, LaunchError>>;

    /// The names of the agents that run, sorted.
    fn list(&self) -> Vec<String>;

    /// Whether what it starts is held by more than a uid or Landlock: a person is told where not.
    fn is_sandbox(&self) -> bool;

    /// Starts nothing more, stops all agents and waits until nothing of them is left.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Names its home and, as root, its uid: `[a-z0-9-]{1,64}`. Who is launched under it again finds
    /// what was left there; two never run under it at once.
    pub name: String,
    /// A name to be looked up, or an absolute path.
    pub program: PathBuf,
    /// Its arguments, which anyone can read.
    pub args: Vec<String>,
    /// Its environment beyond `PATH`, `HOME`, `LANG` and `TMPDIR`.
    pub env: BTreeMap<String, SecretString>,
}

/// Why an agent does not run; for operators.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The name cannot be that of a home.
    #[error("`{0}` cannot be the name of an agent: accepted are 1 to 64 of `a-z`, `0-9` and `-`")]
    Name(String),
    /// One runs under this name.
    #[error("an agent named `{0}` runs already; stop it first")]
    Runs(String),
    /// The runtime was shut down.
    #[error("the gateway is being stopped")]
    Closing,
    /// It could not be started.
    #[error("the agent `{name}` cannot be started")]
    Start {
        /// Which.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// How an agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether it ended by itself and well.
    pub ok: bool,
    /// How, and its last lines: for operators, it may hold paths and anything the agent wrote.
    pub how: String,
}

/// An agent that was started.
#[derive(Clone, Debug)]
pub struct Running {
    pub(crate) name: String,
    pub(crate) pid: Option<u32>,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: watch::Receiver<Option<Ended>>,
    pub(crate) said: Tail,
}

impl Running {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process of its supervisor, where it has one.
    pub fn supervisor(&self) -> Option<u32> {
        self.pid
    }

    /// The last lines it wrote so far; like [`Ended::how`], for operators.
    pub fn said(&self) -> String {
        self.said.lines()
    }

    /// Waits until nothing of it is left.
    pub async fn wait(&self) -> Ended {
        let mut ended = self.ended.clone();
        // The sender is gone without a word only when the runtime's task was aborted.
        let told = match ended.wait_for(Option::is_some).await {
            Ok(told) => told.clone(),
            Err(_) => None,
        };
        told.unwrap_or_else(|| Ended {
            ok: false,
            how: "it was given up".to_owned(),
        })
    }

    /// Asks it to end, ends it where it does not, and waits until nothing of it is left.
    pub async fn stop(&self) -> Ended {
        self.stop.cancel();
        self.wait().await
    }
}
