//! Who is at the other end of the owner's socket.

use std::fs;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

/// A process that connected, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user; `u32::MAX` where the kernel did not say.
    pub uid: u32,
    /// Its process id; 0 where the kernel did not say.
    pub pid: u32,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let cred = stream.io().peer_cred().ok();
        let pid = cred
            .and_then(|cred| cred.pid())
            .and_then(|pid| u32::try_from(pid).ok());
        Self {
            uid: cred.map_or(u32::MAX, |cred| cred.uid()),
            pid: pid.unwrap_or(0),
        }
    }
}

impl Peer {
    /// Whether it may speak for the owner: the same user (or root), and no descendant of a process
    /// that we started.
    ///
    /// # Errors
    /// Why not.
    pub fn may_speak(self, supervisors: &[u32]) -> Result<(), &'static str> {
        /// Deeper trees than this are not walked: unreadable is refused.
        const DEEPEST: usize = 1000;
        let ours = rustix::process::geteuid().as_raw();
        if self.uid != ours && self.uid != 0 {
            return Err("this socket is for its owner alone");
        }
        let mut pid = self.pid;
        for _ in 0..DEEPEST {
            if supervisors.contains(&pid) || is_supervisor(pid) {
                return Err("a process that portcullis started does not speak for its owner");
            }
            match parent(pid) {
                // The first process, or one that was put into our process namespace from outside,
                // as a container engine's `exec` does. Nothing that descends from us is either: we
                // are its parent at the latest. A peer outside our namespace is 0 itself, and has
                // no parent that could be read.
                Some(0) => return Ok(()),
                Some(above) => pid = above,
                None => break,
            }
        }
        Err("the process has gone, or cannot be looked at")
    }
}

/// Whether a process is a supervisor of any gateway, but one that we descend from ourselves: what a
/// gateway that was killed had started lives on for a moment, and the next one knows nothing of it.
/// Nobody but the supervisor can change what it says.
fn is_supervisor(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut ours = std::iter::successors(Some(std::process::id()), |pid| parent(*pid));
    line.starts_with(b"portcullis\0supervise\0") && !ours.any(|one| one == pid)
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn a_descendant_of_what_we_started_is_refused() {
        let me = Peer {
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id(),
        };
        assert_eq!(me.may_speak(&[]), Ok(()));
        let above = parent(me.pid).unwrap();
        for supervisor in [me.pid, above] {
            assert!(me.may_speak(&[supervisor]).is_err());
        }
        // What another gateway started, or the one before this.
        let mut stranger = std::process::Command::new("/usr/bin/yes")
            .arg0("portcullis")
            .args(["supervise", "it"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // What it says of itself is there once it runs.
        let mut said = [0];
        let mut stdout = stranger.stdout.take().unwrap();
        stdout.read_exact(&mut said).unwrap();
        let pid = stranger.id();
        let may = Peer { pid, ..me }.may_speak(&[]);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(may.unwrap_err().contains("portcullis started"), "{may:?}");
        assert!(Peer { pid: 0, ..me }.may_speak(&[]).is_err());
        assert!(
            Peer {
                pid: u32::MAX,
                ..me
            }
            .may_speak(&[])
            .is_err()
        );
        assert!(
            Peer {
                uid: me.uid.wrapping_add(12345),
                ..me
            }
            .may_speak(&[])
            .is_err()
        );
    }
}
