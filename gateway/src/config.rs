//! The configuration: read once, checked whole, all of its problems told together.
//!
//! Pure but for [`Config::load`], and the only module that reads the environment. Nothing is ever
//! read from the current directory, and a file that others can write is refused.

mod audit;
mod bundled;
mod guard;
mod models;
mod people;
mod problem;
mod reach;
mod read;
mod reviewer;
mod rules;
mod schema;
mod server;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use policy::action::Digest;
use policy::decision::Policy;
use policy::ids::{GroupName, ModelName, ServerName, UserName};
use policy::shape::Limits;
use toml::de::DeTable;

pub use audit::Audit;
pub use bundled::Bundled;
pub use models::{Api, Model, ModelRef, is_model};
pub use people::{Agent, Approvals, Group, Role, User};
pub use problem::{Problem, Problems};
pub use reviewer::Reviewer;
pub use server::{Server, Tool, Transport};
pub use values::{DURATION, duration, may_listen};

use read::{Source, Table};

const MIB: usize = 1024 * 1024;

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The configuration file.
    pub config: PathBuf,
    /// Somebody named that file: that it is there is not left open.
    pub named: bool,
    /// The data directory.
    pub data: PathBuf,
}

/// Neither a path nor a home directory is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HOME is not set; say where things are with `--config FILE` and `--data DIR`")]
pub struct NoHome;

impl Paths {
    /// The paths that were given, else the usual ones: below `/etc` and `/var/lib` for root, else
    /// by the XDG Base Directory Specification.
    ///
    /// # Errors
    /// [`NoHome`], where a path was not given and there is no home directory to look in.
    pub fn find(config: Option<PathBuf>, data: Option<PathBuf>) -> Result<Self, NoHome> {
        let root = rustix::process::geteuid().is_root();
        let usual = |given: Option<PathBuf>, system: &str, xdg: &str, home: &str| {
            if let Some(path) = given {
                return Ok(std::path::absolute(&path).unwrap_or(path));
            }
            if root {
                return Ok(PathBuf::from(system));
            }
            // The specification: a relative path is to be ignored.
            let absolute = |name: &str| {
                env_var(name)
                    .map(PathBuf::from)
                    .filter(|path| path.is_absolute())
            };
            absolute(xdg)
                .or_else(|| absolute("HOME").map(|dir| dir.join(home)))
                .map(|dir| dir.join("portcullis"))
                .ok_or(NoHome)
        };
        let named = config.is_some();
        let config = usual(config, "/etc/portcullis", "XDG_CONFIG_HOME", ".config")?;
        Ok(Self {
            config: if named {
                config
            } else {
                config.join("portcullis.toml")
            },
            named,
            data: usual(
                data,
                "/var/lib/portcullis",
                "XDG_STATE_HOME",
                ".local/state",
            )?,
        })
    }

    /// The owner's socket.
    pub fn socket(&self) -> PathBuf {
        self.data.join("portcullis.sock")
    }
}

/// The value of an environment variable of the gateway, where it is set and is text.
pub fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Where this binary lies, and the programs that come with it.
pub fn beside_us() -> Option<PathBuf> {
    let ours = std::env::current_exe().ok()?;
    ours.parent().map(Path::to_path_buf)
}

/// Everything a person configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The origin under which others reach it.
    pub public_url: Option<String>,
    /// A proxy in front of it does TLS.
    pub behind_proxy: bool,
    /// The longest body of a request, in bytes.
    pub max_body: usize,
    /// The longest message of a server, in bytes.
    pub max_message: usize,
    /// How deep the arguments of a call and the answers to it may nest, and how many values they may
    /// hold.
    pub limits: Limits,
    /// The MCP servers.
    pub servers: BTreeMap<ServerName, Server>,
    /// The providers of models.
    pub models: BTreeMap<ModelName, Model>,
    /// The groups.
    pub groups: BTreeMap<GroupName, Group>,
    /// The people; `local`, an owner, where none is configured.
    pub users: BTreeMap<UserName, User>,
    /// How questions are put.
    pub approvals: Approvals,
    /// The model that reviews, where there is one.
    pub reviewer: Option<Reviewer>,
    /// What the log keeps, and how long.
    pub audit: Audit,
    /// The rules.
    pub policy: Policy,
    /// Digest over the text, short: which configuration a decision was made by.
    pub revision: String,
    /// What is accepted but has no effect in this version.
    pub notes: Vec<String>,
    /// What conditions read of the arguments.
    reads: Vec<schema::Read>,
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`Problems`]: all of them, or that the file is missing or not safe to read.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let mut config = Self::parse(&guard::read(path).map_err(Problems)?, path)?;
        let now = jiff::Timestamp::now();
        let spent = config.policy.rules.iter().filter(|rule| rule.is_spent(now));
        let spent = spent.map(|rule| {
            let file = path.display();
            format!("{file}: rule `{}` is spent: its `until` is over", rule.name)
        });
        config.notes.extend(spent.collect::<Vec<_>>());
        Ok(config)
    }

    /// Checks the text of a configuration; `path` is for messages.
    ///
    /// # Errors
    /// [`Problems`]: all of them. Where the text is no TOML, only what makes it none.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Problems> {
        let source = Source::new(path, text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().unwrap_or(0..0);
            source.problem(
                at,
                "",
                format!("this is no TOML: {}", error.message()),
                None,
            );
        }
        if !errors.is_empty() {
            return source.finish(None::<Self>).map(|(config, ..)| config);
        }
        let config = {
            let root = Table::root(&source, document.get_ref());
            let config = sections(&root);
            root.done();
            config
        };
        source
            .finish(Some(config))
            .map(|(config, notes, reads)| Self {
                revision: revision(text),
                notes,
                reads,
                ..config
            })
    }

    /// A configuration without servers and groups.
    pub fn empty() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4010)),
            public_url: None,
            behind_proxy: false,
            max_body: 4 * MIB,
            max_message: 16 * MIB,
            limits: Limits {
                depth: 64,
                values: 1_000_000,
            },
            servers: BTreeMap::new(),
            models: BTreeMap::new(),
            groups: BTreeMap::new(),
            users: local(),
            approvals: Approvals::default(),
            reviewer: None,
            audit: Audit::default(),
            policy: Policy::default(),
            revision: revision(""),
            notes: Vec::new(),
            reads: Vec::new(),
        }
    }
}

/// A short digest: how a configuration is told from another.
pub fn revision(text: &str) -> String {
    Digest::of(text.as_bytes())
        .as_str()
        .chars()
        .take(12)
        .collect()
}

/// The only user where none is configured.
fn local() -> BTreeMap<UserName, User> {
    let owner = User {
        role: Role::Owner,
        slack: None,
        whatsapp: None,
    };
    "local"
        .parse()
        .map(|name| (name, owner))
        .into_iter()
        .collect()
}

/// The names that a section has. What is none is told where it is written.
fn names<T: FromStr>(section: Option<&Table<'_>>) -> Vec<String> {
    section
        .into_iter()
        .flat_map(Table::entries)
        .filter(|item| item.name.parse::<T>().is_ok())
        .map(|item| item.name.to_owned())
        .collect()
}

fn sections(root: &Table<'_>) -> Config {
    let mut config = Config::empty();
    if let Some(table) = root.get("gateway").and_then(|item| item.table()) {
        gateway(&table, &mut config);
    }

    let named = |key| root.get(key).and_then(|item| item.table());
    let (servers, groups, users) = (named("mcp_servers"), named("groups"), named("users"));
    let server_names = names::<ServerName>(servers.as_ref());
    let group_names = names::<GroupName>(groups.as_ref());
    let mut user_names = names::<UserName>(users.as_ref());
    let models = named("models");
    let model_names = names::<ModelName>(models.as_ref());
    config.models = models::all(models.as_ref());

    for item in servers.iter().flat_map(Table::entries) {
        let name = item.parsed_name::<ServerName>();
        let server = item.table().as_ref().and_then(server::read);
        if let (Some(name), Some(server)) = (name, server) {
            config.servers.insert(name, server);
        }
    }
    if let Some(table) = &users {
        config.users.clear();
        let mut seen = BTreeSet::new();
        for item in table.entries() {
            let name = item.parsed_name::<UserName>();
            let user = item.table().map(|table| people::user(&table, &mut seen));
            if let (Some(name), Some(user)) = (name, user) {
                config.users.insert(name, user);
            }
        }
    } else {
        user_names.push("local".to_owned());
    }
    for item in groups.iter().flat_map(Table::entries) {
        let name = item.parsed_name::<GroupName>();
        let group = item.table().map(|table| {
            people::group(
                &table,
                &server_names,
                &config.servers,
                &user_names,
                &model_names,
            )
        });
        if let (Some(name), Some(group)) = (name, group) {
            config.groups.insert(name, group);
        }
    }
    if let Some(table) = named("approvals") {
        config.approvals = people::approvals(&table);
    }
    if let Some(table) = named("reviewer") {
        config.reviewer = reviewer::read(&table, &model_names, &config.models);
    }
    if let Some(table) = named("audit") {
        config.audit = audit::read(&table);
    }
    if let Some(item) = root.get("rules") {
        let models = model_names.iter().map(|name| format!("model:{name}"));
        let targets: Vec<String> = server_names.iter().cloned().chain(models).collect();
        config.policy.rules = rules::read(&item, &targets, &group_names);
        rules::enough_people(&item, &config);
        reach::check(&item, &config);
    }
    root.later(
        "channels",
        "answer questions with `portcullis approve` and `portcullis deny`",
    );
    config
}

fn gateway(table: &Table<'_>, config: &mut Config) {
    let listen = table.get("listen");
    if let Some(text) = listen.as_ref().and_then(read::Item::text) {
        match text.parse() {
            Ok(address) => config.listen = address,
            Err(_) => {
                if let Some(item) = &listen {
                    item.problem(
                        format!("{text:?} is not an address and a port"),
                        "accepted: such as \"127.0.0.1:4010\" or \"[::1]:4010\"; port 0 takes a free one",
                    );
                }
            }
        }
    }
    if let Some(item) = table.get("public_url")
        && let Some(text) = item.text()
    {
        match values::origin(text) {
            Ok(origin) => config.public_url = Some(origin),
            Err(why) => item.problem(
                why,
                "accepted: an origin, such as \"https://gate.example.org\"",
            ),
        }
    }
    let proxy = table.get("behind_proxy").map(|item| item.flag());
    config.behind_proxy = proxy.flatten().unwrap_or(false);
    if let (Some(item), Err(why)) = (&listen, may_listen(config.listen, config.behind_proxy))
        && proxy != Some(None)
    {
        item.problem(
            why,
            "accepted: a loopback address, or any with `behind_proxy = true`",
        );
    }
    if let Some(size) = table
        .get("max_body")
        .and_then(|item| item.size(1024..=256 * MIB))
    {
        config.max_body = size;
    }
    if let Some(size) = table
        .get("max_message")
        .and_then(|item| item.size(64 * 1024..=1024 * MIB))
    {
        config.max_message = size;
    }
    // Deeper than 100 nothing is read at all: what reads JSON here gives up at 128.
    let depth = table.get("max_depth");
    if let Some(depth) = depth.and_then(|item| item.number(8..=100)) {
        config.limits.depth = depth;
    }
    let values = table.get("max_values");
    if let Some(values) = values.and_then(|item| item.number(1000..=100_000_000)) {
        config.limits.values = values;
    }
    if let Some(item) = table.get("database")
        && item.as_text() != Some("sqlite")
    {
        // An address of a database may hold its password.
        item.hide();
        item.problem(
            format!("another database is {}", read::LATER),
            "accepted: \"sqlite\"",
        );
    }
    table.later(
        "tls",
        "put a proxy that does TLS in front, and say `behind_proxy = true`",
    );
    table.done();
}

#[cfg(test)]
mod tests;
