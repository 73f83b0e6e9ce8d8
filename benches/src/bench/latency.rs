//! Creation, one-shots and executions: all their cases in turns, in one run.

use super::{Bench, create, exec, fill, one_shot};
use crate::measure::{Case, Measured, interleave};
use crate::peers;
use crate::report::Section;
use crate::stages::StagedClient;
use anyhow::{Context as _, Result};

/// Measures whichever of the three are wanted.
pub(super) async fn sections(bench: &Bench<'_>) -> Result<Vec<Section>> {
    let mut sections = vec![create::heading(), one_shot::heading(), exec::heading()];
    sections.retain(|section| bench.wants(&section.name));
    if sections.is_empty() {
        return Ok(sections);
    }
    eprintln!("measuring create, one_shot, exec …");
    let staged = StagedClient::connect(bench.daemon.socket()).await?;
    let stages = create::Stages::default();
    let home = bench.sandbox(peers::roomy()).await?;
    let container = bench.peers.runc.as_ref().map(peers::Runc::start);
    let container = container.transpose().unwrap_or_else(|error| {
        eprintln!("hostel-bench: runc exec is left out: {error:#}");
        None
    });
    let address = bench.daemon.address().to_string();

    let mut cases: Vec<Case<'_>> = create::cases(&staged, &stages);
    cases.extend(one_shot::cases(bench, &address));
    cases.extend(exec::cases(bench, &home, container.as_ref()));
    cases.retain(|case| bench.wants(case.section));
    let measured = interleave(cases, bench.scale.warm_up, bench.scale.samples, bench.scale.pause).await?;

    let mut measured: Vec<Option<Measured>> = measured.into_iter().map(Some).collect();
    for section in &mut sections {
        let own =
            measured.iter_mut().filter(|one| one.as_ref().is_some_and(|one| one.section == section.name));
        fill(section, own.filter_map(Option::take).collect());
        match section.name.as_str() {
            "create" => create::finish(section, &stages)?,
            "one_shot" => one_shot::finish(section),
            _ => exec::finish(section),
        }
    }
    bench.client.delete_sandbox(&home).await.context("delete a sandbox")?;
    Ok(sections)
}
