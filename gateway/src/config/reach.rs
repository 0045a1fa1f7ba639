//! Rules that could never say anything: what no server offers, what no group may use, what another rule
//! always denies.

use policy::rule::{Effect, Pattern, Rule};

use super::Config;
use super::people::listed;
use super::read::Item;

/// Says which of the rules, read from `item`, are out of reach.
pub(super) fn check(item: &Item<'_>, config: &Config) {
    for item in item.list().unwrap_or_default() {
        let Some(table) = item.table() else { continue };
        let name = table.get("name");
        let name = name.as_ref().and_then(Item::as_text);
        let rules = &config.policy.rules;
        let Some(rule) = rules.iter().find(|rule| name == Some(rule.name.as_str())) else {
            continue;
        };
        let targets = targets(config, rule);
        let selector = ["tools", "servers", "groups"]
            .into_iter()
            .find_map(|key| table.get(key));
        let Some(selector) = selector else { continue };
        if targets.is_empty() {
            // Where one of them names nothing, that is told already.
            if rule.tools.is_some() && rule.servers.is_some() && each_names(config, rule) {
                selector.problem(
                    "none of these tools is on one of its `servers`, so the rule fits nothing",
                    "leave `servers` out: a tool names its server",
                );
            }
            continue;
        }
        let groups = config.groups.iter();
        let mut groups = groups.filter(|(name, _)| {
            let all = rule.groups.as_ref();
            all.is_none_or(|all| all.contains(name))
        });
        let known = rule
            .groups
            .as_ref()
            .is_none_or(|all| all.iter().all(|name| config.groups.contains_key(name)));
        let reached = groups.any(|(_, group)| {
            let model = group.model.as_ref();
            let model = model.map(|model| format!("model:{}", model.provider));
            let servers = group.servers.iter().map(policy::ids::ServerName::as_str);
            let mut all = servers.chain(model.as_deref());
            all.any(|server| targets.iter().any(|target| target == server))
        });
        if known && !reached && !config.groups.is_empty() {
            selector.problem(
                "no group that the rule is for has such a server, so it fits nothing",
                &format!(
                    "give one of its groups a server of {}",
                    listed(&targets, "")
                ),
            );
        }
        let denied = rules.iter().find(|deny| beats(deny, rule));
        if let Some(deny) = denied {
            item.problem_at_key(
                format!("rule `{}` denies all that this one speaks of", deny.name),
                Some("remove one of them, or narrow the other"),
            );
        }
    }
}

/// The servers, and providers of models, that a rule can speak of.
fn targets(config: &Config, rule: &Rule) -> Vec<String> {
    let servers = config.servers.keys().map(ToString::to_string);
    let models = config.models.keys().map(|name| format!("model:{name}"));
    let fits = |server: &String| {
        let by_server = rule.servers.as_ref();
        let by_tool = rule.tools.as_ref();
        by_server.is_none_or(|all| all.iter().any(|one| one.matches(server)))
            && by_tool.is_none_or(|all| all.iter().any(|one| is_on(one, server)))
    };
    servers.chain(models).filter(fits).collect()
}

/// Whether a pattern for tools can fit one of a server.
fn is_on(pattern: &Pattern, server: &str) -> bool {
    match pattern.as_str().split_once("__") {
        Some((name, _)) => Pattern::new(name).matches(server),
        // Such as `*`, or `mail*`.
        None => pattern
            .as_str()
            .split_once('*')
            .is_some_and(|(start, _)| server.starts_with(start) || start.starts_with(server)),
    }
}

fn each_names(config: &Config, rule: &Rule) -> bool {
    let alone = |rule: Rule| !targets(config, &rule).is_empty();
    alone(Rule {
        servers: None,
        ..rule.clone()
    }) && alone(Rule {
        tools: None,
        ..rule.clone()
    })
}

/// Whether `deny` denies, always, all that `rule` speaks of.
fn beats(deny: &Rule, rule: &Rule) -> bool {
    let lasts = match (deny.until, rule.until) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(deny), Some(rule)) => deny >= rule,
    };
    let groups = match (&deny.groups, &rule.groups) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(deny), Some(rule)) => rule.iter().all(|group| deny.contains(group)),
    };
    deny.name != rule.name
        && deny.then == Effect::Deny
        && rule.then != Effect::Deny
        && deny.when.is_none()
        && lasts
        && groups
        && covers(deny.servers.as_deref(), rule.servers.as_deref())
        && covers(deny.tools.as_deref(), rule.tools.as_deref())
}

/// Whether everything that fits one of `narrow` fits one of `wide`. A pattern that fits another's text
/// fits all that the other does: its own stars are all that can stand for the other's.
fn covers(wide: Option<&[Pattern]>, narrow: Option<&[Pattern]>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow
            .iter()
            .all(|one| wide.iter().any(|other| other.matches(one.as_str()))),
    }
}
