//! The command line: what a person types, and what they read.
//!
//! Commands act through the owner's socket of a running instance, or on the data directory and the
//! configuration alone. Never decides anything itself. Exit status: 0 done, 1 failed, 2 wrong usage
//! or configuration.

mod approvals;
mod audit;
mod chat;
mod check;
mod client;
mod declassify;
mod doctor;
mod login;
mod output;
mod policy;
mod ruled;
mod status;
mod stream;
mod tokens;
mod tools;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Paths, env_var, may_listen};
use crate::hosted::demo;
use crate::text::chain;
use crate::up::{self, UpOptions};

use client::Client;
use output::Output;

/// The heading of what every command takes.
const EVERYWHERE: &str = "Everywhere";

/// A gateway between agents and what they may do: policy, a person's word, and a log of all of it.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true)]
struct Arguments {
    /// The configuration [default: portcullis/portcullis.toml below `$XDG_CONFIG_HOME`; root: /etc]
    #[arg(long, global = true, value_name = "FILE", help_heading = EVERYWHERE)]
    config: Option<PathBuf>,
    /// The data directory [default: portcullis below `$XDG_STATE_HOME`; root: /var/lib]
    #[arg(long, global = true, value_name = "DIR", help_heading = EVERYWHERE)]
    data: Option<PathBuf>,
    /// Print one JSON value.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
    /// Act as this user of the configuration.
    #[arg(long, global = true, value_name = "NAME", help_heading = EVERYWHERE)]
    user: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Up {
        /// Listen here instead of at `gateway.listen`; port 0 takes a free one.
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
    },
    /// Tell every problem of the configuration.
    Check,
    /// Print a link that opens the console, once and within 10 minutes.
    Login,
    /// Tokens for outside agents.
    #[command(subcommand)]
    Token(tokens::Command),
    /// List the questions that wait for an answer.
    Approvals {
        /// Also those that are settled.
        #[arg(long)]
        all: bool,
        /// Print each as it comes, and how it was answered.
        #[arg(long, conflicts_with = "all")]
        watch: bool,
    },
    /// Talk to a group's agent.
    Chat(chat::Chat),
    /// Say yes to a question.
    Approve(approvals::Approve),
    /// Say no to a question.
    Deny(approvals::Deny),
    /// Take the labels off a conversation: what it has read counts as harmless from then on.
    Declassify(declassify::Declassify),
    /// The log of everything that was asked and done.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Explain a decision, by the id of the action or of its question.
    Why {
        /// The action's or the question's id.
        id: String,
    },
    /// The policy of the configuration.
    #[command(subcommand)]
    Policy(policy::Command),
    /// List the MCP servers.
    Servers,
    /// List the tools, and answer to servers that are not what was pinned of them.
    Tools {
        #[command(subcommand)]
        command: Option<tools::Command>,
    },
    /// Tell how the instance does.
    Status,
    /// Examine the installation, and say what to do.
    Doctor,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It was tried.
    #[error("{0}")]
    Failed(String),
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// The output says so already.
    #[error("")]
    Told(u8),
}

impl Failure {
    /// A failure with everything that led to it.
    fn of(error: &dyn std::error::Error) -> Self {
        Self::Failed(chain(error))
    }

    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Told(code) => *code,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is no reason to complain.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let default = if matches!(arguments.command, Command::Up { .. }) {
        "info,sea_orm_migration=warn"
    } else {
        "warn"
    };
    log(default);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                output::complain(&text);
            }
            ExitCode::from(failure.code())
        }
    }
}

fn log(default: &str) {
    let filter = env_var("PORTCULLIS_LOG").filter(|text| !text.is_empty());
    let (filter, bad) = match filter.as_deref().map(EnvFilter::try_new) {
        None => (EnvFilter::new(default), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(default), Some(error)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::colour(&std::io::stderr()))
        .init();
    if let Some(error) = bad {
        tracing::warn!("PORTCULLIS_LOG is no filter, so `{default}` is used: {error}");
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let paths = Paths::find(arguments.config, arguments.data)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let out = Output::new(arguments.json);
    let client = || Client::new(&paths, arguments.user.as_deref());
    match arguments.command {
        Command::Up { listen } => start(paths, listen).await,
        Command::Check => check::check(&paths, out).await,
        Command::Login => login::run(&client()?, out).await,
        Command::Token(command) => tokens::run(command, &client()?, out).await,
        Command::Approvals { watch: true, .. } => watch::watch(&client()?, out).await,
        Command::Approvals { all, .. } => approvals::list(all, &client()?, out).await,
        Command::Chat(chat) => chat::run(chat, &client()?, out).await,
        Command::Approve(approve) => approvals::approve(approve, client, out).await,
        Command::Deny(deny) => approvals::deny(deny, &client()?, out).await,
        Command::Declassify(declassify) => declassify::run(declassify, &client()?, out).await,
        Command::Audit(command) => audit::run(command, &paths, out).await,
        Command::Why { id } => audit::why(&id, &paths, out).await,
        Command::Policy(command) => policy::run(command, &paths, client, out).await,
        Command::Servers => status::servers(&client()?, out).await,
        Command::Tools { command } => tools::run(command, &client()?, out).await,
        Command::Status => status::status(&paths, &client()?, out).await,
        Command::Doctor => doctor::doctor(&paths, client, out).await,
    }
}

/// The configuration, or its problems as a failure; where there is none, the demo's.
fn load(paths: &Paths) -> Result<Config, Failure> {
    if demo::runs(paths) {
        return demo::config(&paths.config)
            .map_err(|problems| Failure::Failed(problems.to_string()));
    }
    Config::load(&paths.config).map_err(|problems| Failure::Usage(problems.to_string()))
}

async fn start(paths: Paths, listen: Option<SocketAddr>) -> Result<(), Failure> {
    let demo = demo::runs(&paths);
    let config = load(&paths)?;
    may_listen(listen.unwrap_or(config.listen), config.behind_proxy).map_err(Failure::Usage)?;
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    up::run(paths, config, UpOptions { listen, demo })
        .await
        .map_err(|error| {
            if let up::UpError::Config(problems) = &error {
                Failure::Usage(problems.to_string())
            } else {
                Failure::of(&error)
            }
        })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }
}
