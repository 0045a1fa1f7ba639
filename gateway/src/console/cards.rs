//! A question as a card: the effect first, then every argument, then why, then the answers.

use askama::Template;
use policy::approval::State;
use policy::ids::UserName;
use policy::record::Outcome;

use super::view::{Argument, Read, Reason, Text, Time, Word, arguments, reasons};
use crate::api::card::Card;
use crate::api::{Api, Who};
use crate::approvals::Shown;

/// A card on a page.
#[derive(Debug, Template)]
#[template(path = "card.html")]
pub(super) struct CardView {
    pub(super) id: String,
    pub(super) open: bool,
    gone: bool,
    state: Word,
    /// How it ended, in a sentence.
    told: String,
    group: String,
    effect: Text,
    destinations: Vec<(Text, Text)>,
    tool: Text,
    principal: Text,
    args: Vec<Argument>,
    reasons: Vec<Reason>,
    read: Vec<Read>,
    rules: Vec<Text>,
    asked: Time,
    expires: Time,
    action: String,
    /// How many people must say yes and who did, where it takes more than one.
    people: Option<Text>,
    /// The reader is one of them.
    said: bool,
    /// Who may answer.
    approvers: String,
    /// Questions of one card have the same.
    batch: Option<String>,
    /// The question whose arguments a person changed into these.
    edits: Option<String>,
    /// The question that a person changed it into.
    edited_as: Option<String>,
    /// For how long a yes may count, and whether the arguments can be changed.
    choices: Vec<&'static str>,
    /// Why the reader cannot answer it, if so.
    barred: Option<String>,
}

impl CardView {
    /// A card for this reader.
    pub(super) fn new(api: &Api, who: &Who, card: &Card) -> Self {
        let shown = &card.shown;
        let barred = if who.may_decide(&api.broker.config.now(), &shown.group) {
            who.barred(&api.broker.config.now()).map(str::to_owned)
        } else {
            Some("You see this question; answering it is for this group's approvers.".to_owned())
        };
        Self {
            id: shown.id.clone(),
            open: shown.state.is_open(),
            gone: shown.state == State::CallerGone,
            state: shown.state.into(),
            told: told(card),
            group: shown.group.clone(),
            effect: Text::line(
                &card
                    .title
                    .clone()
                    .unwrap_or_else(|| plain_name(&shown.tool)),
            ),
            destinations: card
                .destinations
                .iter()
                .map(|one| (Text::line(&one.name), Text::line(&one.value)))
                .collect(),
            tool: Text::line(&shown.tool),
            principal: Text::line(&card.principal),
            args: arguments(&shown.args),
            reasons: reasons(&shown.reasons, &card.gates),
            read: card.because.iter().map(Read::from).collect(),
            rules: card.rules.iter().map(|rule| Text::line(rule)).collect(),
            asked: shown.asked_at.into(),
            expires: shown.expires_at.into(),
            action: shown.action.clone(),
            people: people(card).map(|text| Text::line(&text)),
            said: who
                .named()
                .is_ok_and(|me| shown.agreed.iter().any(|one| one.by == me.as_str())),
            approvers: names(card.approvers.iter().map(UserName::as_str)),
            batch: shown.batch.clone(),
            edits: shown.edits.clone(),
            edited_as: shown.edited_as.clone(),
            choices: card.choices.clone(),
            barred,
        }
    }
}

impl CardView {
    /// Whether a yes may count so long.
    fn offers(&self, how_long: &str) -> bool {
        self.choices.contains(&how_long)
    }
}

/// "ana", "ana and bo", "ana, bo and cy".
fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.into_iter().collect();
    match all.as_slice() {
        [] => "nobody".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// How many people must say yes and who did, where it takes more than one.
fn people(card: &Card) -> Option<String> {
    let Shown { people, agreed, .. } = &card.shown;
    (*people > 1).then(|| match agreed.as_slice() {
        [] => format!("It takes {people} people; nobody said yes yet"),
        said => format!(
            "{} of {people} said yes: {}",
            said.len(),
            names(said.iter().map(|one| one.by.as_str()))
        ),
    })
}

/// `server__send_letter` as a person says it: `Send letter`.
fn plain_name(tool: &str) -> String {
    let name = tool.split_once("__").map_or(tool, |(_, name)| name);
    let words = name.replace(['_', '-'], " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// How a question ended and what came of it, in a sentence.
pub(super) fn told(card: &Card) -> String {
    let shown = &card.shown;
    let by = shown.decided_by.as_deref().unwrap_or("nobody");
    let others = shown.agreed.iter().map(|one| one.by.as_str());
    let all = names(others.filter(|other| *other != by).chain([by]));
    let by = if shown.state == State::Approved {
        &all
    } else {
        by
    };
    let said = match (shown.state, shown.scope) {
        (State::Pending, _) => return "Waits for a decision".to_owned(),
        (State::CallerGone, _) => return "Who asked has gone".to_owned(),
        (State::Approved, Some("run")) => format!("{by} allowed it for this task"),
        (State::Approved, Some("always")) => {
            format!("{by} allowed it and made a rule of it")
        }
        (State::Approved, _) => format!("{by} allowed it once"),
        (State::Denied, _) => format!("{by} denied it"),
        (State::Expired, _) => "Nobody answered in time, which is a no".to_owned(),
        (State::Withdrawn, _) => "It was withdrawn".to_owned(),
    };
    let words = shown.reason.as_ref().map_or_else(String::new, |reason| {
        format!(": “{}”", crate::text::printable(reason))
    });
    let outcome = match (shown.state, shown.outcome) {
        (State::Approved, Outcome::Running) => ". It is being done",
        (State::Approved, Outcome::Ok) => ". It was done",
        (State::Approved, Outcome::Error) => ". It was tried, and failed",
        (State::Approved, Outcome::Refused) => ". It was not done after all",
        (State::Approved, Outcome::Unknown) => ". Nobody knows whether it was done",
        (
            State::Pending | State::Denied | State::Expired | State::Withdrawn | State::CallerGone,
            _,
        ) => "",
    };
    format!("{said}{words}{outcome}.")
}

#[cfg(test)]
mod tests {
    use super::plain_name;

    #[test]
    fn a_tool_is_called_as_a_person_would() {
        assert_eq!(plain_name("postbox__send_letter"), "Send letter");
        assert_eq!(
            plain_name("files resources/read x"),
            "Files resources/read x"
        );
        assert_eq!(plain_name(""), "");
    }
}
