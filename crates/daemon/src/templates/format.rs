//! The format of a file, from text to a template.

use super::{Declaration, Problem, default_name, keys};
use crate::declared::{CommandLine, Resources, Source, Span};
use hostel_sandbox::template::{Probe, Template, TemplateCommand, TemplateSource};
use hostel_sandbox::{Error as DomainError, NetworkMode, NetworkPolicy, TemplateId};
use serde::de::value::MapAccessDeserializer;
use serde::de::{IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    image: Option<String>,
    rootfs: Option<PathBuf>,
    base: Option<String>,
    user: Option<String>,
    workdir: Option<String>,
    network: Option<Network>,
    #[serde(default)]
    resources: Resources,
    #[serde(default, rename = "max-resources")]
    max_resources: Resources,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    start: Vec<Start>,
    probe: Option<ProbeTable>,
}

/// `network = "open"`, or a table with rules.
struct Network(NetworkPolicy);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NetworkVisitor)
    }
}

/// Says what is wrong with what is there, which an untagged enum does not.
struct NetworkVisitor;

impl<'de> Visitor<'de> for NetworkVisitor {
    type Value = Network;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a policy: none, allowlist or open, or a table with mode and rules")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Network, E> {
        let mode = NetworkMode::deserialize(text.into_deserializer())?;
        Ok(Network(NetworkPolicy { mode, ..NetworkPolicy::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Network, A::Error> {
        NetworkPolicy::deserialize(MapAccessDeserializer::new(map)).map(Network)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    command: CommandLine,
    #[serde(default)]
    env: BTreeMap<String, String>,
    user: Option<String>,
    workdir: Option<String>,
    timeout: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeTable {
    command: CommandLine,
    #[serde(default)]
    env: BTreeMap<String, String>,
    user: Option<String>,
    workdir: Option<String>,
    interval: Option<Span>,
    timeout: Option<Span>,
}

/// Reads a file's text.
pub(super) fn parse(file: &Path, text: &str) -> Result<Declaration, Vec<Problem>> {
    let source = Source { file, text };
    let parsed =
        DeTable::parse(text).map_err(|error| vec![source.problem(error.span(), "", error.message())])?;
    let document = parsed.get_ref();
    let unknown = keys::unknown(document);
    if !unknown.is_empty() {
        let told = |(span, key, problem): keys::Unknown| source.problem(Some(span), &key, &problem);
        return Err(unknown.into_iter().map(told).collect());
    }
    let read: File = toml::from_str(text).map_err(|error| {
        let key = error.span().map(|span| keys::at(document, span.start)).unwrap_or_default();
        vec![source.problem(error.span(), &key, error.message())]
    })?;
    declaration(file, read).map_err(|error| {
        let DomainError::InvalidArgument { field, problem } = error else {
            return vec![Problem::of_file(file, error.to_string())];
        };
        let key = as_the_file_spells_it(&field);
        vec![source.problem(keys::span(document, &key), &key, &problem)]
    })
}

fn declaration(file: &Path, read: File) -> hostel_sandbox::Result<Declaration> {
    let name = read.name.unwrap_or_else(|| default_name(file));
    let id = TemplateId::parse(name).map_err(|error| renamed(error, "name"))?;
    let base = read.base.map(TemplateId::parse).transpose().map_err(|error| renamed(error, "base"))?;
    if read.image.is_none() && read.rootfs.is_none() && base.is_none() {
        return Err(DomainError::invalid("", "say what it is made of: image, rootfs or base"));
    }
    if base.as_ref() == Some(&id) {
        return Err(DomainError::invalid("base", "a template cannot be its own base"));
    }
    if read.image.as_ref().is_some_and(|image| image.trim().is_empty()) {
        return Err(DomainError::invalid("image", "must not be empty"));
    }
    let mut template = Template::new(id, TemplateSource::Imported);
    template.created = std::time::SystemTime::UNIX_EPOCH;
    template.labels = read.labels;
    template.env = read.env;
    template.user = read.user;
    template.workdir = read.workdir;
    template.network = read.network.map(|network| network.0);
    template.limits = read.resources.limits();
    template.max_limits = read.max_resources.limits();
    template.start_commands = read.start.into_iter().map(start_command).collect();
    template.probe = read.probe.map(probe);
    template.validate()?;
    // Paths are meant from where the file is.
    let here = file.parent().unwrap_or_else(|| Path::new(""));
    let rootfs = read.rootfs.map(|path| here.join(path));
    Ok(Declaration { file: file.to_owned(), template, image: read.image, rootfs, base })
}

fn start_command(start: Start) -> TemplateCommand {
    TemplateCommand {
        argv: start.command.argv(),
        env: start.env,
        cwd: start.workdir,
        user: start.user,
        timeout: start.timeout.map(|span| span.0),
    }
}

fn probe(table: ProbeTable) -> Probe {
    Probe {
        command: TemplateCommand {
            argv: table.command.argv(),
            env: table.env,
            cwd: table.workdir,
            user: table.user,
            timeout: None,
        },
        interval: table.interval.map_or(Probe::INTERVAL, |span| span.0),
        timeout: table.timeout.map_or(Probe::TIMEOUT, |span| span.0),
    }
}

fn renamed(error: DomainError, field: &str) -> DomainError {
    match error {
        DomainError::InvalidArgument { problem, .. } => DomainError::invalid(field, problem),
        other => other,
    }
}

/// The domain's field names, as the file spells them.
fn as_the_file_spells_it(field: &str) -> String {
    let resource = |name: &str| match name {
        "memory_bytes" => "memory",
        "cpu_millis" => "cpus",
        "disk_bytes" => "disk",
        "disk_inodes" => "inodes",
        "open_files" => "open-files",
        "output_bytes_per_second" => "output-rate",
        _ => "pids",
    };
    if let Some(name) = field.strip_prefix("limits.") {
        return format!("resources.{}", resource(name));
    }
    if let Some(name) = field.strip_prefix("max_limits.") {
        return format!("max-resources.{}", resource(name));
    }
    let outer = field.replacen("start_commands", "start", 1).replacen("readiness_probe", "probe", 1);
    if !outer.starts_with("start") && !outer.starts_with("probe") {
        return outer;
    }
    match outer.rsplit_once('.') {
        Some((place, "argv")) => format!("{place}.command"),
        Some((place, "cwd")) => format!("{place}.workdir"),
        _ => outer,
    }
}
