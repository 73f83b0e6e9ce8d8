//! Decisions about the network, and the audit log.

use super::{required, time, unknown};
use crate::error::Result;
use crate::model::{Audit, BrokenAudit, Network, NetworkAction, NetworkDecision, NetworkEvent};
use hostel_proto::v1;

pub(crate) fn network_state(wire: v1::GetNetworkResponse) -> Result<Network> {
    let decisions = wire.decisions.into_iter().map(decision).collect::<Result<_>>()?;
    Ok(Network { decisions, open_connections: wire.open_connections })
}

pub(crate) fn network_event(wire: v1::WatchNetworkResponse) -> Result<NetworkEvent> {
    use v1::watch_network_response::Event;
    Ok(match required(wire.event, "an event of the network")? {
        Event::Decision(wire) => NetworkEvent::Decision(Box::new(decision(wire)?)),
        Event::Missed(count) => NetworkEvent::Missed(count),
    })
}

pub(crate) fn audit(wire: v1::VerifyAuditResponse) -> Audit {
    let broken =
        (!wire.broken_at.is_empty()).then_some(BrokenAudit { at: wire.broken_at, problem: wire.problem });
    let (records, first, last) = (wire.records, wire.first, wire.last);
    Audit { records, first, last, last_hash: wire.last_hash, broken }
}

fn decision(wire: v1::NetworkDecision) -> Result<NetworkDecision> {
    use v1::NetworkAction as Wire;
    let action = match wire.action() {
        Wire::Lookup => NetworkAction::Lookup,
        Wire::Connect => NetworkAction::Connect,
        Wire::Request => NetworkAction::Request,
        Wire::Secret => NetworkAction::Secret,
        Wire::Unspecified => return Err(unknown("kind of decision", wire.action)),
    };
    Ok(NetworkDecision {
        time: time(wire.time),
        action,
        allowed: wire.allowed,
        host: wire.host,
        address: wire.address,
        port: wire.port,
        protocol: wire.protocol,
        method: wire.method,
        path: wire.path,
        rule: wire.rule,
        reason: wire.reason,
        secret: wire.secret,
    })
}
