//! What one server offers, as its clients are told it, and how that stands to what it shows now.

use std::collections::{BTreeMap, BTreeSet};

use policy::action::{Digest, Method};
use policy::pin::{Key, What};
use policy::traits::Hints;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::pins::Difference;
use super::schema::{self, Schema};

/// One entry of a list, as the server wrote it.
#[derive(Debug)]
pub struct Item {
    /// Its name, or its URI (template) for a resource.
    pub name: String,
    /// The JSON as it came.
    pub raw: Box<RawValue>,
    /// Digest over its canonical form.
    pub digest: Digest,
}

/// A tool with what is decided on.
#[derive(Debug)]
pub struct Tool {
    /// The entry.
    pub item: Item,
    /// The server's own hints about it.
    pub hints: Hints,
    /// Checks arguments; `None` where the server has to do so itself.
    schema: Option<Schema>,
}

impl Tool {
    /// What is wrong with some arguments, in words for an agent.
    pub fn problems(&self, args: &Value) -> Vec<String> {
        let schema = self.schema.as_ref();
        schema.map_or_else(Vec::new, |schema| schema.problems(args))
    }
}

/// How a definition that is served stands to what its server shows now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It is not served: there is none, or nobody has accepted it yet.
    Unknown,
    /// It is served, and the server does not have it any more.
    Gone,
    /// The server has it, by this digest.
    There(Digest),
}

/// What a server shows now beside what is served, and what nobody has answered to yet.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Digests of all that it shows.
    pub(super) now: BTreeMap<Key, Digest>,
    /// Its hints about its tools.
    pub(super) hints: BTreeMap<String, Hints>,
    /// What is served and is, or was since, another one.
    pub(super) changed: BTreeSet<Key>,
    /// What it has and is not served.
    pub(super) hidden: Definitions,
    /// What waits for a person.
    pub(super) open: Vec<Difference>,
}

/// Everything one server offers: definitions as they were pinned, the rest as it shows it now.
#[derive(Debug)]
pub struct Listing {
    /// Its capabilities, as it declared them.
    pub capabilities: Value,
    /// Its instructions for the model.
    pub instructions: Option<String>,
    /// What it says it is.
    pub server_info: Value,
    /// Its tools, in its order.
    pub tools: Vec<Tool>,
    /// Its prompts.
    pub prompts: Vec<Item>,
    /// Its resources.
    pub resources: Vec<Item>,
    /// Its resource templates.
    pub templates: Vec<Item>,
    /// Tools that it lists more than once; only the first of each is taken.
    pub doubled: BTreeSet<String>,
    pub(super) shown: Shown,
}

impl Listing {
    /// The tools with the schemas of their arguments.
    pub fn input_schemas(&self) -> Vec<(String, Value)> {
        let tools = self.tools.iter().filter_map(|tool| {
            let raw: Value = serde_json::from_str(tool.item.raw.get()).ok()?;
            let schema = raw.get("inputSchema").cloned().unwrap_or_default();
            Some((tool.item.name.clone(), schema))
        });
        tools.collect()
    }

    /// A tool by the server's own name.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.item.name == name)
    }

    /// A prompt by the server's own name.
    pub fn prompt(&self, name: &str) -> Option<&Item> {
        self.prompts.iter().find(|prompt| prompt.name == name)
    }

    /// How the target of a request stands. A resource has no definition beyond its URI.
    pub fn stand(&self, method: Method, name: &str) -> Stand {
        let (served, what) = match method {
            Method::Call => (self.tool(name).is_some(), What::Tool),
            Method::Prompt => (self.prompt(name).is_some(), What::Prompt),
            Method::Read | Method::Subscribe | Method::Unsubscribe | Method::Complete => {
                return Stand::There(Digest::of(name.as_bytes()));
            }
            // A model is offered by no server: `Broker::pass_to_model` is the way.
            Method::Model => return Stand::Unknown,
        };
        match self.shown.now.get(&Key::new(what, name)) {
            Some(now) if served => Stand::There(now.clone()),
            None if served => Stand::Gone,
            Some(_) | None => Stand::Unknown,
        }
    }

    /// Whether a request goes to something that is not what was pinned. A resource is its template's.
    pub fn changed(&self, method: Method, name: &str) -> bool {
        let is = |what| self.shown.changed.contains(&Key::new(what, name));
        match method {
            Method::Call => is(What::Tool),
            Method::Prompt => is(What::Prompt),
            Method::Complete => is(What::Prompt) || is(What::Template),
            Method::Read | Method::Subscribe | Method::Unsubscribe => {
                let mut changed = self.shown.changed.iter();
                changed.any(|key| key.what == What::Template && may_be_of(name, &key.name))
            }
            Method::Model => false,
        }
    }

    /// The server's hints about a tool: as pinned, and as it shows them now.
    pub fn hints(&self, tool: &str) -> [Hints; 2] {
        let pinned = self.tool(tool).map(|tool| tool.hints).unwrap_or_default();
        let now = self.shown.hints.get(tool).copied();
        [pinned, now.unwrap_or(pinned)]
    }

    /// What waits for a person's answer: how the server is not what was pinned.
    pub fn differences(&self) -> &[Difference] {
        &self.shown.open
    }

    /// What the server has and nobody has accepted: by name, not served.
    pub fn hidden(&self, what: What) -> impl Iterator<Item = (&str, &Definition)> {
        let hidden = self.shown.hidden.iter();
        hidden
            .filter(move |(key, _)| key.what == what)
            .map(|(key, new)| (key.name.as_str(), new))
    }

    /// Whether a definition that is served is, or was since, another one.
    pub fn is_changed(&self, key: &Key) -> bool {
        self.shown.changed.contains(key)
    }

    /// Whether the server has something now, pinned or not.
    pub fn is_shown(&self, key: &Key) -> bool {
        self.shown.now.contains_key(key)
    }
}

/// Whether a URI may come from a template: it begins with what stands before the first expression.
fn may_be_of(uri: &str, template: &str) -> bool {
    let fixed = template.split('{').next().unwrap_or_default();
    uri.starts_with(fixed)
}

/// A listing as stored and as fetched: every entry raw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Raw {
    pub(super) capabilities: Value,
    pub(super) instructions: Option<String>,
    pub(super) server_info: Value,
    pub(super) tools: Vec<Box<RawValue>>,
    pub(super) prompts: Vec<Box<RawValue>>,
    pub(super) resources: Vec<Box<RawValue>>,
    pub(super) templates: Vec<Box<RawValue>>,
}

/// A definition with its digest.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The JSON, whole; of the instructions, their text.
    pub raw: Box<RawValue>,
    /// Digest over its canonical form: every member, known or not.
    pub digest: Digest,
}

impl Definition {
    /// The definition as a value.
    pub fn value(&self) -> Value {
        serde_json::from_str(self.raw.get()).unwrap_or_default()
    }
}

pub(super) type Definitions = BTreeMap<Key, Definition>;

impl Raw {
    /// Everything in it that is pinned. Of two with one name the first counts, as in lists.
    pub(super) fn definitions(&self) -> Definitions {
        let lists = [
            (What::Tool, &self.tools),
            (What::Prompt, &self.prompts),
            (What::Template, &self.templates),
        ];
        let mut all = Definitions::new();
        for (what, list) in lists {
            for (item, _) in list.iter().filter_map(|raw| item(raw, member(what))) {
                let Item { name, raw, digest } = item;
                all.entry(Key::new(what, name))
                    .or_insert(Definition { raw, digest });
            }
        }
        let told = self.instructions.as_ref();
        if let Some(raw) = told.and_then(|text| serde_json::value::to_raw_value(text).ok()) {
            let value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
            let digest = Digest::of_json(&value);
            let key = Key::new(What::Instructions, "");
            all.insert(key, Definition { raw, digest });
        }
        all
    }

    /// Puts a definition in the place of the one with its key, or takes it out.
    pub(super) fn put(&mut self, key: &Key, definition: Option<&Definition>) {
        let list = match key.what {
            What::Tool => &mut self.tools,
            What::Prompt => &mut self.prompts,
            What::Template => &mut self.templates,
            What::Instructions => {
                let text = definition.map(Definition::value);
                self.instructions = text.and_then(|text: Value| text.as_str().map(str::to_owned));
                return;
            }
        };
        let is = |raw: &RawValue| {
            item(raw, member(key.what)).is_some_and(|(item, _)| item.name == key.name)
        };
        let place = list.iter().position(|raw| is(raw));
        list.retain(|raw| !is(raw));
        if let Some(definition) = definition {
            let place = place.unwrap_or(list.len()).min(list.len());
            list.insert(place, definition.raw.clone());
        }
    }

    /// The hints of all tools.
    pub(super) fn hints(&self) -> BTreeMap<String, Hints> {
        let tools = self.tools.iter().filter_map(|raw| item(raw, "name"));
        let mut all = BTreeMap::new();
        for (item, value) in tools {
            all.entry(item.name).or_insert_with(|| hints(&value));
        }
        all
    }

    /// What its clients are told, where `seen` is what the server shows now.
    pub(super) fn listing(&self, seen: &Self, shown: Shown) -> Listing {
        let items = |all: &[Box<RawValue>], key: &str| {
            let mut names = BTreeSet::new();
            all.iter()
                .filter_map(|one| item(one, key))
                .map(|(item, _)| item)
                .filter(|item| names.insert(item.name.clone()))
                .collect()
        };
        let mut room = schema::MOST_OF_ALL;
        let mut names = BTreeSet::new();
        let tools = self
            .tools
            .iter()
            .filter_map(|one| item(one, "name"))
            // A second one is neither listed nor decided on: what is shown is what is called.
            .filter(|(item, _)| names.insert(item.name.clone()))
            .map(|(item, value)| tool(item, &value, &mut room))
            .collect();
        let mut names = BTreeSet::new();
        let doubled = seen
            .tools
            .iter()
            .filter_map(|one| item(one, "name"))
            .map(|(item, _)| item.name)
            .filter(|name| !names.insert(name.clone()))
            .collect();
        Listing {
            capabilities: seen.capabilities.clone(),
            instructions: self.instructions.clone(),
            server_info: self.server_info.clone(),
            tools,
            doubled,
            prompts: items(&self.prompts, "name"),
            resources: items(&seen.resources, "uri"),
            templates: items(&self.templates, "uriTemplate"),
            shown,
        }
    }
}

/// The member that names an entry of a list.
fn member(what: What) -> &'static str {
    match what {
        What::Tool | What::Prompt => "name",
        What::Template => "uriTemplate",
        What::Instructions => "",
    }
}

fn item(raw: &RawValue, key: &str) -> Option<(Item, Value)> {
    let value: Value = serde_json::from_str(raw.get()).ok()?;
    let name = value.get(key)?.as_str()?.to_owned();
    // Parsed and written again: of two members with one name, only the one that was decided on is
    // left for the client to read.
    let raw = serde_json::value::to_raw_value(&value).ok()?;
    Some((
        Item {
            name,
            raw,
            digest: Digest::of_json(&value),
        },
        value,
    ))
}

fn hints(value: &Value) -> Hints {
    let hint = |name: &str| {
        value
            .get("annotations")
            .and_then(|hints| hints.get(name))
            .and_then(Value::as_bool)
    };
    Hints {
        read_only: hint("readOnlyHint"),
        destructive: hint("destructiveHint"),
        open_world: hint("openWorldHint"),
        trusted: false,
    }
}

fn tool(item: Item, value: &Value, room: &mut usize) -> Tool {
    let schema = value.get("inputSchema").and_then(|schema| match Schema::read(schema, room) {
        Ok(schema) => Some(schema),
        Err(error) => {
            tracing::warn!(tool.name = %item.name, "the schema of `{}` cannot be used: {error}", item.name);
            None
        }
    });
    Tool {
        item,
        hints: hints(value),
        schema,
    }
}
