//! What the log costs: records made durable, and checked again, against what the machine itself can
//! do in the same run.
//!
//! `.ci/bench` runs it, and `.ci/long audit` with a million: `log [RECORDS]`. Writers wait for each of
//! their records, as calls do: one before an action, one after it. Then the index over all of them is
//! made, and asked.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway::audit::find::Wanted;
use gateway::audit::index::Index;
use gateway::audit::read::verify;
use gateway::audit::{Audit, Opens, Write};
use gateway::db::Db;
use gateway::keys::Keys;
use policy::action::Digest;
use policy::record::{Event, Outcome};
use serde_json::json;

/// How many wait for their records at once.
const WRITERS: usize = 64;

/// The processor time that this process has taken, all threads together.
fn processor() -> Result<Duration> {
    const TICKS: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').context("the system tells no times")?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = fields.next().context("no time")?? + fields.next().context("no time")??;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

fn main() -> Result<()> {
    let records = match std::env::args().nth(1) {
        Some(text) => text.parse().context("give a number of records")?,
        None => 20_000,
    };
    // Beside this program rather than in /tmp, which may be memory: the log is to be on a disk.
    let here = std::env::current_exe()?;
    let scratch = tempfile::tempdir_in(here.parent().context("this program lies nowhere")?)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(measure(scratch.path(), records))?;
    std::io::stdout().lock().write_all(report.as_bytes())?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn measure(data: &Path, records: usize) -> Result<String> {
    let keys = Arc::new(Keys::open(data)?);
    let db = Db::open(data).await?;
    let (audit, writer) = Audit::start(db.clone(), keys, None).await?;
    let each = records / WRITERS / 2;
    let spent = processor()?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..WRITERS {
        tasks.spawn(write(audit.clone(), n, each));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let appended = rate(each * WRITERS * 2, begun.elapsed());
    let appending = processor()?
        .saturating_sub(spent)
        .div_f64((each * WRITERS * 2) as f64);
    drop(audit);
    writer.await?;
    let index = Index::open(data, db.clone()).await?;
    let spent = processor()?;
    let begun = Instant::now();
    index.catch_up().await?;
    let indexed = rate(each * WRITERS * 2, begun.elapsed());
    let indexing = processor()?
        .saturating_sub(spent)
        .div_f64((each * WRITERS * 2) as f64);
    let searched = search(&index, each * WRITERS).await?;
    index.close().await;
    db.close().await;

    let bytes = serde_json::to_vec(&decided("act_0")?)?.len() + 200;
    let synced = sync_rate(data, bytes)?;
    let spent = processor()?;
    let begun = Instant::now();
    let verified = verify(data, &[]).await?;
    let checked = rate(usize::try_from(verified.entries)?, begun.elapsed());
    let checking = processor()?
        .saturating_sub(spent)
        .div_f64((each * WRITERS * 2) as f64);
    ensure!(
        verified.entries >= i64::try_from(each * WRITERS * 2)?,
        "records are missing"
    );
    let hashed = hash_rate(bytes);
    Ok(format!(
        "log                    records/s   the machine   ratio   processor\n\
         append, {WRITERS} writers    {appended:>10.0}    {synced:>10.0}  {:>6.3}   {:>6.1} us   records of {bytes} bytes, 64 to an fdatasync\n\
         verify                {checked:>10.0}    {hashed:>10.0}  {:>6.3}   {:>6.1} us   SHA-256 alone\n\
         index                 {indexed:>10.0}                        {:>6.1} us\n\n\
         search in {} records         found    median ms   slowest ms\n{searched}",
        appended / synced,
        appending.as_secs_f64() * 1e6,
        checked / hashed,
        checking.as_secs_f64() * 1e6,
        indexing.as_secs_f64() * 1e6,
        each * WRITERS * 2,
    ))
}

/// One who does actions one after the other.
async fn write(audit: Audit, writer: usize, actions: usize) -> Result<()> {
    for n in 0..actions {
        let id = format!("act_{writer:04}{n:028}");
        let event = decided(&id)?;
        audit
            .write(Write::new(&*id, event).opens(Opens::Begins))
            .await?;
        let closed = Event::Closed {
            outcome: Outcome::Ok,
            detail: None,
            result: Some(Digest::of(id.as_bytes()).into()),
        };
        audit
            .write(Write::new(&*id, closed).opens(Opens::Ends))
            .await?;
    }
    Ok(())
}

/// How long it takes to find the newest 50 stories that fit.
async fn search(index: &Index, stories: usize) -> Result<String> {
    const TIMES: usize = 11;
    let text = |text: String| Wanted {
        text,
        ..Wanted::default()
    };
    let writer = stories / WRITERS / 2;
    let asked = [
        (
            "a word of one record",
            text(format!("act_0007{writer:028}")),
        ),
        ("a word of every record", text("figures".to_owned())),
        ("an address", text("ana@example.org".to_owned())),
        (
            "a phrase",
            text("\"here is what you asked for\"".to_owned()),
        ),
        (
            "two words, never together",
            text(format!("act_0007{writer:028} act_0008{writer:028}")),
        ),
        ("the beginnings of words", text("figu* exam*".to_owned())),
        ("a word of none", text("anemone".to_owned())),
        (
            "a word and filters",
            Wanted {
                group: "work".to_owned(),
                tool: "mail__send".to_owned(),
                outcome: "ok".to_owned(),
                ..text("ana".to_owned())
            },
        ),
        (
            "what failed, of which there is none",
            Wanted {
                outcome: "error".to_owned(),
                ..text("ana".to_owned())
            },
        ),
        (
            "the last hour",
            Wanted {
                since: "1h".to_owned(),
                ..Wanted::default()
            },
        ),
    ];
    let mut lines = String::new();
    for (name, wanted) in asked {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..TIMES {
            let begun = Instant::now();
            found = index.find(&wanted, None, 50, |_| true).await?.0.len();
            times.push(begun.elapsed());
        }
        times.sort();
        let millis = |at: usize| times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let (median, slowest) = (millis(TIMES / 2), millis(TIMES - 1));
        writeln!(
            lines,
            "{name:<36} {found:>5} {median:>12.1} {slowest:>12.1}"
        )?;
    }
    Ok(lines)
}

/// A decision as they are: a letter to somebody.
fn decided(id: &str) -> Result<Event> {
    let digest = Digest::of(b"definition");
    let event = json!({
        "event": "decided",
        "facts": {
            "action": {
                "id": id, "kind": "mcp", "group": "work", "conversation": "token:tok_1", "run": "run_1",
                "principal": "token:tok_1 (laptop)", "server": "mail", "method": "tools/call", "name": "send",
                "args": {
                    "to": ["ana@example.org"], "subject": format!("the figures of {id}"),
                    "body": "Dear Ana, here is what you asked for.",
                },
                "definition": digest, "identity": digest,
            },
            "traits": {
                "public_source": true, "secret_data": true, "public_sink": true, "dangerous_writes": true,
                "read_only": false,
            },
            "labels": {}, "contains_secrets": false, "changed": false, "credentials": [], "grants": [],
            "now": jiff::Timestamp::now(),
        },
        "why": {
            "decision": "allow", "gates": [], "lifted": ["dangerous_writes", "public_sink"],
            "rules": ["mail-to-colleagues"], "reasons": ["rule `mail-to-colleagues` allows it"], "adds": [],
        },
        "revision": "0123456789abcdef",
    });
    Ok(serde_json::from_value(event)?)
}

/// How many records a second the disk takes when as many as writers share one fdatasync.
fn sync_rate(folder: &Path, bytes: usize) -> Result<f64> {
    const TIMES: usize = 200;
    let group = vec![b'x'; bytes * WRITERS];
    let mut file = File::create(folder.join("raw"))?;
    let begun = Instant::now();
    for _ in 0..TIMES {
        file.write_all(&group)?;
        file.sync_data()?;
    }
    Ok(rate(TIMES * WRITERS, begun.elapsed()))
}

/// How many records a second one thread can hash.
fn hash_rate(bytes: usize) -> f64 {
    const TIMES: usize = 50_000;
    let record = vec![b'x'; bytes];
    let begun = Instant::now();
    for _ in 0..TIMES {
        std::hint::black_box(Digest::of(&record));
    }
    rate(TIMES, begun.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
