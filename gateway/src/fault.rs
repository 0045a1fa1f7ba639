//! Points at which a test makes the gateway die, wait or fail, to see what is left.
//!
//! Only with the feature `faults`, which no optimised build can have: in every other build a point is
//! nothing. Which point does what is written in the file `schedule` of the directory that
//! `PORTCULLIS_FAULTS` names, one order a line; each point that is passed is a line in `hits` beside
//! it, written before the order is carried out. A changed file is a new schedule: counting begins anew.
//! The fields of an order are split by tabs.
//!
//! ```text
//! kill   release.begun    1          the first time it is passed: SIGKILL
//! fail   question.moved   2          the second time: an error of the database
//! delay  call.send        1   200    milliseconds
//! wait   approve.stored   1   FILE   until there is such a file
//! ```

#[cfg(not(feature = "faults"))]
pub use off::{db, now, point};
#[cfg(feature = "faults")]
pub use on::{db, now, point, statement};

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` is for tests alone: build without it");

#[cfg(not(feature = "faults"))]
mod off {
    use std::future::{Ready, ready};

    use crate::db::DbError;

    /// A place between two things that touch the outside.
    pub fn point(_name: &'static str) -> Ready<()> {
        ready(())
    }

    /// The same where the database is touched.
    pub fn db(_name: &'static str) -> Ready<Result<(), DbError>> {
        ready(Ok(()))
    }

    /// The same where nothing waits.
    pub fn now(_name: &'static str) {}
}

#[cfg(feature = "faults")]
mod on {
    use std::collections::HashMap;
    use std::fs::{File, OpenOptions};
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    use crate::config;
    use crate::db::DbError;

    /// A place between two things that touch the outside.
    pub async fn point(name: &'static str) {
        if let Some(order) = passed(name) {
            carry_out(order).await;
        }
    }

    /// The same where the database is touched: it can fail there.
    ///
    /// # Errors
    /// [`DbError`], where the schedule says so.
    pub async fn db(name: &'static str) -> Result<(), DbError> {
        match passed(name) {
            Some(Order::Fail) => Err(DbError::Unreadable {
                what: "thing that a test broke",
            }),
            Some(order) => {
                carry_out(order).await;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The same where nothing waits: there it can only die.
    pub fn now(name: &str) {
        if let Some(Order::Kill) = passed(name) {
            die();
        }
    }

    /// A statement was carried out: a point of its own name, as in `sql:UPDATE approvals`. Reads are
    /// none.
    pub fn statement(sql: &str) {
        let mut words = sql
            .split([' ', '"', '`', '('])
            .filter(|word| !word.is_empty());
        let verb = words.next().unwrap_or_default();
        let table = match verb {
            "INSERT" | "DELETE" => words.nth(1),
            "UPDATE" => words.next(),
            _ => None,
        };
        if let Some(table) = table {
            now(&format!("sql:{verb} {table}"));
        }
    }

    enum Order {
        Kill,
        Fail,
        Delay(Duration),
        Wait(PathBuf),
    }

    struct Ledger {
        folder: PathBuf,
        hits: File,
        schedule: String,
        count: HashMap<String, u32>,
    }

    fn ledger() -> Option<&'static Mutex<Ledger>> {
        static LEDGER: OnceLock<Option<Mutex<Ledger>>> = OnceLock::new();
        LEDGER
            .get_or_init(|| {
                let folder = PathBuf::from(config::env_var("PORTCULLIS_FAULTS")?);
                let hits = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(folder.join("hits"))
                    .ok()?;
                Some(Mutex::new(Ledger {
                    folder,
                    hits,
                    schedule: String::new(),
                    count: HashMap::new(),
                }))
            })
            .as_ref()
    }

    fn passed(name: &str) -> Option<Order> {
        let mut ledger = ledger()?.lock().unwrap_or_else(PoisonError::into_inner);
        let schedule = std::fs::read_to_string(ledger.folder.join("schedule")).unwrap_or_default();
        if schedule != ledger.schedule {
            ledger.schedule = schedule;
            ledger.count.clear();
        }
        let count = ledger.count.entry(name.to_owned()).or_default();
        *count += 1;
        let time = *count;
        let order = ledger
            .schedule
            .lines()
            .find_map(|line| order(line, name, time));
        let done = match &order {
            None => "",
            Some(Order::Kill) => " kill",
            Some(Order::Fail) => " fail",
            Some(Order::Delay(_)) => " delay",
            Some(Order::Wait(_)) => " wait",
        };
        // One write, which outlives this process: the kernel has it.
        let _ = ledger.hits.write_all(format!("{name}{done}\n").as_bytes());
        order
    }

    fn order(line: &str, name: &str, time: u32) -> Option<Order> {
        let mut fields = line.split('\t');
        let verb = fields.next()?;
        if fields.next()? != name || fields.next()?.parse() != Ok(time) {
            return None;
        }
        match verb {
            "kill" => Some(Order::Kill),
            "fail" => Some(Order::Fail),
            "delay" => Some(Order::Delay(Duration::from_millis(
                fields.next()?.parse().ok()?,
            ))),
            "wait" => Some(Order::Wait(PathBuf::from(fields.next()?))),
            _ => None,
        }
    }

    async fn carry_out(order: Order) {
        match order {
            Order::Kill => die(),
            Order::Fail => {}
            Order::Delay(time) => tokio::time::sleep(time).await,
            Order::Wait(file) => wait(&file).await,
        }
    }

    async fn wait(file: &Path) {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn die() -> ! {
        let us = rustix::process::getpid();
        let _ = rustix::process::kill_process(us, rustix::process::Signal::KILL);
        std::process::abort()
    }
}
