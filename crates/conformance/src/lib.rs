//! The contract of [`hostel_sandbox::ExecutionEnvironment`] as tests that every backend runs.
//!
//! A [`Case`] is an async function over a [`Harness`]; [`cases()`] lists them all. A backend gives a
//! [`Factory`] and lists every case in a test target of its own, each as one test of `cargo test` and nextest:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! ```ignore
//! // tests/conformance.rs
//! fn main() -> std::process::ExitCode {
//!     hostel_conformance::main(async || Ok(std::sync::Arc::new(JailFactory::start().await?) as _))
//! }
//! ```
//!
//! with [`Factory::probe`] answering `hostel_guest_binary::PROBE`. A case that needs a capability which the
//! backend does not claim is listed as ignored and the backend's reason is printed; run it with `--ignored`
//! and the reason is its result. What a backend claims is tested: a test of this crate asserts that every
//! capability is needed by at least one case.
//!
//! Each case makes sandboxes through the [`Harness`], which removes them afterwards, whether the case passed
//! or not, and then asks the factory what is left of them on the host: anything is a failure of that case.
//! Cases wait for events, never for time; every wait ends after [`patience()`].
//!
//! The abuse probes of `hostel-probe` run as cases `abuse::…`; [`abuse::run`] is there for other tests.
#![forbid(unsafe_code)]

pub mod abuse;
mod archive;
mod case;
mod cases;
mod factory;
mod failure;
mod harness;
mod patience;
mod pattern;
mod runner;
mod session;

pub use case::Case;
pub use cases::cases;
pub use factory::Factory;
pub use failure::{Failure, Outcome};
pub use harness::{Harness, Sandbox};
pub use patience::patience;
pub use runner::{main, main_of};
pub use session::{Finished, Reader, Session, Stdin};

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_sandbox::Capability;
    use std::collections::BTreeSet;

    #[test]
    fn what_can_be_claimed_is_tested() {
        let needed: BTreeSet<Capability> = cases().flat_map(|case| case.needs.iter().copied()).collect();
        let untested: Vec<_> =
            Capability::ALL.iter().filter(|capability| !needed.contains(capability)).collect();
        assert!(untested.is_empty(), "no case needs {untested:?}");
    }

    #[test]
    fn names_are_unique_and_cases_many() {
        let names: BTreeSet<&str> = cases().map(|case| case.name).collect();
        assert_eq!(names.len(), cases().count());
        assert!(names.len() >= 60, "{}", names.len());
    }
}
