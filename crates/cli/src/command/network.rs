//! `hostel sandbox network` and `hostel audit`.

use super::{Context, Outcome, SUCCESS};
use crate::args::NetworkArgs;
use crate::output::{self, human};
use hostel_client::model::{NetworkDecision, NetworkEvent};
use serde_json::json;

/// The log was changed.
const BROKEN: u8 = 1;

pub(crate) async fn network(context: &Context, args: NetworkArgs) -> Outcome {
    let client = context.connect().await?;
    if !args.watch {
        let network = client.get_network(&args.id).await?;
        if context.json {
            output::json(&network)?;
            return Ok(SUCCESS);
        }
        for decision in &network.decisions {
            output::line(&told(decision))?;
        }
        output::note(&format!("{} connections open", network.open_connections));
        return Ok(SUCCESS);
    }
    let mut watch = client.watch_network(&args.id).await?;
    while let Some(event) = watch.next().await? {
        match event {
            NetworkEvent::Decision(decision) if context.json => output::json(&decision)?,
            NetworkEvent::Decision(decision) => output::line(&told(&decision))?,
            NetworkEvent::Missed(count) if context.json => output::json(&json!({ "missed": count }))?,
            NetworkEvent::Missed(count) => output::note(&format!("{count} decisions were missed")),
        }
    }
    Ok(SUCCESS)
}

fn told(decision: &NetworkDecision) -> String {
    let time = decision.time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"));
    let verdict = if decision.allowed { "allowed" } else { "DENIED " };
    let mut target = if decision.host.is_empty() { decision.address.clone() } else { decision.host.clone() };
    if decision.port != 0 {
        target = format!("{target}:{}", decision.port);
    }
    if !decision.host.is_empty() && !decision.address.is_empty() {
        target = format!("{target} ({})", decision.address);
    }
    let request = if decision.secret.is_empty() {
        [decision.method.as_str(), decision.path.as_str()].join(" ")
    } else {
        format!("secret {}", decision.secret)
    };
    let why = if decision.rule.is_empty() { &decision.reason } else { &decision.rule };
    let line = format!(
        "{time}  {verdict}  {:7}  {:4}  {target}{}{}  {why}",
        decision.action.name(),
        decision.protocol,
        if request.trim().is_empty() { "" } else { "  " },
        request.trim(),
    );
    human::printable(&line)
}

pub(crate) async fn verify_audit(context: &Context) -> Outcome {
    let audit = context.connect().await?.verify_audit().await?;
    if context.json {
        output::json(&audit)?;
    } else if let Some(broken) = &audit.broken {
        output::line(&format!(
            "broken at {}: {} ({} records before it are whole)",
            broken.at, broken.problem, audit.records
        ))?;
    } else {
        output::line(&format!("{} records, the chain is whole", audit.records))?;
        if audit.records > 0 {
            output::note(&format!(
                "{} to {}, the last has the hash {}",
                audit.first, audit.last, audit.last_hash
            ));
        }
    }
    Ok(if audit.broken.is_some() { BROKEN } else { SUCCESS })
}
