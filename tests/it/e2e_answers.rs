//! Answers that people compare with a bill or a spreadsheet, tested from outside: dates, rates and observed seconds.

use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::*;

const FAST: [&str; 4] = ["--interval", "1", "--flush", "3600"];

/// The date in a zone, from the `date` command.
fn date(zone: &str, when: &str) -> String {
    let mut command = Command::new("date");
    command.env("TZ", zone).args(["-d", when, "+%F"]).stdin(Stdio::null());
    String::from_utf8(command.output().expect("coreutils").stdout).expect("text").trim().to_string()
}

/// In zones far from UTC, the local date differs from the UTC date for half of the day. It can differ even longer from
/// the date where the user is.
#[test]
fn days_have_the_date_of_the_router() {
    in_namespace(|| {
        let zones =
            ["SST11", "<-12>12", "<+14>-14", "<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45", "<+0545>-5:45", "UTC0"];
        cable("wan0", "lan0");
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &FAST);
        send("wan0", 700, 5);
        daemon.wait_for_ticks(2);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let end = (now / 86_400 + 1) * 86_400;
        for zone in zones {
            let changed = serde_json::json!({ "timezone": zone }).to_string();
            assert_eq!(daemon.request("PATCH", "/api/config", Some(changed)).status, 200);
            let date_and_row = |path: &str, row: &dyn Fn(&Value) -> Value| {
                // Repeat until both are of the same day.
                loop {
                    let (before, answer) = (date(zone, "now"), daemon.get(path));
                    if before == date(zone, "now") {
                        return (Value::from(before), row(&answer));
                    }
                }
            };
            for by in ["hour", "day"] {
                let path = format!("/api/traffic/totals?by={by}&limit=1&interface=wan0");
                for member in ["first_day", "last_day"] {
                    let (today, shown) = date_and_row(&path, &|rows| rows[0][member].clone());
                    assert_eq!(shown, today, "{zone} {by} {member}");
                }
            }
            let month = daemon.get("/api/traffic/totals?by=month&limit=1&interface=wan0");
            assert!(month[0]["first_day"].as_str().is_some_and(|day| day.ends_with("-01")), "{zone} {month}");
            let path = format!("/api/traffic/series?points=10&from={}&to={end}&interface=wan0", end - 864_000);
            let series = daemon.get(&path);
            let step = series["step"].as_i64().expect("seconds");
            assert_eq!(step % 86_400, 0, "{series}");
            let first = series["first_day"].as_str().expect("a date");
            for (at, begin) in series["t"].as_array().expect("a column").iter().enumerate() {
                let later = format!("{first} +{} days", at as i64 * step / 86_400);
                assert_eq!(date("UTC0", &later), date(zone, &format!("@{begin}")), "{zone}: {series}");
            }
        }
        let series = daemon.get("/api/traffic/series?points=40&interface=wan0");
        assert_eq!(
            (&series["first_day"], series["step"].as_i64().map(|step| step < 86_400)),
            (&Value::Null, Some(true))
        );
    });
}

fn numbers(column: &Value) -> Vec<Option<u64>> {
    column.as_array().expect("a column").iter().map(Value::as_u64).collect()
}

/// A mean rate covers only the observed seconds: a few seconds of a day must not look like a whole day.
#[test]
fn rates_and_observed_seconds_give_the_bytes() {
    in_namespace(|| {
        cable("wan0", "lan0");
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        send("lan0", 1000, 600);
        daemon.wait_for_ticks(2);
        send("lan0", 1000, 400);
        daemon.collect();
        let bytes: u64 = daemon.export("wan0").iter().map(|row| row["rx_bytes"].as_u64().expect("a number")).sum();
        assert_eq!(bytes, 1_000_000);
        for points in [1, 2, 7, 24, 288, 720] {
            let series = daemon.get(&format!("/api/traffic/series?interface=wan0&points={points}"));
            let columns = &series["interfaces"]["wan0"];
            let (rx, observed) = (numbers(&columns["rx"]), numbers(&columns["observed"]));
            let bytes_of = |at: usize| rx[at].unwrap_or(0) * observed[at].expect("a number");
            let (sum, seconds) = ((0..rx.len()).map(bytes_of).sum::<u64>(), observed.iter().flatten().sum::<u64>());
            // Each rate is rounded to a byte per second.
            assert!(sum.abs_diff(bytes) <= seconds, "{points}: {sum} in {seconds} s of {columns}");
            assert!((2..600).contains(&seconds), "{points}: {seconds}");
            assert!((0..rx.len()).all(|at| rx[at].is_some() == (observed[at] > Some(0))), "{columns}");
        }
        // An hour, a day and a month that are not over yet show how many of their seconds were observed.
        for by in ["hour", "day", "month"] {
            let row = daemon.get(&format!("/api/traffic/totals?by={by}&limit=1&interface=wan0"))[0].clone();
            assert_eq!(row["complete"], false, "{row}");
            assert!(row["observed"].as_u64().is_some_and(|seconds| (1..600).contains(&seconds)), "{row}");
        }
        for resolution in ["5min", "hour", "day"] {
            let rows = daemon.get(&format!("/api/export/traffic?resolution={resolution}&interface_name=wan0"));
            let seconds: u64 = rows.as_array().expect("rows").iter().map(|row| row["observed"].as_u64().unwrap()).sum();
            assert!((1..600).contains(&seconds), "{resolution}: {rows}");
        }
    });
}

/// Several samples within a second do not add up to more observed time than has passed.
#[test]
fn requested_samples_do_not_add_observed_seconds() {
    in_namespace(|| {
        cable("wan0", "lan0");
        let dir = Dir::new();
        let started = Instant::now();
        let daemon = Daemon::start(&dir, &["--interface", "wan0", "--flush", "3600"]);
        wait_until("the first reading", || daemon.polls() > 0);
        for turn in 0..60 {
            send("lan0", 1000, 1);
            let changed = serde_json::json!({ "monitored": (turn % 2 == 0).then_some(true) }).to_string();
            assert_eq!(daemon.request("PATCH", "/api/interfaces/lan0", Some(changed)).status, 200);
            daemon.collect();
        }
        let elapsed = started.elapsed().as_secs() + 1;
        for (path, rows) in [
            ("/api/traffic/totals?by=hour&interface=wan0", 3),
            ("/api/traffic/totals?by=day&interface=wan0", 2),
            ("/api/export/traffic?resolution=5min&interface_name=wan0", 2),
        ] {
            let answer = daemon.get(path);
            let answer = answer.as_array().expect("rows");
            assert!((1..=rows).contains(&answer.len()), "{answer:?}");
            let observed: u64 = answer.iter().map(|row| row["observed"].as_u64().expect("seconds")).sum();
            assert!(observed <= elapsed, "{path}: {observed} of {elapsed} s");
            // One frame within a few milliseconds must not be extrapolated to a rate per second.
            let peak = answer.iter().filter_map(|row| row["rx_peak"].as_u64()).max().unwrap_or(0);
            assert!(peak <= 2 * 60 * 1000, "{path}: {peak}");
        }
    });
}

/// A process that was stopped has a gap for that time, and nowhere else.
#[test]
fn a_stall_leaves_a_gap_and_nothing_else_does() {
    in_namespace(|| {
        cable("wan0", "lan0");
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &FAST);
        send("wan0", 700, 1);
        daemon.wait_for_ticks(3);
        let pid = Pid::from_raw(daemon.pid() as i32);
        for milliseconds in [2_300, 3_700] {
            kill(pid, Signal::SIGSTOP).expect("the daemon runs");
            sleep_ms(milliseconds);
            kill(pid, Signal::SIGCONT).expect("the daemon runs");
            daemon.wait_for_ticks(3);
        }
        let rows = daemon.export("wan0");
        let unix = |time: &Value| {
            let output = Command::new("date").args(["-d", time.as_str().expect("a time"), "+%s"]).output();
            String::from_utf8(output.expect("coreutils").stdout).expect("text").trim().parse::<i64>().expect("a number")
        };
        let (first, last) = (unix(&rows[0]["timestamp"]), unix(&rows[rows.len() - 1]["timestamp"]));
        let events = daemon.get("/api/events?kind=gap&interface=wan0");
        let gaps: Vec<(i64, i64)> = events
            .as_array()
            .expect("events")
            .iter()
            .map(|event| {
                let seconds = event["detail"].as_str().and_then(|detail| detail.split(' ').nth(3)?.parse::<i64>().ok());
                let end = unix(&event["time"]);
                (end - seconds.expect("no reading for N s") - 1, end)
            })
            .collect();
        assert!(!gaps.is_empty(), "{events}");
        let series = daemon.get(&format!("/api/traffic/series?interface=wan0&from={first}&to={last}"));
        assert_eq!(series["step"], 1, "{series}");
        let (t, rx) = (numbers(&series["t"]), numbers(&series["interfaces"]["wan0"]["rx"]));
        let mut unknown = 0;
        for (second, rate) in t.iter().zip(rx) {
            let second = second.expect("a time") as i64;
            let inside = gaps.iter().any(|(from, to)| (*from..*to).contains(&second));
            assert!(rate.is_some() || inside, "{second} is in none of {gaps:?}: {series}");
            unknown += i64::from(rate.is_none());
        }
        assert!(unknown >= 2, "{unknown} of {gaps:?}: {series}");
    });
}

/// The page needs figures for its top when it is opened for the first time: those of the uplink, or of the interface
/// that has carried the most traffic so far.
#[test]
fn a_provisional_primary_interface_is_shown_at_once() {
    in_namespace(|| {
        cable("wan0", "far0");
        cable("lan0", "pc0");
        send("far0", 700, 10);
        send("pc0", 700, 90);
        let primary_name = |daemon: &Daemon| {
            wait_until("the first reading", || daemon.polls() > 0);
            assert_eq!(daemon.get("/api/events?kind=primary"), Value::Array(Vec::new()), "no primary is chosen yet");
            let primary = &daemon.get("/api/traffic/summary")["primary"];
            primary["name"].as_str().unwrap_or_default().to_string()
        };
        let more = ["--interface", "wan0", "--interface", "lan0"];
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &more);
        assert_eq!(primary_name(&daemon), "lan0");
        drop(daemon);
        ip("addr add 192.0.2.1/24 dev wan0");
        ip("route add default via 192.0.2.2");
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &more);
        assert_eq!(primary_name(&daemon), "wan0");
    });
}
