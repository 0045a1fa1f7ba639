//! One configured server over time: started once for all who wait, kept while used, stopped when
//! idle, backed off from when it fails.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture, future::Shared as SharedFuture};
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Event, Greeting, Reply, Request, Shared, Spec, State, Status, Transport, UpstreamError,
    link::{Call, Link, StartError},
    lock,
};

/// The wait after the first failed start; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait after a failed start.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

type Starting = SharedFuture<BoxFuture<'static, Result<Arc<Link>, StartError>>>;

/// A configured server.
pub(super) struct Server {
    spec: Spec,
    shared: Arc<Shared>,
    inner: Mutex<Inner>,
    calls: AtomicU64,
    /// Rings when a call has finished, for whoever waits for idleness.
    finished: Notify,
}

struct Inner {
    phase: Phase,
    since: Timestamp,
    last_error: Option<String>,
    failures: u32,
    in_flight: usize,
    /// How many keep the connection for what they ask next.
    holds: usize,
    last_finished: Instant,
}

impl Inner {
    /// Whether this link is the one in use.
    fn runs(&self, link: &Arc<Link>) -> bool {
        matches!(&self.phase, Phase::Ready(current) if Arc::ptr_eq(current, link))
    }
}

enum Phase {
    Stopped,
    Starting {
        started: Starting,
        stop: CancellationToken,
    },
    Ready(Arc<Link>),
    Failed {
        until: Instant,
        agent: String,
    },
}

/// A call that uses a link, which keeps the server from being idle.
struct Lease {
    server: Arc<Server>,
    link: Arc<Link>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut inner = lock(&self.server.inner);
        inner.in_flight = inner.in_flight.saturating_sub(1);
        inner.last_finished = Instant::now();
        self.server.finished.notify_waiters();
    }
}

/// Keeps a server from being idle, so that what is asked next goes over the same connection.
#[derive(Debug)]
#[must_use = "the server may be stopped once this is gone"]
pub struct Hold {
    server: Arc<Server>,
    connection: u64,
}

impl Hold {
    /// The number of the connection: each start of the server has another.
    pub fn connection(&self) -> u64 {
        self.connection
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = lock(&self.server.inner);
        inner.holds = inner.holds.saturating_sub(1);
        inner.last_finished = Instant::now();
        self.server.finished.notify_waiters();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(spec: Spec, shared: Arc<Shared>) -> Arc<Self> {
        let inner = Inner {
            phase: Phase::Stopped,
            since: Timestamp::now(),
            last_error: None,
            failures: 0,
            in_flight: 0,
            holds: 0,
            last_finished: Instant::now(),
        };
        let (calls, finished) = (AtomicU64::new(0), Notify::new());
        Arc::new(Self {
            spec,
            shared,
            inner: Mutex::new(inner),
            calls,
            finished,
        })
    }

    pub(super) async fn request(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<Reply, UpstreamError> {
        let Request {
            method,
            params,
            deadline,
            cancel,
            progress,
            only,
        } = request;
        let sent = Arc::new(AtomicBool::new(false));
        self.calls.fetch_add(1, Ordering::Relaxed);
        let sending = async {
            let call = || Call {
                method: &method,
                params: params.clone(),
                progress: progress.clone(),
                sent: Arc::clone(&sent),
            };
            let lease = self.lease_of(only).await?;
            let reply = lease.link.exchange(call()).await;
            match reply {
                // The connection was lost before it took the request: once more over a new one.
                Err(error) if !error.sent() && lease.link.closed.is_cancelled() => {
                    drop(lease);
                    self.lease_of(only).await?.link.exchange(call()).await
                }
                reply => reply,
            }
        };
        // Dropping `sending` withdraws the request and tells the server, whatever the reason.
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(UpstreamError::Cancelled),
            reply = sending => reply,
            () = sleep(deadline) => Err(if sent.load(Ordering::Acquire) {
                UpstreamError::TimedOut(deadline)
            } else {
                UpstreamError::unsent("it did not take the request in time")
            }),
        }
    }

    pub(super) async fn greet(self: &Arc<Self>) -> Result<Arc<Greeting>, UpstreamError> {
        Ok(self.lease().await?.link.greeting())
    }

    /// Starts the server if it has to be, and keeps it.
    pub(super) async fn hold(self: &Arc<Self>) -> Result<Hold, UpstreamError> {
        let lease = self.lease().await?;
        lock(&self.inner).holds += 1;
        Ok(Hold {
            server: Arc::clone(self),
            connection: lease.link.number,
        })
    }

    pub(super) async fn notify(&self, method: &str, params: Value) {
        if let Some(link) = self.ready() {
            let closed = link.closed.clone();
            closed
                .run_until_cancelled(link.notify(method, params))
                .await;
        }
    }

    pub(super) fn status(&self) -> Status {
        let inner = lock(&self.inner);
        let (state, pid) = match &inner.phase {
            Phase::Stopped => (State::Stopped, None),
            Phase::Starting { .. } => (State::Starting, None),
            Phase::Ready(link) => (State::Ready, link.pid()),
            Phase::Failed { .. } => (State::Failed, None),
        };
        Status {
            name: self.spec.name.clone(),
            transport: match self.spec.transport {
                Transport::Stdio { .. } => "stdio",
                Transport::Http { .. } => "http",
            },
            state,
            last_error: inner.last_error.clone(),
            since: inner.since,
            pid,
            in_flight: inner.in_flight,
            calls: self.calls.load(Ordering::Relaxed),
        }
    }

    /// Stops what runs or starts, and waits for it.
    pub(super) async fn stop(&self) {
        let phase = {
            let mut inner = lock(&self.inner);
            // Cancelled under the lock, so that a start that just succeeded knows of it.
            if let Phase::Starting { stop, .. } = &inner.phase {
                stop.cancel();
            }
            self.enter(&mut inner, Phase::Stopped)
        };
        match phase {
            Phase::Starting { started, .. } => {
                if let Ok(link) = started.await {
                    link.end().await;
                }
            }
            Phase::Ready(link) => link.end().await,
            Phase::Stopped | Phase::Failed { .. } => {}
        }
    }

    fn ready(&self) -> Option<Arc<Link>> {
        match &lock(&self.inner).phase {
            Phase::Ready(link) => Some(Arc::clone(link)),
            Phase::Stopped | Phase::Starting { .. } | Phase::Failed { .. } => None,
        }
    }

    /// As [`lease`](Self::lease), where only one connection will do.
    async fn lease_of(self: &Arc<Self>, only: Option<u64>) -> Result<Lease, UpstreamError> {
        let lease = self.lease().await?;
        if only.is_some_and(|only| only != lease.link.number) {
            return Err(UpstreamError::Another);
        }
        Ok(lease)
    }

    /// The running server, started if it has to be; whoever asks meanwhile waits for one start.
    async fn lease(self: &Arc<Self>) -> Result<Lease, UpstreamError> {
        loop {
            let starting = {
                let mut inner = lock(&self.inner);
                if self.shared.closing.is_cancelled() {
                    return Err(UpstreamError::unsent("the gateway is being stopped"));
                }
                match &inner.phase {
                    Phase::Ready(link) if !link.closed.is_cancelled() => {
                        let link = Arc::clone(link);
                        inner.in_flight += 1;
                        return Ok(Lease {
                            server: Arc::clone(self),
                            link,
                        });
                    }
                    Phase::Failed { until, agent } if *until > Instant::now() => {
                        return Err(UpstreamError::unsent(agent));
                    }
                    Phase::Starting { started, .. } => started.clone(),
                    Phase::Ready(_) | Phase::Failed { .. } | Phase::Stopped => {
                        self.begin(&mut inner)
                    }
                }
            };
            starting
                .await
                .map_err(|error| UpstreamError::unsent(error.agent))?;
        }
    }

    /// Starts the server in a task of its own, so that no caller who leaves can disturb the others.
    fn begin(self: &Arc<Self>, inner: &mut Inner) -> Starting {
        let stop = self.shared.closing.child_token();
        let (server, token) = (Arc::clone(self), stop.clone());
        let task = self
            .shared
            .tasks
            .spawn(async move { server.start(token).await });
        let failed = |_| {
            Err(StartError::new(
                "it could not be started",
                "its start was aborted",
            ))
        };
        let started = task
            .map(move |result| result.unwrap_or_else(failed))
            .boxed()
            .shared();
        self.enter(
            inner,
            Phase::Starting {
                started: started.clone(),
                stop,
            },
        );
        started
    }

    async fn start(self: Arc<Self>, stop: CancellationToken) -> Result<Arc<Link>, StartError> {
        // `stop` closes the link, which ends the start and leaves nothing behind.
        let result = Link::start(&self.spec, &self.shared, &stop).await;
        let mut inner = lock(&self.inner);
        if stop.is_cancelled() {
            let stopped = || StartError::new("it was stopped", "it was stopped while it started");
            return match result {
                // Whoever stopped it waits for this link to end.
                Ok(link) => Ok(link),
                Err(_) => Err(stopped()),
            };
        }
        match &result {
            Ok(link) => {
                info!(server.name = %self.spec.name, "`{}` is ready", self.spec.name);
                inner.failures = 0;
                inner.last_error = None;
                inner.last_finished = Instant::now();
                self.enter(&mut inner, Phase::Ready(Arc::clone(link)));
                self.shared
                    .tasks
                    .spawn(Arc::clone(&self).live(Arc::clone(link)));
            }
            Err(error) => {
                warn!(server.name = %self.spec.name, "`{}` did not start", self.spec.name);
                inner.last_error = Some(error.operator.clone());
                let doublings = inner.failures.min(5);
                inner.failures += 1;
                let wait = (FIRST_BACKOFF * 2_u32.pow(doublings)).min(MAX_BACKOFF);
                let agent = format!("{}; it is tried again after {wait:?}", error.agent);
                self.enter(
                    &mut inner,
                    Phase::Failed {
                        until: Instant::now() + wait,
                        agent,
                    },
                );
            }
        }
        result
    }

    /// Follows a link to its end: ends it when it was idle, and notes when it ended by itself.
    async fn live(self: Arc<Self>, link: Arc<Link>) {
        tokio::select! {
            () = link.closed.cancelled() => {}
            () = self.idle(&link) => {}
        }
        link.end().await;
        let mut inner = lock(&self.inner);
        if inner.runs(&link) {
            let epitaph = link.epitaph();
            warn!(server.name = %self.spec.name, "`{}` ended by itself", self.spec.name);
            inner.last_error = Some(epitaph);
            let agent = "it has just ended".to_owned();
            self.enter(
                &mut inner,
                Phase::Failed {
                    until: Instant::now(),
                    agent,
                },
            );
        }
    }

    /// Returns when nobody used the link for long enough; nobody can use it from then on.
    async fn idle(&self, link: &Arc<Link>) {
        loop {
            let finished = self.finished.notified();
            let (in_use, last) = {
                let inner = lock(&self.inner);
                (inner.in_flight + inner.holds, inner.last_finished)
            };
            // Too far away to be a time is never.
            let until = last
                .checked_add(self.spec.idle_timeout)
                .filter(|_| in_use == 0);
            let Some(until) = until else {
                finished.await;
                continue;
            };
            sleep_until(until).await;
            let mut inner = lock(&self.inner);
            if inner.in_flight + inner.holds == 0 && inner.last_finished == last {
                if inner.runs(link) {
                    info!(server.name = %self.spec.name, "`{}` is idle", self.spec.name);
                    self.enter(&mut inner, Phase::Stopped);
                }
                return;
            }
        }
    }

    fn enter(&self, inner: &mut Inner, phase: Phase) -> Phase {
        inner.since = Timestamp::now();
        let before = std::mem::replace(&mut inner.phase, phase);
        _ = self.shared.events.send(Event::StateChanged {
            server: self.spec.name.clone(),
        });
        before
    }
}
