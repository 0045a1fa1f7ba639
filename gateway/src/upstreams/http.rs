//! A server that speaks streamable HTTP, of either era.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, oneshot},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Reply, UpstreamError,
    inbox::{Inbox, Ticket},
    link::Call,
    lock,
    message::{self, Era, MODERN},
    sse::Events,
};
use crate::fault;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message of our own (a cancellation, a pong, the goodbye) may take.
const ASIDE_TIMEOUT: Duration = Duration::from_secs(3);
/// How many of them may be under way; more are dropped.
const ASIDES: usize = 16;
/// The waits before the stream of notifications is opened again.
const FIRST_RELISTEN: Duration = Duration::from_secs(1);
const MAX_RELISTEN: Duration = Duration::from_secs(30);
const REFUSED: &str = "the server refused the gateway's credential";

type Waiting = oneshot::Receiver<Result<Reply, UpstreamError>>;

/// The connection to an HTTP server.
#[derive(Clone, Debug)]
pub(super) struct Http(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    url: reqwest::Url,
    headers: HeaderMap,
    max: usize,
    inbox: Arc<Inbox>,
    session: Mutex<Option<HeaderValue>>,
    asides: Arc<Semaphore>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl Http {
    pub(super) fn new(
        url: &str,
        secrets: &BTreeMap<String, SecretString>,
        max: usize,
        inbox: Arc<Inbox>,
        closed: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let url = url
            .parse()
            .map_err(|error| format!("its URL is wrong: {error}"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in secrets {
            let name: HeaderName = name
                .parse()
                .map_err(|_| format!("`{name}` is no name of a header"))?;
            let mut value = HeaderValue::from_str(value.expose_secret())
                .map_err(|_| format!("the value of the header `{name}` cannot be sent"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            // A proxy would come from the environment, which only the configuration reads.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| format!("cannot speak HTTP: {error}"))?;
        let http = Self(Arc::new(Inner {
            client,
            url,
            headers,
            max,
            inbox,
            session: Mutex::default(),
            asides: Arc::new(Semaphore::new(ASIDES)),
            closed: closed.clone(),
            tasks: tasks.clone(),
        }));
        tasks.spawn(http.clone().say_goodbye());
        Ok(http)
    }

    pub(super) async fn exchange(&self, call: Call<'_>, era: &Era) -> Result<Reply, UpstreamError> {
        let wants_progress = call.progress.is_some();
        let sent = Arc::clone(&call.sent);
        let Ticket { id, mut reply } = self.0.inbox.open(call.progress, call.sent)?;
        let withdrawn = Withdrawn {
            http: self,
            id,
            era,
        };
        let params = message::stamp(call.params, era, wants_progress.then_some(id));
        let body = message::encode(Some(id), call.method, &params);
        let request = self.post(body, era, call.method, &params);

        self.0.inbox.mark_sent(id);
        fault::point("http.send").await;
        let answer = tokio::select! {
            // The connection was closed from our side.
            ended = &mut reply => return ended.unwrap_or(Err(UpstreamError::Died)),
            answer = request.send() => answer,
        };
        fault::point("http.answered").await;
        let unsent = |reason: &str| {
            sent.store(false, Ordering::Release);
            Err(UpstreamError::unsent(reason))
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return unsent("it cannot be connected to"),
            Err(_) => return Err(UpstreamError::Died),
        };
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return unsent(REFUSED),
            // Its session is gone, and so is this connection: the next one greets it anew.
            StatusCode::NOT_FOUND if lock(&self.0.session).is_some() => {
                lock(&self.0.session).take();
                let lost = unsent("its session has ended");
                drop(withdrawn);
                self.0.closed.cancel();
                return lost;
            }
            _ => {}
        }
        if matches!(era, Era::Opening)
            && let Some(id) = answer.headers().get(SESSION)
        {
            *lock(&self.0.session) = Some(id.clone());
        }
        if is_stream(&answer) {
            return self.follow(answer, reply, era).await;
        }
        let status = answer.status();
        let body = tokio::select! {
            ended = &mut reply => return ended.unwrap_or(Err(UpstreamError::Died)),
            body = self.body(answer) => body?,
        };
        self.0.inbox.receive_for(id, &body);
        match reply.try_recv() {
            Ok(reply) => reply,
            Err(_) if status.is_success() => Err(UpstreamError::Protocol(
                "it did not answer the request".to_owned(),
            )),
            Err(_) => Err(UpstreamError::Protocol(format!(
                "it answered with HTTP {status}"
            ))),
        }
    }

    pub(super) async fn notify(&self, method: &str, params: Value, era: &Era) {
        let params = message::stamp(params, era, None);
        let request = self.post(message::encode(None, method, &params), era, method, &params);
        _ = timeout(CONNECT_TIMEOUT, request.send()).await;
    }

    /// Reads events until the reply is there; a stream that breaks after it gave ids is resumed as
    /// long as each resumption brings something.
    async fn follow(
        &self,
        answer: Response,
        mut reply: Waiting,
        era: &Era,
    ) -> Result<Reply, UpstreamError> {
        let mut events = Events::new(self.0.max);
        let mut answer = answer;
        loop {
            let heard = tokio::select! {
                biased;
                reply = &mut reply => return reply.unwrap_or(Err(UpstreamError::Died)),
                heard = self.hear(answer, &mut events, era) => heard?,
            };
            if let Ok(reply) = reply.try_recv() {
                return reply;
            }
            if !heard || events.last_id.is_none() {
                return Err(UpstreamError::Died);
            }
            sleep(events.retry.unwrap_or_default()).await;
            events.restart();
            let resumed = self.get(era, events.last_id.as_deref()).send().await;
            answer = match resumed {
                Ok(answer) if answer.status().is_success() && is_stream(&answer) => answer,
                // The reply may have come by another stream meanwhile.
                Ok(_) | Err(_) => return reply.try_recv().unwrap_or(Err(UpstreamError::Died)),
            };
        }
    }

    /// Sorts events until the stream ends; true if it brought anything.
    async fn hear(
        &self,
        answer: Response,
        events: &mut Events,
        era: &Era,
    ) -> Result<bool, UpstreamError> {
        let mut heard = false;
        let mut stream = answer.bytes_stream();
        while let Some(Ok(bytes)) = stream.next().await {
            heard |= !bytes.is_empty();
            for data in events.feed(&bytes).map_err(|_| UpstreamError::TooLarge)? {
                for answer in self.0.inbox.receive(&data) {
                    self.aside(self.post(answer, era, "", &Value::Null));
                }
            }
            tokio::task::consume_budget().await;
        }
        Ok(heard)
    }

    /// Listens for what the server tells unasked, where it offers a stream for that.
    pub(super) fn listen(&self, era: Era) {
        let http = self.clone();
        let listening = async move {
            let mut events = Events::new(http.0.max);
            let mut wait = FIRST_RELISTEN;
            loop {
                let opened = http.get(&era, events.last_id.as_deref()).send().await;
                match opened {
                    Ok(answer) if answer.status().is_success() && is_stream(&answer) => {
                        match http.hear(answer, &mut events, &era).await {
                            Ok(true) => wait = FIRST_RELISTEN,
                            Ok(false) => {}
                            // Longer than a message may be: without this stream calls still work.
                            Err(_) => return,
                        }
                    }
                    // 405: it offers none; 404: the next call finds that the session has ended.
                    Ok(answer) if answer.status().is_client_error() => return,
                    Ok(_) | Err(_) => {}
                }
                events.restart();
                sleep(wait).await;
                wait = (wait * 2).min(MAX_RELISTEN);
            }
        };
        let closed = self.0.closed.clone();
        self.0
            .tasks
            .spawn(async move { closed.run_until_cancelled(listening).await });
    }

    /// At the end: waits fail, and the server may forget the session.
    async fn say_goodbye(self) {
        self.0.closed.cancelled().await;
        self.0.inbox.close(&UpstreamError::Died);
        let Some(session) = lock(&self.0.session).take() else {
            return;
        };
        let goodbye = self.0.client.delete(self.0.url.clone());
        let goodbye = goodbye
            .headers(self.0.headers.clone())
            .header(SESSION, session);
        _ = timeout(ASIDE_TIMEOUT, goodbye.send()).await;
    }

    /// Sends something nobody waits for; dropped when too much of it is under way.
    fn aside(&self, request: reqwest::RequestBuilder) {
        let Ok(permit) = Arc::clone(&self.0.asides).try_acquire_owned() else {
            return;
        };
        self.0.tasks.spawn(async move {
            _ = timeout(ASIDE_TIMEOUT, request.send()).await;
            drop(permit);
        });
    }

    async fn body(&self, answer: Response) -> Result<Vec<u8>, UpstreamError> {
        let mut body = Vec::new();
        let mut stream = answer.bytes_stream();
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|_| UpstreamError::Died)?;
            if body.len() + bytes.len() > self.0.max {
                return Err(UpstreamError::TooLarge);
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }

    fn post(
        &self,
        body: Vec<u8>,
        era: &Era,
        method: &str,
        params: &Value,
    ) -> reqwest::RequestBuilder {
        let mut headers = self.headers(era);
        headers.insert(ACCEPT, BOTH);
        headers.insert(CONTENT_TYPE, JSON);
        if matches!(era, Era::Modern) && !method.is_empty() {
            headers.extend(HeaderValue::from_str(method).map(|value| (METHOD, value)));
            let name = message::name(method, params).map(encode_header);
            headers.extend(name.and_then(|name| Some((NAME, HeaderValue::from_str(&name).ok()?))));
        }
        self.0
            .client
            .post(self.0.url.clone())
            .headers(headers)
            .body(body)
    }

    fn get(&self, era: &Era, last_event: Option<&str>) -> reqwest::RequestBuilder {
        let mut headers = self.headers(era);
        headers.insert(ACCEPT, STREAM);
        let last = last_event.and_then(|id| HeaderValue::from_str(id).ok());
        headers.extend(last.map(|id| (LAST_EVENT, id)));
        self.0.client.get(self.0.url.clone()).headers(headers)
    }

    fn headers(&self, era: &Era) -> HeaderMap {
        let mut headers = self.0.headers.clone();
        headers.extend(
            lock(&self.0.session)
                .clone()
                .map(|session| (SESSION, session)),
        );
        let version = match era {
            Era::Opening => None,
            Era::Legacy(version) => HeaderValue::from_str(version).ok(),
            Era::Modern => Some(HeaderValue::from_static(MODERN)),
        };
        headers.extend(version.map(|version| (VERSION, version)));
        headers
    }
}

/// Tells the server, when dropped, that a request it has is no longer wanted. In the newer era the
/// closed response stream says so.
struct Withdrawn<'a> {
    http: &'a Http,
    id: u64,
    era: &'a Era,
}

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        let sent = self.http.0.inbox.withdraw(self.id);
        if sent && matches!(self.era, Era::Legacy(_)) {
            let body = message::cancelled(self.id, self.era);
            self.http
                .aside(self.http.post(body, self.era, "", &Value::Null));
        }
    }
}

fn is_stream(answer: &Response) -> bool {
    let kind = answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        kind.trim_start()
            .to_ascii_lowercase()
            .starts_with("text/event-stream")
    })
}

/// A header's value as text, in the specification's Base64 form where it could not be sent as it is.
fn encode_header(value: &str) -> String {
    let plain = value.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    let framed = value.starts_with("=?base64?") && value.ends_with("?=");
    if plain && !framed && value.trim_matches(' ') == value {
        return value.to_owned();
    }
    format!("=?base64?{}?=", base64(value.as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | group.get(at).map_or(0, |b| usize::from(*b))
        });
        for at in 0..4 {
            let letter = ALPHABET
                .get(bits >> (18 - 6 * at) & 63)
                .copied()
                .unwrap_or(b'=');
            text.push(if at <= group.len() {
                letter.into()
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_header_can_carry_is_framed() {
        assert_eq!(encode_header("get_weather"), "get_weather");
        assert_eq!(encode_header(" a"), "=?base64?IGE=?=");
        assert_eq!(encode_header("é"), "=?base64?w6k=?=");
        assert_eq!(encode_header("日本"), "=?base64?5pel5pys?=");
    }
}
