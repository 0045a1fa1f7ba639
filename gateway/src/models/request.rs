//! What of a request to a model is decided on and recorded: which model, how much, and whether the
//! provider is asked to reach out by itself. What was said in it is passed on and kept nowhere.

mod walk;

use policy::action::Digest;
use policy::traits::{Level, Traits};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::is_model;
use walk::{Count, Fetches, Messages, Tools};

/// What the provider is asked to do besides answering. Those are kept that are told in the log.
const MOST_TOLD: usize = 8;

/// Tools that are named to the model by a type, and run by whoever asked.
const LOCAL_TOOLS: [&str; 6] = [
    "custom",
    "bash_",
    "computer_",
    "memory_",
    "text_editor_",
    "tool_search_tool_",
];
/// Tools that the provider runs, and that only look things up.
const READING_TOOLS: [&str; 2] = ["web_search_", "web_fetch_"];

/// The routes that are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// An answer of a model.
    Messages,
    /// How many tokens a prompt has.
    CountTokens,
    /// Which models there are.
    Models,
}

impl Route {
    /// The path at the provider.
    pub fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::Models => "/v1/models",
        }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The model, as it was named; `*` where none is.
    pub model: String,
    stream: bool,
    messages: usize,
    tools: usize,
    outside: Outside,
}

/// What a provider is asked to reach by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outside {
    looks_up: bool,
    unknown: bool,
    told: Vec<String>,
}

impl Outside {
    fn tell(&mut self, what: &str) {
        let what: String = what.chars().take(64).collect();
        if self.told.len() < MOST_TOLD && !self.told.contains(&what) {
            self.told.push(what);
        }
    }

    fn tool(&mut self, kind: &str) {
        let is = |known: &[&str]| known.iter().any(|prefix| kind.starts_with(prefix));
        if is(&LOCAL_TOOLS) {
            return;
        }
        if is(&READING_TOOLS) {
            self.looks_up = true;
        } else {
            self.unknown = true;
        }
        self.tell(kind);
    }
}

/// A body that cannot be read, in words for who sent it.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON, or not of the form that the API has.
    #[error("the body cannot be read: {0}")]
    NoJson(#[from] serde_json::Error),
    /// A name that no model has.
    #[error("`model` is no name of a model")]
    NoModel,
}

impl Asked {
    /// Of a route that has no body.
    pub fn nothing() -> Self {
        Self {
            model: "*".to_owned(),
            stream: false,
            messages: 0,
            tools: 0,
            outside: Outside::default(),
        }
    }

    /// Reads a body, without keeping any of it.
    ///
    /// # Errors
    /// [`Unreadable`]: what cannot be read is not passed on.
    pub fn read(body: &[u8]) -> Result<Self, Unreadable> {
        let head: Head = serde_json::from_slice(body)?;
        if !is_model(&head.model) {
            return Err(Unreadable::NoModel);
        }
        let mut outside = head.tools.outside;
        if head.messages.fetches || head.system.0 {
            outside.looks_up = true;
            outside.tell("url");
        }
        if head.mcp_servers.is_some_and(|servers| servers.0 > 0) {
            outside.unknown = true;
            outside.tell("mcp_servers");
        }
        Ok(Self {
            model: head.model,
            stream: head.stream.unwrap_or(false),
            messages: head.messages.count,
            tools: head.tools.count,
            outside,
        })
    }

    /// What is recorded in place of what was said.
    pub fn args(&self, route: Route, body: &[u8]) -> Value {
        let mut args = json!({ "path": route.path() });
        if route != Route::Models {
            args = json!({
                "path": route.path(),
                "stream": self.stream,
                "messages": self.messages,
                "tools": self.tools,
                "bytes": body.len(),
                "sha256": Digest::of(body),
            });
        }
        if let (false, Some(args)) = (self.outside.told.is_empty(), args.as_object_mut()) {
            args.insert("provider_reaches".to_owned(), json!(self.outside.told));
        }
        args
    }

    /// What the call can do. The provider was chosen by the owner and is no stranger; what it is
    /// asked to fetch or to run for the model is.
    pub fn traits(&self) -> Traits {
        if self.outside.unknown {
            return Traits::UNDECLARED;
        }
        let reaches = if self.outside.looks_up {
            Level::Yes
        } else {
            Level::No
        };
        Traits {
            public_source: reaches,
            public_sink: reaches,
            read_only: true,
            ..Traits::ORDINARY
        }
    }
}

#[derive(Deserialize)]
struct Head {
    model: String,
    stream: Option<bool>,
    #[serde(default)]
    messages: Messages,
    #[serde(default)]
    system: Fetches,
    #[serde(default)]
    tools: Tools,
    mcp_servers: Option<Count>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(more: &str) -> Asked {
        Asked::read(format!(r#"{{"model":"claude-x","max_tokens":1{more}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn what_is_recorded_counts_and_quotes_nothing() {
        let body = br#"{"model":"claude-x","stream":true,"messages":[{"role":"user","content":"the secret"}],"tools":[{"name":"a"}]}"#;
        let asked = Asked::read(body).unwrap();
        let args = asked.args(Route::Messages, body).to_string();
        assert!(!args.contains("the secret"), "{args}");
        expect_test::expect![[r#"{"path":"/v1/messages","stream":true,"messages":1,"tools":1,"bytes":109,"sha256":"3419b4a6022381400c10453afd7f8d8bbc27d7dd672005786b2424187924ea66"}"#]]
        .assert_eq(&args);
        assert!(asked.traits().read_only);
        assert_eq!(asked.traits().public_sink, Level::No);
    }

    #[test]
    fn a_provider_that_reaches_out_is_a_source_and_a_sink() {
        let image = |source: &str| {
            format!(
                r#","messages":[{{"role":"user","content":[{{"type":"tool_result","content":[{{"type":"image","source":{source}}}]}}]}}]"#
            )
        };
        for (more, sink, read_only) in [
            (r#","tools":[{"name":"x","type":"custom"},{"type":"bash_20250124","name":"bash"},{"name":"y","type":null}]"#.to_owned(), Level::No, true),
            (r#","tools":[{"type":"web_search_20250305","name":"web_search"}]"#.to_owned(), Level::Yes, true),
            (r#","tools":[{"type":"web\u005ffetch_20250910","name":"w"}]"#.to_owned(), Level::Yes, true),
            (r#","tools":[{"type":"mcp_toolset"}]"#.to_owned(), Level::Yes, false),
            (r#","mcp_servers":[{"url":"https://evil.example/mcp"}]"#.to_owned(), Level::Yes, false),
            (r#","mcp_servers":[]"#.to_owned(), Level::No, true),
            (image(r#"{"type":"base64","data":"aGk="}"#), Level::No, true),
            (image(r#"{"type":"url","url":"https://evil.example/?notes"}"#), Level::Yes, true),
            (image(r#"{"\u0075rl":"https://evil.example/"}"#), Level::Yes, true),
            (r#","messages":[{"content":[{"type":"tool_use","input":{"source":{"url":"x"}}}]}]"#.to_owned(), Level::No, true),
        ] {
            let traits = asked(&more).traits();
            assert_eq!((traits.public_sink, traits.read_only), (sink, read_only), "{more}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_passed_on() {
        for body in [
            "",
            "{}",
            r#"{"model":5}"#,
            r#"{"model":""}"#,
            r#"{"model":"a\nb"}"#,
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","messages":"x"}"#,
            r#"{"model":"a","tools":[{"type":"custom","type":"web_search_1"}]}"#,
            r#"{"model":"a"} {}"#,
        ] {
            assert!(Asked::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
