//! The contract again on an engine that is reached by TCP, and so taken for one that shares no files with us: the one
//! that `DOCKER_HOST` names, behind a proxy of ours.
//!
//! What goes another way there is tested: files, archives, streams, and what happens to connections. All the cases are
//! with `HOSTEL_TEST_REMOTE=all`.

#[path = "engine/factory.rs"]
mod factory;
#[path = "engine/proxy.rs"]
mod proxy;

use factory::DockerFactory;
use hostel_conformance::Case;
use std::process::ExitCode;
use std::sync::Arc;

/// Groups whose cases depend on how a guest is reached.
const GROUPS: [&str; 8] =
    ["attach", "files", "import_export", "output", "pause", "restart", "signals", "watch"];

fn is_wanted(case: &Case) -> bool {
    std::env::var("HOSTEL_TEST_REMOTE").is_ok_and(|which| which == "all")
        || case.name.split_once("::").is_some_and(|(group, _)| GROUPS.contains(&group))
}

fn main() -> ExitCode {
    let Ok(host) = std::env::var("DOCKER_HOST") else {
        eprintln!(
            "SKIPPED: no case of the Docker backend on a far engine was run, for DOCKER_HOST names none;"
        );
        eprintln!("         scripts/with-docker.sh cargo test … starts one where the kernel allows it");
        return ExitCode::SUCCESS;
    };
    let start = async move || {
        let host = proxy::open(host).await?;
        Ok(Arc::new(DockerFactory::start(host).await?) as _)
    };
    hostel_conformance::main_of(start, is_wanted)
}
