//! What the agent is started with: arguments, environment, token.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use crate::Patience;
use crate::gateway::{Gateway, Unusable};

const URL: &str = "PORTCULLIS_URL";
const TOKEN: &str = "PORTCULLIS_RUN_TOKEN";
const STALL: &str = "PORTCULLIS_STALL_MS";
const RETRY: &str = "PORTCULLIS_RETRY_MS";
const GONE: &str = "PORTCULLIS_GONE_MS";
/// The longest token.
const MAX_TOKEN: u64 = 8 * 1024;

const USAGE: &str = "\
usage: portcullis-agent                       the agent's own loop
       portcullis-agent -- COMMAND [ARGS…]    a core of one's own
environment: PORTCULLIS_URL, the gateway; PORTCULLIS_RUN_TOKEN, the run's token, else one line on stdin";

/// What the agent was started with.
#[derive(Debug)]
pub(crate) struct Start {
    /// Where home is.
    pub(crate) gateway: Gateway,
    /// What to drive.
    pub(crate) core: Core,
    /// How long to wait for others.
    pub(crate) patience: Patience,
}

/// What does the work.
#[derive(Debug)]
pub(crate) enum Core {
    /// The own loop.
    Native,
    /// A program.
    Command(Program),
}

/// A program and what it gets of the agent's environment.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its path or name.
    pub(crate) name: OsString,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
    /// Its environment, but for what it needs of the gateway.
    pub(crate) env: Vec<(&'static str, OsString)>,
}

impl Core {
    /// As the gateway is told.
    pub(crate) fn name(&self) -> String {
        let kind = match self {
            Self::Native => "native",
            Self::Command(_) => "command",
        };
        format!("{kind}/{}", env!("CARGO_PKG_VERSION"))
    }
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wrong {
    /// Help or version was asked for.
    #[error("{0}")]
    Shown(String),
    /// Arguments.
    #[error("{USAGE}")]
    Usage,
    /// No gateway.
    #[error("`PORTCULLIS_URL` is not set; the gateway sets it when it starts an agent")]
    NoUrl,
    /// No token.
    #[error(
        "no run token in `PORTCULLIS_RUN_TOKEN` or on stdin; the gateway gives one when it starts an agent"
    )]
    NoToken,
    /// A wait that is no number.
    #[error("`{0}` is no number of milliseconds")]
    Wait(&'static str),
    /// The gateway cannot be spoken to.
    #[error(transparent)]
    Gateway(#[from] Unusable),
}

/// Reads everything; the only reader of arguments and environment.
///
/// # Errors
/// What is missing or wrong.
pub(crate) fn read() -> Result<Start, Wrong> {
    let core = core(std::env::args_os().skip(1))?;
    let url = std::env::var(URL).map_err(|_| Wrong::NoUrl)?;
    let patience = Patience {
        stall: wait(STALL, 60_000)?,
        retry: wait(RETRY, 1_000)?,
        gone: wait(GONE, 60_000)?,
    };
    let gateway = Gateway::new(&url, token()?)?;
    Ok(Start {
        gateway,
        core,
        patience,
    })
}

fn core(mut args: impl Iterator<Item = OsString>) -> Result<Core, Wrong> {
    match args.next().as_deref().map(OsStr::to_str) {
        None => Ok(Core::Native),
        Some(Some("--")) => {
            let env = ["PATH", "HOME", "LANG", "TMPDIR"];
            let env = env.map(|name| std::env::var_os(name).map(|value| (name, value)));
            Ok(Core::Command(Program {
                name: args.next().ok_or(Wrong::Usage)?,
                args: args.collect(),
                env: env.into_iter().flatten().collect(),
            }))
        }
        Some(Some("--help" | "-h")) => Err(Wrong::Shown(USAGE.to_owned())),
        Some(Some("--version" | "-V")) => Err(Wrong::Shown(format!(
            "portcullis-agent {}",
            env!("CARGO_PKG_VERSION")
        ))),
        Some(_) => Err(Wrong::Usage),
    }
}

fn wait(name: &'static str, default: u64) -> Result<Duration, Wrong> {
    let Some(said) = std::env::var_os(name) else {
        return Ok(Duration::from_millis(default));
    };
    let millis = said.to_str().and_then(|said| said.parse().ok());
    millis.map(Duration::from_millis).ok_or(Wrong::Wait(name))
}

/// The run's token. An environment can be read by every process of the same user as long as the
/// process lives, so where the token comes that way, this process begins anew without it and gets
/// it through a pipe.
fn token() -> Result<SecretString, Wrong> {
    let token = match std::env::var(TOKEN) {
        Ok(token) => {
            let token = SecretString::from(token);
            // Returns only where that is not possible.
            _ = begin_anew(&token);
            token
        }
        Err(std::env::VarError::NotPresent) => {
            let mut line = String::new();
            let stdin = std::io::stdin();
            if !stdin.is_terminal() {
                let mut some = stdin.lock().take(MAX_TOKEN);
                some.read_line(&mut line).map_err(|_| Wrong::NoToken)?;
            }
            SecretString::from(line.trim().to_owned())
        }
        Err(std::env::VarError::NotUnicode(_)) => return Err(Wrong::NoToken),
    };
    if token.expose_secret().is_empty() {
        return Err(Wrong::NoToken);
    }
    Ok(token)
}

/// The same program with the same arguments, in the same process.
fn begin_anew(token: &SecretString) -> std::io::Result<()> {
    let text = token.expose_secret();
    // More than a pipe holds would wait for a reader that is not there yet.
    if text.is_empty() || text.contains('\n') || text.len() >= 4096 {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let (reader, mut writer) = std::io::pipe()?;
    writeln!(writer, "{text}")?;
    drop(writer);
    Err(Command::new(program)
        .args(std::env::args_os().skip(1))
        .env_remove(TOKEN)
        .stdin(Stdio::from(reader))
        .exec())
}
