//! What the gateway costs: the same tool called directly and through `portcullis`, in one run.
//!
//! `.ci/bench [SECONDS]` runs it. A small MCP server is started in this process and called over
//! streamable HTTP, in sessions of 2025-11-25; then the same through the real binary, with policy and
//! the durable log on. The server is declared harmless but not read-only, so that every call is
//! decided, recorded before and after, and its answer kept until it is handed over.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use anyhow::{Context as _, Result, bail, ensure};
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use serde_json::{Value, json};

const VERSION: &str = "2025-11-25";
/// How many callers there are at once.
const CALLERS: [usize; 3] = [1, 8, 32];
/// A token may have 16 sessions that are idle; the callers share fewer.
const SESSIONS: usize = 8;
const WARM_UP: Duration = Duration::from_millis(300);

fn main() -> Result<()> {
    let seconds: f64 = match std::env::args().nth(1) {
        Some(text) => text.parse().context("give a number of seconds")?,
        None => 2.0,
    };
    let binary = std::env::args()
        .nth(2)
        .context("give the binary: bench SECONDS BINARY")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(measure(
        Duration::from_secs_f64(seconds),
        Path::new(&binary),
    ))?;
    std::io::stdout().lock().write_all(report.as_bytes())?;
    Ok(())
}

async fn measure(time: Duration, binary: &Path) -> Result<String> {
    // Beside this program rather than in /tmp, which may be memory: the log is to be on a disk.
    let here = std::env::current_exe()?;
    let scratch = tempfile::tempdir_in(here.parent().context("this program lies nowhere")?)?;
    let server = serve().await?;
    let place = Place::new(binary, scratch.path(), &server)?;
    let (up, started) = place.start()?;
    let idle = memory(up.child.id())?;

    let token = place.cli(&["token", "issue", "--group", "bench"])?;
    let url = format!("{}/mcp", up.url);
    let direct = Target::open(&server, None, "echo").await?;
    let through = Target::open(&url, Some(token.trim()), "echo__echo").await?;
    let mut lines = vec![
        "             directly                        through                      added"
            .to_owned(),
        "callers      calls/s   p50 ms   p99 ms       calls/s   p50 ms   p99 ms   p50 ms   ratio"
            .to_owned(),
    ];
    let mut calls = 0;
    for callers in CALLERS {
        let alone = direct.call_for(callers, time).await?;
        let gated = through.call_for(callers, time).await?;
        calls += gated.all;
        let (ratio, added) = (gated.rate / alone.rate, gated.p50 - alone.p50);
        lines.push(format!(
            "{callers:>7}  {alone}    {gated} {added:>8.2} {ratio:>7.3}"
        ));
    }
    let loaded = memory(up.child.id())?;

    let begun = Instant::now();
    let verified: Value = serde_json::from_str(&place.cli(&["audit", "verify", "--json"])?)?;
    let verifying = begun.elapsed();
    up.stop()?;
    let records = verified.get("records").and_then(Value::as_u64).unwrap_or(0);
    ensure!(
        verified.get("ok") == Some(&Value::Bool(true)) && records >= 2 * calls,
        "after {calls} calls: {verified}"
    );
    let size = fs::metadata(place.data.join("portcullis.db"))?.len();
    lines.extend([
        String::new(),
        format!(
            "write and fsync of 4 KiB  {:.2} ms (median of 100)",
            millis(sync_time(scratch.path())?)
        ),
        format!("start-up to `ready`       {:.0} ms (median of 5)", millis(started)),
        format!("resident memory           {idle:.1} MiB idle, {loaded:.1} MiB after the calls"),
        format!(
            "log                       {records} records of {calls} calls, verified in {:.1} s, {} bytes of database a call",
            verifying.as_secs_f64(),
            size / calls.max(1)
        ),
        String::new(),
    ]);
    Ok(lines.join("\n"))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The median time to write 4 KiB and have them on the disk.
fn sync_time(folder: &Path) -> Result<Duration> {
    let mut file = fs::File::create(folder.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_all()?;
        times.push(begun.elapsed());
    }
    times.sort();
    times.get(50).copied().context("nothing was written")
}

/// A process's resident memory, in MiB.
fn memory(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = number.context("no VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}

/// A configuration, a data directory and the binary that runs on them.
struct Place {
    binary: PathBuf,
    config: PathBuf,
    data: PathBuf,
}

/// A running gateway. Killed if the measurement fails.
struct Up {
    child: Child,
    url: String,
    took: Duration,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Up {
    fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        let pid = rustix::process::Pid::from_raw(pid).context("no process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }
}

impl Place {
    fn new(binary: &Path, scratch: &Path, server: &str) -> Result<Self> {
        let config = scratch.join("portcullis.toml");
        let text = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n[mcp_servers.echo]\nurl = \"{server}\"\n[mcp_servers.echo.trust]\n\
             public_source = false\nsecret_data = false\npublic_sink = false\ndangerous_writes = false\n\
             [groups.bench]\nservers = [\"echo\"]\n"
        );
        fs::write(&config, text)?;
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            binary: binary.to_owned(),
            config,
            data: scratch.join("data"),
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--config")
            .arg(&self.config)
            .arg("--data")
            .arg(&self.data)
            .args(arguments)
            .env("PORTCULLIS_LOG", "warn");
        command
    }

    fn up(&self) -> Result<Up> {
        let begun = Instant::now();
        let mut child = self
            .command(&["up"])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", self.binary.display()))?;
        let out = child.stdout.take().context("no output")?;
        for line in BufReader::new(out).lines() {
            if let Some(url) = line?.strip_prefix("ready ") {
                return Ok(Up {
                    child,
                    url: url.to_owned(),
                    took: begun.elapsed(),
                });
            }
        }
        let _ = child.wait();
        bail!("the gateway did not become ready")
    }

    /// Starts it as often as is needed to say how long that takes; the last one runs.
    fn start(&self) -> Result<(Up, Duration)> {
        // The first makes the directory and its tables.
        self.up()?.stop()?;
        let mut times = Vec::new();
        for _ in 0..4 {
            let up = self.up()?;
            times.push(up.took);
            up.stop()?;
        }
        let up = self.up()?;
        times.push(up.took);
        times.sort();
        Ok((up, times.get(2).copied().unwrap_or_default()))
    }

    fn cli(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output()?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// What was measured with some callers.
struct Figures {
    /// Calls per second.
    rate: f64,
    /// In milliseconds.
    p50: f64,
    /// In milliseconds.
    p99: f64,
    /// Every call that was made, those to warm up too.
    all: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>11.0} {:>8.2} {:>8.2}", self.rate, self.p50, self.p99)
    }
}

/// An endpoint with open sessions.
struct Target {
    client: reqwest::Client,
    url: String,
    tool: &'static str,
    sessions: Vec<String>,
    token: Option<String>,
    last_id: Arc<AtomicU64>,
}

impl Target {
    async fn open(url: &str, token: Option<&str>, tool: &'static str) -> Result<Arc<Self>> {
        let mut target = Self {
            client: reqwest::Client::builder().no_proxy().build()?,
            url: url.to_owned(),
            tool,
            sessions: Vec::new(),
            token: token.map(str::to_owned),
            last_id: Arc::default(),
        };
        for _ in 0..SESSIONS {
            let params = json!({ "protocolVersion": VERSION, "capabilities": {}, "clientInfo": { "name": "bench", "version": "0" } });
            let greeting = target.post(None, "initialize", params).send().await?;
            let session = greeting.headers().get("mcp-session-id");
            let session = session
                .context("no session")?
                .to_str()
                .context("an odd session")?
                .to_owned();
            target.sessions.push(session);
        }
        let target = Arc::new(target);
        target.call(0).await?;
        Ok(target)
    }

    fn post(&self, session: Option<&str>, method: &str, params: Value) -> reqwest::RequestBuilder {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let mut request = self
            .client
            .post(&self.url)
            .header("accept", "application/json, text/event-stream")
            .json(&body);
        if let Some(session) = session {
            request = request
                .header("mcp-session-id", session)
                .header("mcp-protocol-version", VERSION);
        }
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// One call, whose answer must be what was said.
    async fn call(&self, caller: usize) -> Result<()> {
        let said = format!("call {}", self.last_id.load(Ordering::Relaxed));
        let session = self.sessions.get(caller % SESSIONS).map(String::as_str);
        let params = json!({ "name": self.tool, "arguments": { "text": said } });
        let answer = self.post(session, "tools/call", params).send().await?;
        let answer = answer.bytes().await?;
        // One that takes longer than the gateway's patience comes as an event.
        let text = std::str::from_utf8(&answer)?;
        let event = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("data: "));
        let value: Value = serde_json::from_str(event.unwrap_or(text))
            .with_context(|| format!("the answer is {text}"))?;
        let heard = value.pointer("/result/content/0/text");
        ensure!(
            heard.and_then(Value::as_str) == Some(&said),
            "said {said}, heard {value}"
        );
        Ok(())
    }

    /// So many callers, each with one call after the other.
    async fn call_for(self: &Arc<Self>, callers: usize, time: Duration) -> Result<Figures> {
        let begin = Instant::now() + WARM_UP;
        let end = begin + time;
        let callers: Vec<_> = (0..callers)
            .map(|caller| {
                let target = self.clone();
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    let mut all = 0;
                    loop {
                        let now = Instant::now();
                        if now >= end {
                            return anyhow::Ok((all, times));
                        }
                        target.call(caller).await?;
                        all += 1;
                        if now >= begin {
                            times.push(now.elapsed());
                        }
                    }
                })
            })
            .collect();
        let mut times = Vec::new();
        let mut all = 0;
        for caller in callers {
            let (some, more) = caller.await??;
            all += some;
            times.extend(more);
        }
        let took = begin.elapsed();
        times.sort();
        let at = |per_mille: usize| {
            let time = times.get(times.len() * per_mille / 1000);
            time.copied().map(millis).context("nothing was measured")
        };
        let count = f64::from(u32::try_from(times.len())?);
        Ok(Figures {
            rate: count / took.as_secs_f64(),
            p50: at(500)?,
            p99: at(990)?,
            all,
        })
    }
}

/// Starts the server that is called, and gives its address.
async fn serve() -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let router = axum::Router::new().route("/mcp", post(answer));
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(url)
}

async fn answer(body: Bytes) -> Response {
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let Some(id) = message.get("id") else {
        return StatusCode::ACCEPTED.into_response();
    };
    let method = message
        .get("method")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let result = match method {
        "initialize" => json!({
            "protocolVersion": VERSION,
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "echo", "version": "0" },
        }),
        "tools/list" => json!({ "tools": [{
            "name": "echo",
            "inputSchema": { "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"] },
        }] }),
        "tools/call" => {
            let text = message.pointer("/params/arguments/text");
            json!({ "content": [{ "type": "text", "text": text }] })
        }
        _ => json!({}),
    };
    let body = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::HeaderName::from_static("mcp-session-id"), "bench"),
    ];
    (headers, body).into_response()
}
