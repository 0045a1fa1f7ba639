//! What the servers offer: kept raw, as they said it, and served while they are stopped.

mod schema;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use policy::action::Digest;
use policy::traits::Hints;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;

use crate::db::Db;
use crate::fault;
use crate::upstreams::{List, Reply, Request, UpstreamError, Upstreams};

use schema::Schema;

/// The most items of one list that are taken from a server; more is an error, not a cut.
const MAX_ITEMS: usize = 10_000;
/// The most bytes of one list.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// The most pages of one list.
const MAX_PAGES: usize = 100;
/// How long a server has to answer one page.
const PAGE_TIME: Duration = Duration::from_secs(30);

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

/// Everything one server offers.
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
}

impl Listing {
    /// A tool by the server's own name.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.item.name == name)
    }

    /// A prompt by the server's own name.
    pub fn prompt(&self, name: &str) -> Option<&Item> {
        self.prompts.iter().find(|prompt| prompt.name == name)
    }
}

/// A listing as stored and as fetched: every entry raw.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Raw {
    capabilities: Value,
    instructions: Option<String>,
    server_info: Value,
    tools: Vec<Box<RawValue>>,
    prompts: Vec<Box<RawValue>>,
    resources: Vec<Box<RawValue>>,
    templates: Vec<Box<RawValue>>,
}

impl From<Raw> for Listing {
    fn from(raw: Raw) -> Self {
        let items = |all: Vec<Box<RawValue>>, key: &str| {
            all.into_iter()
                .filter_map(|one| item(&one, key))
                .map(|(item, _)| item)
                .collect()
        };
        let mut room = schema::MOST_OF_ALL;
        let (mut names, mut doubled) = (BTreeSet::new(), BTreeSet::new());
        let tools = raw
            .tools
            .into_iter()
            .filter_map(|one| item(&one, "name"))
            .filter(|(item, _)| {
                // A second one is neither listed nor decided on: what is shown is what is called.
                let first = names.insert(item.name.clone());
                if !first {
                    doubled.insert(item.name.clone());
                }
                first
            })
            .map(|(item, value)| tool(item, &value, &mut room))
            .collect();
        Self {
            capabilities: raw.capabilities,
            instructions: raw.instructions,
            server_info: raw.server_info,
            tools,
            doubled,
            prompts: items(raw.prompts, "name"),
            resources: items(raw.resources, "uri"),
            templates: items(raw.templates, "uriTemplate"),
        }
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

fn tool(item: Item, value: &Value, room: &mut usize) -> Tool {
    let hint = |name: &str| {
        value
            .get("annotations")
            .and_then(|hints| hints.get(name))
            .and_then(Value::as_bool)
    };
    let hints = Hints {
        read_only: hint("readOnlyHint"),
        destructive: hint("destructiveHint"),
        open_world: hint("openWorldHint"),
        trusted: false,
    };
    let schema = value.get("inputSchema").and_then(|schema| match Schema::read(schema, room) {
        Ok(schema) => Some(schema),
        Err(error) => {
            tracing::warn!(tool.name = %item.name, "the schema of `{}` cannot be used: {error}", item.name);
            None
        }
    });
    Tool {
        item,
        hints,
        schema,
    }
}

/// A server's list is another one now.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which server.
    pub server: String,
    /// Which of its lists.
    pub list: List,
}

/// The listings of all servers.
#[derive(Debug)]
pub struct Catalog {
    db: Db,
    upstreams: Arc<Upstreams>,
    identities: BTreeMap<String, Digest>,
    listings: RwLock<HashMap<String, Arc<Listing>>>,
    /// One fetch at a time for each server.
    fetching: BTreeMap<String, Mutex<()>>,
    /// The servers that are to be asked anew, and for which somebody waits to do so.
    stale: std::sync::Mutex<BTreeSet<String>>,
    changes: broadcast::Sender<Change>,
}

impl Catalog {
    /// Reads the stored listings of the servers; `identities` names each with what it is.
    pub async fn open(
        db: Db,
        upstreams: Arc<Upstreams>,
        identities: BTreeMap<String, Digest>,
    ) -> Self {
        let mut listings = HashMap::new();
        for (server, identity) in &identities {
            match db.listing(server, identity.as_str()).await {
                Ok(Some(stored)) => {
                    if let Ok(raw) = serde_json::from_str::<Raw>(&stored) {
                        listings.insert(server.clone(), Arc::new(Listing::from(raw)));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("the stored tools of `{server}` cannot be read: {error}");
                }
            }
        }
        let fetching = identities
            .keys()
            .map(|server| (server.clone(), Mutex::default()))
            .collect();
        Self {
            db,
            upstreams,
            identities,
            listings: RwLock::new(listings),
            fetching,
            stale: std::sync::Mutex::default(),
            changes: broadcast::channel(64).0,
        }
    }

    /// What a server is: digest over its command or address.
    pub fn identity(&self, server: &str) -> Option<&Digest> {
        self.identities.get(server)
    }

    /// Changes of lists, from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// What is known of a server, without asking it.
    pub fn known(&self, server: &str) -> Option<Arc<Listing>> {
        self.listings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(server)
            .cloned()
    }

    /// A server's listing; a server that never told is started and asked.
    ///
    /// # Errors
    /// [`UpstreamError`], if it cannot be asked.
    pub async fn get(&self, server: &str) -> Result<Arc<Listing>, UpstreamError> {
        if let Some(listing) = self.known(server) {
            return Ok(listing);
        }
        let _one = self
            .fetching
            .get(server)
            .ok_or(UpstreamError::Unknown)?
            .lock()
            .await;
        match self.known(server) {
            Some(listing) => Ok(listing),
            None => self.fetch(server).await,
        }
    }

    /// Asks a server anew what it offers, and tells the clients where that is something else.
    ///
    /// # Errors
    /// [`UpstreamError`], if it cannot be asked; what was known stays.
    pub async fn refresh(&self, server: &str) -> Result<Arc<Listing>, UpstreamError> {
        let _one = self
            .fetching
            .get(server)
            .ok_or(UpstreamError::Unknown)?
            .lock()
            .await;
        self.fetch(server).await
    }

    /// As [`refresh`](Self::refresh), because the server says that something changed; of many that
    /// say so while one is at it, one asks again.
    ///
    /// # Errors
    /// [`UpstreamError`], if it cannot be asked; what was known stays.
    pub async fn changed(&self, server: &str) -> Result<(), UpstreamError> {
        let stale = || self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        if !stale().insert(server.to_owned()) {
            return Ok(());
        }
        let fetching = self.fetching.get(server).ok_or(UpstreamError::Unknown)?;
        let _one = fetching.lock().await;
        // What changes from here on is worth another look.
        stale().remove(server);
        self.fetch(server).await.map(drop)
    }

    async fn fetch(&self, server: &str) -> Result<Arc<Listing>, UpstreamError> {
        let identity = self.identities.get(server).ok_or(UpstreamError::Unknown)?;
        let greeting = self.upstreams.greet(server).await?;
        let has = |name: &str| greeting.capabilities.get(name).is_some();
        let mut raw = Raw {
            capabilities: greeting.capabilities.clone(),
            instructions: greeting.instructions.clone(),
            server_info: greeting.server_info.clone(),
            ..Raw::default()
        };
        if has("tools") {
            raw.tools = self.pages(server, "tools/list", "tools").await?;
        }
        if has("prompts") {
            raw.prompts = self.pages(server, "prompts/list", "prompts").await?;
        }
        if has("resources") {
            raw.resources = self.pages(server, "resources/list", "resources").await?;
            // Not every server with resources knows templates.
            raw.templates = match self
                .pages(server, "resources/templates/list", "resourceTemplates")
                .await
            {
                Err(UpstreamError::Protocol(_)) => Vec::new(),
                other => other?,
            };
        }
        fault::point("catalog.told").await;
        if let Ok(stored) = serde_json::to_string(&raw)
            && let Err(error) = self
                .db
                .set_listing(server, identity.as_str(), stored, Timestamp::now())
                .await
        {
            tracing::warn!("the tools of `{server}` cannot be stored: {error}");
        }
        fault::point("catalog.stored").await;
        let listing = Arc::new(Listing::from(raw));
        let before = self
            .listings
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(server.to_owned(), listing.clone());
        if let Some(before) = before {
            for (list, changed) in [
                (
                    List::Tools,
                    differ(
                        before.tools.iter().map(|t| &t.item),
                        listing.tools.iter().map(|t| &t.item),
                    ),
                ),
                (List::Prompts, differ(&before.prompts, &listing.prompts)),
                (
                    List::Resources,
                    differ(&before.resources, &listing.resources)
                        || differ(&before.templates, &listing.templates),
                ),
            ] {
                if changed {
                    let _ = self.changes.send(Change {
                        server: server.to_owned(),
                        list,
                    });
                }
            }
        }
        Ok(listing)
    }

    async fn pages(
        &self,
        server: &str,
        method: &str,
        member: &str,
    ) -> Result<Vec<Box<RawValue>>, UpstreamError> {
        let mut items: Vec<Box<RawValue>> = Vec::new();
        let mut cursor: Option<String> = None;
        let mut bytes = 0;
        for _ in 0..MAX_PAGES {
            let params = cursor.take().map_or_else(
                || serde_json::json!({}),
                |cursor| serde_json::json!({ "cursor": cursor }),
            );
            let request = Request {
                method: method.to_owned(),
                params,
                deadline: PAGE_TIME,
                cancel: CancellationToken::new(),
                progress: None,
            };
            let page = match self.upstreams.request(server, request).await? {
                Reply::Result(page) => page,
                Reply::Error(error) => {
                    return Err(UpstreamError::Protocol(format!(
                        "`{method}` was answered with {error}"
                    )));
                }
            };
            bytes += page.get().len();
            if bytes > MAX_BYTES {
                break;
            }
            let odd = || UpstreamError::Protocol(format!("the answer to `{method}` is not a list"));
            let mut page: HashMap<String, Box<RawValue>> =
                serde_json::from_str(page.get()).map_err(|_| odd())?;
            let list = page.remove(member).ok_or_else(odd)?;
            items
                .extend(serde_json::from_str::<Vec<Box<RawValue>>>(list.get()).map_err(|_| odd())?);
            cursor = page
                .remove("nextCursor")
                .and_then(|raw| serde_json::from_str(raw.get()).ok());
            if cursor.is_none() {
                return Ok(items);
            }
            if items.len() > MAX_ITEMS {
                break;
            }
        }
        Err(UpstreamError::Protocol(format!(
            "the answer to `{method}` has no end"
        )))
    }
}

fn differ<'a>(
    one: impl IntoIterator<Item = &'a Item>,
    other: impl IntoIterator<Item = &'a Item>,
) -> bool {
    !one.into_iter()
        .map(|item| &item.digest)
        .eq(other.into_iter().map(|item| &item.digest))
}
