//! Decisions about the network, out of the domain.

use super::timestamp;
use hostel_egress::{Decision, Kind};
use hostel_proto::v1;

pub(crate) fn api_decision(decision: &Decision) -> v1::NetworkDecision {
    let action = match decision.kind {
        Kind::Lookup => v1::NetworkAction::Lookup,
        Kind::Connect => v1::NetworkAction::Connect,
        Kind::Request => v1::NetworkAction::Request,
        Kind::Secret => v1::NetworkAction::Secret,
    };
    v1::NetworkDecision {
        time: Some(timestamp(decision.time.into())),
        action: action.into(),
        allowed: decision.allowed,
        host: decision.host.clone().unwrap_or_default(),
        address: decision.address.map(|address| address.to_string()).unwrap_or_default(),
        port: decision.port.map(u32::from).unwrap_or_default(),
        protocol: decision.protocol.as_str().to_owned(),
        method: decision.method.clone().unwrap_or_default(),
        path: decision.path.clone().unwrap_or_default(),
        rule: decision.rule.clone().unwrap_or_default(),
        reason: decision.reason.clone(),
    }
}
