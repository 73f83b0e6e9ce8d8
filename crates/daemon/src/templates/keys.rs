//! Which keys a file may have, and where in it they are.

use std::ops::Range;
use toml::de::{DeTable, DeValue};

const TOP: &[&str] = &[
    "name",
    "image",
    "rootfs",
    "base",
    "user",
    "workdir",
    "network",
    "resources",
    "max-resources",
    "env",
    "labels",
    "start",
    "probe",
];
const RESOURCES: &[&str] = &["memory", "cpus", "pids", "disk", "inodes", "open-files", "output-rate"];
const NETWORK: &[&str] = &["mode", "rules", "presets"];
const START: &[&str] = &["command", "env", "user", "workdir", "timeout"];
const PROBE: &[&str] = &["command", "env", "user", "workdir", "interval", "timeout"];

/// The keys of a table; `None` where they are the writer's own.
fn allowed(table: &str) -> Option<&'static [&'static str]> {
    match table {
        "" => Some(TOP),
        "resources" | "max-resources" => Some(RESOURCES),
        "network" => Some(NETWORK),
        "start" => Some(START),
        "probe" => Some(PROBE),
        _ => None,
    }
}

/// A key that is not one: where, its full name, and what is wrong with it.
pub(super) type Unknown = (Range<usize>, String, String);

/// Finds keys that are none.
pub(super) fn unknown(document: &DeTable<'_>) -> Vec<Unknown> {
    let mut found = Vec::new();
    look("", "", document, &mut found);
    found
}

fn look(table: &str, place: &str, keys: &DeTable<'_>, found: &mut Vec<Unknown>) {
    let Some(allowed) = allowed(table) else { return };
    for (key, value) in keys {
        let (name, full) = (key.get_ref().as_ref(), join(place, key.get_ref()));
        if !allowed.contains(&name) {
            found.push((key.span(), full, nothing_such(table, name, allowed)));
            continue;
        }
        if !table.is_empty() {
            continue;
        }
        match value.get_ref() {
            DeValue::Table(inner) => look(name, &full, inner, found),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        look(name, &format!("{full}[{index}]"), inner, found);
                    }
                }
            }
            _ => {}
        }
    }
}

fn nothing_such(table: &str, name: &str, allowed: &'static [&'static str]) -> String {
    if let Some(near) = nearest(name, allowed) {
        return format!("there is no such key; did you mean {near:?}?");
    }
    // A key of another table, most often one that stands below the wrong header.
    for other in ["", "resources", "probe"] {
        if other != table && self::allowed(other).is_some_and(|keys| keys.contains(&name)) {
            let place = if other.is_empty() { "at the top".to_owned() } else { format!("in [{other}]") };
            return format!("there is no such key here; it belongs {place}");
        }
    }
    format!("there is no such key; there are {}", allowed.join(", "))
}

/// The key that was most likely meant.
fn nearest(name: &str, allowed: &[&'static str]) -> Option<&'static str> {
    let name: String = name.chars().take(64).collect::<String>().to_ascii_lowercase().replace('_', "-");
    let synonym = match name.as_str() {
        "working-directory" | "cwd" => "workdir",
        "environment" => "env",
        "limits" => "resources",
        "max-limits" => "max-resources",
        "start-commands" => "start",
        "readiness-probe" | "readiness" => "probe",
        "cpu" => "cpus",
        "argv" | "cmd" => "command",
        _ => "",
    };
    if let Some(known) = allowed.iter().find(|known| **known == synonym) {
        return Some(known);
    }
    let most = (name.chars().count() / 3).max(1);
    allowed
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&name, known), *known))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, known)| known)
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

/// The full name of the key whose value holds a position, the innermost one.
pub(super) fn at(document: &DeTable<'_>, position: usize) -> String {
    let mut place = String::new();
    let mut table = Some(document);
    while let Some(keys) = table.take() {
        let holds = |span: Range<usize>| span.contains(&position) || span.start == position;
        for (key, value) in keys {
            match value.get_ref() {
                DeValue::Array(items) => {
                    let item = items.iter().enumerate().find(|(_, item)| holds(item.span()));
                    if let Some((index, item)) = item {
                        place = format!("{}[{index}]", join(&place, key.get_ref()));
                        table = item.get_ref().as_table();
                        break;
                    }
                    if holds(value.span()) || holds(key.span()) {
                        return join(&place, key.get_ref());
                    }
                }
                _ if holds(value.span()) || holds(key.span()) || deep(value.get_ref(), position) => {
                    place = join(&place, key.get_ref());
                    table = value.get_ref().as_table();
                    break;
                }
                _ => {}
            }
        }
    }
    place
}

/// Whether something in a table, whose own span is only its header, holds the position.
fn deep(value: &DeValue<'_>, position: usize) -> bool {
    value.as_table().is_some_and(|table| {
        table.iter().any(|(key, value)| key.span().contains(&position) || value.span().contains(&position))
    })
}

/// Where the value of a key is, by its full name; of the innermost table or key that is there.
pub(super) fn span(document: &DeTable<'_>, name: &str) -> Option<Range<usize>> {
    let mut table = Some(document);
    let mut found = None;
    for part in name.split('.') {
        let (key, index) = match part.split_once('[') {
            Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some((_, value)) = table.and_then(|table| table.iter().find(|(known, _)| known.get_ref() == key))
        else {
            break;
        };
        let value = match (index, value.get_ref()) {
            (Some(index), DeValue::Array(items)) => items.get(index).unwrap_or(value),
            _ => value,
        };
        found = Some(value.span());
        table = value.get_ref().as_table();
    }
    found
}
