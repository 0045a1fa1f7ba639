//! `token issue`, `token list`, `token revoke`.

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Failure;
use super::client::{Client, rows, shown, text};
use super::output::{Output, from_now, utc_text};
use crate::config::{DURATION, duration};
use crate::text::printable;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Issue a bearer token for an agent outside; prints only the token, once.
    Issue {
        /// The group it acts for.
        #[arg(long)]
        group: String,
        /// What to call it in lists and in the log.
        #[arg(long)]
        name: Option<String>,
        /// How long it counts.
        #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = ttl)]
        ttl: u64,
    },
    /// List the tokens that were issued.
    List,
    /// Make a token worthless.
    Revoke {
        /// The token's id.
        id: String,
    },
}

fn ttl(text: &str) -> Result<u64, String> {
    match duration(text) {
        Some(duration) if duration.as_secs() > 0 => Ok(duration.as_secs()),
        Some(_) | None => Err(DURATION.to_owned()),
    }
}

pub(super) async fn run(command: Command, client: &Client, out: &Output) -> Result<(), Failure> {
    match command {
        Command::Issue { group, name, ttl } => {
            let body = json!({"group": group, "name": name, "ttl_seconds": ttl});
            let issued = client.post(&["tokens"], body).await?;
            out.print(&issued, || text(&issued, "token").to_owned())
        }
        Command::List => {
            let tokens = client.get(&["tokens"], &[]).await?;
            out.print(&tokens, || table(&tokens, out))
        }
        Command::Revoke { id } => {
            let mut revoked = client.delete(&["tokens", &id]).await?;
            if revoked.is_null() {
                revoked = json!({"id": id, "revoked": true});
            }
            out.print(&revoked, || format!("revoked {}", printable(&id)))
        }
    }
}

fn table(tokens: &Value, out: &Output) -> String {
    let now = Timestamp::now();
    let rows = rows(tokens)
        .iter()
        .map(|token| {
            let state = match (
                token.get("revoked_at"),
                text(token, "expires_at").parse::<Timestamp>(),
            ) {
                (Some(Value::String(at)), _) => format!("revoked {}", utc_text(at)),
                (_, Ok(at)) => format!(
                    "{} {}",
                    if at > now { "ends" } else { "ended" },
                    from_now(at, now)
                ),
                (_, Err(_)) => "-".to_owned(),
            };
            vec![
                text(token, "id").into(),
                shown(token, "group").into(),
                shown(token, "name").into(),
                utc_text(text(token, "created_at")).into(),
                state.into(),
            ]
        })
        .collect();
    out.table(
        &["ID", "GROUP", "NAME", "CREATED (UTC)", "STATE"],
        rows,
        "no tokens; issue one with `portcullis token issue --group NAME`",
    )
}
