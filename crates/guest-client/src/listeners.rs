//! Listening sockets inside.

use crate::convert;
use crate::descriptor::listener;
use crate::failure::{Subject, broken};
use crate::guest::Guest;
use async_trait::async_trait;
use hostel_guest_protocol::{Ask, Listen, ListenAt, ListenUnix};
use hostel_sandbox::{ListenAddress, Listeners, Result};
use rustix::net::AddressFamily;
use std::os::fd::OwnedFd;

#[async_trait]
impl Listeners for Guest {
    async fn listen(&self, address: &ListenAddress) -> Result<OwnedFd> {
        address.validate()?;
        let (at, family, name) = match address {
            ListenAddress::Unix { path, mode } => {
                let unix = ListenUnix { path: path.clone(), mode: *mode };
                (ListenAt::Unix(unix), AddressFamily::UNIX, path.clone())
            }
            ListenAddress::Tcp { port } => {
                (ListenAt::Tcp(u32::from(*port)), AddressFamily::INET, format!("127.0.0.1:{port}"))
            }
        };
        let subject = Subject::new("listener", name);
        let (answer, descriptor) = self.call(Ask::Listen(Listen { at: Some(at) }), &subject).await?;
        convert::done(answer)?;
        listener(descriptor.ok_or_else(|| broken("no descriptor came with a listener"))?, family)
    }
}
