//! Addresses that do not exist when the daemon starts: a LAN without a carrier, an address that comes later, one that
//! never comes. The daemon counts from the start, and answers on each address as soon as it exists.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use crate::common::*;
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_net-pulse");

/// A link that is up while its peer is down: without a carrier, an IPv6 address stays tentative.
fn lan_without_carrier() {
    ip("link add lan0 type veth peer name far0");
    // Packets to an address of this machine go through the loopback, so lo needs IPv6, too.
    for link in ["lo", "lan0"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "0").expect("a namespace of the test");
    }
    ip("address add 192.168.77.1/24 dev lan0");
    ip("address add fd77::1/64 dev lan0");
    ip("link set lan0 up");
    let shown = Command::new("ip").args(["-6", "address", "show", "dev", "lan0", "tentative"]).output().expect("ip");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("fd77::1"), "fd77::1 is not tentative");
}

/// Starts the daemon on `hosts`. `wrapper` is a command line that runs it, or empty.
fn start(dir: &Dir, wrapper: &[&str], hosts: &[&str]) -> Daemon {
    let database = dir.join("net-pulse.db");
    let mut words = wrapper.to_vec();
    words.extend([BINARY, "--port", "0", "--interval", "1", "--database", &database]);
    hosts.iter().for_each(|host| words.extend(["--host", host]));
    let mut command = net_pulse(words[0]);
    command.args(&words[1..]);
    Daemon::spawn(command)
}

fn address_of(host: &str, daemon: &Daemon) -> SocketAddr {
    format!("{host}:{}", daemon.port()).parse().expect("an address")
}

fn is_reached(address: SocketAddr) -> bool {
    ask(address, "GET", "/health", "*/*", None).is_ok_and(|answer| answer.status == 200)
}

fn health(address: SocketAddr) -> Value {
    ask(address, "GET", "/api/system/health", "*/*", None).expect("an answer").json()
}

fn unreachable(address: SocketAddr) -> Value {
    health(address)["details"]["http"]["unreachable"].clone()
}

fn warnings(daemon: &Daemon) -> Vec<String> {
    daemon.log().into_iter().filter(|line| line.contains("is not an address of this machine")).collect()
}

/// `wrapper` makes the kernel refuse some calls. The result is the same without it.
fn addresses_appear_later(wrapper: &[&str]) {
    in_namespace(|| {
        lan_without_carrier();
        let dir = Dir::new();
        let hosts = ["192.168.77.1", "fd77::1", "10.9.9.9", "192.0.2.1"];
        let daemon = start(&dir, wrapper, &hosts);
        let [lan, late6, late4, never] =
            ["192.168.77.1", "[fd77::1]", "10.9.9.9", "192.0.2.1"].map(|host| address_of(host, &daemon));
        daemon.wait_for_ticks(1);
        assert!(is_reached(lan));
        let report = health(lan);
        assert_eq!(report["status"], "healthy", "{report}");
        let all = json!([late6.to_string(), late4.to_string(), never.to_string()]);
        assert_eq!(report["details"]["http"]["unreachable"], all);
        let reason = report["reason"].as_str().expect("a sentence");
        for part in
            ["fd77::1 cannot be used yet", "10.9.9.9 is not an address of this machine", "192.0.2.1 is not an address"]
        {
            assert!(reason.contains(part), "{reason}");
        }
        wait_until("the daemon logs a warning", || !warnings(&daemon).is_empty());
        let warning = &warnings(&daemon)[0];
        assert!(
            warning.contains("10.9.9.9") && warning.contains("192.0.2.1") && warning.contains("--host"),
            "{warning}"
        );
        assert!(!warning.contains("fd77::1"), "a LAN without a carrier needs no warning: {warning}");

        // A supervisor finds the daemon with the same settings.
        let port = daemon.port().to_string();
        let mut check = net_pulse(BINARY);
        check
            .args(["--port", &port])
            .args(hosts.iter().rev().flat_map(|host| ["--host", host]))
            .args(["check", "--health"]);
        let ended = finish(check);
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), "healthy\n"), "{}", ended.err);

        ip("address add 10.9.9.9/24 dev lan0");
        wait_until("the IPv4 address answers", || is_reached(late4));
        ip("link set far0 up");
        wait_until("the IPv6 address answers", || is_reached(late6));
        assert_eq!(unreachable(lan), json!([never.to_string()]));
        // The address goes, and comes back.
        ip("address delete 10.9.9.9/24 dev lan0");
        assert_eq!(unreachable(lan), json!([late4.to_string(), never.to_string()]));
        ip("address add 10.9.9.9/24 dev lan0");
        assert!(is_reached(late4));
        assert_eq!(warnings(&daemon).len(), 1, "{:?}", daemon.log());
        daemon.stop();
    });
}

#[test]
fn a_missing_address_does_not_end_the_start() {
    addresses_appear_later(&[]);
}

/// The kernel refuses IP_FREEBIND, as in a sandbox, or on a system that cannot bind before an address exists.
#[test]
fn a_missing_address_without_ip_freebind() {
    addresses_appear_later(&["/usr/bin/python3", &refusing(), "setsockopt 1=0 2=15", "--"]);
}

#[test]
fn without_any_address_the_daemon_counts_and_waits() {
    in_namespace(|| {
        lan_without_carrier();
        for wrapper in [&[][..], &["/usr/bin/python3", &refusing(), "setsockopt 1=0 2=15", "--"]] {
            let dir = Dir::new();
            let database = dir.join("net-pulse.db");
            let address: SocketAddr = "[fd77::1]:8077".parse().expect("an address");
            let mut words = wrapper.to_vec();
            words.extend([BINARY, "--port", "8077", "--host", "fd77::1", "--interval", "1", "--database", &database]);
            let mut command = net_pulse(words[0]);
            command.args(&words[1..]);
            let daemon = Daemon::spawn(command);
            assert!(!is_reached(address));
            send("lan0", 100, 5);
            sleep_ms(1500);
            ip("link set far0 up");
            wait_until("the address answers", || is_reached(address));
            let polls = ask(address, "GET", "/collector/status", "*/*", None).expect("an answer").json();
            assert!(polls["stats"]["successful_polls"].as_u64() > Some(1), "{polls}");
            let sent = ask(address, "GET", "/api/interfaces/lan0/stats", "*/*", None).expect("an answer").json();
            assert!(sent["tx_drops"].as_u64() > Some(0) || sent["tx_packets"].as_u64() > Some(0), "{sent}");
            daemon.stop();
            ip("link set far0 down");
            ip("address delete fd77::1/64 dev lan0");
            ip("address add fd77::1/64 dev lan0");
        }
    });
}

/// A port in use is still an error, even if another address does not exist yet.
#[test]
fn a_port_in_use_still_ends_the_start() {
    in_namespace(|| {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port().to_string();
        for hosts in [["127.0.0.1", "192.0.2.1"], ["192.0.2.1", "127.0.0.1"]] {
            let dir = Dir::new();
            let mut command = net_pulse(BINARY);
            command.args(["--port", &port, "--database", &dir.join("net-pulse.db")]);
            command.args(hosts.iter().flat_map(|host| ["--host", host]));
            let ended = finish(command);
            assert_eq!(ended.code, Some(1), "{}", ended.err);
            assert!(ended.err.contains(&format!("port {port} is in use")), "{}", ended.err);
        }
    });
}
