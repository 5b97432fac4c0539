//! Links that come and go by the thousand, and guest links.

use super::*;
use crate::model::{HistoryEdit, InterfaceKind};
use crate::sampler::others::MAX_RECORDS;

/// Longer than the grace period for records of an earlier run.
const GRACE_OVER_MS: u64 = 630_001;

/// A link that is created, carries traffic and is gone before the next listing.
fn short_lived(bench: &Bench, link: Link, rx: u64) {
    let (ifindex, last) = (link.ifindex, Some(rx_tx(rx, 0)));
    let added = LinkNotification::Added { ifindex, counters: Counters::ZERO };
    let described = || LinkNotification::Described(Box::new(link.clone()));
    let notifications = [described(), added, described(), LinkNotification::Gone { ifindex, last }];
    bench.world.lock().unwrap().notifications.extend(notifications);
}

fn lifetimes(bench: &Bench) -> u64 {
    bench.sampler.records.iter().map(|record| record.lifetime.rx_bytes()).sum()
}

fn sampled_rx(bench: &Bench) -> u64 {
    bench.live.lock().unsaved.batch.samples.iter().map(|sample| sample.delta.rx_bytes()).sum()
}

#[test]
fn a_link_that_came_and_went_between_listings_is_counted() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    short_lived(&bench, link(7, "ppp0"), 500);
    // A link without traffic gets no record.
    short_lived(&bench, link(8, "ppp1"), 0);
    short_lived(&bench, link(9, "veth12ab"), 7_000);
    let tap = Link { driver: "tun".to_string(), ..link(10, "tap100i0") };
    let port = Link { master: 2, master_driver: "bridge".to_string(), ..tap.clone() };
    let notifications = [
        LinkNotification::Described(Box::new(tap.clone())),
        LinkNotification::Added { ifindex: 10, counters: Counters::ZERO },
        LinkNotification::Described(Box::new(port)),
        LinkNotification::Changed { ifindex: 10 },
        // The tap has left its bridge before it is deleted.
        LinkNotification::Described(Box::new(tap)),
        LinkNotification::Gone { ifindex: 10, last: Some(rx_tx(90, 90)) },
    ];
    bench.world.lock().unwrap().notifications.extend(notifications);
    bench.turn(true);
    bench.run(1_001);
    assert_eq!(bench.samples("ppp0"), [(SampleQuality::Plain, 500, 0)]);
    // Another link with the same name continues the same history.
    short_lived(&bench, link(11, "ppp0"), 30);
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(bench.samples("ppp0").iter().map(|(_, rx, _)| *rx).collect::<Vec<_>>(), [500, 30]);
    let names: Vec<String> = bench.sampler.records.iter().map(|record| record.name.clone()).collect();
    assert_eq!(names, ["eth0", "ppp0"]);
    assert_eq!(bench.sampler.new_links.len(), 0);
}

#[test]
fn three_thousand_links_leave_few_records_and_lose_no_byte() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    bench.live.lock().unsaved.add_event(Event {
        unix: None,
        mono_ms: 0,
        kind: EventKind::Storage,
        interface: String::new(),
        detail: "an earlier event".to_string(),
    });
    let mut sum = 0;
    for at in 0..3_000u32 {
        let rx = 100 + u64::from(at) * 7 % 1_000;
        sum += rx;
        short_lived(&bench, link(10 + at, &format!("job{at}")), rx);
        if at % 40 == 39 {
            bench.turn(true);
            bench.advance(100);
            let state = bench.live.lock();
            assert!(bench.sampler.records.len() <= MAX_RECORDS + 1);
            assert!(
                crate::coarsen::size_bytes(&state.unsaved.batch, &state.unsaved.anchors)
                    <= crate::coarsen::MAX_UNSAVED_BYTES
            );
            assert!(state.unsaved.records.len() <= MAX_RECORDS + 1, "{}", state.unsaved.records.len());
        }
    }
    bench.run(30_001);
    assert_eq!((lifetimes(&bench), sampled_rx(&bench)), (sum, sum));
    let others = bench.live.lock().inventory.interface("others").cloned().unwrap();
    assert_eq!((others.kind, others.ifindex, others.monitored), (InterfaceKind::Others, 0, false));
    assert_eq!(bench.live.lock().inventory.interfaces.len(), MAX_RECORDS + 1);
    // The interfaces with the most traffic keep their own records.
    let least = bench.sampler.records.iter().filter(|record| record.name.starts_with("job"));
    assert!(least.map(|record| record.lifetime.rx_bytes()).min().unwrap() > 1_000);
    // There is no edit for the writer, because it has taken nothing of these interfaces.
    assert!(bench.live.lock().unsaved.edits.is_empty());
    let events = bench.live.lock().unsaved.events.clone();
    assert!(events.len() < 60 && events.iter().any(|event| event.detail == "an earlier event"), "{events:#?}");
    bench.run(600_000);
    let found = details(&bench, EventKind::Appeared);
    assert!(found.last().unwrap().contains("times within 10 min"), "{found:?}");
}

/// Records of gone links: `gone1` had 1 byte of traffic, `gone2` 2 bytes and so on.
fn gone_records(count: u32) -> Vec<Record> {
    let of = |at: u32| Record {
        lifetime: rx_tx(u64::from(at), 0),
        ..record(at, &format!("gone{at}"), 0, BOOT, rx_tx(1, 1), 5)
    };
    (1..=count).map(of).collect()
}

#[test]
fn records_with_least_traffic_are_merged_first_but_never_named_ones() {
    let mut records = gone_records(300);
    records[0].alias = "guest's tunnel".to_string();
    let live = Live::new(Config::with_saved(&[("ignore", "!gone2"), ("primary", "gone3")]), Zone::UTC);
    let mut bench = Bench::with_live(live, &[(link(2, "eth0"), rx_tx(1000, 10))], records, 1_000_000);
    bench.run(GRACE_OVER_MS);
    let left: Vec<IfaceId> = bench.sampler.records.iter().map(|record| record.id).filter(|id| *id <= 300).collect();
    assert_eq!(left[..4], [1, 2, 3, 49]);
    assert_eq!((left.len(), lifetimes(&bench)), (MAX_RECORDS - 1, (1..=300).sum::<u64>()));
    // One edit merges the stored records on disk. Until the writer has done it, readers see their samples under the new
    // name.
    let state = bench.live.lock();
    let [(HistoryEdit::MergeIntoOthers { ids, into, into_name }, None)] = &state.unsaved.edits[..] else {
        panic!("{:?}", state.unsaved.edits)
    };
    assert_eq!((ids.len(), into_name.as_str()), (45, "others"));
    assert_eq!(state.unsaved.merging_into_others, *ids);
    assert_eq!(state.inventory.interface("others").unwrap().id, Some(*into));
}

/// After a restart all links are present, or some appear minutes later: each continues its own history.
#[test]
fn records_of_links_that_appear_late_are_not_merged() {
    let all: Vec<(Link, Counters)> =
        (1..=300).map(|at| (link(at, &format!("port{at}")), rx_tx(5_000_009, 9))).collect();
    let known = || -> Vec<Record> {
        all.iter()
            .map(|(link, _)| record(link.ifindex, &link.name, link.ifindex, BOOT, rx_tx(5_000_000, 9), 5))
            .collect()
    };
    for late in [0, 100] {
        let mut bench = Bench::after(&all[late..], known(), 1_000_000);
        bench.turn(true);
        bench.run(300_000);
        bench.world.lock().unwrap().links = all.clone();
        bench.turn(true);
        bench.run(GRACE_OVER_MS);
        assert_eq!(bench.sampler.records.len(), 300, "{late} of the links appear late");
        assert!(bench.sampler.links.iter().all(|tracked| tracked.id == Some(tracked.link.ifindex)));
    }
}

/// The writer merges at least 16 records at once. Fewer excess records stay as they are.
#[test]
fn few_excess_records_are_not_merged_on_disk() {
    for (count, merged) in [(258, 0), (270, 0), (271, 16), (300, 45)] {
        let mut bench = Bench::after(&[(link(2, "eth0"), rx_tx(1000, 10))], gone_records(count), 1_000_000);
        bench.run(GRACE_OVER_MS);
        let records = bench.sampler.records.len();
        let state = bench.live.lock();
        let ids: Vec<IfaceId> = state
            .unsaved
            .edits
            .iter()
            .flat_map(|(edit, _)| match edit {
                HistoryEdit::MergeIntoOthers { ids, .. } => ids.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!((ids.len(), state.unsaved.merging_into_others.len()), (merged, merged), "{count}");
        assert!(merged == 0 || state.pending.save_now, "{count}");
        assert_eq!(records, count as usize + 1 - merged + usize::from(merged > 0));
        assert_eq!(lifetimes(&bench), (1..=u64::from(count)).sum::<u64>());
    }
}

/// A setting that names an altname protects the record, even when the link is gone.
#[test]
fn a_record_named_by_an_altname_is_never_merged() {
    let live = Live::new(Config::with_saved(&[("ignore", "!uplink*")]), Zone::UTC);
    let named = Link { altnames: vec!["uplink-a".to_string()], ..link(7, "modem") };
    let mut bench =
        Bench::with_live(live, &[(link(2, "eth0"), rx_tx(1000, 10)), (named, rx_tx(5, 5))], Vec::new(), 1_000_000);
    bench.run(30_001);
    bench.set(7, rx_tx(6, 5));
    bench.run(30_001);
    bench.world.lock().unwrap().links.pop();
    bench.world.lock().unwrap().notifications = vec![LinkNotification::Gone { ifindex: 7, last: Some(rx_tx(6, 5)) }];
    bench.turn(true);
    for at in 0..400u32 {
        short_lived(&bench, link(10 + at, &format!("job{at}")), 1_000 + u64::from(at));
    }
    bench.turn(true);
    bench.run(30_001);
    assert!(bench.sampler.records.iter().any(|record| record.name == "modem"));
    assert!(bench.sampler.records.iter().any(|record| record.kind == InterfaceKind::Others));
}

#[test]
fn some_records_of_gone_links_are_kept_beside_very_many_present_ones() {
    let links: Vec<(Link, Counters)> =
        (1..=300).map(|at| (link(1000 + at, &format!("port{at}")), rx_tx(9, 9))).collect();
    let mut bench = Bench::after(&links, gone_records(100), 1_000_000);
    bench.run(GRACE_OVER_MS);
    let left = bench.sampler.records.iter().filter(|record| record.name.starts_with("gone")).map(|record| record.id);
    assert_eq!(left.collect::<Vec<_>>(), (37..=100).collect::<Vec<_>>());
    assert_eq!(bench.sampler.records.len(), 300 + 64 + 1);
}

#[test]
fn a_link_called_others_is_not_the_others_record() {
    let mut bench = Bench::after(&[(link(2, "others"), rx_tx(1000, 10))], gone_records(300), 1_000_000);
    bench.set(2, rx_tx(1_500, 10));
    bench.run(GRACE_OVER_MS);
    assert_eq!(bench.samples("others").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 500);
    let kind = |name: &str| bench.live.lock().inventory.interface(name).map(|iface| iface.kind);
    assert_eq!((kind("others"), kind("others:")), (Some(InterfaceKind::Ethernet), Some(InterfaceKind::Others)));
    drop(bench);
    // A link of that name appears later and must not get the traffic of "others".
    let mut bench = Bench::after(&[(link(2, "eth0"), rx_tx(1000, 10))], gone_records(300), 1_000_000);
    bench.world.lock().unwrap().links.push((link(9, "others"), rx_tx(70, 10)));
    bench.world.lock().unwrap().notifications = vec![LinkNotification::Added { ifindex: 9, counters: Counters::ZERO }];
    bench.turn(true);
    bench.run(GRACE_OVER_MS);
    assert_eq!(bench.live.lock().inventory.interface("others").unwrap().lifetime.rx_bytes(), 70);
    assert_eq!(bench.live.lock().inventory.interface("others:").unwrap().kind, InterfaceKind::Others);
    // The link is renamed, and "others" gets its usual name. Then the link gets its name back.
    bench.world.lock().unwrap().links[1].0.name = "web".to_string();
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(bench.live.lock().inventory.interface("others").unwrap().kind, InterfaceKind::Others);
    bench.world.lock().unwrap().links[1].0.name = "others".to_string();
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(bench.live.lock().inventory.interface("others").unwrap().lifetime.rx_bytes(), 70);
}

#[test]
fn others_of_this_run_continue_the_stored_others() {
    for on_disk in [false, true] {
        let mut bench = Bench::without_history(&[(link(2, "eth0"), rx_tx(1000, 10))], 1_000_000);
        for at in 0..400u32 {
            short_lived(&bench, link(10 + at, &format!("job{at}")), 100 + u64::from(at));
        }
        bench.turn(true);
        bench.run(30_001);
        let sum: u64 = (0..400).map(|at| 100 + at).sum();
        assert_eq!((lifetimes(&bench), sampled_rx(&bench)), (sum, sum));
        assert!(bench.live.lock().unsaved.edits.is_empty() && bench.sampler.records.len() <= MAX_RECORDS + 1);
        let mut stored = vec![record(4, "others", 0, BOOT, rx_tx(1, 1), 5)];
        stored.extend(
            on_disk.then(|| Record { kind: InterfaceKind::Others, ..record(7, "others:", 0, "", rx_tx(1, 1), 5) }),
        );
        bench.rejoin(history_of_a_minute_ago(stored));
        bench.run(30_001);
        let others: Vec<&Record> = bench.sampler.records.iter().filter(|it| it.kind == InterfaceKind::Others).collect();
        assert_eq!((others.len(), others[0].id == 7), (1, on_disk));
        let before = if on_disk { 10_000_000 } else { 5_000_000 };
        assert_eq!((lifetimes(&bench), sampled_rx(&bench)), (sum + before, sum));
    }
}

#[test]
fn a_link_is_gone_only_after_three_incomplete_listings_without_it() {
    let all = [(link(2, "eth0"), rx_tx(1000, 10)), (link(3, "eth1"), rx_tx(1000, 10))];
    let mut bench = Bench::new(&all);
    bench.world.lock().unwrap().partial = true;
    bench.world.lock().unwrap().links.pop();
    for _ in 0..2 {
        bench.turn(true);
        bench.advance(1_001);
        bench.turn(false);
        bench.advance(1_001);
        bench.world.lock().unwrap().links = all.to_vec();
        bench.turn(false);
        assert_eq!(bench.live.lock().inventory.interfaces.iter().filter(|iface| iface.present()).count(), 2);
        bench.world.lock().unwrap().links.pop();
        bench.advance(1_001);
    }
    bench.run(4_001);
    assert_eq!(bench.live.lock().inventory.interfaces.iter().filter(|iface| iface.present()).count(), 1);
    assert!(bench.kinds_of_events().contains(&EventKind::Vanished));
}

#[test]
fn a_guest_link_is_ignored_until_it_has_an_address() {
    let cable = |ifindex, name: &str, master| Link {
        driver: "veth".to_string(),
        master,
        master_driver: if master == 0 { "" } else { "bridge" }.to_string(),
        ..link(ifindex, name)
    };
    let bridge = Link { driver: "bridge".to_string(), ..link(3, "br-lan") };
    let links = [
        (link(2, "eth0"), rx_tx(9, 9)),
        (bridge, rx_tx(9, 9)),
        (cable(4, "web", 3), rx_tx(9, 9)),
        (cable(5, "vethab", 0), rx_tx(9, 9)),
    ];
    let mut bench = Bench::new(&links);
    let why = |bench: &Bench, name: &str| bench.live.lock().inventory.interface(name).unwrap().ignored_because.clone();
    assert_eq!(why(&bench, "web"), None, "the only port of the bridge");
    assert!(why(&bench, "vethab").unwrap().contains("cable"));
    assert!(!bench.sampler.records.iter().any(|record| record.name == "vethab"));
    {
        let mut world = bench.world.lock().unwrap();
        world.links.push((cable(6, "db", 3), Counters::ZERO));
        let of = |ip: &str| Address { ifindex: 5, ip: ip.parse().unwrap(), prefix: 24, broadcast: None };
        world.addresses = vec![of("fe80::1"), of("169.254.7.7")];
    }
    bench.turn(true);
    bench.run(2_000);
    assert!(why(&bench, "web").is_some() && why(&bench, "db").is_some() && why(&bench, "vethab").is_some());
    let address = Address { ifindex: 5, ip: "10.0.0.1".parse().unwrap(), prefix: 24, broadcast: None };
    bench.world.lock().unwrap().addresses = vec![address];
    bench.turn(true);
    bench.run(2_000);
    assert_eq!(why(&bench, "vethab"), None);
    // An address that disappears for a moment does not stop counting.
    bench.world.lock().unwrap().addresses.clear();
    bench.turn(true);
    bench.set(5, rx_tx(109, 9));
    bench.run(30_001);
    assert_eq!(bench.live.lock().inventory.interface("vethab").unwrap().lifetime.rx_bytes(), 100);
}

#[test]
fn the_ring_has_the_watched_links_and_stays_within_its_limit() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(9, 9)), (link(3, "veth0"), rx_tx(9, 9))]);
    bench.live.lock().inventory.ring.watched_until_ms = u64::MAX;
    bench.run(10_001);
    let keys = |bench: &Bench| bench.live.lock().inventory.ring.rates.keys().copied().collect::<Vec<_>>();
    assert_eq!(keys(&bench), [2]);
    {
        let mut state = bench.live.lock();
        let ring = &mut state.inventory.ring;
        for (links, seconds) in [(10u32, 300), (2_000, 10), (300, 72), (30_000, 1)] {
            for second in 0..400 {
                ring.push(second, (0..links).map(|link| (link, Some((1, 2)))));
                let held: usize = ring.rates.values().map(|rates| rates.capacity() * 24).sum();
                let least = ring.rates.len() * 24;
                assert!(held <= 2 * crate::live::RING_BYTES.max(least), "{held} of {links}");
            }
            assert_eq!(ring.times.len(), seconds, "{links}");
            assert!(ring.rates.values().all(|rates| rates.len() == seconds));
        }
        ring.watched_until_ms = 0;
    }
    bench.run(1);
    assert!(bench.live.lock().inventory.ring.rates.is_empty() && bench.live.lock().inventory.ring.times.is_empty());
}
