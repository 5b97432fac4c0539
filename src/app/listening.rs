//! Watches the listening addresses of the settings while the program runs. It starts to listen on an address as soon as
//! that is possible, and logs which addresses clients cannot reach.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::http::{Context, HttpServer, Unreachable};

/// Time between two checks while all addresses have a listener, and the shortest time between two warnings.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two attempts to listen on an address that this machine does not have yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Times and results of the checks so far.
#[derive(Default)]
pub struct AddressWatch {
    next_check: Option<Instant>,
    last_warning: Option<Instant>,
    /// Addresses that clients could not reach at the last check.
    unreachable: Vec<SocketAddr>,
}

impl AddressWatch {
    /// Checks the addresses if the next check is due. Returns the time until the next check, `MAX` where none is
    /// needed.
    pub fn check(&mut self, context: &Context, server: &HttpServer, now: Instant) -> Duration {
        if context.listen_addresses.iter().all(|address| address.ip().is_unspecified()) && context.all_bound() {
            return Duration::MAX;
        }
        if let Some(next) = self.next_check.filter(|next| now < *next) {
            return next - now;
        }
        let listeners = context.retry_bind();
        if !listeners.is_empty() {
            server.add_listeners(listeners);
        }
        let unreachable = context.unreachable();
        if let Some(warning) = self.warning(&unreachable, now) {
            log::warn!("{warning}; see {}", context.live.lock().config.set_by("host"));
        }
        let pause = if context.all_bound() { CHECK_INTERVAL } else { RETRY_INTERVAL };
        self.next_check = Some(now + pause);
        pause
    }

    /// Returns the text of a warning about unreachable addresses, at most once a minute. Also logs two other events,
    /// once each: an address became reachable, or a link has an address that is not usable yet.
    fn warning(&mut self, unreachable: &[Unreachable], now: Instant) -> Option<String> {
        let still_unreachable = |address: &SocketAddr| unreachable.iter().any(|it| it.address == *address);
        self.unreachable
            .iter()
            .filter(|address| !still_unreachable(address))
            .for_each(|address| log::info!("clients can reach {address} now"));
        let new = |it: &&Unreachable| it.on_link && !self.unreachable.contains(&it.address);
        unreachable.iter().filter(new).for_each(|it| log::info!("{}", it.why));
        self.unreachable = unreachable.iter().map(|it| it.address).collect();
        let unexpected: Vec<&str> = unreachable.iter().filter(|it| !it.on_link).map(|it| it.why.as_str()).collect();
        if unexpected.is_empty() || self.last_warning.is_some_and(|last| now.duration_since(last) < CHECK_INTERVAL) {
            return None;
        }
        self.last_warning = Some(now);
        Some(unexpected.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreachable_addresses_give_one_warning_a_minute() {
        let (mut watch, start) = (AddressWatch::default(), Instant::now());
        let unreachable = |port: u16, is_on_link| {
            let address = SocketAddr::from(([192, 0, 2, 7], port));
            Unreachable { address, why: format!("no {port}"), on_link: is_on_link }
        };
        let missing = |port| unreachable(port, false);
        let mut at =
            |seconds, addresses: &[Unreachable]| watch.warning(addresses, start + Duration::from_secs(seconds));
        assert_eq!(at(0, &[]), None);
        assert_eq!(at(1, &[unreachable(9, true)]), None);
        assert_eq!(at(5, &[missing(1), unreachable(9, true), missing(2)]).as_deref(), Some("no 1; no 2"));
        assert_eq!(at(10, &[missing(1)]), None);
        assert_eq!(at(64, &[missing(3)]), None);
        assert_eq!(at(65, &[missing(3)]).as_deref(), Some("no 3"));
        assert_eq!(at(130, &[]), None);
        assert_eq!(at(131, &[missing(1)]).as_deref(), Some("no 1"));
    }
}
