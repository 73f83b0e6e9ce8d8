use super::*;
use crate::args::{Cli, Command};
use clap::Parser as _;

fn parse(words: &[&str]) -> Result<PoolCommand, clap::Error> {
    let words = ["hostel", "pool"].iter().chain(words);
    match Cli::try_parse_from(words)?.command {
        Command::Pool(command) => Ok(command),
        other => panic!("{other:?}"),
    }
}

fn host() -> TemplateId {
    TemplateId::parse("host").unwrap()
}

fn created(words: &[&str]) -> PoolSpec {
    let words: Vec<_> = ["create", "web"].iter().chain(words).copied().collect();
    let Ok(PoolCommand::Create(args)) = parse(&words) else { panic!("{words:?}") };
    let template = args.options.template.clone().unwrap_or_else(host);
    args.spec(template)
}

fn changed(words: &[&str], spec: &mut PoolSpec) -> Vec<PoolField> {
    let words: Vec<_> = ["set", "web"].iter().chain(words).copied().collect();
    let Ok(PoolCommand::Set(args)) = parse(&words) else { panic!("{words:?}") };
    args.apply(spec)
}

#[test]
fn a_pool_has_sane_sizes_where_none_are_said() {
    let sizes = |words: &[&str]| {
        let spec = created(words);
        (spec.min_size, spec.max_size, spec.pinned_size)
    };
    assert_eq!(sizes(&[]), (1, 10, None));
    assert_eq!(sizes(&["--min", "20"]), (20, 20, None));
    assert_eq!(sizes(&["--pin", "0"]), (0, 10, Some(0)));
    assert_eq!(sizes(&["--pin", "30"]), (1, 30, Some(30)));
    assert_eq!(sizes(&["--schedule", "08:00-18:00 min=40"]), (1, 40, None));
    // What was said is not corrected: the daemon refuses it.
    assert_eq!(sizes(&["--min", "5", "--max", "2"]), (5, 2, None));
}

#[test]
fn options_become_a_pool() {
    let spec = created(&[
        "--backend",
        "jail",
        "-T",
        "web",
        "--headroom",
        "0",
        "--refill-concurrency",
        "4",
        "--max-age",
        "1h",
        "--check-interval",
        "10s",
        "--target-hit-rate",
        "95%",
        "--scale-down-delay",
        "0s",
        "--refill-delay",
        "250ms",
        "-m",
        "64M",
        "--cpus",
        "0.5",
        "--schedule",
        "mon 08:00-18:00 min=2",
        "--schedule",
        "20:00-22:00 min=3",
        "--wait",
        "--",
        "sh",
        "-c",
        "--json",
    ]);
    assert_eq!(spec.backend.unwrap().as_str(), "jail");
    assert_eq!((spec.template.as_str(), spec.headroom, spec.refill_concurrency), ("web", Some(0), Some(4)));
    assert_eq!(
        (spec.max_age, spec.scale_down_delay),
        (Some(Duration::from_secs(3600)), Some(Duration::ZERO))
    );
    assert_eq!(spec.refill_delay, Some(Duration::from_millis(250)));
    assert_eq!((spec.target_hit_rate, spec.schedules.len()), (Some(0.95), 2));
    assert_eq!((spec.limits.memory_bytes, spec.limits.cpu_millis), (Some(64 << 20), Some(500)));
    let process = spec.warm_process.unwrap();
    assert!(process.argv == ["sh", "-c", "--json"] && process.stdin);
}

#[test]
fn only_what_is_named_changes() {
    let before = created(&["--pin", "3", "--memory", "64M", "--pids", "9", "--", "cat"]);
    let mut spec = before.clone();
    assert_eq!(changed(&[], &mut spec), []);
    assert_eq!(spec, before);
    assert_eq!(changed(&["--max", "7"], &mut spec), [PoolField::MaxSize]);
    assert_eq!(spec, PoolSpec { max_size: 7, ..before.clone() });
    // Limits are changed together, so those that are not named go along.
    assert_eq!(changed(&["--memory", "32M"], &mut spec), [PoolField::Limits]);
    assert_eq!((spec.limits.memory_bytes, spec.limits.pids), (Some(32 << 20), Some(9)));
    assert_eq!(changed(&["--max-idle-memory", "1G"], &mut spec), [PoolField::MaxIdleMemory]);
    assert_eq!(spec.max_idle_memory_bytes, Some(1 << 30));
    assert_eq!(changed(&["--no-max-idle-memory"], &mut spec), [PoolField::MaxIdleMemory]);
    assert_eq!(spec.max_idle_memory_bytes, None);
    assert_eq!(changed(&["--named-only"], &mut spec), [PoolField::NamedOnly]);
    assert!(spec.named_only);
    assert_eq!(changed(&["--named-only=false"], &mut spec), [PoolField::NamedOnly]);
    assert!(!spec.named_only);
    spec.draining = true;
    let fields = changed(&["--no-pin", "--no-schedules", "--no-warm-process", "--resume"], &mut spec);
    assert_eq!(
        fields,
        [PoolField::PinnedSize, PoolField::Schedules, PoolField::WarmProcess, PoolField::Draining]
    );
    assert!(spec.pinned_size.is_none() && spec.warm_process.is_none() && !spec.draining);
    assert_eq!(changed(&["--", "sh"], &mut spec), [PoolField::WarmProcess]);
}

#[test]
fn nonsense_is_refused_before_anything_is_sent() {
    for words in [
        &["create"][..],
        &["create", ""],
        &["create", "web", "sh"],
        &["create", "web", "--wait-timeout", "3s"],
        &["create", "web", "--schedule", "sometimes"],
        &["create", "web", "--target-hit-rate", "lots"],
        &["create", "web", "--target-hit-rate", "101%"],
        &["create", "web", "--refill-concurrency", "0"],
        &["set", "web", "--pin", "1", "--no-pin"],
        &["set", "web", "--no-warm-process", "--", "sh"],
        &["set", "web", "--backend", "jail"],
        &["plan", "web", "--sizes", "1,x"],
        &["rm"],
    ] {
        assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words:?}");
    }
    let Ok(PoolCommand::Plan(plan)) = parse(&["plan", "web", "--sizes", "0,2,8", "--window", "24h"]) else {
        panic!("not plan")
    };
    assert_eq!((plan.sizes, plan.window), (vec![0, 2, 8], Some(Duration::from_secs(86_400))));
}
