//! Under which uid, in which directory and with which environment a stdio server lives.
//!
//! Nothing we start may be the gateway's own user with its hands free: as root every server gets a
//! uid of its own, else the supervisor takes the protected directories away (see
//! [`crate::supervise`]). The environment is emptied in both cases.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;

use super::Homes;

/// The first uid given to servers, and how many there are. No system hands out uids here.
const FIRST_UID: u32 = 1_900_000_000;
const UIDS: u32 = 1_000_000;
/// The search path where the gateway has none.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where stdio servers live.
#[derive(Debug)]
pub(super) struct House {
    homes: Homes,
    supervisor: PathBuf,
    /// The uid of each server, when the gateway is root.
    uids: Option<BTreeMap<String, u32>>,
}

impl House {
    pub(super) fn new(homes: Homes, supervisor: PathBuf, names: BTreeSet<String>) -> Self {
        let root = rustix::process::geteuid().is_root();
        let uids = root.then(|| assign(&homes.root, names));
        Self {
            homes,
            supervisor,
            uids,
        }
    }

    /// The supervised command, with its home made and its environment emptied.
    pub(super) fn command(
        &self,
        server: &str,
        command: &str,
        args: &[String],
        cwd: Option<&Path>,
        env: &BTreeMap<String, SecretString>,
    ) -> io::Result<Command> {
        let uid = self
            .uids
            .as_ref()
            .and_then(|uids| uids.get(server))
            .copied();
        let home = self.homes.root.join(server);
        let tmp = home.join("tmp");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.homes.root)?;
        fs::set_permissions(&self.homes.root, fs::Permissions::from_mode(0o711))?;
        make(&home, uid, true)?;
        make(&tmp, uid, false)?;

        let mut line: Vec<OsString> = vec!["supervise".into()];
        if let Some(uid) = uid {
            line.extend(["--uid", &uid.to_string(), "--gid", &uid.to_string()].map(Into::into));
        }
        for protected in &self.homes.protected {
            line.extend(["--protect".into(), protected.into()]);
        }
        line.extend(["--home".into(), home.clone().into()]);
        line.extend(["--cwd".into(), cwd.unwrap_or(&home).into()]);
        line.extend(["--".into(), command.into()]);

        let path = crate::config::env_var("PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned());
        let mut supervised = Command::new(&self.supervisor);
        supervised
            .arg0("portcullis")
            .args(line)
            .args(args)
            .env_clear()
            .env("PATH", path)
            .env("HOME", &home)
            .env("TMPDIR", tmp)
            .env("LANG", "C.UTF-8")
            .envs(
                env.iter()
                    .map(|(name, value)| (name, value.expose_secret())),
            )
            // A Ctrl-C in the gateway's terminal is for the gateway.
            .process_group(0);
        Ok(supervised)
    }
}

/// Gives each server a uid that only depends on the instance and its name, unless two collide.
fn assign(root: &Path, names: BTreeSet<String>) -> BTreeMap<String, u32> {
    let mut taken = BTreeSet::new();
    let mut assigned = BTreeMap::new();
    for name in names {
        let mut uid = hash(root, &name);
        while !taken.insert(uid) {
            uid = (uid + 1) % UIDS;
        }
        assigned.insert(name, FIRST_UID + uid);
    }
    assigned
}

fn hash(root: &Path, name: &str) -> u32 {
    let mut text = root.as_os_str().as_bytes().to_vec();
    text.push(0);
    text.extend(name.as_bytes());
    let digest = digest::digest(&digest::SHA256, &text);
    let number = digest
        .as_ref()
        .iter()
        .take(8)
        .fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    u32::try_from(number % u64::from(UIDS)).unwrap_or(0)
}

/// Makes a directory only its server may enter. What lies inside a home is the server's to forge,
/// so there an entry that exists is left alone.
fn make(dir: &Path, uid: Option<u32>, ours: bool) -> io::Result<()> {
    let new = match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let Some(uid) = uid else { return Ok(()) };
    if new || (ours && fs::symlink_metadata(dir)?.uid() != uid) {
        lchown(dir, Some(uid), Some(uid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_a_uid_of_its_own_that_stays() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let one = assign(Path::new("/x"), names(&["a", "b"]));
        let two = assign(Path::new("/x"), names(&["a", "b", "c"]));
        let other = assign(Path::new("/y"), names(&["a"]));
        assert_eq!(one["a"], two["a"]);
        assert_ne!(one["a"], one["b"]);
        assert_ne!(one["a"], other["a"]);
        assert!(
            two.values()
                .all(|uid| (FIRST_UID..FIRST_UID + UIDS).contains(uid))
        );
    }
}
