//! Buffers of connections. What waits in them is the host's memory, charged to no sandbox: some 10 MiB for each socket
//! that was fast once and is not read any more (`tcp_rmem` and `tcp_wmem` in tcp(7)). Few may have that; many have little.

use crate::enforcer::Enforcer;
use rustix::net::sockopt;
use std::os::fd::AsFd;

/// What waits in a connection of a crowd at most, in each direction, in bytes. The kernel adds as much for its own
/// administration (socket(7)).
const NARROW: usize = 128 << 10;

impl Enforcer {
    /// Narrows the buffers of a connection that comes late. Of those that were there before nothing is taken.
    pub(crate) fn bound_buffers(&self, connection: impl AsFd) {
        let limits = self.shared.settings.limits;
        let inward = limits.connections.saturating_sub(self.slots.available_permits());
        let outward = (2 * limits.connections).saturating_sub(self.upstream.available_permits());
        if inward.max(outward) <= limits.at_ease {
            return;
        }
        // A refusal, of which none is known, would cost a bound and no function.
        let _ = sockopt::set_socket_recv_buffer_size(&connection, NARROW);
        let _ = sockopt::set_socket_send_buffer_size(&connection, NARROW);
    }
}
