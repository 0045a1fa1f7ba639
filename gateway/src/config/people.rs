//! `[groups.NAME]`, `[users.NAME]` and `[approvals]`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use policy::ids::{GroupName, ServerName, UserName};
use policy::traits::Level;

use super::Config;
use super::models::{self, ModelRef};
use super::read::{Item, Table};
use super::server::Server;

/// People and an agent, and what the agent may reach for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The servers its agent may use.
    pub servers: Vec<ServerName>,
    /// Who may answer its questions.
    pub approvers: Vec<UserName>,
    /// Who may speak to its agent.
    pub members: Vec<UserName>,
    /// The model of its agent.
    pub model: Option<ModelRef>,
    /// What thinks for it, where it is hosted.
    pub agent: Agent,
    /// Its whole workspace counts as secret.
    pub contains_secrets: bool,
    /// A clean room: nothing that strangers wrote comes in.
    pub admin: bool,
}

impl Group {
    /// Whether somebody with this role may answer its questions: its approvers and the owners; where
    /// it names no approvers, everybody who is one.
    pub fn may_decide(&self, name: &UserName, role: Role) -> bool {
        match role {
            Role::Owner => true,
            Role::Approver if self.approvers.is_empty() => true,
            Role::Approver | Role::Member => self.approvers.contains(name),
        }
    }
}

impl Config {
    /// A group by the name that is written somewhere.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(&name.parse::<GroupName>().ok()?)
    }

    /// Whether somebody with this role may answer the questions of a group. Those of a group that is
    /// gone are the owners'.
    pub fn may_decide(&self, group: &str, name: &UserName, role: Role) -> bool {
        let group = self.group(group);
        group.map_or(role == Role::Owner, |group| group.may_decide(name, role))
    }

    /// Everybody who may answer the questions of a group.
    pub fn approvers(&self, group: &str) -> Vec<&UserName> {
        let users = self.users.iter();
        let may = users.filter(|(name, user)| self.may_decide(group, name, user.role));
        may.map(|(name, _)| name).collect()
    }
}

/// The core of a hosted agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Agent {
    /// Its own loop.
    #[default]
    Native,
    /// A program of the group's people, with its arguments.
    Command(Vec<String>),
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Speak to the agents of their groups.
    Member,
    /// Also answer questions.
    Approver,
    /// Everything.
    Owner,
}

impl Role {
    /// The role's name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Approver => "approver",
            Self::Owner => "owner",
        }
    }
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What they may do.
    pub role: Role,
    /// Their member id in Slack.
    pub slack: Option<String>,
    /// Their telephone number in `WhatsApp`, digits only.
    pub whatsapp: Option<String>,
}

/// How questions are put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// How long a question waits for an answer. Silence means no.
    pub expire: Duration,
    /// Whether `approve` and `deny` on the owner's socket count.
    pub cli: bool,
    /// The most open questions of one conversation.
    pub max_open: usize,
    /// The most open questions of one task.
    pub max_open_run: usize,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            expire: Duration::from_hours(12),
            cli: true,
            max_open: 100,
            max_open_run: 20,
        }
    }
}

/// Reads one group; `servers`, `users` and `providers` are the names that the file has.
pub(super) fn group(
    table: &Table<'_>,
    servers: &[String],
    parsed: &BTreeMap<ServerName, Server>,
    users: &[String],
    providers: &[String],
) -> Group {
    let granted = table
        .get("servers")
        .map(|item| item.names::<ServerName>())
        .unwrap_or_default();
    let admin_item = table.get("admin");
    let admin = admin_item.as_ref().and_then(Item::flag).unwrap_or(false);
    for (item, name) in &granted {
        if !servers.iter().any(|server| server == name.as_str()) {
            item.problem(
                format!("there is no server `{name}`"),
                &listed(servers, "`[mcp_servers.NAME]`"),
            );
        } else if admin && parsed.get(name).is_some_and(hears_strangers) {
            item.problem(
                format!("an `admin` group is a clean room, and `{name}` may deliver what strangers wrote"),
                &format!("say `public_source = false` in `[mcp_servers.{name}.trust]` if that is true, and on none of its tools `true`; or take the server out"),
            );
        }
    }
    let people = |item: Option<Item<'_>>| item.map(|item| known(&item, users)).unwrap_or_default();
    let members = people(table.get("members"));
    let approvers = people(table.get("approvers"));
    if let Some(item) = table.get("channels") {
        channels(&item);
    }
    let model = table
        .get("model")
        .and_then(|item| models::of_group(&item, providers));
    let agent = table.get("agent").and_then(|item| {
        if !table.has("model") {
            item.note("has no effect without `model`: the agents of this group are all outside");
        }
        agent(&item)
    });
    let contains_secrets = table.get("contains_secrets").and_then(|item| item.flag());
    table.done();
    Group {
        servers: granted.into_iter().map(|(_, name)| name).collect(),
        approvers,
        members,
        agent: agent.unwrap_or_default(),
        model,
        contains_secrets: contains_secrets.unwrap_or(false),
        admin,
    }
}

fn known(item: &Item<'_>, users: &[String]) -> Vec<UserName> {
    item.names::<UserName>()
        .into_iter()
        .map(|(item, name)| {
            if !users.iter().any(|user| user == name.as_str()) {
                item.problem(
                    format!("there is no user `{name}`"),
                    &listed(users, "`[users.NAME]`"),
                );
            }
            name
        })
        .collect()
}

/// Whether a server may deliver what strangers wrote.
fn hears_strangers(server: &Server) -> bool {
    server.trust.public_source != Some(Level::No)
        || server
            .tools
            .values()
            .any(|tool| tool.traits.public_source == Some(Level::Yes))
}

/// "accepted: `a`, `b`", or how to write the first.
pub(super) fn listed(names: &[String], how: &str) -> String {
    if names.is_empty() {
        return format!("write {how} first");
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("accepted: {}", names.join(", "))
}

/// Where its people speak to it: always in the console and the terminal.
fn channels(item: &Item<'_>) {
    for one in item.texts().unwrap_or_default() {
        if one != "web" {
            item.note(&format!(
                "names {one:?}, which has no effect in this version; people speak in `web`"
            ));
        }
    }
}

fn agent(item: &Item<'_>) -> Option<Agent> {
    const LATER: &str = "accepted: \"native\", or a program that speaks to portcullis-agent, as { command = [\"program\"] }";
    if !item.is_table() {
        let native = item.word(&[("native", true), ("claude-code", false), ("codex", false)])?;
        if !native {
            item.problem("this agent is not there yet", LATER);
        }
        return Some(Agent::Native);
    }
    let table = item.table()?;
    let Some(item) = table.get("command") else {
        table.problem(
            "it does not say which program",
            "accepted: { command = [\"program\"] }",
        );
        table.done();
        return None;
    };
    let command = item.texts();
    if command.as_ref().is_some_and(Vec::is_empty) {
        item.problem("it is empty", "accepted: a program and its arguments");
    }
    table.done();
    command.map(Agent::Command)
}

/// Reads one person; `seen` holds the platform ids of those before.
pub(super) fn user(table: &Table<'_>, seen: &mut BTreeSet<String>) -> User {
    let role = table.get("role").and_then(|item| {
        item.word(&[
            ("owner", Role::Owner),
            ("approver", Role::Approver),
            ("member", Role::Member),
        ])
    });
    let slack = table.idle("slack").and_then(|item| {
        let id = item.text()?;
        let fits = id.starts_with(['U', 'W'])
            && id
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        platform_id(
            &item,
            "slack",
            fits,
            "a member id such as \"U0123ABCD\", never a display name",
            seen,
        )
    });
    let whatsapp = table.idle("whatsapp").and_then(|item| {
        let digits = item.text()?.bytes().all(|b| b.is_ascii_digit());
        platform_id(
            &item,
            "whatsapp",
            digits,
            "the number with its country, digits only, such as \"4915112345678\"",
            seen,
        )
    });
    table.done();
    User {
        role: role.unwrap_or(Role::Member),
        slack,
        whatsapp,
    }
}

fn platform_id(
    item: &Item<'_>,
    platform: &str,
    fits: bool,
    accepted: &str,
    seen: &mut BTreeSet<String>,
) -> Option<String> {
    let id = item.as_text()?;
    if !fits {
        item.problem(
            format!("{id:?} is no stable id"),
            &format!("accepted: {accepted}"),
        );
        return None;
    }
    if !seen.insert(format!("{platform}:{id}")) {
        item.problem("another user has this id", "one person, one id");
        return None;
    }
    Some(id.to_owned())
}

/// Reads `[approvals]`.
pub(super) fn approvals(table: &Table<'_>) -> Approvals {
    let default = Approvals::default();
    let approvals = Approvals {
        expire: table
            .get("expire")
            .and_then(|item| item.duration())
            .unwrap_or(default.expire),
        cli: table
            .get("cli")
            .and_then(|item| item.flag())
            .unwrap_or(default.cli),
        max_open: table
            .get("max_open")
            .and_then(|item| item.number(1..=10_000))
            .unwrap_or(default.max_open),
        max_open_run: table
            .get("max_open_run")
            .and_then(|item| item.number(1..=10_000))
            .unwrap_or(default.max_open_run),
    };
    table.done();
    approvals
}
