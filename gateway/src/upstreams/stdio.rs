//! A server that speaks newline-delimited JSON over its standard input and output.
//!
//! Four tasks per server: one writes, one reads, one keeps the end of what it says on stderr, one
//! waits for its supervisor. A server that does not read can fill the queue but block nobody beyond
//! the caller's own deadline; what was still queued when its caller left is never written.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::Duration,
};

use runtimes::{
    house::{Lodger, Tenant},
    tail::Tail,
};
use secrecy::SecretString;
use serde_json::Value;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::ChildStdin,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Reply, Shared, UpstreamError,
    inbox::{Inbox, Ticket},
    link::Call,
    lock,
    message::{self, Era},
};
use crate::fault;

/// Requests that wait for the writer.
const QUEUE: usize = 32;
/// Small messages of our own (cancellations, answers to pings) that wait for the writer.
const CONTROL_QUEUE: usize = 256;
/// How long the rest of the output may take after the process ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection to a stdio server.
#[derive(Debug)]
pub(super) struct Pipes {
    inbox: Arc<Inbox>,
    requests: mpsc::Sender<Line>,
    control: mpsc::Sender<Vec<u8>>,
    pub(super) pid: u32,
    stderr: Tail,
    status: Arc<Mutex<Option<ExitStatus>>>,
}

#[derive(Debug)]
struct Line {
    id: Option<u64>,
    text: Vec<u8>,
}

/// What to start.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) server: &'a str,
    pub(super) command: &'a str,
    pub(super) args: &'a [String],
    pub(super) env: BTreeMap<String, SecretString>,
    pub(super) cwd: Option<&'a Path>,
    pub(super) max_message: usize,
}

impl Pipes {
    /// Starts the supervisor with the server under it.
    pub(super) fn start(
        program: Program<'_>,
        shared: &Arc<Shared>,
        inbox: Arc<Inbox>,
        closed: &CancellationToken,
        tasks: &TaskTracker,
    ) -> io::Result<Self> {
        let Program {
            server,
            command,
            args,
            env,
            cwd,
            max_message,
        } = program;
        let mut tenant = shared.house.take_in(&Lodger {
            home: server,
            program: command.as_ref(),
            args,
            env: &env,
            cwd,
        })?;
        let no_pipe = || io::Error::other("a pipe is missing");
        let stdin = tenant.stdin.take().ok_or_else(no_pipe)?;
        let stdout = tenant.stdout.take().ok_or_else(no_pipe)?;
        let stderr = tenant.stderr.take().ok_or_else(no_pipe)?;
        let pid = tenant.pid;

        let (requests, queued) = mpsc::channel(QUEUE);
        let (control, controls) = mpsc::channel(CONTROL_QUEUE);
        let tail = Tail::default();
        let status = Arc::new(Mutex::new(None));
        tasks.spawn(write(
            stdin,
            queued,
            controls,
            Arc::clone(&inbox),
            closed.clone(),
        ));
        let reading = Reading {
            inbox: Arc::clone(&inbox),
            control: control.clone(),
            max_message,
            closed: closed.clone(),
        };
        tasks.spawn(reading.run(stdout));
        tasks.spawn(tail.clone().follow(stderr));
        tasks.spawn(see_out(tenant, Arc::clone(&status), closed.clone()));
        Ok(Self {
            inbox,
            requests,
            control,
            pid,
            stderr: tail,
            status,
        })
    }

    pub(super) async fn exchange(&self, call: Call<'_>, era: &Era) -> Result<Reply, UpstreamError> {
        let wants_progress = call.progress.is_some();
        let Ticket { id, reply } = self.inbox.open(call.progress, call.sent)?;
        let cancels = !matches!(era, Era::Opening);
        let _withdrawn = Withdrawn {
            stdio: self,
            id,
            era,
            cancels,
        };
        let params = message::stamp(call.params, era, wants_progress.then_some(id));
        let text = message::encode(Some(id), call.method, &params);
        let ended = || UpstreamError::unsent("its connection has just ended");
        self.requests
            .send(Line { id: Some(id), text })
            .await
            .map_err(|_| ended())?;
        settled(reply).await
    }

    pub(super) async fn notify(&self, method: &str, params: Value, era: &Era) {
        let text = message::encode(None, method, &message::stamp(params, era, None));
        _ = self.requests.send(Line { id: None, text }).await;
    }

    /// How it ended and what it last said, for operators.
    pub(super) fn epitaph(&self) -> String {
        let status = lock(&self.status).map_or_else(
            || "it closed its output".to_owned(),
            |s| format!("it ended with {s}"),
        );
        let lines = self.stderr.lines();
        if lines.is_empty() {
            status
        } else {
            format!("{status}: {lines}")
        }
    }
}

/// Waits for the reply; a connection that is gone without a word has died.
pub(super) async fn settled(
    reply: oneshot::Receiver<Result<Reply, UpstreamError>>,
) -> Result<Reply, UpstreamError> {
    reply.await.unwrap_or(Err(UpstreamError::Died))
}

/// Tells the server, when dropped, that a request it has is no longer wanted.
struct Withdrawn<'a> {
    stdio: &'a Pipes,
    id: u64,
    era: &'a Era,
    cancels: bool,
}

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        if self.stdio.inbox.withdraw(self.id) && self.cancels {
            // A full queue means a server that does not read, so it would not read this either.
            _ = self
                .stdio
                .control
                .try_send(message::cancelled(self.id, self.era));
        }
    }
}

/// Writes until the connection is closed; dropping `stdin` is what ends the server.
async fn write(
    mut stdin: ChildStdin,
    mut requests: mpsc::Receiver<Line>,
    mut control: mpsc::Receiver<Vec<u8>>,
    inbox: Arc<Inbox>,
    closed: CancellationToken,
) {
    let writing = async {
        loop {
            let mut text = tokio::select! {
                biased;
                Some(text) = control.recv() => text,
                Some(line) = requests.recv() => {
                    if line.id.is_some_and(|id| !inbox.mark_sent(id)) {
                        continue;
                    }
                    line.text
                }
                else => return,
            };
            text.push(b'\n');
            if stdin.write_all(&text).await.is_err() {
                return;
            }
            fault::point("stdio.written").await;
        }
    };
    closed.run_until_cancelled(writing).await;
}

struct Reading {
    inbox: Arc<Inbox>,
    control: mpsc::Sender<Vec<u8>>,
    max_message: usize,
    closed: CancellationToken,
}

impl Reading {
    /// Reads until the output ends, holds too long a line, or the connection is closed.
    async fn run(self, stdout: impl AsyncRead + Unpin) {
        let mut stdout = BufReader::with_capacity(64 * 1024, stdout);
        let mut line = Vec::new();
        let reading = async {
            loop {
                line.clear();
                match read_line(&mut stdout, &mut line, self.max_message).await {
                    Ok(true) => {
                        fault::point("stdio.heard").await;
                        for answer in self.inbox.receive(&line) {
                            _ = self.control.try_send(answer);
                        }
                        // One line more than another must not keep a buffer of megabytes.
                        line.shrink_to(1024 * 1024);
                        // A flood must not keep this worker from other servers.
                        tokio::task::consume_budget().await;
                    }
                    Ok(false) => return UpstreamError::TooLarge,
                    Err(_) => return UpstreamError::Died,
                }
            }
        };
        let end = self.closed.run_until_cancelled(reading).await;
        // Closed first: whoever hears of the death must not find this connection open again.
        self.closed.cancel();
        self.inbox.close(&end.unwrap_or(UpstreamError::Died));
    }
}

/// Reads one line without its end; false if it is longer than `max`, an error at the end.
async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    max: usize,
) -> io::Result<bool> {
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let (part, used) = match end {
            Some(end) => (chunk.split_at(end).0, end + 1),
            None => (chunk, chunk.len()),
        };
        if line.len() + part.len() > max {
            return Ok(false);
        }
        line.extend_from_slice(part);
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Waits for the supervisor, which ends when its tree is gone.
async fn see_out(
    tenant: Tenant,
    status: Arc<Mutex<Option<ExitStatus>>>,
    closed: CancellationToken,
) {
    let ended = tenant.see_out(&closed).await;
    *lock(&status) = ended;
    // The reader closes the connection when it has read what is left; this is for a pipe that
    // somebody outside the tree holds open.
    _ = timeout(DRAIN_TIMEOUT, closed.cancelled()).await;
    closed.cancel();
}
