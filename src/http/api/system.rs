//! The service and the machine: what runs here, and how it is.

use std::sync::atomic::Ordering;

use super::{collector, link_word};
use crate::error::Error;
use crate::http::accept::prefers_html;
use crate::http::json::{
    About, ClockDetails, DatabaseDetails, Health, HealthDetails, HttpDetails, InterfacesDetails, NAME, SystemHealth,
    SystemInfo, SystemMetrics, Time,
};
use crate::http::{Answer, Call, Context, Fault, assets};
use crate::live::{Database, Iface, State, Unmatched, Written, unmatched_sentences};
use crate::model::Machine;
use crate::text::counted;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn root(_context: &Context, call: &Call) -> Result<Answer, Fault> {
    if let Some(page) = assets::find("/").filter(|_| call.ask.accept.is_some_and(prefers_html)) {
        return assets::answer(page, call.ask);
    }
    let mut answer = Answer::json(&About {
        name: NAME,
        version: VERSION,
        description: env!("CARGO_PKG_DESCRIPTION"),
        status: "running",
    })?;
    answer.header("Vary", "Accept");
    Ok(answer)
}

/// The words of the health, and why.
#[derive(Debug, PartialEq)]
struct Words {
    overall: &'static str,
    collector: &'static str,
    database: &'static str,
    interfaces: &'static str,
    reason: Option<String>,
}

/// Sampling counts as broken after so many intervals without a sample, whether readings fail or nobody reads any more:
/// one lost reading is made good by the next, which covers the time of both.
const PATIENCE: u64 = 3;
/// A short interval is no reason to cry at a busy moment.
const SHORTEST_SILENCE_S: u64 = 10;

fn judge(state: &State, mono_ms: u64, unreadable: Option<String>) -> Words {
    let polls = &state.health.polls;
    let silence_s = mono_ms.saturating_sub(polls.sampled_mono_ms.unwrap_or(polls.started_mono_ms)) / 1000;
    let broken = silence_s >= SHORTEST_SILENCE_S.max(PATIENCE * u64::from(state.tuning.interval_s));

    let collector = match (state.tuning.running, broken) {
        (false, _) => ("stopped", Some("collection is stopped".to_string())),
        (true, true) => {
            let cause = polls.last_error.as_deref().unwrap_or("no cause is known");
            ("unhealthy", Some(format!("the counters could not be read for {silence_s} s: {cause}")))
        }
        (true, false) => ("healthy", None),
    };
    let saving = &state.health.saving;
    let unsaved = saving.trouble(mono_ms, state.tuning.flush_s).map(|trouble| {
        let coarser = if saving.compacted { "; memory is full: older samples become coarser" } else { "" };
        format!("{trouble}{}{coarser}", state.at_risk(mono_ms))
    });
    let database = match (unsaved, unreadable) {
        (Some(unsaved), _) if saving.lost => ("unhealthy", Some(format!("the database does not work: {unsaved}"))),
        // A supervisor has to hear of it: until a person lets the history be opened, nothing of this run is kept.
        (Some(unsaved), _) if saving.refused && state.health.database != Database::Joined => {
            ("unhealthy", Some(unsaved))
        }
        (Some(unsaved), _) if saving.compacted => ("unhealthy", Some(unsaved)),
        (Some(unsaved), _) => ("degraded", Some(unsaved)),
        (None, Some(unreadable)) => ("degraded", Some(unreadable)),
        (None, None) if saving.elsewhere.is_some() => ("degraded", saving.elsewhere.clone()),
        (None, None) => ("healthy", None),
    };
    let interfaces = match state.inventory.interfaces.iter().any(Iface::present) {
        true => ("healthy", None),
        // Before the first look there is nothing to be missed.
        false if polls.total == 0 => ("healthy", None),
        false => ("unhealthy", Some("there is no network interface".to_string())),
    };

    let parts = [collector.0, database.0];
    let overall = match () {
        _ if parts.contains(&"unhealthy") => "unhealthy",
        _ if parts != ["healthy", "healthy"] || interfaces.0 != "healthy" => "degraded",
        _ => "healthy",
    };
    let reasons: Vec<String> = [collector.1, database.1, interfaces.1].into_iter().flatten().collect();
    Words {
        overall,
        collector: collector.0,
        database: database.0,
        interfaces: interfaces.0,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
    }
}

pub fn health(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let words = judge(&context.live.lock(), call.now.mono_ms, context.history.disk().trouble());
    let status = if words.overall == "unhealthy" { 503 } else { 200 };
    Answer::json_with(status, &Health { status: words.overall, reason: words.reason })
}

pub fn details(context: &Context, call: &Call) -> Result<Answer, Fault> {
    // A store that cannot even count is told of, in place of the whole answer being lost to it.
    let (facts, fault) = context.history.facts();
    let unreadable = context.history.disk().trouble().or_else(|| fault.as_ref().map(Error::to_string));
    let mono_ms = call.now.mono_ms;
    let (unreachable, not_reached): (Vec<_>, Vec<_>) =
        context.unreachable().into_iter().map(|it| (it.address.to_string(), it.why)).unzip();
    let health = {
        let state = context.live.lock();
        let words = judge(&state, mono_ms, unreadable);
        let risk = state.at_risk(mono_ms);
        let asked = unmatched_sentences(&state.inventory.unmatched, &state.config);
        let unknown = state.inventory.unknown.map(str::to_string);
        let reasons: Vec<String> = words
            .reason
            .into_iter()
            .chain(asked)
            .chain(unheard(&state, mono_ms))
            .chain(not_reached)
            .chain(unknown)
            .collect();
        // The headline may be in the list of what to watch too.
        let again = |asked: &Unmatched| {
            let same = |other: &Unmatched| other.key != asked.key && other.pattern == asked.pattern;
            asked.key == "primary" && state.inventory.unmatched.iter().any(same)
        };
        let unmatched =
            state.inventory.unmatched.iter().filter(|asked| !again(asked)).map(|asked| asked.pattern.clone()).collect();
        SystemHealth {
            status: words.overall,
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
            database_status: words.database,
            interfaces_status: words.interfaces,
            collector_status: words.collector,
            timestamp: Time(call.unix()),
            clock_believed: state.health.clock_believed,
            source: state.inventory.source,
            source_note: state.inventory.source_note.clone(),
            details: HealthDetails {
                database: DatabaseDetails {
                    traffic_data_records: facts.samples.saturating_add(risk.samples as u64),
                    configuration_records: facts.settings,
                    database_size_bytes: facts.size_bytes,
                    database_path: context.database.display().to_string(),
                    last_saved: state.health.saving.last_saved.map(Time),
                    unsaved_seconds: risk.seconds,
                    unsaved_records: risk.samples,
                    unsaved_samples: risk.samples,
                    unsaved_since: risk.since.map(Time),
                    unsaved_rx_bytes: risk.of_primary.rx_bytes(),
                    unsaved_tx_bytes: risk.of_primary.tx_bytes(),
                    bytes_written_per_day: state.health.saving.written.and_then(|written| per_day(written, mono_ms)),
                    flush_interval_seconds: state.tuning.flush_s,
                    save_failures: state.health.saving.failures,
                    error: (state.health.saving.trouble(mono_ms, state.tuning.flush_s))
                        .or_else(|| fault.map(|fault| format!("the history cannot be read: {fault}")))
                        .or_else(|| state.health.saving.elsewhere.clone()),
                },
                interfaces: InterfacesDetails {
                    total_interfaces: state.inventory.interfaces.iter().filter(|iface| iface.present()).count(),
                    active_interfaces: state
                        .inventory
                        .interfaces
                        .iter()
                        .filter(|iface| link_word(iface) == "up")
                        .count(),
                    monitored_interfaces: state
                        .inventory
                        .interfaces
                        .iter()
                        .filter(|it| it.monitored && it.present())
                        .count(),
                    unmatched,
                    reports_lost: state.inventory.reports_lost,
                },
                collector: collector::describe(&state, mono_ms),
                clock: ClockDetails { believed: state.health.clock_believed, timezone: state.zone.name().to_string() },
                http: HttpDetails { panics: context.notes.panics.load(Ordering::Relaxed), unreachable },
            },
        }
    };
    Answer::json(&health)
}

/// Bytes of links that came and went while the kernel dropped its reports of them may be in no record. Told for an hour.
fn unheard(state: &State, mono_ms: u64) -> Option<String> {
    const TOLD_MS: u64 = 3_600_000;
    let ago_ms = mono_ms.saturating_sub(state.inventory.reports_lost_ms);
    (state.inventory.reports_lost > 0 && ago_ms < TOLD_MS).then(|| {
        let (times, ago) = (counted(state.inventory.reports_lost, "time", "times"), ago_ms / 60_000);
        format!(
            "links came and went too fast for the kernel's reports, {times}, the latest {ago} min ago: \
             what the shortest-lived of them carried may be counted nowhere"
        )
    })
}

/// A figure of a shorter time than an hour says nothing about a day.
fn per_day(written: Written, mono_ms: u64) -> Option<u64> {
    const HOUR_MS: u64 = 3_600_000;
    let elapsed_ms = mono_ms.saturating_sub(written.since_mono_ms);
    let per_day = u128::from(written.bytes) * u128::from(24 * HOUR_MS) / u128::from(elapsed_ms.max(1));
    (elapsed_ms >= HOUR_MS).then(|| u64::try_from(per_day).unwrap_or(u64::MAX))
}

pub fn info(context: &Context, _call: &Call) -> Result<Answer, Fault> {
    let machine = context.machine()?;
    Answer::json(&SystemInfo {
        hostname: machine.hostname,
        os: machine.os,
        version: VERSION,
        uptime_seconds: machine.uptime_s,
        cpu_count: machine.cpu_count,
        memory_total: machine.memory_total,
        memory_available: machine.memory_available,
    })
}

pub fn metrics(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let machine = context.machine()?;
    let now = (machine.cpu_busy, machine.cpu_all);
    let before =
        std::mem::replace(&mut *context.notes.jiffies.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), now);
    let network_interfaces_count =
        context.live.lock().inventory.interfaces.iter().filter(|iface| iface.present()).count();
    Answer::json(&measure(&machine, before, network_interfaces_count, call.unix()))
}

fn measure(machine: &Machine, before: (u64, u64), network_interfaces_count: usize, unix: i64) -> SystemMetrics {
    let used = |total: u64, free: u64| percent(total.saturating_sub(free), total);
    SystemMetrics {
        cpu_percent: percent(machine.cpu_busy.saturating_sub(before.0), machine.cpu_all.saturating_sub(before.1)),
        memory_percent: used(machine.memory_total, machine.memory_available),
        disk_usage_percent: used(machine.disk_total, machine.disk_free),
        network_interfaces_count,
        timestamp: Time(unix),
        rss_bytes: machine.rss_bytes,
        cpu_seconds: machine.cpu_ms as f64 / 1000.0,
    }
}

/// To one digit; 0 of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    (part as f64 / whole as f64 * 1000.0).round().clamp(0.0, 1000.0) / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{iface, quiet};

    #[test]
    fn words() {
        type Change = fn(&mut State);
        let check = |change: Change, readable: bool, expect: [&str; 4], reason: Option<&str>| {
            let live = quiet();
            let mut state = live.lock();
            state.inventory.interfaces = vec![iface("eth0", 2)];
            state.health.polls.total = 100;
            state.health.polls.sampled_mono_ms = Some(60_000);
            change(&mut state);
            let unreadable = (!readable).then(|| "answering from memory".to_string());
            let words = judge(&state, 90_000, unreadable);
            assert_eq!([words.overall, words.collector, words.database, words.interfaces], expect);
            match reason {
                Some(part) => assert!(words.reason.as_deref().unwrap_or_default().contains(part), "{words:?}"),
                None => assert_eq!(words.reason, None),
            }
        };
        let well = ["healthy"; 4];
        check(|_| {}, true, well, None);
        let failing = ["unhealthy", "unhealthy", "healthy", "healthy"];
        check(|state| state.health.polls.sampled_mono_ms = Some(1000), true, well, None);
        // Whether readings fail or the sampler hangs and counts nothing.
        check(|state| state.health.polls.sampled_mono_ms = Some(0), true, failing, Some("for 90 s"));
        check(
            |state| {
                state.health.polls.sampled_mono_ms = None;
                state.health.polls.last_error = Some("no netlink".to_string());
            },
            true,
            failing,
            Some("no netlink"),
        );
        check(|state| state.health.polls.sampled_mono_ms = None, true, failing, Some("no cause is known"));
        check(
            |state| {
                state.health.polls.sampled_mono_ms = Some(85_000);
                state.tuning.interval_s = 1;
            },
            true,
            well,
            None,
        );
        let stopped = ["degraded", "stopped", "healthy", "healthy"];
        check(|state| state.tuning.running = false, true, stopped, Some("stopped"));
        let unsaved = ["degraded", "healthy", "degraded", "healthy"];
        check(|state| state.health.saving.error = Some("disk full".to_string()), true, unsaved, Some("disk full"));
        check(|_| {}, false, unsaved, Some("from memory"));
        let lost = ["unhealthy", "healthy", "unhealthy", "healthy"];
        check(|state| state.health.saving.lost = true, true, lost, Some("has ended"));
        fn never_opened(state: &mut State, refused: bool) {
            state.health.database = Database::Absent;
            state.health.saving.error = Some("/data: Permission denied".to_string());
            state.health.saving.refused = refused;
        }
        check(|state| never_opened(state, true), true, lost, Some("/data: Permission denied"));
        check(|state| never_opened(state, false), true, unsaved, Some("/data: Permission denied"));
        check(
            |state| {
                never_opened(state, true);
                state.health.database = Database::Joined;
            },
            true,
            unsaved,
            Some("/data: Permission denied"),
        );
        let alone = ["degraded", "healthy", "healthy", "unhealthy"];
        check(|state| state.inventory.interfaces.clear(), true, alone, Some("no network interface"));
        check(|state| state.inventory.interfaces[0].ifindex = 0, true, alone, Some("no network interface"));
        check(
            |state| {
                state.inventory.interfaces.clear();
                state.health.polls.total = 0;
            },
            true,
            well,
            None,
        );
    }

    #[test]
    fn lost_reports_are_told_of_for_an_hour() {
        let live = quiet();
        let mut state = live.lock();
        assert_eq!(unheard(&state, 1), None);
        (state.inventory.reports_lost, state.inventory.reports_lost_ms) = (7, 1_000_000);
        assert!(unheard(&state, 1_120_000).unwrap().contains("7 times, the latest 2 min ago"));
        state.inventory.reports_lost = 1;
        assert!(unheard(&state, 1_120_000).unwrap().contains("reports, 1 time, the latest"));
        assert_eq!(unheard(&state, 4_600_000), None);
    }

    #[test]
    fn what_is_written_in_a_day() {
        let check = |bytes, elapsed_ms: u64, expect| {
            assert_eq!(per_day(Written { bytes, since_mono_ms: 5_000 }, 5_000 + elapsed_ms), expect);
        };
        check(1_000_000, 3_599_999, None);
        check(1_000_000, 3_600_000, Some(24_000_000));
        check(3_000_000, 86_400_000, Some(3_000_000));
        check(0, 86_400_000, Some(0));
        check(u64::MAX, 3_600_000, Some(u64::MAX));
    }

    #[test]
    fn percentages() {
        let check = |part, whole, expect| assert_eq!(percent(part, whole), expect);
        check(0, 0, 0.0);
        check(1, 3, 33.3);
        check(3, 3, 100.0);
        check(5, 3, 100.0);
        check(u64::MAX, u64::MAX, 100.0);
        let machine =
            Machine { cpu_busy: 10, cpu_all: 100, memory_total: 10, memory_available: 20, ..Default::default() };
        let metrics = measure(&machine, (50, 500), 1, 0);
        assert_eq!((metrics.cpu_percent, metrics.memory_percent, metrics.disk_usage_percent), (0.0, 0.0, 0.0));
    }
}
