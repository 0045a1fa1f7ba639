//! Under which uid, in which directory and with which environment a program lives, and who of them
//! lives now.
//!
//! Nothing we start may be the gateway's own user with its hands free: as root every program gets a
//! uid of its own, else the supervisor takes the protected directories away (see
//! [`crate::supervise`]). The environment is emptied in both cases.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use policy::action::Digest;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    bundled::{self, NotThere},
    lock,
};

/// The first uid given to programs, and how many there are. No system hands out uids here.
const FIRST_UID: u32 = 1_900_000_000;
const UIDS: u32 = 1_000_000;
/// The search path where the gateway has none.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long a supervisor may take to end its tree; it needs half of it at worst.
const END_TIMEOUT: Duration = Duration::from_secs(6);

/// Where programs live.
#[derive(Debug)]
pub struct House {
    plan: Plan,
    /// Held while somebody is given a uid, so that no two are given the same.
    moving_in: Mutex<()>,
    /// The supervisors that live; held while one is spawned, so none is ever unlisted.
    supervisors: Arc<Mutex<HashSet<u32>>>,
}

/// How a [`House`] is laid out.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Holds one directory per program. As root, every directory above it must be passable (`x`)
    /// for other users, so it cannot lie inside a data directory of mode 0700.
    pub root: PathBuf,
    /// Directories no program may see: the data and the configuration directory.
    pub protected: Vec<PathBuf>,
    /// The binary whose `supervise` command is the supervisor.
    pub supervisor: PathBuf,
    /// Where programs are looked up; `None` for the system's own directories.
    pub path: Option<String>,
    /// Where the programs lie that come with the gateway.
    pub bundled: Option<PathBuf>,
}

impl Plan {
    fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(DEFAULT_PATH)
    }

    /// The file of a program that comes with the gateway; `None` if it does not.
    ///
    /// # Errors
    /// [`NotThere`], where it does and is missing.
    pub fn bundled(&self, program: &OsStr) -> Result<Option<PathBuf>, NotThere> {
        bundled::find(program, self.bundled.as_deref(), self.path())
    }
}

/// Who is to be taken in.
#[derive(Debug)]
pub struct Lodger<'a> {
    /// The name of its home: a single component of a path.
    pub home: &'a str,
    /// A name to be looked up, or an absolute path.
    pub program: &'a OsStr,
    /// Its arguments, which anyone can read.
    pub args: &'a [String],
    /// Its environment beyond `PATH`, `HOME`, `LANG` and `TMPDIR`.
    pub env: &'a BTreeMap<String, SecretString>,
    /// Its working directory; without one, its home.
    pub cwd: Option<&'a Path>,
}

/// A program that was started, under its supervisor.
#[derive(Debug)]
pub struct Tenant {
    /// Its input; dropping it is what ends the program.
    pub stdin: Option<ChildStdin>,
    /// Its output.
    pub stdout: Option<ChildStdout>,
    /// What it complains of.
    pub stderr: Option<ChildStderr>,
    /// The process of its supervisor.
    pub pid: u32,
    child: Child,
    listed: Listed,
}

/// A place in the list of supervisors; given up when dropped.
#[derive(Debug)]
struct Listed {
    pid: u32,
    all: Arc<Mutex<HashSet<u32>>>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.pid);
    }
}

impl Tenant {
    /// Waits until nothing of it is left, and ends it once `stop` is cancelled. `None` where its
    /// supervisor had to be killed.
    pub async fn see_out(self, stop: &CancellationToken) -> Option<ExitStatus> {
        let Self {
            stdin,
            mut child,
            listed,
            ..
        } = self;
        let ended = tokio::select! {
            ended = child.wait() => return ended.ok(),
            () = stop.cancelled() => {
                drop(stdin);
                timeout(END_TIMEOUT, child.wait()).await
            }
        };
        if let Ok(ended) = ended {
            return ended.ok();
        }
        warn!("the supervisor {} did not end and was killed", listed.pid);
        _ = child.kill().await;
        None
    }
}

impl House {
    /// A house that nobody lives in yet.
    pub fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            plan,
            moving_in: Mutex::default(),
            supervisors: Arc::default(),
        })
    }

    /// The supervisors' processes: whoever descends from one is no owner.
    pub fn supervisors(&self) -> Vec<u32> {
        lock(&self.supervisors).iter().copied().collect()
    }

    /// Starts a program under a supervisor, with its home made and its environment emptied.
    ///
    /// # Errors
    /// Where its home cannot be made, the supervisor cannot be started, or a program that comes with
    /// the gateway is missing. What becomes of another program is told on its standard error.
    pub fn take_in(&self, lodger: &Lodger<'_>) -> io::Result<Tenant> {
        let mut command = self.command(lodger)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mut child, listed) = {
            let mut supervisors = lock(&self.supervisors);
            let child = command.spawn()?;
            let pid = child.id().unwrap_or_default();
            supervisors.insert(pid);
            let all = Arc::clone(&self.supervisors);
            (child, Listed { pid, all })
        };
        Ok(Tenant {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            pid: listed.pid,
            child,
            listed,
        })
    }

    fn command(&self, lodger: &Lodger<'_>) -> io::Result<Command> {
        let missing = |error| io::Error::new(io::ErrorKind::NotFound, error);
        let bundled = self.plan.bundled(lodger.program).map_err(missing)?;
        let root = &self.plan.root;
        let home = root.join(lodger.home);
        let tmp = home.join("tmp");
        // Whatever the mask is, others must be able to pass through what is made here.
        if let Some(above) = root.parent()
            && !above.exists()
        {
            fs::create_dir_all(above)?;
            fs::set_permissions(above, fs::Permissions::from_mode(0o711))?;
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(root)?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o711))?;
        let uid = {
            let _one = lock(&self.moving_in);
            let uid = rustix::process::geteuid()
                .is_root()
                .then(|| uid(root, lodger.home))
                .transpose()?;
            make(&home, uid, true)?;
            uid
        };
        make(&tmp, uid, false)?;

        let mut line: Vec<OsString> = vec!["supervise".into()];
        if let Some(uid) = uid {
            line.extend(["--uid", &uid.to_string(), "--gid", &uid.to_string()].map(Into::into));
        }
        for protected in &self.plan.protected {
            line.extend(["--protect".into(), protected.into()]);
        }
        line.extend(["--home".into(), home.clone().into()]);
        line.extend(["--cwd".into(), lodger.cwd.unwrap_or(&home).into()]);
        if let Some(file) = bundled {
            line.extend(["--file".into(), file.into()]);
        }
        line.extend(["--".into(), lodger.program.to_owned()]);

        let mut supervised = Command::new(&self.plan.supervisor);
        supervised
            .arg0("portcullis")
            .args(line)
            .args(lodger.args)
            .env_clear()
            .env("PATH", self.plan.path())
            .env("HOME", &home)
            .env("TMPDIR", tmp)
            .env("LANG", "C.UTF-8")
            .envs(
                lodger
                    .env
                    .iter()
                    .map(|(name, value)| (name, value.expose_secret())),
            )
            // A Ctrl-C in the gateway's terminal is for the gateway.
            .process_group(0);
        Ok(supervised)
    }
}

/// The uid of a home: the one that owns it, else one that only depends on the instance and its
/// name, unless another home has that. The owners of the homes are the register: it outlives us,
/// and none but us can change it.
fn uid(root: &Path, home: &str) -> io::Result<u32> {
    let (mut own, mut taken) = (None, BTreeSet::new());
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let uid = entry.metadata()?.uid();
        if !(FIRST_UID..FIRST_UID + UIDS).contains(&uid) {
            continue;
        }
        if entry.file_name() == home {
            own = Some(uid);
        } else {
            taken.insert(uid);
        }
    }
    let (own, taken) = (own, taken);
    Ok(choose(root, home, own, &taken))
}

fn choose(root: &Path, home: &str, own: Option<u32>, taken: &BTreeSet<u32>) -> u32 {
    if let Some(uid) = own.filter(|uid| !taken.contains(uid)) {
        return uid;
    }
    let first = hash(root, home);
    (0..UIDS)
        .map(|step| FIRST_UID + (first + step) % UIDS)
        .find(|uid| !taken.contains(uid))
        .unwrap_or(FIRST_UID + first)
}

fn hash(root: &Path, home: &str) -> u32 {
    let mut text = root.as_os_str().as_bytes().to_vec();
    text.push(0);
    text.extend(home.as_bytes());
    let digest = Digest::of(&text);
    let first = digest.as_str().get(..16).unwrap_or_default();
    let number = u64::from_str_radix(first, 16).unwrap_or_default();
    u32::try_from(number % u64::from(UIDS)).unwrap_or_default()
}

/// Makes a directory only its program may enter. What lies inside a home is the program's to
/// forge, so there an entry that exists is left alone.
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
    fn every_home_has_a_uid_of_its_own_that_stays() {
        let root = Path::new("/x");
        let nobody = BTreeSet::new();
        let a = choose(root, "a", None, &nobody);
        assert_eq!(a, choose(root, "a", None, &nobody));
        assert_ne!(a, choose(root, "b", None, &nobody));
        assert_ne!(a, choose(Path::new("/y"), "a", None, &nobody));
        assert!((FIRST_UID..FIRST_UID + UIDS).contains(&a));
        // Another home has it: of two with one hash, the second goes on to the next.
        let taken = BTreeSet::from([a]);
        let next = choose(root, "a", None, &taken);
        assert!(next != a && (FIRST_UID..FIRST_UID + UIDS).contains(&next));
        // Who was given one keeps it when the other has gone, and gives it up when it is shared.
        assert_eq!(choose(root, "a", Some(next), &nobody), next);
        assert_eq!(choose(root, "a", Some(a), &taken), next);
    }

    #[test]
    fn homes_are_made_with_different_owners() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let owner = |name: &str| {
            let uid = uid(root.path(), name).unwrap();
            make(&root.path().join(name), Some(uid), true).unwrap();
            assert_eq!(fs::metadata(root.path().join(name)).unwrap().uid(), uid);
            uid
        };
        let (one, two) = (owner("one"), owner("two"));
        assert_ne!(one, two);
        assert_eq!((owner("one"), owner("two")), (one, two));
        // A home that came to share an owner gets its own again.
        lchown(root.path().join("two"), Some(one), Some(one)).unwrap();
        assert_ne!(owner("two"), owner("one"));
    }
}
