//! What the session server costs: beside the agent's own command line, which asks the same model.

mod bare;
mod fan;
mod first;
mod idle;
mod journal;
mod model;
mod stage;
mod stream;

use crate::options::Scale;
use crate::report::Section;
use anyhow::Result;
use model::Model;
use stage::Stage;
use std::path::Path;
use std::time::Duration;

pub(super) const NAME: &str = "sessions";
/// How long anything here may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Fewer samples than this are asked for when nothing but a look is wanted.
const A_LOOK: usize = 20;

/// Measures all of it with daemons and session servers of its own: with agents that are kept warm, and without.
pub(super) async fn sections(binaries: &Path, scale: &Scale) -> Result<Vec<Section>> {
    // Somebody may have installed one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let model = Model::start()?;
    let mut cold = Stage::start(binaries, model.address()).await?;
    let mut warm = Stage::start(binaries, model.address()).await?;
    let mut sections = Vec::new();

    let mut section = first::heading();
    let measured = first::measure(&mut cold, &mut warm, &model, scale, &mut section).await;
    keep(&mut sections, section, measured);
    warm.end().await?;

    let mut section = stream::heading();
    let measured = stream::measure(&cold, &model, scale, &mut section).await;
    keep(&mut sections, section, measured);

    let mut section = fan::heading();
    let measured = fan::measure(&cold, &model, scale, &mut section).await;
    keep(&mut sections, section, measured);

    let mut section = idle::heading();
    let measured = idle::measure(&mut cold, &model, scale, &mut section).await;
    keep(&mut sections, section, measured);
    cold.end().await?;

    let mut section = journal::heading();
    let measured = journal::measure(scale, &mut section).await;
    keep(&mut sections, section, measured);
    Ok(sections)
}

/// Puts a section to the others, with why it failed where it did.
fn keep(sections: &mut Vec<Section>, mut section: Section, measured: Result<()>) {
    match &measured {
        Ok(()) => eprintln!("  {}: done", section.name),
        Err(error) => eprintln!("  {}: {error:#}", section.name),
    }
    section.failures.extend(measured.err().map(|error| format!("{error:#}")));
    sections.push(section);
}
