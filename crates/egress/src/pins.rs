//! Which names our answers gave a sandbox for which address.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Most addresses that are remembered for a sandbox; the oldest go first.
const MAX_ADDRESSES: usize = 4096;
/// Most names of one address.
const MAX_NAMES: usize = 32;
/// How long an answer counts. Programs keep addresses longer than they should, and a name that is told by the
/// connection is resolved again anyway.
const AGE: Duration = Duration::from_secs(3600);

/// The answers that were given.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    names: HashMap<IpAddr, Vec<(String, Instant)>>,
    order: VecDeque<IpAddr>,
}

impl Pins {
    pub(crate) fn add(&mut self, name: &str, address: IpAddr, now: Instant) {
        if !self.names.contains_key(&address) {
            if self.order.len() >= MAX_ADDRESSES
                && let Some(oldest) = self.order.pop_front()
            {
                self.names.remove(&oldest);
            }
            self.order.push_back(address);
        }
        let names = self.names.entry(address).or_default();
        names.retain(|(own, _)| own != name);
        if names.len() >= MAX_NAMES {
            names.remove(0);
        }
        names.push((name.to_owned(), now));
    }

    /// The names of an address, the latest first.
    pub(crate) fn names(&self, address: IpAddr, now: Instant) -> Vec<String> {
        let fresh = |given: &Instant| now.saturating_duration_since(*given) < AGE;
        let names = self.names.get(&address).map(Vec::as_slice).unwrap_or_default();
        names.iter().rev().filter(|(_, given)| fresh(given)).map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_within_bounds() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        pins.add("a.example.com", address(1), now);
        pins.add("b.example.com", address(1), now);
        assert_eq!(pins.names(address(1), now), ["b.example.com", "a.example.com"]);
        assert!(pins.names(address(1), now + AGE).is_empty());
        for n in 0..10_000 {
            pins.add("c.example.com", address(2 + n), now);
            pins.add(&format!("{n}.example.com"), address(9_000), now);
        }
        assert!(pins.names.len() <= MAX_ADDRESSES && pins.order.len() <= MAX_ADDRESSES);
        assert!(pins.names(address(9_000), now).len() <= MAX_NAMES);
    }
}
