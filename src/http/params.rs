//! What a route takes: read and checked against its table, all faults at once. It never panics and never guesses,
//! whatever a stranger sends.

use std::sync::Arc;

use serde_json::Value as Json;

use super::json::Flaw;
use crate::clock::{Zone, parse_time};
use crate::config::{self, Setting};
use crate::error::ErrorKind;
use crate::error::Result as Found;

/// Where there is no other limit: the largest number that every JSON reader has exactly.
pub const MOST: i64 = (1 << 53) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    /// A member of the JSON object in the body; always required.
    Body,
    /// A member that may be left out. What no such parameter names may not be there either.
    Part,
    /// The same, and null means something.
    PartOrNull,
    /// A member that is known and changed somewhere else: to be refused by who knows where.
    Elsewhere,
}

impl Place {
    pub fn name(self) -> &'static str {
        match self {
            Place::Path => "path",
            Place::Query => "query",
            Place::Body | Place::Part | Place::PartOrNull | Place::Elsewhere => "body",
        }
    }

    pub fn in_body(self) -> bool {
        self.name() == "body"
    }

    pub fn may_lack(self) -> bool {
        matches!(self, Place::Part | Place::PartOrNull | Place::Elsewhere)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Whole number, both ends included.
    Integer {
        low: i64,
        high: i64,
        default: Option<i64>,
    },
    /// Decimal number, both ends included.
    Decimal {
        low: f64,
        high: f64,
    },
    /// The first one is the default.
    Word(&'static [&'static str]),
    Time,
    Text,
    /// A text of so many characters at the most, none of them a control character.
    Line {
        most: usize,
    },
    /// Repeated in a query, a list in a body.
    Texts {
        most: Option<usize>,
    },
    /// The same, of a fixed vocabulary and without a default.
    Words(&'static [&'static str]),
    Switch,
    /// As the table of settings has it.
    Setting(&'static Setting),
}

#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    pub place: Place,
    pub kind: Kind,
    pub doc: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Integer(i64),
    Decimal(f64),
    Text(String),
    Switch(bool),
    /// Null, or an empty list or text where that comes to the same.
    Nothing,
}

/// Years 1970 to 9999, as `parse_time` has it.
pub const TIMES: (i64, i64) = (0, 253_402_300_799);
/// No more of a wrong value than this is repeated to its sender.
const SHOWN: usize = 100;

/// Checked values; defaults are filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(Vec<(&'static str, Value)>);

impl Values {
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.0.iter().find_map(|(known, value)| match value {
            Value::Integer(number) if *known == name => Some(*number),
            _ => None,
        })
    }

    /// For what has a default and is never negative.
    pub fn count(&self, name: &str) -> u64 {
        self.integer(name).and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
    }

    pub fn decimal(&self, name: &str) -> Option<f64> {
        self.0.iter().find_map(|(known, value)| match value {
            Value::Decimal(number) if *known == name => Some(*number),
            _ => None,
        })
    }

    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(move |(known, value)| match value {
            Value::Text(text) if *known == name => Some(text.as_str()),
            _ => None,
        })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts(name).next()
    }

    pub fn switch(&self, name: &str) -> Option<bool> {
        self.0.iter().find_map(|(known, value)| match value {
            Value::Switch(on) if *known == name => Some(*on),
            _ => None,
        })
    }

    /// Given at all, be it as null.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }
}

/// Percent-decoding. A `%` without two digits behind it stands for itself, as browsers have it. What is not UTF-8
/// comes back as an error that can at least be shown.
pub fn decode(text: &str, plus_is_space: bool) -> Result<String, String> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        out.push(match byte {
            b'+' if plus_is_space => b' ',
            b'%' => match (digit(at), digit(at + 1)) {
                (Some(high), Some(low)) => {
                    at += 2;
                    (high << 4 | low) as u8
                }
                _ => b'%',
            },
            other => other,
        });
    }
    String::from_utf8(out).map_err(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A request's parameters as they came: what the path's `{}` stood for, the query, the body.
pub struct Given<'a> {
    pub path: &'a [(&'static str, String)],
    pub query: &'a str,
    pub body: &'a [u8],
}

/// Who knows about time zones.
pub struct Zones<'a> {
    /// The one in force; asked for only when a time is among the parameters.
    pub now: &'a dyn Fn() -> Arc<Zone>,
    /// What a name means.
    pub find: &'a dyn Fn(&str) -> Found<Zone>,
}

pub fn read(params: &'static [Param], given: &Given, zones: &Zones) -> Result<Values, Vec<Flaw>> {
    let zone = params.iter().any(|param| matches!(param.kind, Kind::Time)).then(zones.now);
    let zone = zone.as_deref().unwrap_or(&Zone::UTC);
    let query = pairs(given.query);
    let body = params.iter().any(|param| param.place.in_body()).then(|| members(given.body));

    let mut reading = Reading { values: Values::default(), flaws: Vec::new(), zone, find: zones.find };
    for param in params {
        match (param.place, &body) {
            (Place::Path, _) => {
                for (_, value) in given.path.iter().filter(|(name, _)| *name == param.name) {
                    reading.text(param, value);
                }
            }
            (Place::Query, _) => reading.query(param, &query),
            (_, Some(body)) => reading.member(param, body),
            (_, None) => {}
        }
    }
    if let Some(body) = body.filter(|_| params.iter().any(|param| param.place.may_lack())) {
        reading.unknown_members(params, &body);
    }
    if reading.flaws.is_empty() { Ok(reading.values) } else { Err(reading.flaws) }
}

/// The names that can be read, with what was given.
type Pairs = Vec<(String, Result<String, String>)>;

fn pairs(query: &str) -> Pairs {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name, true).ok()?, decode(value, true)))
    });
    pairs.collect()
}

fn flaw<const N: usize>(place: [&str; N], msg: &str, input: &str) -> Flaw {
    let short = |text: &str| text.chars().take(SHOWN).collect::<String>();
    Flaw { loc: place.map(short).to_vec(), msg: msg.to_string(), input: short(input) }
}

/// The object in the body; or what is wrong with the body, and what it is.
type Members = Result<serde_json::Map<String, Json>, (String, String)>;

fn members(body: &[u8]) -> Members {
    let wrong = |what: String| Err((what, String::from_utf8_lossy(body).into_owned()));
    if body.is_empty() {
        return wrong("the body is empty; a JSON object is needed".to_string());
    }
    match serde_json::from_slice(body) {
        Ok(Json::Object(members)) => Ok(members),
        Ok(other) => Err(("the body must be a JSON object".to_string(), other.to_string())),
        Err(error) => wrong(format!("the body is not JSON: {error}")),
    }
}

struct Reading<'a> {
    values: Values,
    flaws: Vec<Flaw>,
    zone: &'a Zone,
    find: &'a dyn Fn(&str) -> Found<Zone>,
}

impl Reading<'_> {
    fn flaw(&mut self, param: &Param, msg: &str, input: &str) {
        self.flaws.push(flaw([param.place.name(), param.name], msg, input));
    }

    fn take(&mut self, param: &Param, value: Option<Value>, input: &str) {
        match value {
            Some(value) => self.values.0.push((param.name, value)),
            None => self.flaw(param, &wanted(param.kind), input),
        }
    }

    fn query(&mut self, param: &Param, query: &Pairs) {
        let mut found: Vec<_> = query.iter().filter(|(name, _)| name == param.name).collect();
        match param.kind {
            Kind::Texts { most } if most.is_some_and(|most| found.len() > most) => {
                return self.flaw(param, &wanted(param.kind), &format!("{} of them", found.len()));
            }
            Kind::Texts { .. } | Kind::Words(_) => {}
            _ => {
                found.drain(..found.len().saturating_sub(1));
            }
        }
        for (_, value) in &found {
            match value {
                Ok(text) => self.text(param, text),
                Err(lossy) => self.flaw(param, "must be UTF-8", lossy),
            }
        }
        if found.is_empty() {
            self.default(param);
        }
    }

    fn member(&mut self, param: &Param, body: &Members) {
        match body {
            Ok(members) => match (members.get(param.name), param.place) {
                (Some(Json::Null), Place::PartOrNull) | (Some(_), Place::Elsewhere) => {
                    self.values.0.push((param.name, Value::Nothing))
                }
                (Some(value), _) => self.json(param, value),
                (None, place) if place.may_lack() => {}
                (None, _) => self.flaw(param, "is missing", ""),
            },
            // Once is enough: this is no fault of a member.
            Err(_) if param.place.may_lack() => {}
            Err((fault, input)) => self.flaw(param, fault, input),
        }
    }

    fn unknown_members(&mut self, params: &[Param], body: &Members) {
        let known = |name: &str| params.iter().any(|param| param.place.in_body() && param.name == name);
        match body {
            Ok(members) => {
                let unknown = members.iter().filter(|(name, _)| !known(name));
                let what = "there is no such thing to be changed";
                self.flaws.extend(unknown.map(|(name, value)| flaw(["body", name], what, &value.to_string())));
            }
            Err((fault, input)) => self.flaws.push(flaw(["body"], fault, input)),
        }
    }

    fn text(&mut self, param: &Param, text: &str) {
        let value = match param.kind {
            Kind::Integer { low, high, .. } => {
                text.parse().ok().filter(|number| (low..=high).contains(number)).map(Value::Integer)
            }
            Kind::Decimal { low, high } => {
                text.parse().ok().filter(|number| (low..=high).contains(number)).map(Value::Decimal)
            }
            Kind::Word(words) | Kind::Words(words) => words.contains(&text).then(|| Value::Text(text.to_string())),
            Kind::Time => {
                parse_time(text, self.zone).ok().filter(|unix| (TIMES.0..=TIMES.1).contains(unix)).map(Value::Integer)
            }
            Kind::Text | Kind::Texts { .. } => Some(Value::Text(text.to_string())),
            Kind::Line { most } => line(text, most),
            Kind::Switch | Kind::Setting(_) => None,
        };
        self.take(param, value, text);
    }

    /// `true` is no 1 and `"10"` is no 10: who sends these means something else.
    fn json(&mut self, param: &Param, json: &Json) {
        if let Kind::Setting(setting) = param.kind {
            return self.setting(param, setting, json);
        }
        if let (Kind::Texts { most }, Json::Array(items)) = (param.kind, json) {
            if most.is_some_and(|most| items.len() > most) {
                return self.flaw(param, &wanted(param.kind), &format!("{} of them", items.len()));
            }
            for item in items {
                self.take(param, item.as_str().map(|text| Value::Text(text.to_string())), &item.to_string());
            }
            return;
        }
        let value = match param.kind {
            Kind::Integer { low, high, .. } => {
                whole(json).filter(|number| (low..=high).contains(number)).map(Value::Integer)
            }
            Kind::Decimal { low, high } => {
                json.as_f64().filter(|number| (low..=high).contains(number)).map(Value::Decimal)
            }
            Kind::Word(words) => {
                json.as_str().filter(|text| words.contains(text)).map(|text| Value::Text(text.to_string()))
            }
            Kind::Text => json.as_str().map(|text| Value::Text(text.to_string())),
            Kind::Line { most } => json.as_str().and_then(|text| line(text, most)),
            Kind::Switch => json.as_bool().map(Value::Switch),
            Kind::Time | Kind::Texts { .. } | Kind::Words(_) | Kind::Setting(_) => None,
        };
        self.take(param, value, &json.to_string());
    }

    /// A setting as the text that `config` keeps.
    fn setting(&mut self, param: &Param, setting: &Setting, json: &Json) {
        let text = match setting.kind {
            config::Kind::Integer(..) => whole(json).map(|number| number.to_string()),
            // As text it is rounded, and may then fit by that alone.
            config::Kind::Decimal(low, high) => {
                json.as_f64().filter(|number| (low..=high).contains(number)).map(config::decimal)
            }
            config::Kind::Switch => json.as_bool().map(|on| on.to_string()),
            config::Kind::List => json.as_array().and_then(|items| {
                let item = |item: &Json| item.as_str().map(str::trim).map(str::to_string);
                // What is kept is cut at commas.
                let sound = |item: &String| !item.is_empty() && !item.contains(',');
                let items: Vec<String> = items.iter().map(|it| item(it).filter(sound)).collect::<Option<_>>()?;
                Some(items.join(","))
            }),
            _ => json.as_str().map(|text| text.trim().to_string()),
        };
        let input = json.to_string();
        match text {
            Some(text) if text.is_empty() && setting.default.is_empty() => {
                self.values.0.push((param.name, Value::Nothing))
            }
            Some(text) if setting.check(&text).is_err() => self.flaw(param, &wanted(param.kind), &input),
            Some(text) => match (setting.kind == config::Kind::Zone).then(|| (self.find)(&text)) {
                // Where it cannot be found out now, the handler says so.
                Some(Err(error)) if error.kind != ErrorKind::Transient => {
                    self.flaw(param, &format!("must be a time zone: {error}"), &input)
                }
                _ => self.values.0.push((param.name, Value::Text(text))),
            },
            None => self.flaw(param, &wanted(param.kind), &input),
        }
    }

    fn default(&mut self, param: &Param) {
        let value = match param.kind {
            Kind::Integer { default, .. } => default.map(Value::Integer),
            Kind::Word(words) => words.first().map(|word| Value::Text(word.to_string())),
            _ => None,
        };
        self.values.0.extend(value.map(|value| (param.name, value)));
    }
}

fn line(text: &str, most: usize) -> Option<Value> {
    let sound = text.chars().count() <= most && !text.contains(char::is_control);
    sound.then(|| Value::Text(text.to_string()))
}

/// JSON has one kind of number: 10.0 and 1e1 are as whole as 10, to JSON Schema too.
fn whole(json: &Json) -> Option<i64> {
    let exact = |number: &f64| number.fract() == 0.0 && number.abs() <= MOST as f64;
    json.as_i64().or_else(|| json.as_f64().filter(exact).map(|number| number as i64))
}

/// A word as it stands in a sentence: punctuation would be taken for the sentence's own.
fn named(word: &str) -> String {
    if word.contains(|each: char| each.is_ascii_alphanumeric()) { word.to_string() } else { format!("'{word}'") }
}

fn wanted(kind: Kind) -> String {
    match kind {
        Kind::Integer { low, high: MOST, .. } => format!("must be a whole number, {low} or more"),
        Kind::Integer { low, high, .. } => format!("must be a whole number from {low} to {high}"),
        Kind::Decimal { low, high } => format!("must be {}", config::decimals(low, high)),
        Kind::Word(words) => {
            format!("must be one of {}", words.iter().map(|word| named(word)).collect::<Vec<_>>().join(", "))
        }
        Kind::Time => {
            "must be a time from 1970 to 9999: 2026-01-15T10:30:00Z, 2026-01-15, or Unix seconds or milliseconds"
                .to_string()
        }
        Kind::Text => "must be a text".to_string(),
        Kind::Line { most } => format!("must be a text of up to {most} characters on one line"),
        Kind::Texts { most: None } => "must be a list of texts".to_string(),
        Kind::Texts { most: Some(most) } => format!("must be a list of at most {most} texts"),
        Kind::Words(words) => format!("must be some of {}", words.join(", ")),
        Kind::Switch => "must be true or false".to_string(),
        Kind::Setting(setting) => match setting.kind {
            config::Kind::Integer(low, high) => format!("must be a whole number from {low} to {high}"),
            config::Kind::Decimal(low, high) => format!("must be {}", config::decimals(low, high)),
            config::Kind::Word(words) => wanted(Kind::Word(words)),
            config::Kind::Switch => wanted(Kind::Switch),
            config::Kind::List => {
                format!("must be a list of texts without commas, {} bytes in all at the most", config::LONGEST_TEXT)
            }
            _ => "must be a short text on one line".to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static QUERY: [Param; 5] = [
        Param {
            name: "limit",
            place: Place::Query,
            kind: Kind::Integer { low: 1, high: 1000, default: Some(100) },
            doc: "",
        },
        Param {
            name: "offset",
            place: Place::Query,
            kind: Kind::Integer { low: 0, high: MOST, default: Some(0) },
            doc: "",
        },
        Param { name: "format", place: Place::Query, kind: Kind::Word(&["json", "csv"]), doc: "" },
        Param { name: "interface", place: Place::Query, kind: Kind::Texts { most: Some(3) }, doc: "" },
        Param { name: "one", place: Place::Query, kind: Kind::Text, doc: "" },
    ];
    static INTERVAL: [Param; 1] = [Param {
        name: "collection_interval",
        place: Place::Body,
        kind: Kind::Integer { low: 1, high: 3600, default: None },
        doc: "",
    }];
    static DELAY: [Param; 1] =
        [Param { name: "retry_delay", place: Place::Body, kind: Kind::Decimal { low: 0.1, high: 300.0 }, doc: "" }];
    static NAMES: [Param; 1] =
        [Param { name: "interfaces", place: Place::Body, kind: Kind::Texts { most: None }, doc: "" }];

    fn run(params: &'static [Param], query: &str, body: &[u8]) -> Result<Values, Vec<Flaw>> {
        let zones = Zones { now: &|| Arc::new(Zone::UTC), find: &Zone::parse };
        read(params, &Given { path: &[], query, body }, &zones)
    }

    #[test]
    fn percent_decoding() {
        let check = |text, expect: &str| assert_eq!(decode(text, true).unwrap(), expect);
        check("", "");
        check("a+b%20c", "a b c");
        check("%2B%2b", "++");
        check("%", "%");
        check("%4", "%4");
        check("%zz%41", "%zzA");
        check("%%41", "%A");
        check("%00", "\0");
        check("%C3%A4", "ä");
        assert_eq!(decode("a+b", false).unwrap(), "a+b");
        assert_eq!(decode("%ff%fe", false).unwrap_err(), "\u{fffd}\u{fffd}");
        assert_eq!(decode("%c3", false).unwrap_err(), "\u{fffd}");
    }

    #[test]
    fn defaults_and_values() {
        let values = run(&QUERY, "", b"").unwrap();
        assert_eq!((values.count("limit"), values.count("offset"), values.text("format")), (100, 0, Some("json")));
        assert_eq!(values.text("one"), None);
        let values = run(&QUERY, "limit=5&unknown=%ff&interface=a&interface=b%2Cc&&=x&format=csv&one=", b"").unwrap();
        assert_eq!((values.count("limit"), values.text("format"), values.text("one")), (5, Some("csv"), Some("")));
        assert_eq!(values.texts("interface").collect::<Vec<_>>(), ["a", "b,c"]);
        assert_eq!(run(&QUERY, "limit=5&limit=6", b"").unwrap().integer("limit"), Some(6));
    }

    #[test]
    fn lists_have_an_end() {
        assert_eq!(run(&QUERY, "interface=a&interface=a&interface=b", b"").unwrap().texts("interface").count(), 3);
        let flaws = run(&QUERY, "interface=a&interface=b&interface=c&interface=d", b"").unwrap_err();
        assert_eq!((flaws.len(), flaws[0].input.as_str()), (1, "4 of them"));
        assert_eq!(flaws[0].msg, "must be a list of at most 3 texts");
    }

    #[test]
    fn all_faults_at_once() {
        let flaws = run(&QUERY, "limit=0&offset=-1&format=xml&interface=%ff", b"").unwrap_err();
        let seen: Vec<_> =
            flaws.iter().map(|flaw| (flaw.loc[1].as_str(), flaw.msg.as_str(), flaw.input.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("limit", "must be a whole number from 1 to 1000", "0"),
                ("offset", "must be a whole number, 0 or more", "-1"),
                ("format", "must be one of json, csv", "xml"),
                ("interface", "must be UTF-8", "\u{fffd}"),
            ]
        );
    }

    #[test]
    fn wrong_queries() {
        for query in
            ["limit=1001", "limit=", "limit=1.0", "limit=1e2", "limit=99999999999999999999", "limit=%00", "limit"]
        {
            assert_eq!(run(&QUERY, query, b"").unwrap_err().len(), 1, "{query}");
        }
        let long = format!("limit={}", "9".repeat(5000));
        assert_eq!(run(&QUERY, &long, b"").unwrap_err()[0].input.len(), SHOWN);
    }

    #[test]
    fn bodies() {
        let check = |params, body: &[u8], expect: Result<Value, &str>| {
            let got = run(params, "", body);
            match (got, expect) {
                (Ok(values), Ok(value)) => assert_eq!(values.0[0].1, value),
                (Err(flaws), Err(message)) => {
                    assert_eq!(flaws[0].loc, ["body", params[0].name]);
                    assert!(flaws[0].msg.contains(message), "{}", flaws[0].msg);
                }
                (got, _) => panic!("{}: {got:?}", String::from_utf8_lossy(body)),
            }
        };
        let range = "a whole number from 1 to 3600";
        check(&INTERVAL, br#"{"collection_interval":10}"#, Ok(Value::Integer(10)));
        check(&INTERVAL, br#"{"collection_interval":1,"more":[]}"#, Ok(Value::Integer(1)));
        check(&INTERVAL, br#"{"collection_interval":0}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":3601}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":10.0}"#, Ok(Value::Integer(10)));
        check(&INTERVAL, br#"{"collection_interval":10.5}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":-0.0}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":1e300}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":true}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":"10"}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":null}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":[10]}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":18446744073709551616}"#, Err(range));
        check(&INTERVAL, br#"{"collection_interval":NaN}"#, Err("not JSON"));
        check(&INTERVAL, br#"{"collection_interval":1e999}"#, Err("not JSON"));
        check(&INTERVAL, br#"{"interval":10}"#, Err("is missing"));
        check(&INTERVAL, b"{}", Err("is missing"));
        check(&INTERVAL, b"[]", Err("must be a JSON object"));
        check(&INTERVAL, b"10", Err("must be a JSON object"));
        check(&INTERVAL, b"", Err("empty"));
        check(&INTERVAL, b"{\"collection_interval\":\"\xff\"}", Err("not JSON"));
        check(&INTERVAL, "[".repeat(60_000).as_bytes(), Err("not JSON"));
        check(&DELAY, br#"{"retry_delay":1}"#, Ok(Value::Decimal(1.0)));
        check(&DELAY, br#"{"retry_delay":0.1}"#, Ok(Value::Decimal(0.1)));
        check(&DELAY, br#"{"retry_delay":0.05}"#, Err("from 0.1 to 300"));
        check(&DELAY, br#"{"retry_delay":true}"#, Err("from 0.1 to 300"));
        check(&NAMES, br#"{"interfaces":["eth0"]}"#, Ok(Value::Text("eth0".to_string())));
        check(&NAMES, br#"{"interfaces":"eth0"}"#, Err("a list of texts"));
        check(&NAMES, br#"{"interfaces":[1]}"#, Err("a list of texts"));
        assert_eq!(run(&NAMES, "", br#"{"interfaces":[]}"#).unwrap(), Values::default());
    }
}
