//! The one table of what is answered here. It dispatches requests and it is `/openapi.json`, so that the two cannot
//! drift: a parameter that is not in the table does not reach a handler.

use super::accept::prefers_html;
use super::api::{backup, collector, config, events, export, interfaces, live, series, system, traffic};
use super::csv;
use super::gate::access::changes_something;
use super::params::{self, Given, Kind, MOST, Param, Place, Zones};
use super::route::{Handler, Route, Weight};
use super::{Answer, Ask, Call, Context, Fault, JSON, SQLITE, assets, openapi};
use crate::config::{Change, INTERVAL_S, MAX_RETRIES, RETRY_DELAY_S, SETTINGS};
use crate::level;
use crate::model::EventKind;
use crate::totals::Period;

const fn query(name: &'static str, kind: Kind, doc: &'static str) -> Param {
    Param { name, place: Place::Query, kind, doc }
}

const fn body(name: &'static str, kind: Kind, doc: &'static str) -> Param {
    Param { name, place: Place::Body, kind, doc }
}

const fn part(name: &'static str, kind: Kind, doc: &'static str) -> Param {
    Param { name, place: Place::Part, kind, doc }
}

const fn count(low: i64, high: i64, default: i64) -> Kind {
    Kind::Integer { low, high, default: Some(default) }
}

const NAME: Param = Param {
    name: "name",
    place: Place::Path,
    kind: Kind::Text,
    doc: "An interface's name or altname, as in /api/interfaces.",
};
const INTERFACE_NAME: Param = query("interface_name", Kind::Text, "Only this interface, by its name or an altname.");
const INTERFACE: Param =
    query("interface", Kind::Text, "Which interface, by its name or an altname; the primary if left out.");
const START: Param = query("start_time", Kind::Time, "Not before this time.");
const END: Param = query("end_time", Kind::Time, "Not after this time.");
const FROM: Param = query("from", Kind::Time, "The beginning; a day before the end if left out.");
const TO: Param = query("to", Kind::Time, "The end; now if left out.");
const OFFSET: Param = query("offset", count(0, MOST, 0), "Skips so many of the newest.");

const fn shown() -> usize {
    let (mut count, mut at) = (0, 0);
    while at < SETTINGS.len() {
        count += !matches!(SETTINGS[at].change, Change::Program) as usize;
        at += 1;
    }
    count
}

/// Every setting that is shown, with those that only a flag or the environment sets.
static SHOWN: [Param; shown()] = {
    let mut params = [NAME; shown()];
    let (mut count, mut at) = (0, 0);
    while at < SETTINGS.len() {
        let setting = &SETTINGS[at];
        let place = match setting.change {
            Change::People => Some(Place::PartOrNull),
            Change::AtStart => Some(Place::Elsewhere),
            Change::Program => None,
        };
        if let Some(place) = place {
            params[count] = Param { name: setting.key, place, kind: Kind::Setting(setting), doc: setting.help };
            count += 1;
        }
        at += 1;
    }
    params
};

/// The names of a table of words.
const fn words<T: Copy, const N: usize>(table: &[(T, &'static str); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut at = 0;
    while at < N {
        words[at] = table[at].1;
        at += 1;
    }
    words
}

const EVENT_KINDS: [&str; EventKind::NAMES.len()] = words(&EventKind::NAMES);
const PERIODS: [&str; Period::NAMES.len()] = words(&Period::NAMES);

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

fn description(_context: &Context, _call: &Call) -> Result<Answer, Fault> {
    Ok(Answer::stream(JSON, |_, out| openapi::document(out, ROUTES)))
}

static EXPORT: [Param; 9] = [
    query(
        "format",
        Kind::Word(export::FORMATS),
        "CSV comes with a header row. Names that begin with =, +, - or @ have an apostrophe in front there, so that \
         no spreadsheet takes them for formulas. All figures are whole numbers.",
    ),
    query("bom", Kind::Word(csv::MARKS), "CSV: 1 begins with a byte order mark, by which Excel knows UTF-8."),
    query(
        "separator",
        Kind::Word(csv::SEPARATORS),
        "CSV: what stands between two cells; ; where decimals have a comma.",
    ),
    query(
        "time",
        Kind::Word(csv::TIMES),
        "CSV: local writes times as 2026-01-15 11:30:00 in the configured time zone. Further columns say how many \
         seconds that is ahead of UTC (utc_offset_seconds; of buckets from_utc_offset_seconds and \
         to_utc_offset_seconds), which tells the two hours apart where clocks go back.",
    ),
    query("resolution", Kind::Word(&level::NAMES), "Samples, or buckets of this length."),
    INTERFACE_NAME,
    START,
    END,
    query("limit", Kind::Integer { low: 1, high: MOST, default: None }, "No more than so many."),
];

pub static ROUTES: &[Route] = &[
    get("/", system::root, Weight::Light).summary("The page, or what answers here").answers(&["About", "text/html"]),
    get("/health", system::health, Weight::Light)
        .summary("The state of the service in one word; 503 when it does not do its work")
        .answers(&["Health"]),
    get("/openapi.json", description, Weight::Light).summary("This description").answers(&["application/json"]),
    get("/collector/status", collector::status, Weight::Light)
        .summary("Whether samples are taken, and how that goes")
        .answers(&["CollectorStatus"]),
    post("/collector/start", collector::start, Weight::Light)
        .summary("Takes samples again")
        .answers(&["Run"])
        .problems(&[409]),
    post("/collector/stop", collector::stop, Weight::Light)
        .summary("Takes no more samples, over restarts too")
        .answers(&["Run"])
        .problems(&[409]),
    post("/collector/collect", collector::collect, Weight::Light)
        .summary("Takes one sample now")
        .answers(&["Collection"])
        .problems(&[503]),
    get("/api/interfaces", interfaces::all, Weight::Light)
        .summary("All interfaces by name, absent ones that have history included")
        .answers(&["ByName<Interface>"]),
    get("/api/interfaces/{name}", interfaces::one, Weight::Light)
        .summary("One interface")
        .params(&[NAME])
        .answers(&["Interface"]),
    patch("/api/interfaces/{name}", interfaces::patch, Weight::Costly)
        .summary("Changes what is thought of one interface; monitored and primary are the settings ignore and primary")
        .params(&[
            NAME,
            part("alias", Kind::Line { most: 64 }, "A name for people; an empty one for the system's own."),
            Param {
                name: "monitored",
                place: Place::PartOrNull,
                kind: Kind::Switch,
                doc: "Watched whatever the rules say, left out, or null: by the rules.",
            },
            part("primary", Kind::Switch, "The headline for good, and always watched; or found by its traffic again."),
            part(
                "merge",
                Kind::Text,
                "An absent interface: its history becomes part of this one's, and its name is gone.",
            ),
        ])
        .answers(&["Interface"])
        .problems(&[409, 503]),
    delete("/api/interfaces/{name}", interfaces::forget, Weight::Costly)
        .summary("Forgets an absent interface and its history on every level")
        .params(&[NAME])
        .answers(&["Forgotten"])
        .problems(&[409, 503]),
    get("/api/interfaces/{name}/stats", interfaces::stats, Weight::Light)
        .summary("Raw kernel counters of one interface, read now")
        .params(&[NAME])
        .answers(&["InterfaceStats"]),
    get("/api/traffic/history", traffic::history, Weight::Costly)
        .summary("Samples, newest first: what passed since the interface's previous sample")
        .params(&[INTERFACE_NAME, START, END, query("limit", count(1, 1000, 100), "No more than so many."), OFFSET])
        .answers(&["Vec<Record>"])
        .problems(&[503]),
    get("/api/traffic/latest", traffic::latest, Weight::Costly)
        .summary("The newest samples")
        .params(&[query("limit", count(1, 100, 10), "No more than so many.")])
        .answers(&["Vec<Record>"])
        .problems(&[503]),
    get("/api/traffic/summary", traffic::summary, Weight::Light)
        .summary("All interfaces together, by the kernel's counters")
        .answers(&["Summary"]),
    get("/api/traffic/series", series::series, Weight::Costly)
        .summary("Rates over a range of time, in columns for a chart")
        .params(&[
            query(
                "interface",
                Kind::Texts { most: Some(series::INTERFACES) },
                "Which interfaces, by their names or altnames; the primary if left out.",
            ),
            FROM,
            TO,
            query("points", count(1, 720, 720), "No more buckets than this."),
        ])
        .answers(&["Series"])
        .problems(&[404, 503]),
    get("/api/traffic/totals", series::totals, Weight::Costly)
        .summary("What passed per hour, day, week, month or year of the configured time zone, ascending")
        .params(&[
            INTERFACE,
            query("by", Kind::Word(&PERIODS), "The length of a row."),
            query("from", Kind::Time, "The beginning; if left out, as far back as `limit` reaches."),
            TO,
            query("limit", count(1, 1000, 100), "No more than so many, the newest ones."),
        ])
        .answers(&["Vec<Total>"])
        .problems(&[404, 503]),
    get("/api/traffic/live", live::live, Weight::Light)
        .summary("Rates of the latest seconds. Asking keeps the one-second rhythm going for ten seconds")
        .params(&[query("since", count(0, MOST, 0), "`next` of the previous answer.")])
        .answers(&["LiveRates"]),
    get("/api/export/traffic", export::traffic, Weight::Long)
        .summary(
            "History as a file, oldest first. Buckets have columns of their own: from, to, interface_name, all \
             counters, rx_peak, tx_peak, observed",
        )
        .params(&EXPORT)
        .answers(&["Vec<Record>", "Vec<BucketRecord>", "text/csv"])
        .problems(&[503]),
    get("/api/config", config::all, Weight::Light)
        .summary("Every setting: its value, its default, what set it and what it may be")
        .answers(&["Settings"]),
    patch("/api/config", config::patch, Weight::Costly)
        .summary("Changes settings, all that are named or none, at once; null brings the default back")
        .params(&SHOWN)
        .answers(&["Settings"])
        .problems(&[409]),
    get("/api/config/interfaces", config::interfaces, Weight::Light)
        .summary("Which interfaces are chosen by name")
        .answers(&["InterfacesSetting"]),
    put("/api/config/interfaces", config::put_interfaces, Weight::Costly)
        .summary("Chooses interfaces by name")
        .params(&[body(
            "interfaces",
            Kind::Texts { most: None },
            "Names or altnames; none for all that are not ignored.",
        )])
        .answers(&["InterfacesChanged"])
        .problems(&[400, 409]),
    get("/api/config/collection-interval", config::interval, Weight::Light)
        .summary("Seconds between two samples")
        .answers(&["IntervalSetting"]),
    put("/api/config/collection-interval", config::put_interval, Weight::Costly)
        .summary("Changes the seconds between two samples, at once")
        .params(&[body(
            "collection_interval",
            Kind::Integer { low: INTERVAL_S.0 as i64, high: INTERVAL_S.1 as i64, default: None },
            "Seconds.",
        )])
        .answers(&["IntervalSetting"])
        .problems(&[409]),
    get("/api/config/max-retries", config::retries, Weight::Light)
        .summary("Further attempts after a failed reading")
        .answers(&["RetriesSetting"]),
    put("/api/config/max-retries", config::put_retries, Weight::Costly)
        .summary("Changes the further attempts after a failed reading")
        .params(&[body(
            "max_retries",
            Kind::Integer { low: MAX_RETRIES.0 as i64, high: MAX_RETRIES.1 as i64, default: None },
            "Attempts.",
        )])
        .answers(&["RetriesSetting"])
        .problems(&[409]),
    get("/api/config/retry-delay", config::delay, Weight::Light)
        .summary("Seconds between two attempts")
        .answers(&["DelaySetting"]),
    put("/api/config/retry-delay", config::put_delay, Weight::Costly)
        .summary("Changes the seconds between two attempts")
        .params(&[body("retry_delay", Kind::Decimal { low: RETRY_DELAY_S.0, high: RETRY_DELAY_S.1 }, "Seconds.")])
        .answers(&["DelaySetting"])
        .problems(&[409]),
    get("/api/system/info", system::info, Weight::Costly).summary("The machine").answers(&["SystemInfo"]),
    get("/api/system/health", system::details, Weight::Light)
        .summary("The state of the service, part by part")
        .answers(&["SystemHealth"]),
    get("/api/system/metrics", system::metrics, Weight::Costly)
        .summary("How busy the machine is, and this program")
        .answers(&["SystemMetrics"]),
    post("/api/backup", backup::backup, Weight::Long)
        .summary("The whole history and the settings as a database, as of now; the access token is not in it")
        .answers(&[SQLITE])
        .problems(&[503, 507]),
    get("/api/events", events::events, Weight::Costly)
        .summary("Resets, gaps, clock steps, interfaces that came and went: newest first")
        .params(&[
            query("limit", count(1, 1000, 100), "No more than so many."),
            OFFSET,
            query("interface", Kind::Text, "Only what concerns this interface, by its name or an altname."),
            query("kind", Kind::Words(&EVENT_KINDS), "Only of these kinds."),
            query("from", Kind::Time, "Not before this time."),
            query("to", Kind::Time, "Before this time."),
        ])
        .answers(&["Vec<EventRecord>"])
        .problems(&[503]),
];

/// What the `{}` of `pattern` stand for in `path`; `None` when it is another path.
fn matches(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        // Decoded one by one: an encoded slash is no separator.
        let segment = params::decode(segments.next()?, false).ok()?;
        match expected.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) if !segment.is_empty() => found.push((name, segment)),
            None if segment == expected => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(found)
}

/// GET also answers HEAD, and every path OPTIONS.
fn allow(methods: &[&str]) -> String {
    let mut allow = methods.join(", ");
    if methods.contains(&"GET") {
        allow.push_str(", HEAD");
    }
    allow.push_str(", OPTIONS");
    allow
}

pub fn dispatch(context: &Context, ask: &Ask) -> Result<Answer, Fault> {
    let (path, query) = split(ask.target);
    let method = if ask.method == "HEAD" { "GET" } else { ask.method };

    let mut methods = Vec::new();
    for route in ROUTES {
        let Some(path) = matches(route.path, path) else { continue };
        if route.method != method {
            methods.push(route.method);
            continue;
        }
        let wants_body = route.params.iter().any(|param| param.place.in_body());
        let body = match ask.body {
            Some(body) => body,
            None if wants_body => return Err(Fault::new(413, "the body is larger than anything asked for here")),
            None => b"",
        };
        let zones = Zones { now: &|| context.live.lock().zone.clone(), find: &|name| context.zone(name) };
        let values = params::read(route.params, &Given { path: &path, query, body }, &zones).map_err(Fault::flaws)?;
        return (route.handler)(context, &Call { ask, values, now: context.clock.now() });
    }

    if let Some(asset) = asset(path).filter(|_| methods.is_empty()) {
        if method == "GET" {
            return assets::answer(asset, ask);
        }
        methods.push("GET");
    }
    if methods.is_empty() {
        return Err(Fault::not_found());
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

/// What a request asks of the workers, before it is let in to them. What is changed asks for the token, whose file is read.
pub fn weight(method: &str, target: &str) -> Weight {
    let (path, _) = split(target);
    let asked = if method == "HEAD" { "GET" } else { method };
    let found = ROUTES.iter().find(|route| route.method == asked && matches(route.path, path).is_some());
    let unknown = if changes_something(method) { Weight::Costly } else { Weight::Light };
    found.map_or(unknown, |route| route.weight)
}

/// The page, or one of the files it is made of: nothing that anybody has measured.
pub fn is_page(ask: &Ask) -> bool {
    let (path, _) = split(ask.target);
    match path {
        "/" => ask.accept.is_some_and(prefers_html),
        // A route has the first word in `dispatch`, and none of those is a file.
        _ => asset(path).is_some() && !ROUTES.iter().any(|route| matches(route.path, path).is_some()),
    }
}

/// Path and query of a target, which a proxy may send with scheme and host in front.
fn split(target: &str) -> (&str, &str) {
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
    fn weights_are_known_by_the_path() {
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
    fn paths() {
        let check = |pattern, path, expect: Option<&[&str]>| {
            let found = matches(pattern, path);
            let found: Option<Vec<&str>> =
                found.as_ref().map(|found| found.iter().map(|(_, value)| value.as_str()).collect());
            assert_eq!(found.as_deref(), expect, "{path}");
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
    fn targets() {
        let check = |target, expect| assert_eq!(split(target), expect);
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
    fn the_table_is_sound() {
        for (at, route) in ROUTES.iter().enumerate() {
            let same = |other: &Route| other.path == route.path && other.method == route.method;
            assert!(!ROUTES[..at].iter().any(same), "{} twice", route.path);
            assert!(!route.summary.is_empty() && !route.answers.is_empty(), "{}", route.path);
            for segment in route.path.split('/').filter_map(|it| it.strip_prefix('{')) {
                let name = segment.trim_end_matches('}');
                let known = |param: &&Param| param.place == Place::Path && param.name == name;
                assert_eq!(route.params.iter().filter(known).count(), 1, "{}", route.path);
            }
        }
    }
}
