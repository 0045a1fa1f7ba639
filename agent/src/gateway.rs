//! Where the gateway is and how it knows this agent. Nothing here can print the token.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(20);

/// The gateway.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    client: Client,
    base: String,
    token: SecretString,
}

/// Why the gateway cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// No address.
    #[error("`PORTCULLIS_URL` is no http:// or https:// address without name, password and query")]
    Url,
    /// No token.
    #[error("the run's token holds what no header can carry")]
    Token,
    /// No client.
    #[error("cannot speak HTTP")]
    Client(#[source] reqwest::Error),
}

impl Gateway {
    /// The gateway at an address, for a run's token.
    pub(crate) fn new(url: &str, token: SecretString) -> Result<Self, Unusable> {
        let parsed: Url = url.parse().map_err(|_| Unusable::Url)?;
        let plain = parsed.username().is_empty()
            && parsed.password().is_none()
            && parsed.query().is_none()
            && parsed.fragment().is_none();
        if !plain || !matches!(parsed.scheme(), "http" | "https") {
            return Err(Unusable::Url);
        }
        let bearer = format!("Bearer {}", token.expose_secret());
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| Unusable::Token)?;
        bearer.set_sensitive(true);
        let client = Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
            // The token goes to this address and to no other, whoever says so.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            .build()
            .map_err(Unusable::Client)?;
        Ok(Self {
            client,
            base: parsed.as_str().trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A `GET`.
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    /// A `POST`.
    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    /// The run's token, for a program that speaks to the gateway itself.
    pub(crate) fn token(&self) -> &str {
        self.token.expose_secret()
    }

    /// Text of others without the token.
    pub(crate) fn masked(&self, text: &str) -> String {
        text.replace(self.token.expose_secret(), "[masked]")
    }
}

/// Text of others as one short line for people: no control characters, at most `max` characters.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = text.trim().chars().map(clean).take(max).collect();
    if text.trim().chars().nth(max).is_some() {
        format!("{line}…")
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_can_be_printed_holds_the_token() {
        let token = "run-0123456789";
        let gateway = Gateway::new("http://127.0.0.1:4010/", SecretString::from(token)).unwrap();
        assert!(!format!("{gateway:?} {:?}", gateway.post("/mcp")).contains(token));
        assert_eq!(gateway.masked("a run-0123456789!"), "a [masked]!");
        assert_eq!(gateway.url("/mcp"), "http://127.0.0.1:4010/mcp");
    }

    #[test]
    fn an_address_that_would_carry_more_than_a_place_is_refused() {
        for url in [
            "",
            "127.0.0.1:4010",
            "file:///etc",
            "http://a:b@c",
            "http://a?b",
        ] {
            let refused = Gateway::new(url, SecretString::from("t"));
            assert!(matches!(refused, Err(Unusable::Url)), "{url}");
        }
    }

    #[test]
    fn text_of_others_becomes_one_line() {
        assert_eq!(one_line(" a\nb\u{1b}[0m ", 10), "a b [0m");
        assert_eq!(one_line("éééé", 3), "ééé…");
    }
}
