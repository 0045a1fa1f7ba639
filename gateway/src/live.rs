//! The configuration that is in force: swapped whole, so that whoever takes it decides by one revision.
//!
//! What it says is what the file said when it was last read and could be taken. Some of a file takes
//! effect at the next start alone; that part stays as it was, and is told. The rules that people made
//! since are added to it where it is decided.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::config::{Config, Problems};

mod differ;
pub mod watch;

/// What is in force.
#[derive(Debug)]
pub struct Live {
    now: RwLock<Arc<Config>>,
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    /// As the file is read, with what takes a restart left as it was.
    file: Config,
    standing: Standing,
}

/// How the file stands to what is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What of it takes effect at the next start.
    pub restart: Vec<String>,
    /// Why the newest of it was refused.
    pub refused: Option<String>,
}

/// A configuration took the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The revision before.
    pub from: String,
    /// The revision now.
    pub to: String,
    /// What is different, in words.
    pub what: Vec<String>,
    /// What takes effect at the next start.
    pub restart: Vec<String>,
}

impl Live {
    /// Begins with a configuration that was read.
    pub fn new(file: Config) -> Arc<Self> {
        Arc::new(Self {
            now: RwLock::new(Arc::new(file.clone())),
            parts: Mutex::new(Parts {
                file,
                standing: Standing::default(),
            }),
        })
    }

    /// What is in force. To be taken once for a decision: the next one may be by another.
    pub fn now(&self) -> Arc<Config> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&now)
    }

    /// The revision of the file alone.
    fn file_revision(&self) -> String {
        self.parts().file.revision.clone()
    }

    /// How the file stands to it.
    pub fn standing(&self) -> Standing {
        self.parts().standing.clone()
    }

    /// Takes a configuration that was read anew.
    pub fn take(&self, read: Config) -> Swap {
        let mut parts = self.parts();
        let (file, what, restart) = differ::merge(&parts.file, read);
        parts.file = file;
        parts.standing = Standing {
            restart: restart.clone(),
            refused: None,
        };
        self.swap(&parts, what, restart)
    }

    /// A configuration could not be taken: what was stays in force.
    pub fn refuse(&self, problems: &Problems) -> String {
        let places: Vec<String> = problems
            .0
            .iter()
            .take(5)
            .map(|problem| {
                let file = problem.file.display();
                match (problem.line, problem.key.as_str()) {
                    (0, _) => format!("{file}: {}", problem.message),
                    (line, key) => format!("{file}:{line}: `{key}`"),
                }
            })
            .collect();
        let count = problems.0.len();
        let s = if count == 1 { "" } else { "s" };
        let more = if count > places.len() { ", …" } else { "" };
        let refused = format!("{count} problem{s}: {}{more}", places.join(", "));
        self.parts().standing.refused = Some(refused.clone());
        refused
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swap(&self, parts: &Parts, what: Vec<String>, restart: Vec<String>) -> Swap {
        let to = parts.file.revision.clone();
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let from = now.revision.clone();
        *now = Arc::new(parts.file.clone());
        Swap {
            from,
            to,
            what,
            restart,
        }
    }
}
