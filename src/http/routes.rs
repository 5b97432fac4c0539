//! The table of routes. The program validates and dispatches requests by this table and publishes it as
//! `/openapi.json`, so that document and behaviour cannot differ: a handler receives only parameters in the table.

use super::accept::prefers_html;
use super::api::{backup, collector, config, events, export, interfaces, live, series, system, traffic};
use super::csv;
use super::gate::access::changes_something;
use super::params::{self, MAX_INTEGER, Param, ParamKind, ParamLocation, RawParams, ZoneSource};
use super::route::{Handler, Route, Weight};
use super::{Answer, Call, Context, HttpError, HttpRequest, JSON, SQLITE, assets, openapi};
use crate::config::{ChangedBy, INTERVAL_S, MAX_RETRIES, RETRY_DELAY_S, SETTINGS};
use crate::model::EventKind;
use crate::resolution;
use crate::totals::Period;

const fn query(name: &'static str, kind: ParamKind, doc: &'static str) -> Param {
    Param { name, location: ParamLocation::Query, kind, doc }
}

const fn required(name: &'static str, kind: ParamKind, doc: &'static str) -> Param {
    Param { name, location: ParamLocation::RequiredMember, kind, doc }
}

const fn optional(name: &'static str, kind: ParamKind, doc: &'static str) -> Param {
    Param { name, location: ParamLocation::OptionalMember, kind, doc }
}

const fn count(low: i64, high: i64, default: i64) -> ParamKind {
    ParamKind::Integer { low, high, default: Some(default) }
}

const NAME: Param = Param {
    name: "name",
    location: ParamLocation::Path,
    kind: ParamKind::Text,
    doc: "Name or altname of an interface, as in /api/interfaces.",
};
const INTERFACE_NAME: Param =
    query("interface_name", ParamKind::Text, "Only this interface, by its name or an altname.");
const INTERFACE: Param =
    query("interface", ParamKind::Text, "An interface, by its name or an altname; default: the primary interface.");
const START: Param = query("start_time", ParamKind::Time, "Not before this time.");
const END: Param = query("end_time", ParamKind::Time, "Not after this time.");
const FROM: Param = query("from", ParamKind::Time, "Start of the range; default: one day before the end.");
const TO: Param = query("to", ParamKind::Time, "End of the range; default: now.");
const OFFSET: Param = query("offset", count(0, MAX_INTEGER, 0), "Number of newest entries to skip.");

const fn count_visible_settings() -> usize {
    let (mut count, mut at) = (0, 0);
    while at < SETTINGS.len() {
        count += !matches!(SETTINGS[at].changed_by, ChangedBy::Program) as usize;
        at += 1;
    }
    count
}

/// A parameter for each visible setting, including those that only a flag or the environment sets.
static SETTING_PARAMS: [Param; count_visible_settings()] = {
    let mut params = [NAME; count_visible_settings()];
    let (mut count, mut at) = (0, 0);
    while at < SETTINGS.len() {
        let setting = &SETTINGS[at];
        let member = match setting.changed_by {
            ChangedBy::User => Some(ParamLocation::NullableMember),
            ChangedBy::FlagOrVariable => Some(ParamLocation::StartupMember),
            ChangedBy::Program => None,
        };
        if let Some(member) = member {
            params[count] =
                Param { name: setting.key, location: member, kind: ParamKind::Setting(setting), doc: setting.help };
            count += 1;
        }
        at += 1;
    }
    params
};

/// The names in a table of values and names.
const fn names<T: Copy, const N: usize>(table: &[(T, &'static str); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = table[at].1;
        at += 1;
    }
    names
}

const EVENT_KINDS: [&str; EventKind::NAMES.len()] = names(&EventKind::NAMES);
const PERIODS: [&str; Period::NAMES.len()] = names(&Period::NAMES);

const fn delete(path: &'static str, handler: Handler, weight: Weight) -> Route {
    Route::new("DELETE", path, handler, weight)
}

const fn get(path: &'static str, handler: Handler, weight: Weight) -> Route {
    Route::new("GET", path, handler, weight)
}

const fn patch(path: &'static str, handler: Handler, weight: Weight) -> Route {
    Route::new("PATCH", path, handler, weight)
}

const fn post(path: &'static str, handler: Handler, weight: Weight) -> Route {
    Route::new("POST", path, handler, weight)
}

const fn put(path: &'static str, handler: Handler, weight: Weight) -> Route {
    Route::new("PUT", path, handler, weight)
}

fn openapi_document(_context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    Ok(Answer::stream(JSON, |_, out| openapi::document(out, ROUTES)))
}

static EXPORT: [Param; 9] = [
    query(
        "format",
        ParamKind::Word(export::FORMATS),
        "CSV has a header row. In CSV, names that begin with =, +, - or @ get an apostrophe in front, so that no \
         spreadsheet reads them as formulas. All figures are whole numbers.",
    ),
    query(
        "bom",
        ParamKind::Word(csv::BOM_VALUES),
        "CSV: 1 begins the file with a byte order mark, which tells Excel that it is UTF-8.",
    ),
    query(
        "separator",
        ParamKind::Word(csv::SEPARATORS),
        "CSV: the separator between two cells. Spreadsheets expect ; in countries that write decimals with a comma.",
    ),
    query(
        "time",
        ParamKind::Word(csv::TIMES),
        "CSV: local writes times as 2026-01-15 11:30:00 in the configured time zone. Further columns hold the offset \
         from UTC in seconds (utc_offset_seconds; for buckets from_utc_offset_seconds and to_utc_offset_seconds), so \
         that the repeated hour at the end of summer time is unambiguous.",
    ),
    query(
        "resolution",
        ParamKind::Word(&resolution::NAMES),
        "Samples, or buckets of this length, also those that are only partly in the range.",
    ),
    INTERFACE_NAME,
    START,
    END,
    query("limit", ParamKind::Integer { low: 1, high: MAX_INTEGER, default: None }, "Maximum number of entries."),
];

pub static ROUTES: &[Route] = &[
    get("/", system::root, Weight::Light)
        .summary("The page, or name and version of the service")
        .answers(&["About", "text/html"]),
    get("/health", system::health, Weight::Light)
        .summary("Health of the service in one word; 503 when it is unhealthy")
        .answers(&["Health"]),
    get("/openapi.json", openapi_document, Weight::Light).summary("This document").answers(&["application/json"]),
    get("/collector/status", collector::status, Weight::Light)
        .summary("State of the collector, which takes the samples")
        .answers(&["CollectorStatus"]),
    post("/collector/start", collector::start, Weight::Light)
        .summary("Starts taking samples")
        .answers(&["Run"])
        .problems(&[409]),
    post("/collector/stop", collector::stop, Weight::Light)
        .summary("Stops taking samples, also after restarts")
        .answers(&["Run"])
        .problems(&[409]),
    post("/collector/collect", collector::collect, Weight::Light)
        .summary("Takes one sample now")
        .answers(&["Collection"])
        .problems(&[503]),
    get("/api/interfaces", interfaces::all, Weight::Light)
        .summary("All interfaces by name, including absent ones with history")
        .answers(&["ByName<Interface>"]),
    get("/api/interfaces/{name}", interfaces::one, Weight::Light)
        .summary("One interface")
        .params(&[NAME])
        .answers(&["Interface"]),
    patch("/api/interfaces/{name}", interfaces::patch, Weight::Costly)
        .summary("Changes one interface; monitored and primary are stored in the settings ignore and primary")
        .params(&[
            NAME,
            optional(
                "alias",
                ParamKind::ShortText { max_chars: 64 },
                "Name to display; empty: the alias of the link in the kernel.",
            ),
            Param {
                name: "monitored",
                location: ParamLocation::NullableMember,
                kind: ParamKind::Switch,
                doc: "true: always watched; false: never; null: the rules decide.",
            },
            optional(
                "primary",
                ParamKind::Switch,
                "true: always the primary interface, always watched; false: chosen by traffic again.",
            ),
            optional(
                "merge",
                ParamKind::Text,
                "Name of an absent interface: its history becomes part of this one, and its name disappears.",
            ),
        ])
        .answers(&["Interface"])
        .problems(&[409, 503]),
    delete("/api/interfaces/{name}", interfaces::forget, Weight::Costly)
        .summary("Forgets an absent interface and all of its history")
        .params(&[NAME])
        .answers(&["Forgotten"])
        .problems(&[409, 503]),
    get("/api/interfaces/{name}/stats", interfaces::stats, Weight::Light)
        .summary("Raw kernel counters of one interface, read now")
        .params(&[NAME])
        .answers(&["InterfaceStats"]),
    get("/api/traffic/history", traffic::history, Weight::Costly)
        .summary("Samples, newest first: the traffic since the interface's previous sample")
        .params(&[
            INTERFACE_NAME,
            START,
            END,
            query("limit", count(1, 1000, 100), "Maximum number of entries."),
            OFFSET,
        ])
        .answers(&["Vec<Record>"])
        .problems(&[503]),
    get("/api/traffic/latest", traffic::latest, Weight::Costly)
        .summary("The newest samples")
        .params(&[query("limit", count(1, 100, 10), "Maximum number of entries.")])
        .answers(&["Vec<Record>"])
        .problems(&[503]),
    get("/api/traffic/summary", traffic::summary, Weight::Light)
        .summary("Kernel counters of all present interfaces together")
        .answers(&["Summary"]),
    get("/api/traffic/series", series::series, Weight::Costly)
        .summary("Rates over a range of time, in columns for a chart")
        .params(&[
            query(
                "interface",
                ParamKind::Texts { max_items: Some(series::MAX_INTERFACES) },
                "Interfaces, by their names or altnames; default: the primary interface.",
            ),
            FROM,
            TO,
            query("points", count(1, 720, 720), "Maximum number of buckets."),
        ])
        .answers(&["Series"])
        .problems(&[404, 503]),
    get("/api/traffic/totals", series::totals, Weight::Costly)
        .summary("Traffic per hour, day, week, month or year of the configured time zone, oldest first")
        .params(&[
            INTERFACE,
            query("by", ParamKind::Word(&PERIODS), "Length of a period."),
            query("from", ParamKind::Time, "Start of the range; default: `limit` periods before the end."),
            TO,
            query("limit", count(1, 1000, 100), "Maximum number of periods, the newest ones."),
        ])
        .answers(&["Vec<Total>"])
        .problems(&[404, 503]),
    get("/api/traffic/live", live::live, Weight::Light)
        .summary("Rates of the latest seconds. A request makes net-pulse read counters every second for ten seconds")
        .params(&[query("since", count(0, MAX_INTEGER, 0), "`next` of the previous answer.")])
        .answers(&["LiveRates"]),
    get("/api/export/traffic", export::traffic, Weight::Long)
        .summary(
            "History as a file, oldest first. The columns of buckets are: from, to, interface_name, all counters, \
             rx_peak, tx_peak, observed",
        )
        .params(&EXPORT)
        .answers(&["Vec<Record>", "Vec<BucketRecord>", "text/csv"])
        .problems(&[503]),
    get("/api/config", config::all, Weight::Light)
        .summary("All settings: value, default, origin and allowed values")
        .answers(&["Settings"]),
    patch("/api/config", config::patch, Weight::Costly)
        .summary("Changes settings, all of the given ones or none, with immediate effect; null restores the default")
        .params(&SETTING_PARAMS)
        .answers(&["Settings"])
        .problems(&[409]),
    get("/api/config/interfaces", config::interfaces, Weight::Light)
        .summary("The interfaces that are chosen by name")
        .answers(&["InterfacesSetting"]),
    put("/api/config/interfaces", config::put_interfaces, Weight::Costly)
        .summary("Chooses interfaces by name")
        .params(&[required(
            "interfaces",
            ParamKind::Texts { max_items: None },
            "Names or altnames; an empty list: all interfaces that are not ignored.",
        )])
        .answers(&["InterfacesChanged"])
        .problems(&[400, 409]),
    get("/api/config/collection-interval", config::interval, Weight::Light)
        .summary("Seconds between two samples")
        .answers(&["IntervalSetting"]),
    put("/api/config/collection-interval", config::put_interval, Weight::Costly)
        .summary("Changes the seconds between two samples, with immediate effect")
        .params(&[required(
            "collection_interval",
            ParamKind::Integer { low: INTERVAL_S.0 as i64, high: INTERVAL_S.1 as i64, default: None },
            "Seconds.",
        )])
        .answers(&["IntervalSetting"])
        .problems(&[409]),
    get("/api/config/max-retries", config::retries, Weight::Light)
        .summary("Number of retries after a failed reading")
        .answers(&["RetriesSetting"]),
    put("/api/config/max-retries", config::put_retries, Weight::Costly)
        .summary("Changes the number of retries after a failed reading")
        .params(&[required(
            "max_retries",
            ParamKind::Integer { low: MAX_RETRIES.0 as i64, high: MAX_RETRIES.1 as i64, default: None },
            "Attempts.",
        )])
        .answers(&["RetriesSetting"])
        .problems(&[409]),
    get("/api/config/retry-delay", config::delay, Weight::Light)
        .summary("Seconds between two attempts")
        .answers(&["DelaySetting"]),
    put("/api/config/retry-delay", config::put_delay, Weight::Costly)
        .summary("Changes the seconds between two attempts")
        .params(&[required(
            "retry_delay",
            ParamKind::Decimal { low: RETRY_DELAY_S.0, high: RETRY_DELAY_S.1 },
            "Seconds.",
        )])
        .answers(&["DelaySetting"])
        .problems(&[409]),
    get("/api/system/info", system::info, Weight::Costly).summary("Facts about the machine").answers(&["SystemInfo"]),
    get("/api/system/health", system::details, Weight::Light)
        .summary("Health of the service in detail")
        .answers(&["SystemHealth"]),
    get("/api/system/metrics", system::metrics, Weight::Costly)
        .summary("Load of the machine and of this program")
        .answers(&["SystemMetrics"]),
    post("/api/backup", backup::backup, Weight::Long)
        .summary("Backup: the whole history and the settings, but not the access token, as an SQLite database")
        .answers(&[SQLITE])
        .problems(&[503, 507]),
    get("/api/events", events::events, Weight::Costly)
        .summary("Events such as resets, gaps, clock steps and interfaces that appeared or vanished; newest first")
        .params(&[
            query("limit", count(1, 1000, 100), "Maximum number of entries."),
            OFFSET,
            query("interface", ParamKind::Text, "Only events of this interface, by its name or an altname."),
            query("kind", ParamKind::Words(&EVENT_KINDS), "Only of these kinds."),
            query("from", ParamKind::Time, "Not before this time."),
            query("to", ParamKind::Time, "Before this time."),
        ])
        .answers(&["Vec<EventRecord>"])
        .problems(&[503]),
];

/// The parameters in `path` if it matches `pattern`, else `None`.
fn match_path(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut matched = Vec::new();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        // Decode each segment on its own: an encoded slash does not separate segments.
        let segment = params::decode(segments.next()?, false).ok()?;
        match expected.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) if !segment.is_empty() => matched.push((name, segment)),
            None if segment == expected => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(matched)
}

/// The value of the Allow header. HEAD is allowed where GET is, and OPTIONS everywhere.
fn allow(methods: &[&str]) -> String {
    let mut allow = methods.join(", ");
    if methods.contains(&"GET") {
        allow.push_str(", HEAD");
    }
    allow.push_str(", OPTIONS");
    allow
}

pub fn dispatch(context: &Context, request: &HttpRequest) -> Result<Answer, HttpError> {
    let (path, query) = split_target(request.target);
    let method = if request.method == "HEAD" { "GET" } else { request.method };

    let mut methods = Vec::new();
    for route in ROUTES {
        let Some(path) = match_path(route.path, path) else { continue };
        if route.method != method {
            methods.push(route.method);
            continue;
        }
        let has_body = route.params.iter().any(|param| param.location.is_in_body());
        let body = match request.body {
            Some(body) => body,
            None if has_body => return Err(HttpError::new(413, "the body is larger than any request needs")),
            None => b"",
        };
        let zones = ZoneSource { active: &|| context.live.lock().zone.clone(), find: &|name| context.zone(name) };
        let values =
            params::read(route.params, &RawParams { path: &path, query, body }, &zones).map_err(HttpError::flaws)?;
        return (route.handler)(context, &Call { request, values, now: context.clock.now() });
    }

    if let Some(asset) = asset(path).filter(|_| methods.is_empty()) {
        if method == "GET" {
            return assets::answer(asset, request);
        }
        methods.push("GET");
    }
    if methods.is_empty() {
        return Err(HttpError::not_found());
    }
    let mut answer = match method {
        "OPTIONS" => Answer::empty(204),
        _ => Answer::json_with(405, &super::json::Problem { detail: "Method Not Allowed".to_string() })?,
    };
    answer.header("Allow", allow(&methods));
    Ok(answer)
}

fn asset(path: &str) -> Option<&'static assets::Asset> {
    params::decode(path, false).ok().and_then(|path| assets::find(&path))
}

/// Weight of a request; the gate calls this before a worker gets the request. If no route matches, a request that
/// changes something is costly, because authorisation comes first and reads the token file.
pub fn weight(method: &str, target: &str) -> Weight {
    let (path, _) = split_target(target);
    let route_method = if method == "HEAD" { "GET" } else { method };
    let matched = ROUTES.iter().find(|route| route.method == route_method && match_path(route.path, path).is_some());
    let default = if changes_something(method) { Weight::Costly } else { Weight::Light };
    matched.map_or(default, |route| route.weight)
}

/// Whether the request is for the page or one of its files, which contain no figures.
pub fn is_page(request: &HttpRequest) -> bool {
    let (path, _) = split_target(request.target);
    match path {
        "/" => request.accept.is_some_and(prefers_html),
        // Routes come first, as in `dispatch`.
        _ => asset(path).is_some() && !ROUTES.iter().any(|route| match_path(route.path, path).is_some()),
    }
}

/// Splits a target into path and query. Also accepts scheme and host in front, which the gate has already removed.
fn split_target(target: &str) -> (&str, &str) {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    let target = target.split('#').next().unwrap_or("");
    target.split_once('?').unwrap_or((target, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_of_each_path() {
        for (target, expect) in [
            ("/api/export/traffic?format=csv", Weight::Long),
            ("/%61pi/exp%6Frt/traffic", Weight::Long),
            ("/api/traffic/history?limit=1000", Weight::Costly),
            ("/api/traffic/series", Weight::Costly),
            ("/api/traffic/latest?/api/export/", Weight::Costly),
            ("/", Weight::Light),
            ("/%ff/api/export/", Weight::Light),
            ("http://router/api/export/traffic", Weight::Long),
            ("/api/export/nothing", Weight::Light),
        ] {
            assert_eq!(weight("GET", target), expect, "{target}");
        }
        assert_eq!(weight("HEAD", "/api/export/traffic"), Weight::Long);
        assert_eq!(weight("PATCH", "/api/config"), Weight::Costly);
        assert_eq!(weight("DELETE", "/nothing"), Weight::Costly);
        assert_eq!(weight("POST", "/collector/stop"), Weight::Light);
        assert_eq!(weight("POST", "/api/backup"), Weight::Long);
    }

    #[test]
    fn path_patterns() {
        let check = |pattern, path, expect: Option<&[&str]>| {
            let matched = match_path(pattern, path);
            let matched: Option<Vec<&str>> =
                matched.as_ref().map(|matched| matched.iter().map(|(_, value)| value.as_str()).collect());
            assert_eq!(matched.as_deref(), expect, "{path}");
        };
        check("/", "/", Some(&[]));
        check("/", "//", None);
        check("/health", "/health", Some(&[]));
        check("/health", "/%68ealth", Some(&[]));
        check("/health", "/health/", None);
        check("/health", "health", None);
        check("/health", "", None);
        check("/health", "*", None);
        check("/api/interfaces/{name}", "/api/interfaces/eth0", Some(&["eth0"]));
        check("/api/interfaces/{name}", "/api/interfaces/a%2Fb+c%25", Some(&["a/b+c%"]));
        check("/api/interfaces/{name}", "/api/interfaces/", None);
        check("/api/interfaces/{name}", "/api/interfaces/%ff", None);
        check("/api/interfaces/{name}", "/api/interfaces/eth0/stats", None);
        check("/api/interfaces/{name}/stats", "/api/interfaces/%00/stats", Some(&["\0"]));
    }

    #[test]
    fn request_targets() {
        let check = |target, expect| assert_eq!(split_target(target), expect);
        check("/a?b=c", ("/a", "b=c"));
        check("/a?b?c", ("/a", "b?c"));
        check("/a#x?y", ("/a", ""));
        check("http://router/a?b", ("/a", "b"));
        check("HTTP://router", ("/", ""));
        check("http://router?x", ("", "x"));
        check("/a?u=http://x/y", ("/a", "u=http://x/y"));
        check("", ("", ""));
    }

    #[test]
    fn routes_are_unique_and_complete() {
        for (at, route) in ROUTES.iter().enumerate() {
            let same = |other: &Route| other.path == route.path && other.method == route.method;
            assert!(!ROUTES[..at].iter().any(same), "{} twice", route.path);
            assert!(!route.summary.is_empty() && !route.answers.is_empty(), "{}", route.path);
            for segment in route.path.split('/').filter_map(|it| it.strip_prefix('{')) {
                let name = segment.trim_end_matches('}');
                let known = |param: &&Param| param.location == ParamLocation::Path && param.name == name;
                assert_eq!(route.params.iter().filter(known).count(), 1, "{}", route.path);
            }
        }
    }
}
