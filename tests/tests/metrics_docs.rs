//! What is written about metrics names those that there are: no others, and in the table all of them.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const SOURCES: &[&str] = &[
    "crates/daemon/src/metrics.rs",
    "crates/daemon/src/metrics/collect.rs",
    "crates/daemon/src/metrics/models.rs",
];
const PREFIX: &str = "hostel_";
const OLDEST_SCHEMA: u64 = 39;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The function that is called with what comes next as its first text.
fn call(code: &str) -> &str {
    let (before, _) = code.rsplit_once('(').unwrap_or_default();
    before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Every metric as scrapes and the table name it, and its type.
fn registered() -> BTreeMap<String, &'static str> {
    let mut found = BTreeMap::new();
    for path in SOURCES {
        let source = read(path);
        let lines: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let source = lines.join("\n");
        // Code and texts take turns.
        let pieces: Vec<&str> = source.split('"').collect();
        let mut of_each = "gauge";
        for pair in pieces.chunks_exact(2) {
            let code: String = pair[0].split_whitespace().collect();
            if let Some((_, closure)) = code.split_once("of_each=") {
                of_each = if closure.contains("{counter(") { "counter" } else { "gauge" };
            }
            let kind = match call(&code) {
                "register_with_unit" | "histogram" => "histogram",
                "register" | "counter" => "counter",
                "gauge" => "gauge",
                "of_each" => of_each,
                _ => continue,
            };
            let ending = match kind {
                "histogram" => "_seconds",
                "counter" => "_total",
                _ => "",
            };
            found.insert(format!("{PREFIX}{}{ending}", pair[1]), kind);
        }
    }
    assert!(
        found.len() > 20,
        "the sources are written in a way that this test does not understand: {found:?}"
    );
    found
}

/// What queries can name.
fn series() -> BTreeSet<String> {
    let of = |(name, kind): (String, &str)| match kind {
        "histogram" => ["_bucket", "_sum", "_count"].map(|ending| format!("{name}{ending}")).to_vec(),
        _ => vec![name],
    };
    registered().into_iter().flat_map(of).collect()
}

/// The names of ours in a text that no series has.
fn unknown(text: &str) -> BTreeSet<String> {
    let series = series();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with(PREFIX) && word.len() > PREFIX.len());
    ours.filter(|word| !series.contains(*word)).map(str::to_owned).collect()
}

/// The cells of a row of the table of metrics.
fn row(line: &str) -> Option<Vec<&str>> {
    line.starts_with("| `hostel_")
        .then(|| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
}

/// Calls `f` with every object in there.
fn objects<'a>(value: &'a Value, f: &mut dyn FnMut(&'a serde_json::Map<String, Value>)) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| objects(value, f)),
        Value::Object(object) => {
            f(object);
            object.values().for_each(|value| objects(value, f));
        }
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("docs/grafana/hostel.json")).unwrap()
}

#[test]
fn the_table_has_every_metric_with_its_type() {
    let guide = read("docs/metrics.md");
    let rows = guide.lines().filter_map(row);
    let documented: BTreeMap<String, &str> = rows.map(|cells| (cells[1].to_owned(), cells[2])).collect();
    let registered = registered();
    let missing: Vec<_> = registered.iter().filter(|(name, _)| !documented.contains_key(*name)).collect();
    assert!(missing.is_empty(), "not in the table of docs/metrics.md: {missing:?}");
    let wrong: Vec<_> =
        documented.iter().filter(|(name, kind)| registered.get(*name) != Some(*kind)).collect();
    assert!(wrong.is_empty(), "docs/metrics.md has these, the daemon has not, or of another type: {wrong:?}");
}

#[test]
fn queries_in_the_guide_name_metrics_that_there_are() {
    let guide = read("docs/metrics.md");
    let rest: Vec<&str> = guide.lines().filter(|line| row(line).is_none()).collect();
    let unknown = unknown(&rest.join("\n"));
    assert!(unknown.is_empty(), "docs/metrics.md asks for what is not there: {unknown:?}");
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let mut queries = Vec::new();
    let dashboard = dashboard();
    objects(&dashboard, &mut |object| {
        queries.extend(["expr", "query", "definition"].iter().filter_map(|key| object.get(*key)?.as_str()));
    });
    let ours = queries.iter().filter(|query| query.contains(PREFIX)).count();
    assert!(ours > 20, "only {ours} queries were found in the dashboard");
    let unknown = unknown(&queries.join("\n"));
    assert!(unknown.is_empty(), "the dashboard asks for what is not there: {unknown:?}");
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= OLDEST_SCHEMA);
    assert!(dashboard["id"].is_null(), "a number belongs to one Grafana");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: BTreeSet<&str> =
        variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    for name in ["datasource", "pool", "backend"] {
        assert!(variables.contains(name), "the variable {name} is not among {variables:?}");
    }
    let mut panels = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(panels.insert(panel["id"].as_u64().unwrap()), "two panels have the id {}", panel["id"]);
    }
    objects(&dashboard, &mut |object| {
        if object.contains_key("expr") {
            assert_eq!(object["datasource"]["uid"], "${datasource}", "{}", object["expr"]);
        }
    });
}
