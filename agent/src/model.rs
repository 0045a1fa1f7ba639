//! The model, behind the gateway: asked in Anthropic's Messages API, and asked again when that may
//! help. An answer is whole or it is nothing.

mod draft;
mod wire;

use std::time::{Duration, Instant};

use agent::{Failure, Message};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::{Value, json};

use crate::Failed;
use crate::gateway::{Gateway, one_line};
use crate::outbox::Outbox;
use crate::pause::Pause;
use crate::sse::{self, Broken, Stream};

pub(crate) use draft::{Answer, Stop};

use draft::Draft;

/// Where Anthropic's SDKs begin; they append [`MESSAGES`].
pub(crate) const BASE: &str = "/llm/anthropic";
const MESSAGES: &str = "/llm/anthropic/v1/messages";
const VERSION: &str = "2023-06-01";
/// How often the model is asked the same, and for how long.
const TRIES: u32 = 5;
const TRIES_FOR: Duration = Duration::from_mins(2);
const MOST_PAUSE: Duration = Duration::from_secs(30);
/// How long the end of a stream is waited for after its last event.
const LAST_BYTES: Duration = Duration::from_millis(200);
/// The longest answer, and the longest event of one.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
const MAX_EVENT: usize = 4 * 1024 * 1024;
const MAX_ERROR: usize = 64 * 1024;

/// The model of a run.
#[derive(Debug)]
pub(crate) struct Model<'a> {
    /// Where it is.
    pub(crate) gateway: &'a Gateway,
    /// Its name.
    pub(crate) name: &'a str,
    /// Who it is told to be.
    pub(crate) system: &'a str,
    /// What it may call, in its provider's shape.
    pub(crate) tools: &'a [Value],
    /// The longest answer, in tokens.
    pub(crate) max_tokens: u32,
    /// How long it may be silent.
    pub(crate) stall: Duration,
    /// The first wait before it is asked again.
    pub(crate) retry: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
enum Wrong {
    /// The key is not accepted.
    Credential,
    /// The provider refuses the request, and says why.
    Refused(String),
    /// No room; perhaps when there will be.
    Busy(Option<Duration>),
    /// The provider failed.
    Failing,
    /// The answer broke off.
    Half,
    /// Nothing came any more.
    Silent,
    /// What came was no answer.
    Nonsense,
    /// The gateway could not be connected to.
    Unreached,
}

impl Wrong {
    /// What an error event or body says.
    fn told(body: &Value) -> Self {
        let text = |member: &str| body.pointer(member).and_then(Value::as_str);
        match text("/error/type").unwrap_or_default() {
            "authentication_error" | "permission_error" | "billing_error" => Self::Credential,
            "invalid_request_error" | "not_found_error" | "request_too_large" => {
                Self::Refused(text("/error/message").unwrap_or("no reason").to_owned())
            }
            "overloaded_error" | "rate_limit_error" => Self::Busy(None),
            _ => Self::Failing,
        }
    }

    /// What happened, for people.
    fn says(&self) -> &'static str {
        match self {
            Self::Credential => "the provider does not accept the key of the model",
            Self::Refused(_) => "the provider refuses the request",
            Self::Busy(_) => "the model is busy",
            Self::Failing => "the provider of the model failed",
            Self::Half => "the model's answer broke off",
            Self::Silent => "the model fell silent",
            Self::Nonsense => "what came from the model was no answer",
            Self::Unreached => "the gateway does not answer",
        }
    }

    /// How the run ends when nothing more is tried.
    fn fails(self, gateway: &Gateway) -> Failed {
        let says = self.says();
        let (failure, text) = match self {
            Self::Credential => {
                let next = "check the key and the account in the configuration";
                (Failure::Credential, format!("{says}; {next}"))
            }
            Self::Refused(why) => {
                let why = one_line(&gateway.masked(&why), 300);
                (Failure::Refused, format!("{says}: {why}"))
            }
            Self::Busy(Some(wait)) if !wait.is_zero() => {
                let wait = seconds(wait);
                let text = format!("{says} and asks for {wait} s of patience; try again then");
                (Failure::Overloaded, text)
            }
            Self::Busy(_) => (Failure::Overloaded, format!("{says}; try again later")),
            Self::Failing | Self::Half | Self::Silent | Self::Nonsense | Self::Unreached => {
                (Failure::Provider, format!("{says}; try again later"))
            }
        };
        Failed { failure, text }
    }
}

impl Model<'_> {
    /// The model's answer to a conversation. Its text goes to the outbox as it comes.
    pub(crate) async fn ask(
        &self,
        messages: &[Message],
        outbox: &Outbox,
    ) -> Result<Answer, Failed> {
        let body = self.request(messages).to_string();
        let began = Instant::now();
        let mut pause = Pause::new(self.retry, MOST_PAUSE);
        let mut tries = 0;
        loop {
            let wrong = match self.once(body.clone(), outbox).await {
                Ok(answer) => return Ok(answer),
                Err(wrong) => wrong,
            };
            let mut wait = pause.next();
            match wrong {
                Wrong::Credential | Wrong::Refused(_) => return Err(wrong.fails(self.gateway)),
                Wrong::Busy(after) => wait = after.unwrap_or(wait),
                Wrong::Failing | Wrong::Half | Wrong::Silent | Wrong::Nonsense => {}
                // The link to the gateway decides how long that may last.
                Wrong::Unreached => {
                    tokio::time::sleep(wait).await;
                    continue;
                }
            }
            tries += 1;
            if tries >= TRIES || began.elapsed() + wait > TRIES_FOR {
                return Err(wrong.fails(self.gateway));
            }
            let when = match seconds(wait) {
                0 => "now".to_owned(),
                wait => format!("in {wait} s"),
            };
            let text = format!("{}; asking again {when}", wrong.says());
            outbox.status(text).await;
            tokio::time::sleep(wait).await;
        }
    }

    fn request(&self, messages: &[Message]) -> Value {
        let mut request = json!({
            "model": self.name,
            "max_tokens": self.max_tokens,
            "messages": wire::messages(messages),
            "stream": true,
        });
        if let Some(members) = request.as_object_mut() {
            if !self.system.is_empty() {
                members.insert("system".to_owned(), self.system.into());
            }
            if !self.tools.is_empty() {
                members.insert("tools".to_owned(), self.tools.into());
            }
        }
        request
    }

    async fn once(&self, body: String, outbox: &Outbox) -> Result<Answer, Wrong> {
        let request = self
            .gateway
            .post(MESSAGES)
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .header("anthropic-version", VERSION)
            .body(body);
        let response = match tokio::time::timeout(self.stall, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => return Err(Wrong::Unreached),
            Ok(Err(_)) => return Err(Wrong::Half),
            Err(_) => return Err(Wrong::Silent),
        };
        let status = response.status().as_u16();
        if status != 200 {
            let after = retry_after(response.headers());
            let body = sse::body(response, MAX_ERROR, self.stall).await;
            let body = serde_json::from_slice(&body.unwrap_or_default());
            return Err(refused(status, after, &body.unwrap_or_default()));
        }
        if !sse::is_stream(&response) {
            return Err(Wrong::Nonsense);
        }
        let mut stream = Stream::new(response, MAX_EVENT, self.stall);
        let mut draft = Draft::default();
        let mut length = 0;
        while !draft.is_whole() {
            let data = match stream.next().await {
                Ok(Some(data)) => data,
                Ok(None) | Err(Broken::Cut) => return Err(Wrong::Half),
                Err(Broken::Silent) => return Err(Wrong::Silent),
                Err(Broken::TooLong(_)) => return Err(Wrong::Nonsense),
            };
            length += data.len();
            if length > MAX_ANSWER {
                return Err(Wrong::Nonsense);
            }
            if let Some(text) = draft.event(&data)? {
                outbox.delta(&text);
            }
        }
        // Taken to its end, a stream is not mistaken for one that nobody wanted.
        _ = tokio::time::timeout(LAST_BYTES, stream.next()).await;
        draft.finish()
    }
}

fn refused(status: u16, after: Option<Duration>, body: &Value) -> Wrong {
    match status {
        401..=403 => Wrong::Credential,
        429 | 503 | 529 => Wrong::Busy(after),
        400 | 404..=407 | 409..425 | 426..500 => {
            let why = body.pointer("/error/message").and_then(Value::as_str);
            Wrong::Refused(why.map_or_else(|| format!("HTTP {status}"), str::to_owned))
        }
        408 | 425 | 500.. => Wrong::Failing,
        // Not followed: the answer is to come from where it was asked for.
        _ => Wrong::Nonsense,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let after = headers.get(RETRY_AFTER)?.to_str().ok()?;
    after.trim().parse().ok().map(Duration::from_secs)
}

/// Whole seconds, rounded to the next.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_to_do() {
        let after = Some(Duration::from_secs(3));
        let why = json!({ "error": { "message": "too long" } });
        for (status, wrong) in [
            (301, Wrong::Nonsense),
            (400, Wrong::Refused("too long".to_owned())),
            (401, Wrong::Credential),
            (403, Wrong::Credential),
            (404, Wrong::Refused("too long".to_owned())),
            (408, Wrong::Failing),
            (413, Wrong::Refused("too long".to_owned())),
            (429, Wrong::Busy(after)),
            (500, Wrong::Failing),
            (502, Wrong::Failing),
            (503, Wrong::Busy(after)),
            (529, Wrong::Busy(after)),
        ] {
            assert_eq!(refused(status, after, &why), wrong, "{status}");
        }
    }
}
