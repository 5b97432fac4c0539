//! Memory use while the daemon reads a long history: it stays close to the size of the idle program, however much the
//! clients request at once, and the daemon frees it again. Measured from outside, on the release binary.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::stored_history::unix_now;
use crate::common::*;
use crate::stored_history::{HistoryLength, INTERFACES, write_history};

const PEAK_BYTES: u64 = 12 << 20;
/// Freed memory that the allocator may keep. glibc keeps some for each worker, musl only once.
const ALLOCATOR_SLACK_BYTES: u64 = 1 << 20;
const CLIENTS: usize = 4;

/// Paths of GET requests that together read every part of the history.
fn paths(now: i64) -> Vec<String> {
    let all: Vec<String> = (1..=INTERFACES).map(|id| format!("interface=lan{id}")).collect();
    let all = all.join("&");
    let mut paths: Vec<String> = [
        "/",
        "/health",
        "/api/interfaces",
        "/api/traffic/summary",
        "/api/traffic/latest",
        "/api/traffic/history?limit=1000",
        "/api/traffic/history?limit=1000&offset=200000",
        "/api/traffic/history?limit=1000&offset=9007199254740991",
        "/api/traffic/history?limit=1000&interface_name=lan3&offset=10000",
        "/api/traffic/live",
        "/api/events?limit=1000",
        "/api/system/health",
        "/api/system/metrics",
        "/openapi.json",
    ]
    .map(String::from)
    .into();
    for days in [1, 6, 30, 80, 100, 20_000] {
        for points in [1, 100, 720] {
            paths.push(format!("/api/traffic/series?{all}&from={}&points={points}", now - days * 86_400));
        }
    }
    for by in ["hour", "day", "week", "month", "year"] {
        paths.push(format!("/api/traffic/totals?interface=lan1&by={by}&limit=1000"));
        paths.push(format!("/api/traffic/totals?interface=lan1&by={by}&limit=1000&from=0"));
    }
    for resolution in ["sample", "5min", "hour", "day"] {
        for format in ["json", "csv", "csv&bom=1&separator=;&time=local"] {
            paths.push(format!("/api/export/traffic?resolution={resolution}&format={format}"));
        }
    }
    paths
}

/// Reads an answer and discards it, because an export is larger than the memory that this test may use. Repeats a
/// request that the daemon refused with 503: it makes at most two long answers at a time.
fn drain(port: u16, path: &str) {
    let status = (0..10).map(|_| status_of(port, path)).find(|status| *status != 503);
    assert_eq!(status, Some(200), "{path}");
}

fn status_of(port: u16, path: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the daemon listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").expect("the daemon reads");
    let mut buffer = vec![0; 64 << 10];
    let (mut head, mut end) = (Vec::new(), Vec::new());
    loop {
        let count = stream.read(&mut buffer).unwrap_or_else(|error| panic!("{path}: {error}"));
        if count == 0 {
            break;
        }
        if head.len() < 1024 {
            head.extend_from_slice(&buffer[..count.min(1024)]);
        }
        end.extend_from_slice(&buffer[count.saturating_sub(5)..count]);
        end.drain(..end.len().saturating_sub(5));
    }
    let head = String::from_utf8_lossy(&head);
    assert!(!head.contains("Transfer-Encoding: chunked") || end == b"0\r\n\r\n", "{path}: the answer is incomplete");
    head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{path}: {head}"))
}

fn request_in_parallel(port: u16, paths: &[String]) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for at in 0..paths.len() {
                    drain(port, &paths[(at + client * paths.len() / CLIENTS) % paths.len()]);
                }
            });
        }
    });
}

#[test]
fn a_long_history_is_read_in_little_memory() {
    let Some(binary) = release_binary() else {
        return skip("no target/release/net-pulse newer than the source: memory is not measured");
    };
    in_namespace(|| {
        let dir = Dir::new();
        let now = unix_now();
        write_history(&dir.join("net-pulse.db"), HistoryLength::Months);
        for pair in 0..INTERFACES / 2 {
            cable(&format!("lan{}", 2 * pair + 1), &format!("lan{}", 2 * pair + 2));
        }
        let options = ["--interval", "3600", "--flush", "3600"];
        let daemon = Daemon::start_binary(binary.to_str().expect("a plain path"), &dir, &options);
        // As many unsaved ticks as `--media flash` collects in an hour.
        (0..120).for_each(|_| drop(daemon.collect()));
        let (port, paths) = (daemon.port(), paths(now));
        let at_start = daemon.resident();
        paths.iter().for_each(|path| drain(port, path));
        let after_one_client = daemon.resident();
        let chart = paths.iter().find(|path| path.ends_with(&format!("&from={}&points=720", now - 80 * 86_400)));
        let charts = vec![chart.expect("a chart among the paths").clone(); 4];
        let round = || {
            request_in_parallel(port, &charts);
            request_in_parallel(port, &paths);
            daemon.resident()
        };
        // After this round every worker has made every kind of answer.
        let warm = round();
        let (resident, peak) = (round(), daemon.peak());
        println!(
            "resident: {at_start} fresh, {after_one_client} after one client, {warm} and {resident} after four; peak {peak}"
        );
        assert!(peak <= PEAK_BYTES, "{peak} bytes at the peak");
        assert!(resident <= warm + ALLOCATOR_SLACK_BYTES, "{resident} bytes resident, {warm} after the first round");
        assert!(
            warm <= after_one_client + 2 * ALLOCATOR_SLACK_BYTES,
            "{warm} bytes resident, {after_one_client} after one client"
        );
        daemon.stop();
    });
}
