//! A database with a year of a household's traffic, for the page to show.

use crate::common::stored_history::{Random, record, save, unix_now};
use net_pulse::clock::Zone;
use net_pulse::model::{Batch, Counters, Event, EventKind, InterfaceKind, Record, Sample, SampleQuality, Tick};
use net_pulse::source::stack;
use net_pulse::store::{Options, Store};
use nix::sys::time::TimeValLike;
use nix::time::ClockId;

pub fn event(unix: i64, kind: EventKind, interface: &str, detail: &str) -> Event {
    let (interface, detail) = (interface.to_string(), detail.to_string());
    Event { unix: Some(unix), mono_ms: 0, kind, interface, detail }
}

/// The links of the household; the first is the one towards the internet.
pub const HOME: [(&str, InterfaceKind, &str); 5] = [
    ("wan0", InterfaceKind::Ethernet, "Fibre"),
    ("br-lan", InterfaceKind::Bridge, "Home network"),
    ("eth1", InterfaceKind::Ethernet, ""),
    ("wlan0", InterfaceKind::Wifi, "Wi-Fi"),
    ("wg0", InterfaceKind::Vpn, "Office"),
];
/// A modem that replaced the first link for two days and was then removed.
pub const SPARE: (&str, InterfaceKind, &str) = ("wwan0", InterfaceKind::Wwan, "LTE stick");

/// Traffic at each hour of the day, in percent of that in the evening.
const RHYTHM: [u32; 24] = [30, 14, 6, 4, 3, 4, 10, 24, 30, 26, 24, 28, 36, 34, 30, 34, 44, 58, 70, 86, 100, 98, 80, 52];
const EVENING_BYTES: f64 = 1_400_000.0;

/// The POSIX TZ string of a zone `ahead` hours ahead of UTC.
pub fn posix_zone(ahead: i64) -> String {
    format!("<{ahead:+03}>{}", -ahead)
}

/// Fills a database with a year: days and nights, weekends, two weeks of holidays, an evening without internet, and a
/// restart of the router this morning. Local time is `ahead` hours ahead of UTC.
pub fn fill_home(path: &str, ahead: i64) {
    const DAY: i64 = 86_400;
    let until = unix_now() - 60;
    let mono_ms = nix::time::clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock").num_milliseconds() as u64;
    let start = until - 365 * DAY;
    let restart = until - 10 * 3600;
    let outage = (until + ahead * 3600 - 4 * DAY) / DAY * DAY + (18 - ahead) * 3600;
    let zone = Zone::parse(&posix_zone(ahead)).expect("a zone");
    let mut store = Store::open(path.as_ref(), &Options { max_bytes: 32 << 20 }).expect("a new history").store;
    let mut records: Vec<Record> = (1..)
        .zip(HOME.into_iter().chain([SPARE]))
        .map(|(id, (name, kind, alias))| Record {
            alias: alias.to_string(),
            stack: stack(),
            ..record(id, name, kind, start, until)
        })
        .collect();
    let mut random = Random(0x9e37_79b9);
    let (mut batch, mut seq) = (Batch::default(), 0);
    // A download that fills the line lasts until this time, with this rate in bytes per second.
    let (mut busy_until, mut busy) = (start, 0.0);
    for (days, step) in [(357, 900), (8, 30)] {
        let mut now = until - if step == 30 { 8 } else { 365 } * DAY;
        for _ in 0..days * DAY / step {
            now += step;
            if (restart..restart + 200).contains(&now) {
                continue;
            }
            seq += 1;
            let (day, second) = ((now + ahead * 3600).div_euclid(DAY), (now + ahead * 3600).rem_euclid(DAY));
            let (hour, part) = ((second / 3600) as usize, (second % 3600) as f64 / 3600.0);
            let rhythm = f64::from(RHYTHM[hour]) * (1.0 - part) + f64::from(RHYTHM[(hour + 1) % 24]) * part;
            let weekend = if (day + 4).rem_euclid(7) % 6 == 0 { 1.5 } else { 1.0 };
            let age = (until - now) / DAY;
            let away = if (120..134).contains(&age) { 0.04 } else { 1.0 };
            let growth = 1.0 - age as f64 / 900.0;
            if now > busy_until && random.below((40 * 900 / step) as usize) == 0 && rhythm > 20.0 {
                busy_until = now + 300 + random.below(2400) as i64;
                busy = 2e6 + random.below(9_000_000) as f64;
            }
            let noise = 0.5 + random.below(1000) as f64 / 1000.0;
            let download = if now <= busy_until { busy * away } else { 0.0 };
            let mut down = EVENING_BYTES * rhythm / 100.0 * weekend * away * growth * noise + download;
            // A nightly backup of photographs.
            let backup = if (10_800..12_600).contains(&second) { 1_600_000.0 * away } else { 0.0 };
            let mut up = down * 0.09 + backup + 4000.0 * noise;
            let spare = (200..202).contains(&age);
            let dark = spare || (outage..outage + 5400).contains(&now);
            let stick = if spare { (down * 0.3, up * 0.3) } else { (0.0, 0.0) };
            if dark {
                (down, up) = (20.0, 30.0);
            }
            let office = (8..17).contains(&hour) && weekend == 1.0;
            let tunnel = if office && !dark { 60_000.0 * noise * away } else { 20.0 };
            let wireless = 0.35 + 0.3 * part;
            // Traffic inside the LAN: a printer, a NAS.
            let lan = (up * 1.02 + 3000.0, down * 1.02 + 9000.0);
            let rates = [
                (down, up),
                lan,
                (lan.0 * (1.0 - wireless), lan.1 * (1.0 - wireless)),
                (lan.0 * wireless, lan.1 * wireless),
                (tunnel * 0.8, tunnel * 0.2),
                stick,
            ];
            for (iface, (rx, tx)) in (1..).zip(rates) {
                if rx == 0.0 {
                    continue;
                }
                let [rx, tx] = [rx, tx].map(|rate| (rate * step as f64) as u64);
                let delta = Counters::of([rx, tx, rx / 1100 + 1, tx / 700 + 1, 0, 0, 0, 0]);
                batch.samples.push(Sample { iface, quality: SampleQuality::Plain, span_ms: step as u64 * 1000, delta });
            }
            // Times since this boot: links that the test creates have carried no traffic before the last tick.
            let mono_ms = mono_ms.saturating_sub((until + 60 - now) as u64 * 1000);
            batch.ticks.push(Tick { seq, mono_ms, unix: Some(now), end: batch.samples.len() });
            if batch.ticks.len() == 240 {
                save(&mut store, &mut batch, &mut records, &[], &[], &zone);
            }
        }
    }
    let events = [
        event(until - 200 * DAY, EventKind::Vanished, SPARE.0, ""),
        event(restart, EventKind::Stop, "", "version 0.1.0"),
        event(restart + 200, EventKind::Start, "", "version 0.1.0"),
        event(restart + 210, EventKind::Reset, HOME[0].0, "the counters began again"),
    ];
    let settings = [("primary_found".to_string(), Some(HOME[0].0.to_string()))];
    save(&mut store, &mut batch, &mut records, &events, &settings, &zone);
}
