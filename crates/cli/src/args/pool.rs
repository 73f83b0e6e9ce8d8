//! `hostel pool`: what can be typed.

use super::limits::LimitOptions;
use super::{schedule, value};
use clap::{Args, Subcommand};
use hostel_client::PoolField;
use hostel_client::model::{PoolSchedule, PoolSpec};
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{BackendName, ResourceLimits, TemplateId};
use std::time::Duration;

/// The fewest and the most to keep warm where nothing is said.
const SIZES: (u32, u32) = (1, 10);

/// What can be done with pools.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A sandbox that is made of a pool's template on its backend is claimed from the pool, with no further asking; when \
none is warm it is made on demand, as without a pool.

Examples:
  hostel pool create web --template web --min 2 --max 20 --wait
  hostel run -v --template web -- ./serve --help       says whether it was warm
  hostel pool plan web                                 sizes, from the demand of the last days
  hostel pool set web --pin 8")]
pub(crate) enum PoolCommand {
    /// List pools.
    #[command(visible_alias = "ls")]
    List {
        /// Print names only.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Tell about one pool.
    Get(OnePool),
    /// Make a pool; it fills behind.
    Create(Box<CreatePoolArgs>),
    /// Change a pool while it works. What is not named stays.
    Set(Box<SetPoolArgs>),
    /// Stop refilling a pool, and remove what is warm. `hostel pool set NAME --resume` takes it up again.
    Drain(OnePool),
    /// Remove pools with their warm sandboxes. Those that were claimed go on.
    #[command(visible_alias = "delete")]
    Rm {
        /// Their names.
        #[arg(required = true, value_name = "NAME", value_parser = value::pool)]
        names: Vec<String>,
        /// It is no error when one is not there.
        #[arg(short = 'f', long, visible_alias = "force")]
        allow_missing: bool,
    },
    /// Print pools as they change, until Ctrl-C.
    Watch(WatchPoolArgs),
    /// Replay the demand that a pool met against other sizes, to choose one from facts.
    Plan(PlanArgs),
}

/// One pool.
#[derive(Debug, Args)]
pub(crate) struct OnePool {
    /// The pool.
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
}

/// What a pool shall be, as far as it is said.
#[derive(Debug, Default, Args)]
pub(crate) struct PoolOptions {
    /// Template of its sandboxes.
    #[arg(short = 'T', long, value_name = "NAME", value_parser = value::template)]
    pub(crate) template: Option<TemplateId>,
    /// Fewest to keep warm.
    #[arg(long, value_name = "N")]
    pub(crate) min: Option<u32>,
    /// Most to keep warm.
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u32>,
    /// Keep so many warm, whatever the demand.
    #[arg(long, value_name = "N")]
    pub(crate) pin: Option<u32>,
    /// Keep so many beyond what the demand asks for.
    #[arg(long, value_name = "N")]
    headroom: Option<u32>,
    /// How many are made at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    refill_concurrency: Option<u32>,
    /// How long refills wait after a claim, so that what was claimed has the machine to itself: 0s to 60s.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    refill_delay: Option<Duration>,
    /// Age at which a warm sandbox is replaced.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    max_age: Option<Duration>,
    /// How often a warm sandbox is checked.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    check_interval: Option<Duration>,
    /// Most memory that the warm ones may use together: 8G. Fewer are kept where they use more.
    #[arg(long, value_name = "SIZE", value_parser = value::bytes)]
    max_idle_memory: Option<u64>,
    /// Share of claims that shall find a warm sandbox: 0.99 or 99%.
    #[arg(long, value_name = "SHARE", value_parser = value::share)]
    target_hit_rate: Option<f64>,
    /// How long the demand must ask for less before the pool shrinks.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    scale_down_delay: Option<Duration>,
    /// Keep more at some hours of the week, UTC: "mon-fri 08:00-18:00 min=20". May be given several times.
    #[arg(long, value_name = "HOURS", value_parser = schedule::parse)]
    schedule: Vec<PoolSchedule>,
    /// Serve only who names it with --pool, and not each creation that names its template.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    named_only: Option<bool>,
    /// Limits of its sandboxes. A claim with other ones changes them where the backend can, else it is a miss.
    #[command(flatten)]
    limits: LimitOptions,
}

impl PoolOptions {
    /// Takes over what was given, and says what that is.
    fn apply(self, spec: &mut PoolSpec) -> Vec<PoolField> {
        let mut fields = Vec::new();
        let mut given = |given: bool, field| fields.extend(given.then_some(field));
        given(set(&mut spec.template, self.template), PoolField::Template);
        given(set(&mut spec.min_size, self.min), PoolField::MinSize);
        given(set(&mut spec.max_size, self.max), PoolField::MaxSize);
        given(replace(&mut spec.pinned_size, self.pin), PoolField::PinnedSize);
        given(replace(&mut spec.headroom, self.headroom), PoolField::Headroom);
        given(replace(&mut spec.refill_concurrency, self.refill_concurrency), PoolField::RefillConcurrency);
        given(replace(&mut spec.refill_delay, self.refill_delay), PoolField::RefillDelay);
        given(replace(&mut spec.max_age, self.max_age), PoolField::MaxAge);
        given(replace(&mut spec.health_check_interval, self.check_interval), PoolField::HealthCheckInterval);
        given(replace(&mut spec.max_idle_memory_bytes, self.max_idle_memory), PoolField::MaxIdleMemory);
        given(replace(&mut spec.target_hit_rate, self.target_hit_rate), PoolField::TargetHitRate);
        given(replace(&mut spec.scale_down_delay, self.scale_down_delay), PoolField::ScaleDownDelay);
        given(set(&mut spec.named_only, self.named_only), PoolField::NamedOnly);
        let schedules = Some(self.schedule).filter(|schedules| !schedules.is_empty());
        given(set(&mut spec.schedules, schedules), PoolField::Schedules);
        let limits = self.limits.limits();
        let limited = limits != ResourceLimits::default();
        spec.limits = limits.or(&spec.limits);
        given(limited, PoolField::Limits);
        fields
    }
}

fn set<T>(place: &mut T, value: Option<T>) -> bool {
    let given = value.is_some();
    if let Some(value) = value {
        *place = value;
    }
    given
}

fn replace<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    set(place, value.map(Some))
}

/// A process that waits for whoever claims the sandbox: its stdin is open.
fn waiting(command: Vec<String>) -> Option<ProcessSpec> {
    (!command.is_empty()).then(|| ProcessSpec { argv: command, stdin: true, ..ProcessSpec::default() })
}

/// What pool to make.
#[derive(Debug, Args)]
#[command(after_help = "\
Where nothing is said: the default template of the backend, --min 1 --max 10 --headroom 2 --refill-concurrency 2 \
--refill-delay 50ms --max-age 1h --check-interval 30s --target-hit-rate 0.99 --scale-down-delay 5m.

Without --pin the size follows the demand, between --min and --max, so that the target hit rate is reached. Times of \
schedules are UTC; of several that hold the greatest counts.

CMD is started in each warm sandbox and waits there, under the id warm: `hostel attach -i SANDBOX warm` writes to it.

Examples:
  hostel pool create default
  hostel pool create web --template web --min 2 --max 40 --memory 1G --wait
  hostel pool create day --max 30 --schedule 'mon-fri 07:30-18:00 min=20'
  hostel pool create shells --pin 4 --named-only -- sh")]
pub(crate) struct CreatePoolArgs {
    /// The name to have.
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
    /// Backend to make them with [the node's default].
    #[arg(long, value_name = "NAME", value_parser = value::backend)]
    pub(crate) backend: Option<BackendName>,
    /// What it shall be.
    #[command(flatten)]
    pub(crate) options: PoolOptions,
    /// Return when it has its target size.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait for that; the pool stays.
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "5m", requires = "wait")]
    pub(crate) wait_timeout: Duration,
    /// A process that waits in each warm sandbox.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl CreatePoolArgs {
    /// The pool to ask for; `template` is the backend's default.
    pub(crate) fn spec(self, template: TemplateId) -> PoolSpec {
        let options = &self.options;
        let wanted =
            options.schedule.iter().map(|schedule| schedule.min_size).chain(options.min).chain(options.pin);
        let max = options.max.unwrap_or_else(|| wanted.fold(SIZES.1, u32::max));
        let min = SIZES.0.min(max).min(options.pin.unwrap_or(max));
        let mut spec = PoolSpec { backend: self.backend, ..PoolSpec::new(template, min, max) };
        spec.warm_process = waiting(self.command);
        // All that was given is sent.
        let _ = self.options.apply(&mut spec);
        spec
    }
}

/// What to change.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hostel pool set web --min 4 --max 40
  hostel pool set web --min 0 --pin 0                    nothing warm, for now
  hostel pool set web --no-pin                           demand decides again
  hostel pool set web --named-only                       only for `--pool web`; --named-only=false takes it back
  hostel pool set web --template web-2                   replaces what is warm, one after the other
  hostel pool set web --resume                           after hostel pool drain")]
pub(crate) struct SetPoolArgs {
    /// The pool.
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
    /// What it shall be; limits that are not named stay, schedules are replaced.
    #[command(flatten)]
    options: PoolOptions,
    /// Let the demand decide again.
    #[arg(long, conflicts_with = "pin")]
    no_pin: bool,
    /// Have no schedules any more.
    #[arg(long, conflicts_with = "schedule")]
    no_schedules: bool,
    /// Have no bound of idle memory any more.
    #[arg(long, conflicts_with = "max_idle_memory")]
    no_max_idle_memory: bool,
    /// Start no process in warm sandboxes any more.
    #[arg(long, conflicts_with = "command")]
    no_warm_process: bool,
    /// Fill again what was drained.
    #[arg(long)]
    resume: bool,
    /// The process that waits in each warm sandbox.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl SetPoolArgs {
    /// Changes a specification, and says in what.
    pub(crate) fn apply(self, spec: &mut PoolSpec) -> Vec<PoolField> {
        let mut fields = self.options.apply(spec);
        let mut given = |given: bool, field| fields.extend(given.then_some(field));
        given(set(&mut spec.pinned_size, self.no_pin.then_some(None)), PoolField::PinnedSize);
        given(set(&mut spec.schedules, self.no_schedules.then(Vec::new)), PoolField::Schedules);
        let unbounded = self.no_max_idle_memory.then_some(None);
        given(set(&mut spec.max_idle_memory_bytes, unbounded), PoolField::MaxIdleMemory);
        given(replace(&mut spec.warm_process, waiting(self.command)), PoolField::WarmProcess);
        given(set(&mut spec.warm_process, self.no_warm_process.then_some(None)), PoolField::WarmProcess);
        given(set(&mut spec.draining, self.resume.then_some(false)), PoolField::Draining);
        fields
    }
}

/// Which pools to watch.
#[derive(Debug, Args)]
pub(crate) struct WatchPoolArgs {
    /// Only these pools, which need not be there yet [all].
    #[arg(value_name = "NAME", value_parser = value::pool)]
    pub(crate) names: Vec<String>,
    /// Shortest time between two lines about one pool.
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "1s")]
    pub(crate) interval: Duration,
}

/// What to replay.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints for each size which share of the claims would have found a warm sandbox, how long claims would have waited, \
and what the sandboxes that wait cost; last, what the pool's own controller would have done.

Examples:
  hostel pool plan web
  hostel pool plan web --sizes 0,2,4,8 --window 24h")]
pub(crate) struct PlanArgs {
    /// The pool.
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
    /// Sizes to try, joined with commas [from 0 to the pool's --max, or to twice its target].
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) sizes: Vec<u32>,
    /// Replay the newest part of the demand: 24h, 7d [all that is kept].
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) window: Option<Duration>,
}

#[cfg(test)]
mod tests;
