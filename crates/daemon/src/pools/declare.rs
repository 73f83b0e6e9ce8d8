//! Pools of the configuration: TOML files, read at the start. One is applied when it is new or its text changed, so
//! that what ops tune live stays until somebody edits the file. A bad file is told and keeps nothing from working.

use super::Pools;
use crate::declared::{CommandLine, Resources, Source, Span};
use crate::page::hex;
use crate::record::PoolRecord;
use crate::sandboxes::Sandboxes;
use crate::templates::Problem;
use hostel_pool::{PoolName, PoolSpec, Schedule, Weekday};
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{BackendName, TemplateId};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;
const MINUTES_PER_HOUR: u16 = 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    name: Option<String>,
    backend: Option<String>,
    template: String,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    min: u32,
    max: u32,
    pin: Option<u32>,
    headroom: Option<u32>,
    refill_concurrency: Option<u32>,
    refill_delay: Option<Span>,
    max_age: Option<Span>,
    check_interval: Option<Span>,
    target_hit_rate: Option<f64>,
    scale_down_delay: Option<Span>,
    #[serde(default)]
    schedule: Vec<ScheduleTable>,
    warm_process: Option<CommandLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleTable {
    #[serde(default)]
    days: Vec<Weekday>,
    from: String,
    to: String,
    min: u32,
}

/// What a file declares.
pub(crate) struct Declaration {
    pub(crate) file: PathBuf,
    /// Its backend is empty where the file names none.
    pub(crate) record: PoolRecord,
    names_backend: bool,
}

/// Reads every declaration: `DIRECTORY/*.toml`, in the order of their names. A directory that is not there declares
/// nothing.
pub(crate) fn read(directories: &[PathBuf]) -> (Vec<Declaration>, Vec<Problem>) {
    let (mut declarations, mut problems) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for file in directories.iter().flat_map(|directory| files(directory)) {
        match read_file(&file) {
            Ok(declaration) if names.insert(declaration.record.name.clone()) => {
                declarations.push(declaration)
            }
            Ok(declaration) => {
                let message = format!("the pool {} is declared twice", declaration.record.name);
                problems.push(Problem::of_file(&file, message));
            }
            Err(problem) => problems.push(problem),
        }
    }
    (declarations, problems)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml") && path.is_file())
        .collect();
    files.sort();
    files
}

fn read_file(file: &Path) -> Result<Declaration, Problem> {
    let unreadable = |error: std::io::Error| Problem::of_file(file, format!("cannot be read: {error}"));
    let length = file.metadata().map_err(unreadable)?.len();
    if length > LARGEST {
        return Err(Problem::of_file(file, format!("has {length} bytes, at most {LARGEST}")));
    }
    parse(file, &std::fs::read_to_string(file).map_err(unreadable)?)
}

fn parse(file: &Path, text: &str) -> Result<Declaration, Problem> {
    let source = Source { file, text };
    let read: File =
        toml::from_str(text).map_err(|error| source.problem(error.span(), "", error.message()))?;
    let names_backend = read.backend.is_some();
    let record = record(file, text, read).map_err(|error| Problem::of_file(file, error.to_string()))?;
    Ok(Declaration { file: file.to_owned(), record, names_backend })
}

fn record(file: &Path, text: &str, read: File) -> hostel_sandbox::Result<PoolRecord> {
    let stem = || file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = PoolName::parse(read.name.unwrap_or_else(stem))?;
    let backend = BackendName::parse(read.backend.unwrap_or_else(|| "default".to_owned()))?;
    let mut spec = PoolSpec::new(backend, TemplateId::parse(read.template)?, read.min, read.max);
    spec.limits = read.resources.limits();
    spec.pinned_size = read.pin;
    spec.headroom = read.headroom.unwrap_or(spec.headroom);
    spec.refill_concurrency = read.refill_concurrency.unwrap_or(spec.refill_concurrency);
    let span = |said: Option<Span>, default: Duration| said.map_or(default, |span| span.0);
    spec.refill_delay = span(read.refill_delay, spec.refill_delay);
    spec.max_age = span(read.max_age, spec.max_age);
    spec.health_check_interval = span(read.check_interval, spec.health_check_interval);
    spec.scale_down_delay = span(read.scale_down_delay, spec.scale_down_delay);
    spec.target_hit_rate = read.target_hit_rate.unwrap_or(spec.target_hit_rate);
    spec.schedules = read.schedule.into_iter().map(schedule).collect::<Result<_, _>>()?;
    spec.validate()?;
    let warm_process = read.warm_process.map(|line| ProcessSpec {
        argv: line.argv(),
        stdin: true,
        ..ProcessSpec::default()
    });
    warm_process.iter().try_for_each(ProcessSpec::validate)?;
    let created = SystemTime::now();
    Ok(PoolRecord {
        name,
        spec,
        warm_process,
        generation: 0,
        made_from: String::new(),
        declared: hex(&Sha256::digest(text)[..16]),
        created,
        updated: created,
    })
}

fn schedule(table: ScheduleTable) -> hostel_sandbox::Result<Schedule> {
    Ok(Schedule {
        days: table.days,
        from_minute: minute("schedule.from", &table.from)?,
        to_minute: minute("schedule.to", &table.to)?,
        min_size: table.min,
    })
}

/// Reads a time of day, `08:30`; `24:00` is the end of the day.
fn minute(field: &str, text: &str) -> hostel_sandbox::Result<u16> {
    let parts = text.split_once(':').and_then(|(hours, minutes)| {
        let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours <= 24 && minutes < MINUTES_PER_HOUR).then_some(hours * MINUTES_PER_HOUR + minutes)
    });
    parts.ok_or_else(|| hostel_sandbox::Error::invalid(field, format!("{text:?} is not a time as 08:30")))
}

impl Pools {
    /// Makes and changes the pools that files declare. Problems are told in the log.
    pub(crate) async fn declare(&self, sandboxes: &Sandboxes, directories: &[PathBuf]) {
        let (declarations, problems) = read(directories);
        for problem in problems {
            tracing::error!(%problem, "a pool's declaration is wrong and is left out");
        }
        for mut declaration in declarations {
            if !declaration.names_backend
                && let Some(default) = sandboxes.backends().default()
            {
                declaration.record.spec.backend = default.name();
            }
            let (name, file) = (declaration.record.name.clone(), declaration.file.clone());
            if let Err(error) = self.apply(sandboxes, declaration.record).await {
                tracing::error!(pool = %name, file = %file.display(), %error, "a declared pool could not be made");
            }
        }
    }

    async fn apply(&self, sandboxes: &Sandboxes, declared: PoolRecord) -> crate::Result<()> {
        let name = declared.name.clone();
        let Ok(pool) = self.get(&name) else {
            return self.create(sandboxes, declared, None).await.map(|_| ());
        };
        if pool.view().record.declared == declared.declared {
            return Ok(());
        }
        let update = Box::new(move |record: &mut PoolRecord| {
            record.spec = declared.spec;
            record.warm_process = declared.warm_process;
            record.declared = declared.declared;
            Ok(())
        });
        self.update(sandboxes, &name, update).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        template = "agent"
        min = 2
        max = 20
        headroom = 1
        max-age = "30m"
        refill-delay = "2s"
        warm-process = ["cat"]
        [resources]
        memory = "1G"
        [[schedule]]
        days = ["mon", "fri"]
        from = "08:00"
        to = "24:00"
        min = 10
    "#;

    #[test]
    fn a_file_says_what_a_pool_shall_be() {
        let declared = parse(Path::new("/etc/hostel/pools.d/agents.toml"), GOOD).unwrap().record;
        assert_eq!(declared.name.as_str(), "agents");
        assert_eq!((declared.spec.min_size, declared.spec.max_size, declared.spec.headroom), (2, 20, 1));
        assert_eq!(declared.spec.max_age, Duration::from_secs(1800));
        assert_eq!(declared.spec.refill_delay, Duration::from_secs(2));
        assert_eq!(declared.spec.limits.memory_bytes, Some(1 << 30));
        assert_eq!(
            (declared.spec.schedules[0].from_minute, declared.spec.schedules[0].to_minute),
            (480, 1440)
        );
        assert_eq!(declared.warm_process.unwrap().argv, ["cat"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let file = Path::new("/p/a.toml");
        let problem = parse(file, "template = 'a'\nmax = 2\nmxa = 3\n").err().unwrap().to_string();
        assert!(problem.starts_with("/p/a.toml:3") && problem.contains("mxa"), "{problem}");
        let problem = parse(file, "template = 'a'\nmax = 2\nmin = 5\n").err().unwrap().to_string();
        assert!(problem.contains("min_size"), "{problem}");
        let hours = "template = 'a'\nmax = 2\n[[schedule]]\nfrom = '25:00'\nto = '1:00'\nmin = 1\n";
        assert!(parse(file, hours).err().unwrap().to_string().contains("25:00"));
    }
}
