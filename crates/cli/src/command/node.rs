//! `hostel node`, `doctor` and `version`.

use super::{Context, Outcome, SUCCESS};
use crate::output::{self, human, table};
use hostel_client::model::{BackendHealth, BackendInfo, DoctorCheck, DoctorStatus, Node};
use serde_json::json;

/// The doctor found something that does not work.
const UNWELL: u8 = 1;

pub(crate) async fn info(context: &Context) -> Outcome {
    let node = context.connect().await?.node_info().await?;
    if context.json {
        output::json(&node)?
    } else {
        output::line(&describe(&node))?
    }
    Ok(SUCCESS)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an uptime in whole seconds")]
fn describe(node: &Node) -> String {
    let capacity = &node.capacity;
    let taken = |taken: u64, all: u64| human::usage(Some(taken), Some(all), |bytes| human::size(Some(bytes)));
    let backends: Vec<_> = node.backends.iter().map(backend).collect();
    let isolation: Vec<_> = node
        .isolation
        .iter()
        .map(|fact| {
            let sign = if fact.available { "yes" } else { "NO " };
            let fix = if fact.fix.is_empty() { String::new() } else { format!(" — {}", fact.fix) };
            format!("{sign} {}: {}{fix}", fact.feature, fact.detail)
        })
        .collect();
    let cpu = |millis: u64| human::cores(millis);
    table::facts(&[
        ("node", node.name.clone()),
        ("version", node.version.clone()),
        ("up", human::span(node.uptime_seconds as u64)),
        ("state", if node.draining { "draining".to_owned() } else { "active".to_owned() }),
        ("kernel", format!("{} {}", node.kernel_version, node.architecture)),
        ("sandboxes", format!("{} / {}", capacity.sandboxes_taken, capacity.sandboxes)),
        ("cpu", format!("{} / {} cores", cpu(capacity.cpu_millis_taken), cpu(capacity.cpu_millis.into()))),
        ("memory", taken(capacity.memory_bytes_taken, capacity.memory_bytes)),
        ("disk", taken(capacity.disk_bytes_taken, capacity.disk_bytes)),
        ("backends", backends.join("\n")),
        ("isolation", isolation.join("\n")),
    ])
}

/// What it can do, unless it can do nothing now.
fn backend(backend: &BackendInfo) -> String {
    let health = format!("{:?}", backend.health).to_lowercase();
    let default = if backend.is_default { ", default" } else { "" };
    let detail = if backend.detail.is_empty() { String::new() } else { format!(": {}", backend.detail) };
    let mut text = format!("{} ({health}{default}){detail}", backend.name);
    if backend.health != BackendHealth::Unavailable {
        text.push_str(&format!("\n  can {}", backend.capabilities.join(", ")));
        for weak in &backend.missing {
            text.push_str(&format!("\n  no {}: {}", weak.capability, weak.detail));
        }
    }
    text
}

pub(crate) async fn drain(context: &Context, resume: bool) -> Outcome {
    let left = context.connect().await?.drain_node(resume).await?;
    if context.json {
        output::json(&json!({ "draining": !resume, "sandbox_count": left }))?;
    } else if resume {
        output::note("the node takes sandboxes again");
    } else {
        output::note(&format!("the node takes no new sandboxes; {left} go on"));
    }
    Ok(SUCCESS)
}

pub(crate) async fn doctor(context: &Context) -> Outcome {
    let checks = context.connect().await?.doctor().await?;
    if context.json {
        output::json(&json!({ "checks": checks }))?;
    } else {
        output::line(&checks.iter().map(finding).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(if checks.iter().any(|check| check.status == DoctorStatus::Fail) { UNWELL } else { SUCCESS })
}

fn finding(check: &DoctorCheck) -> String {
    let status = match check.status {
        DoctorStatus::Ok => "ok  ",
        DoctorStatus::Warn => "WARN",
        DoctorStatus::Fail => "FAIL",
    };
    let fix = if check.fix.is_empty() { String::new() } else { format!("\n      mend it: {}", check.fix) };
    human::printable(&format!("{status}  {}: {}{fix}", check.name, check.detail))
}

pub(crate) async fn version(context: &Context) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    // A version is told with and without a daemon.
    let daemon = match context.connect().await {
        Ok(client) => client.node_info().await.ok().map(|node| node.version),
        Err(_) => None,
    };
    if context.json {
        output::json(&json!({ "version": version, "daemon_version": daemon }))?;
    } else {
        output::line(&format!("hostel {version}"))?;
        output::line(&format!("hosteld {}", daemon.as_deref().unwrap_or("does not answer")))?;
    }
    Ok(SUCCESS)
}
