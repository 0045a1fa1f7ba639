//! `[mcp_servers.NAME]`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::time::Duration;

use policy::traits::Declared;

use super::bundled::{self, Bundled};
use super::read::{Item, Table};
use super::values::{VARIABLE, declared, is_variable, secrets};
use crate::secrets::Secret;

/// One MCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How it is reached.
    pub transport: Transport,
    /// It is stopped when no call needed it for so long.
    pub idle_timeout: Duration,
    /// The longest a call may take.
    pub call_timeout: Duration,
    /// The longest it may take to start.
    pub start_timeout: Duration,
    /// Its traits, as declared.
    pub trust: Declared,
    /// What is said of single tools, by the server's own names.
    pub tools: BTreeMap<String, Tool>,
    /// Its own hints may loosen, too.
    pub annotations_trusted: bool,
    /// What it calls its tools may stand where a person looks first.
    pub titles_trusted: bool,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A program that speaks MCP on its standard input and output.
    Stdio {
        /// A name to be looked up in `PATH`, or an absolute path.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// What its environment holds beside `PATH`, `HOME` and `LANG`.
        env: BTreeMap<String, Secret>,
        /// Where it starts; a directory of its own unless said.
        cwd: Option<PathBuf>,
    },
    /// A streamable HTTP endpoint.
    Http {
        /// Its address.
        url: String,
        /// Headers of every request, by lower-case name.
        headers: BTreeMap<String, Secret>,
    },
    /// Inside the gateway.
    Bundled(Bundled),
}

/// What is said of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tool {
    /// Traits that take the place of the server's.
    pub traits: Declared,
    /// The arguments that name whom or what it reaches.
    pub destinations: Vec<String>,
}

/// Headers that belong to HTTP or to MCP itself.
const OUR_HEADERS: [&str; 9] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "te",
    "transfer-encoding",
    "upgrade",
];
const STDIO_KEYS: [&str; 5] = ["command", "args", "env", "env_forward", "cwd"];

/// Reads one server.
pub(super) fn read(table: &Table<'_>) -> Option<Server> {
    let transport = transport(table);
    let timeout = |key, default: u64| {
        table
            .get(key)
            .and_then(|item| item.duration())
            .unwrap_or(Duration::from_secs(default))
    };
    let idle_timeout = timeout("idle_timeout", 600);
    let call_timeout = timeout("call_timeout", 300);
    let start_timeout = timeout("start_timeout", 30);
    let mut trust = table
        .get("trust")
        .and_then(|item| item.table())
        .map(|table| {
            let trust = declared(&table);
            table.done();
            trust
        });
    let annotations_trusted = table
        .get("annotations")
        .and_then(|item| item.word(&[("trust", true), ("tighten", false)]));
    let mut tools = BTreeMap::new();
    if let Some(table) = table.get("tools").and_then(|item| item.table()) {
        for item in table.entries() {
            if let Some(tool) = tool(&item) {
                tools.insert(item.name.to_owned(), tool);
            }
        }
    }
    table.later(
        "image",
        "run the server with `command`, or reach it with `url`",
    );
    table.later("port", "it belongs to `image`");
    table.later(
        "network",
        "it belongs to `image`; without it the server's network is not limited",
    );
    table.done();
    let transport = transport?;
    if trust.is_none()
        && let Some((known, known_tools)) = bundled::defaults(&transport)
    {
        trust = Some(known);
        bundled::complete(&mut tools, known_tools);
    }
    Some(Server {
        titles_trusted: annotations_trusted == Some(true) || bundled::is_ours(&transport),
        transport,
        idle_timeout,
        call_timeout,
        start_timeout,
        trust: trust.unwrap_or_default(),
        tools,
        annotations_trusted: annotations_trusted.unwrap_or(false),
    })
}

fn tool(item: &Item<'_>) -> Option<Tool> {
    if item.name.is_empty() {
        item.problem_at_key(
            "the tool has no name",
            Some("accepted: a tool of this server"),
        );
        return None;
    }
    let table = item.table()?;
    let mut traits = declared(&table);
    traits.read_only = table.get("read_only").and_then(|item| item.flag());
    let destinations = table.get("destinations").and_then(|item| item.texts());
    table.done();
    Some(Tool {
        traits,
        destinations: destinations.unwrap_or_default(),
    })
}

fn transport(table: &Table<'_>) -> Option<Transport> {
    let command = table.get("command");
    let url = table.get("url");
    let bundled = table.get("bundled");
    let args = table.get("args").map(|item| arguments(&item));
    let env = table.get("env").and_then(|item| item.table());
    let mut env = env.map_or_else(BTreeMap::new, |table| secrets(&table, variable));
    if let Some(item) = table.get("env_forward") {
        forward(&item, &mut env);
    }
    let cwd = table.get("cwd").map(|item| item.absolute());
    let headers = table.get("headers").and_then(|item| item.table());
    let headers = headers.map_or_else(BTreeMap::new, |table| headers_of(&table));
    if let Some(item) = bundled {
        let why =
            "it belongs to a server that is started or reached, not to one inside the gateway";
        foreign(table, &STDIO_KEYS, why);
        foreign(
            table,
            &["url", "headers", "idle_timeout", "start_timeout"],
            why,
        );
        return item.word(&bundled::NAMES).map(Transport::Bundled);
    }
    match (command, url) {
        (Some(command), None) => {
            foreign(table, &["headers"], "it belongs to a server with `url`");
            Some(Transport::Stdio {
                command: program(&command)?,
                args: args.unwrap_or(Some(Vec::new()))?,
                env,
                cwd: cwd.flatten(),
            })
        }
        (None, Some(url)) => {
            foreign(table, &STDIO_KEYS, "it belongs to a server with `command`");
            Some(Transport::Http {
                url: endpoint(&url)?,
                headers,
            })
        }
        (Some(_), Some(url)) => {
            url.problem_at_key(
                "a server has either `command` or `url`, not both",
                Some("remove one of them"),
            );
            None
        }
        (None, None) => {
            // `image` says so itself.
            if !table.has("image") {
                table.problem(
                    "it does not say how the server is reached",
                    "accepted: `command` (a program that speaks MCP on stdin and stdout), `url` (streamable HTTP) or `bundled` (a server inside the gateway)",
                );
            }
            None
        }
    }
}

/// Keys of the other transport.
fn foreign(table: &Table<'_>, keys: &[&'static str], why: &str) {
    for key in keys {
        if let Some(item) = table.get(key) {
            item.problem_at_key(why, Some("remove it"));
        }
    }
}

fn arguments(item: &Item<'_>) -> Option<Vec<String>> {
    // An argument may be empty, and may hold what must not be printed.
    item.hide();
    let items = item.list()?;
    let mut args = Vec::new();
    for item in &items {
        match item.as_text() {
            Some(text) if !text.contains('\0') => args.push(text.to_owned()),
            Some(_) | None => item.problem(
                "an argument is a text without a NUL character",
                "accepted: a text, in quotes",
            ),
        }
    }
    (args.len() == items.len()).then_some(args)
}

fn program(item: &Item<'_>) -> Option<String> {
    let command = item.text()?;
    if command.contains('/') && !command.starts_with('/') {
        item.problem(
            "the path is relative, and nothing is started from the current directory",
            "accepted: a program's name, looked up in PATH, or an absolute path",
        );
        return None;
    }
    Some(command.to_owned())
}

fn endpoint(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let accepted = "accepted: an address such as \"http://127.0.0.1:9000/mcp\"";
    let Ok(url) = reqwest::Url::parse(text) else {
        item.problem("it is not an address", accepted);
        return None;
    };
    if !url.username().is_empty() || url.password().is_some() {
        item.hide();
        item.problem(
            "it holds a user name or password",
            "put the credential into `headers`, such as { Authorization = { env = \"NAME\" } }",
        );
        return None;
    }
    if !matches!(url.scheme(), "http" | "https") || url.fragment().is_some() {
        item.problem("it is not an http or https address without `#`", accepted);
        return None;
    }
    Some(url.to_string())
}

fn variable(item: &Item<'_>) -> Option<String> {
    if is_variable(item.name) {
        return Some(item.name.to_owned());
    }
    item.problem_at_key("it is no name of an environment variable", Some(VARIABLE));
    None
}

fn forward(item: &Item<'_>, env: &mut BTreeMap<String, Secret>) {
    let mut add = |item: &Item<'_>, inside: String, outside: String| match env.entry(inside) {
        Entry::Vacant(free) => {
            free.insert(Secret::Env(outside));
        }
        Entry::Occupied(taken) => item.problem_at_key(
            format!("`{}` is set twice", taken.key()),
            Some("name it once, in `env` or in `env_forward`"),
        ),
    };
    if item.is_list() {
        for item in item.list().unwrap_or_default() {
            if let Some(name) = item.variable() {
                add(&item, name.clone(), name);
            }
        }
    } else if let Some(table) = item.is_table().then(|| item.table()).flatten() {
        for item in table.entries() {
            if let (Some(inside), Some(outside)) = (variable(&item), item.variable()) {
                add(&item, inside, outside);
            }
        }
    } else {
        item.problem(
            "it does not say which variables",
            "accepted: [\"NAME\"] or { INSIDE = \"OUTSIDE\" }",
        );
    }
}

fn headers_of(table: &Table<'_>) -> BTreeMap<String, Secret> {
    let mut seen = Vec::new();
    secrets(table, |item| {
        let Ok(name) = item.name.parse::<reqwest::header::HeaderName>() else {
            item.problem_at_key(
                "it is no name of a header",
                Some("accepted: a name such as `Authorization`"),
            );
            return None;
        };
        let name = name.as_str().to_owned();
        if OUR_HEADERS.contains(&name.as_str()) || name.starts_with("mcp-") {
            item.problem_at_key("the gateway sets this header itself", Some("remove it"));
            return None;
        }
        if seen.contains(&name) {
            item.problem_at_key("the header is set twice", Some("name it once, in any case"));
            return None;
        }
        seen.push(name.clone());
        Some(name)
    })
}
