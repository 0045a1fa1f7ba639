//! `[models.NAME]`, and the model that a group names.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use policy::ids::ModelName;

use super::people::listed;
use super::read::{Item, LATER, Table};
use crate::secrets::Secret;

/// Where the models of Anthropic are.
const ANTHROPIC: &str = "https://api.anthropic.com";

/// A provider of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What it speaks.
    pub api: Api,
    /// How long it may say nothing, before its answer and between two pieces of it.
    pub silence_timeout: Duration,
}

/// What a provider speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Api {
    /// The Anthropic Messages API.
    Anthropic {
        /// Where; without a slash at the end.
        base_url: String,
        /// The key it knows the owner by.
        key: Secret,
    },
    /// No model at all: the script of the demo, in the gateway itself.
    Scripted,
}

/// A model of a provider, written `PROVIDER/MODEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef {
    /// The provider.
    pub provider: ModelName,
    /// The model, by the provider's own name.
    pub model: String,
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// Whether a text can be the name of a model: what providers use in theirs, 128 characters at most.
pub fn is_model(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/@[]".contains(&b))
}

#[derive(Clone, Copy)]
enum Kind {
    Anthropic,
    Scripted,
    Later,
}

/// Reads one provider.
pub(super) fn read(table: &Table<'_>) -> Option<Model> {
    let kind = table.get("api");
    if kind.is_none() {
        table.problem(
            "it does not say what it speaks",
            "accepted: `api` = \"anthropic\" or \"scripted\"",
        );
    }
    let kind = kind.and_then(|item| {
        let kind = item.word(&[
            ("anthropic", Kind::Anthropic),
            ("scripted", Kind::Scripted),
            ("openai", Kind::Later),
        ])?;
        if matches!(kind, Kind::Later) {
            let accepted = "accepted: \"anthropic\", \"scripted\"";
            item.problem(format!("\"openai\" is {LATER}"), accepted);
        }
        Some(kind)
    });
    let base_url = table.get("base_url");
    let key = table.get("key");
    let silence_timeout = table
        .get("silence_timeout")
        .and_then(|item| item.duration());
    let api = match kind {
        Some(Kind::Anthropic) => anthropic(table, base_url.as_ref(), key.as_ref()),
        Some(Kind::Scripted) => {
            for item in [base_url, key].into_iter().flatten() {
                item.hide();
                let why = "the script is in the gateway: it has no address and no key";
                item.problem_at_key(why, Some("remove it"));
            }
            Some(Api::Scripted)
        }
        Some(Kind::Later) | None => {
            // Their form is told in any case, and what they hold is in no excerpt.
            base_url.as_ref().and_then(address);
            key.as_ref().and_then(Item::secret);
            None
        }
    };
    table.done();
    Some(Model {
        api: api?,
        silence_timeout: silence_timeout.unwrap_or(Duration::from_mins(5)),
    })
}

fn anthropic(
    table: &Table<'_>,
    base_url: Option<&Item<'_>>,
    key: Option<&Item<'_>>,
) -> Option<Api> {
    let base_url = base_url.map_or(Some(ANTHROPIC.to_owned()), address);
    let Some(key) = key else {
        table.problem(
            "it has no `key`",
            "accepted: such as `key` = { env = \"ANTHROPIC_API_KEY\" }",
        );
        return None;
    };
    let key = key.secret();
    Some(Api::Anthropic {
        base_url: base_url?,
        key: key?,
    })
}

/// The address of a provider. The key goes there, so in the clear only to this very machine.
fn address(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let accepted = "accepted: an address such as \"https://api.anthropic.com\", without `/v1`";
    let Ok(url) = reqwest::Url::parse(text) else {
        item.problem("it is not an address", accepted);
        return None;
    };
    if !url.username().is_empty() || url.password().is_some() {
        item.hide();
        item.problem(
            "it holds a user name or password",
            "the credential is `key`",
        );
        return None;
    }
    if !matches!(url.scheme(), "http" | "https")
        || url.query().is_some()
        || url.fragment().is_some()
    {
        let why = "it is not an http or https address without `?` and `#`";
        item.problem(why, accepted);
        return None;
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        item.problem(
            "the key and all that is said would travel in the clear",
            "accepted: an https address, or http on this machine, such as \"http://127.0.0.1:8080\"",
        );
        return None;
    }
    let url = url.as_str().trim_end_matches('/');
    if url.ends_with("/v1") {
        item.problem("`/v1` is added by itself", accepted);
        return None;
    }
    Some(url.to_owned())
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Reads the model of a group; `providers` are the names that the file has.
pub(super) fn of_group(item: &Item<'_>, providers: &[String]) -> Option<ModelRef> {
    let text = item.text()?;
    let accepted = "accepted: `PROVIDER/MODEL`, such as \"main/claude-sonnet-4-5\"";
    let Some((provider, model)) = text.split_once('/') else {
        item.problem(format!("{text:?} names no provider"), accepted);
        return None;
    };
    if !providers.iter().any(|name| name == provider) {
        item.problem(
            format!("there is no provider `{provider}`"),
            &listed(providers, "`[models.NAME]`"),
        );
        return None;
    }
    if !is_model(model) {
        item.problem(format!("{model:?} is no name of a model"), accepted);
        return None;
    }
    Some(ModelRef {
        provider: provider.parse().ok()?,
        model: model.to_owned(),
    })
}

/// Every provider that the file has.
pub(super) fn all(section: Option<&Table<'_>>) -> BTreeMap<ModelName, Model> {
    let mut models = BTreeMap::new();
    for item in section.into_iter().flat_map(Table::entries) {
        let name = item.parsed_name::<ModelName>();
        let model = item.table().as_ref().and_then(read);
        if let (Some(name), Some(model)) = (name, model) {
            models.insert(name, model);
        }
    }
    models
}
