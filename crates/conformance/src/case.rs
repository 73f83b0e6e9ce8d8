//! One rule of the contract.

use crate::{Harness, Outcome};
use futures::future::BoxFuture;
use hostel_sandbox::{Capabilities, Capability};
use std::sync::Arc;

/// A named test of one rule.
#[derive(Clone, Copy)]
pub struct Case {
    /// `group::what_holds`.
    pub name: &'static str,
    /// Left out where the backend lacks one of these.
    pub needs: &'static [Capability],
    /// The test.
    pub run: fn(Arc<Harness>) -> BoxFuture<'static, Outcome>,
}

impl Case {
    /// Why this case cannot run on a backend, if so.
    #[must_use]
    pub fn missing(&self, capabilities: &Capabilities) -> Option<String> {
        self.needs.iter().find_map(|need| capabilities.require(*need).err()).map(|error| error.to_string())
    }
}

/// `cases! { "group": name, name [Capability, …], … }` makes a file's list from its functions.
macro_rules! cases {
    ($group:literal: $($name:ident $([$($need:ident),+])?),+ $(,)?) => {
        pub(super) const CASES: &[$crate::Case] = &[$($crate::Case {
            name: concat!($group, "::", stringify!($name)),
            needs: &[$($(hostel_sandbox::Capability::$need),+)?],
            run: |harness| Box::pin($name(harness)),
        }),+];
    };
}
pub(crate) use cases;
