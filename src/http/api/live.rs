//! The latest seconds, while somebody watches.

use super::{Context, Fault};
use crate::http::json::{ByName, LiveColumns, LiveRates, write};
use crate::http::{Answer, Call, JSON};
use crate::live::{RING_SECONDS, State};

pub fn live(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let mono_ms = call.now.mono_ms;
    let rates = {
        let mut state = context.live.lock();
        state.inventory.ring.watch(mono_ms);
        since(&state, call.values.count("since"), call.unix())
    };
    Ok(Answer::stream(JSON, move |_, out| write(out, &rates)))
}

/// A number from the future is from before a restart: all there is then. The ring is turned only while somebody watches:
/// what it holds may be of yesterday, or of a time that the clock was set away from.
fn since(state: &State, since: u64, unix: i64) -> LiveRates {
    let ring = &state.inventory.ring;
    let first = ring.next.saturating_sub(ring.times.len() as u64);
    let stale = ring.times.iter().take_while(|time| time.abs_diff(unix) > RING_SECONDS as u64).count();
    let known = if since > ring.next { 0 } else { since.saturating_sub(first) as usize };
    let skip = known.max(stale);

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
    use crate::http::tests::{iface, quiet};

    #[test]
    fn only_what_is_new() {
        let live = quiet();
        let mut state = live.lock();
        state.inventory.interfaces = vec![iface("eth0", 2)];
        state.inventory.ring.next = 10;
        state.inventory.ring.times = [107, 108, 109].into();
        state.inventory.ring.rates.insert(2, [None, Some((1, 2)), Some((3, 4))].into());
        state.inventory.ring.rates.insert(9, [None, None, None].into());
        let check = |from, times: &[i64], rx: &[Option<u64>]| {
            let rates = since(&state, from, 109);
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
    fn nothing_older_than_five_minutes() {
        let live = quiet();
        let mut state = live.lock();
        state.inventory.interfaces = vec![iface("eth0", 2)];
        state.inventory.ring.next = 10;
        state.inventory.ring.times = [1000, 1001, 1200].into();
        state.inventory.ring.rates.insert(2, [Some((1, 1)), Some((2, 2)), Some((3, 3))].into());
        let check = |now, from, times: &[i64]| {
            let rates = since(&state, from, now);
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
        // The clock was set back: a second from the future is from another time too.
        check(699, 0, &[]);
        check(i64::MIN, 0, &[]);
    }
}
