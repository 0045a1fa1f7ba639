//! Who asks, through which door, and what of it is theirs.

use axum::http::{HeaderMap, StatusCode};
use policy::ids::UserName;

use super::Refused;
use crate::config::{Config, Group, Role};
use crate::console::sessions::{Origin, Session};

/// The door that a person came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// The owner's socket: the operating system says that it is the owner of the data directory.
    Socket,
    /// The console: a session says who it is.
    Console {
        /// The session's id.
        session: String,
        /// Who asked for the link that opened it.
        origin: Origin,
    },
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// `None` at the owner's socket, where it was not said and there is not exactly one owner. It
    /// may read, for it can read the database too, and may change nothing.
    person: Option<(UserName, Role)>,
    entrance: Entrance,
}

impl Who {
    /// Who speaks over the owner's socket: `--user`, else the only owner there is.
    pub(super) fn at_socket(config: &Config, headers: &HeaderMap) -> Result<Self, Refused> {
        let entrance = Entrance::Socket;
        if let Some(named) = headers.get("x-portcullis-user") {
            let named = named.to_str().ok();
            let named = named.and_then(|name| name.parse::<UserName>().ok());
            let known = named
                .and_then(|name| config.users.get(&name).map(|user| (name, user.role)))
                .ok_or_else(|| {
                    let text = "`--user` is nobody of the configuration";
                    Refused::new(StatusCode::BAD_REQUEST, text)
                })?;
            let person = Some(known);
            return Ok(Self { person, entrance });
        }
        let mut owners = config
            .users
            .iter()
            .filter(|(_, user)| user.role == Role::Owner);
        let person = match (owners.next(), owners.next()) {
            (Some((name, user)), None) => Some((name.clone(), user.role)),
            _ => None,
        };
        Ok(Self { person, entrance })
    }

    /// Who is at a page of the console.
    pub(super) fn at_console(session: Session) -> Self {
        Self {
            person: Some((session.person, session.role)),
            entrance: Entrance::Console {
                session: session.id,
                origin: session.origin,
            },
        }
    }

    /// The door they came through.
    pub fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// Who it is, for the log.
    pub(super) fn label(&self) -> String {
        match &self.person {
            Some((name, _)) => format!("user:{name}"),
            None => "the owner's socket".to_owned(),
        }
    }

    /// Who it is, where something is to be done in their name.
    ///
    /// # Errors
    /// [`Refused`], where nobody said.
    pub fn named(&self) -> Result<&UserName, Refused> {
        let name = self.person.as_ref().map(|(name, _)| name);
        name.ok_or_else(|| {
            Refused::new(
                StatusCode::BAD_REQUEST,
                "say who you are with `--user`: there is not exactly one owner",
            )
        })
    }

    /// What they may do.
    pub fn role(&self) -> Role {
        self.person.as_ref().map_or(Role::Owner, |(_, role)| *role)
    }

    /// Who it is, where only an owner may do it.
    ///
    /// # Errors
    /// [`Refused`], where it is not one.
    pub fn owner(&self, what: &str) -> Result<&UserName, Refused> {
        let name = self.named()?;
        if self.role() == Role::Owner {
            return Ok(name);
        }
        Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!("only an owner {what}"),
        ))
    }

    /// Whether what happens in a group is theirs to see. What belongs to no group is the owners'.
    pub fn may_see(&self, config: &Config, group: &str) -> bool {
        match &self.person {
            None | Some((_, Role::Owner)) => true,
            Some((name, role)) => config
                .group(group)
                .is_some_and(|group| is_member(group, name) || group.may_decide(name, *role)),
        }
    }

    /// Whether they may speak to a group's agent: its members alone, whatever else they are.
    pub fn may_speak(&self, config: &Config, group: &str) -> bool {
        let person = self.person.as_ref();
        person.is_some_and(|(name, _)| {
            config
                .group(group)
                .is_some_and(|group| is_member(group, name))
        })
    }

    /// Whether they may answer the questions of a group, by who they are.
    pub fn may_decide(&self, config: &Config, group: &str) -> bool {
        let person = self.person.as_ref();
        person.is_some_and(|(name, role)| config.may_decide(group, name, *role))
    }

    /// Why the way they came in by leaves no decision, if it does: `[approvals] cli = false` means
    /// that nothing on the owner's own account decides, neither a command nor a browser that was let
    /// in by one.
    pub fn barred(&self, config: &Config) -> Option<&'static str> {
        if config.approvals.cli {
            return None;
        }
        match self.entrance {
            Entrance::Socket => Some(
                "the configuration says `[approvals] cli = false`: decide in a channel or the console",
            ),
            Entrance::Console {
                origin: Origin::Command,
                ..
            } => Some(
                "the configuration says `[approvals] cli = false`, and this browser was let in by a command: log in with the link that `up` printed",
            ),
            Entrance::Console {
                origin: Origin::Start,
                ..
            } => None,
        }
    }
}

/// Where a group names no members, everybody with access is one.
fn is_member(group: &Group, name: &UserName) -> bool {
    group.members.is_empty() || group.members.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[mcp_servers.s]
command = "s"
[groups.open]
servers = ["s"]
[groups.work]
servers = ["s"]
members = ["ana", "bo"]
approvers = ["cy"]
[users.owner]
role = "owner"
[users.ana]
role = "member"
[users.bo]
role = "approver"
[users.cy]
role = "member"
[users.dee]
role = "approver"
"#;

    #[test]
    fn who_may_see_speak_and_decide() {
        let config = Config::parse(CONFIG, std::path::Path::new("t.toml")).unwrap();
        let row = |user: &str, group: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-portcullis-user", user.parse().unwrap());
            let who = Who::at_socket(&config, &headers).unwrap();
            [
                (who.may_see(&config, group), "see"),
                (who.may_speak(&config, group), "speak"),
                (who.may_decide(&config, group), "decide"),
            ]
            .iter()
            .filter_map(|(may, word)| may.then_some(*word))
            .collect::<Vec<_>>()
            .join(" ")
        };
        for (user, group, may) in [
            ("owner", "open", "see speak decide"),
            ("owner", "work", "see decide"),
            ("owner", "gone", "see decide"),
            ("ana", "open", "see speak"),
            ("ana", "work", "see speak"),
            ("ana", "gone", ""),
            ("bo", "open", "see speak decide"),
            ("bo", "work", "see speak"),
            ("cy", "work", "see decide"),
            ("dee", "open", "see speak decide"),
            ("dee", "work", ""),
        ] {
            assert_eq!(row(user, group), may, "{user} in {group}");
        }
    }
}
