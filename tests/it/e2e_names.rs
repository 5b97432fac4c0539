//! Names of interfaces, from outside: altnames, and names that match nothing. Also the primary interface if there is
//! only one interface, and the kinds of links of virtual machines.

use crate::common::*;
use serde_json::{Value, json};

const FAST: [&str; 4] = ["--interval", "1", "--flush", "2"];

fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    FAST.iter().chain(more).copied().collect()
}

fn add_altname(name: &str, altname: &str) {
    ip(&format!("link property add dev {name} altname {altname}"));
}

fn patch(daemon: &Daemon, path: &str, body: Value) -> Value {
    let answer = daemon.request("PATCH", path, Some(body.to_string()));
    assert_eq!(answer.status, 200, "PATCH {path}: {}", answer.text());
    answer.json()
}

fn monitored(daemon: &Daemon, name: &str) -> bool {
    daemon.interface(name)["monitored"] == true
}

#[test]
fn an_altname_works_like_the_name_by_getstats() {
    in_namespace(|| check_altname("getstats"));
}

#[test]
fn an_altname_works_like_the_name_by_getlink() {
    in_namespace(|| check_altname("getlink"));
}

/// An altname, longer than a name may be, works in patterns, as the primary setting, and in every request.
fn check_altname(source: &str) {
    const ALTNAME: &str = "the-line-to-the-provider";
    let dir = Dir::new();
    cable("wan0", "lan0");
    cable("wan1", "lan1");
    add_altname("wan0", ALTNAME);
    add_altname("wan1", "a-spare-line");
    send("lan0", 100, 1);
    let words = [
        "--interface",
        "the-line-*",
        "--interface",
        "a-*",
        "--ignore",
        "a-*",
        "--primary",
        ALTNAME,
        "--source",
        source,
    ];
    let daemon = Daemon::start(&dir, &flags(&words[..]));
    daemon.wait_for_ticks(1);
    send("lan0", 1000, 20);
    daemon.collect();

    let iface = daemon.interface(ALTNAME);
    assert_eq!((&iface["name"], &iface["altnames"]), (&json!("wan0"), &json!([ALTNAME])));
    assert_eq!((&iface["monitored"], &iface["primary"]), (&json!(true), &json!(true)), "{iface}");
    assert_eq!(daemon.get("/api/interfaces")["wan0"]["altnames"], json!([ALTNAME]));
    assert_eq!(daemon.get("/api/traffic/summary")["primary"]["name"], "wan0");
    assert!(!monitored(&daemon, "lan0") && !monitored(&daemon, "lan1"));
    // A pattern of `interfaces` takes precedence over one of `ignore`, whether it matches a name or an altname.
    let spare = daemon.interface("a-spare-line");
    assert_eq!(
        (&spare["name"], &spare["ignored_because"]),
        (&json!("wan1"), &json!("no traffic yet: counted from its first byte on"))
    );

    for target in [
        "/api/interfaces/NAME",
        "/api/traffic/history?interface_name=NAME",
        "/api/traffic/totals?by=day&interface=NAME",
        "/api/traffic/series?interface=NAME&from=0",
        "/api/export/traffic?interface_name=NAME",
        "/api/export/traffic?interface_name=NAME&resolution=day",
        "/api/events?interface=NAME",
    ] {
        // A tick may come between the two requests.
        wait_until(&format!("{target} is the same by both names"), || {
            daemon.get(&target.replace("NAME", ALTNAME)) == daemon.get(&target.replace("NAME", "wan0"))
        });
    }
    assert_eq!(daemon.exported_sum("wan0")[0], 20 * 1000);
    let rows = daemon.get(&format!("/api/export/traffic?interface_name={ALTNAME}"));
    assert!(
        rows.as_array().is_some_and(|rows| rows.iter().all(|row| row["interface_name"] == "wan0") && !rows.is_empty())
    );
    let stats = daemon.get(&format!("/api/interfaces/{ALTNAME}/stats"));
    assert_eq!((&stats["interface_name"], counters_of(&stats)), (&json!("wan0"), kernel_counters("wan0")));
    assert_eq!(
        daemon.request("DELETE", &format!("/api/interfaces/{ALTNAME}"), None).status,
        409,
        "the interface is present"
    );
    assert_eq!(daemon.request("GET", "/api/interfaces/the-line", None).status, 404);
}

/// udev can set an altname for the USB port that a modem is plugged into, and remove it again.
#[test]
fn altnames_that_change_at_run_time_are_followed() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        send("wan0", 100, 7);
        let daemon = Daemon::start(&dir, &["--interval", "3600", "--interface", "uplink", "--primary", "uplink"]);
        assert!(!monitored(&daemon, "wan0") && !monitored(&daemon, "lan0"));
        assert_eq!(daemon.request("GET", "/api/interfaces/uplink", None).status, 404);

        add_altname("wan0", "uplink");
        wait_until("wan0 is monitored", || monitored(&daemon, "wan0"));
        // Every byte from here on counts, although the next timed sample is an hour away.
        send("wan0", 1000, 5);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0")[1], 5000);
        assert_eq!(
            (&daemon.interface("uplink")["name"], &daemon.interface("wan0")["primary"]),
            (&json!("wan0"), &json!(true))
        );

        ip("link property del dev wan0 altname uplink");
        wait_until("wan0 is not monitored", || !monitored(&daemon, "wan0"));
        assert_eq!(daemon.interface("wan0")["altnames"], json!([]));
        add_altname("lan0", "uplink");
        wait_until("lan0 is monitored", || monitored(&daemon, "lan0"));
        assert_eq!(daemon.interface("uplink")["name"], "lan0");
        // Another link gets `uplink` as its name.
        ip("link property del dev lan0 altname uplink");
        ip("link set wan0 down");
        ip("link set wan0 name uplink");
        wait_until("the new name is known", || daemon.interface("uplink")["ifindex"] == ifindex("uplink"));
    });
}

fn ifindex(name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).expect("the link exists");
    text.trim().parse().expect("a number")
}

#[test]
fn a_change_made_by_altname_is_stored_under_the_name() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        cable("old0", "far0");
        add_altname("wan0", "uplink");
        add_altname("lan0", "inside");
        for name in ["wan0", "lan0", "old0", "far0"] {
            send(name, 100, 1);
        }
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        send("old0", 700, 3);
        daemon.collect();
        let answer = daemon.put("/api/config/interfaces", json!({"interfaces": ["uplink", "inside", "wan0", "old0"]}));
        assert_eq!(answer.json()["interfaces"], json!(["wan0", "lan0", "old0"]));
        let answer = daemon.put("/api/config/interfaces", json!({"interfaces": ["uplink", "outside"]}));
        assert_eq!((answer.status, &answer.json()["detail"]), (400, &json!("Invalid interfaces: outside")));
        assert_eq!(
            patch(&daemon, "/api/interfaces/inside", json!({"monitored": false, "alias": "LAN"}))["name"],
            "lan0"
        );
        assert_eq!(patch(&daemon, "/api/interfaces/uplink", json!({"primary": true}))["primary"], true);
        ip("link del old0");
        wait_until("old0 is absent", || daemon.interface("old0")["present"] == false);
        assert_eq!(
            daemon.request("PATCH", "/api/interfaces/inside", Some(json!({"merge": "uplink"}).to_string())).status,
            409
        );
        let merged = patch(&daemon, "/api/interfaces/uplink", json!({"merge": "old0"}));
        assert_eq!((&merged["name"], &merged["lifetime_tx_bytes"]), (&json!("wan0"), &json!(3 * 700)));
        assert_eq!(daemon.exported_sum("wan0")[1], 3 * 700);
        daemon.stop();

        ip("link property del dev wan0 altname uplink");
        let daemon = Daemon::start(&dir, &FAST);
        let settings = daemon.get("/api/config")["settings"].clone();
        assert_eq!(settings["interfaces"]["value"], json!(["wan0", "lan0"]));
        assert_eq!((&settings["ignore"]["value"], &settings["primary"]["value"]), (&json!(["lan0"]), &json!("wan0")));
        assert_eq!(daemon.interface("lan0")["alias"], "LAN");
        // Settings can name lan0 by its altname: directly, and in a `!` pattern of `ignore`.
        patch(&daemon, "/api/config", json!({"interfaces": null, "ignore": ["*0", "!ins*"], "primary": "inside"}));
        wait_until("the settings take effect", || monitored(&daemon, "lan0") && !monitored(&daemon, "wan0"));
        assert_eq!(daemon.interface("inside")["primary"], true);
    });
}

/// /sys/class/net has no file for altnames.
#[test]
fn the_sysfs_source_has_no_altnames() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        add_altname("wan0", "uplink");
        send("wan0", 100, 1);
        let daemon =
            Daemon::start(&dir, &flags(&["--source", "sysfs", "--interface", "uplink", "--interface", "lan0"]));
        daemon.wait_for_ticks(2);
        assert_eq!(daemon.interface("wan0")["altnames"], json!([]));
        assert_eq!(daemon.request("GET", "/api/interfaces/uplink", None).status, 404);
        assert!(!monitored(&daemon, "wan0") && monitored(&daemon, "lan0"));
    });
}

fn unmatched(daemon: &Daemon) -> Value {
    daemon.get("/api/system/health")["details"]["interfaces"]["unmatched"].clone()
}

fn count_log_lines(daemon: &Daemon, what: &str) -> usize {
    daemon.log().iter().filter(|line| line.contains(what)).count()
}

/// A typing mistake is logged at once, and once only. When the name matches, that is logged too.
#[test]
fn an_unmatched_pattern_is_logged_once_until_it_matches() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let words = ["--interface", "wan*", "--interface", "nope*", "--primary", "ppp7", "--ignore", "no-such-thing"];
        let daemon = Daemon::start(&dir, &flags(&words));
        let health = daemon.get("/api/system/health");
        assert_eq!(unmatched(&daemon), json!(["nope*", "ppp7"]));
        assert_eq!((&health["status"], &health["interfaces_status"]), (&json!("healthy"), &json!("healthy")));
        let pattern = "--interface nope* matches no interface now: counting starts when one appears";
        let primary = "--primary ppp7 matches no interface now: it becomes the primary interface when it appears";
        assert_eq!(health["reason"], format!("{pattern}; {primary}"));
        assert_eq!(daemon.get("/health"), json!({"status": "healthy"}));
        let warned = |line: &str| count_log_lines(&daemon, &format!("warning: {line}"));
        assert_eq!([warned(pattern), warned(primary)], [1, 1], "{:?}", daemon.log());

        // The links are listed again and again for other reasons.
        for mtu in 1400..1404 {
            ip(&format!("link set wan0 mtu {mtu}"));
            sleep_ms(600);
        }
        wait_until("the links are listed", || daemon.interface("wan0")["mtu"] == 1403);
        ip("link add ppp7 type bridge");
        wait_until("ppp7 matches", || unmatched(&daemon) == json!(["nope*"]));
        assert_eq!(daemon.interface("ppp7")["primary"], true);
        add_altname("wan0", "nope-but-for-this");
        wait_until("nope* matches, too", || unmatched(&daemon) == json!([]));
        assert_eq!(daemon.get("/api/system/health")["reason"], Value::Null);
        assert_eq!([warned(pattern), warned(primary)], [1, 1], "{:?}", daemon.log());
        assert_eq!(count_log_lines(&daemon, "--primary ppp7 matches ppp7 now"), 1);
        assert_eq!(count_log_lines(&daemon, "--interface nope* matches wan0 now"), 1);

        // ppp7 now has a history. Its absence is logged again.
        ip("link del ppp7");
        wait_until("ppp7 matches nothing", || unmatched(&daemon) == json!(["ppp7"]));
        assert_eq!(warned(primary), 2, "{:?}", daemon.log());
    });
}

#[test]
fn an_absent_interface_with_history_is_reported_with_the_flag_that_names_it() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        cable("ppp0", "far0");
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        send("ppp0", 700, 3);
        daemon.collect();
        patch(&daemon, "/api/config", json!({"interfaces": ["ppp0", "wan0"]}));
        assert_eq!(unmatched(&daemon), json!([]));
        ip("link del ppp0");
        let reason = |daemon: &Daemon| daemon.get("/api/system/health")["reason"].clone();
        let expect = "the interfaces setting ppp0 matches no interface now: counting continues when it appears";
        wait_until("the health reports ppp0", || reason(&daemon) == expect);
        wait_until("the log reports ppp0", || count_log_lines(&daemon, expect) == 1);
        daemon.stop();

        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]);
        command.env("NETPULSE_INTERFACE", "ppp0,ppp*,wan0");
        let daemon = Daemon::spawn(command);
        let expect = "NETPULSE_INTERFACE ppp0, ppp* match no interface now: counting starts when they appear";
        assert_eq!(reason(&daemon), expect);
        assert_eq!(count_log_lines(&daemon, expect), 1, "{:?}", daemon.log());
    });
}

/// A modem with a loose plug may come and go every second.
#[test]
fn a_link_that_comes_and_goes_does_not_fill_the_log() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &flags(&["--interface", "ppp0"]));
        for _ in 0..8 {
            ip("link add ppp0 type bridge");
            wait_until("ppp0 matches", || unmatched(&daemon) == json!([]));
            ip("link del ppp0");
            wait_until("ppp0 matches nothing", || unmatched(&daemon) == json!(["ppp0"]));
        }
        let (gone, there) =
            (count_log_lines(&daemon, "ppp0 matches no interface"), count_log_lines(&daemon, "ppp0 matches ppp0 now"));
        // At most six such lines are logged in ten minutes.
        assert_eq!((gone, there), (3, 3), "{:?}", daemon.log());
    });
}

/// A server with one card that had no traffic so far.
#[test]
fn the_only_interface_is_primary_at_once_without_traffic() {
    in_namespace(|| {
        let dir = Dir::new();
        ip("link add wan0 type bridge mcast_snooping 0");
        ip("link set wan0 up");
        let daemon = Daemon::start(&dir, &["--interval", "3600"]);
        assert_eq!(kernel_counters("wan0")[..4], [0; 4]);
        assert_eq!(daemon.interface("wan0")["primary"], true);
        assert_eq!(daemon.get("/api/traffic/summary")["primary"]["name"], "wan0");
        daemon.stop();

        // With a second interface, traffic decides which one is primary.
        let daemon = Daemon::start(&dir, &FAST);
        assert_eq!(daemon.interface("wan0")["primary"], true);
        cable("lan0", "veth-far");
        wait_until("lan0 is the primary interface", || {
            send("veth-far", 1000, 20);
            daemon.request("GET", "/api/interfaces/lan0", None).json()["primary"] == true
        });
        assert_eq!(daemon.interface("wan0")["primary"], false);
        daemon.stop();
        let daemon = Daemon::start(&dir, &FAST);
        assert_eq!(daemon.interface("lan0")["primary"], true);
    });
}

#[test]
fn the_only_interface_is_not_primary_without_the_default_route() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        ip("addr add 10.66.0.2/24 dev wan0");
        ip("route add default via 10.66.0.1");
        let daemon = Daemon::start(&dir, &flags(&["--interface", "lan0"]));
        daemon.wait_for_ticks(2);
        assert_eq!(daemon.interface("lan0")["primary"], false);
        ip("route del default");
        // The kernel sends no notification of routes, so the next change of a link makes the daemon read them.
        ip("link set lan0 mtu 1400");
        wait_until("lan0 is the primary interface", || daemon.interface("lan0")["primary"] == true);
    });
}

/// A tap belongs to a VPN until a hypervisor makes it a port of a bridge; a macvtap always leads into a guest.
#[test]
fn links_of_virtual_machines_have_their_own_kind() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        ip("link add br0 type bridge");
        ip("link add guest0 link wan0 type macvtap");
        ip("link add macvtap1 link wan0 type macvtap");
        let has_tun = std::path::Path::new("/dev/net/tun").exists();
        if has_tun {
            for name in ["vnet0", "tap0", "tap1"] {
                ip(&format!("tuntap add {name} mode tap"));
            }
            ip("link set vnet0 master br0");
        } else {
            skip("/dev/net/tun does not exist: taps are not tested");
        }
        for source in ["getstats", "getlink", "sysfs"] {
            let daemon = Daemon::start(&dir, &flags(&["--source", source]));
            let kind = |name: &str| daemon.interface(name)["kind"].clone();
            assert_eq!((kind("guest0"), kind("macvtap1")), (json!("container"), json!("container")), "{source}");
            if !has_tun {
                continue;
            }
            assert_eq!((kind("vnet0"), kind("tap0")), (json!("virtual"), json!("vpn")), "{source}");
            assert_eq!(daemon.interface("vnet0")["parent"], "br0");
            // The bridge changes while the daemon runs. Without notifications, the daemon notices only added and
            // removed links.
            ip("link set tap0 master br0");
            if source != "sysfs" {
                wait_until("tap0 is a bridge port", || kind("tap0") == "virtual");
            }
            ip("link set tap0 nomaster");
            if source != "sysfs" {
                wait_until("tap0 is not a bridge port", || kind("tap0") == "vpn");
            }
        }
    });
}
