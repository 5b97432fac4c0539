//! Samples, and counters of all interfaces together.

use super::{REFRESH_TIMEOUT, link_state, record};
use crate::history::{Query, SampleFilter};
use crate::http::json::{Headline, Summary, Time, write_list};
use crate::http::{Answer, Call, Context, HttpError, JSON};
use crate::live::State;
use crate::model::{Counters, RX_PACKETS, TX_PACKETS};

pub fn history(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    newest(context, call, call.values.count("offset"))
}

pub fn latest(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    newest(context, call, 0)
}

/// The filter from `interface_name`, `start_time` and `end_time`; `None` if the interface is unknown.
pub(super) fn filter(context: &Context, call: &Call, query: &Query) -> Option<SampleFilter> {
    let iface = match call.values.text("interface_name") {
        Some(name) => {
            let by_altname = || context.live.lock().inventory.interface(name)?.id;
            Some(query.names.id(name).or_else(by_altname)?)
        }
        None => None,
    };
    let to = call.values.integer("end_time").map(|last| last.saturating_add(1));
    Some(SampleFilter { iface, from: call.values.integer("start_time"), to })
}

fn newest(context: &Context, call: &Call, offset: u64) -> Result<Answer, HttpError> {
    let limit = call.values.count("limit") as usize;
    let query = context.history.start_query();
    let points = match filter(context, call, &query) {
        None => Vec::new(),
        Some(filter) => context.history.read(&query, move |snapshot| snapshot.newest(&filter, offset, limit))?,
    };
    let names = query.names;
    Ok(Answer::stream(JSON, move |_, out| write_list(out, points.iter().map(|point| record(point, &names)))))
}

pub fn summary(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    context.live.refresh(REFRESH_TIMEOUT);
    let unix = context.clock.now().unix_ms.div_euclid(1000);
    let summary = sum(&context.live.lock(), unix);
    Answer::json(&summary)
}

fn sum(state: &State, unix: i64) -> Summary {
    let mut total = Counters::ZERO;
    let present = || state.inventory.interfaces.iter().filter(|iface| iface.present());
    for iface in present() {
        total.add(&iface.raw);
    }
    let primary = state.inventory.primary.as_deref().and_then(|name| state.inventory.interface(name));
    Summary {
        total_interfaces: present().count(),
        active_interfaces: present().filter(|iface| link_state(iface) == "up").count(),
        total_rx_bytes: total.rx_bytes(),
        total_tx_bytes: total.tx_bytes(),
        total_rx_packets: total.0[RX_PACKETS],
        total_tx_packets: total.0[TX_PACKETS],
        timestamp: Time(unix),
        primary: primary.map(|iface| Headline {
            name: iface.name.clone(),
            rx_bytes: iface.raw.rx_bytes(),
            tx_bytes: iface.raw.tx_bytes(),
            rx_packets: iface.raw.0[RX_PACKETS],
            tx_packets: iface.raw.0[TX_PACKETS],
            rx_rate: iface.rates.map(|rates| rates.0),
            tx_rate: iface.rates.map(|rates| rates.1),
            lifetime_rx_bytes: iface.lifetime.rx_bytes(),
            lifetime_tx_bytes: iface.lifetime.tx_bytes(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{idle_live, iface};
    use crate::model::COUNTERS;

    #[test]
    fn sums_leave_out_absent_interfaces() {
        let live = idle_live();
        let mut state = live.lock();
        let mut gone = iface("wg0", 0);
        gone.raw = Counters([100; COUNTERS]);
        let mut big = iface("eth0", 2);
        big.raw = Counters::of([u64::MAX, 5, 6, 7, 0, 0, 0, 0]);
        let mut down = iface("eth1", 3);
        down.raw = Counters([1; COUNTERS]);
        down.up = false;
        state.inventory.interfaces = vec![big, down, gone];
        state.inventory.primary = Some("eth0".to_string());
        let summary = sum(&state, 7);
        assert_eq!((summary.total_interfaces, summary.active_interfaces), (2, 1));
        assert_eq!((summary.total_rx_bytes, summary.total_tx_bytes), (u64::MAX, 6));
        assert_eq!((summary.total_rx_packets, summary.total_tx_packets), (7, 8));
        assert_eq!(summary.primary.unwrap().tx_bytes, 5);
    }
}
