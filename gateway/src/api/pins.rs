//! What was pinned of each server, how it differs from that now, and a person's answer.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use jiff::Timestamp;
use policy::action::Digest;
use policy::pin::{Key, What};
use serde::{Deserialize, Serialize};

use super::servers::granted;
use super::{Api, Refused, Who, refused};
use crate::catalog::alike::Warning;
use crate::catalog::diff::{Part, parts};
use crate::catalog::{Definition, Difference, PinError, Word, question};

/// How a definition stands to its pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    /// It is what was pinned.
    Pinned,
    /// It is, or was since, another one; calls ask.
    Changed,
    /// It was never accepted, so no agent is told of it.
    New,
    /// The server does not have it any more.
    Gone,
}

/// One definition that differs, for people.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Differs {
    /// Of which kind.
    pub what: What,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: Standing,
    /// Digest over what was pinned.
    pub was: Option<Digest>,
    /// Digest over what it is.
    pub is: Option<Digest>,
    /// The server shows the pinned one again.
    pub returned: bool,
    /// The name under which it was pinned before.
    pub renamed: Option<String>,
    /// What happened, in a sentence.
    pub told: String,
    /// Every place that differs, whole.
    pub parts: Vec<Part>,
}

impl From<&Difference> for Differs {
    fn from(one: &Difference) -> Self {
        let value = |one: &Option<Definition>| one.as_ref().map(Definition::value);
        let (was, is) = (value(&one.was), value(&one.is));
        let moved = one.moved();
        let state = match (&moved.was, &moved.is) {
            (Some(_), Some(_)) => Standing::Changed,
            (None, _) => Standing::New,
            (Some(_), None) => Standing::Gone,
        };
        Self {
            told: told(&moved.key, state, one),
            what: moved.key.what,
            name: moved.key.name,
            state,
            was: moved.was,
            is: moved.is,
            returned: one.returned,
            renamed: one.renamed.clone(),
            parts: parts(was.as_ref(), is.as_ref()),
        }
    }
}

fn told(key: &Key, state: Standing, one: &Difference) -> String {
    let (has, is) = match key.what {
        What::Instructions => ("have", "are"),
        What::Tool | What::Prompt | What::Template => ("has", "is"),
    };
    let said = match state {
        Standing::Pinned => format!("{key} {is} as pinned"),
        Standing::Changed => format!("{key} {has} changed"),
        Standing::New => format!("{key} {is} new; no agent is told of it"),
        Standing::Gone => format!("{key} {is} gone"),
    };
    let renamed = one.renamed.as_ref().map_or_else(String::new, |before| {
        format!("; but for its name it is what `{before}` was")
    });
    let returned = if one.returned {
        "; meanwhile the server shows again what was pinned"
    } else {
        ""
    };
    format!("{said}{renamed}{returned}")
}

/// The pin of a server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PinView {
    /// Which server.
    pub server: String,
    /// Since when it is pinned as it is.
    pub pinned_at: Option<Timestamp>,
    /// By whom; nobody where it was trusted on first use.
    pub pinned_by: Option<String>,
    /// What an answer names: the digest over the differences.
    pub question: Digest,
    /// How it differs, as far as nobody answered to that.
    pub differences: Vec<Differs>,
    /// What to look at in its tools.
    pub warnings: Vec<Warning>,
}

/// The pins of all servers that a person sees and that ever told what they offer.
pub(crate) async fn seen(api: &Api, who: &Who) -> Vec<PinView> {
    let catalog = &api.broker.catalog;
    let mut all = Vec::new();
    let warnings = warnings(api, who);
    for status in api.broker.upstreams.status() {
        let server = status.name;
        if !granted(api, who, &server) {
            continue;
        }
        let Some(listing) = catalog.known(&server) else {
            continue;
        };
        let (pinned_at, pinned_by) = catalog.pinned(&server).await.unzip();
        all.push(PinView {
            question: question(listing.differences()),
            differences: listing.differences().iter().map(Differs::from).collect(),
            warnings: warnings
                .iter()
                .filter(|one| one.server == server)
                .cloned()
                .collect(),
            server,
            pinned_at,
            pinned_by: pinned_by.flatten(),
        });
    }
    all
}

/// What to look at in the tools that a person sees, of servers that they see.
pub(crate) fn warnings(api: &Api, who: &Who) -> Vec<Warning> {
    let mut all = api.broker.catalog.warnings();
    all.retain(|one| granted(api, who, &one.server));
    all
}

/// Those that wait for somebody's answer.
pub(crate) async fn open(api: &Api, who: &Who) -> Vec<PinView> {
    let mut seen = seen(api, who).await;
    seen.retain(|pin| !pin.differences.is_empty());
    seen
}

/// Whether a person may answer for a server: an owner, or an approver of a group that uses it.
pub(crate) fn may_answer(api: &Api, who: &Who, server: &str) -> bool {
    let config = &api.broker.config.now();
    who.may_decide(config, "")
        || config.groups.iter().any(|(name, group)| {
            group.servers.iter().any(|one| one.as_str() == server)
                && who.may_decide(config, name.as_str())
        })
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Json<Vec<PinView>> {
    Json(seen(&api, &who).await)
}

/// What a person looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Looked {
    /// The digest over the differences that were shown, or the first 12 digits of it at least.
    question: String,
    /// Only what has this name.
    #[serde(default)]
    name: Option<String>,
}

pub(super) async fn accept(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(server): Path<String>,
    Json(looked): Json<Looked>,
) -> Result<Json<Vec<PinView>>, Refused> {
    answer(&api, &who, &server, Word::Accept, &looked).await
}

pub(super) async fn keep(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(server): Path<String>,
    Json(looked): Json<Looked>,
) -> Result<Json<Vec<PinView>>, Refused> {
    answer(&api, &who, &server, Word::Keep, &looked).await
}

async fn answer(
    api: &Api,
    who: &Who,
    server: &str,
    word: Word,
    looked: &Looked,
) -> Result<Json<Vec<PinView>>, Refused> {
    let name = who.named()?;
    if let Some(why) = who.barred(&api.broker.config.now()) {
        return Err(Refused::new(StatusCode::FORBIDDEN, why));
    }
    if !granted(api, who, server) {
        return Err(PinError::Unknown(server.to_owned()).into());
    }
    if !may_answer(api, who, server) {
        let attempt = format!("answer for the changed server {server}");
        refused(&api.broker, format!("user:{name}"), attempt).await;
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!("`{name}` is no approver of a group that uses `{server}`"),
        ));
    }
    let catalog = &api.broker.catalog;
    let by = format!("user:{name}");
    catalog
        .answer(server, word, &looked.question, looked.name.as_deref(), &by)
        .await?;
    let mut seen = seen(api, who).await;
    seen.retain(|pin| pin.server == server);
    Ok(Json(seen))
}

impl From<PinError> for Refused {
    fn from(error: PinError) -> Self {
        let status = match &error {
            PinError::Unknown(_) | PinError::NoSuchName { .. } => StatusCode::NOT_FOUND,
            PinError::Nothing(_) | PinError::Another(_) => StatusCode::CONFLICT,
            PinError::Record(_) | PinError::Db(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
