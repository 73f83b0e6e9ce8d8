//! The format of a file, from text to a template.

use super::{Declaration, Problem, default_name, keys};
use hostel_sandbox::size::{parse_bytes, parse_cpus, parse_duration};
use hostel_sandbox::template::{Probe, Template, TemplateCommand, TemplateSource};
use hostel_sandbox::{Error as DomainError, NetworkPolicy, ResourceLimits, TemplateId};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
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
    network: Option<NetworkPolicy>,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    start: Vec<Start>,
    probe: Option<ProbeTable>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Resources {
    memory: Option<Bytes>,
    cpus: Option<Cpus>,
    pids: Option<u32>,
    disk: Option<Bytes>,
    inodes: Option<u64>,
    open_files: Option<u32>,
    output_rate: Option<Bytes>,
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

/// `["program", "argument"]`, or a line for the shell.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a command: [\"program\", \"argument\"], or a text for sh -c")]
enum CommandLine {
    Program(Vec<String>),
    Shell(String),
}

impl CommandLine {
    fn argv(self) -> Vec<String> {
        match self {
            Self::Program(argv) => argv,
            Self::Shell(line) => vec!["sh".to_owned(), "-c".to_owned(), line],
        }
    }
}

/// A number, or a text that means one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number, or a text such as \"512M\" or \"30s\"")]
enum Scalar {
    Integer(i64),
    Float(f64),
    Text(String),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

macro_rules! scalar {
    ($name:ident, $value:ty, $parse:expr) => {
        #[derive(Clone, Copy, Deserialize)]
        #[serde(try_from = "Scalar")]
        struct $name($value);

        impl TryFrom<Scalar> for $name {
            type Error = String;

            fn try_from(scalar: Scalar) -> Result<Self, String> {
                $parse(&scalar.text()).map(Self).map_err(|error| match error {
                    DomainError::InvalidArgument { problem, .. } => problem,
                    other => other.to_string(),
                })
            }
        }
    };
}

scalar!(Bytes, u64, parse_bytes);
scalar!(Cpus, u32, parse_cpus);
scalar!(Span, Duration, parse_duration);

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

struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn problem(&self, span: Option<Range<usize>>, key: &str, message: &str) -> Problem {
        let before = |span: Range<usize>| self.text.as_bytes().iter().take(span.start);
        let line = span.map(|span| before(span).filter(|byte| **byte == b'\n').count() + 1);
        // What the parser says may have several lines; a log line has one.
        let message = message.trim().replace('\n', ", ");
        Problem { file: self.file.to_owned(), line, key: key.to_owned(), message }
    }
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
    template.network = read.network;
    template.limits = limits(&read.resources);
    template.start_commands = read.start.into_iter().map(start_command).collect();
    template.probe = read.probe.map(probe);
    template.validate()?;
    // Paths are meant from where the file is.
    let here = file.parent().unwrap_or_else(|| Path::new(""));
    let rootfs = read.rootfs.map(|path| here.join(path));
    Ok(Declaration { file: file.to_owned(), template, image: read.image, rootfs, base })
}

fn limits(resources: &Resources) -> ResourceLimits {
    ResourceLimits {
        memory_bytes: resources.memory.map(|bytes| bytes.0),
        cpu_millis: resources.cpus.map(|cpus| cpus.0),
        pids: resources.pids,
        disk_bytes: resources.disk.map(|bytes| bytes.0),
        disk_inodes: resources.inodes,
        open_files: resources.open_files,
        output_bytes_per_second: resources.output_rate.map(|bytes| bytes.0),
    }
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
