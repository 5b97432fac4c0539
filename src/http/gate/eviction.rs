//! Eviction: chooses the connection that the gate closes when connections, waiting requests or large requests reach
//! their limit. Pure.
//!
//! The first choice is a connection whose client already has its whole answer. Otherwise the victim belongs to the
//! address group with the most connections. In this group it is the connection with the earliest `Client::since` or, if
//! all of them wait for a slot, the one with the heaviest request; among equals, the newest.

use std::cmp::Reverse;
use std::time::Instant;

use super::client::Client;
use crate::sorted::Map;

/// Index of the connection to close. Only connections that `may_close` accepts are considered.
pub fn victim(clients: &[Client], may_close: impl Fn(&Client) -> bool, now: Instant) -> Option<usize> {
    let mut connections: Map<u64, usize> = Map::new();
    clients.iter().for_each(|client| *connections.entry(client.address_group()).or_default() += 1);
    let candidates = clients.iter().enumerate().filter(|(_, client)| may_close(client));
    let victim = candidates.max_by_key(|(_, client)| {
        let age = now.saturating_duration_since(client.since);
        let idle_time = (!client.waiting()).then_some(age);
        // Clients that linger have their whole answer and lose nothing.
        (client.lingering(), connections.get(&client.address_group()), idle_time, client.weight, Reverse(age))
    });
    victim.map(|(at, _)| at)
}
