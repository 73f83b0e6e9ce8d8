//! Templates: named recipes for sandboxes.

use crate::error::{Error, Result};
use crate::id::{SandboxId, TemplateId};
use crate::label::{self, Labels};
use crate::limits::ResourceLimits;
use crate::network::NetworkPolicy;
use crate::process::ProcessSpec;
use crate::spec::{validate_env, validate_path, validate_user};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Most start commands of one template.
pub const MAX_START_COMMANDS: usize = 16;
/// How long a start command may take where it says nothing.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a template's files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TemplateSource {
    /// The host's `/usr`, read-only, and a generated minimal `/etc`.
    Host,
    /// A root file system that was imported.
    Imported,
    /// An image of a container engine, by any name that the engine knows it by.
    Image {
        /// `debian:bookworm-slim`, `name@sha256:…`.
        reference: String,
    },
    /// Files that were imported on top of another template. Declared, not imported, it has no files of its own.
    Layer {
        /// The template below.
        base: TemplateId,
    },
    /// Files of a sandbox, on top of the template it was made from.
    Snapshot {
        /// The template below.
        base: TemplateId,
        /// The sandbox, which may be gone by now. Unknown for templates of earlier versions.
        #[serde(default)]
        sandbox: Option<SandboxId>,
    },
    /// What commands left that were run on top of another template.
    Built {
        /// The template below.
        base: TemplateId,
    },
}

impl TemplateSource {
    /// The template below it, where there is one.
    #[must_use]
    pub fn base(&self) -> Option<&TemplateId> {
        match self {
            Self::Layer { base } | Self::Snapshot { base, .. } | Self::Built { base } => Some(base),
            _ => None,
        }
    }
}

/// A command that belongs to a template: what is run in a sandbox before it is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the sandbox's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; the sandbox's where absent.
    pub cwd: Option<String>,
    /// User; the sandbox's where absent.
    pub user: Option<String>,
    /// How long it may take; [`START_TIMEOUT`] where absent.
    pub timeout: Option<Duration>,
}

impl TemplateCommand {
    /// The process that it becomes.
    #[must_use]
    pub fn process(&self) -> ProcessSpec {
        ProcessSpec {
            argv: self.argv.clone(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            timeout: Some(self.timeout.unwrap_or(START_TIMEOUT)),
            ..ProcessSpec::default()
        }
    }
}

/// How to find out that a sandbox is ready: a command that exits with 0 once it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is run.
    pub command: TemplateCommand,
    /// How long to wait between two tries.
    pub interval: Duration,
    /// How long to try altogether.
    pub timeout: Duration,
}

impl Probe {
    /// The shortest and longest pause between two tries.
    pub const INTERVALS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(60)];
    /// The pause where nobody says otherwise.
    pub const INTERVAL: Duration = Duration::from_millis(200);
    /// The longest time to try.
    pub const LONGEST: Duration = Duration::from_secs(600);
    /// The time to try where nobody says otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// Checks the command and the times.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let [shortest, longest] = Self::INTERVALS;
        if !(shortest..=longest).contains(&self.interval) {
            return Err(Error::invalid("interval", "must be between 10 ms and 60 s"));
        }
        if self.timeout < shortest || self.timeout > Self::LONGEST {
            return Err(Error::invalid("timeout", "must be between 10 ms and 10 min"));
        }
        self.command.process().validate()
    }
}

/// A template as a backend keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub id: TemplateId,
    /// Where its files come from.
    pub source: TemplateSource,
    /// When it was made.
    pub created: SystemTime,
    /// Bytes on disk, where known.
    pub size_bytes: Option<u64>,
    /// Labels.
    pub labels: Labels,
    /// Default limits of sandboxes made from it.
    pub limits: ResourceLimits,
    /// The most that those may be, whatever anybody asks for. What is absent has no bound here.
    #[serde(default)]
    pub max_limits: ResourceLimits,
    /// Default environment.
    pub env: BTreeMap<String, String>,
    /// Default user.
    pub user: Option<String>,
    /// Default working directory.
    pub workdir: Option<String>,
    /// What sandboxes may reach unless their creator says otherwise; nothing where absent.
    #[serde(default)]
    pub network: Option<NetworkPolicy>,
    /// What is run in a new sandbox, one after the other, before it is ready. Each must exit with 0. Forks and
    /// sandboxes of snapshots run them again: processes are not copied.
    #[serde(default)]
    pub start_commands: Vec<TemplateCommand>,
    /// How to find out, after the start commands, that it is ready.
    #[serde(default)]
    pub probe: Option<Probe>,
}

impl Template {
    /// A template with nothing but a name and a source.
    #[must_use]
    pub fn new(id: TemplateId, source: TemplateSource) -> Self {
        Self {
            id,
            source,
            created: SystemTime::now(),
            size_bytes: None,
            labels: Labels::new(),
            limits: ResourceLimits::default(),
            max_limits: ResourceLimits::default(),
            env: BTreeMap::new(),
            user: None,
            workdir: None,
            network: None,
            start_commands: Vec::new(),
            probe: None,
        }
    }

    /// Whether something is run in its sandboxes before they are ready.
    #[must_use]
    pub fn prepares(&self) -> bool {
        !self.start_commands.is_empty() || self.probe.is_some()
    }

    /// Takes what it does not say itself from the template below it. Labels are its own.
    pub fn inherit(&mut self, base: &Self) {
        self.limits = self.limits.or(&base.limits);
        // What stands on it is bound as it is.
        self.max_limits = self.max_limits.at_most(&base.max_limits);
        let mut env = base.env.clone();
        env.append(&mut self.env);
        self.env = env;
        self.user = self.user.take().or_else(|| base.user.clone());
        self.workdir = self.workdir.take().or_else(|| base.workdir.clone());
        self.network = self.network.take().or_else(|| base.network.clone());
        if self.start_commands.is_empty() {
            self.start_commands.clone_from(&base.start_commands);
        }
        self.probe = self.probe.take().or_else(|| base.probe.clone());
    }

    /// Refuses limits that are more than it allows.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the first, as `limits.memory_bytes`.
    pub fn allows(&self, limits: &ResourceLimits) -> Result<()> {
        let Some((field, value, most)) = limits.beyond(&self.max_limits) else { return Ok(()) };
        let problem = format!("{value} is more than the {most} that the template {} allows", self.id);
        Err(Error::invalid(format!("limits.{field}"), problem))
    }

    /// Checks everything that does not depend on the host.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field.
    pub fn validate(&self) -> Result<()> {
        label::validate(&self.labels)?;
        self.limits.validate()?;
        self.max_limits.validate().map_err(|error| match error {
            Error::InvalidArgument { field, problem } => {
                Error::InvalidArgument { field: format!("max_{field}"), problem }
            }
            other => other,
        })?;
        self.allows(&self.limits)?;
        validate_env("env", &self.env)?;
        if let Some(user) = &self.user {
            validate_user("user", user)?;
        }
        if let Some(workdir) = &self.workdir {
            validate_path("workdir", workdir)?;
        }
        if let Some(network) = &self.network {
            network.validate()?;
        }
        if self.start_commands.len() > MAX_START_COMMANDS {
            let problem = format!("{} commands, at most {MAX_START_COMMANDS}", self.start_commands.len());
            return Err(Error::invalid("start_commands", problem));
        }
        for (index, command) in self.start_commands.iter().enumerate() {
            command
                .process()
                .validate()
                .map_err(|error| within(&format!("start_commands[{index}]"), error))?;
        }
        self.probe
            .as_ref()
            .map_or(Ok(()), |probe| probe.validate().map_err(|error| within("readiness_probe", error)))
    }
}

/// The same error, with the field named from further out.
fn within(place: &str, error: Error) -> Error {
    match error {
        Error::InvalidArgument { field, problem } => {
            Error::InvalidArgument { field: format!("{place}.{field}"), problem }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        Template::new(TemplateId::parse("t").unwrap(), TemplateSource::Imported)
    }

    #[test]
    fn records_of_earlier_versions_are_read() {
        let mut old = serde_json::to_value(template()).unwrap();
        for new in ["max_limits", "network", "start_commands", "probe"] {
            old.as_object_mut().unwrap().remove(new);
        }
        assert_eq!(serde_json::from_value::<Template>(old).unwrap().start_commands, []);
    }

    #[test]
    fn what_is_said_wins_over_the_base() {
        let mut base = template();
        base.env = [("A".to_owned(), "base".to_owned()), ("B".to_owned(), "base".to_owned())].into();
        base.user = Some("agent".to_owned());
        let mut own = template();
        own.env = [("A".to_owned(), "own".to_owned())].into();
        own.inherit(&base);
        assert_eq!((own.env["A"].as_str(), own.env["B"].as_str()), ("own", "base"));
        assert_eq!(own.user.as_deref(), Some("agent"));
    }

    #[test]
    fn what_stands_on_a_bound_is_bound_too() {
        let pids = |pids| ResourceLimits { pids: Some(pids), ..ResourceLimits::default() };
        let base = Template { max_limits: pids(50), ..template() };
        for (own, inherited) in [(ResourceLimits::default(), 50), (pids(40), 40), (pids(60), 50)] {
            let mut own = Template { max_limits: own, ..template() };
            own.inherit(&base);
            assert_eq!(own.max_limits, pids(inherited));
        }
        assert!(base.allows(&pids(50)).is_ok() && base.allows(&ResourceLimits::default()).is_ok());
        let error = base.allows(&pids(51)).unwrap_err().to_string();
        assert_eq!(error, "limits.pids: 51 is more than the 50 that the template t allows");
        let error = Template { max_limits: pids(1), ..template() }.validate().unwrap_err().to_string();
        assert!(error.starts_with("max_limits.pids"), "{error}");
    }

    #[test]
    fn a_wrong_start_command_is_named_by_its_place() {
        let mut wrong = template();
        wrong.start_commands =
            vec![TemplateCommand { argv: vec!["true".to_owned()], ..Default::default() }, Default::default()];
        let error = wrong.validate().unwrap_err().to_string();
        assert!(error.starts_with("start_commands[1].argv"), "{error}");
    }
}
