//! Looks after the addresses that the settings name while the program runs: listens where that was not possible before,
//! and tells the log what cannot be reached.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::http::{Context, Serving, Unreachable};

/// Between two looks, and between two warnings at least.
const MINUTE: Duration = Duration::from_secs(60);
/// Between two attempts to listen on what was not there before.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Watch {
    next: Option<Instant>,
    warned: Option<Instant>,
    /// What could not be reached at the last look.
    missing: Vec<SocketAddr>,
}

impl Watch {
    /// How long until it wants to look again. It does nothing before that time, however often it is called.
    pub fn look(&mut self, context: &Context, serving: &Serving, now: Instant) -> Duration {
        if context.listening.iter().all(|address| address.ip().is_unspecified()) && context.all_listen() {
            return Duration::MAX;
        }
        if let Some(next) = self.next.filter(|next| now < *next) {
            return next - now;
        }
        let listeners = context.listen_again();
        if !listeners.is_empty() {
            serving.listen(listeners);
        }
        let unreachable = context.unreachable();
        if let Some(what) = self.news(&unreachable, now) {
            log::warn!("{what}; see {}", context.live.lock().config.said_by("host"));
        }
        let pause = if context.all_listen() { MINUTE } else { RETRY };
        self.next = Some(now + pause);
        pause
    }

    /// What to warn of: at most once a minute. What a link has by itself, and what is reached by now, is told once.
    fn news(&mut self, unreachable: &[Unreachable], now: Instant) -> Option<String> {
        let still = |address: &SocketAddr| unreachable.iter().any(|it| it.address == *address);
        self.missing
            .iter()
            .filter(|address| !still(address))
            .for_each(|address| log::info!("reached on {address} now"));
        let new = |it: &&Unreachable| it.pending && !self.missing.contains(&it.address);
        unreachable.iter().filter(new).for_each(|it| log::info!("{}", it.why));
        self.missing = unreachable.iter().map(|it| it.address).collect();
        let strange: Vec<&str> = unreachable.iter().filter(|it| !it.pending).map(|it| it.why.as_str()).collect();
        if strange.is_empty() || self.warned.is_some_and(|warned| now.duration_since(warned) < MINUTE) {
            return None;
        }
        self.warned = Some(now);
        Some(strange.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_warns_once_a_minute_while_something_is_missing() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let it = |port: u16, pending| {
            let address = SocketAddr::from(([192, 0, 2, 7], port));
            Unreachable { address, why: format!("no {port}"), pending }
        };
        let missing = |port| it(port, false);
        let mut at =
            |seconds, unreachable: &[Unreachable]| watch.news(unreachable, start + Duration::from_secs(seconds));
        assert_eq!(at(0, &[]), None);
        assert_eq!(at(1, &[it(9, true)]), None);
        assert_eq!(at(5, &[missing(1), it(9, true), missing(2)]).as_deref(), Some("no 1; no 2"));
        assert_eq!(at(10, &[missing(1)]), None);
        assert_eq!(at(64, &[missing(3)]), None);
        assert_eq!(at(65, &[missing(3)]).as_deref(), Some("no 3"));
        assert_eq!(at(130, &[]), None);
        assert_eq!(at(131, &[missing(1)]).as_deref(), Some("no 1"));
    }
}
