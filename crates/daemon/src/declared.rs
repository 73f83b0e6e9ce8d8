//! What files that declare something have in common: values as people write them, and where in a file an error is.

use crate::templates::Problem;
use hostel_sandbox::size::{parse_bytes, parse_cpus, parse_duration};
use hostel_sandbox::{Error as DomainError, ResourceLimits};
use serde::Deserialize;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Limits, as files write them.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Resources {
    memory: Option<Bytes>,
    cpus: Option<Cpus>,
    pids: Option<u32>,
    disk: Option<Bytes>,
    inodes: Option<u64>,
    open_files: Option<u32>,
    output_rate: Option<Bytes>,
}

impl Resources {
    /// What they mean.
    pub(crate) fn limits(&self) -> ResourceLimits {
        ResourceLimits {
            memory_bytes: self.memory.map(|bytes| bytes.0),
            cpu_millis: self.cpus.map(|cpus| cpus.0),
            pids: self.pids,
            disk_bytes: self.disk.map(|bytes| bytes.0),
            disk_inodes: self.inodes,
            open_files: self.open_files,
            output_bytes_per_second: self.output_rate.map(|bytes| bytes.0),
        }
    }
}

/// `["program", "argument"]`, or a line for the shell.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a command: [\"program\", \"argument\"], or a text for sh -c")]
pub(crate) enum CommandLine {
    Program(Vec<String>),
    Shell(String),
}

impl CommandLine {
    pub(crate) fn argv(self) -> Vec<String> {
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
        pub(crate) struct $name(pub(crate) $value);

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

/// A file that is read, to say where in it something is.
pub(crate) struct Source<'a> {
    pub(crate) file: &'a Path,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// What is wrong at a place of it.
    pub(crate) fn problem(&self, span: Option<Range<usize>>, key: &str, message: &str) -> Problem {
        let before = |span: Range<usize>| self.text.as_bytes().iter().take(span.start);
        let line = span.map(|span| before(span).filter(|byte| **byte == b'\n').count() + 1);
        // What the parser says may have several lines; a log line has one.
        let message = message.trim().replace('\n', ", ");
        Problem { file: self.file.to_owned(), line, key: key.to_owned(), message }
    }
}
