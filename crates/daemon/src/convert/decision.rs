//! Decisions about the network, out of the domain.

use super::timestamp;
use crate::error::Result;
use hostel_egress::audit::Verified;
use hostel_egress::{Decision, Kind};
use hostel_proto::v1;
use hostel_sandbox::Error as DomainError;

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
        reason: decision.reason.as_str().to_owned(),
        secret: decision.secret.clone().unwrap_or_default(),
    }
}

pub(crate) fn api_audit(checked: hostel_egress::Result<Verified>) -> Result<v1::VerifyAuditResponse> {
    match checked {
        Ok(verified) => Ok(v1::VerifyAuditResponse {
            records: verified.records,
            first: verified.first,
            last: verified.last,
            last_hash: verified.last_hash,
            ..Default::default()
        }),
        Err(hostel_egress::Error::AuditBroken { path, line, problem, before }) => {
            Ok(v1::VerifyAuditResponse {
                records: before,
                broken_at: format!("{} line {line}", path.display()),
                problem,
                ..Default::default()
            })
        }
        Err(error) => Err(DomainError::internal("verify the audit log", error).into()),
    }
}
