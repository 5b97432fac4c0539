//! Rates of the latest seconds, which the sampler reads while a client requests them.

use super::{Context, HttpError};
use crate::http::json::{ByName, LiveColumns, LiveRates, write};
use crate::http::{Answer, Call, JSON};
use crate::live::{RING_SECONDS, State};

pub fn live(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let mono_ms = call.now.mono_ms;
    let rates = {
        let mut state = context.live.lock();
        state.inventory.ring.watch(mono_ms);
        rates_since(&state, call.values.count("since"), call.unix())
    };
    Ok(Answer::stream(JSON, move |_, out| write(out, &rates)))
}

/// Rates after the number `since`. A number above the newest is from before a restart: then all rates are returned. The
/// ring is filled only while a client requests it, so old entries, and entries from before the clock was set, are left
/// out.
fn rates_since(state: &State, since: u64, unix: i64) -> LiveRates {
    let ring = &state.inventory.ring;
    let first = ring.next.saturating_sub(ring.times.len() as u64);
    let too_old = ring.times.iter().take_while(|time| time.abs_diff(unix) > RING_SECONDS as u64).count();
    let known = if since > ring.next { 0 } else { since.saturating_sub(first) as usize };
    let skip = known.max(too_old);

    let mut interfaces = ByName::new();
    for iface in state.inventory.interfaces.iter().filter(|iface| iface.present()) {
        let Some(rates) = ring.rates.get(&iface.ifindex) else { continue };
        let column = |side: fn((u64, u64)) -> u64| rates.iter().skip(skip).map(|rate| rate.map(side)).collect();
        interfaces.insert(iface.name.clone(), LiveColumns { rx: column(|rate| rate.0), tx: column(|rate| rate.1) });
    }
    LiveRates { next: ring.next, t: ring.times.iter().skip(skip).copied().collect(), interfaces }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{idle_live, iface};

    #[test]
    fn only_new_seconds_are_returned() {
        let live = idle_live();
        let mut state = live.lock();
        state.inventory.interfaces = vec![iface("eth0", 2)];
        state.inventory.ring.next = 10;
        state.inventory.ring.times = [107, 108, 109].into();
        state.inventory.ring.rates.insert(2, [None, Some((1, 2)), Some((3, 4))].into());
        state.inventory.ring.rates.insert(9, [None, None, None].into());
        let check = |from, times: &[i64], rx: &[Option<u64>]| {
            let rates = rates_since(&state, from, 109);
            assert_eq!((rates.next, rates.t.as_slice()), (10, times), "since {from}");
            assert_eq!(rates.interfaces.get("eth0").unwrap().rx, rx, "since {from}");
            assert_eq!(rates.interfaces.len(), 1);
        };
        check(0, &[107, 108, 109], &[None, Some(1), Some(3)]);
        check(7, &[107, 108, 109], &[None, Some(1), Some(3)]);
        check(8, &[108, 109], &[Some(1), Some(3)]);
        check(9, &[109], &[Some(3)]);
        check(10, &[], &[]);
        check(11, &[107, 108, 109], &[None, Some(1), Some(3)]);
        check(i64::MAX as u64, &[107, 108, 109], &[None, Some(1), Some(3)]);
    }

    #[test]
    fn seconds_older_than_the_ring_are_left_out() {
        let live = idle_live();
        let mut state = live.lock();
        state.inventory.interfaces = vec![iface("eth0", 2)];
        state.inventory.ring.next = 10;
        state.inventory.ring.times = [1000, 1001, 1200].into();
        state.inventory.ring.rates.insert(2, [Some((1, 1)), Some((2, 2)), Some((3, 3))].into());
        let check = |now, from, times: &[i64]| {
            let rates = rates_since(&state, from, now);
            assert_eq!((rates.next, rates.t.as_slice()), (10, times), "at {now} since {from}");
            assert_eq!(rates.interfaces.get("eth0").unwrap().rx.len(), times.len(), "at {now} since {from}");
        };
        check(1200, 0, &[1000, 1001, 1200]);
        check(1300, 0, &[1000, 1001, 1200]);
        check(1301, 0, &[1001, 1200]);
        check(1301, 9, &[1200]);
        check(1500, 0, &[1200]);
        check(1501, 0, &[]);
        check(1501, 8, &[]);
        check(i64::MAX, 99, &[]);
        // The clock was set back: times in the future are left out too.
        check(699, 0, &[]);
        check(i64::MIN, 0, &[]);
    }
}
