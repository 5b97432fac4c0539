//! State of the collector, and requests to start it, to stop it and to take one sample.

use std::time::Duration;

use super::config::change_within;
use super::seconds;
use crate::http::json::{Collection, CollectorStatus, Configuration, Run, Stats, Time};
use crate::http::{Answer, Call, Context, HttpError};
use crate::live::State;

/// Timeout for one sample. The configured retries may take longer, but a client should not wait longer.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer waits for the save. The change itself takes effect at once.
const SAVE_TIMEOUT: Duration = Duration::from_millis(500);

pub fn stats(state: &State, mono_ms: u64) -> Stats {
    let polls = &state.health.polls;
    Stats {
        total_polls: polls.total,
        successful_polls: polls.successful,
        failed_polls: polls.failed,
        interfaces_monitored: state
            .inventory
            .interfaces
            .iter()
            .filter(|iface| iface.monitored && iface.present())
            .count(),
        last_poll_time: polls.last.map(Time),
        last_successful_poll: polls.last_successful.map(Time),
        total_errors: polls.errors,
        consecutive_failures: polls.consecutive_failures,
        uptime_seconds: mono_ms.saturating_sub(polls.started_mono_ms) / 1000,
    }
}

pub fn describe(state: &State, mono_ms: u64) -> CollectorStatus {
    let active = &state.active;
    let stats = stats(state, mono_ms);
    CollectorStatus {
        is_running: active.running,
        configuration: Configuration {
            monitored_interfaces: if active.interfaces.is_empty() {
                let monitored = state.inventory.interfaces.iter().filter(|iface| iface.monitored && iface.present());
                monitored.map(|iface| iface.name.as_str()).collect::<Vec<_>>().join(",")
            } else {
                active.interfaces.join(",")
            },
            polling_interval: active.interval_s.to_string(),
            max_retries: active.max_retries.to_string(),
            retry_delay: seconds(active.retry_delay_ms),
            last_collection: stats.last_successful_poll,
        },
        // The first successful reading of an interface is the baseline for the second one.
        previous_data_count: if stats.successful_polls == 0 { 0 } else { stats.interfaces_monitored },
        stats,
        source: state.inventory.source,
        source_note: state.inventory.source_note.clone(),
        last_error: state.health.polls.last_error.clone(),
    }
}

pub fn status(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let status = describe(&context.live.lock(), call.now.mono_ms);
    Answer::json(&status)
}

pub fn start(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    set_running(context, true, ["Collector started", "Collector is already running"])
}

pub fn stop(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    set_running(context, false, ["Collector stopped", "Collector is already stopped"])
}

fn set_running(context: &Context, running: bool, [changed, unchanged]: [&'static str; 2]) -> Result<Answer, HttpError> {
    let message = if context.live.lock().active.running == running { unchanged } else { changed };
    let changes = |_: &State| Ok(vec![("running", Some(running.to_string()))]);
    let saved = change_within(context, SAVE_TIMEOUT, changes)?;
    Answer::json(&Run { message, status: if running { "running" } else { "stopped" }, saved })
}

pub fn collect(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    let Some(collected) = context.live.collect(COLLECT_TIMEOUT) else {
        return Err(HttpError::new(503, "no sample could be taken in time; see /api/system/health"));
    };
    let now = context.clock.now();
    let stats = stats(&context.live.lock(), now.mono_ms);
    Answer::json(&Collection {
        success: collected.errors.is_empty(),
        timestamp: Time(now.unix_ms.div_euclid(1000)),
        interfaces_collected: collected.interfaces,
        errors: collected.errors,
        stats,
    })
}
