//! Programs that come with the gateway: found beside it, whatever `PATH` says.
//!
//! They are built, not scripts: as root the supervisor runs them by their open file, so that a uid
//! of their own needs no way to where they lie (a checkout in somebody's private home).

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// How their names begin.
pub const PREFIX: &str = "portcullis-";

/// A bundled program that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` comes with portcullis and is neither beside it{} nor in PATH; \
     build it with `cargo build --bin {name}`",
    self.place()
)]
pub struct NotThere {
    name: String,
    beside: Option<PathBuf>,
}

impl NotThere {
    fn place(&self) -> String {
        let beside = self.beside.as_deref();
        beside.map_or_else(String::new, |dir| format!(" in `{}`", dir.display()))
    }
}

/// The file of a bundled program: beside the gateway, else in `path`; `None` if it is none of them.
///
/// # Errors
/// [`NotThere`].
pub fn find(
    program: &OsStr,
    beside: Option<&Path>,
    path: &str,
) -> Result<Option<PathBuf>, NotThere> {
    let bare = |name: &&str| name.starts_with(PREFIX) && !name.contains('/');
    let Some(name) = program.to_str().filter(bare) else {
        return Ok(None);
    };
    let dirs = beside.into_iter().chain(path.split(':').map(Path::new));
    let found = dirs
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| {
            fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        });
    found.map(Some).ok_or_else(|| NotThere {
        name: name.to_owned(),
        beside: beside.map(Path::to_path_buf),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_the_gateway_is_looked_for_beside_it_first() {
        let dir = tempfile::tempdir().unwrap();
        let (beside, path) = (dir.path().join("beside"), dir.path().join("path"));
        let place = |dir: &Path| {
            fs::create_dir_all(dir).unwrap();
            fs::write(dir.join("portcullis-x"), "").unwrap();
            let runs = fs::Permissions::from_mode(0o755);
            fs::set_permissions(dir.join("portcullis-x"), runs).unwrap();
        };
        let search = format!("relative::{}", path.display());
        let find = |name: &str| find(OsStr::new(name), Some(&beside), &search);
        let missing = find("portcullis-x").unwrap_err().to_string();
        assert!(
            missing.contains("`cargo build --bin portcullis-x`"),
            "{missing}"
        );
        assert!(missing.contains(beside.to_str().unwrap()), "{missing}");
        place(&path);
        assert_eq!(find("portcullis-x"), Ok(Some(path.join("portcullis-x"))));
        place(&beside);
        assert_eq!(find("portcullis-x"), Ok(Some(beside.join("portcullis-x"))));
        for other in ["npx", "/opt/portcullis-x", "a/portcullis-x"] {
            assert_eq!(find(other), Ok(None), "{other}");
        }
    }
}
