//! Runs the gateway: opens everything in order, says `ready`, and closes in the reverse order.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::serve::ListenerExt as _;
use channels::web::Web;
use policy::action::{Digest, hex};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::approvals::Approvals;
use crate::audit::Audit;
use crate::broker::{Broker, Parts};
use crate::catalog::Catalog;
use crate::config::{self, Config, Paths};
use crate::console::sessions::Sessions;
use crate::conversations::Conversations;
use crate::db::{Db, DbError};
use crate::door::{self, Door};
use crate::identity::Identity;
use crate::keys::{KeyError, Keys, make_private};
use crate::mcp::Mcp;
use crate::peer::Peer;
use crate::secrets::Secret;
use crate::upstreams::{Event, Homes, Spec, Transport, Upstreams};

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// Listen here instead.
    pub listen: Option<SocketAddr>,
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
    /// A listener that others can reach needs TLS in front.
    #[error("{0}")]
    Exposed(String),
    /// A key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database cannot be opened.
    #[error(transparent)]
    Db(#[from] DbError),
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

    // Everything we make is ours alone; servers get an ordinary mask back.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // One TLS library for all that speaks TLS here; a second install is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let stopping = CancellationToken::new();
    let Opened {
        broker,
        db,
        writer,
        changes,
        mut heard,
    } = open(&paths, config, stopping.clone()).await?;
    let upstreams = broker.upstreams.clone();

    let mcp = Mcp::new(broker.clone());
    let url = format!("http://{listen}");
    let api = people(&broker, &db, changes, listen);
    let socket = bind_socket(&paths.socket()).map_err(|source| UpError::Data {
        path: paths.socket(),
        source,
    })?;
    broker.tasks.spawn(mcp.clone().tell_changes());
    broker.tasks.spawn(tick(broker.clone()));
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
    let network = axum::serve(tcp, door::router(&broker, mcp, api.clone(), door))
        .with_graceful_shutdown(stopping.clone().cancelled_owned());
    let owner = axum::serve(
        socket,
        api::socket(api.clone()).into_make_service_with_connect_info::<Peer>(),
    )
    .with_graceful_shutdown(stopping.clone().cancelled_owned());
    let (network, owner) = (
        tokio::spawn(network.into_future()),
        tokio::spawn(owner.into_future()),
    );
    say_ready(&broker, &url, console_link(&api).await.as_deref());

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stopping.cancel();
    broker.tasks.close();
    // A second signal ends the waiting.
    let drained = async {
        broker.tasks.wait().await;
        let _ = tokio::join!(network, owner);
    };
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(DRAIN) => tracing::warn!("some of what was begun did not end in time"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    upstreams.shutdown().await;
    let _ = std::fs::remove_file(paths.socket());
    drop(broker);
    // The writer ends when the last sender is gone; tasks that did not end in time keep theirs.
    let _ = tokio::time::timeout(Duration::from_secs(5), writer).await;
    db.close().await;
    Ok(())
}

/// What is open while it runs.
struct Opened {
    broker: Arc<Broker>,
    db: Db,
    writer: tokio::task::JoinHandle<()>,
    changes: Arc<api::events::Changes>,
    heard: mpsc::UnboundedReceiver<Event>,
}

/// Opens the parts in order, and takes up what was left.
async fn open(
    paths: &Paths,
    config: Config,
    stopping: CancellationToken,
) -> Result<Opened, UpError> {
    let keys = Arc::new(Keys::open(&paths.data)?);
    let db = Db::open(&paths.data).await?;
    let (audit, writer) = Audit::start(db.clone(), keys.clone()).await?;
    let config = Arc::new(config);
    let (events, heard) = mpsc::unbounded_channel();
    let upstreams = Upstreams::new(specs(&config), homes(paths), events);
    let identities = config
        .servers
        .iter()
        .map(|(name, server)| (name.to_string(), identity(server)))
        .collect();
    let catalog = Arc::new(Catalog::open(db.clone(), upstreams.clone(), identities).await);
    let changes = Arc::new(api::events::Changes::default());
    let (approvals, approved) = Approvals::open(
        db.clone(),
        keys.clone(),
        audit.clone(),
        config.approvals.expire,
        config.approvals.max_open,
        vec![changes.clone()],
    )
    .await?;
    let broker = Broker::new(Parts {
        catalog,
        upstreams,
        approvals,
        audit,
        conversations: Conversations::with_labels(db.labels().await?),
        identity: Arc::new(Identity::open(keys.clone(), db.clone()).await?),
        keys,
        known_secrets: known_secrets(&config).await,
        stopping,
        config,
    });
    broker.recover(db.running().await?, approved).await?;
    Ok(Opened {
        broker,
        db,
        writer,
        changes,
        heard,
    })
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
        config::Transport::Stdio {
            command,
            args,
            env,
            cwd,
        } => Transport::Stdio {
            command,
            args,
            env,
            cwd,
        },
        config::Transport::Http { url, headers } => Transport::Http { url, headers },
    };
    let servers = config.servers.iter();
    servers
        .map(|(name, server)| Spec {
            name: name.to_string(),
            transport: transport(server),
            idle_timeout: server.idle_timeout,
            start_timeout: server.start_timeout,
            max_message: config.max_message,
        })
        .collect()
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
    })
}

/// Homes of servers lie beside the data directory's tree, not in it: as root every server is another
/// user, and none of them may enter that.
fn homes(paths: &Paths) -> Homes {
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
    Homes {
        root,
        protected: std::iter::once(data)
            .chain(config.filter(|config| config.parent().is_some()))
            .collect(),
    }
}

/// The secrets that can be known at the start, to be found in arguments and masked in the log. Plain
/// values of the configuration are settings, not secrets.
async fn known_secrets(config: &Config) -> Vec<String> {
    let mut known = Vec::new();
    for server in config.servers.values() {
        let all = match &server.transport {
            config::Transport::Stdio { env, .. } => env,
            config::Transport::Http { headers, .. } => headers,
        };
        for secret in all.values() {
            match secret {
                Secret::Plain(_) => {}
                Secret::Env(_) | Secret::File(_) | Secret::Command(_) => {
                    match secret.resolve().await {
                        Ok(value) => known.push(value.expose_secret().to_owned()),
                        Err(error) => tracing::warn!("a secret is not there yet: {error}"),
                    }
                }
            }
        }
    }
    known
}

/// Settles what expires, until the gateway stops.
async fn tick(broker: Arc<Broker>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = broker.stopping.cancelled() => return,
            _ = every.tick() => broker.approvals.tick(jiff::Timestamp::now()).await,
        }
    }
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

/// What people's routes work on.
fn people(
    broker: &Arc<Broker>,
    db: &Db,
    changes: Arc<api::events::Changes>,
    listen: SocketAddr,
) -> Arc<Api> {
    Arc::new(Api {
        broker: broker.clone(),
        db: db.clone(),
        web: Web::new(db.channels()),
        sessions: Sessions::new(db.clone(), broker.config.clone(), listen.port()),
        runs: Arc::new(api::Nobody),
        changes,
        servers: broadcast::Sender::new(64),
        url: broker
            .config
            .public_url
            .clone()
            .unwrap_or_else(|| reachable(listen)),
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

fn say_ready(broker: &Broker, url: &str, link: Option<&str>) {
    use std::fmt::Write as _;
    let mut text = String::new();
    let config = &broker.config;
    if config.groups.is_empty() {
        text += "There is no group yet, so no agent can connect: write one in the configuration.\n";
    }
    for group in config.groups.keys().take(1) {
        let _ = write!(
            text,
            "Connect Claude Code to group `{group}`:\n  claude mcp add --transport http portcullis {url}/mcp \\\n    \
             --header \"Authorization: Bearer $(portcullis token issue --group {group})\"\n"
        );
    }
    if config.approvals.cli {
        text += "An agent that runs as this same user could answer its own questions; run it as another, or set `[approvals] cli = false`.\n";
    }
    if let Some(link) = link {
        let _ = writeln!(
            text,
            "Open the console, once and within 10 minutes:\n  {link}"
        );
    }
    let _ = writeln!(text, "ready {url}");
    let mut out = io::stdout().lock();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        tracing::debug!("nobody reads the start-up output");
    }
}
