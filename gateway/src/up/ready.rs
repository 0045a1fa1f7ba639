//! What `up` says when it is ready, on standard output; the last line is for programs.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::UpOptions;
use crate::config::{Config, Paths};
use crate::hosted;

pub(super) fn say(
    config: &Config,
    paths: &Paths,
    options: &UpOptions,
    url: &str,
    link: Option<&str>,
) {
    let mut out = io::stdout().lock();
    let text = text(config, paths, options, url, link);
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        tracing::debug!("nobody reads the start-up output");
    }
}

fn text(
    config: &Config,
    paths: &Paths,
    options: &UpOptions,
    url: &str,
    link: Option<&str>,
) -> String {
    let mut text = String::new();
    if options.demo {
        let _ = write!(
            text,
            "There is no configuration at `{}`, so this is the demo: group `demo`, whose agent is a script and no \
             model, with a mailbox and private notes.\n\
             Your own begins with `[mcp_servers.NAME]` and `[groups.NAME]` in that file; docs/configuration.md shows how.\n",
            paths.config.display()
        );
    }
    if config.groups.is_empty() {
        text += "There is no group yet, so no agent can connect: write one in the configuration.\n";
    }
    for group in config.groups.keys().take(1) {
        let _ = write!(
            text,
            "Connect Claude Code to group `{group}`:\n  claude mcp add --transport http portcullis {url}/mcp \\\n    \
             --header \"Authorization: Bearer $(portcullis token issue --group {group})\"\n"
        );
    }
    if config.groups.values().any(|group| group.model.is_some()) {
        let _ = writeln!(text, "Note: {}.", hosted::NO_SANDBOX);
    }
    if config.approvals.cli {
        text += "An agent that runs as this same user could answer its own questions; run it as another, or set `[approvals] cli = false`.\n";
    }
    if let Some(link) = link {
        let _ = writeln!(
            text,
            "Open the console, once and within 10 minutes:\n  {link}"
        );
    }
    let _ = writeln!(text, "ready {url}");
    text
}
