//! The `main` of a backend's test target: every case as a test of its own.

use crate::{Case, Factory, Failure, Harness, Outcome, cases, patience};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;

/// Set by cargo-nextest, which has each case in a process of its own, and tries again itself.
const NEXTEST: &str = "NEXTEST";

/// Runs or lists the cases as the arguments of the process say, which are those of the built-in test harness.
pub fn main<F, C>(connect: C) -> ExitCode
where
    F: Future<Output = Result<Arc<dyn Factory>, Box<dyn Error + Send + Sync>>>,
    C: FnOnce() -> F,
{
    main_of(connect, |_| true)
}

/// The same with some cases only: those that `wanted` says yes to.
pub fn main_of<F, C>(connect: C, wanted: fn(&Case) -> bool) -> ExitCode
where
    F: Future<Output = Result<Arc<dyn Factory>, Box<dyn Error + Send + Sync>>>,
    C: FnOnce() -> F,
{
    let arguments = Arguments::from_args();
    let runtime = match Builder::new_multi_thread().worker_threads(4).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let factory = match runtime.block_on(connect()) {
        Ok(factory) => factory,
        Err(error) => {
            eprintln!("the backend does not start, so nothing of it is tested: {error}");
            return ExitCode::FAILURE;
        }
    };
    let trials = cases()
        .filter(|case| wanted(case))
        .map(|case| trial(*case, &factory, runtime.handle()))
        .collect::<Vec<_>>();
    if !arguments.list {
        explain_ignored(&arguments, &trials, factory.as_ref());
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    runtime.block_on(factory.close());
    runtime.shutdown_timeout(Duration::from_secs(5));
    conclusion.exit_code()
}

fn trial(case: Case, factory: &Arc<dyn Factory>, handle: &Handle) -> Trial {
    let missing = case.missing(&factory.backend().capabilities());
    let ignored = missing.is_some();
    let (factory, handle) = (Arc::clone(factory), handle.clone());
    let test = move || {
        if let Some(reason) = missing {
            return Ok(Completion::ignored_with(reason));
        }
        handle.block_on(patiently(case, factory)).map_err(|failure| Failed::from(failure.to_string()))?;
        Ok(Completion::Completed)
    };
    Trial::ignorable_test(case.name, test).with_ignored_flag(ignored)
}

fn explain_ignored(arguments: &Arguments, trials: &[Trial], factory: &dyn Factory) {
    let ignored =
        trials.iter().filter(|trial| arguments.is_ignored(trial) && !arguments.is_filtered_out(trial));
    for trial in ignored {
        let reason = cases()
            .find(|case| case.name == trial.name())
            .and_then(|case| case.missing(&factory.backend().capabilities()));
        eprintln!("ignored {}: {}", trial.name(), reason.unwrap_or_default());
    }
}

/// Runs a case, and once more where it failed, as a busy machine may have it; that is said, never silent.
async fn patiently(case: Case, factory: Arc<dyn Factory>) -> Outcome {
    let first = run(case, Arc::clone(&factory)).await;
    match first {
        Err(failure) if std::env::var_os(NEXTEST).is_none() => {
            eprintln!("FLAKY unless it fails again: {}: {failure}", case.name);
            run(case, factory).await
        }
        first => first,
    }
}

/// Runs a case and cleans up after it, however it ended.
async fn run(case: Case, factory: Arc<dyn Factory>) -> Outcome {
    let deadline = patience::of_a_case()?;
    let harness = Harness::new(factory);
    let mut tasks = JoinSet::new();
    tasks.spawn((case.run)(Arc::clone(&harness)));
    let ended = tokio::time::timeout(deadline, tasks.join_next()).await;
    tasks.shutdown().await;
    let outcome = match ended {
        Ok(Some(Ok(outcome))) => outcome,
        Ok(Some(Err(error))) => Err(Failure::new(error.to_string())),
        Ok(None) => Err(Failure::new("the case did not run")),
        Err(_) => Err(Failure::new(format!("the case took more than {} s", deadline.as_secs()))),
    };
    let cleaned = harness.clean_up().await.map_err(|failure| failure.while_("cleaning up"));
    match (outcome, cleaned) {
        (Err(failure), Err(dirt)) => Err(failure.while_(format!("[and {dirt}]"))),
        (outcome, cleaned) => outcome.and(cleaned),
    }
}
