//! The second policy: which connection goes for want of room, be it room for connections, for requests that wait or for
//! large bodies. It is one of the address that has the most connections: the one that has made no progress for longest, or,
//! where each waits for a place, the one that asks for most and came last. Pure.

use std::cmp::Reverse;
use std::time::Instant;

use super::client::Client;
use crate::sorted::Map;

/// Of those that `may` be sent away.
pub fn victim(clients: &[Client], may: impl Fn(&Client) -> bool, now: Instant) -> Option<usize> {
    let mut connections: Map<u64, usize> = Map::new();
    clients.iter().for_each(|client| *connections.entry(client.kin()).or_default() += 1);
    let candidates = clients.iter().enumerate().filter(|(_, client)| may(client));
    let victim = candidates.max_by_key(|(_, client)| {
        let age = now.saturating_duration_since(client.since);
        let idle = (!client.waiting()).then_some(age);
        // One that has its answer loses nothing.
        (client.parting(), connections.get(&client.kin()), idle, client.weight, Reverse(age))
    });
    victim.map(|(at, _)| at)
}
