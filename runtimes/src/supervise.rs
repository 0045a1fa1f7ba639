//! The supervisor: one process between the gateway and everything a program of it starts.
//!
//! `portcullis supervise … -- COMMAND ARGS` runs the command so that it cannot outlive or overreach
//! the gateway. It is the child subreaper of the whole tree, so no descendant can slip away by
//! forking twice; it ends the tree when the gateway's pipe closes (`kill -9` closes it too), when
//! the command itself ends, or when it is told to terminate. The command runs under a uid of its
//! own where we are root, else under Landlock without the protected directories; in both cases
//! with `no_new_privs`, so that no set-uid program gives back what was taken.
//!
//! Its environment is exactly the command's: the gateway sets it, for a command line can be read by
//! anyone. It runs before any async runtime, on plain threads, and touches neither the data
//! directory nor the configuration.

mod confine;

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags},
    process::{
        DumpableBehavior, Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper,
        set_dumpable_behavior, wait,
    },
};
use tokio::signal::unix::{SignalKind, signal};

/// How long the command may take to end after its input was closed.
const AFTER_CLOSE: Duration = Duration::from_millis(1500);
/// How long its tree may take to end after SIGTERM.
const AFTER_TERM: Duration = Duration::from_secs(1);
/// How long a round of SIGKILL is given before the next one.
const KILL_ROUND: Duration = Duration::from_millis(20);
/// The exit status when the command could not be started.
pub const NOT_STARTED: u8 = 127;

/// What to run and how to confine it.
#[derive(Debug)]
struct Job {
    ids: Option<(u32, u32)>,
    cwd: PathBuf,
    home: PathBuf,
    protected: Vec<PathBuf>,
    program: OsString,
    /// Its file, where it comes with the gateway and is not to be looked up.
    file: Option<PathBuf>,
    args: Vec<OsString>,
    /// Where `program` is looked up: for messages only.
    path: Option<String>,
}

/// What happens while the command runs.
#[derive(Debug)]
enum Happened {
    /// The gateway went away, or wants the tree gone.
    HungUp,
    /// The command ended; others of its tree may live.
    Ended(ExitStatus),
    /// Nobody of the tree is left.
    Gone,
}

/// Runs the supervisor over the arguments after `supervise` and returns the command's own status.
/// `path` is the `PATH` of its environment.
pub fn main(args: impl Iterator<Item = OsString>, path: Option<String>) -> ExitCode {
    match parse(args, path).and_then(run) {
        Ok(status) => {
            let code = status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Err(message) => {
            // The gateway keeps the last lines of this as the server's `last_error`.
            eprintln!("portcullis: {message}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

fn parse(mut args: impl Iterator<Item = OsString>, path: Option<String>) -> Result<Job, String> {
    let (mut uid, mut gid) = (None, None);
    let (mut cwd, mut home, mut file, mut protected) = (None, None, None, Vec::new());
    while let Some(flag) = args.next() {
        if flag == "--" {
            break;
        }
        let value = args
            .next()
            .ok_or_else(|| format!("{} needs a value", flag.display()))?;
        let number = || value.to_str().and_then(|id| id.parse::<u32>().ok());
        match flag.to_str() {
            Some("--uid") => uid = number(),
            Some("--gid") => gid = number(),
            Some("--cwd") => cwd = Some(PathBuf::from(value)),
            Some("--home") => home = Some(PathBuf::from(value)),
            Some("--file") => file = Some(PathBuf::from(value)),
            Some("--protect") => protected.push(PathBuf::from(value)),
            Some(_) | None => return Err(format!("unknown option {}", flag.display())),
        }
    }
    let missing = || "`supervise` is started by the gateway, not by people".to_owned();
    Ok(Job {
        ids: uid.zip(gid),
        home: home.ok_or_else(missing)?,
        cwd: cwd.ok_or_else(missing)?,
        protected,
        program: args.next().ok_or_else(missing)?,
        file,
        args: args.collect(),
        path,
    })
}

/// Runs the command and returns when nothing of its tree is left.
fn run(job: Job) -> Result<ExitStatus, String> {
    set_child_subreaper(Some(getpid())).map_err(|e| format!("cannot become a subreaper: {e}"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| format!("cannot become undumpable: {e}"))?;

    let (happened, events) = mpsc::channel();
    watch_signals(happened.clone())?;
    let mut child = start(job)?;
    let child_pid = child.id();
    if let Some(mut input) = child.stdin.take() {
        // Ends with the gateway's end of the pipe; dropping `input` then closes the command's.
        thread::spawn(move || io::copy(&mut io::stdin(), &mut input));
    }
    let hung_up = happened.clone();
    thread::spawn(move || watch_gateway(&hung_up));
    thread::spawn(move || reap(child_pid, &happened));
    Ok(end(&events))
}

/// Starts the command from a thread that first gives up what the command must not have.
///
/// Credentials of Linux belong to threads: the supervisor itself stays as it was, so the command
/// can neither signal nor trace it, while it can still end the command.
fn start(job: Job) -> Result<Child, String> {
    let starter = thread::spawn(move || {
        // The gateway keeps its own files to itself; what a server writes is the server's business.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        rustix::thread::set_no_new_privs(true)
            .map_err(|e| format!("cannot set no_new_privs: {e}"))?;
        let (program, _open) = program(&job)?;
        let mut command = Command::new(program);
        command
            .arg0(&job.program)
            .args(&job.args)
            .current_dir(&job.cwd)
            .stdin(Stdio::piped());
        match job.ids {
            // As root this also drops all supplementary groups.
            Some((uid, gid)) => _ = command.uid(uid).gid(gid),
            None => confine::without(&job.protected, &job.home)?,
        }
        command.spawn().map_err(|error| explain(&job, &error))
    });
    starter
        .join()
        .map_err(|_| "the thread that starts the command failed".to_owned())?
}

/// What to run. A program that comes with the gateway may lie where the uid it is to have cannot
/// pass: it is opened while we still are who we are, and run by its open file, which is closed when
/// it runs.
fn program(job: &Job) -> Result<(OsString, Option<OwnedFd>), String> {
    match (&job.file, job.ids) {
        (None, _) => Ok((job.program.clone(), None)),
        (Some(file), None) => Ok((file.clone().into(), None)),
        (Some(file), Some(_)) => {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let open = rustix::fs::open(file, flags, Mode::empty())
                .map_err(|error| format!("cannot open `{}`: {error}", file.display()))?;
            let path = format!("/proc/self/fd/{}", open.as_raw_fd());
            Ok((path.into(), Some(open)))
        }
    }
}

/// Says what could not be run, for whom, and what to do about it.
fn explain(job: &Job, error: &io::Error) -> String {
    let program = job
        .file
        .as_ref()
        .map_or_else(|| job.program.display(), |file| file.as_os_str().display());
    let who = job
        .ids
        .map_or_else(|| "this user".to_owned(), |(uid, _)| format!("uid {uid}"));
    let kind = error.kind();
    // Where PATH names a directory closed to the uid, a missing program looks like a forbidden one.
    let hint = if kind == io::ErrorKind::NotFound || !exists(job) {
        "check that it is installed, in PATH, and that the working directory exists"
    } else if kind == io::ErrorKind::PermissionDenied && job.file.is_some() {
        "let every user execute it (`chmod a+x`), and reach the working directory"
    } else if kind == io::ErrorKind::PermissionDenied {
        "servers run under a uid of their own: install it, its interpreter and the working \
         directory where every user may reach them, such as /usr/local, not under /root"
    } else {
        "check the command and its arguments"
    };
    format!(
        "cannot run `{program}` as {who} in `{}`: {error}; {hint}",
        job.cwd.display()
    )
}

/// Whether the program is where its path, or `PATH`, says.
fn exists(job: &Job) -> bool {
    if let Some(file) = &job.file {
        return file.exists();
    }
    if job.program.as_bytes().contains(&b'/') {
        return Path::new(&job.program).exists();
    }
    let path = job.path.as_deref().unwrap_or_default();
    path.split(':')
        .any(|dir| Path::new(dir).join(&job.program).is_file())
}

/// Tells when nobody can write to our input any more, even while unread bytes are left in it.
fn watch_gateway(happened: &Sender<Happened>) {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
    // Nothing to report and an interruption are no answer; everything else is the end.
    while let Ok(0) | Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
    _ = happened.send(Happened::HungUp);
}

/// Turns the signals that ask a process to end into an orderly end of the tree.
fn watch_signals(happened: Sender<Happened>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|e| format!("cannot watch signals: {e}"))?;
    let listen = {
        let _inside = runtime.enter();
        let on = |kind| signal(kind).map_err(|e| format!("cannot watch signals: {e}"));
        [
            on(SignalKind::terminate())?,
            on(SignalKind::interrupt())?,
            on(SignalKind::hangup())?,
        ]
    };
    thread::spawn(move || {
        runtime.block_on(async move {
            let [mut terminate, mut interrupt, mut hangup] = listen;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hangup.recv() => {}
                }
                if happened.send(Happened::HungUp).is_err() {
                    return;
                }
            }
        });
    });
    Ok(())
}

/// Reaps the command and every orphan of its tree until none is left.
fn reap(child: u32, happened: &Sender<Happened>) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().cast_unsigned() == child => {
                let status = ExitStatus::from_raw(status.as_raw());
                _ = happened.send(Happened::Ended(status));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // As the subreaper we are told of no children only when the whole tree is gone.
            Err(_) => break,
        }
    }
    _ = happened.send(Happened::Gone);
}

/// Waits for a reason to end and then ends the tree: close, SIGTERM, SIGKILL until none is left.
fn end(events: &Receiver<Happened>) -> ExitStatus {
    let mut status = None;
    match events.recv() {
        Ok(Happened::Ended(ended)) => status = Some(ended),
        Ok(Happened::HungUp) => {
            if settle(events, AFTER_CLOSE, true, &mut status) {
                return status.unwrap_or_default();
            }
        }
        Ok(Happened::Gone) | Err(_) => return ExitStatus::default(),
    }
    signal_tree(Signal::TERM);
    if settle(events, AFTER_TERM, false, &mut status) {
        return status.unwrap_or_default();
    }
    loop {
        signal_tree(Signal::KILL);
        if settle(events, KILL_ROUND, false, &mut status) {
            return status.unwrap_or_default();
        }
    }
}

/// Waits at most `limit` for the tree to be gone (or, if asked, for the command to end) and
/// returns whether it is gone.
fn settle(
    events: &Receiver<Happened>,
    limit: Duration,
    until_ended: bool,
    status: &mut Option<ExitStatus>,
) -> bool {
    let until = Instant::now() + limit;
    loop {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Happened::Gone) => return true,
            Ok(Happened::Ended(ended)) => {
                *status = Some(ended);
                // What it leaves behind gets its SIGTERM at once, unless nothing is left.
                if until_ended && descendants().is_empty() {
                    continue;
                }
                if until_ended {
                    return false;
                }
            }
            Ok(Happened::HungUp) => {}
            Err(_) => return false,
        }
    }
}

fn signal_tree(signal: Signal) {
    for pid in descendants() {
        // One that ended meanwhile is what we want.
        _ = kill_process(pid, signal);
    }
}

/// Everyone who descends from this process, found by the parents `/proc` names.
fn descendants() -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids {
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![getpid().as_raw_nonzero().get()];
    while let Some(pid) = open.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.extend(Pid::from_raw(child));
            open.push(child);
        }
    }
    found
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The command name in brackets may hold anything, so count from the last bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}
