//! What becomes of a connection, once it is known how it begins.

use crate::connections::Basis;
use crate::decision::{Protocol, Reason, Refused};
use crate::destination::Destination;
use crate::dial::Route;
use crate::enforcer::Enforcer;
use crate::hello::Hello;
use crate::rules::{Seen, Verdict};
use crate::sniff::First;
use hostel_sandbox::network::NetworkMode;
use std::net::IpAddr;

/// What a connection is allowed to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) basis: Basis,
    pub(crate) route: Route,
    pub(crate) protocol: Protocol,
    pub(crate) verdict: Verdict,
}

/// Where nothing but TLS and HTTP is expected. A host by its name is only reached so on these ports.
pub(crate) fn is_web(port: u16) -> bool {
    matches!(port, 80 | 443)
}

/// The protocol of a beginning.
pub(crate) fn protocol(first: &First) -> Protocol {
    match first {
        First::Tls(_) => Protocol::Tls,
        First::Http(_) => Protocol::Http,
        _ => Protocol::Tcp,
    }
}

impl Enforcer {
    /// The plan for a host by its name before anything was said, if it may be reached at all. What will be spoken is
    /// what the port is for.
    pub(crate) fn plan_ahead(&self, name: &str, port: u16) -> Result<Plan, Refused> {
        let seen = Seen::Requests;
        let verdict = self.rules().connect(name, port, seen).or_refuse(&format!("{name} port {port}"))?;
        let protocol = usual(port);
        let (basis, route) = (
            Basis::Name { name: name.to_owned(), seen },
            Route::Name { name: name.to_owned(), prefer: None },
        );
        Ok(Plan { basis, route, protocol, verdict })
    }

    /// The plan for an address before anything was said, where a rule of its own allows it and nothing is known that could
    /// make it the address of a host whose name decides.
    pub(crate) fn plan_meanwhile(&self, address: IpAddr, port: u16) -> Option<Plan> {
        let named =
            self.rules().opens_some(port) || !self.secrets().is_empty() || !self.pinned(address).is_empty();
        let plan = if named { None } else { self.by_address(address, None, port, usual(port)).ok() };
        plan.filter(|plan| plan.verdict.reason == Reason::Rule)
    }

    /// Decides a connection.
    pub(crate) async fn plan(&self, to: &Destination, port: u16, first: &First) -> Result<Plan, Refused> {
        let told = match first {
            First::Tls(hello) => self.told_by_tls(hello, port)?,
            First::Http(head) => {
                let host = head.host.as_deref().and_then(Destination::parse_with_port);
                let missing =
                    || Refused::new(Reason::BadRequest, "a request without a Host that names a host");
                Some(host.ok_or_else(missing)?.0)
            }
            First::Other | First::Quiet => None,
            First::Bad(why) => return Err(Refused::new(Reason::BadRequest, *why)),
            First::Late => {
                return Err(Refused::new(Reason::Timeout, "nothing that is understood came in time"));
            }
            First::Closed => return Err(Refused::new(Reason::BadRequest, "closed before anything was sent")),
        };
        let protocol = protocol(first);
        match (to, told) {
            (Destination::Name(name), Some(_)) if protocol == Protocol::Http => {
                // Whether the Host is the right one is looked at for each request.
                self.by_name(name, None, port, protocol)
            }
            (Destination::Name(name), Some(Destination::Name(told))) if told == *name => {
                self.by_name(name, None, port, protocol)
            }
            (Destination::Name(name), Some(told)) => Err(Refused::new(
                Reason::NameMismatch,
                format!("{name} was asked for, and the connection inside is for {told}"),
            )),
            (Destination::Name(_), None) if protocol == Protocol::Tls => Err(no_name()),
            (Destination::Name(name), None) => {
                not_web(port)?;
                self.by_name(name, None, port, protocol)
            }
            (Destination::Address(address), Some(Destination::Name(name))) => {
                self.name_at(&name, *address, port, protocol).await
            }
            (Destination::Address(address), Some(Destination::Address(told))) if told == *address => {
                self.by_address(*address, None, port, protocol)
            }
            (Destination::Address(address), Some(told)) => Err(Refused::new(
                Reason::NameMismatch,
                format!("{address} was asked for, and the request is for {told}"),
            )),
            (Destination::Address(address), None) => self.nameless(*address, port, protocol),
        }
    }

    /// The name that a ClientHello tells. One that may hide a second name is refused where hosts are listed by name:
    /// programs that only pretend to have one (GREASE ECH) cannot be told from those that have. Where TLS
    /// is opened here, nothing that is hidden goes any further.
    fn told_by_tls(&self, hello: &Hello, port: u16) -> Result<Option<Destination>, Refused> {
        let opened = hello.name.as_ref().is_some_and(|name| self.opens(name, port));
        if hello.hidden
            && !opened
            && !self.shared.settings.encrypted_hello
            && self.rules().mode() == NetworkMode::Allowlist
        {
            return Err(Refused::new(
                Reason::HiddenName,
                "the ClientHello may hide another name (encrypted ClientHello), which is not allowed here",
            ));
        }
        Ok(hello.name.clone().map(Destination::Name))
    }

    fn by_name(
        &self,
        name: &str,
        prefer: Option<IpAddr>,
        port: u16,
        protocol: Protocol,
    ) -> Result<Plan, Refused> {
        let protocol = match protocol {
            Protocol::Tls if self.opens(name, port) => Protocol::Https,
            other => other,
        };
        let seen = seen(protocol);
        let verdict = self.rules().connect(name, port, seen).or_refuse(&format!("{name} port {port}"))?;
        Ok(Plan {
            basis: Basis::Name { name: name.to_owned(), seen },
            route: Route::Name { name: name.to_owned(), prefer },
            protocol,
            verdict,
        })
    }

    /// A connection to an address that tells a name: the name must be allowed and be one of that address.
    async fn name_at(
        &self,
        name: &str,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Result<Plan, Refused> {
        let named = self.by_name(name, Some(address), port, protocol);
        match &named {
            Ok(_) if self.leads_to(name, address, port).await => return named,
            Err(refused) if refused.reason == Reason::DeniedByRule => return named,
            _ => {}
        }
        // Where TLS is to be opened the name decides, and an address of somebody else's is none for it.
        if !self.opens(name, port)
            && let Ok(plan) = self.by_address(address, Some(name), port, protocol)
        {
            return Ok(plan);
        }
        named.and_then(|_| {
            let message = format!("{address} is not an address of {name}");
            Err(Refused { address: Some(address), ..Refused::new(Reason::NameMismatch, message) })
        })
    }

    async fn leads_to(&self, name: &str, address: IpAddr, port: u16) -> bool {
        if self.pinned(address).iter().any(|own| own == name) {
            return true;
        }
        self.addresses(name, Some(port)).await.is_ok_and(|list| list.contains(&address))
    }

    fn by_address(
        &self,
        address: IpAddr,
        name: Option<&str>,
        port: u16,
        protocol: Protocol,
    ) -> Result<Plan, Refused> {
        if let Some(name) = name {
            self.not_denied(name, port, protocol)?;
        }
        let rules = self.rules();
        let at = |refused: Refused| Refused { address: Some(address), ..refused };
        let verdict =
            rules.address(address, port).or_refuse(&format!("{address} port {port}")).map_err(at)?;
        self.shared.reach.check(address, Some(port), &rules)?;
        Ok(Plan {
            basis: Basis::Address { address, name: name.map(str::to_owned) },
            route: Route::Address(address),
            protocol,
            verdict,
        })
    }

    /// A connection that tells no name: a rule for its address, or the name that our answers gave for it.
    fn nameless(&self, address: IpAddr, port: u16, protocol: Protocol) -> Result<Plan, Refused> {
        let pinned = self.pinned(address);
        self.none_denied(&pinned, port, protocol)?;
        let refused = match self.by_address(address, None, port, protocol) {
            Ok(plan) => return Ok(plan),
            Err(refused) if refused.reason != Reason::NoRule => return Err(refused),
            Err(refused) => refused,
        };
        if pinned.is_empty() {
            return Err(refused);
        }
        if protocol == Protocol::Tls {
            return Err(Refused { address: Some(address), ..no_name() });
        }
        not_web(port)?;
        let mut last = refused;
        for name in &pinned {
            match self.by_name(name, Some(address), port, protocol) {
                Ok(plan) => return Ok(plan),
                Err(refused) => last = refused,
            }
        }
        Err(last)
    }
}

/// What is spoken on a port.
fn usual(port: u16) -> Protocol {
    match port {
        443 => Protocol::Tls,
        80 => Protocol::Http,
        _ => Protocol::Tcp,
    }
}

fn seen(protocol: Protocol) -> Seen {
    match protocol {
        Protocol::Http | Protocol::Https => Seen::Requests,
        Protocol::Tls | Protocol::Tcp | Protocol::Dns => Seen::Opaque,
    }
}

fn no_name() -> Refused {
    Refused::new(Reason::NoName, "the ClientHello tells no server name, so no rule for a name can allow it")
}

fn not_web(port: u16) -> Result<(), Refused> {
    if is_web(port) {
        return Err(Refused::new(
            Reason::BadRequest,
            format!("neither TLS nor HTTP, on port {port}; a rule for a name allows nothing else there"),
        ));
    }
    Ok(())
}
