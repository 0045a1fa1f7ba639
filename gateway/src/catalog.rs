//! What the servers offer: kept raw, as they said it, pinned, and served while they are stopped.
//!
//! Reading order: this file (asking servers, storing, telling), `listing` (what clients are told),
//! `pins` (what was pinned, and what differs from it), `diff` (that for people), `schema`.

pub mod alike;
pub mod diff;
mod listing;
mod pins;
mod schema;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use policy::action::Digest;
use policy::pin::{Pinned, Turn};
use policy::record::Event;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;

use crate::audit::{Audit, NoRecord, Write};
use crate::db::{Db, DbError};
use crate::fault;
use crate::upstreams::{Hold, List, Reply, Request, UpstreamError, Upstreams};

use alike::Warning;
use listing::Raw;
use pins::Pin;

pub use listing::{Definition, Item, Listing, Stand, Tool};
pub use pins::{Difference, Word, question};

/// The most items of one list that are taken from a server; more is an error, not a cut.
const MAX_ITEMS: usize = 10_000;
/// The most bytes of one list.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// The most pages of one list.
const MAX_PAGES: usize = 100;
/// How long a server has to answer one page.
const PAGE_TIME: Duration = Duration::from_secs(30);

/// A server's list is another one now.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which server.
    pub server: String,
    /// Which of its lists.
    pub list: List,
}

/// Why a person's answer to a changed server did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no such server, or it was never asked.
    #[error("nothing is known of a server `{0}`")]
    Unknown(String),
    /// It is as it was pinned.
    #[error("`{0}` is as it was pinned: there is nothing to answer")]
    Nothing(String),
    /// What was looked at is not what is there now.
    #[error("`{0}` has changed again since that was looked at; look at it once more")]
    Another(String),
    /// Nothing of that name waits.
    #[error("nothing of `{server}` that is named `{name}` waits for an answer")]
    NoSuchName {
        /// Which server.
        server: String,
        /// What was named.
        name: String,
    },
    /// It cannot be recorded.
    #[error(transparent)]
    Record(#[from] NoRecord),
    /// It cannot be stored.
    #[error("the answer cannot be stored: {0}")]
    Db(#[from] DbError),
}

/// What is known of one server.
#[derive(Debug)]
struct Slot {
    /// What it is: digest over its command or address.
    identity: Digest,
    /// One fetch at a time.
    fetching: Mutex<()>,
    /// One change of the pin at a time.
    pin: Mutex<Option<Pin>>,
    /// What clients are told.
    known: RwLock<Option<Arc<Listing>>>,
    /// The connection over which it was asked last.
    listed: AtomicU64,
}

impl Slot {
    fn known(&self) -> Option<Arc<Listing>> {
        let known = self.known.read();
        known.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells clients something else from here on; what they were told before.
    fn tell(&self, listing: Arc<Listing>) -> Option<Arc<Listing>> {
        let known = self.known.write();
        known
            .unwrap_or_else(PoisonError::into_inner)
            .replace(listing)
    }
}

/// The listings of all servers.
#[derive(Debug)]
pub struct Catalog {
    db: Db,
    audit: Audit,
    upstreams: Arc<Upstreams>,
    slots: BTreeMap<String, Slot>,
    /// The servers that are to be asked anew, and for which somebody waits to do so.
    stale: std::sync::Mutex<BTreeSet<String>>,
    changes: broadcast::Sender<Change>,
    turns: broadcast::Sender<String>,
}

/// As [`Catalog::input_schemas`], from what is stored of a server of this identity.
pub async fn stored_schemas(
    db: &Db,
    server: &str,
    identity: &Digest,
) -> Option<Vec<(String, Value)>> {
    let pin = stored(db, server, identity).await.ok()??;
    Some(pin.listing().input_schemas())
}

impl Catalog {
    /// Reads the stored listings and pins of the servers; `identities` names each with what it is.
    ///
    /// # Errors
    /// [`DbError`], if a pin cannot be read: a server must not be pinned anew because of that.
    pub async fn open(
        db: Db,
        audit: Audit,
        upstreams: Arc<Upstreams>,
        identities: BTreeMap<String, Digest>,
    ) -> Result<Self, DbError> {
        let mut slots = BTreeMap::new();
        for (server, identity) in identities {
            let pin = stored(&db, &server, &identity).await?;
            let slot = Slot {
                known: RwLock::new(pin.as_ref().map(|pin| Arc::new(pin.listing()))),
                pin: Mutex::new(pin),
                identity,
                fetching: Mutex::default(),
                listed: AtomicU64::new(0),
            };
            slots.insert(server, slot);
        }
        Ok(Self {
            db,
            audit,
            upstreams,
            slots,
            stale: std::sync::Mutex::default(),
            changes: broadcast::channel(64).0,
            turns: broadcast::channel(64).0,
        })
    }

    /// What a server is: digest over its command or address.
    pub fn identity(&self, server: &str) -> Option<&Digest> {
        self.slots.get(server).map(|slot| &slot.identity)
    }

    /// The tools of a server with the schemas of their arguments, where they are known.
    pub fn input_schemas(&self, server: &str) -> Option<Vec<(String, Value)>> {
        Some(self.known(server)?.input_schemas())
    }

    /// Tells the clients that what they may use may be something else.
    pub fn tell_all(&self) {
        for server in self.slots.keys() {
            for list in [List::Tools, List::Prompts, List::Resources] {
                let _ = self.changes.send(Change {
                    server: server.clone(),
                    list,
                });
            }
        }
    }

    /// Changes of lists, from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Where the names of servers are told whose pin, or what differs from it, is another now.
    pub fn turns(&self) -> broadcast::Sender<String> {
        self.turns.clone()
    }

    /// What is known of a server, without asking it.
    pub fn known(&self, server: &str) -> Option<Arc<Listing>> {
        self.slots.get(server)?.known()
    }

    /// What should be looked at in the tools of all servers: look-alikes, shadows, hidden characters.
    pub fn warnings(&self) -> Vec<Warning> {
        let known = self.slots.iter();
        alike::warnings(known.filter_map(|(name, slot)| Some((name.as_str(), slot.known()?))))
    }

    /// Since when a server is pinned as it is, and by whom where a person said so.
    pub async fn pinned(&self, server: &str) -> Option<(Timestamp, Option<String>)> {
        let pin = self.slots.get(server)?.pin.lock().await;
        pin.as_ref()
            .map(|pin| (pin.state.since, pin.state.by.clone()))
    }

    /// A server's listing; a server that never told is started and asked.
    ///
    /// # Errors
    /// [`UpstreamError`], if it cannot be asked.
    pub async fn get(&self, server: &str) -> Result<Arc<Listing>, UpstreamError> {
        let slot = self.slot(server)?;
        if let Some(listing) = slot.known() {
            return Ok(listing);
        }
        let _one = slot.fetching.lock().await;
        match slot.known() {
            Some(listing) => Ok(listing),
            None => self.fetch(server, slot).await,
        }
    }

    /// Holds a server whose present connection is the one over which it showed what is known of it. One
    /// that was started since is asked anew: it may be another program by now.
    ///
    /// # Errors
    /// [`UpstreamError`], if it cannot be asked.
    pub async fn current(&self, server: &str) -> Result<Option<Hold>, UpstreamError> {
        let slot = self.slot(server)?;
        let Some(hold) = self.upstreams.hold(server).await? else {
            return Ok(None);
        };
        let current = || slot.listed.load(Ordering::SeqCst) == hold.connection();
        if !current() {
            let _one = slot.fetching.lock().await;
            if !current() {
                self.fetch(server, slot).await?;
            }
        }
        if current() {
            Ok(Some(hold))
        } else {
            Err(UpstreamError::Another)
        }
    }

    /// Asks a server anew what it offers, and tells the clients where that is something else.
    ///
    /// # Errors
    /// [`UpstreamError`], if it cannot be asked; what was known stays.
    pub async fn refresh(&self, server: &str) -> Result<Arc<Listing>, UpstreamError> {
        let slot = self.slot(server)?;
        let _one = slot.fetching.lock().await;
        self.fetch(server, slot).await
    }

    /// As [`refresh`](Self::refresh), because the server says that something changed; of many that
    /// say so while one is at it, one asks again.
    ///
    /// # Errors
    /// [`UpstreamError`], if it cannot be asked; what was known stays.
    pub async fn changed(&self, server: &str) -> Result<(), UpstreamError> {
        let slot = self.slot(server)?;
        let stale = || self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        if !stale().insert(server.to_owned()) {
            return Ok(());
        }
        let _one = slot.fetching.lock().await;
        // What changes from here on is worth another look.
        stale().remove(server);
        self.fetch(server, slot).await.map(drop)
    }

    fn slot(&self, server: &str) -> Result<&Slot, UpstreamError> {
        self.slots.get(server).ok_or(UpstreamError::Unknown)
    }

    async fn fetch(&self, server: &str, slot: &Slot) -> Result<Arc<Listing>, UpstreamError> {
        let hold = self.upstreams.hold(server).await?;
        let connection = hold.as_ref().map(Hold::connection);
        let greeting = self.upstreams.greet(server).await?;
        let has = |name: &str| greeting.capabilities.get(name).is_some();
        let mut raw = Raw {
            capabilities: greeting.capabilities.clone(),
            instructions: greeting.instructions.clone(),
            server_info: greeting.server_info.clone(),
            ..Raw::default()
        };
        if has("tools") {
            raw.tools = self
                .pages(server, connection, "tools/list", "tools")
                .await?;
        }
        if has("prompts") {
            raw.prompts = self
                .pages(server, connection, "prompts/list", "prompts")
                .await?;
        }
        if has("resources") {
            raw.resources = self
                .pages(server, connection, "resources/list", "resources")
                .await?;
            // Not every server with resources knows templates.
            raw.templates = match self
                .pages(
                    server,
                    connection,
                    "resources/templates/list",
                    "resourceTemplates",
                )
                .await
            {
                Err(UpstreamError::Protocol(_)) => Vec::new(),
                other => other?,
            };
        }
        fault::point("catalog.told").await;
        let listing = self.take(server, slot, raw).await?;
        slot.listed
            .store(connection.unwrap_or_default(), Ordering::SeqCst);
        Ok(listing)
    }

    /// Takes what a server shows: pinned where it was never seen, else compared with what was.
    async fn take(
        &self,
        server: &str,
        slot: &Slot,
        raw: Raw,
    ) -> Result<Arc<Listing>, UpstreamError> {
        let now = Timestamp::now();
        if let Ok(text) = serde_json::to_string(&raw)
            && let Err(error) = self
                .db
                .set_listing(server, slot.identity.as_str(), text, now)
                .await
        {
            tracing::warn!("the tools of `{server}` cannot be stored: {error}");
        }
        let mut held = slot.pin.lock().await;
        // A copy: whoever waits for this may go away in the middle, and a pin is never lost by that.
        let pin = match held.clone() {
            None => {
                let pin = Pin::first(raw, now);
                let recorded = self.first(server, slot, &pin).await;
                recorded.map_err(|error| {
                    tracing::error!("`{server}` cannot be pinned, so it is not served: {error}");
                    UpstreamError::NotStarted {
                        reason: "what it offers cannot be recorded".to_owned(),
                    }
                })?;
                pin
            }
            Some(mut pin) => {
                pin.see(raw);
                let differences = pin.differences();
                let question = question(&differences);
                if !differences.is_empty() && pin.tell(&question) {
                    self.told(server, slot, &pin, &differences, question).await;
                }
                // What cannot be stored is found again: the pinned definitions are in the database.
                if let Err(error) = self.store(server, slot, &pin, now).await {
                    tracing::error!("how `{server}` changed cannot be stored: {error}");
                }
                pin
            }
        };
        fault::point("catalog.stored").await;
        let listing = Arc::new(pin.listing());
        *held = Some(pin);
        self.publish(server, slot, listing.clone());
        Ok(listing)
    }

    /// Records and stores the pin of a server that was never seen as it is configured.
    async fn first(&self, server: &str, slot: &Slot, pin: &Pin) -> Result<(), PinError> {
        let before = self.db.pinned_before(server).await?;
        let others = self.slots.iter().filter(|(name, _)| *name != server);
        let others = others.filter_map(|(name, slot)| Some((name.as_str(), slot.known()?)));
        let own = std::iter::once((server, Arc::new(pin.listing())));
        let warnings = about(server, alike::warnings(others.chain(own)));
        for warning in &warnings {
            tracing::warn!(
                server.name = server,
                "look at `{server}`: {}",
                crate::text::printable(warning)
            );
        }
        let (is, names) = pin.digests();
        let pinned = Pinned {
            server: server.to_owned(),
            turn: Turn::First,
            by: None,
            identity: slot.identity.clone(),
            was: before.and_then(|digest| serde_json::from_value(digest.into()).ok()),
            is,
            names,
            moved: Vec::new(),
            question: None,
            warnings,
        };
        self.audit.write(pin_write(pinned)).await?;
        self.store(server, slot, pin, pin.state.since).await
    }

    /// Records that a server is not what was pinned.
    async fn told(
        &self,
        server: &str,
        slot: &Slot,
        pin: &Pin,
        differences: &[Difference],
        question: Digest,
    ) {
        let (was, _) = pin.digests();
        let (is, names) = pin.shown_digests();
        let pinned = Pinned {
            server: server.to_owned(),
            turn: Turn::Changed,
            by: None,
            identity: slot.identity.clone(),
            was: Some(was),
            is,
            names,
            moved: differences.iter().map(Difference::moved).collect(),
            question: Some(question),
            warnings: Vec::new(),
        };
        tracing::warn!(
            server.name = server,
            "{}; `portcullis tools diff {server}` shows it",
            crate::text::printable(&pinned.told())
        );
        if let Err(error) = self.audit.write(pin_write(pinned)).await {
            tracing::error!("{error}");
        }
    }

    async fn store(
        &self,
        server: &str,
        slot: &Slot,
        pin: &Pin,
        now: Timestamp,
    ) -> Result<(), PinError> {
        let state =
            serde_json::to_string(&pin.state).map_err(|_| DbError::Unreadable { what: "pin" })?;
        let (digest, _) = pin.digests();
        let (identity, digest) = (slot.identity.as_str(), digest.as_str());
        self.db
            .set_pin(server, identity, digest, state, now)
            .await?;
        Ok(())
    }

    /// Does as a person says of what differs from the pin: of all of it, or of what has one name. They
    /// looked at the differences with the digest `seen` (or the first 12 digits of it, at least).
    ///
    /// # Errors
    /// [`PinError`]; nothing was changed then.
    pub async fn answer(
        &self,
        server: &str,
        word: Word,
        seen: &str,
        only: Option<&str>,
        by: &str,
    ) -> Result<(), PinError> {
        const SHORTEST: usize = 12;
        let unknown = || PinError::Unknown(server.to_owned());
        let slot = self.slots.get(server).ok_or_else(unknown)?;
        let mut held = slot.pin.lock().await;
        let mut pin = held.clone().ok_or_else(unknown)?;
        let mut differences = pin.differences();
        if differences.is_empty() {
            return Err(PinError::Nothing(server.to_owned()));
        }
        let question = question(&differences);
        if seen.len() < SHORTEST || !question.as_str().starts_with(seen) {
            return Err(PinError::Another(server.to_owned()));
        }
        if let Some(name) = only {
            differences.retain(|one| one.key.name == name);
            if differences.is_empty() {
                return Err(PinError::NoSuchName {
                    server: server.to_owned(),
                    name: name.to_owned(),
                });
            }
        }
        let (was, _) = pin.digests();
        let now = Timestamp::now();
        pin.answer(word, &differences, by, now);
        let (is, names) = pin.digests();
        let pinned = Pinned {
            server: server.to_owned(),
            turn: match word {
                Word::Accept => Turn::Accepted,
                Word::Keep => Turn::Kept,
            },
            by: Some(by.to_owned()),
            identity: slot.identity.clone(),
            was: Some(was),
            is,
            names,
            moved: differences.iter().map(Difference::moved).collect(),
            question: Some(question),
            warnings: about(server, self.warnings()),
        };
        self.audit.write(pin_write(pinned)).await?;
        self.store(server, slot, &pin, now).await?;
        let listing = Arc::new(pin.listing());
        *held = Some(pin);
        self.publish(server, slot, listing);
        Ok(())
    }

    /// Serves a listing from here on, and tells who follows what is another now.
    fn publish(&self, server: &str, slot: &Slot, listing: Arc<Listing>) {
        let Some(before) = slot.tell(listing.clone()) else {
            return;
        };
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
        if question(before.differences()) != question(listing.differences()) {
            let _ = self.turns.send(server.to_owned());
        }
    }

    async fn pages(
        &self,
        server: &str,
        connection: Option<u64>,
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
                only: connection,
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

/// The stored pin of a server as it is configured, with what it showed last.
async fn stored(db: &Db, server: &str, identity: &Digest) -> Result<Option<Pin>, DbError> {
    const UNREADABLE: DbError = DbError::Unreadable { what: "pin" };
    let Some(state) = db.pin(server, identity.as_str()).await? else {
        return Ok(None);
    };
    let state: pins::State = serde_json::from_str(&state).map_err(|_| UNREADABLE)?;
    let seen = db.listing(server, identity.as_str()).await?;
    let seen: Option<Raw> = seen.and_then(|seen| serde_json::from_str(&seen).ok());
    Ok(Some(Pin::again(state, seen)))
}

/// Those about one server, in words.
fn about(server: &str, warnings: Vec<Warning>) -> Vec<String> {
    let own = warnings.into_iter().filter(|one| one.server == server);
    own.map(|one| format!("`{}` {}", one.tool, one.text))
        .collect()
}

fn pin_write(pinned: Pinned) -> Write {
    let id = format!("pin_{}", uuid::Uuid::now_v7().simple());
    Write::new(id, Event::Pinned(Box::new(pinned)))
}
