//! Health of the service, and facts about the machine.

use std::sync::atomic::Ordering;

use super::{collector, link_state};
use crate::error::Error;
use crate::http::accept::prefers_html;
use crate::http::json::{
    About, ClockDetails, DatabaseDetails, Health, HealthDetails, HttpDetails, InterfacesDetails, SERVICE_NAME,
    SystemHealth, SystemInfo, SystemMetrics, Time,
};
use crate::http::{Answer, Call, Context, HttpError, assets};
use crate::live::{Database, Iface, State, Unmatched, Written, unmatched_sentences};
use crate::model::Machine;
use crate::text::counted;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn root(_context: &Context, call: &Call) -> Result<Answer, HttpError> {
    if let Some(page) = assets::find("/").filter(|_| call.request.accept.is_some_and(prefers_html)) {
        return assets::answer(page, call.request);
    }
    let mut answer = Answer::json(&About {
        name: SERVICE_NAME,
        version: VERSION,
        description: env!("CARGO_PKG_DESCRIPTION"),
        status: "running",
    })?;
    answer.header("Vary", "Accept");
    Ok(answer)
}

/// The health states and the reason.
#[derive(Debug, PartialEq)]
struct Verdict {
    overall: &'static str,
    collector: &'static str,
    database: &'static str,
    interfaces: &'static str,
    reason: Option<String>,
}

/// The collector is unhealthy after this many intervals without a sample, whether readings fail or the sampler hangs.
/// One failed reading is harmless: the next one covers its time too.
const MISSED_INTERVALS: u64 = 3;
/// Minimum for short intervals: a busy machine may delay readings for a few seconds.
const MIN_SILENCE_S: u64 = 10;

fn assess(state: &State, mono_ms: u64, unreadable: Option<String>) -> Verdict {
    let polls = &state.health.polls;
    let silence_s = mono_ms.saturating_sub(polls.sampled_mono_ms.unwrap_or(polls.started_mono_ms)) / 1000;
    let broken = silence_s >= MIN_SILENCE_S.max(MISSED_INTERVALS * u64::from(state.active.interval_s));

    let collector = match (state.active.running, broken) {
        (false, _) => ("stopped", Some("collection is stopped".to_string())),
        (true, true) => {
            let cause = polls.last_error.as_deref().unwrap_or("no cause is known");
            ("unhealthy", Some(format!("the counters could not be read for {silence_s} s: {cause}")))
        }
        (true, false) => ("healthy", None),
    };
    let saving = &state.health.saving;
    let unsaved = saving.problem(mono_ms, state.active.flush_s).map(|trouble| {
        let coarser = if saving.coarsened { "; memory is full: older samples become coarser" } else { "" };
        format!("{trouble}{}{coarser}", state.at_risk(mono_ms))
    });
    let database = match (unsaved, unreadable) {
        (Some(unsaved), _) if saving.writer_ended => {
            ("unhealthy", Some(format!("the database does not work: {unsaved}")))
        }
        // Unhealthy, so that a supervisor notices: until a person gives access to the database, nothing of this run is
        // saved.
        (Some(unsaved), _) if saving.open_error_is_permanent && state.health.database != Database::Rejoined => {
            ("unhealthy", Some(unsaved))
        }
        (Some(unsaved), _) if saving.coarsened => ("unhealthy", Some(unsaved)),
        (Some(unsaved), _) => ("degraded", Some(unsaved)),
        (None, Some(unreadable)) => ("degraded", Some(unreadable)),
        (None, None) if saving.wrong_file_warning.is_some() => ("degraded", saving.wrong_file_warning.clone()),
        (None, None) => ("healthy", None),
    };
    let interfaces = match state.inventory.interfaces.iter().any(Iface::present) {
        true => ("healthy", None),
        // Before the first listing of links none can be missing.
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
    Verdict {
        overall,
        collector: collector.0,
        database: database.0,
        interfaces: interfaces.0,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
    }
}

pub fn health(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let verdict = assess(&context.live.lock(), call.now.mono_ms, context.history.disk().read_problem());
    let status = if verdict.overall == "unhealthy" { 503 } else { 200 };
    Answer::json_with(status, &Health { status: verdict.overall, reason: verdict.reason })
}

pub fn details(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    // When the database cannot be read, report the error and answer the rest.
    let (stats, fault) = context.history.stats();
    let unreadable = context.history.disk().read_problem().or_else(|| fault.as_ref().map(Error::to_string));
    let mono_ms = call.now.mono_ms;
    let (unreachable, unreachable_reason): (Vec<_>, Vec<_>) =
        context.unreachable().into_iter().map(|it| (it.address.to_string(), it.why)).unzip();
    let health = {
        let state = context.live.lock();
        let verdict = assess(&state, mono_ms, unreadable);
        let risk = state.at_risk(mono_ms);
        let unmatched_reasons = unmatched_sentences(&state.inventory.unmatched, &state.config);
        let boot_id_note = state.inventory.boot_id_note.map(str::to_string);
        let reasons: Vec<String> = verdict
            .reason
            .into_iter()
            .chain(unmatched_reasons)
            .chain(lost_notifications(&state, mono_ms))
            .chain(unreachable_reason)
            .chain(boot_id_note)
            .collect();
        // The primary interface may also be listed in `interfaces`: name it once.
        let also_in_interfaces = |missing: &Unmatched| {
            let same = |other: &Unmatched| other.key != missing.key && other.pattern == missing.pattern;
            missing.key == "primary" && state.inventory.unmatched.iter().any(same)
        };
        let unmatched = state
            .inventory
            .unmatched
            .iter()
            .filter(|missing| !also_in_interfaces(missing))
            .map(|missing| missing.pattern.clone())
            .collect();
        SystemHealth {
            status: verdict.overall,
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
            database_status: verdict.database,
            interfaces_status: verdict.interfaces,
            collector_status: verdict.collector,
            timestamp: Time(call.unix()),
            clock_believed: state.health.clock_trusted,
            source: state.inventory.source,
            source_note: state.inventory.source_note.clone(),
            details: HealthDetails {
                database: DatabaseDetails {
                    traffic_data_records: stats.samples.saturating_add(risk.samples as u64),
                    configuration_records: stats.settings,
                    database_size_bytes: stats.size_bytes,
                    database_path: context.database.display().to_string(),
                    last_saved: state.health.saving.last_saved.map(Time),
                    unsaved_seconds: risk.seconds,
                    unsaved_records: risk.samples,
                    unsaved_samples: risk.samples,
                    unsaved_since: risk.since.map(Time),
                    unsaved_rx_bytes: risk.of_primary.rx_bytes(),
                    unsaved_tx_bytes: risk.of_primary.tx_bytes(),
                    bytes_written_per_day: state.health.saving.written.and_then(|written| per_day(written, mono_ms)),
                    flush_interval_seconds: state.active.flush_s,
                    save_failures: state.health.saving.failures,
                    error: (state.health.saving.problem(mono_ms, state.active.flush_s))
                        .or_else(|| fault.map(|fault| format!("the history cannot be read: {fault}")))
                        .or_else(|| state.health.saving.wrong_file_warning.clone()),
                },
                interfaces: InterfacesDetails {
                    total_interfaces: state.inventory.interfaces.iter().filter(|iface| iface.present()).count(),
                    active_interfaces: state
                        .inventory
                        .interfaces
                        .iter()
                        .filter(|iface| link_state(iface) == "up")
                        .count(),
                    monitored_interfaces: state
                        .inventory
                        .interfaces
                        .iter()
                        .filter(|it| it.monitored && it.present())
                        .count(),
                    unmatched,
                    reports_lost: state.inventory.notifications_lost,
                },
                collector: collector::describe(&state, mono_ms),
                clock: ClockDetails { believed: state.health.clock_trusted, timezone: state.zone.name().to_string() },
                http: HttpDetails { panics: context.server_state.panics.load(Ordering::Relaxed), unreachable },
            },
        }
    };
    Answer::json(&health)
}

/// Note for one hour after the kernel dropped link notifications: traffic of links that appeared and vanished in
/// between may be in no record.
fn lost_notifications(state: &State, mono_ms: u64) -> Option<String> {
    const REPORTED_FOR_MS: u64 = 3_600_000;
    let ago_ms = mono_ms.saturating_sub(state.inventory.notifications_lost_mono_ms);
    (state.inventory.notifications_lost > 0 && ago_ms < REPORTED_FOR_MS).then(|| {
        let (times, ago) = (counted(state.inventory.notifications_lost, "time", "times"), ago_ms / 60_000);
        format!(
            "the kernel dropped link notifications {times}, the latest {ago} min ago: traffic of links that existed \
             only briefly may be missing"
        )
    })
}

/// Bytes per day; `None` in the first hour, because a shorter time says nothing about a day.
fn per_day(written: Written, mono_ms: u64) -> Option<u64> {
    const HOUR_MS: u64 = 3_600_000;
    let elapsed_ms = mono_ms.saturating_sub(written.since_mono_ms);
    let per_day = u128::from(written.bytes) * u128::from(24 * HOUR_MS) / u128::from(elapsed_ms.max(1));
    (elapsed_ms >= HOUR_MS).then(|| u64::try_from(per_day).unwrap_or(u64::MAX))
}

pub fn info(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
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

pub fn metrics(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let machine = context.machine()?;
    let now = (machine.cpu_busy, machine.cpu_total);
    let before = std::mem::replace(
        &mut *context.server_state.jiffies.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
        now,
    );
    let network_interfaces_count =
        context.live.lock().inventory.interfaces.iter().filter(|iface| iface.present()).count();
    Answer::json(&measure(&machine, before, network_interfaces_count, call.unix()))
}

fn measure(machine: &Machine, before: (u64, u64), network_interfaces_count: usize, unix: i64) -> SystemMetrics {
    let used = |total: u64, free: u64| percent(total.saturating_sub(free), total);
    SystemMetrics {
        cpu_percent: percent(machine.cpu_busy.saturating_sub(before.0), machine.cpu_total.saturating_sub(before.1)),
        memory_percent: used(machine.memory_total, machine.memory_available),
        disk_usage_percent: used(machine.disk_total, machine.disk_free),
        network_interfaces_count,
        timestamp: Time(unix),
        rss_bytes: machine.rss_bytes,
        cpu_seconds: machine.cpu_ms as f64 / 1000.0,
    }
}

/// Percentage with one decimal digit; 0 if `whole` is 0.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    (part as f64 / whole as f64 * 1000.0).round().clamp(0.0, 1000.0) / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{idle_live, iface};

    #[test]
    fn health_states() {
        type Change = fn(&mut State);
        let check = |change: Change, readable: bool, expect: [&str; 4], reason: Option<&str>| {
            let live = idle_live();
            let mut state = live.lock();
            state.inventory.interfaces = vec![iface("eth0", 2)];
            state.health.polls.total = 100;
            state.health.polls.sampled_mono_ms = Some(60_000);
            change(&mut state);
            let unreadable = (!readable).then(|| "answering from memory".to_string());
            let verdict = assess(&state, 90_000, unreadable);
            assert_eq!([verdict.overall, verdict.collector, verdict.database, verdict.interfaces], expect);
            match reason {
                Some(part) => assert!(verdict.reason.as_deref().unwrap_or_default().contains(part), "{verdict:?}"),
                None => assert_eq!(verdict.reason, None),
            }
        };
        let well = ["healthy"; 4];
        check(|_| {}, true, well, None);
        let failing = ["unhealthy", "unhealthy", "healthy", "healthy"];
        check(|state| state.health.polls.sampled_mono_ms = Some(1000), true, well, None);
        // The same if readings fail or the sampler hangs.
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
                state.active.interval_s = 1;
            },
            true,
            well,
            None,
        );
        let stopped = ["degraded", "stopped", "healthy", "healthy"];
        check(|state| state.active.running = false, true, stopped, Some("stopped"));
        let unsaved = ["degraded", "healthy", "degraded", "healthy"];
        check(|state| state.health.saving.error = Some("disk full".to_string()), true, unsaved, Some("disk full"));
        check(|_| {}, false, unsaved, Some("from memory"));
        let lost = ["unhealthy", "healthy", "unhealthy", "healthy"];
        check(|state| state.health.saving.writer_ended = true, true, lost, Some("has ended"));
        fn never_opened(state: &mut State, refused: bool) {
            state.health.database = Database::NotRejoined;
            state.health.saving.error = Some("/data: Permission denied".to_string());
            state.health.saving.open_error_is_permanent = refused;
        }
        check(|state| never_opened(state, true), true, lost, Some("/data: Permission denied"));
        check(|state| never_opened(state, false), true, unsaved, Some("/data: Permission denied"));
        check(
            |state| {
                never_opened(state, true);
                state.health.database = Database::Rejoined;
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
    fn lost_notifications_are_reported_for_an_hour() {
        let live = idle_live();
        let mut state = live.lock();
        assert_eq!(lost_notifications(&state, 1), None);
        (state.inventory.notifications_lost, state.inventory.notifications_lost_mono_ms) = (7, 1_000_000);
        assert!(lost_notifications(&state, 1_120_000).unwrap().contains("7 times, the latest 2 min ago"));
        state.inventory.notifications_lost = 1;
        assert!(lost_notifications(&state, 1_120_000).unwrap().contains("notifications 1 time, the latest"));
        assert_eq!(lost_notifications(&state, 4_600_000), None);
    }

    #[test]
    fn bytes_written_per_day_need_an_hour() {
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
            Machine { cpu_busy: 10, cpu_total: 100, memory_total: 10, memory_available: 20, ..Default::default() };
        let metrics = measure(&machine, (50, 500), 1, 0);
        assert_eq!((metrics.cpu_percent, metrics.memory_percent, metrics.disk_usage_percent), (0.0, 0.0, 0.0));
    }
}
