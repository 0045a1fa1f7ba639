//! A core of one's own: any program, spoken to in lines of JSON.
//!
//! It reads the gateway's turns on its standard input and writes events on its standard output. The
//! program is whoever wrote it: what it says is checked and bounded, its environment is emptied,
//! and all that it started ends with it.

mod group;

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use agent::{Ask, Event, Failure, Message, Role, Turn};
use serde_json::Value;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::gateway::{Gateway, one_line};
use crate::outbox::Outbox;
use crate::start::Program;
use crate::{log, mcp, model};
use group::Group;

/// The longest line, the most bytes that a program may say, and the most text that becomes a message.
const MAX_LINE: usize = 4 * 1024 * 1024;
const MAX_SAID: usize = 64 * 1024 * 1024;
const MAX_TEXT: usize = 1024 * 1024;
/// The most of what it complains of that goes into the agent's own log.
const MAX_LOG: usize = 1024 * 1024;
/// How long it has to end after it was told to stop.
const GRACE: Duration = Duration::from_secs(2);
/// As a process leaves behind that ended with status 1.
const NOT_KNOWN: i32 = 1 << 8;
const LAST_LINE: Duration = Duration::from_millis(100);

/// Runs the program; how the run ended, unless it was stopped.
pub(crate) async fn run(
    gateway: &Gateway,
    program: &Program,
    begin: Turn,
    asks: mpsc::Receiver<Turn>,
    outbox: &Outbox,
) -> Option<Event> {
    let mut command = Command::new(&program.name);
    command
        .args(&program.args)
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .env("PORTCULLIS_MCP_URL", gateway.url(mcp::PATH))
        .env("PORTCULLIS_LLM_URL", gateway.url(model::BASE))
        .env("PORTCULLIS_TOKEN", gateway.token())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            log(&format!(
                "portcullis-agent: the program does not start: {error}"
            ));
            return Some(failed("the agent's program does not start"));
        }
    };
    let group = Group::of(&child);
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Some(failed("the agent's program cannot be spoken to"));
    };
    let mut heard = Heard::default();
    let stopped = {
        let talk = talk(gateway, &mut child, stdout, stderr, outbox, &mut heard);
        let mut talk = std::pin::pin!(talk);
        let stopped = tokio::select! {
            biased;
            () = tell(stdin, &begin, asks) => true,
            () = &mut talk => false,
        };
        if stopped {
            group.ask_to_end();
            _ = tokio::time::timeout(GRACE, talk).await;
        }
        stopped
    };
    drop(group);
    if stopped {
        return None;
    }
    Some(heard.end(outbox).await)
}

/// Hands on what the gateway wants; returns when that is to stop.
async fn tell(mut stdin: ChildStdin, begin: &Turn, mut asks: mpsc::Receiver<Turn>) {
    let (hand, mut lines) = mpsc::channel::<Vec<u8>>(64);
    let line = |turn: &Turn| {
        let mut line = serde_json::to_vec(turn).unwrap_or_default();
        line.push(b'\n');
        line
    };
    let first = line(begin);
    let mut writing = std::pin::pin!(async move {
        // A program may close its input and read nothing.
        let mut open = stdin.write_all(&first).await.is_ok();
        while let Some(line) = lines.recv().await {
            open = open && stdin.write_all(&line).await.is_ok();
        }
    });
    // One that does not read must not keep a stop from itself.
    let hearing = async move {
        while let Some(turn) = asks.recv().await {
            match &turn.ask {
                Ask::Begin(_) => {}
                Ask::Say { .. } => _ = hand.try_send(line(&turn)),
                Ask::Stop { .. } => {
                    _ = hand.try_send(line(&turn));
                    return;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = hearing => {
            _ = tokio::time::timeout(LAST_LINE, writing).await;
        }
        () = &mut writing => {}
    }
}

/// Listens until the program has ended and its pipes are empty. Once it has ended or said its last,
/// the rest gets a short time: whoever kept its pipes does not count.
async fn talk(
    gateway: &Gateway,
    child: &mut Child,
    stdout: ChildStdout,
    stderr: ChildStderr,
    outbox: &Outbox,
    heard: &mut Heard,
) {
    let Heard {
        said,
        spoken,
        complaint,
        status,
    } = heard;
    let mut listening = std::pin::pin!(listen(gateway, BufReader::new(stdout), outbox, said));
    let mut complaining = std::pin::pin!(complain(gateway, BufReader::new(stderr), complaint));
    let mut quiet = false;
    let mut grace = std::pin::pin!(tokio::time::sleep(GRACE));
    while !(quiet && spoken.is_some() && status.is_some()) {
        tokio::select! {
            biased;
            done = &mut listening, if spoken.is_none() => {
                *spoken = Some(done);
                grace.as_mut().reset(Instant::now() + GRACE);
            }
            () = &mut complaining, if !quiet => quiet = true,
            ended = child.wait(), if status.is_none() => {
                *status = Some(ended.unwrap_or(ExitStatus::from_raw(NOT_KNOWN)));
                grace.as_mut().reset(Instant::now() + GRACE);
            }
            () = &mut grace, if spoken.is_some() || status.is_some() => return,
        }
    }
}

/// What was heard of a program.
#[derive(Debug, Default)]
struct Heard {
    said: Said,
    /// How its output ended.
    spoken: Option<Result<(), String>>,
    /// The last that it complained of.
    complaint: String,
    /// How it ended.
    status: Option<ExitStatus>,
}

impl Heard {
    /// How the run ended.
    async fn end(self, outbox: &Outbox) -> Event {
        if let Some(Err(why)) = self.spoken {
            return failed(&why);
        }
        if let Some(end) = self.said.end {
            return end;
        }
        let Some(status) = self.status else {
            return failed("the agent's program closed its output and went on");
        };
        if !status.success() {
            let how = status.code().map_or_else(
                || "was ended by a signal".to_owned(),
                |code| format!("ended with status {code}"),
            );
            let colon = if self.complaint.is_empty() { "" } else { ": " };
            let complaint = self.complaint;
            return failed(&format!("the agent's program {how}{colon}{complaint}"));
        }
        let text = self.said.text.trim();
        if !text.is_empty() {
            let message = Message::text(Role::Assistant, text);
            outbox.event(Event::Message { message }).await;
        }
        Event::Done
    }
}

/// What a program said.
#[derive(Debug, Default)]
struct Said {
    /// Lines that were no events.
    text: String,
    /// Its own word that the run is over.
    end: Option<Event>,
}

/// Reports the program's events until its output ends, or until it says that the run is over.
async fn listen(
    gateway: &Gateway,
    mut stdout: impl AsyncBufRead + Unpin,
    outbox: &Outbox,
    said: &mut Said,
) -> Result<(), String> {
    let mut bytes = 0;
    while let Some(line) = line(&mut stdout).await? {
        bytes += line.len();
        if bytes > MAX_SAID {
            return Err(format!(
                "the agent's program wrote more than {MAX_SAID} bytes"
            ));
        }
        let line = gateway.masked(&String::from_utf8_lossy(&line));
        let Ok(Value::Object(object)) = serde_json::from_str(&line) else {
            if said.text.len() + line.len() > MAX_TEXT {
                return Err(format!(
                    "the agent's program wrote more than {MAX_TEXT} bytes of text"
                ));
            }
            said.text.push_str(&line);
            outbox.delta(&line);
            continue;
        };
        match serde_json::from_value(Value::Object(object)) {
            // The agent itself has said so already.
            Ok(Event::Hello { .. }) => {}
            Ok(Event::Delta { text }) => outbox.delta(&text),
            Ok(end @ (Event::Done | Event::Failed { .. })) => {
                said.end = Some(end);
                return Ok(());
            }
            Ok(
                event @ (Event::Message { .. }
                | Event::Heard { .. }
                | Event::Result { .. }
                | Event::Status { .. }),
            ) => outbox.event(event).await,
            Err(_) => {
                let line = one_line(&line, 100);
                return Err(format!(
                    "the agent's program wrote what is no event: {line}"
                ));
            }
        }
    }
    Ok(())
}

/// Hands on what the program complains of, and keeps the last of it.
async fn complain(gateway: &Gateway, mut stderr: impl AsyncBufRead + Unpin, last: &mut String) {
    let mut bytes = 0;
    while let Ok(Some(line)) = line(&mut stderr).await {
        let line = gateway.masked(&String::from_utf8_lossy(&line));
        bytes += line.len();
        if bytes <= MAX_LOG {
            log(line.trim_end());
        }
        if !line.trim().is_empty() {
            *last = one_line(&line, 300);
        }
    }
}

/// The next line with its end, if there is one.
async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    let read = from.take(most).read_until(b'\n', &mut line).await;
    match read {
        Ok(0) | Err(_) => Ok(None),
        Ok(_) if line.len() >= MAX_LINE => Err(format!(
            "the agent's program wrote a line of more than {MAX_LINE} bytes"
        )),
        Ok(_) => Ok(Some(line)),
    }
}

fn failed(text: &str) -> Event {
    Event::Failed {
        failure: Failure::Agent,
        text: text.to_owned(),
    }
}
