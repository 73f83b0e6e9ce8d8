//! Pools of the configuration: TOML files, read at the start. One is applied when it is new or its text changed, so
//! that what ops tune live, or delete, stays so until somebody edits the file. One that cannot be applied yet, because
//! its template is being imported or its engine is away, is tried again. A bad file is told and keeps nothing from
//! working.

use super::Pools;
use crate::declared::{Bytes, CommandLine, Resources, Source, Span};
use crate::page::hex;
use crate::record::PoolRecord;
use crate::sandboxes::Sandboxes;
use crate::templates::Problem;
use hostel_pool::{PoolName, PoolSpec, Schedule, Weekday};
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{BackendName, TemplateId};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;
const MINUTES_PER_HOUR: u16 = 60;
/// Under which the store keeps which text of which declaration was applied.
const APPLIED: &str = "declared_pools";
/// The first and the longest wait until what could not be applied is tried again.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// The hash of the text of each declaration that was applied, by the pool's name.
type Applied = BTreeMap<String, String>;

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
    max_idle_memory: Option<Bytes>,
    target_hit_rate: Option<f64>,
    scale_down_delay: Option<Span>,
    #[serde(default)]
    schedule: Vec<ScheduleTable>,
    warm_process: Option<CommandLine>,
    #[serde(default)]
    named_only: bool,
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
    /// Why it could not be applied the last time.
    told: String,
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
    Ok(Declaration { file: file.to_owned(), record, names_backend, told: String::new() })
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
    spec.max_idle_memory_bytes = read.max_idle_memory.map(|bytes| bytes.0);
    spec.target_hit_rate = read.target_hit_rate.unwrap_or(spec.target_hit_rate);
    spec.named_only = read.named_only;
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
    /// Makes and changes the pools that files declare; those that cannot be yet, behind. Problems are told in the log.
    pub(crate) async fn declare(&self, sandboxes: &Sandboxes, directories: &[PathBuf]) {
        let (mut declarations, problems) = read(directories);
        let mut applied = self.applied().await;
        // A file that is gone and comes back is new. One that cannot be read is not gone.
        if problems.is_empty() {
            let declared = |name: &str| declarations.iter().any(|one| one.record.name.as_str() == name);
            applied.retain(|name, _| declared(name));
        }
        for problem in problems {
            tracing::error!(%problem, "a pool's declaration is wrong and is left out");
        }
        for declaration in &mut declarations {
            if !declaration.names_backend
                && let Some(default) = sandboxes.backends().default()
            {
                declaration.record.spec.backend = default.name();
            }
        }
        let left = self.apply_all(sandboxes, declarations, &mut applied).await;
        if left.is_empty() {
            return;
        }
        let (this, sandboxes) = (self.clone(), sandboxes.clone());
        sandboxes.clone().tasks().spawn(async move {
            let stop = sandboxes.stopping().clone();
            tokio::select! {
                () = this.apply_later(&sandboxes, left, applied) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Tries until all are applied.
    async fn apply_later(&self, sandboxes: &Sandboxes, mut left: Vec<Declaration>, mut applied: Applied) {
        let [mut wait, longest] = RETRY;
        while !left.is_empty() {
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(longest);
            left = self.apply_all(sandboxes, left, &mut applied).await;
        }
    }

    /// Applies what is new or changed. Returns what may be applied later.
    async fn apply_all(
        &self,
        sandboxes: &Sandboxes,
        declarations: Vec<Declaration>,
        applied: &mut Applied,
    ) -> Vec<Declaration> {
        let mut left = Vec::new();
        for declaration in declarations {
            let Declaration { file, record, .. } = &declaration;
            match self.apply(sandboxes, record.clone(), applied).await {
                Ok(()) => {
                    applied.insert(record.name.to_string(), record.declared.clone());
                }
                Err(error) if may_pass(&error) => {
                    let told = error.to_string();
                    if declaration.told != told {
                        tracing::warn!(pool = %record.name, file = %file.display(), %error, "a declared pool could not be made and is tried again");
                    }
                    left.push(Declaration { told, ..declaration });
                }
                Err(error) => {
                    tracing::error!(pool = %record.name, file = %file.display(), %error, "a declared pool could not be made");
                }
            }
        }
        let kept = serde_json::to_string(applied).unwrap_or_default();
        if let Err(error) = self.0.store.set_setting(APPLIED, kept).await {
            tracing::warn!(%error, "which pools were declared could not be written");
        }
        left
    }

    async fn applied(&self) -> Applied {
        let kept = self.0.store.setting(APPLIED).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "which pools were declared cannot be read");
            None
        });
        kept.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    async fn apply(
        &self,
        sandboxes: &Sandboxes,
        declared: PoolRecord,
        applied: &Applied,
    ) -> crate::Result<()> {
        let name = declared.name.clone();
        // Whatever became of it since is what somebody wanted.
        if applied.get(name.as_str()) == Some(&declared.declared) {
            return Ok(());
        }
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

/// Whether the same may work later: what is missing comes, or answers again.
fn may_pass(error: &crate::Error) -> bool {
    use hostel_sandbox::Error as Domain;
    !matches!(error, crate::Error::Domain(Domain::InvalidArgument { .. } | Domain::CapabilityMissing { .. }))
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
        max-idle-memory = "4G"
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
        assert_eq!(declared.spec.max_idle_memory_bytes, Some(4 << 30));
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
