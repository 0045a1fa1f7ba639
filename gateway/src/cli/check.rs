//! `check`: every problem of the configuration at once.

use std::fmt::Write as _;

use serde_json::json;

use super::{Failure, Output};
use crate::config::{Config, Paths, Problems};
use crate::text::printable;
use crate::up;

pub(super) async fn check(paths: &Paths, out: Output) -> Result<(), Failure> {
    let checked = match Config::load(&paths.config) {
        Ok(config) => {
            let known = up::known_schemas(&config, &paths.data).await;
            let problems = config.impossible(&|server| known.get(server).cloned());
            if problems.is_empty() {
                Ok(config)
            } else {
                Err(Problems(problems))
            }
        }
        Err(problems) => Err(problems),
    };
    match checked {
        Ok(config) => {
            let value = json!({
                "ok": true,
                "file": paths.config,
                "revision": config.revision,
                "servers": config.servers.len(),
                "groups": config.groups.len(),
                "users": config.users.len(),
                "rules": config.policy.rules.len(),
                "notes": config.notes,
            });
            out.print(&value, || summary(paths, &config, out))
        }
        Err(problems) => {
            let count = problems.0.len();
            let value = json!({"ok": false, "file": paths.config, "problems": problems.0});
            out.print(&value, || {
                let s = if count == 1 { "" } else { "s" };
                format!("{problems}\n\n{count} problem{s}\n")
            })?;
            Err(Failure::Told(2))
        }
    }
}

fn summary(paths: &Paths, config: &Config, out: Output) -> String {
    let mut text = String::new();
    for note in &config.notes {
        let _ = writeln!(text, "note: {}", printable(note));
    }
    let _ = writeln!(
        text,
        "{}: {} ({}, {}, {}, {})",
        out.word("ok"),
        printable(&paths.config.to_string_lossy()),
        count(config.servers.len(), "server"),
        count(config.groups.len(), "group"),
        count(config.users.len(), "user"),
        count(config.policy.rules.len(), "rule"),
    );
    text
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
