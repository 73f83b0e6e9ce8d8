//! The answer to one question.

use crate::decision::{Kind, Protocol, Reason, Refused};
use crate::enforcer::{About, Enforcer};
use crate::resolve::NoAddress;
use crate::rules::Verdict;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use hostel_sandbox::network::{NetworkMode, normal_name};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may be used, at least and at most, in seconds.
const LIFETIME: std::ops::RangeInclusive<u64> = 5..=300;
/// The largest answer over UDP to a program that does not say what it takes (RFC 1035 §4.2.1).
const SMALLEST_UDP: u16 = 512;
/// The largest answer over UDP that is not in danger of being cut on the way.
const LARGEST_UDP: u16 = 1232;
/// With mode `open`, longest name in bytes.
const MAX_OPEN_NAME: usize = 160;
/// With mode `open`, longest label that may be full of digits, as coded data is.
const MAX_CODED_LABEL: usize = 32;
/// How many digits are many.
const MANY_DIGITS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What a question leads to.
enum Found {
    Addresses(Vec<IpAddr>, Duration),
    Code(ResponseCode),
}

/// Answers a question. `None` where it is not one.
pub(crate) async fn answer(enforcer: &Arc<Enforcer>, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let Ok(question) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes(*bytes.first_chunk::<2>()?);
        let is_response = *bytes.get(2)? & 0x80 != 0;
        let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
        return if is_response { None } else { error.to_vec().ok() };
    };
    if question.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = Message::response(question.metadata.id, question.metadata.op_code);
    response.metadata.recursion_desired = question.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    if let Some(edns) = &question.edns {
        let mut own = Edns::new();
        own.set_max_payload(LARGEST_UDP);
        response.set_edns(own);
        if edns.version() != 0 {
            response.metadata.response_code = ResponseCode::BADVERS;
            return response.to_vec().ok();
        }
    }
    match question.queries.as_slice() {
        [query] if question.metadata.op_code == OpCode::Query && query.query_class() == DNSClass::IN => {
            response.add_query(query.clone());
            fill(&mut response, query, look_up(enforcer, query).await);
        }
        [_] => response.metadata.response_code = ResponseCode::NotImp,
        _ => response.metadata.response_code = ResponseCode::FormErr,
    }
    let encoded = response.to_vec().ok()?;
    let room = question.edns.map_or(SMALLEST_UDP, |edns| edns.max_payload().clamp(SMALLEST_UDP, LARGEST_UDP));
    if transport == Transport::Udp && encoded.len() > usize::from(room) {
        let mut cut = response.truncate();
        cut.answers.clear();
        return cut.to_vec().ok();
    }
    Some(encoded)
}

fn fill(response: &mut Message, query: &Query, found: Found) {
    let (addresses, lifetime) = match found {
        Found::Code(code) => {
            response.metadata.response_code = code;
            return;
        }
        Found::Addresses(addresses, lifetime) => (addresses, lifetime),
    };
    let seconds = lifetime.as_secs().clamp(*LIFETIME.start(), *LIFETIME.end());
    let seconds = u32::try_from(seconds).unwrap_or(5);
    for address in addresses {
        let data = match (address, query.query_type()) {
            (IpAddr::V4(address), RecordType::A) => RData::A(A(address)),
            (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(AAAA(address)),
            _ => continue,
        };
        response.add_answer(Record::from_rdata(query.name().clone(), seconds, data));
    }
}

async fn look_up(enforcer: &Arc<Enforcer>, query: &Query) -> Found {
    let Ok(name) = normal_name(&query.name().to_ascii()) else {
        return Found::Code(ResponseCode::NXDomain);
    };
    match decide(enforcer, &name, query.query_type()).await {
        Ok((addresses, lifetime)) => {
            for address in &addresses {
                enforcer.pin(&name, *address);
            }
            Found::Addresses(addresses, lifetime)
        }
        Err((found, refused)) => {
            let about = About { host: Some(name), ..About::default() };
            enforcer.refuse(Kind::Lookup, Protocol::Dns, about, &refused).await;
            found
        }
    }
}

/// The addresses that a question is answered with, and for how long.
async fn decide(
    enforcer: &Enforcer,
    name: &str,
    kind: RecordType,
) -> Result<(Vec<IpAddr>, Duration), (Found, Refused)> {
    let no = |code| move |refused| (Found::Code(code), refused);
    let verdict = enforcer.rules().lookup(name).or_refuse(name).map_err(no(ResponseCode::NXDomain))?;
    enforcer.look_up(name, verdict).await.map_err(|refused| {
        let failed = refused.reason == Reason::AuditFailed;
        no(if failed { ResponseCode::ServFail } else { ResponseCode::Refused })(refused)
    })?;
    if !matches!(kind, RecordType::A | RecordType::AAAA) {
        // Other records could carry data in, or tell of keys for encrypted names (SVCB, RFC 9460).
        return Ok((Vec::new(), Duration::ZERO));
    }
    let found = match enforcer.shared.asker.addresses(name).await {
        Ok(found) => found,
        Err(why) => {
            let code =
                if why == NoAddress::NotThere { ResponseCode::NXDomain } else { ResponseCode::ServFail };
            return Err(no(code)(Refused::new(Reason::ResolveFailed, format!("{name} {why}"))));
        }
    };
    // The policy may have changed while the name was resolved. What holds now decides.
    enforcer.rules().lookup(name).or_refuse(name).map_err(no(ResponseCode::NXDomain))?;
    let mut addresses = enforcer.checked(name, &found.list, None).map_err(no(ResponseCode::NXDomain))?;
    addresses.retain(|address| address.is_ipv4() == (kind == RecordType::A));
    Ok((addresses, found.lifetime))
}

impl Enforcer {
    /// Lets a name be asked for: counts the question, and records it before anybody hears it.
    pub(crate) async fn look_up(&self, name: &str, verdict: Verdict) -> Result<(), Refused> {
        if self.rules().mode() == NetworkMode::Open && carries_data(name) {
            let message = format!("{name:.80} looks like data in the form of a name");
            return Err(Refused::new(Reason::Limit, message));
        }
        if !self.may_ask(name) {
            let message = "too many questions, or for too many names, in a minute";
            return Err(Refused::new(Reason::Limit, message));
        }
        let about = About { host: Some(name.to_owned()), ..About::default() };
        self.allow(Kind::Lookup, Protocol::Dns, about, verdict).await?;
        self.asked().record(name);
        Ok(())
    }
}

/// Whether a name is of the kind that tunnels make: very long, or with long labels of coded bytes.
fn carries_data(name: &str) -> bool {
    name.len() > MAX_OPEN_NAME
        || name.split('.').any(|label| {
            let digits = label.bytes().filter(u8::is_ascii_digit).count();
            label.len() > MAX_CODED_LABEL && digits >= MANY_DIGITS
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_carry_data_are_known() {
        assert!(carries_data("6d7920736563726574206b65792069732068657265.t.example.com"));
        assert!(carries_data(&format!("{}.example.com", "abcdefghij.".repeat(15))));
        for name in
            ["d111111abcdef8.cloudfront.net", "my-very-long-service-name-in-production-europe.example.com"]
        {
            assert!(!carries_data(name), "{name}");
        }
    }
}
