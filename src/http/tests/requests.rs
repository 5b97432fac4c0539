//! What a request may say, and in which ways.

use std::collections::BTreeSet;

use super::{NOW, Rig};
use crate::clock::rfc3339;
use crate::http::params::{Kind, Place};
use crate::http::routes::ROUTES;

/// Grafana and JavaScript count in milliseconds.
#[test]
fn milliseconds_are_the_same_time_in_every_parameter() {
    let rig = Rig::new();
    let mut seen = BTreeSet::new();
    for route in ROUTES.iter().filter(|route| route.method == "GET") {
        for param in route.params.iter().filter(|param| matches!(param.kind, Kind::Time)) {
            assert_eq!(param.place, Place::Query, "{}", route.path);
            let with = |time: &str| {
                let reply = rig.get(&format!("{}?{}={time}", route.path, param.name));
                assert_eq!(reply.status, 200, "{}?{}={time}", route.path, param.name);
                String::from_utf8_lossy(&reply.body).into_owned()
            };
            let time = NOW - 600;
            let [text, seconds] = [with(&rfc3339(time)), with(&time.to_string())];
            assert_eq!((&text, &text), (&seconds, &with(&format!("{time}999"))), "{} of {}", param.name, route.path);
            let others = [time - 2 * 86_400, time + 2 * 86_400];
            assert!(others.iter().any(|other| with(&other.to_string()) != text), "{} of {}", param.name, route.path);
            seen.insert((route.path, param.name));

            let reply = rig.get(&format!("{}?{}=253402300800000", route.path, param.name));
            assert_eq!(reply.status, 422, "{}", route.path);
            let told = reply.flaws().join(" ");
            assert!(told.contains(param.name) && told.contains("from 1970 to 9999"), "{told}");
        }
    }
    let names: BTreeSet<&str> = seen.iter().map(|(_, name)| *name).collect();
    assert_eq!(names, BTreeSet::from(["end_time", "from", "start_time", "to"]));
    assert!(seen.len() >= 10, "{seen:?}");
}

#[test]
fn what_only_a_table_has_is_refused_for_json() {
    let rig = Rig::new();
    let reply = rig.get("/api/export/traffic?bom=1&separator=%3B&time=local");
    let told = "is for CSV alone: add format=csv, or leave it out";
    let expect = [("bom", "1"), ("separator", ";"), ("time", "local")]
        .map(|(name, word)| format!("query.{name}: {told} ({word})"));
    assert_eq!((reply.status, reply.flaws()), (422, expect.to_vec()));
    assert_eq!(rig.get("/api/export/traffic?bom=0&separator=,&time=utc").status, 200);
    let reply = rig.get("/api/export/traffic?format=csv&separator=|&bom=yes");
    assert_eq!(reply.flaws(), ["query.bom: must be one of 0, 1 (yes)", "query.separator: must be one of ',', ';' (|)"]);
}
