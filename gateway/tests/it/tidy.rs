//! The shape of the house, kept: who may depend on whom, and what is absent where.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom: the folder that a crate lies in, and another. A new arrow is a design
/// change. `policy` and `agent` are not on the left: they know nobody.
const ARROWS: [(&str, &str); 14] = [
    ("gateway", "policy"),
    ("gateway", "agent"),
    ("gateway", "channels"),
    ("gateway", "runtimes"),
    ("gateway", "groups"),
    ("gateway", "mcp-servers"),
    ("mcp-servers", "groups"),
    ("mcp-servers", "policy"),
    ("groups", "channels"),
    ("groups", "runtimes"),
    ("groups", "policy"),
    ("groups", "agent"),
    ("channels", "policy"),
    ("runtimes", "policy"),
];

const FOLDERS: [&str; 8] = [
    "gateway",
    "policy",
    "channels",
    "runtimes",
    "agent",
    "groups",
    "mcp-servers",
    "docs",
];

/// Other implementations of TLS and its cryptography than the one in use, `aws-lc-rs`.
const SECOND_CRYPTO: [&str; 5] = ["ring", "openssl", "openssl-sys", "native-tls", "boring"];

/// What the source may hold only in some places.
const KEPT_TO: [(&str, &[&str]); 8] = [
    (
        "env::var",
        &[
            "gateway/src/config.rs",
            "gateway/src/config/",
            // Programs of their own, with environments of their own.
            "mcp-servers/postbox/src/main.rs",
            "agent/src/start.rs",
        ],
    ),
    ("env::{", &[]),
    ("env::home_dir", &[]),
    (
        "env::current_exe",
        &["gateway/src/config.rs", "agent/src/start.rs"],
    ),
    ("env::current_dir", &[]),
    (
        "sea_orm::",
        &[
            "gateway/src/db.rs",
            "gateway/src/db/",
            "channels/src/db.rs",
            "groups/src/db.rs",
            "groups/src/db/",
        ],
    ),
    (
        "sea_orm_migration::",
        &[
            "gateway/src/db/migrations.rs",
            "gateway/src/db/migrations/",
            "gateway/src/db.rs",
            "channels/src/db.rs",
            "groups/src/db.rs",
            "groups/src/db/",
        ],
    ),
    (
        "rmcp::",
        &[
            "gateway/src/mcp.rs",
            "gateway/src/mcp/",
            "gateway/src/upstreams.rs",
            "gateway/src/upstreams/",
            "mcp-servers/",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .canonicalize()
        .unwrap()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every file below a folder, as paths from the root.
fn files_below(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn is(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|one| one == extension)
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let told = cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&told).unwrap();
    let root = root();
    let folder = |manifest: &str| {
        let path = Path::new(manifest).strip_prefix(&root).unwrap();
        let first = path.components().next().unwrap();
        first.as_os_str().to_str().unwrap().to_owned()
    };
    let mut arrows = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let from = folder(package["manifest_path"].as_str().unwrap());
        for dependency in package["dependencies"].as_array().unwrap() {
            // Only a crate of ours is named by a path.
            if let Some(path) = dependency["path"].as_str() {
                arrows.push((from.clone(), folder(path)));
            }
        }
    }
    assert!(arrows.contains(&("gateway".into(), "policy".into())));
    arrows.retain(|(from, to)| !ARROWS.contains(&(from, to)));
    assert!(arrows.is_empty(), "not in the picture: {arrows:?}");
}

#[test]
fn there_is_one_library_for_cryptography() {
    // What is built, not what `Cargo.lock` names: that also lists what no feature asks for.
    let tree = cargo(&[
        "tree",
        "--workspace",
        "--offline",
        "--edges=normal,build,dev",
        "--prefix=none",
        "--format={p}",
    ]);
    let names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.contains(&"aws-lc-rs"), "{tree}");
    for name in SECOND_CRYPTO {
        assert!(
            !names.contains(&name),
            "`{name}` is built: `cargo tree -i {name}` says for whom"
        );
    }
}

#[test]
fn what_is_kept_to_one_place_is_nowhere_else() {
    let sources: Vec<String> = FOLDERS
        .iter()
        .flat_map(|folder| files_below(folder))
        .filter(|path| path.contains("/src/") && is(path, "rs"))
        .collect();
    assert!(sources.iter().any(|path| path == "gateway/src/broker.rs"));
    let mut strays = Vec::new();
    for path in &sources {
        let text = read(path);
        for (needle, places) in KEPT_TO {
            if text.contains(needle) && !places.iter().any(|place| path.starts_with(place)) {
                strays.push(format!("`{needle}` in {path}"));
            }
        }
    }
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn the_folders_are_there() {
    for folder in FOLDERS {
        assert!(!files_below(folder).is_empty(), "{folder}");
    }
    for absent in ["src", "common", "utils", "types"] {
        assert!(!root().join(absent).exists(), "{absent}");
    }
}

#[test]
fn every_module_has_its_line_in_the_architecture() {
    let document = read("docs/architecture.md");
    for folder in ["gateway/src", "policy/src"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let module = path.is_file() && !["lib", "main"].contains(&name);
            assert!(
                !module || document.contains(&format!("| `{name}` |")),
                "no line for `{name}` of {folder}"
            );
        }
    }
}

#[test]
fn the_matrix_in_the_documentation_is_the_one_that_decides() {
    let matrix = read("policy/tests/snapshots/matrix.txt");
    assert!(
        read("docs/policy.md").contains(&format!("```text\n{matrix}```")),
        "copy policy/tests/snapshots/matrix.txt into docs/policy.md"
    );
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let documents = files_below("docs");
    let documents = documents.iter().map(String::as_str).chain(["README.md"]);
    for document in documents.filter(|path| is(path, "md")) {
        let folder = Path::new(document).parent().unwrap();
        for link in read(document).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                let path = root().join(folder).join(target);
                assert!(path.exists(), "{document} names `{target}`");
            }
        }
    }
}

/// What stands between backquotes in a table of a document, from a heading on.
fn quoted(document: &str, heading: &str) -> Vec<String> {
    let text = read(document);
    let (_, table) = text.split_once(heading).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_fault_point_has_its_line_in_the_life_of_a_call() {
    let mut points = Vec::new();
    for path in files_below("gateway/src") {
        let text = read(&path);
        for call in ["fault::point(", "fault::db(", "fault::now("] {
            let names = text.split(call).skip(1);
            points.extend(names.filter_map(|rest| {
                let name = rest.trim_start().strip_prefix('"')?.split('"').next()?;
                Some(name.to_owned())
            }));
        }
    }
    points.sort();
    assert!(points.len() > 50, "{points:?}");
    let mut told = quoted("docs/life-of-a-call.md", "\n## The fault points\n");
    told.retain(|name| name.contains('.'));
    told.sort();
    assert_eq!(points, told);
    // Whatever is written goes through the one connection, whose every statement is a point.
    let stores = files_below("gateway/src");
    let opened = stores
        .iter()
        .filter(|path| read(path).contains("Database::connect("));
    assert_eq!(opened.collect::<Vec<_>>(), ["gateway/src/db.rs"]);
}

#[test]
fn every_failure_of_others_names_tests_that_are_there() {
    let tests: Vec<String> = FOLDERS
        .iter()
        .flat_map(|folder| files_below(folder))
        .filter(|path| ["rs", "py", "js"].iter().any(|kind| is(path, kind)))
        .map(|path| format!("{path}\n{}", read(&path)))
        .collect();
    let tests = tests.concat();
    let heading = "\n## Failures of others, and what catches them here\n";
    let named = quoted("docs/security.md", heading);
    assert!(named.len() > 50, "{named:?}");
    for name in named {
        let there = [
            format!("fn {name}("),
            format!("def {name}("),
            format!("/{name}\n"),
        ];
        assert!(
            there.iter().any(|there| tests.contains(there)),
            "there is no test `{name}`"
        );
    }
}
