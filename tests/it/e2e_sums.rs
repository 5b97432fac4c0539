//! The main promise of the program: the history equals what the kernel counted, to the byte, for all eight counters,
//! every interface and every source, across restarts after SIGTERM and SIGKILL.

use crate::common::*;
use serde_json::Value;

const WATCHED: [&str; 3] = ["wan0", "lan0", "tun0"];

#[test]
fn sums_are_exact_by_getstats() {
    in_namespace(|| sums("getstats"));
}

#[test]
fn sums_are_exact_by_getlink() {
    in_namespace(|| sums("getlink"));
}

#[test]
fn sums_are_exact_by_sysfs() {
    in_namespace(|| sums("sysfs"));
}

/// Sends traffic of known size, a different amount each time.
struct Traffic {
    tunnel: Tunnel,
    step: usize,
}

impl Traffic {
    fn burst(&mut self) {
        self.step += 1;
        let n = self.step;
        let before = [kernel_counters("wan0"), kernel_counters("lan0"), kernel_counters("tun0")];
        // Causes a link notification during the traffic. (Setting the link down and up would lose frames that no counter
        // counts.)
        ip(&format!("link set lan0 mtu {}", 1000 + n));
        send("wan0", 800, 3 * n);
        send("lan0", 60, 2 * n);
        RawSocket::of("wan0").send(BROADCAST, UNKNOWN_ETHERTYPE, 100, n);
        // Larger than the other end accepts: one drop for the sender and one for the receiver.
        send("wan0", 1400, n);
        let n = n as u64;
        let (down, up) = (3 * n * 800 + n * 100, 2 * n * 60);
        let wan = [up, down, 2 * n, 4 * n, 0, 0, 0, n];
        let lan = [down, up, 4 * n, 2 * n, 0, 0, 2 * n, 0];
        let tunnel = self.tunnel.burst(self.step);
        for (name, (before, delta)) in WATCHED.iter().zip(before.into_iter().zip([wan, lan, tunnel])) {
            wait_until("the kernel has counted what was sent", || minus(kernel_counters(name), before) == delta);
        }
    }

    /// Sends `count` bursts, spread over a few ticks.
    fn bursts(&mut self, count: usize) {
        for _ in 0..count {
            self.burst();
            sleep_ms(350);
        }
    }
}

fn sums(source: &str) {
    let dir = Dir::new();
    let flags = ["--interval", "1", "--flush", "2", "--source", source];
    cable("wan0", "lan0");
    let mut traffic = Traffic { tunnel: Tunnel::new("tun0"), step: 0 };
    // Traffic before the first start does not count.
    traffic.burst();
    let base = WATCHED.map(kernel_counters);

    let daemon = Daemon::start(&dir, &flags);
    daemon.wait_for_ticks(1);
    traffic.bursts(6);
    daemon.collect();
    check(&daemon, base, "while it runs");
    traffic.burst();
    daemon.stop();

    traffic.burst();
    let daemon = Daemon::start(&dir, &flags);
    daemon.wait_for_ticks(1);
    traffic.bursts(5);
    daemon.collect();
    check(&daemon, base, "after SIGTERM");
    // This traffic is never saved. The next start computes it from the kernel counters, because the boot is the same.
    traffic.burst();
    daemon.collect();
    daemon.kill();

    traffic.burst();
    let daemon = Daemon::start(&dir, &flags);
    daemon.wait_for_ticks(1);
    traffic.bursts(2);
    daemon.collect();
    check(&daemon, base, "after SIGKILL");
    daemon.stop();

    // A restart without new traffic: all figures come from the disk.
    let daemon = Daemon::start(&dir, &flags);
    daemon.wait_for_ticks(1);
    check(&daemon, base, "from the disk");
    daemon.stop();

    let delta = minus(kernel_counters("tun0"), base[2]);
    assert!(delta.iter().all(|count| *count > 0), "a counter stayed zero: {delta:?}");
    let database = rusqlite::Connection::open(dir.join("net-pulse.db")).expect("a database");
    let result: String = database.query_row("PRAGMA integrity_check", (), |row| row.get(0)).expect("an answer");
    assert_eq!(result, "ok");
}

/// Checks the sums in the export, the history, the lifetime figures and the totals, and the raw counters.
fn check(daemon: &Daemon, base: [Counters; 3], when: &str) {
    for (name, base) in WATCHED.into_iter().zip(base) {
        let expect = minus(kernel_counters(name), base);
        assert_eq!(daemon.exported_sum(name), expect, "export of {name} {when}, {COUNTERS:?}");
        let rows = history(daemon, name);
        assert_eq!(rows.iter().map(counters_of).fold([0; 8], plus), expect, "history of {name} {when}");
        let mut ids: Vec<u64> = rows.iter().map(|row| row["id"].as_u64().expect("a number")).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), rows.len(), "an id of {name} occurs twice {when}");
        let iface = daemon.interface(name);
        assert_eq!(iface["lifetime_rx_bytes"].as_u64(), Some(expect[0]), "lifetime of {name} {when}");
        assert_eq!(iface["lifetime_tx_bytes"].as_u64(), Some(expect[1]), "lifetime of {name} {when}");
        for by in ["hour", "day", "month"] {
            assert_eq!(totals(daemon, name, by), expect[..4], "totals of {name} by {by} {when}");
        }
        // Raw kernel counters, read at the request.
        let stats = daemon.get(&format!("/api/interfaces/{name}/stats"));
        assert_eq!(counters_of(&stats), kernel_counters(name), "stats of {name} {when}");
    }
}

fn history(daemon: &Daemon, name: &str) -> Vec<Value> {
    let rows = daemon.get(&format!("/api/traffic/history?interface_name={name}&limit=1000"));
    rows.as_array().expect("a list").clone()
}

fn totals(daemon: &Daemon, name: &str, by: &str) -> [u64; 4] {
    let answer = daemon.get(&format!("/api/traffic/totals?interface={name}&by={by}"));
    // The rows are the document itself or a member of it.
    let rows = answer.as_array().or_else(|| answer.as_object()?.values().find_map(Value::as_array));
    let mut sum = [0; 4];
    for row in rows.unwrap_or_else(|| panic!("no rows: {answer}")) {
        for (sum, counter) in sum.iter_mut().zip(COUNTERS) {
            *sum += row[counter].as_u64().unwrap_or_else(|| panic!("no {counter} in {row}"));
        }
    }
    sum
}
