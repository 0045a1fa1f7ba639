//! `[[rules]]`.

use policy::condition::Condition;
use policy::ids::GroupName;
use policy::rule::{Effect, Gate, Pattern, Rule};

use super::Config;
use super::people::listed;
use super::read::{Item, Table};

const GATES: [(&str, Gate); 4] = [
    ("public_sink", Gate::PublicSink),
    ("dangerous_writes", Gate::DangerousWrites),
    ("credential", Gate::Credential),
    ("changed_tool", Gate::ChangedTool),
];

/// Reads every rule; `servers` (a provider of models is `model:NAME`) and `groups` are the names that
/// the file has.
pub(super) fn read(item: &Item<'_>, servers: &[String], groups: &[String]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for item in item.list().unwrap_or_default() {
        let Some(table) = item.table() else { continue };
        let name = name(&table);
        if let Some((item, name)) = &name
            && rules.iter().any(|rule| rule.name == *name)
        {
            item.problem(
                "another rule has this name",
                "every rule has its own: the log tells them apart by it",
            );
        }
        let rule = rule(&table, name.map(|(_, name)| name), servers, groups);
        table.done();
        rules.extend(rule);
    }
    rules
}

fn name<'a>(table: &Table<'a>) -> Option<(Item<'a>, String)> {
    let Some(item) = table.get("name") else {
        table.problem(
            "the rule has no `name`",
            "every rule has its own: the log tells them apart by it",
        );
        return None;
    };
    let text = item.text()?;
    let fits = text.chars().count() <= 64
        && crate::text::printable(text) == text
        && text.trim() == text
        // The log writes a person's grant as `approval ID`.
        && !text.starts_with("approval ")
        // And a rule that came of an answer is `always ID`.
        && !text.starts_with("always ");
    if !fits {
        item.problem(
            format!("{text:?} is no name for a rule"),
            "accepted: up to 64 characters that can be seen, not beginning with `approval ` or `always `",
        );
        return None;
    }
    let name = text.to_owned();
    Some((item, name))
}

fn rule(
    table: &Table<'_>,
    name: Option<String>,
    servers: &[String],
    groups: &[String],
) -> Option<Rule> {
    let for_groups = table.get("groups").map(|item| {
        some(&item);
        item.names::<GroupName>()
            .into_iter()
            .map(|(item, name)| {
                if !groups.iter().any(|group| group == name.as_str()) {
                    item.problem(
                        format!("there is no group `{name}`"),
                        &listed(groups, "`[groups.NAME]`"),
                    );
                }
                name
            })
            .collect()
    });
    let then = effect(table);
    let for_servers = table.get("servers").map(|item| {
        patterns(&item, |item, text| {
            server(item, text, servers);
            not_held(item, text, then);
        })
    });
    let for_tools = table.get("tools").map(|item| {
        patterns(&item, |item, text| {
            tool(item, text, servers);
            not_held(item, text, then);
        })
    });
    let when = table
        .get("when")
        .map(|item| condition(&item, name.as_deref()));
    let until = table.get("until").map(|item| item.timestamp());
    let lifts = lifts(table, then);
    let people = people(table, then);
    Some(Rule {
        name: name?,
        groups: for_groups,
        servers: for_servers,
        tools: for_tools,
        // A condition that cannot be read is a problem, and no rule without one.
        when: match when {
            Some(when) => Some(when?),
            None => None,
        },
        until: match until {
            Some(until) => Some(until?),
            None => None,
        },
        then: then?,
        lifts,
        people,
    })
}

/// How many people must say yes where a rule asks.
fn people(table: &Table<'_>, then: Option<Effect>) -> u8 {
    let Some(item) = table.get("people") else {
        return 1;
    };
    if matches!(then, Some(Effect::Allow | Effect::Deny)) {
        item.problem_at_key("only an `ask` waits for people", Some("remove it"));
        return 1;
    }
    let number = item.number(1..=9);
    number
        .and_then(|number| u8::try_from(number).ok())
        .unwrap_or(1)
}

/// Says where a rule asks for more people than may answer.
pub(super) fn enough_people(item: &Item<'_>, config: &Config) {
    for item in item.list().unwrap_or_default() {
        let Some(table) = item.table() else { continue };
        let (Some(item), Some(name)) = (table.get("people"), table.get("name")) else {
            continue;
        };
        let rules = &config.policy.rules;
        let rule = rules
            .iter()
            .find(|rule| name.as_text() == Some(rule.name.as_str()));
        let Some(rule) = rule else { continue };
        let needed = usize::from(rule.people);
        for group in config.groups.keys() {
            let for_it = rule.groups.as_ref().is_none_or(|all| all.contains(group));
            let may = config.approvers(group.as_str());
            if for_it && may.len() < needed {
                let names: Vec<&str> = may.iter().map(|name| name.as_str()).collect();
                item.problem(
                    format!(
                        "in group `{group}` {} may answer, so its questions could never be allowed",
                        match names.as_slice() {
                            [] => "nobody".to_owned(),
                            [one] => format!("only `{one}`"),
                            more => format!("only {more:?}"),
                        }
                    ),
                    "name more `approvers` in the group, give more users the role \"owner\", or ask for fewer",
                );
            }
        }
    }
}

fn condition(item: &Item<'_>, rule: Option<&str>) -> Option<Condition> {
    match Condition::parse(item.text()?) {
        Ok(condition) => {
            for path in condition.paths() {
                item.reads(rule.unwrap_or_default(), path);
            }
            Some(condition)
        }
        Err(flaws) => {
            for flaw in flaws {
                item.problem_within(&flaw.at, flaw.message, &flaw.accepted);
            }
            None
        }
    }
}

fn effect(table: &Table<'_>) -> Option<Effect> {
    let Some(item) = table.get("then") else {
        table.problem(
            "the rule does not say what happens",
            "accepted: `then` = \"allow\", \"ask\" or \"deny\"",
        );
        return None;
    };
    item.word(&[
        ("allow", Effect::Allow),
        ("ask", Effect::Ask),
        ("deny", Effect::Deny),
    ])
}

fn lifts(table: &Table<'_>, then: Option<Effect>) -> Vec<Gate> {
    let names: Vec<&str> = GATES.iter().map(|(name, _)| *name).collect();
    let accepted = format!("accepted: `lifts` with some of {names:?}");
    let Some(item) = table.get("lifts") else {
        if then == Some(Effect::Allow) {
            table.problem("an `allow` without `lifts` allows nothing", &accepted);
        }
        return Vec::new();
    };
    if matches!(then, Some(Effect::Ask | Effect::Deny)) {
        item.problem_at_key("only an `allow` lifts gates", Some("remove it"));
        return Vec::new();
    }
    let items = item.list().unwrap_or_default();
    if items.is_empty() && item.is_list() {
        item.problem("it lifts nothing", &accepted);
    }
    items.iter().filter_map(|item| item.word(&GATES)).collect()
}

/// A selector that is there names something: an empty one would fit nothing.
fn some(item: &Item<'_>) {
    if item.is_list() && item.list().is_some_and(|items| items.is_empty()) {
        item.problem(
            "the list is empty, so the rule fits nothing",
            "leave it out to fit everything",
        );
    }
}

fn patterns(item: &Item<'_>, check: impl Fn(&Item<'_>, &str)) -> Vec<Pattern> {
    some(item);
    item.list()
        .unwrap_or_default()
        .iter()
        .filter_map(|item| {
            let text = item.text()?;
            check(item, text);
            Some(Pattern::new(text))
        })
        .collect()
}

fn server(item: &Item<'_>, name: &str, servers: &[String]) {
    let pattern = Pattern::new(name);
    if !servers.iter().any(|server| pattern.matches(server)) {
        item.problem(
            format!("there is no server `{name}`"),
            &listed(servers, "`[mcp_servers.NAME]`"),
        );
    }
}

/// A model call is allowed or denied; nobody is asked about one.
fn not_held(item: &Item<'_>, text: &str, then: Option<Effect>) {
    if then == Some(Effect::Ask) && text.starts_with("model:") {
        item.problem(
            "a model call does not wait for a person",
            "say `then` = \"deny\", or take it out",
        );
    }
}

fn tool(item: &Item<'_>, text: &str, servers: &[String]) {
    match text.split_once("__") {
        Some((name, tool)) if !tool.is_empty() => server(item, name, servers),
        None if text.contains('*') => {}
        Some(_) | None => item.problem(
            format!("{text:?} names no tool"),
            "accepted: `server__tool`, where `*` stands for anything, such as \"mail__send\", \"mail__*\", \"model:main__*\"",
        ),
    }
}
