//! Processes that lost their parent, and were given to the gateway because they descend from it.
//!
//! Without this they would go to the first process of the system, and the owner's socket could not
//! tell them from the owner's own. It never waits for a child that somebody else waits for.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, WaitId, WaitIdOptions, WaitOptions, getpid, set_child_subreaper, waitid, waitpid,
};

/// How long an ended child is left to whoever started it. What prints a secret is waited for at most
/// half as long, and supervisors are known.
const LEFT: Duration = Duration::from_mins(1);

/// Makes this process the parent of every descendant that loses its own.
///
/// # Errors
/// What the system said.
pub fn adopt() -> std::io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Takes note of ended children, and lets those go that nobody waits for.
#[derive(Debug, Default)]
pub struct Reaper {
    seen: HashMap<Pid, Instant>,
}

impl Reaper {
    /// Looks once; `supervisors` are waited for by others.
    pub fn look(&mut self, supervisors: &[u32], now: Instant) {
        let any = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if !matches!(waitid(WaitId::All, any), Ok(Some(_))) {
            self.seen.clear();
            return;
        }
        let ended = ended_children();
        self.seen.retain(|pid, _| ended.contains(pid));
        for pid in ended {
            let known = supervisors.contains(&pid.as_raw_nonzero().get().cast_unsigned());
            let since = *self.seen.entry(pid).or_insert(now);
            if !known && now.duration_since(since) >= LEFT {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// The children of this process that have ended and were not waited for.
fn ended_children() -> Vec<Pid> {
    let us = getpid().as_raw_nonzero().get();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
            let stat = String::from_utf8_lossy(&stat);
            // The name in brackets may hold anything, so count from the last bracket.
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let mut fields = rest.split_ascii_whitespace();
            let state = fields.next();
            state == Some("Z") && fields.next().and_then(|pid| pid.parse().ok()) == Some(us)
        })
        .filter_map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_waits_for_is_let_go() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let exited = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), exited).unwrap();
        let (now, mut reaper) = (Instant::now(), Reaper::default());
        let later = now + LEFT;
        reaper.look(&[child.id()], now);
        reaper.look(&[child.id()], later);
        assert!(ended_children().contains(&pid), "a known child is gone");
        let mut reaper = Reaper::default();
        reaper.look(&[], now);
        assert!(ended_children().contains(&pid), "it went at once");
        reaper.look(&[], later);
        assert!(!ended_children().contains(&pid), "it stays for good");
        assert!(child.wait().is_err(), "somebody else was waited for");
    }
}
