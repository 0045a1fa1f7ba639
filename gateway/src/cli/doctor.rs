//! `doctor`: what could go wrong with this installation, and what to do about it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use runtimes::bundled;
use serde::Serialize;

use super::client::{rows, text};
use super::output::{Cell, Output};
use super::{Client, Failure};
use crate::config::{Config, Paths, Role, Server, Transport, beside_us, env_var};
use crate::hosted::{NO_SANDBOX, PROGRAM, demo};

/// How a look at something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    what: String,
    found: String,
    #[serde(rename = "do")]
    todo: Option<String>,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, what: &str, found: impl Into<String>) {
        self.push(Level::Ok, what, found.into(), None);
    }
    fn warn(&mut self, what: &str, found: impl Into<String>, todo: impl Into<String>) {
        self.push(Level::Warn, what, found.into(), Some(todo.into()));
    }
    fn fail(&mut self, what: &str, found: impl Into<String>, todo: impl Into<String>) {
        self.push(Level::Fail, what, found.into(), Some(todo.into()));
    }
    fn push(&mut self, level: Level, what: &str, found: String, todo: Option<String>) {
        self.0.push(Finding {
            level,
            what: what.to_owned(),
            found,
            todo,
        });
    }
}

pub(super) async fn doctor(
    paths: &Paths,
    client: impl FnOnce() -> Result<Client, Failure>,
    out: Output,
) -> Result<(), Failure> {
    let mut found = Findings::default();
    let config = configuration(paths, &mut found);
    data(paths, &mut found);
    instance(client, &mut found).await;
    let root = rustix::process::geteuid().is_root();
    confinement(root, &mut found);
    if let Some(config) = &config {
        for (name, server) in &config.servers {
            reach(name.as_str(), server, root, &mut found);
        }
        agents(config, &mut found);
        exposure(config, &mut found);
        people(config, &mut found);
    }
    let failed = found.0.iter().any(|one| one.level == Level::Fail);
    out.print(&found.0, || {
        let mut lines: Vec<Vec<Cell>> = Vec::new();
        for one in &found.0 {
            lines.push(vec![
                Cell::word(one.level.as_str()),
                one.what.as_str().into(),
                one.found.as_str().into(),
            ]);
            if let Some(todo) = &one.todo {
                lines.push(vec!["".into(), "".into(), format!("→ {todo}").into()]);
            }
        }
        out.lines(lines)
    })?;
    if failed {
        Err(Failure::Told(1))
    } else {
        Ok(())
    }
}

fn configuration(paths: &Paths, found: &mut Findings) -> Option<Config> {
    if demo::runs(paths) {
        found.warn(
            "configuration",
            format!(
                "none at `{}`, so `up` runs the demo",
                paths.config.display()
            ),
            "write one when you are done with it: docs/configuration.md",
        );
        return demo::config(&paths.config).ok();
    }
    match Config::load(&paths.config) {
        Ok(config) => {
            found.ok(
                "configuration",
                format!(
                    "{}: sound, and only you can write it",
                    paths.config.display()
                ),
            );
            for note in &config.notes {
                found.warn(
                    "configuration",
                    note,
                    "remove it, or leave it for a later version",
                );
            }
            Some(config)
        }
        Err(problems) => {
            for problem in &problems.0 {
                let line = if problem.line > 0 {
                    format!(":{}", problem.line)
                } else {
                    String::new()
                };
                let todo = match problem.accepted.as_deref() {
                    Some(line) if !line.contains('\n') => line.to_owned(),
                    Some(_) | None => "`portcullis check` says more".to_owned(),
                };
                let file = problem.file.display();
                found.fail(
                    "configuration",
                    format!("{file}{line}: {}", problem.message),
                    todo,
                );
            }
            None
        }
    }
}

fn data(paths: &Paths, found: &mut Findings) {
    let shown = paths.data.display();
    match fs::symlink_metadata(&paths.data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            found.warn(
                "data directory",
                format!("{shown} is not there yet"),
                "`portcullis up` makes it",
            );
        }
        Err(error) => found.fail(
            "data directory",
            format!("{shown}: {error}"),
            "run this as the user that runs portcullis",
        ),
        Ok(meta) => {
            let us = rustix::process::geteuid().as_raw();
            let mode = meta.mode() & 0o7777;
            if !meta.is_dir() {
                found.fail(
                    "data directory",
                    format!("{shown} is no directory"),
                    "name a directory with `--data`",
                );
            } else if meta.uid() != us {
                found.fail(
                    "data directory",
                    format!("{shown} belongs to uid {}, we are {us}", meta.uid()),
                    "run this as the user that runs portcullis",
                );
            } else if mode != 0o700 {
                found.fail(
                    "data directory",
                    format!("{shown} has mode {mode:04o}: others can reach into it"),
                    format!("chmod 0700 {shown}"),
                );
            } else {
                found.ok("data directory", format!("{shown}: mode 0700, and ours"));
            }
        }
    }
}

async fn instance(client: impl FnOnce() -> Result<Client, Failure>, found: &mut Findings) {
    let client = match client() {
        Ok(client) => client,
        Err(failure) => {
            return found.warn("instance", failure.to_string(), "`portcullis up`");
        }
    };
    changed(&client, found).await;
    match client.get(&["status"], &[]).await {
        Ok(status) => {
            let version = text(&status, "version");
            found.ok(
                "instance",
                format!("running, version {version}, at {}", text(&status, "listen")),
            );
            if !version.is_empty() && version != env!("CARGO_PKG_VERSION") {
                found.warn(
                    "instance",
                    format!(
                        "it is {version}, this command is {}",
                        env!("CARGO_PKG_VERSION")
                    ),
                    "restart `portcullis up`",
                );
            }
        }
        Err(failure) => found.warn("instance", failure.to_string(), "`portcullis up`"),
    }
}

/// The servers that are not what was pinned of them.
async fn changed(client: &Client, found: &mut Findings) {
    let Ok(pins) = client.get(&["pins"], &[]).await else {
        return;
    };
    for pin in rows(&pins) {
        for warning in pin.get("warnings").map(rows).unwrap_or_default() {
            found.warn(
                &format!("server {}", text(pin, "server")),
                format!("`{}` {}", text(warning, "tool"), text(warning, "text")),
                "look at it with `portcullis tools`; grant such servers to different groups, or drop one",
            );
        }
        let differences = pin.get("differences").map(rows).unwrap_or_default();
        if let Some(first) = differences.first() {
            let server = text(pin, "server");
            let more = match differences.len() {
                1 => String::new(),
                count => format!(", and {} more", count - 1),
            };
            found.warn(
                &format!("server {server}"),
                format!("not what was pinned: {}{more}", text(first, "told")),
                format!("`portcullis tools diff {server}`, then `tools accept` or `tools reject`"),
            );
        }
    }
}

/// Whether what is started can be held back.
fn confinement(root: bool, found: &mut Findings) {
    if root {
        found.ok(
            "confinement",
            "running as root: every stdio server gets a uid of its own",
        );
        return;
    }
    let reach = "stdio servers run as you: one could ask your systemd, cron or session bus to start a process \
                 that then speaks for you on the owner's socket";
    let old = if scopes(&kernel()) {
        ""
    } else {
        "; this kernel is older than 6.12, so one could also signal your processes, the gateway too, and reach \
         abstract sockets"
    };
    found.warn(
        "confinement",
        format!("{reach}{old}"),
        "run as root (servers then get uids of their own), or trust the programs of your servers",
    );
    let Ok(list) = fs::read_to_string("/sys/kernel/security/lsm") else {
        found.warn(
            "confinement",
            "it cannot be seen here whether the kernel offers Landlock; without it no stdio server starts",
            "`ls /sys/kernel/security/lsm`, or run as root: servers then get uids of their own",
        );
        return;
    };
    if list.trim().split(',').any(|one| one == "landlock") {
        found.ok(
            "confinement",
            "Landlock keeps stdio servers out of the data and configuration directories",
        );
    } else {
        found.fail(
            "confinement",
            "this kernel offers no Landlock, so a stdio server could read the data directory",
            "run as root (servers then get uids of their own), or on Linux 5.13 or later with `landlock` among the LSMs",
        );
    }
}

/// The release of the running kernel, such as `6.12.3-generic`.
fn kernel() -> String {
    let system = rustix::system::uname();
    system.release().to_string_lossy().into_owned()
}

/// Whether a kernel's Landlock can keep signals and abstract sockets within a domain (6.12).
fn scopes(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

/// What hosted agents need, and what does not hold them.
fn agents(config: &Config, found: &mut Findings) {
    if config.groups.values().all(|group| group.model.is_none()) {
        return;
    }
    let path = env_var("PATH").unwrap_or_default();
    if let Err(missing) = bundled::find(PROGRAM.as_ref(), beside_us().as_deref(), &path) {
        let what = format!("`{PROGRAM}` comes with portcullis and is missing");
        found.fail("agents", what, missing.to_string());
    }
    found.warn(
        "agents",
        NO_SANDBOX,
        "give hosted groups only models and programs that you would run yourself",
    );
}

fn reach(name: &str, server: &Server, root: bool, found: &mut Findings) {
    let what = format!("server {name}");
    let ours = |command: &String| {
        let path = env_var("PATH").unwrap_or_default();
        bundled::find(command.as_ref(), beside_us().as_deref(), &path).transpose()
    };
    match &server.transport {
        Transport::Stdio { command, .. } if let Some(ours) = ours(command) => match ours {
            // It runs wherever it lies: the supervisor opens it.
            Ok(path) => found.ok(&what, format!("`{command}` is {}", path.display())),
            Err(missing) => found.fail(
                &what,
                format!("`{command}` comes with portcullis and is missing"),
                missing.to_string(),
            ),
        },
        Transport::Stdio { command, .. } => match look_up(command) {
            None => found.fail(
                &what,
                format!("`{command}` is not found or cannot be executed"),
                "install it, or write its absolute path",
            ),
            Some(path) if root => match closed_to_others(&path) {
                Some(place) => found.fail(
                    &what,
                    format!(
                        "`{command}` is {}, and the server's own uid cannot pass {}",
                        path.display(),
                        place.display()
                    ),
                    "install it where every user may execute it, such as /usr/local/bin",
                ),
                None => found.ok(&what, format!("`{command}` is {}", path.display())),
            },
            Some(path) => found.ok(&what, format!("`{command}` is {}", path.display())),
        },
        Transport::Bundled(_) => found.ok(&what, "inside the gateway"),
        Transport::Http { url, .. } => {
            let plain =
                reqwest::Url::parse(url).is_ok_and(|url| url.scheme() == "http" && !is_local(&url));
            if plain {
                found.warn(
                    &what,
                    format!("{url}: what is sent there travels in the clear"),
                    "use https",
                );
            } else {
                found.ok(&what, url);
            }
        }
    }
}

fn is_local(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The program that a command names.
fn look_up(command: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if command.starts_with('/') {
        return Some(PathBuf::from(command)).filter(|path| runs(path));
    }
    let path = env_var("PATH")?;
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(command))
        .find(|path| runs(path))
}

/// The first place on the way to a program that another uid cannot pass.
fn closed_to_others(program: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(program).ok()?;
    let way = program.ancestors().skip(1).chain(real.ancestors());
    let mut places: Vec<&Path> = way.collect();
    places.sort();
    places.dedup();
    places
        .into_iter()
        .find(|place| fs::metadata(place).is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0))
        .map(Path::to_path_buf)
}

fn exposure(config: &Config, found: &mut Findings) {
    if config.listen.ip().to_canonical().is_loopback() {
        found.ok(
            "listen",
            format!("{}: only this machine reaches it", config.listen),
        );
    } else {
        found.warn(
            "listen",
            format!(
                "{}: other machines reach it, without TLS of its own",
                config.listen
            ),
            "make sure that only your TLS proxy can connect",
        );
    }
    if let Some(url) = &config.public_url
        && reqwest::Url::parse(url).is_ok_and(|url| url.scheme() == "http" && !is_local(&url))
    {
        found.warn(
            "public_url",
            format!("{url}: tokens would travel in the clear"),
            "use https",
        );
    }
}

fn people(config: &Config, found: &mut Findings) {
    if config.approvals.cli {
        found.warn(
            "approvals",
            "`portcullis approve` counts, and an agent that runs as you (such as one on your laptop) could type it too",
            "run such agents as another user, or say `[approvals] cli = false`",
        );
    } else {
        found.ok("approvals", "`portcullis approve` does not count");
    }
    if !config.users.values().any(|user| user.role == Role::Owner) {
        found.warn(
            "users",
            "nobody is an owner, so every command needs `--user`",
            "give one user `role = \"owner\"`",
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn landlock_scopes_came_with_6_12() {
        for (release, scopes) in [
            ("5.15.0-1", false),
            ("6.8.0-45-generic", false),
            ("6.12.1", true),
            ("7.1-rc2", true),
            ("unheard of", false),
        ] {
            assert_eq!(super::scopes(release), scopes, "{release}");
        }
    }
}
