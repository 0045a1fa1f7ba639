//! A configuration is read only from where nobody else can write.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::problem::Problem;

/// The longest configuration, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;

/// How to write a first configuration.
const EXAMPLE: &str = r#"write one, such as:

    [mcp_servers.files]
    command = "npx"
    args = ["-y", "@modelcontextprotocol/server-filesystem", "/srv/files"]

    [mcp_servers.files.trust]
    public_source = false     # delivers nothing that strangers wrote
    secret_data = false       # nothing in it would hurt if it leaked
    public_sink = false       # sends nothing to strangers
    dangerous_writes = true   # what it writes cannot be undone: a person is asked

    [mcp_servers.files.tools.read_text_file]
    read_only = true

    [groups.work]
    servers = ["files"]

then `portcullis check`, `portcullis up` and `portcullis token issue --group work`"#;

/// The text of a configuration that nobody but us and root could have written.
pub(super) fn read(path: &Path) -> Result<String, Vec<Problem>> {
    let whole = |message: String, todo: &str| vec![Problem::whole(path, message, todo)];
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(whole("there is no configuration".into(), EXAMPLE));
        }
        Err(error) => {
            return Err(whole(
                format!("it cannot be opened: {error}"),
                "let the user that runs portcullis read it",
            ));
        }
    };
    let problems = writers(path, &file);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut bytes = Vec::new();
    if let Err(error) = file.by_ref().take(LONGEST + 1).read_to_end(&mut bytes) {
        return Err(whole(format!("it cannot be read: {error}"), "try again"));
    }
    if bytes.len() as u64 > LONGEST {
        return Err(whole("it is longer than 4 MiB".into(), "make it shorter"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(good)
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        whole(
            format!("line {line} is not UTF-8 text"),
            "save the file as UTF-8",
        )
    })
}

/// Who else could write the file, or put another in its place.
fn writers(path: &Path, file: &File) -> Vec<Problem> {
    let us = rustix::process::geteuid().as_raw();
    let mut problems = Vec::new();
    match file.metadata() {
        Ok(meta) if !meta.is_file() => problems.push(Problem::whole(
            path,
            "it is not a regular file",
            "name a file",
        )),
        Ok(meta) => problems.extend(fault(path, &meta, us, false)),
        Err(error) => problems.push(Problem::whole(
            path,
            format!("it cannot be examined: {error}"),
            "check the file system",
        )),
    }
    // Both the directory of a symbolic link and the one it leads to decide what is read.
    let mut directories: Vec<PathBuf> = Vec::new();
    for place in [std::path::absolute(path).ok(), fs::canonicalize(path).ok()]
        .into_iter()
        .flatten()
    {
        for directory in place.ancestors().skip(1) {
            if !directories.iter().any(|one| one == directory) {
                directories.push(directory.to_owned());
            }
        }
    }
    for directory in directories {
        match fs::metadata(&directory) {
            Ok(meta) => problems.extend(fault(&directory, &meta, us, true)),
            Err(error) => problems.push(Problem::whole(
                &directory,
                format!("it cannot be examined: {error}"),
                "check the path of the configuration",
            )),
        }
    }
    problems
}

fn fault(path: &Path, meta: &Metadata, us: u32, directory: bool) -> Option<Problem> {
    let mode = meta.mode();
    let shown = path.display();
    // In a sticky directory such as /tmp, only its owner renames a file.
    let sticky = directory && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky {
        return Some(Problem::whole(
            path,
            format!("others can write it (mode {:04o})", mode & 0o7777),
            format!("chmod go-w {shown}"),
        ));
    }
    if meta.uid() != us && meta.uid() != 0 {
        return Some(Problem::whole(
            path,
            format!(
                "it belongs to another user (uid {}, ours is {us})",
                meta.uid()
            ),
            format!("chown {us} {shown}"),
        ));
    }
    None
}
