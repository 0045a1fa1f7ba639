//! Taking the protected directories away from the calling thread and all it will start.
//!
//! Used where the gateway is not root and so cannot give a server a uid of its own. Landlock can
//! only allow, so everything beside the way down to each protected directory is allowed. The
//! directories *on* that way can be passed through, but neither listed nor written to.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};

/// The newest rules this build knows; an older kernel enforces those it has.
const KNOWN: ABI = ABI::V9;

/// Confines the calling thread to everything but `protected`; `home` stays reachable within.
pub(super) fn without(protected: &[PathBuf], home: &Path) -> Result<(), String> {
    let protected = protected
        .iter()
        .filter_map(|path| match path.canonicalize() {
            Ok(path) => Some(Ok(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(format!("cannot protect `{}`: {error}", path.display()))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let failed = |error: landlock::RulesetError| format!("Landlock refused the rules: {error}");
    let all = AccessFs::from_all(KNOWN);
    let status = Ruleset::default()
        .handle_access(all)
        .and_then(|rules| rules.scope(Scope::Signal | Scope::AbstractUnixSocket))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(allowed(&protected), all)))
        .and_then(|rules| rules.add_rules(path_beneath_rules([home], all)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(failed)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err(
            "this kernel has no Landlock, so servers could read the gateway's own files; \
             run the gateway as root (each server then gets a uid of its own) or boot a kernel \
             with Landlock (5.13 or newer, `lsm=landlock,…`)"
                .to_owned(),
        ),
    }
}

/// What lies beside the ways from the root to the protected directories.
fn allowed(protected: &[PathBuf]) -> BTreeSet<PathBuf> {
    let ways: BTreeSet<&Path> = protected.iter().flat_map(|path| path.ancestors()).collect();
    if protected.is_empty() {
        return BTreeSet::from([PathBuf::from("/")]);
    }
    protected
        .iter()
        // A directory inside a protected one is protected as well.
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|dir| !protected.iter().any(|path| dir.starts_with(path)))
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        // A rule for a link would be one for its target, which has a rule where it lies.
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
        .map(|entry| entry.path())
        .filter(|path| !ways.contains(path.as_path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_beside_the_way_is_allowed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for dir in ["a/data/deep", "a/other", "b"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("a/data"), root.join("link")).unwrap();
        let allowed = allowed(&[root.join("a/data"), root.join("a/data/deep")]);
        let inside: Vec<_> = allowed
            .iter()
            .filter_map(|path| path.strip_prefix(&root).ok())
            .collect();
        assert_eq!(inside, [Path::new("a/other"), Path::new("b")]);
    }
}
