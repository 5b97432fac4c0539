//! Changes that people make, tested from outside: settings that take effect at once and survive a restart, interfaces
//! that are renamed, merged and forgotten without losing a byte, and a backup that the daemon itself opens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::*;
use serde_json::{Value, json};

const FAST: [&str; 4] = ["--interval", "1", "--flush", "2"];

fn patch(daemon: &Daemon, path: &str, body: Value) -> Value {
    let answer = daemon.request("PATCH", path, Some(body.to_string()));
    assert_eq!(answer.status, 200, "PATCH {path}: {}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["saved"], true, "{answer}");
    answer
}

fn status(daemon: &Daemon, method: &str, path: &str, body: Value) -> u16 {
    daemon.request(method, path, Some(body.to_string())).status
}

/// The sums of an interface: at each resolution, from the totals by hour, day and month, and last its lifetime.
fn sums_by_resolution(daemon: &Daemon, name: &str) -> Vec<[u64; 2]> {
    let sum = |rows: Value| {
        let rows = rows.as_array().expect("a list").clone();
        let sum_of = |key: &str| rows.iter().map(|row| row[key].as_u64().expect("a number")).sum::<u64>();
        [sum_of("rx_bytes"), sum_of("tx_bytes")]
    };
    let mut sums_by_resolution: Vec<[u64; 2]> = ["sample", "5min", "hour", "day"]
        .iter()
        .map(
            |resolution| sum(daemon.get(&format!("/api/export/traffic?resolution={resolution}&interface_name={name}"))),
        )
        .collect();
    for by in ["hour", "day", "month"] {
        sums_by_resolution.push(sum(daemon.get(&format!("/api/traffic/totals?by={by}&interface={name}"))));
    }
    let iface = daemon.interface(name);
    let number = |key: &str| iface[key].as_u64().expect("a number");
    sums_by_resolution.push([number("lifetime_rx_bytes"), number("lifetime_tx_bytes")]);
    sums_by_resolution
}

#[test]
fn settings_take_effect_at_once_and_survive_a_restart() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        send("wan0", 1000, 1);
        let daemon = Daemon::start(&dir, &["--media", "disk"]);
        wait_until("the first tick", || daemon.polls() > 0);

        let changed = json!({"interval": 1, "timezone": "<+0530>-5:30", "ignore": ["lan*"], "primary": "wan0",
            "keep_samples_days": 2, "units": "bytes"});
        let answer = patch(&daemon, "/api/config", changed);
        assert_eq!(answer["settings"]["interval"]["origin"], "saved");
        assert_eq!(answer["settings"]["media"]["owner"], "--media");
        daemon.wait_for_ticks(2);
        assert_eq!(daemon.interface("lan0")["monitored"], false);
        assert_eq!(daemon.interface("wan0")["primary"], true);
        assert_eq!(daemon.get("/api/system/health")["details"]["clock"]["timezone"], "<+0530>-5:30");
        let day = daemon.get("/api/traffic/totals?by=day&limit=1&interface=wan0");
        assert!(day[0]["from"].as_str().is_some_and(|time| time.ends_with("T18:30:00Z")), "{day}");

        // A request with a setting that the command line fixes, or with an invalid value, changes nothing.
        assert_eq!(status(&daemon, "PATCH", "/api/config", json!({"interval": 9, "media": "flash"})), 409);
        assert_eq!(status(&daemon, "PATCH", "/api/config", json!({"interval": 9, "flush": 9})), 409);
        assert_eq!(status(&daemon, "PATCH", "/api/config", json!({"interval": 9, "timezone": "Nowhere/At_all"})), 422);
        let settings = daemon.get("/api/config")["settings"].clone();
        assert_eq!(settings["interval"]["value"], 1);
        daemon.kill();

        let daemon = Daemon::start(&dir, &["--interval", "2"]);
        let again = daemon.get("/api/config")["settings"].clone();
        for key in ["timezone", "ignore", "primary", "keep_samples_days", "units"] {
            assert_eq!(again[key]["value"], settings[key]["value"], "{key}");
            assert_eq!(again[key]["origin"], "saved", "{key}");
        }
        assert_eq!((&again["interval"]["value"], &again["interval"]["owner"]), (&json!(2), &json!("--interval")));
        patch(&daemon, "/api/config", json!({"timezone": null, "ignore": [], "primary": null}));
        assert_eq!(daemon.get("/api/config")["settings"]["timezone"]["origin"], "default");
        assert_eq!(daemon.interface("lan0")["ignored_because"], Value::Null);
    });
}

#[test]
fn an_interface_is_named_monitored_and_ignored() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        send("wan0", 1000, 1);
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(2);
        assert_eq!(patch(&daemon, "/api/interfaces/wan0", json!({"alias": "Büro ü. Glas"}))["alias"], "Büro ü. Glas");
        // An interface that is not monitored can have an alias, too. Its history begins when monitoring begins, without
        // the bytes before.
        assert_eq!(patch(&daemon, "/api/interfaces/lo", json!({"alias": "inside"}))["alias"], "inside");
        daemon.kill();
        let daemon = Daemon::start(&dir, &FAST);
        assert_eq!(daemon.interface("lo")["alias"], "inside");
        assert_eq!(daemon.interface("wan0")["alias"], "Büro ü. Glas");
        assert_eq!(patch(&daemon, "/api/interfaces/lo", json!({"monitored": true}))["ignored_because"], Value::Null);
        daemon.wait_for_ticks(2);
        assert_eq!(daemon.interface("lo")["monitored"], true);
        let lifetime = daemon.interface("lo")["lifetime_rx_bytes"].as_u64().expect("a number");
        assert!(lifetime < kernel_counters("lo")[0], "bytes from before monitoring are in the history: {lifetime}");

        let out = patch(&daemon, "/api/interfaces/lan0", json!({"monitored": false}));
        assert_eq!(out["monitored"], false);
        let before = daemon.exported_sum("lan0");
        send("wan0", 1000, 5);
        daemon.collect();
        assert_eq!(daemon.exported_sum("lan0"), before);
        assert_eq!(patch(&daemon, "/api/interfaces/lan0", json!({"monitored": null, "alias": ""}))["monitored"], true);
        assert_eq!(daemon.get("/api/config")["settings"]["ignore"]["value"], json!(["!lo"]));
        drop(daemon);
        let daemon = Daemon::start(&dir, &["--ignore", "x*"]);
        assert_eq!(status(&daemon, "PATCH", "/api/interfaces/lan0", json!({"monitored": false, "alias": "no"})), 409);
        assert_eq!(daemon.interface("lan0")["alias"], "", "a refused request changes nothing");
    });
}

/// A modem is replaced: its history continues under the name of the new one, even after restarts and kills.
#[test]
fn a_merge_keeps_every_byte_at_every_resolution() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        cable("old0", "far0");
        send("wan0", 1000, 1);
        send("old0", 700, 1);
        // An hour between timed saves: the samples of both interfaces are in memory when they are merged.
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "3600"]);
        daemon.wait_for_ticks(1);
        send("old0", 700, 30);
        send("far0", 600, 20);
        send("wan0", 1000, 10);
        daemon.wait_for_ticks(2);
        assert_eq!(status(&daemon, "PATCH", "/api/interfaces/wan0", json!({"merge": "old0"})), 409, "old0 is present");
        assert_eq!(status(&daemon, "DELETE", "/api/interfaces/old0", json!({})), 409);
        daemon.collect();
        remove_link(&daemon, "old0");
        send("wan0", 1000, 3);
        daemon.collect();

        let (one, other) = (sums_by_resolution(&daemon, "wan0"), sums_by_resolution(&daemon, "old0"));
        assert!(other.iter().all(|sum| *sum == other[0]) && other[0] == [20 * 600, 30 * 700], "{other:?}");
        let both: Vec<[u64; 2]> =
            one.iter().zip(&other).map(|(one, other)| [one[0] + other[0], one[1] + other[1]]).collect();
        patch(&daemon, "/api/interfaces/wan0", json!({"merge": "old0"}));
        assert_eq!(daemon.request("GET", "/api/interfaces/old0", None).status, 404);
        assert_eq!(status(&daemon, "PATCH", "/api/interfaces/wan0", json!({"merge": "old0"})), 404);
        // The peer of old0 was removed with it, and no other bytes pass.
        assert_eq!(sums_by_resolution(&daemon, "wan0"), both);
        let events = daemon.get("/api/events?kind=merged");
        assert_eq!(events[0]["interface"], "wan0", "{events}");
        daemon.kill();

        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        assert_eq!(daemon.request("GET", "/api/interfaces/old0", None).status, 404);
        assert_eq!(sums_by_resolution(&daemon, "wan0"), both, "a crash after the answer");
        send("wan0", 1000, 2);
        daemon.collect();
        let after: Vec<[u64; 2]> = both.iter().map(|sum| [sum[0], sum[1] + 2000]).collect();
        assert_eq!(sums_by_resolution(&daemon, "wan0"), after, "counting continues");
    });
}

/// Another client keeps changing a setting that one part of the request depends on.
#[test]
fn a_request_with_several_changes_makes_all_of_them_or_none() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        cable("old0", "far0");
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "3600"]);
        daemon.wait_for_ticks(1);
        let (mut made, mut refused) = (0, 0);
        // Stops the other client, also when the test fails.
        struct StopOnDrop<'a>(&'a AtomicBool);
        impl Drop for StopOnDrop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            scope.spawn(|| {
                // A primary interface that was chosen cannot be ignored.
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let primary = if turn % 2 == 0 { json!("wan0") } else { Value::Null };
                    daemon.request("PATCH", "/api/config", Some(json!({ "primary": primary }).to_string()));
                }
            });
            for turn in 0..200 {
                if made >= 8 && refused >= 8 {
                    break;
                }
                if turn == 0 || daemon.request("GET", "/api/interfaces/old0", None).status == 404 {
                    if turn > 0 {
                        cable("old0", "far0");
                    }
                    send("old0", 700, 3);
                    daemon.collect();
                    remove_link(&daemon, "old0");
                }
                let alias = format!("turn {turn}");
                let all = json!({"merge": "old0", "alias": alias, "monitored": false});
                let answer = daemon.request("PATCH", "/api/interfaces/wan0", Some(all.to_string()));
                let gone = daemon.request("GET", "/api/interfaces/old0", None).status == 404;
                let named = daemon.interface("wan0")["alias"] == alias.as_str();
                let ignored = daemon.get("/api/config")["settings"]["ignore"]["value"] == json!(["wan0"]);
                match answer.status {
                    200 => made += 1,
                    409 => refused += 1,
                    other => panic!("{other}: {}", answer.text()),
                }
                assert_eq!([gone, named, ignored], [answer.status == 200; 3], "{turn}: {}", answer.text());
                if ignored {
                    patch(&daemon, "/api/interfaces/wan0", json!({"monitored": null}));
                }
            }
        });
        assert!(made >= 8 && refused >= 8, "{made} made, {refused} refused");
    });
}

fn remove_link(daemon: &Daemon, name: &str) {
    ip(&format!("link del {name}"));
    wait_until("the interface is absent", || daemon.interface(name)["present"] == false);
}

/// The WAN link is replaced by one with another name. After the merge, that one is the primary interface, with all the
/// traffic of both.
#[test]
fn the_primary_follows_its_history() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        cable("old0", "far0");
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        send("old0", 700, 30);
        send("wan0", 700, 10);
        daemon.collect();
        patch(&daemon, "/api/interfaces/old0", json!({"monitored": true, "primary": true}));
        remove_link(&daemon, "old0");
        // wan0 would become the primary, which is always monitored: the daemon refuses the whole request and merges
        // nothing.
        let both = json!({"merge": "old0", "monitored": false});
        assert_eq!(status(&daemon, "PATCH", "/api/interfaces/wan0", both), 409);
        assert_eq!(daemon.interface("old0")["present"], false);
        assert_eq!(patch(&daemon, "/api/interfaces/wan0", json!({"merge": "old0"}))["primary"], true);
        let assert_primary = |daemon: &Daemon| {
            let settings = daemon.get("/api/config")["settings"].clone();
            assert_eq!(
                [&settings["primary"]["value"], &settings["ignore"]["value"]],
                [&json!("wan0"), &json!(["!wan0"])]
            );
            let day = daemon.get("/api/traffic/totals?by=day");
            assert_eq!(day[0]["tx_bytes"], 40 * 700, "{day}");
        };
        assert_primary(&daemon);
        daemon.kill();
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        assert_primary(&daemon);

        // When the primary is forgotten, the busiest other interface takes its place.
        remove_link(&daemon, "wan0");
        assert_eq!(daemon.request("DELETE", "/api/interfaces/wan0", None).status, 200);
        let settings = daemon.get("/api/config")["settings"].clone();
        assert_eq!([&settings["primary"]["origin"], &settings["ignore"]["value"]], [&json!("default"), &json!([])]);
        cable("wan1", "lan1");
        wait_until("there is a primary interface again", || {
            send("wan1", 1000, 20);
            daemon.interface("wan1")["primary"] == true || daemon.interface("lan1")["primary"] == true
        });
    });
}

#[test]
fn a_forgotten_interface_is_gone_and_its_name_starts_from_zero() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        cable("old0", "far0");
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        send("old0", 700, 30);
        send("wan0", 500, 30);
        daemon.collect();
        let kept = sums_by_resolution(&daemon, "wan0");
        remove_link(&daemon, "old0");
        let answer = daemon.request("DELETE", "/api/interfaces/old0", None);
        assert_eq!((answer.status, &answer.json()["saved"]), (200, &json!(true)));
        assert_eq!(daemon.request("DELETE", "/api/interfaces/old0", None).status, 404);
        assert_eq!(daemon.get("/api/events?interface=old0"), json!([]));
        assert!(
            daemon
                .get("/api/export/traffic?resolution=day")
                .as_array()
                .unwrap()
                .iter()
                .all(|row| row["interface_name"] != "old0")
        );
        assert_eq!(sums_by_resolution(&daemon, "wan0"), kept);
        cable("old0", "far0");
        send("old0", 700, 1);
        wait_until("the daemon lists the link", || daemon.request("GET", "/api/interfaces/old0", None).status == 200);
        daemon.collect();
        assert_eq!(daemon.interface("old0")["lifetime_tx_bytes"], 700);
        // The daemon answers this request when everything so far is on disk.
        patch(&daemon, "/api/config", json!({"units": "bytes"}));
        daemon.kill();
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        assert_eq!(sums_by_resolution(&daemon, "old0")[0], [0, 700]);
        assert_eq!(sums_by_resolution(&daemon, "wan0"), kept);
    });
}

#[test]
fn a_backup_is_a_history_that_the_daemon_continues() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "3600"]);
        daemon.wait_for_ticks(1);
        patch(&daemon, "/api/config", json!({"keep_5min_days": 30}));
        patch(&daemon, "/api/interfaces/wan0", json!({"alias": "uplink"}));
        send("wan0", 1000, 20);
        daemon.collect();
        let expect = sums_by_resolution(&daemon, "wan0");
        let health = || daemon.get("/api/system/health")["details"]["database"].clone();
        let unsaved = health();
        assert!(unsaved["unsaved_samples"].as_u64() > Some(0), "{unsaved}");
        assert!(unsaved["unsaved_since"].is_string(), "{unsaved}");
        assert_eq!(
            (&unsaved["flush_interval_seconds"], &unsaved["bytes_written_per_day"]),
            (&json!(3600), &Value::Null)
        );

        let answer = daemon.request("POST", "/api/backup", None);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/vnd.sqlite3")));
        assert!(
            answer.header("content-disposition").is_some_and(|it| it.starts_with("attachment; filename=net-pulse-20"))
        );
        assert_eq!(health()["error"], Value::Null);
        let names = || {
            let mut names: Vec<String> = std::fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.contains("backup"))
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(), [""; 0], "nothing is left beside the database");
        let token = std::fs::read(dir.join("net-pulse.db.token")).expect("a token");
        let token = String::from_utf8(token).unwrap().trim().to_string();
        assert!(
            !answer.body.windows(token.len()).any(|part| part == token.as_bytes()),
            "the backup contains the token"
        );

        // A client that disconnects in the middle leaves no copy behind either, and the next one gets its backup.
        for _ in 0..3 {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", daemon.port())).unwrap();
            write!(stream, "POST /api/backup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").unwrap();
            let _ = stream.read(&mut [0; 10]);
            drop(stream);
            wait_until("the next backup gets its turn", || daemon.request("POST", "/api/backup", None).status == 200);
            assert_eq!(names(), [""; 0]);
        }

        let other = Dir::new();
        std::fs::write(other.join("net-pulse.db"), &answer.body).unwrap();
        let copy = Daemon::start(&other, &["--interval", "3600"]);
        wait_until("the first tick", || copy.polls() > 0);
        assert_eq!(copy.interface("wan0")["alias"], "uplink");
        assert_eq!(copy.get("/api/config")["settings"]["keep_5min_days"]["value"], 30);
        assert_eq!(sums_by_resolution(&copy, "wan0"), expect);
    });
}
