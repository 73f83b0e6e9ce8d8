//! Templates, what they are asked to be, and how their builds go.

use super::network::{network, network_to_wire};
use super::sandbox::{limits, limits_to_wire};
use super::{duration_to_wire, optional, output_stream, process_spec, required, time};
use crate::error::Result;
use crate::model::{Template, TemplateOrigin};
use crate::template::BuildEvent;
use hostel_proto::v1;
use hostel_sandbox::TemplateId;
use hostel_sandbox::template::{Probe, Template as Wanted, TemplateCommand};
use std::time::Duration;

pub(crate) fn template(wire: v1::Template) -> Result<Template> {
    use v1::TemplateOrigin as Wire;
    let origin = match wire.origin() {
        Wire::Host => Some(TemplateOrigin::Host),
        Wire::Import => Some(TemplateOrigin::Import),
        Wire::Snapshot => Some(TemplateOrigin::Snapshot),
        Wire::Build => Some(TemplateOrigin::Build),
        Wire::Declared => Some(TemplateOrigin::Declared),
        Wire::Unspecified => None,
    };
    let defaults = wire.defaults.unwrap_or_default();
    Ok(Template {
        name: TemplateId::parse(wire.name)?,
        labels: wire.labels.into_iter().collect(),
        origin,
        base_template: optional(wire.base_template),
        source_sandbox_id: optional(wire.source_sandbox_id),
        image: optional(wire.image),
        declared_in: optional(wire.declared_in),
        backends: wire.backends,
        size_bytes: wire.size_bytes,
        limits: limits(defaults.limits.unwrap_or_default()),
        max_limits: limits(defaults.max_limits.unwrap_or_default()),
        env: defaults.env.into_iter().collect(),
        user: optional(defaults.user),
        working_directory: optional(defaults.working_directory),
        network: defaults.network_policy.map(|policy| network(Some(policy))).transpose()?,
        start_commands: defaults.start_commands.into_iter().map(command).collect(),
        readiness_probe: defaults.readiness_probe.map(|probe| Probe {
            command: command(probe.command.unwrap_or_default()),
            interval: probe.interval.map_or(Probe::INTERVAL, span),
            timeout: probe.timeout.map_or(Probe::TIMEOUT, span),
        }),
        create_time: time(wire.create_time),
        sandbox_count: wire.sandbox_count,
    })
}

fn command(wire: v1::ProcessSpec) -> TemplateCommand {
    TemplateCommand {
        argv: wire.command,
        env: wire.env.into_iter().collect(),
        cwd: optional(wire.working_directory),
        user: optional(wire.user),
        timeout: wire.timeout.map(span),
    }
}

/// What the wire can say and we cannot is cut.
fn span(duration: prost_types::Duration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

pub(crate) fn template_defaults(wanted: &Wanted) -> v1::TemplateDefaults {
    let to_wire = |command: &TemplateCommand| v1::ProcessSpec {
        timeout: command.timeout.map(duration_to_wire),
        ..process_spec(&command.process())
    };
    v1::TemplateDefaults {
        limits: Some(limits_to_wire(&wanted.limits)),
        max_limits: Some(limits_to_wire(&wanted.max_limits)),
        env: wanted.env.clone().into_iter().collect(),
        user: wanted.user.clone().unwrap_or_default(),
        working_directory: wanted.workdir.clone().unwrap_or_default(),
        network_policy: wanted.network.as_ref().map(network_to_wire),
        start_commands: wanted.start_commands.iter().map(to_wire).collect(),
        readiness_probe: wanted.probe.as_ref().map(|probe| v1::ReadinessProbe {
            command: Some(to_wire(&probe.command)),
            interval: Some(duration_to_wire(probe.interval)),
            timeout: Some(duration_to_wire(probe.timeout)),
        }),
    }
}

pub(crate) fn build_event(wire: v1::BuildTemplateResponse) -> Result<BuildEvent> {
    use v1::build_template_response::Event;
    Ok(match required(wire.event, "what happened in a build")? {
        Event::StepStarted(step) => BuildEvent::StepStarted { index: step.index, command: step.command },
        Event::Output(output) => BuildEvent::Output {
            index: output.step_index,
            stream: output_stream(output.stream)?,
            data: output.data,
        },
        Event::StepFinished(step) => BuildEvent::StepFinished {
            index: step.index,
            command: step.command,
            duration: step.duration.map(span).unwrap_or_default(),
        },
        Event::Template(wire) => BuildEvent::Done(Box::new(template(wire)?)),
    })
}
