//! The chat of a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use channels::web::{Body, Item, RunState, ToolState};
use policy::ids::UserName;
use serde::Deserialize;

use super::cards::CardView;
use super::view::{Argument, Text, Time, Word, arguments, hint, page};
use crate::api::{self, Api, Refused, Who, groups};

/// How many items a page has.
const ITEMS: u64 = 60;

/// A piece of running text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    /// As it was written, with its lines.
    Words(Text),
    /// What stood between two fences.
    Code(Text),
}

/// Cuts a text where a fence of three backticks begins a line. Nothing else of it is read.
fn blocks(text: &str) -> Vec<Block> {
    let mut all = Vec::new();
    let (mut lines, mut code) = (Vec::new(), false);
    let mut end = |lines: &mut Vec<&str>, code: bool| {
        let text = lines.join("\n");
        lines.clear();
        if code {
            all.push(Block::Code(Text::lines(&text)));
        } else if !text.trim().is_empty() {
            all.push(Block::Words(Text::prose(text.trim_matches('\n'))));
        }
    };
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            end(&mut lines, code);
            code = !code;
        } else {
            lines.push(line);
        }
    }
    end(&mut lines, code);
    all
}

/// An item as its template wants it.
#[derive(Debug, Template)]
#[template(path = "item.html")]
pub(super) struct ItemView {
    pub(super) id: String,
    pub(super) pos: i64,
    at: Time,
    body: BodyView,
}

#[derive(Debug)]
enum BodyView {
    Person {
        by: Text,
        mine: bool,
        blocks: Vec<Block>,
    },
    Agent {
        script: bool,
        blocks: Vec<Block>,
    },
    Tool {
        state: Word,
        tool: Text,
        hint: Text,
        args: Vec<Argument>,
        action: String,
        card: Option<Box<CardView>>,
    },
    Run {
        state: &'static str,
        /// What is said of it in the conversation.
        said: Option<Word>,
        text: Option<Text>,
    },
    Notice {
        text: Text,
    },
}

fn tool_word(state: ToolState) -> Word {
    let (text, tone) = match state {
        ToolState::Running => ("doing", "careful"),
        ToolState::Waiting => ("waiting for a person", "careful"),
        ToolState::Ok => ("done", "good"),
        ToolState::Error => ("failed", "bad"),
        ToolState::Refused => ("not done", "faint"),
        ToolState::Unknown => ("unknown", "careful"),
    };
    Word { text, tone }
}

fn run_name(state: RunState) -> &'static str {
    match state {
        RunState::Queued => "queued",
        RunState::Working => "working",
        RunState::Waiting => "waiting",
        RunState::Done => "done",
        RunState::Failed => "failed",
        RunState::Stopped => "stopped",
    }
}

/// What stays in the conversation of how a task went; what is under way is shown elsewhere.
fn run_word(state: RunState) -> Option<Word> {
    let word = |text, tone| Some(Word { text, tone });
    match state {
        RunState::Failed => word("This did not work", "bad"),
        RunState::Stopped => word("Stopped", "faint"),
        RunState::Queued | RunState::Working | RunState::Waiting | RunState::Done => None,
    }
}

impl ItemView {
    fn new(who: &Who, item: Item, card: Option<CardView>) -> Self {
        let mine = |by: &str| who.named().is_ok_and(|me| me.as_str() == by);
        let body = match item.body {
            Body::Person { by, text } => BodyView::Person {
                mine: mine(&by),
                by: Text::line(&by),
                blocks: blocks(&text),
            },
            Body::Agent { text, script } => BodyView::Agent {
                script,
                blocks: blocks(&text),
            },
            Body::Tool {
                action,
                tool,
                args,
                state,
                question: _,
            } => BodyView::Tool {
                state: tool_word(state),
                tool: Text::line(&tool),
                hint: hint(&args),
                args: arguments(&args),
                action,
                card: card.map(Box::new),
            },
            Body::Run {
                run: _,
                state,
                text,
            } => BodyView::Run {
                state: run_name(state),
                said: run_word(state),
                text: text.as_deref().map(Text::prose),
            },
            Body::Notice { text } => BodyView::Notice {
                text: Text::prose(&text),
            },
        };
        Self {
            id: item.id,
            pos: item.pos,
            at: item.at.into(),
            body,
        }
    }
}

/// Items with the cards of the questions that they name.
pub(super) async fn views(
    api: &Api,
    who: &Who,
    items: Vec<Item>,
) -> Result<Vec<ItemView>, Refused> {
    let mut questions = Vec::new();
    for item in &items {
        if let Body::Tool {
            question: Some(id), ..
        } = &item.body
            && let Ok(shown) = api::approvals::find(api, who, id).await
        {
            questions.push(shown);
        }
    }
    let cards = api::card::cards(api, questions).await?;
    let mut cards: BTreeMap<String, CardView> = cards
        .iter()
        .map(|card| (card.shown.id.clone(), CardView::new(api, who, card)))
        .collect();
    let view = |item: Item| {
        let card = match &item.body {
            Body::Tool { question, .. } => question.as_ref().and_then(|id| cards.remove(id)),
            Body::Person { .. } | Body::Agent { .. } | Body::Run { .. } | Body::Notice { .. } => {
                None
            }
        };
        ItemView::new(who, item, card)
    };
    Ok(items.into_iter().map(view).collect())
}

#[derive(Template)]
#[template(path = "chat.html")]
struct Chat {
    group: String,
    groups: Vec<String>,
    model: Option<Text>,
    script: bool,
    people: Option<Text>,
    may_speak: bool,
    newest: i64,
    items: Vec<ItemView>,
    more: bool,
    me: String,
}

#[derive(Template)]
#[template(path = "items.html")]
struct Older {
    items: Vec<ItemView>,
    more: bool,
}

#[derive(Template)]
#[template(path = "no-group.html")]
struct NoGroup;

/// The first group's chat.
pub(super) async fn first(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Result<Response, Refused> {
    let groups = groups::seen(&api, &who).await;
    match groups.first() {
        Some(group) => chat(&api, &who, group.name.as_str()).await,
        None => Ok(page(&NoGroup)),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Before {
    before: Option<i64>,
}

/// A group's chat, or what was shown before.
pub(super) async fn of_group(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(group): Path<String>,
    Query(Before { before }): Query<Before>,
) -> Result<Response, Refused> {
    if before.is_none() {
        return chat(&api, &who, &group).await;
    }
    let group = groups::theirs(&api, &who, &group)?;
    let (items, _) = groups::page(&api, &group, before, ITEMS).await?;
    let more = items.len() as u64 == ITEMS;
    let items = views(&api, &who, items).await?;
    Ok(page(&Older { items, more }))
}

async fn chat(api: &Api, who: &Who, name: &str) -> Result<Response, Refused> {
    let name = groups::theirs(api, who, name)?;
    let all = groups::seen(api, who).await;
    let (items, newest) = groups::page(api, &name, None, ITEMS).await?;
    let more = items.len() as u64 == ITEMS;
    let items = views(api, who, items).await?;
    let Some(group) = all.iter().find(|one| one.name == name) else {
        return Ok(Refused::nothing_there().into_response());
    };
    let people: Vec<&str> = group.members.iter().map(UserName::as_str).collect();
    Ok(page(&Chat {
        model: group.model.as_deref().map(Text::line),
        script: group.script,
        people: (!people.is_empty()).then(|| Text::line(&people.join(", "))),
        may_speak: group.may_speak,
        groups: all.iter().map(|one| one.name.to_string()).collect(),
        group: name.to_string(),
        newest,
        items,
        more,
        me: who.named()?.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_make_code_and_nothing_else_is_read() {
        let shown = |text: &str| {
            let one = |block: &Block| match block {
                Block::Words(text) => format!("[{text}]"),
                Block::Code(text) => format!("<{text}>"),
            };
            blocks(text).iter().map(one).collect::<String>()
        };
        for (text, expected) in [
            ("a\nb", "[a\nb]"),
            ("a\n```rust\nx\n\ny\n```\nb", "[a]<x\n\ny>[b]"),
            ("```\nnever closed", "<never closed>"),
            ("a ``` b", "[a ``` b]"),
            ("", ""),
            ("<b>\u{202e}", "[<b>\\u{202e}]"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
