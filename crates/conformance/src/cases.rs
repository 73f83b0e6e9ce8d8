//! Every case, by subject.

mod attach;
mod bind;
mod escapes;
mod files;
mod hostile_files;
mod import_export;
mod input;
mod isolation;
mod lifecycle;
mod limits;
mod listeners;
mod more_limits;
mod network;
mod output;
mod pause;
mod process;
mod process_start;
mod restart;
mod signals;
mod snapshot;
mod templates;
mod terminal;
mod watch;

use crate::Case;

/// Every case, in the order of the documentation.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        lifecycle::CASES,
        process_start::CASES,
        process::CASES,
        signals::CASES,
        input::CASES,
        output::CASES,
        attach::CASES,
        terminal::CASES,
        limits::CASES,
        more_limits::CASES,
        files::CASES,
        hostile_files::CASES,
        import_export::CASES,
        watch::CASES,
        listeners::CASES,
        network::CASES,
        pause::CASES,
        bind::CASES,
        snapshot::CASES,
        templates::CASES,
        restart::CASES,
        isolation::CASES,
        escapes::CASES,
    ]
    .into_iter()
    .flatten()
}
