//! The rules of the house (ARCHITECTURE.md), kept by the build.
#![allow(clippy::unwrap_used, reason = "a test")]

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each may use in what it ships. Arrows point down.
const ARROWS: &[(&str, &[&str])] = &[
    ("hostel-proto", &[]),
    ("hostel-sandbox", &[]),
    ("hostel-pool", &["hostel-sandbox"]),
    ("hostel-egress", &["hostel-sandbox"]),
    ("hostel-gateway", &["hostel-sandbox", "hostel-untrusted-socket"]),
    ("hostel-testkit", &[]),
    ("hostel-guest-protocol", &[]),
    ("hostel-system-calls", &[]),
    ("hostel-untrusted-socket", &[]),
    ("hostel-guest", &["hostel-guest-protocol", "hostel-system-calls"]),
    ("hostel-guest-binary", &[]),
    ("hostel-guest-client", &["hostel-guest-protocol", "hostel-sandbox", "hostel-untrusted-socket"]),
    ("hostel-conformance", &["hostel-sandbox"]),
    ("hostel-jail", &["hostel-guest-client", "hostel-guest-protocol", "hostel-sandbox"]),
    (
        "hostel-docker",
        &["hostel-guest-client", "hostel-guest-protocol", "hostel-sandbox", "hostel-system-calls"],
    ),
    (
        "hosteld",
        &[
            "hostel-docker",
            "hostel-egress",
            "hostel-gateway",
            "hostel-guest-binary",
            "hostel-jail",
            "hostel-pool",
            "hostel-proto",
            "hostel-sandbox",
        ],
    ),
    ("hostel-client", &["hostel-proto", "hostel-sandbox"]),
    ("hostel-agent", &[]),
    ("hostel-session", &["hostel-agent", "hostel-client"]),
    ("hostel-sessiond", &["hostel-agent", "hostel-client", "hostel-proto", "hostel-session"]),
    ("hostel", &["hostel-client", "hostel-sandbox", "hostel-sessiond", "hostel-testkit", "hosteld"]),
];
/// These hold tests and measurements and may use everything.
const FREE: &[&str] = &["hostel-tests", "hostel-benches"];
/// Only these speak to the kernel below the safe wrappers.
const MAY_BE_UNSAFE: &[&str] = &["guest", "jail"];
const MAIN_LINES: usize = 130;
const FILE_LINES: usize = 500;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !matches!(name.as_str(), "target" | "node_modules" | "fuzz") && !name.starts_with('.') {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(workspace().join("Cargo.toml")).no_deps().exec().unwrap()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}

#[test]
fn arrows_point_down() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in metadata.packages.iter().filter(|package| !FREE.contains(&package.name.as_str())) {
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            wrong.push(format!("{} is not in the list of crates", package.name));
            continue;
        };
        for dependency in
            package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal)
        {
            if ours.contains(dependency.name.as_str()) && !allowed.contains(dependency.name.as_str()) {
                wrong.push(format!("{} must not use {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn packages_are_named_by_their_folders() {
    let metadata = metadata();
    for package in &metadata.packages {
        let folder = package.manifest_path.parent().unwrap().file_name().unwrap();
        let expected = match folder {
            "daemon" => "hosteld".to_owned(),
            "cli" => "hostel".to_owned(),
            folder => format!("hostel-{folder}"),
        };
        assert_eq!(package.name.as_str(), expected, "in {folder}");
    }
}

#[test]
fn unsafe_code_is_where_it_belongs() {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(workspace().join("crates")).unwrap().flatten() {
        let folder = entry.file_name().to_string_lossy().into_owned();
        if MAY_BE_UNSAFE.contains(&folder.as_str()) {
            continue;
        }
        for root in ["src/lib.rs", "src/main.rs"] {
            let path = entry.path().join(root);
            if path.exists() && !fs::read_to_string(&path).unwrap().contains("#![forbid(unsafe_code)]") {
                wrong.push(format!("{} lacks #![forbid(unsafe_code)]", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_small_and_named_for_what_they_hold() {
    let mut wrong = Vec::new();
    for path in sources(&workspace()) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        let name = path.file_name().unwrap().to_string_lossy();
        let limit = if name == "main.rs" { MAIN_LINES } else { FILE_LINES };
        if lines > limit {
            wrong.push(format!("{}: {lines} lines, at most {limit}", shown(&path)));
        }
        if name == "mod.rs" {
            wrong.push(format!("{}: write foo.rs beside foo/", shown(&path)));
        }
        if matches!(name.as_ref(), "util.rs" | "utils.rs" | "helpers.rs" | "misc.rs" | "common.rs") {
            wrong.push(format!("{}: named for nothing", shown(&path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn generated_types_stay_at_the_edges() {
    let mut wrong = Vec::new();
    for path in sources(&workspace().join("crates")) {
        let place = shown(&path);
        let edge = ["crates/proto/", "crates/daemon/", "crates/client/", "crates/sessiond/src/grpc"]
            .iter()
            .any(|edge| place.starts_with(edge));
        if !edge && fs::read_to_string(&path).unwrap().contains("hostel_proto::") {
            wrong.push(place);
        }
    }
    assert!(wrong.is_empty(), "generated types in {}", wrong.join(", "));
}

#[test]
fn examples_are_run_where_there_are_some() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let Some(library) = package.targets.iter().find(|target| target.is_lib()) else { continue };
        let folder = package.manifest_path.parent().unwrap().as_std_path();
        let has = sources(&folder.join("src")).iter().any(|path| has_example(path));
        if has && !library.doctest {
            wrong.push(format!("{} has examples: take doctest = false away", package.name));
        }
        if !has && library.doctest {
            wrong.push(format!(
                "{} has no examples: say [lib] doctest = false, looking costs seconds",
                package.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether documentation in that file has a block that rustdoc would run.
fn has_example(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap();
    let documented = text.lines().map(str::trim_start);
    let documented =
        documented.filter_map(|line| line.strip_prefix("///").or_else(|| line.strip_prefix("//!")));
    // Every second fence closes a block.
    let fences = documented.filter_map(|line| line.trim().strip_prefix("```"));
    fences.step_by(2).any(|words| {
        words.split(',').all(|word| !matches!(word.trim(), "text" | "ignore" | "sh" | "toml" | "json"))
    })
}
