//! What a configuration that was read anew says otherwise, and which of it can be taken now.

use std::collections::BTreeMap;
use std::fmt::Display;

use policy::rule::Rule;

use crate::config::{Config, Group, Server};

/// The configuration that is in force after a change; what changed; what waits for the next start.
pub(super) fn merge(old: &Config, new: Config) -> (Config, Vec<String>, Vec<String>) {
    let mut restart = Vec::new();
    let mut what = rules(&old.policy.rules, &new.policy.rules);
    let mut merged = new.clone();
    merged.listen = old.listen;
    merged.public_url.clone_from(&old.public_url);
    merged.behind_proxy = old.behind_proxy;
    merged.max_body = old.max_body;
    merged.max_message = old.max_message;
    merged.models.clone_from(&old.models);
    let gateway = |config: &Config| {
        (
            config.listen,
            config.public_url.clone(),
            config.behind_proxy,
            config.max_body,
            config.max_message,
        )
    };
    if gateway(old) != gateway(&new) {
        restart.push("`gateway`".to_owned());
    }
    if old.models != new.models {
        restart.push("`models`".to_owned());
    }
    merged.servers = servers(old, &new, &mut what, &mut restart);
    merged.groups = groups(old, &new, &merged.servers, &mut what, &mut restart);
    what.extend(named("user", &old.users, &merged.users));
    if old.approvals != merged.approvals {
        what.push("`approvals`".to_owned());
    }
    if !restart.is_empty() {
        // It is neither the one nor the other.
        merged.revision = crate::config::revision(&format!("{} {}", new.revision, old.revision));
    }
    (merged, what, restart)
}

/// Which rules came, went and changed.
fn rules(old: &[Rule], new: &[Rule]) -> Vec<String> {
    let by_name = |rules: &[Rule]| -> BTreeMap<String, Rule> {
        rules
            .iter()
            .map(|rule| (rule.name.clone(), rule.clone()))
            .collect()
    };
    named("rule", &by_name(old), &by_name(new))
}

fn named<K: Ord + Display, V: PartialEq>(
    noun: &str,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> Vec<String> {
    let came = new.iter().filter_map(|(name, value)| match old.get(name) {
        None => Some(format!("{noun} `{name}` is new")),
        Some(before) if before != value => Some(format!("{noun} `{name}` changed")),
        Some(_) => None,
    });
    let went = old.keys().filter(|name| !new.contains_key(name));
    came.chain(went.map(|name| format!("{noun} `{name}` is gone")))
        .collect()
}

/// The servers that run stay what they are; what is said of them is taken.
fn servers(
    old: &Config,
    new: &Config,
    what: &mut Vec<String>,
    restart: &mut Vec<String>,
) -> BTreeMap<policy::ids::ServerName, Server> {
    let mut servers = old.servers.clone();
    for (name, server) in &mut servers {
        let Some(read) = new.servers.get(name) else {
            restart.push(format!("server `{name}` is gone"));
            continue;
        };
        let taken = Server {
            transport: server.transport.clone(),
            idle_timeout: server.idle_timeout,
            start_timeout: server.start_timeout,
            ..read.clone()
        };
        if taken != *read {
            restart.push(format!("how server `{name}` is run"));
        }
        if taken != *server {
            what.push(format!("what is declared of server `{name}`"));
        }
        *server = taken;
    }
    let came = new
        .servers
        .keys()
        .filter(|name| !servers.contains_key(*name));
    restart.extend(came.map(|name| format!("server `{name}` is new")));
    servers
}

/// What groups may do is taken; their agents stay, and what is not running yet is not granted.
fn groups(
    old: &Config,
    new: &Config,
    servers: &BTreeMap<policy::ids::ServerName, Server>,
    what: &mut Vec<String>,
    restart: &mut Vec<String>,
) -> BTreeMap<policy::ids::GroupName, Group> {
    let mut groups = new.groups.clone();
    for (name, group) in &mut groups {
        group.servers.retain(|server| servers.contains_key(server));
        let before = old.groups.get(name);
        let (model, agent) = before.map_or_else(
            || (None, crate::config::Agent::default()),
            |before| (before.model.clone(), before.agent.clone()),
        );
        if (&model, &agent) != (&group.model, &group.agent) {
            restart.push(format!("the agent of group `{name}`"));
        }
        (group.model, group.agent) = (model, agent);
    }
    // Its agent may still be there: it reaches nothing, and nobody speaks for it.
    for (name, group) in &old.groups {
        if !groups.contains_key(name) {
            if group.model.is_some() {
                restart.push(format!("the agent of group `{name}`"));
            }
            let emptied = Group {
                model: group.model.clone(),
                agent: group.agent.clone(),
                contains_secrets: group.contains_secrets,
                admin: group.admin,
                ..Group::default()
            };
            groups.insert(name.clone(), emptied);
        }
    }
    what.extend(named("group", &old.groups, &groups));
    groups
}
