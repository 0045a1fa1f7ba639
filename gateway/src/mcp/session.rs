//! Sessions of the revisions before 2026-07-28. They carry no rights: the token does.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::stream::{Log, OWN};
use crate::identity::Principal;

/// A session without a request for this long, and without a stream, is forgotten: clients go away
/// without a word.
const IDLE: SignedDuration = SignedDuration::from_hours(2);
/// The most sessions of one token; past that, the one that was idle longest goes.
const PER_TOKEN: usize = 16;
/// The most answered requests of a session that can still be resumed.
const LOGS_KEPT: usize = 64;
/// The most bytes of these; the oldest go first.
const LOGS_BYTES: usize = 4 * 1024 * 1024;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub principal: Principal,
    /// The one server it was opened for, if it was.
    pub scope: Option<String>,
    /// The revision that was agreed on.
    pub version: &'static str,
    /// What comes without being asked for.
    pub own: Arc<Log>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    used: Timestamp,
    logs: VecDeque<(Value, Arc<Log>)>,
    subscribed: BTreeSet<(String, String)>,
}

impl Session {
    /// A new session.
    pub(super) fn new(
        principal: Principal,
        scope: Option<String>,
        version: &'static str,
    ) -> Arc<Self> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Arc::new(Self {
            own: Log::new(OWN.to_owned()),
            id,
            principal,
            scope,
            version,
            inner: Mutex::new(Inner {
                used: Timestamp::now(),
                logs: VecDeque::new(),
                subscribed: BTreeSet::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A log for a request.
    pub(super) fn open_log(&self, id: &Value) -> Arc<Log> {
        let log = Log::new(uuid::Uuid::new_v4().simple().to_string());
        let mut inner = self.lock();
        inner.used = Timestamp::now();
        let sizes = inner.logs.iter().filter_map(|(_, log)| log.ended_bytes());
        let mut bytes: usize = sizes.sum();
        while (inner.logs.len() >= LOGS_KEPT || bytes > LOGS_BYTES)
            && let Some(ended) = inner.logs.iter().position(|(_, log)| log.ended())
        {
            let oldest = inner.logs.remove(ended);
            bytes -= oldest
                .and_then(|(_, log)| log.ended_bytes())
                .unwrap_or_default();
        }
        inner.logs.push_back((id.clone(), log.clone()));
        log
    }

    /// The log and the event that a `Last-Event-ID` names.
    pub(super) fn resume(&self, event: &str) -> Option<(Arc<Log>, u64)> {
        let (log, number) = event.rsplit_once('.')?;
        let number = number.parse().ok()?;
        if log == OWN {
            return Some((self.own.clone(), number));
        }
        let inner = self.lock();
        inner
            .logs
            .iter()
            .find(|(_, one)| one.is(log))
            .map(|(_, one)| (one.clone(), number))
    }

    /// Cancels a request that is under way.
    pub(super) fn cancel(&self, id: &Value) {
        let inner = self.lock();
        if let Some((_, log)) = inner
            .logs
            .iter()
            .rev()
            .find(|(one, log)| one == id && !log.ended())
        {
            log.cancel.cancel();
        }
    }

    /// Subscribes to a resource of a server, by the server's own URI, or no longer.
    pub(super) fn subscribe(&self, server: &str, uri: &str, on: bool) {
        let key = (server.to_owned(), uri.to_owned());
        let mut inner = self.lock();
        if on {
            inner.subscribed.insert(key);
        } else {
            inner.subscribed.remove(&key);
        }
    }

    /// Whether it wants to know of changes to a resource.
    pub(super) fn subscribed(&self, server: &str, uri: &str) -> bool {
        self.lock()
            .subscribed
            .contains(&(server.to_owned(), uri.to_owned()))
    }

    fn busy(&self) -> bool {
        self.own.followed() || self.lock().logs.iter().any(|(_, log)| !log.ended())
    }

    fn used(&self) -> Timestamp {
        self.lock().used
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session; the longest idle one of the same token makes room.
    pub(super) fn add(&self, session: Arc<Session>) {
        let mut all = self.lock();
        let now = Timestamp::now();
        all.retain(|_, one| one.busy() || now.duration_since(one.used()) < IDLE);
        let mut mine: Vec<(Timestamp, String)> = all
            .values()
            .filter(|one| one.principal.key() == session.principal.key() && !one.busy())
            .map(|one| (one.used(), one.id.clone()))
            .collect();
        if mine.len() >= PER_TOKEN {
            mine.sort();
            if let Some(old) = mine.first().and_then(|(_, id)| all.remove(id)) {
                old.own.end(None, None);
            }
        }
        all.insert(session.id.clone(), session);
    }

    /// A session, for whom and for which endpoint it was opened.
    pub(super) fn get(
        &self,
        id: &str,
        principal: &Principal,
        scope: Option<&str>,
    ) -> Option<Arc<Session>> {
        let session = self.lock().get(id).cloned()?;
        (session.principal.key() == principal.key() && session.scope.as_deref() == scope)
            .then_some(session)
    }

    /// Forgets a session; what it asked for goes on.
    pub(super) fn remove(&self, id: &str) {
        if let Some(session) = self.lock().remove(id) {
            session.own.end(None, None);
        }
    }

    /// Every session.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.lock().values().cloned().collect()
    }
}
