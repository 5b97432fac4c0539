//! Thousands of links, as hypervisors and clusters create and remove them, and links that match no rule. The real
//! program runs in a network namespace, and the tests compare its figures with the kernel's byte counters.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use crate::common::*;
use serde_json::Value;

/// An `ip -batch -` process that reads its commands from a pipe.
struct IpBatch(Child);

impl IpBatch {
    fn start() -> IpBatch {
        let ip = Command::new("ip").args(["-force", "-batch", "-"]).stdin(Stdio::piped()).spawn();
        IpBatch(ip.expect("ip starts"))
    }

    fn write_lines(&mut self, lines: &str) {
        let stdin = self.0.stdin.as_mut().expect("a pipe");
        stdin.write_all(lines.as_bytes()).expect("ip reads");
        stdin.flush().expect("ip reads");
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(wait(&mut self.0, TIMEOUT).expect("ip ends").success());
    }
}

/// Anonymous memory of the process in bytes: RssAnon in /proc/PID/status.
fn anonymous_bytes(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn interfaces(daemon: &Daemon) -> Vec<Value> {
    daemon.get("/api/interfaces").as_object().expect("an object").values().cloned().collect()
}

/// Sums over all interfaces: received and sent bytes.
fn lifetimes(daemon: &Daemon) -> (u64, u64) {
    let sum = |key: &str| interfaces(daemon).iter().map(|row| row[key].as_u64().expect("a number")).sum();
    (sum("lifetime_rx_bytes"), sum("lifetime_tx_bytes"))
}

/// Sums over the whole history at one resolution: received and sent bytes.
fn exported(daemon: &Daemon, resolution: &str) -> (u64, u64) {
    let rows = daemon.get(&format!("/api/export/traffic?format=json&resolution={resolution}"));
    let rows = rows.as_array().expect("a list");
    let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().expect("a number")).sum();
    (sum("rx_bytes"), sum("tx_bytes"))
}

/// Names of the two ends of a cable. Programs choose names like the first five pairs, people names like the last.
fn names(at: usize) -> (String, String) {
    match at % 6 {
        0 => (format!("veth{at:08x}"), format!("veth{at:08x}p")),
        1 => (format!("cali{at:011x}"), format!("cali{at:010x}p")),
        2 => (format!("lxc{at:012x}"), format!("lxc{at:011x}p")),
        3 => (format!("fwln{at}i0"), format!("fwpr{at}p0")),
        4 => (format!("vnet{at}"), format!("veth{at}")),
        _ => (format!("job{at}"), format!("work{at}")),
    }
}

fn is_ignored(name: &str) -> bool {
    ["veth", "cali", "lxc", "fwln", "fwpr", "vnet"].iter().any(|prefix| name.starts_with(prefix))
}

#[test]
fn three_thousand_links_that_come_and_go() {
    const LINKS: usize = 3_000;
    const AT_ONCE: usize = 50;
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--interval", "1", "--flush", "2"]);
        // One heap for all threads, as in the release binary: glibc keeps freed memory for each thread.
        command.args(["--database", &dir.join("net-pulse.db")]).env("MALLOC_ARENA_MAX", "1");
        let daemon = Daemon::spawn(command);
        daemon.wait_for_ticks(2);
        send("wan0", 100, 3);
        // First let the process grow as it does without these links: read every list, and let a few links come and go.
        for at in 900_000..900_020 {
            let (near, far) = names(at);
            ip(&format!("link add {near} type veth peer name {far}"));
            ip(&format!("link del {near}"));
        }
        daemon.collect();
        interfaces(&daemon);
        for resolution in ["sample", "5min", "hour", "day"] {
            exported(&daemon, resolution);
        }
        let before = anonymous_bytes(&daemon);

        let mut batch = IpBatch::start();
        let (mut sent, mut received) = (0u64, 0u64);
        for first in (0..LINKS / 2).step_by(AT_ONCE) {
            let pairs: Vec<(String, String)> = (first..first + AT_ONCE).map(names).collect();
            for (near, far) in &pairs {
                batch
                    .write_lines(&format!("link add {near} group 7 up type veth peer name {far}\nlink set {far} up\n"));
            }
            let last = pairs.last().expect("not empty").1.clone();
            let up = || fs::read_to_string(format!("/sys/class/net/{last}/operstate"));
            wait_until("the links are up", || up().unwrap_or_default().trim() == "up");
            for (at, (near, far)) in (first..).zip(&pairs) {
                let bytes = 100 + at % 50;
                send(near, bytes, 2);
                // The kernel's counters. Only ends that are not ignored count.
                let [near, far] = [near, far].map(|end| kernel_counters(end));
                assert_eq!([near[0], near[1], far[0], far[1]], [0, 2 * bytes as u64, 2 * bytes as u64, 0]);
                if !is_ignored(&pairs[at - first].0) {
                    sent += near[1];
                    received += far[0];
                }
            }
            batch.write_lines("link del group 7\n");
            let gone = || !std::path::Path::new(&format!("/sys/class/net/{last}")).exists();
            wait_until("the links are gone", gone);
        }
        batch.end();
        daemon.wait_for_ticks(2);
        daemon.collect();
        let base = [daemon.exported_sum("wan0"), daemon.exported_sum("lan0")];
        let wires = [0, 1].map(|side| base[0][side] + base[1][side]);
        let totals = lifetimes(&daemon);
        let grown = anonymous_bytes(&daemon).saturating_sub(before);
        let health = daemon.get("/api/system/health");
        assert_eq!(health["details"]["interfaces"]["reports_lost"], 0, "{health}");
        assert_eq!(totals.1, sent + wires[1], "{:#?}", daemon.log());
        // The kernel takes the received bytes of a veth from its peer. The peer is gone when the link is removed, so
        // the last notification shows zero, and only bytes of earlier readings are known.
        assert!((wires[0]..=received + wires[0]).contains(&totals.0), "{totals:?}");
        // The writer merges records into "others" with its next save.
        wait_until("the history has all of it too", || {
            ["sample", "5min", "hour", "day"].iter().all(|resolution| exported(&daemon, resolution) == totals)
        });
        let rows = interfaces(&daemon);
        // The writer merges sixteen or more records at once, so up to fifteen may remain.
        assert!(rows.len() <= 256 + 15 + 4, "{} entries", rows.len());
        assert!(
            rows.iter().all(|row| !is_ignored(row["name"].as_str().expect("a name"))),
            "an ignored link has a record"
        );
        let others = daemon.interface("others");
        assert_eq!(
            (&others["kind"], &others["present"], &others["monitored"]),
            (&"others".into(), &false.into(), &false.into())
        );
        let listed = daemon.request("GET", "/api/interfaces", None).text().len();
        assert!(listed < 200_000, "{listed} bytes");
        println!("{} entries, {listed} bytes, {grown} bytes more of memory", rows.len());
        assert!(grown < 3 << 19, "{grown} bytes more");
        let events = daemon.get("/api/events?limit=1000");
        let events = events.as_array().expect("a list");
        assert!(events.len() < 100 && events.iter().any(|event| event["kind"] == "start"), "{} events", events.len());
        daemon.stop();

        // A restart finds all of it, and merges nothing twice.
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "2"]);
        daemon.collect();
        assert_eq!(lifetimes(&daemon), totals);
        assert_eq!(exported(&daemon, "day"), totals);
        // As before, up to fifteen records remain.
        assert!(interfaces(&daemon).len() <= rows.len().max(256 + 4), "{} entries", interfaces(&daemon).len());
        daemon.stop();
    });
}

/// Links come and go as fast as the kernel allows. A busy cluster creates a thousand links a second.
#[test]
fn a_flood_of_links_loses_no_byte_of_the_links_that_stay() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "2"]);
        daemon.wait_for_ticks(1);
        let base = minus(kernel_counters("wan0"), daemon.exported_sum("wan0"));
        let polls = daemon.polls();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let done = &done;
            let flood = scope.spawn(move || {
                let mut batch = IpBatch::start();
                let mut made = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let add =
                        |at| format!("link add veth{at} group 7 type veth peer name job{at}\nlink set job{at} up\n");
                    batch.write_lines(&(made..made + 50).map(add).collect::<String>());
                    batch.write_lines("link del group 7\n");
                    made += 50;
                }
                batch.end();
                made
            });
            for count in 1..=20 {
                send("wan0", 700, count);
                send("lan0", 900, count);
                sleep_ms(200);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            let made = flood.join().expect("the flooding thread ends");
            println!("{made} pairs in four seconds");
        });
        // The sampler missed no tick meanwhile.
        assert!(daemon.polls() >= polls + 3, "{:#?}", daemon.log());
        daemon.wait_for_ticks(2);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), minus(kernel_counters("wan0"), base), "{:#?}", daemon.log());
        let stats = daemon.get("/collector/status")["stats"].clone();
        assert_eq!(stats["failed_polls"], 0, "{stats}");
        let listings = daemon.log().iter().filter(|line| line.contains("listing interfaces")).count();
        assert_eq!(listings, 0, "{:#?}", daemon.log());
        let health = daemon.get("/api/system/health");
        let lost = health["details"]["interfaces"]["reports_lost"].as_u64().expect("a number");
        let reported = health["reason"].as_str().unwrap_or_default().contains("too fast for the kernel's reports");
        assert_eq!(lost > 0, reported, "{health}");
        println!("{lost} times link notifications were lost");
        daemon.stop();
    });
}

#[test]
fn live_rates_use_no_memory_for_ignored_links() {
    const PAIRS: usize = 1_000;
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let mut batch = IpBatch::start();
        for at in 0..PAIRS {
            batch.write_lines(&format!("link add veth{at}a type veth peer name veth{at}b\n"));
        }
        batch.end();
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "60"]);
        daemon.wait_for_ticks(2);
        let ask = || daemon.get("/api/traffic/live");
        ask();
        sleep_ms(2_000);
        ask();
        let before = anonymous_bytes(&daemon);
        for _ in 0..8 {
            sleep_ms(1_000);
            ask();
        }
        let live = ask();
        let names: Vec<&String> = live["interfaces"].as_object().expect("an object").keys().collect();
        assert_eq!(names, ["lan0", "wan0"]);
        assert!(live["t"].as_array().expect("a list").len() >= 6);
        let grown = anonymous_bytes(&daemon).saturating_sub(before);
        println!("{grown} bytes more with {} ignored links", 2 * PAIRS);
        // With rates of all links the memory grew by 48 KB a second.
        assert!(grown < 200_000, "{grown} bytes more");
        daemon.stop();
    });
}
