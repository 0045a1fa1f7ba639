//! Talking to a running instance, over the socket in the data directory.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use super::{Failure, chain};
use crate::config::Paths;

/// The longest an answer may take. Nothing that is asked here waits for a person.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The owner's side of `/api/v1`.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    lasting: reqwest::Client,
    data: PathBuf,
    user: Option<String>,
}

impl Client {
    pub(super) fn new(paths: &Paths, user: Option<&str>) -> Result<Self, Failure> {
        let plain = || {
            reqwest::Client::builder()
                .unix_socket(paths.socket())
                // Neither a proxy nor a certificate has a say on a socket of our own.
                .no_proxy()
                .tls_certs_only([])
                .redirect(reqwest::redirect::Policy::none())
        };
        let build = |builder: reqwest::ClientBuilder| {
            let built = builder.build();
            built.map_err(|error| Failure::of(&error))
        };
        Ok(Self {
            http: build(plain().timeout(TIMEOUT))?,
            lasting: build(plain().read_timeout(TIMEOUT))?,
            data: paths.data.clone(),
            user: user.map(str::to_owned),
        })
    }

    pub(super) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        self.send(Method::GET, path, query, None).await
    }

    pub(super) async fn post(&self, path: &[&str], body: Value) -> Result<Value, Failure> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// A stream that lasts; whoever says nothing on it for too long is taken for gone.
    pub(super) async fn open(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<reqwest::Response, Failure> {
        let request = self.request(&self.lasting, Method::GET, path, query)?;
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        self.read(response).await.and_then(|_| {
            let text = "the instance answered nothing that can be followed";
            Err(Failure::Failed(text.to_owned()))
        })
    }

    fn request(
        &self,
        http: &reqwest::Client,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder, Failure> {
        let mut url = Url::parse("http://localhost/api/v1").map_err(|error| Failure::of(&error))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = http.request(method, url);
        if let Some(user) = &self.user {
            request = request.header("x-portcullis-user", user);
        }
        Ok(request)
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.request(&self.http, method, path, query)?;
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        self.read(response).await
    }

    async fn read(&self, response: reqwest::Response) -> Result<Value, Failure> {
        let status = response.status();
        let bytes = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let value: Value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or(Value::Null)
        };
        if status.is_success() {
            return Ok(value);
        }
        let said = value.get("error").and_then(Value::as_str);
        let said = said.map_or_else(
            || format!("the instance answered {status}"),
            crate::text::printable,
        );
        if status == StatusCode::BAD_REQUEST {
            return Err(Failure::Usage(said));
        }
        Err(Failure::Failed(said))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let data = self.data.display();
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(this) = source {
            match this.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    return Failure::Failed(format!(
                        "portcullis is not running on {data}; start it with `portcullis up`"
                    ));
                }
                Some(io::ErrorKind::PermissionDenied) => {
                    return Failure::Failed(format!(
                        "{data} belongs to another user; run this as the user that runs portcullis"
                    ));
                }
                Some(_) | None => source = this.source(),
            }
        }
        if error.is_timeout() {
            return Failure::Failed(format!(
                "portcullis on {data} did not answer within {} s",
                TIMEOUT.as_secs()
            ));
        }
        // The address, which the error itself names, is always the same.
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), chain);
        Failure::Failed(format!("portcullis on {data} did not answer: {why}"))
    }
}

/// A member of an object as text, empty where it is missing.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A member of an object as people read it: `-` where it is missing.
pub(super) fn shown(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| {
                item.as_str()
                    .map_or_else(|| item.to_string(), str::to_owned)
            })
            .collect::<Vec<_>>()
            .join(", "),
        Some(other) => other.to_string(),
    }
}

/// The rows of an answer.
pub(super) fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
