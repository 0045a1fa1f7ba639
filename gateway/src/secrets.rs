//! Secrets: a value, or where it comes from.
//!
//! A secret is resolved when the server that owns it is started, never earlier, so that a rotated
//! file or a renewed token is picked up by the next start. Nothing here ever prints a value.

mod kept;

pub use kept::Kept;

use std::{fmt, io, path::PathBuf, process::Stdio, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

/// How long a command may take to print a secret.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes a secret may have.
const MAX_BYTES: u64 = 64 * 1024;

/// A secret value, or where it comes from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// The value itself, such as an unremarkable environment variable of a server.
    Plain(String),
    /// The name of an environment variable of the gateway.
    Env(String),
    /// A file that holds it; one trailing line break is not part of it.
    File(PathBuf),
    /// A program and its arguments that print it, run without a shell.
    Command(Vec<String>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(…)"),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            // Arguments of a command may hold what must not be printed.
            Self::Command(argv) => f.debug_tuple("Command").field(&argv.first()).finish(),
        }
    }
}

/// Why a secret could not be had; for operators, not for agents.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment variable is not set, or is not UTF-8.
    #[error("the environment variable `{0}` is not set; set it where the gateway is started")]
    NoVariable(String),
    /// The file cannot be read.
    #[error("cannot read the secret in `{path}`; check that it exists and who may read it")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The value is longer than a secret may be.
    #[error("the secret from `{0}` is longer than 64 KiB")]
    TooLong(String),
    /// The value is not UTF-8.
    #[error("the secret from `{0}` is not UTF-8 text")]
    NotText(String),
    /// The command names no program.
    #[error("the command for a secret is empty; give a program and its arguments")]
    NoCommand,
    /// The command cannot be run.
    #[error("cannot run `{program}` to get a secret")]
    Run {
        /// Which program.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The command failed.
    #[error("`{program}` gave no secret: it ended with {status}")]
    Failed {
        /// Which program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The command did not end in time.
    #[error("`{0}` gave no secret within 30 s")]
    TimedOut(String),
}

impl Secret {
    /// Fetches the value. What was fetched is known from then on, to be found and hidden; what is
    /// written in the configuration as it is, is a setting.
    ///
    /// # Errors
    /// When the variable is unset, the file unreadable, the command failing or slow, or the value
    /// is too long or no text. The message names the source and never holds a value.
    pub async fn resolve(&self, kept: &Kept) -> Result<SecretString, SecretError> {
        let value = self.fetch().await?;
        if !matches!(self, Self::Plain(_)) {
            kept.learn(value.expose_secret());
        }
        Ok(value)
    }

    async fn fetch(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Plain(value) => Ok(value.clone().into()),
            Self::Env(name) => crate::config::env_var(name)
                .map(Into::into)
                .ok_or_else(|| SecretError::NoVariable(name.clone())),
            Self::File(path) => {
                let failed = |source| SecretError::File {
                    path: path.clone(),
                    source,
                };
                let file = tokio::fs::File::open(path).await.map_err(failed)?;
                let mut bytes = Vec::new();
                file.take(MAX_BYTES + 1)
                    .read_to_end(&mut bytes)
                    .await
                    .map_err(failed)?;
                text(bytes, &path.display().to_string())
            }
            Self::Command(argv) => {
                let (program, arguments) = argv.split_first().ok_or(SecretError::NoCommand)?;
                timeout(COMMAND_TIMEOUT, run(program, arguments))
                    .await
                    .map_err(|_| SecretError::TimedOut(program.clone()))?
            }
        }
    }
}

/// Runs the command and takes what it prints; dropped, it ends the command.
async fn run(program: &str, args: &[String]) -> Result<SecretString, SecretError> {
    let failed = |source| SecretError::Run {
        program: program.to_owned(),
        source,
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(failed)?;
    }
    let value = text(bytes, program)?;
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        return Err(SecretError::Failed {
            program: program.to_owned(),
            status,
        });
    }
    Ok(value)
}

/// Checks length and encoding and takes off one trailing line break.
fn text(bytes: Vec<u8>, origin: &str) -> Result<SecretString, SecretError> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(SecretError::TooLong(origin.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText(origin.to_owned()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn command(script: &str) -> Secret {
        Secret::Command(vec!["/bin/sh".into(), "-c".into(), script.into()])
    }

    #[tokio::test]
    async fn a_secret_comes_from_where_it_is_said_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "from-file\n").unwrap();
        for (secret, value) in [
            (Secret::Plain("as it is\n".into()), "as it is\n"),
            (Secret::File(path), "from-file"),
            (command("echo from-command"), "from-command"),
        ] {
            assert_eq!(secret.fetch().await.unwrap().expose_secret(), value);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_an_error_that_names_the_source() {
        let failed = command("echo half; exit 3").fetch().await.unwrap_err();
        assert_eq!(
            failed.to_string(),
            "`/bin/sh` gave no secret: it ended with exit status: 3"
        );
        let long = command("head -c 70000 /dev/zero")
            .fetch()
            .await
            .unwrap_err();
        assert!(matches!(long, SecretError::TooLong(_)));
        let unset = Secret::Env("PORTCULLIS_SURELY_UNSET".into())
            .fetch()
            .await
            .unwrap_err();
        assert!(matches!(unset, SecretError::NoVariable(_)));
    }

    #[test]
    fn debug_never_shows_a_value() {
        assert_eq!(format!("{:?}", Secret::Plain("hush".into())), "Plain(…)");
        assert_eq!(
            format!("{:?}", command("hush")),
            r#"Command(Some("/bin/sh"))"#
        );
    }
}
