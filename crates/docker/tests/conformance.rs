//! The contract of `ExecutionEnvironment`, on containers of the engine that `DOCKER_HOST` names.
//!
//! `scripts/with-docker.sh` sets it, with an engine of its own where none runs. Without an engine nothing is tested,
//! and it is said.

#[path = "engine/factory.rs"]
mod factory;

use factory::DockerFactory;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let Ok(host) = std::env::var("DOCKER_HOST") else {
        eprintln!("SKIPPED: no case of the Docker backend was run, for DOCKER_HOST names no engine;");
        eprintln!("         scripts/with-docker.sh cargo test … starts one where the kernel allows it");
        return ExitCode::SUCCESS;
    };
    hostel_conformance::main(async || Ok(Arc::new(DockerFactory::start(host).await?) as _))
}
