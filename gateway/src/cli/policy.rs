//! `policy show` and `policy explain`: what the configuration would decide, without an instance.

mod cases;
mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use policy::action::{Action, Digest, Kind, Method};
use policy::decision::{Facts, Why, explain};
use policy::ids::{ActionId, ConversationId, GroupName, RunId, ServerName};
use policy::label::{Label, Labels, Provenance};
use policy::otherwise::{Otherwise, otherwise};
use policy::rule::{Effect, Rule};
use policy::traits::{Declared, Hints, Level, Traits, resolve};
use serde_json::{Value, json};

use super::client::{rows, text};
use super::output::{Cell, Output};
use super::{Client, Failure, load};
use crate::config::{Config, Paths};
use crate::text::printable;

/// Stands for every tool that neither the configuration nor a rule names.
const ANY: &str = "*";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what every group's calls meet, as a table, and the rules.
    Show,
    /// Rules that people made with *always*, on a running instance.
    #[command(flatten)]
    Ruled(Ruled),
    /// Explain what would be decided about one call.
    Explain {
        /// The group whose agent calls.
        #[arg(long)]
        group: String,
        /// The tool, as `server__tool`.
        #[arg(long)]
        tool: String,
        /// The arguments, a JSON object.
        #[arg(long, default_value = "{}", value_name = "JSON")]
        args: String,
        /// What the conversation has read; may be given twice.
        #[arg(long, value_enum)]
        label: Vec<Mark>,
        /// The person the agent works for; none for an outside agent.
        #[arg(long, value_name = "USER")]
        person: Option<String>,
    },
    /// Hold the cases in a file against what would be decided of them.
    Test {
        /// The file, in TOML.
        file: PathBuf,
    },
    /// Tell what a configuration would have decided otherwise of what is in the log.
    Replay {
        /// The configuration; that of the instance unless said.
        #[arg(long, visible_alias = "policy", value_name = "FILE")]
        config_file: Option<PathBuf>,
        /// Only from this time on, such as 2026-11-28T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
    },
}

/// `policy rules`, `digest`, `take`, `revoke`: what people's *always* made.
#[derive(Debug, Subcommand)]
pub(super) enum Ruled {
    /// List the rules that came of a person's *always*.
    Rules,
    /// Show what asked lately and how it was answered, and propose rules for what is always allowed.
    Digest,
    /// Take one of the rules that are proposed for a question which was answered.
    Take {
        /// The question's id.
        id: String,
        /// Which of the proposed rules; without it they are printed.
        #[arg(long, value_name = "N")]
        rule: Option<usize>,
        /// How long the rule counts, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 30 * 24 * 60 * 60)]
        ttl: u64,
    },
    /// Take back a rule that came of a person's *always*.
    Revoke {
        /// The question that it came of.
        id: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mark {
    /// What strangers wrote.
    Untrusted,
    /// What would hurt if it leaked.
    Secret,
}

impl From<Mark> for Label {
    fn from(mark: Mark) -> Self {
        match mark {
            Mark::Untrusted => Self::Untrusted,
            Mark::Secret => Self::Secret,
        }
    }
}

pub(super) async fn run(
    command: Command,
    paths: &Paths,
    client: impl FnOnce() -> Result<Client, Failure>,
    out: Output,
) -> Result<(), Failure> {
    if let Command::Ruled(command) = command {
        return super::ruled::run(command, &client()?, out).await;
    }
    if let Command::Replay {
        config_file: Some(file),
        since,
    } = command
    {
        let file = std::path::absolute(&file).unwrap_or(file);
        let config = Config::load(&file);
        let mut config = config.map_err(|error| Failure::Usage(error.to_string()))?;
        config
            .policy
            .rules
            .extend(super::ruled::stored(paths).await);
        return replay::run(&config, paths, since, out).await;
    }
    let mut config = load(paths)?;
    let made = super::ruled::stored(paths).await;
    config.policy.rules.extend(made);
    match command {
        Command::Ruled(_) => Ok(()),
        Command::Test { file } => cases::run(&config, &file, out),
        Command::Replay { since, .. } => replay::run(&config, paths, since, out).await,
        Command::Show => show(&config, out),
        Command::Explain {
            group,
            tool,
            args,
            label,
            person,
        } => {
            let call = Call::read(&config, &group, &tool, &args)?;
            let circumstances = Circumstances {
                labels: label.into_iter().map(Label::from).collect(),
                person,
                now: Timestamp::now(),
                hints: hints(&tool, client).await,
            };
            call.explain(&config, &circumstances, out)
        }
    }
}

/// A call that somebody asks about.
struct Call {
    group: GroupName,
    server: ServerName,
    tool: String,
    args: Value,
}

/// In which a call is made.
struct Circumstances {
    labels: BTreeSet<Label>,
    person: Option<String>,
    now: Timestamp,
    /// The server's own hints, where they are known.
    hints: Option<Hints>,
}

impl Call {
    fn read(config: &Config, group: &str, tool: &str, args: &str) -> Result<Self, Failure> {
        let args: Value = serde_json::from_str(args)
            .map_err(|error| Failure::Usage(format!("--args: this is no JSON: {error}")))?;
        if !args.is_object() {
            return Err(Failure::Usage(
                "--args: arguments are a JSON object, such as {\"to\": \"ana\"}".to_owned(),
            ));
        }
        Self::of(config, group, tool, args)
    }

    fn of(config: &Config, group: &str, tool: &str, args: Value) -> Result<Self, Failure> {
        let usage = |text: String| Failure::Usage(text);
        let group: GroupName = group
            .parse()
            .map_err(|error| usage(format!("group: {error}")))?;
        if !config.groups.contains_key(&group) {
            return Err(usage(format!(
                "group: there is no group `{group}`; {}",
                known(config.groups.keys())
            )));
        }
        let (server, name) = tool
            .split_once("__")
            .filter(|(_, name)| !name.is_empty())
            .ok_or_else(|| usage(format!("tool: `{}` is not `server__tool`", printable(tool))))?;
        let server: ServerName = server
            .parse()
            .map_err(|error| usage(format!("tool: {error}")))?;
        if !config.servers.contains_key(&server) {
            return Err(usage(format!(
                "tool: there is no server `{server}`; {}",
                known(config.servers.keys())
            )));
        }
        Ok(Self {
            group,
            server,
            tool: name.to_owned(),
            args,
        })
    }

    fn facts(&self, config: &Config, circumstances: &Circumstances) -> Facts {
        facts(
            config,
            &self.group,
            &self.server,
            &self.tool,
            &self.args,
            circumstances,
        )
    }

    /// Whether the group may use the server at all; where not, that is what is decided.
    fn without_grant(&self, config: &Config, why: &mut Why) -> bool {
        let granted = granted(config, &self.group, &self.server);
        if !granted {
            why.decision = policy::decision::Decision::Deny;
            why.reasons.insert(
                0,
                format!(
                    "group `{}` has no server `{}`: its agent sees no such tool",
                    self.group, self.server
                ),
            );
        }
        granted
    }

    fn explain(
        &self,
        config: &Config,
        circumstances: &Circumstances,
        out: Output,
    ) -> Result<(), Failure> {
        let facts = self.facts(config, circumstances);
        let mut why = explain(&config.policy, &facts);
        let granted = self.without_grant(config, &mut why);
        let otherwise = if granted {
            otherwise(&config.policy, &facts)
        } else {
            Vec::new()
        };
        let hints = circumstances.hints;
        let value = json!({
            "decision": why.decision,
            "gates": why.gates,
            "rules": why.rules,
            "labels": facts.labels.names(),
            "reasons": why.reasons,
            "lifted": why.lifted,
            "adds": why.adds,
            "traits": facts.traits,
            "otherwise": otherwise,
            "granted": granted,
            "hints_known": hints.is_some(),
        });
        out.print(&value, || {
            told(&facts, &why, &otherwise, hints.is_some(), out)
        })
    }
}

fn told(facts: &Facts, why: &Why, otherwise: &[Otherwise], hinted: bool, out: Output) -> String {
    let names = |items: Vec<&str>| {
        if items.is_empty() {
            "-".to_owned()
        } else {
            items.join(", ")
        }
    };
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    let mut line = |name: &str, value: Cell| lines.push(vec![name.into(), value]);
    line("decision", Cell::word(why.decision.as_str()));
    if why.reasons.is_empty() {
        line("why", "nothing stands against it".into());
    }
    for (n, reason) in why.reasons.iter().enumerate() {
        line(if n == 0 { "why" } else { "" }, reason.into());
    }
    line(
        "gates",
        names(why.gates.iter().map(|gate| gate.as_str()).collect()).into(),
    );
    line(
        "lifted",
        names(why.lifted.iter().map(|gate| gate.as_str()).collect()).into(),
    );
    line(
        "rules",
        names(why.rules.iter().map(String::as_str).collect()).into(),
    );
    line("labels", names(facts.labels.names()).into());
    line(
        "it adds",
        names(why.adds.iter().map(|label| label.as_str()).collect()).into(),
    );
    line("traits", traits_text(facts.traits).into());
    for (n, one) in otherwise.iter().enumerate() {
        let gates: Vec<&str> = one.gates.iter().map(|gate| gate.as_str()).collect();
        let gates = if gates.is_empty() {
            String::new()
        } else {
            format!(" ({})", gates.join(", "))
        };
        let then = format!("{}: {}{gates}", one.with, one.decision.as_str());
        line(if n == 0 { "otherwise" } else { "" }, then.into());
    }
    if !hinted {
        line(
            "note",
            "the server's own hints are not known here; at a call they may make it stricter".into(),
        );
    }
    out.lines(lines)
}

fn traits_text(traits: Traits) -> String {
    let mut parts: Vec<String> = [
        ("public_source", traits.public_source),
        ("secret_data", traits.secret_data),
        ("public_sink", traits.public_sink),
        ("dangerous_writes", traits.dangerous_writes),
    ]
    .into_iter()
    .filter(|(_, level)| level.holds())
    .map(|(name, level)| {
        if level == Level::Forbidden {
            format!("{name} (forbidden)")
        } else {
            name.to_owned()
        }
    })
    .collect();
    if traits.read_only {
        parts.push("read_only".to_owned());
    }
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

fn known<'a, T: std::fmt::Display + 'a>(names: impl Iterator<Item = &'a T>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        return "the configuration has none".to_owned();
    }
    format!("accepted: {}", names.join(", "))
}

fn granted(config: &Config, group: &GroupName, server: &ServerName) -> bool {
    config
        .groups
        .get(group)
        .is_some_and(|group| group.servers.contains(server))
}

/// What the running instance, if any, knows of a tool's own hints.
async fn hints(tool: &str, client: impl FnOnce() -> Result<Client, Failure>) -> Option<Hints> {
    let tools = client().ok()?.get(&["tools"], &[]).await.ok()?;
    let tool = rows(&tools).iter().find(|one| text(one, "name") == tool)?;
    let annotations = tool.get("annotations")?;
    let flag = |name: &str| annotations.get(name).and_then(Value::as_bool);
    Some(Hints {
        read_only: flag("readOnlyHint"),
        destructive: flag("destructiveHint"),
        open_world: flag("openWorldHint"),
        trusted: false,
    })
}

fn facts(
    config: &Config,
    group: &GroupName,
    server: &ServerName,
    tool: &str,
    args: &Value,
    circumstances: &Circumstances,
) -> Facts {
    let now = circumstances.now;
    let configured = config.servers.get(server);
    let trust = configured.map_or_else(Declared::default, |server| server.trust);
    let own = configured
        .and_then(|server| server.tools.get(tool))
        .map_or_else(Declared::default, |tool| tool.traits);
    let hints = Hints {
        trusted: configured.is_some_and(|server| server.annotations_trusted),
        ..circumstances.hints.unwrap_or_default()
    };
    let mut labels = Labels::default();
    for label in &circumstances.labels {
        let from = Provenance {
            action: ActionId::new("-"),
            tool: "-".to_owned(),
            at: now,
        };
        labels.add(*label, &from);
    }
    Facts {
        traits: resolve(trust, own, hints),
        labels,
        contains_secrets: config
            .groups
            .get(group)
            .is_some_and(|group| group.contains_secrets),
        clean_room: config.groups.get(group).is_some_and(|group| group.admin),
        changed: false,
        credentials: policy::secret::Finder::default().find(args),
        destinations: Vec::new(),
        read: false,
        grants: Vec::new(),
        person: circumstances.person.clone(),
        review: None,
        now,
        action: Action {
            id: ActionId::new("-"),
            kind: Kind::Mcp,
            group: group.clone(),
            conversation: ConversationId::new("-"),
            run: RunId::new("-"),
            principal: "-".to_owned(),
            server: server.to_string(),
            method: Method::Call,
            name: tool.to_owned(),
            args: args.clone(),
            definition: Digest::of(b""),
            meta: None,
            identity: Digest::of(b""),
        },
    }
}

/// One line of the matrix: what a call meets in each column.
struct Line<'a> {
    group: &'a GroupName,
    tool: String,
    cells: [&'static str; 4],
    traits: Traits,
}

const COLUMNS: [(&str, &[Label]); 4] = [
    ("nothing", &[]),
    ("untrusted", &[Label::Untrusted]),
    ("secret", &[Label::Secret]),
    ("both", &[Label::Untrusted, Label::Secret]),
];

fn matrix(config: &Config) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let now = Timestamp::now();
    // What depends on the arguments is in no table.
    let mut policy = config.policy.clone();
    policy.rules.retain(|rule| rule.when.is_none());
    for (name, group) in &config.groups {
        for server in &group.servers {
            for tool in tools(config, server) {
                let mut traits = Traits::UNDECLARED;
                let cells = COLUMNS.map(|(_, labels)| {
                    let circumstances = Circumstances {
                        labels: labels.iter().copied().collect(),
                        person: None,
                        now,
                        hints: None,
                    };
                    let facts = facts(config, name, server, &tool, &json!({}), &circumstances);
                    traits = facts.traits;
                    explain(&policy, &facts).decision.as_str()
                });
                lines.push(Line {
                    group: name,
                    tool: format!("{server}__{tool}"),
                    cells,
                    traits,
                });
            }
        }
    }
    lines
}

/// The tools of a server that the configuration or a rule names, and [`ANY`] for the others. A
/// rule's `admin*` stands for itself: its own pattern fits it.
fn tools(config: &Config, server: &ServerName) -> BTreeSet<String> {
    let said = config
        .servers
        .get(server)
        .into_iter()
        .flat_map(|server| server.tools.keys().cloned());
    let ruled = config
        .policy
        .rules
        .iter()
        .flat_map(|rule| rule.tools.iter().flatten())
        .filter_map(|pattern| {
            let (name, tool) = pattern.as_str().split_once("__")?;
            (name == server.as_str()).then(|| tool.to_owned())
        });
    said.chain(ruled).chain([ANY.to_owned()]).collect()
}

fn show(config: &Config, out: Output) -> Result<(), Failure> {
    let lines = matrix(config);
    let matrix: Vec<Value> = lines
        .iter()
        .map(|line| {
            let cells: BTreeMap<&str, &str> = COLUMNS
                .iter()
                .zip(line.cells)
                .map(|((name, _), cell)| (*name, cell))
                .collect();
            json!({
                "group": line.group,
                "tool": line.tool,
                "traits": line.traits,
                "nothing": cells.get("nothing"),
                "untrusted": cells.get("untrusted"),
                "secret": cells.get("secret"),
                "both": cells.get("both"),
            })
        })
        .collect();
    let value =
        json!({"revision": config.revision, "matrix": matrix, "rules": config.policy.rules});
    out.print(&value, || {
        let rows = lines
            .iter()
            .map(|line| {
                let mut row: Vec<Cell> = vec![line.group.as_str().into(), line.tool.as_str().into()];
                row.extend(line.cells.map(Cell::word));
                row.push(traits_text(line.traits).into());
                row
            })
            .collect();
        let mut text = "What a call meets, by what its conversation has read (`*`: every other tool).\n\
            A credential in the arguments, a changed definition or the server's own hints can turn `allow` into `ask`; rules with a condition are not in the table.\n\n"
            .to_owned();
        text += &out.table(
            &["GROUP", "TOOL", "NOTHING", "UNTRUSTED", "SECRET", "BOTH", "TRAITS"],
            rows,
            "no group has a server",
        );
        text += "\nRules (deny beats ask beats allow; their order never matters)\n";
        if config.policy.rules.is_empty() {
            text += "  none\n";
        }
        for rule in &config.policy.rules {
            let _ = writeln!(text, "  {}", rule_text(rule, out));
        }
        text
    })
}

fn rule_text(rule: &Rule, out: Output) -> String {
    let effect = match rule.then {
        Effect::Allow => "allow",
        Effect::Ask => "ask",
        Effect::Deny => "deny",
    };
    let mut text = format!("{}: {}", printable(&rule.name), out.word(effect));
    let mut part = |name: &str, items: Vec<&str>| {
        text += &printable(&format!(" · {name} {}", items.join(", ")));
    };
    if let Some(groups) = &rule.groups {
        part("groups", groups.iter().map(GroupName::as_str).collect());
    }
    if let Some(servers) = &rule.servers {
        part(
            "servers",
            servers.iter().map(policy::rule::Pattern::as_str).collect(),
        );
    }
    if let Some(tools) = &rule.tools {
        part(
            "tools",
            tools.iter().map(policy::rule::Pattern::as_str).collect(),
        );
    }
    if !rule.lifts.is_empty() {
        part(
            "lifts",
            rule.lifts.iter().map(|gate| gate.as_str()).collect(),
        );
    }
    if let Some(when) = &rule.when {
        part("when", vec![when.source()]);
    }
    if let Some(until) = rule.until {
        part("until", vec![&until.to_string()]);
    }
    text
}
