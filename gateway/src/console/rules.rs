//! The page of rules that came of an *always*, and of where people's attention goes.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;

use super::view::{Text, Time, Word, page};
use crate::api::rules::{Attention, Count, Ruled, Spare, attention_of, seen};
use crate::api::{Api, Refused, Who};

struct RuleView {
    id: String,
    group: String,
    state: Word,
    counts: bool,
    mine: bool,
    words: Text,
    toml: Text,
    by: String,
    at: Time,
    until: Option<Time>,
    revoked_by: Option<String>,
}

struct OfferView {
    width: String,
    /// As it is: it is sent back, and compared.
    when: Option<String>,
    words: Text,
    said: String,
    toml: Text,
}

struct SpareView {
    group: String,
    tool: Text,
    allowed: usize,
    question: String,
    mine: bool,
    rules: Vec<OfferView>,
}

struct CountView {
    of: &'static str,
    name: Text,
    group: String,
    asks: usize,
    allowed: String,
    took: String,
}

impl From<Count> for CountView {
    fn from(count: Count) -> Self {
        let percent = count.allow_percent;
        Self {
            of: count.of,
            name: Text::line(&count.name),
            group: count.group,
            asks: count.asks,
            allowed: percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent} %")),
            took: match count.answer_p50_seconds {
                None => "–".to_owned(),
                Some(seconds) if seconds < 120 => format!("{seconds} s"),
                Some(seconds) if seconds < 7200 => format!("{} min", seconds / 60),
                Some(seconds) => format!("{} h", seconds / 3600),
            },
        }
    }
}

#[derive(Template)]
#[template(path = "rules.html")]
struct Rules {
    made: Vec<RuleView>,
    digest: Vec<SpareView>,
    counts: Vec<CountView>,
    days: i64,
}

/// The page.
pub(super) async fn rules(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Result<Response, Refused> {
    let config = &api.broker.config.now();
    let may = |group: &str| who.may_decide(config, group) && who.barred(config).is_none();
    let rules = seen(&api, &who);
    let Attention {
        days,
        counts,
        digest,
    } = attention_of(&api, &who).await?;
    Ok(page(&Rules {
        made: rules.into_iter().map(|one| ruled(one, may)).collect(),
        digest: digest.into_iter().map(|one| spare(one, may)).collect(),
        counts: counts.into_iter().map(CountView::from).collect(),
        days,
    }))
}

fn ruled(one: Ruled, may: impl Fn(&str) -> bool) -> RuleView {
    let (text, tone) = match one.state {
        "counts" => ("counts", "good"),
        "spent" => ("spent", "faint"),
        _ => ("revoked", "faint"),
    };
    RuleView {
        state: Word { text, tone },
        counts: one.state == "counts",
        mine: may(&one.group),
        words: Text::line(&one.words),
        toml: Text::lines(&one.toml),
        at: one.at.into(),
        until: one.until.map(Time::from),
        id: one.id,
        group: one.group,
        by: one.by,
        revoked_by: one.revoked_by,
    }
}

fn spare(one: Spare, may: impl Fn(&str) -> bool) -> SpareView {
    let rules = one.rules.into_iter().map(|rule| OfferView {
        width: format!("{:?}", rule.width).to_lowercase(),
        words: Text::line(&rule.words),
        toml: Text::lines(&rule.toml),
        when: rule.when,
        said: rule.said,
    });
    SpareView {
        mine: may(&one.group),
        tool: Text::line(&one.tool),
        allowed: one.allowed,
        question: one.question,
        rules: rules.collect(),
        group: one.group,
    }
}
