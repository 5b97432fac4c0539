//! Formats of parameters: times in milliseconds, and parameters for CSV only.

use std::collections::BTreeSet;

use super::{NOW, TestServer};
use crate::clock::rfc3339;
use crate::http::params::{ParamKind, ParamLocation};
use crate::http::routes::ROUTES;

/// Grafana and JavaScript send times in milliseconds.
#[test]
fn every_time_parameter_accepts_milliseconds() {
    let server = TestServer::new();
    let mut seen = BTreeSet::new();
    for route in ROUTES.iter().filter(|route| route.method == "GET") {
        for param in route.params.iter().filter(|param| matches!(param.kind, ParamKind::Time)) {
            assert_eq!(param.location, ParamLocation::Query, "{}", route.path);
            let with = |time: &str| {
                let reply = server.get(&format!("{}?{}={time}", route.path, param.name));
                assert_eq!(reply.status, 200, "{}?{}={time}", route.path, param.name);
                String::from_utf8_lossy(&reply.body).into_owned()
            };
            let time = NOW - 600;
            let [text, seconds] = [with(&rfc3339(time)), with(&time.to_string())];
            assert_eq!((&text, &text), (&seconds, &with(&format!("{time}999"))), "{} of {}", param.name, route.path);
            let others = [time - 2 * 86_400, time + 2 * 86_400];
            assert!(others.iter().any(|other| with(&other.to_string()) != text), "{} of {}", param.name, route.path);
            seen.insert((route.path, param.name));

            let reply = server.get(&format!("{}?{}=253402300800000", route.path, param.name));
            assert_eq!(reply.status, 422, "{}", route.path);
            let errors = reply.flaws().join(" ");
            assert!(errors.contains(param.name) && errors.contains("from 1970 to 9999"), "{errors}");
        }
    }
    let names: BTreeSet<&str> = seen.iter().map(|(_, name)| *name).collect();
    assert_eq!(names, BTreeSet::from(["end_time", "from", "start_time", "to"]));
    assert!(seen.len() >= 10, "{seen:?}");
}

#[test]
fn csv_parameters_are_refused_for_json() {
    let server = TestServer::new();
    let reply = server.get("/api/export/traffic?bom=1&separator=%3B&time=local");
    let message = "is for CSV only: add format=csv, or leave this parameter out";
    let expect = [("bom", "1"), ("separator", ";"), ("time", "local")]
        .map(|(name, word)| format!("query.{name}: {message} ({word})"));
    assert_eq!((reply.status, reply.flaws()), (422, expect.to_vec()));
    assert_eq!(server.get("/api/export/traffic?bom=0&separator=,&time=utc").status, 200);
    let reply = server.get("/api/export/traffic?format=csv&separator=|&bom=yes");
    assert_eq!(reply.flaws(), ["query.bom: must be one of 0, 1 (yes)", "query.separator: must be one of ',', ';' (|)"]);
}
