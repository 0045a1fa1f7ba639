//! Runs the gateway: opens everything in order, says `ready`, and closes in the reverse order.

mod ready;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::serve::ListenerExt as _;
use channels::web::Web;
use groups::Groups;
use policy::action::{Digest, hex};
use policy::record::About;
use policy::record::Event::Noted;
use runtimes::bundled::NotThere;
use runtimes::child::ChildProcesses;
use runtimes::house::{House, Plan};
use runtimes::runtime::Runtime;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::approvals::{Approvals, Held};
use crate::audit::index::Index;
use crate::audit::retention::Retention;
use crate::audit::{self, Audit, Write};
use crate::broker::{Broker, Parts};
use crate::catalog::{self, Catalog};
use crate::choices::Choices;
use crate::config::{self, Bundled, Config, Paths};
use crate::console::sessions::Sessions;
use crate::conversations::Conversations;
use crate::db::{Db, DbError};
use crate::door::{self, Door};
use crate::fault;
use crate::hosted::{self, Hosted};
use crate::identity::Identity;
use crate::keys::{KeyError, Keys, make_private};
use crate::live::Live;
use crate::live::watch::Watcher;
use crate::mcp::Mcp;
use crate::models::Models;
use crate::orphans::{self, Reaper};
use crate::peer::Peer;
use crate::secrets::{Kept, Secret};
use crate::upstreams::in_process::InProcess;
use crate::upstreams::{Event, Spec, Transport, Upstreams};

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// Listen here instead.
    pub listen: Option<SocketAddr>,
    /// There is no configuration: this is the demo.
    pub demo: bool,
}

/// Why it could not run.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The data directory cannot be used.
    #[error("the data directory `{path}` cannot be used; choose another with `--data`")]
    Data {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another instance runs on it.
    #[error("portcullis already runs on `{0}`; stop it, or choose another directory with `--data`")]
    Locked(PathBuf),
    /// The address cannot be had.
    #[error("cannot listen on {address}; stop what has it, or choose another with `--listen`")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// What is known of the servers' tools does not fit the configuration.
    #[error("{0}")]
    Config(config::Problems),
    /// A listener that others can reach needs TLS in front.
    #[error("{0}")]
    Exposed(String),
    /// A key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database cannot be opened.
    #[error(transparent)]
    Db(#[from] DbError),
    /// This machine cannot speak to providers of models.
    #[error("{0}")]
    Models(String),
    /// What the groups left cannot be read.
    #[error(transparent)]
    Groups(#[from] hosted::OpenError),
    /// The log cannot be written.
    #[error(transparent)]
    Record(#[from] crate::audit::NoRecord),
    /// The system said no.
    #[error("{what}")]
    System {
        /// To what.
        what: &'static str,
        /// In its words.
        source: io::Error,
    },
}

/// How long what was begun may take to end when the gateway stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs until it is told to stop.
///
/// # Errors
/// [`UpError`], if it cannot start.
#[expect(
    clippy::too_many_lines,
    reason = "everything is opened and closed in one order"
)]
pub async fn run(paths: Paths, config: Config, options: UpOptions) -> Result<(), UpError> {
    let listen = options.listen.unwrap_or(config.listen);
    config::may_listen(listen, config.behind_proxy).map_err(UpError::Exposed)?;
    let data = paths.data.clone();
    let _lock = lock(&data)?;
    let tcp = TcpListener::bind(listen)
        .await
        .map_err(|source| UpError::Listen {
            address: listen,
            source,
        })?;
    let system = |what| move |source| UpError::System { what, source };
    let listen = tcp.local_addr().map_err(system("the listener"))?;
    // Before anything is begun: a signal that comes early is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("signals"))?;
    let hangup = signal(SignalKind::hangup()).map_err(system("signals"))?;

    // Before anything is started: whatever descends from us stays known as such.
    orphans::adopt().map_err(system("the processes that lose their parent"))?;
    // Everything we make is ours alone; servers get an ordinary mask back.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // One TLS library for all that speaks TLS here; a second install is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let stopping = CancellationToken::new();
    let Opened {
        broker,
        db,
        writer,
        shower,
        approved,
        house,
        index,
        changes,
        mut heard,
    } = open(&paths, config, stopping.clone()).await?;
    let agents: Arc<dyn Runtime> = Arc::new(ChildProcesses::new(house));
    let groups = hosted::open(&broker, &db, agents.clone(), listen).await?;
    fault::point("start.groups").await;
    take_up(&broker, &db, approved).await?;
    if options.demo
        && let Err(error) = hosted::demo::seed(&db, &paths.data).await
    {
        tracing::warn!("the notes of the demo are not there: {error}");
    }
    let upstreams = broker.upstreams.clone();

    let mcp = Mcp::new(broker.clone());
    let url = format!("http://{listen}");
    let api = people(&broker, &db, index.clone(), groups.clone(), changes, listen);
    let socket = bind_socket(&paths.socket()).map_err(|source| UpError::Data {
        path: paths.socket(),
        source,
    })?;
    broker.tasks.spawn(mcp.clone().tell_changes());
    broker.tasks.spawn(tick(broker.clone()));
    if !options.demo {
        let watching = watcher(&paths, &broker).watch(hangup, stopping.clone());
        broker.tasks.spawn(watching);
    }
    broker
        .tasks
        .spawn(index.clone().follow(broker.audit.clone(), stopping.clone()));
    broker
        .tasks
        .spawn(keep_log(broker.clone(), db.clone(), index.clone()));
    let listening = broker.clone();
    let (hearing, states) = (mcp.clone(), api.servers.clone());
    broker
        .tasks
        .spawn(async move { hear(&listening, &hearing, &states, &mut heard).await });

    let door = Door::new(broker.clone(), listen);
    let tcp = tcp.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("a connection keeps Nagle's algorithm: {error}");
        }
    });
    let counting = door.refusals.clone();
    broker
        .tasks
        .spawn(counting.tell(broker.audit.clone(), stopping.clone()));
    let routes = door::router(&broker, mcp, api.clone(), door);
    let network = axum::serve(
        tcp,
        routes.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(stopping.clone().cancelled_owned());
    let link = console_link(&api).await;
    let owner = axum::serve(
        socket,
        api::socket(api).into_make_service_with_connect_info::<Peer>(),
    )
    .with_graceful_shutdown(stopping.clone().cancelled_owned());
    let (network, owner) = (
        tokio::spawn(network.into_future()),
        tokio::spawn(owner.into_future()),
    );
    groups.start().await;
    fault::point("start.agents").await;
    ready::say(
        &broker.config.now(),
        &paths,
        &options,
        &url,
        link.as_deref(),
    );

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stopping.cancel();
    broker.tasks.close();
    // A second signal ends the waiting.
    let drained = async {
        let _ = tokio::join!(agents.shutdown(), broker.tasks.wait(), network, owner);
    };
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(DRAIN) => tracing::warn!("some of what was begun did not end in time"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::join!(agents.shutdown(), upstreams.shutdown());
    drop(groups);
    let _ = std::fs::remove_file(paths.socket());
    drop(broker);
    // The writer ends when the last sender is gone; tasks that did not end in time keep theirs.
    let ends = async { tokio::join!(shower, writer) };
    let _ = tokio::time::timeout(Duration::from_secs(5), ends).await;
    index.close().await;
    db.close().await;
    Ok(())
}

/// What is open while it runs.
struct Opened {
    broker: Arc<Broker>,
    db: Db,
    writer: JoinHandle<()>,
    shower: JoinHandle<()>,
    approved: Vec<Arc<Held>>,
    house: Arc<House>,
    index: Index,
    changes: Arc<api::events::Changes>,
    heard: mpsc::UnboundedReceiver<Event>,
}

/// Opens the parts in order.
async fn open(
    paths: &Paths,
    config: Config,
    stopping: CancellationToken,
) -> Result<Opened, UpError> {
    let keys = Arc::new(Keys::open(&paths.data)?);
    let db = Db::open(&paths.data).await?;
    let index = Index::open(&paths.data, db.clone()).await?;
    let behind = audit::read::behind(&paths.data, &db).await;
    let copy = config.audit.checkpoints.clone();
    let (audit, writer) = Audit::start(db.clone(), keys.clone(), copy).await?;
    if let Some(what) = behind {
        tracing::error!("{what}");
        let noted = Write::noted("portcullis", Some(About::Log), what);
        audit.write(noted).await?;
    }
    if db.chain_is_missing().await? {
        let what = "the log was found empty, though there were tokens, questions or labels: what it held is gone";
        tracing::error!("{what}");
        let noted = Noted {
            by: "portcullis".to_owned(),
            what: what.to_owned(),
            about: Some(About::Log),
        };
        audit.write(Write::new("note_empty_log", noted)).await?;
    }
    let (hosted, shower) = Hosted::start(Web::new(db.channels()));
    let live = Live::new(config);
    let config = live.now();
    let (events, heard) = mpsc::unbounded_channel();
    let plan = plan(paths);
    for missing in missing(&config, &plan) {
        tracing::warn!("{missing}");
    }
    let house = House::new(plan);
    let kept = Arc::new(Kept::open(keys.clone(), &db).await?);
    learn(&config, &kept).await;
    let upstreams = Upstreams::new(
        specs(&config),
        inside(&config, &db),
        house.clone(),
        kept.clone(),
        events,
    );
    let identities = config
        .servers
        .iter()
        .map(|(name, server)| (name.to_string(), identity(server)))
        .collect();
    let catalog =
        Arc::new(Catalog::open(db.clone(), audit.clone(), upstreams.clone(), identities).await?);
    let problems = config.impossible(&|server| catalog.input_schemas(server));
    if !problems.is_empty() {
        return Err(UpError::Config(config::Problems(problems)));
    }
    let changes = Arc::new(api::events::Changes::default());
    let (approvals, approved) = Approvals::open(
        db.clone(),
        keys.clone(),
        audit.clone(),
        live.clone(),
        vec![hosted.clone(), changes.clone()],
    )
    .await?;
    let (choices, known) = Choices::open(db.clone()).await?;
    let models = Models::new(&config, db.clone(), &kept).map_err(UpError::Models)?;
    let broker = Broker::new(Parts {
        catalog,
        upstreams,
        models: Arc::new(models),
        approvals,
        audit,
        conversations: Conversations::new(db.labels().await?, known),
        choices,
        identity: Arc::new(Identity::open(keys.clone(), db.clone()).await?),
        keys,
        hosted,
        kept,
        db: db.clone(),
        stopping,
        config: live,
    });
    fault::point("start.open").await;
    Ok(Opened {
        broker,
        db,
        writer,
        shower,
        approved,
        house,
        index,
        changes,
        heard,
    })
}

/// Takes up what was left when the gateway ended.
async fn take_up(broker: &Arc<Broker>, db: &Db, approved: Vec<Arc<Held>>) -> Result<(), UpError> {
    broker.withdraw_orphans().await;
    fault::point("start.orphans").await;
    let closed = broker.recover(db.running().await?, approved).await?;
    broker.put_items_right(db, closed).await;
    fault::point("start.taken").await;
    Ok(())
}

fn lock(data: &Path) -> Result<File, UpError> {
    let unusable = |source| UpError::Data {
        path: data.to_owned(),
        source,
    };
    make_private(data).map_err(unusable)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(data.join("lock"))
        .map_err(unusable)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(UpError::Locked(data.to_owned())),
        Err(error) => Err(unusable(error.into())),
    }
}

fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    // The lock is ours, so a socket that is there was left behind.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}

fn specs(config: &Config) -> Vec<Spec> {
    let transport = |server: &config::Server| match server.transport.clone() {
        config::Transport::Bundled(_) => None,
        config::Transport::Stdio {
            command,
            args,
            env,
            cwd,
        } => Some(Transport::Stdio {
            command,
            args,
            env,
            cwd,
        }),
        config::Transport::Http { url, headers } => Some(Transport::Http { url, headers }),
    };
    let servers = config.servers.iter();
    servers
        .filter_map(|(name, server)| {
            Some(Spec {
                name: name.to_string(),
                transport: transport(server)?,
                idle_timeout: server.idle_timeout,
                start_timeout: server.start_timeout,
                max_message: config.max_message,
            })
        })
        .collect()
}

/// The servers inside the gateway.
fn inside(config: &Config, db: &Db) -> BTreeMap<String, Arc<dyn InProcess>> {
    let servers = config.servers.iter();
    servers
        .filter_map(|(name, server)| {
            let inside: Arc<dyn InProcess> = match server.transport {
                config::Transport::Bundled(Bundled::Notes) => {
                    Arc::new(notes::Server::new(db.notes()))
                }
                config::Transport::Stdio { .. } | config::Transport::Http { .. } => return None,
            };
            Some((name.to_string(), inside))
        })
        .collect()
}

/// The tools of the servers with the schemas of their arguments, as far as an instance on this data
/// directory has learned them.
pub async fn known_schemas(
    config: &Config,
    data: &Path,
) -> BTreeMap<String, Vec<(String, serde_json::Value)>> {
    let mut known = BTreeMap::new();
    // Without a directory that can be read nothing is known.
    let Ok(db) = Db::open_to_read(data).await else {
        return known;
    };
    for (name, server) in &config.servers {
        let schemas = catalog::stored_schemas(&db, name.as_str(), &identity(server)).await;
        if let Some(schemas) = schemas {
            known.insert(name.to_string(), schemas);
        }
    }
    db.close().await;
    known
}

/// What a server is, without its secrets: an approval is void once this is another.
fn identity(server: &config::Server) -> Digest {
    let sources = |all: &BTreeMap<String, Secret>| -> BTreeMap<String, String> {
        let source = |secret: &Secret| match secret {
            Secret::Plain(text) => format!("plain:{}", Digest::of(text.as_bytes())),
            Secret::Env(name) => format!("env:{name}"),
            Secret::File(path) => format!("file:{}", path.display()),
            Secret::Command(argv) => format!("command:{argv:?}"),
        };
        all.iter()
            .map(|(name, secret)| (name.clone(), source(secret)))
            .collect()
    };
    Digest::of_json(&match &server.transport {
        config::Transport::Stdio {
            command,
            args,
            env,
            cwd,
        } => {
            json!({ "command": command, "args": args, "env": sources(env), "cwd": cwd })
        }
        config::Transport::Http { url, headers } => {
            json!({ "url": url, "headers": sources(headers) })
        }
        // Another version's tools are not what this one offers.
        config::Transport::Bundled(bundled @ Bundled::Notes) => {
            json!({ "bundled": bundled.as_str(), "tools": notes::Server::tools() })
        }
    })
}

/// Homes of programs lie beside the data directory's tree, not in it: as root every program is another
/// user, and none of them may enter that.
fn plan(paths: &Paths) -> Plan {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let data = real(&paths.data);
    let root = if rustix::process::geteuid().is_root() {
        let id = hex(Digest::of(data.as_os_str().as_encoded_bytes())
            .as_str()
            .get(..6)
            .unwrap_or_default()
            .as_bytes());
        Path::new("/var/lib/portcullis-homes").join(id)
    } else {
        data.join("homes")
    };
    let config = paths.config.parent().map(real);
    Plan {
        root,
        protected: std::iter::once(data)
            .chain(config.filter(|config| config.parent().is_some()))
            .collect(),
        // This very binary, even if the file was replaced since.
        supervisor: PathBuf::from("/proc/self/exe"),
        path: config::env_var("PATH"),
        bundled: config::beside_us(),
    }
}

/// The programs that come with the gateway, are configured, and are not there.
fn missing(config: &Config, plan: &Plan) -> Vec<NotThere> {
    let commands = config
        .servers
        .values()
        .filter_map(|server| match &server.transport {
            config::Transport::Stdio { command, .. } => Some(command.as_str()),
            config::Transport::Http { .. } | config::Transport::Bundled(_) => None,
        });
    let hosted = config.groups.values().any(|group| group.model.is_some());
    commands
        .chain(hosted.then_some(hosted::PROGRAM))
        .filter_map(|command| plan.bundled(command.as_ref()).err())
        .collect()
}

/// Fetches the secrets that can be had already, so that they are found in arguments and hidden in the
/// log before the servers that own them start. Plain values are settings, but for keys of models.
async fn learn(config: &Config, kept: &Kept) {
    let servers = config
        .servers
        .values()
        .flat_map(|server| match &server.transport {
            config::Transport::Stdio { env, .. } => env.values().collect(),
            config::Transport::Http { headers, .. } => headers.values().collect(),
            config::Transport::Bundled(_) => Vec::new(),
        });
    for secret in servers {
        if let Err(error) = secret.resolve(kept).await {
            tracing::warn!("a secret is not there yet: {error}");
        }
    }
    for model in config.models.values() {
        if let config::Api::Anthropic { key, .. } = &model.api {
            match key.resolve(kept).await {
                Ok(value) => kept.learn(value.expose_secret()),
                Err(error) => tracing::warn!("the key of a model is not there yet: {error}"),
            }
        }
    }
}

/// Settles what expires and lets orphans go that have ended, until the gateway stops.
async fn tick(broker: Arc<Broker>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    let mut reaper = Reaper::default();
    loop {
        tokio::select! {
            () = broker.stopping.cancelled() => return,
            _ = every.tick() => {
                broker.approvals.tick(jiff::Timestamp::now()).await;
                reaper.look(&broker.upstreams.supervisors(), Instant::now());
            }
        }
    }
}

/// Removes what is older than the log is kept, until the gateway stops.
async fn keep_log(broker: Arc<Broker>, db: Db, index: Index) {
    let Some(keep) = broker.config.now().audit.keep else {
        return;
    };
    let retention = Retention {
        db: &db,
        audit: &broker.audit,
        keys: &broker.keys,
        index: &index,
    };
    retention.run(keep, &broker.stopping).await;
}

/// Hears what servers say by themselves, until the gateway stops.
async fn hear(
    broker: &Arc<Broker>,
    mcp: &Arc<Mcp>,
    states: &broadcast::Sender<String>,
    events: &mut mpsc::UnboundedReceiver<Event>,
) {
    loop {
        let event = tokio::select! {
            () = broker.stopping.cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            None => return,
            Some(Event::ListChanged { server, .. }) => {
                let catalog = broker.catalog.clone();
                broker.tasks.spawn(async move {
                    if let Err(error) = catalog.changed(&server).await {
                        tracing::warn!(
                            server.name = server,
                            "the changed lists of `{server}` cannot be read: {error}"
                        );
                    }
                });
            }
            Some(Event::ResourceUpdated { server, params }) => {
                mcp.resource_updated(&server, &params);
            }
            Some(Event::StateChanged { server, .. }) => {
                let _ = states.send(server);
            }
            Some(Event::Log { .. }) => {}
        }
    }
}

/// Who takes a configuration that changes while it runs.
fn watcher(paths: &Paths, broker: &Arc<Broker>) -> Watcher {
    let (catalog, known) = (broker.catalog.clone(), broker.catalog.clone());
    Watcher {
        path: paths.config.clone(),
        live: broker.config.clone(),
        audit: broker.audit.clone(),
        check: Box::new(move |config| config.impossible(&|server| known.input_schemas(server))),
        // Another grant is another list of tools.
        taken: Box::new(move |_| catalog.tell_all()),
    }
}

/// What people's routes work on.
fn people(
    broker: &Arc<Broker>,
    db: &Db,
    index: Index,
    groups: Arc<Groups>,
    changes: Arc<api::events::Changes>,
    listen: SocketAddr,
) -> Arc<Api> {
    let url = broker.config.now().public_url.clone();
    Arc::new(Api {
        broker: broker.clone(),
        db: db.clone(),
        index,
        web: broker.hosted.web.clone(),
        sessions: Sessions::new(db.clone(), broker.config.clone(), listen.port()),
        groups,
        changes,
        servers: broker.catalog.turns(),
        url: url.unwrap_or_else(|| reachable(listen)),
        since: Instant::now(),
    })
}

/// A link for the start-up output. Without one, `portcullis login` prints it.
async fn console_link(api: &Api) -> Option<String> {
    let link = api::console_link(api).await;
    link.unwrap_or_else(|refused| {
        tracing::error!("no link to the console can be made: {}", refused.text());
        None
    })
}

/// The address under which a browser on this machine finds a listener.
fn reachable(listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() {
        format!("http://localhost:{}", listen.port())
    } else {
        format!("http://{listen}")
    }
}
