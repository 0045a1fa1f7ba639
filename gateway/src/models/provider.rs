//! A provider: its key, and one request to it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use policy::action::Digest;
use policy::ids::ModelName;
use policy::secret::MASK;
use reqwest::{Client, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{Incoming, Route, script};
use crate::config::{Api, Model};
use crate::secrets::{Kept, Secret};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest body of an answer that says no.
const LONGEST_ERROR: usize = 1024 * 1024;
/// What of a caller's headers reaches the provider. Its credentials do not.
const PASSED_ON: [HeaderName; 5] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
];
/// What of a provider's headers reaches the caller, beside those of its rate limits.
const PASSED_BACK: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-should-retry"),
];
const RATE_LIMITS: &str = "anthropic-ratelimit-";

/// Why there is no answer; for the agent. Where the key comes from is in none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The key cannot be had.
    #[error(
        "the gateway cannot get its key for this model; whoever runs it finds the reason in its log"
    )]
    NoKey,
    /// Nothing answers there.
    #[error("the provider of this model cannot be reached; try again later")]
    Unreachable,
    /// It did not say anything for too long.
    #[error("the provider of this model said nothing for too long; try again later")]
    Silent,
    /// It sent the gateway elsewhere.
    #[error("the provider of this model answered with a redirect, which is not followed")]
    Redirect,
    /// It broke off, or what it said could not be read.
    #[error("the provider of this model broke off; try again later")]
    Broke,
}

/// An answer that stopped in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The connection ended.
    #[error("the provider of this model broke off")]
    Off,
    /// Nothing came for too long.
    #[error("the provider of this model said nothing for too long")]
    Silent,
    /// The gateway stops.
    #[error("the gateway is stopping")]
    Stopping,
}

/// The pieces of an answer, as they come.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>;

/// What a provider answered.
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The headers that are passed back.
    pub headers: HeaderMap,
    /// The body.
    pub pieces: Pieces,
    /// What it said went wrong, for the log, the key hidden.
    pub problem: Option<String>,
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// A provider of models.
#[derive(Debug)]
pub(super) struct Provider {
    name: ModelName,
    identity: Digest,
    speaks: Speaks,
}

#[derive(Debug)]
enum Speaks {
    Anthropic {
        client: Client,
        base_url: String,
        source: Secret,
        /// Fetched by the first call, and again once the provider refused it.
        key: Mutex<Option<SecretString>>,
        kept: Arc<Kept>,
    },
    Scripted,
}

impl Provider {
    pub(super) fn new(name: &ModelName, model: &Model, kept: &Arc<Kept>) -> Result<Self, String> {
        let (speaks, identity) = match &model.api {
            Api::Scripted => (Speaks::Scripted, json!({ "api": "scripted" })),
            Api::Anthropic { base_url, key } => {
                let client = Client::builder()
                    .redirect(redirect::Policy::none())
                    // A proxy would come from the environment, which only the configuration reads.
                    .no_proxy()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .read_timeout(model.silence_timeout)
                    .build()
                    .map_err(|error| format!("cannot speak HTTP: {error}"))?;
                let speaks = Speaks::Anthropic {
                    client,
                    base_url: base_url.clone(),
                    source: key.clone(),
                    key: Mutex::default(),
                    kept: kept.clone(),
                };
                (speaks, json!({ "api": "anthropic", "base_url": base_url }))
            }
        };
        Ok(Self {
            name: name.clone(),
            identity: Digest::of_json(&identity),
            speaks,
        })
    }

    pub(super) fn identity(&self) -> Digest {
        self.identity.clone()
    }

    pub(super) async fn send(&self, incoming: &Incoming) -> Result<Answered, SendError> {
        let Speaks::Anthropic {
            client, base_url, ..
        } = &self.speaks
        else {
            return Ok(script::answer(incoming));
        };
        let key = self.key().await?;
        let mut sensitive =
            HeaderValue::from_str(key.expose_secret()).map_err(|_| SendError::NoKey)?;
        sensitive.set_sensitive(true);
        let mut headers = HeaderMap::new();
        for name in PASSED_ON {
            for value in incoming.headers.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        headers.insert(HeaderName::from_static("x-api-key"), sensitive);
        // What is passed on byte for byte must not come compressed for somebody else.
        let plain = HeaderValue::from_static("identity");
        headers.insert(header::ACCEPT_ENCODING, plain);
        let mut url = format!("{base_url}{}", incoming.route.path());
        if let Some(query) = &incoming.query {
            url.push('?');
            url.push_str(query);
        }
        let request = match incoming.route {
            Route::Models => client.get(url),
            Route::Messages | Route::CountTokens => client.post(url).body(incoming.body.clone()),
        };
        let answer = request.headers(headers).send().await.map_err(|error| {
            // The address may be told; the error of `reqwest` holds it, and no header.
            tracing::warn!("the provider `{}` did not answer: {error}", self.name);
            match (error.is_connect(), error.is_timeout()) {
                (false, true) => SendError::Silent,
                (true, _) => SendError::Unreachable,
                (false, false) => SendError::Broke,
            }
        })?;
        self.answered(answer, &key).await
    }

    async fn answered(
        &self,
        answer: reqwest::Response,
        key: &SecretString,
    ) -> Result<Answered, SendError> {
        let status = answer.status();
        if status.is_redirection() {
            return Err(SendError::Redirect);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in answer.headers() {
            let passed = PASSED_BACK.contains(name) || name.as_str().starts_with(RATE_LIMITS);
            if passed && !holds(value.as_bytes(), key) {
                headers.append(name.clone(), value.clone());
            }
        }
        let mut pieces: Pieces = Box::pin(answer.bytes_stream().map(|piece| {
            piece.map_err(|error| {
                if error.is_timeout() {
                    Broken::Silent
                } else {
                    Broken::Off
                }
            })
        }));
        if status.is_success() {
            return Ok(Answered {
                status,
                headers,
                pieces,
                problem: None,
            });
        }
        // It is short, and some of those who say no repeat what they were sent.
        let mut whole = Vec::new();
        while let Some(piece) = pieces.next().await {
            whole.extend_from_slice(&piece.map_err(|broken| match broken {
                Broken::Silent => SendError::Silent,
                Broken::Off | Broken::Stopping => SendError::Broke,
            })?);
            if whole.len() > LONGEST_ERROR {
                return Err(SendError::Broke);
            }
        }
        if holds(&whole, key) {
            whole = self
                .mask(String::from_utf8_lossy(&whole).into_owned())
                .into_bytes();
        }
        if status == StatusCode::UNAUTHORIZED {
            self.forget(key);
        }
        Ok(Answered {
            status,
            headers,
            problem: Some(problem(status, &whole)),
            pieces: Box::pin(futures::stream::iter([Ok(Bytes::from(whole))])),
        })
    }

    /// The key, fetched where it is not known.
    async fn key(&self) -> Result<SecretString, SendError> {
        let Speaks::Anthropic {
            source, key, kept, ..
        } = &self.speaks
        else {
            return Err(SendError::NoKey);
        };
        if let Some(known) = &*key.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(known.clone());
        }
        let fetched = source.resolve(kept).await.map_err(|error| {
            tracing::warn!("the key of `[models.{}]` cannot be had: {error}", self.name);
            SendError::NoKey
        })?;
        if fetched.expose_secret().is_empty() {
            tracing::warn!("the key of `[models.{}]` is empty", self.name);
            return Err(SendError::NoKey);
        }
        // A key is a secret, however it is written.
        kept.learn(fetched.expose_secret());
        *key.lock().unwrap_or_else(PoisonError::into_inner) = Some(fetched.clone());
        Ok(fetched)
    }

    /// The next call fetches the key anew: it may have been exchanged where it comes from.
    fn forget(&self, refused: &SecretString) {
        tracing::warn!(
            "the provider refused the key of `[models.{}]`; see that it is the right one",
            self.name
        );
        if let Speaks::Anthropic { key, .. } = &self.speaks {
            let mut key = key.lock().unwrap_or_else(PoisonError::into_inner);
            // Not one that another call has fetched meanwhile.
            key.take_if(|known| known.expose_secret() == refused.expose_secret());
        }
    }

    pub(super) fn mask(&self, text: String) -> String {
        let Speaks::Anthropic { key, .. } = &self.speaks else {
            return text;
        };
        match &*key.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(key) => text.replace(key.expose_secret(), MASK),
            None => text,
        }
    }
}

fn holds(bytes: &[u8], key: &SecretString) -> bool {
    let key = key.expose_secret().as_bytes();
    bytes.windows(key.len().max(1)).any(|part| part == key)
}

/// What went wrong, in the provider's words where they are of the known form.
fn problem(status: StatusCode, body: &[u8]) -> String {
    const LONGEST: usize = 300;
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let part = |name: &str| {
        let part = value.get("error").and_then(|error| error.get(name));
        part.and_then(serde_json::Value::as_str).unwrap_or_default()
    };
    let words = format!("{} {}: {}", status.as_u16(), part("type"), part("message"));
    let words = words.trim_end_matches([':', ' ']);
    crate::text::printable(words)
        .chars()
        .take(LONGEST)
        .collect()
}
