//! Notices that the configuration's file is another one, and takes it or refuses it.
//!
//! The file is looked at by its name, twice a second: an editor that puts a new file in its place, a
//! link that is turned to another directory and a file system that tells no changes are all noticed
//! alike. It is read when it has stood still for two looks, so nothing half written is taken; `SIGHUP`
//! reads it at once.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use policy::record::{About, Event};
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use super::{Live, Swap};
use crate::audit::{Audit, Write};
use crate::config::{Config, Problem, Problems};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What is checked of a configuration beyond its text, with what only the running gateway knows.
pub type Check = Box<dyn Fn(&Config) -> Vec<Problem> + Send + Sync>;

/// Who watches, and over what.
pub struct Watcher {
    /// The file.
    pub path: PathBuf,
    /// What is in force.
    pub live: Arc<Live>,
    /// Where changes and refusals are recorded.
    pub audit: Audit,
    /// What else must hold.
    pub check: Check,
    /// Told after each change that was taken.
    pub taken: Box<dyn Fn(&Swap) + Send + Sync>,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What a file is, as far as a look tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        let meta: Metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl Watcher {
    /// Watches until the gateway stops.
    pub async fn watch(self, mut hangup: Signal, stopping: CancellationToken) {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = Look::at(&self.path);
        let mut before = seen;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = every.tick() => {
                    let look = Look::at(&self.path);
                    let still = look == before;
                    before = look;
                    // A file that is not there says nothing: it is on its way, or what was stays.
                    if look == seen || !still || look.is_none() {
                        continue;
                    }
                    seen = look;
                }
                Some(()) = hangup.recv() => {
                    seen = Look::at(&self.path);
                    before = seen;
                }
            }
            self.reload().await;
        }
    }

    /// Reads the file, and takes it or refuses it; either is recorded.
    async fn reload(&self) {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || Config::load(&path)).await;
        let Ok(read) = read else {
            tracing::error!("the changed configuration could not be read");
            return;
        };
        let read = read.and_then(|config| {
            let problems = (self.check)(&config);
            if problems.is_empty() {
                Ok(config)
            } else {
                Err(Problems(problems))
            }
        });
        let what = match read {
            Ok(config) if self.is_in_force(&config) => return,
            Ok(config) => {
                let notes = config.notes.clone();
                let swap = self.live.take(config);
                for note in notes {
                    tracing::warn!("{note}");
                }
                let what = told(&swap);
                tracing::info!("{what}");
                (self.taken)(&swap);
                what
            }
            Err(problems) => {
                tracing::error!("the changed configuration is refused:\n{problems}");
                let stays = self.live.now().revision.clone();
                let refused = self.live.refuse(&problems);
                format!("the changed configuration is refused, {stays} stays in force: {refused}")
            }
        };
        let noted = Event::Noted {
            by: "portcullis".to_owned(),
            what,
            about: Some(About::Configuration),
        };
        let id = format!("note_{}", uuid::Uuid::now_v7().simple());
        if let Err(error) = self.audit.write(Write::new(id, noted)).await {
            tracing::error!("a change of the configuration is not in the log: {error}");
        }
    }

    /// Whether it says what is in force already; one that was refused before is good again then.
    fn is_in_force(&self, config: &Config) -> bool {
        let standing = self.live.standing();
        standing.refused.is_none()
            && standing.restart.is_empty()
            && self.live.file_revision() == config.revision
    }
}

fn told(swap: &Swap) -> String {
    let what = if swap.what.is_empty() {
        "nothing that takes effect now".to_owned()
    } else {
        swap.what.join(", ")
    };
    let restart = if swap.restart.is_empty() {
        String::new()
    } else {
        format!(
            "; takes effect at the next start: {}",
            swap.restart.join(", ")
        )
    };
    format!(
        "the configuration changed from {} to {}: {what}{restart}",
        swap.from, swap.to
    )
}
