//! Parameters of a route: reads and validates path, query and body, and reports all errors at once. It never panics and
//! never guesses, whatever a client sends.

use std::sync::Arc;

use serde_json::Value as Json;

use super::json::Flaw;
use crate::clock::{Zone, parse_time};
use crate::config::{self, Setting};
use crate::error::ErrorKind;
use crate::error::Result as AppResult;

/// Upper limit where no other applies: every JSON reader keeps integers up to 2^53 - 1 exact.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamLocation {
    Path,
    Query,
    /// A required member of the JSON object in the body.
    RequiredMember,
    /// A member that may be left out. A body with such parameters must not have unknown members.
    OptionalMember,
    /// Like `OptionalMember`, but null is allowed.
    NullableMember,
    /// A setting that the API cannot change. The value is not read; the handler refuses it with the name of the flag.
    StartupMember,
}

impl ParamLocation {
    pub fn name(self) -> &'static str {
        match self {
            ParamLocation::Path => "path",
            ParamLocation::Query => "query",
            ParamLocation::RequiredMember
            | ParamLocation::OptionalMember
            | ParamLocation::NullableMember
            | ParamLocation::StartupMember => "body",
        }
    }

    pub fn is_in_body(self) -> bool {
        self.name() == "body"
    }

    pub fn is_optional(self) -> bool {
        matches!(self, ParamLocation::OptionalMember | ParamLocation::NullableMember | ParamLocation::StartupMember)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum ParamKind {
    /// Integer from `low` to `high`.
    Integer {
        low: i64,
        high: i64,
        default: Option<i64>,
    },
    /// Decimal number from `low` to `high`.
    Decimal {
        low: f64,
        high: f64,
    },
    /// One of these words; the first one is the default.
    Word(&'static [&'static str]),
    Time,
    Text,
    /// Text of at most `max_chars` characters without control characters.
    ShortText {
        max_chars: usize,
    },
    /// List of at most `max_items` texts: a repeated parameter in a query, an array in a body.
    Texts {
        max_items: Option<usize>,
    },
    /// List of some of these words; no default.
    Words(&'static [&'static str]),
    Switch,
    /// Value of a setting, validated by the table of settings.
    Setting(&'static Setting),
}

#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    pub location: ParamLocation,
    pub kind: ParamKind,
    pub doc: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Integer(i64),
    Decimal(f64),
    Text(String),
    Switch(bool),
    /// Null, or an empty list or text that means the same.
    Nothing,
}

/// UTC seconds of the years 1970 to 9999, the range of `parse_time`.
pub const UNIX_RANGE: (i64, i64) = (0, 253_402_300_799);
/// At most this many characters of a wrong value are repeated in the error.
const MAX_INPUT_CHARS: usize = 100;

/// Validated values, with defaults filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(Vec<(&'static str, Value)>);

impl Values {
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.0.iter().find_map(|(known, value)| match value {
            Value::Integer(number) if *known == name => Some(*number),
            _ => None,
        })
    }

    /// For a parameter that is never negative, and is required or has a default.
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

    /// Whether the parameter has a value: given, also as null, or a default.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }
}

/// Percent-decoding. A `%` without two hex digits behind it stays, as in browsers. Text that is not UTF-8 gives an
/// error that holds a readable form of it.
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

/// The parameters of a request before validation: path parameters, query and body.
pub struct RawParams<'a> {
    pub path: &'a [(&'static str, String)],
    pub query: &'a str,
    pub body: &'a [u8],
}

/// Access to time zones.
pub struct ZoneSource<'a> {
    /// The active time zone; called only when one of the parameters is a time.
    pub active: &'a dyn Fn() -> Arc<Zone>,
    /// Finds a time zone by name.
    pub find: &'a dyn Fn(&str) -> AppResult<Zone>,
}

pub fn read(params: &'static [Param], given: &RawParams, zones: &ZoneSource) -> Result<Values, Vec<Flaw>> {
    let zone = params.iter().any(|param| matches!(param.kind, ParamKind::Time)).then(zones.active);
    let zone = zone.as_deref().unwrap_or(&Zone::UTC);
    let query = parse_query(given.query);
    let body = params.iter().any(|param| param.location.is_in_body()).then(|| parse_body(given.body));

    let mut reader = ParamReader { values: Values::default(), flaws: Vec::new(), zone, find_zone: zones.find };
    for param in params {
        match (param.location, &body) {
            (ParamLocation::Path, _) => {
                for (_, value) in given.path.iter().filter(|(name, _)| *name == param.name) {
                    reader.text(param, value);
                }
            }
            (ParamLocation::Query, _) => reader.query(param, &query),
            (_, Some(body)) => reader.member(param, body),
            (_, None) => {}
        }
    }
    if let Some(body) = body.filter(|_| params.iter().any(|param| param.location.is_optional())) {
        reader.unknown_members(params, &body);
    }
    if reader.flaws.is_empty() { Ok(reader.values) } else { Err(reader.flaws) }
}

/// Names that are valid UTF-8, each with its decoded value, or with a readable form of a value that is not UTF-8.
type QueryPairs = Vec<(String, Result<String, String>)>;

fn parse_query(query: &str) -> QueryPairs {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name, true).ok()?, decode(value, true)))
    });
    pairs.collect()
}

fn flaw<const N: usize>(location: [&str; N], msg: &str, input: &str) -> Flaw {
    let short = |text: &str| text.chars().take(MAX_INPUT_CHARS).collect::<String>();
    Flaw { loc: location.map(short).to_vec(), msg: msg.to_string(), input: short(input) }
}

/// The members of the body, or an error message and the text of the body.
type BodyMembers = Result<serde_json::Map<String, Json>, (String, String)>;

fn parse_body(body: &[u8]) -> BodyMembers {
    let wrong = |message: String| Err((message, String::from_utf8_lossy(body).into_owned()));
    if body.is_empty() {
        return wrong("the body is empty; a JSON object is needed".to_string());
    }
    match serde_json::from_slice(body) {
        Ok(Json::Object(members)) => Ok(members),
        Ok(other) => Err(("the body must be a JSON object".to_string(), other.to_string())),
        Err(error) => wrong(format!("the body is not JSON: {error}")),
    }
}

struct ParamReader<'a> {
    values: Values,
    flaws: Vec<Flaw>,
    zone: &'a Zone,
    find_zone: &'a dyn Fn(&str) -> AppResult<Zone>,
}

impl ParamReader<'_> {
    fn flaw(&mut self, param: &Param, msg: &str, input: &str) {
        self.flaws.push(flaw([param.location.name(), param.name], msg, input));
    }

    fn store(&mut self, param: &Param, value: Option<Value>, input: &str) {
        match value {
            Some(value) => self.values.0.push((param.name, value)),
            None => self.flaw(param, &requirement(param.kind), input),
        }
    }

    fn query(&mut self, param: &Param, query: &QueryPairs) {
        let mut found: Vec<_> = query.iter().filter(|(name, _)| name == param.name).collect();
        match param.kind {
            ParamKind::Texts { max_items: most } if most.is_some_and(|most| found.len() > most) => {
                return self.flaw(param, &requirement(param.kind), &format!("{} of them", found.len()));
            }
            ParamKind::Texts { .. } | ParamKind::Words(_) => {}
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

    fn member(&mut self, param: &Param, body: &BodyMembers) {
        match body {
            Ok(members) => match (members.get(param.name), param.location) {
                (Some(Json::Null), ParamLocation::NullableMember) | (Some(_), ParamLocation::StartupMember) => {
                    self.values.0.push((param.name, Value::Nothing))
                }
                (Some(value), _) => self.json(param, value),
                (None, location) if location.is_optional() => {}
                (None, _) => self.flaw(param, "is missing", ""),
            },
            // `unknown_members` reports this error once.
            Err(_) if param.location.is_optional() => {}
            Err((fault, input)) => self.flaw(param, fault, input),
        }
    }

    fn unknown_members(&mut self, params: &[Param], body: &BodyMembers) {
        let known = |name: &str| params.iter().any(|param| param.location.is_in_body() && param.name == name);
        match body {
            Ok(members) => {
                let unknown = members.iter().filter(|(name, _)| !known(name));
                let message = "is not a member that can be changed";
                self.flaws.extend(unknown.map(|(name, value)| flaw(["body", name], message, &value.to_string())));
            }
            Err((fault, input)) => self.flaws.push(flaw(["body"], fault, input)),
        }
    }

    fn text(&mut self, param: &Param, text: &str) {
        let value = match param.kind {
            ParamKind::Integer { low, high, .. } => {
                text.parse().ok().filter(|number| (low..=high).contains(number)).map(Value::Integer)
            }
            ParamKind::Decimal { low, high } => {
                text.parse().ok().filter(|number| (low..=high).contains(number)).map(Value::Decimal)
            }
            ParamKind::Word(words) | ParamKind::Words(words) => {
                words.contains(&text).then(|| Value::Text(text.to_string()))
            }
            ParamKind::Time => parse_time(text, self.zone)
                .ok()
                .filter(|unix| (UNIX_RANGE.0..=UNIX_RANGE.1).contains(unix))
                .map(Value::Integer),
            ParamKind::Text | ParamKind::Texts { .. } => Some(Value::Text(text.to_string())),
            ParamKind::ShortText { max_chars: most } => parse_line(text, most),
            ParamKind::Switch | ParamKind::Setting(_) => None,
        };
        self.store(param, value, text);
    }

    /// No conversions: `true` is not 1 and `"10"` is not 10.
    fn json(&mut self, param: &Param, json: &Json) {
        if let ParamKind::Setting(setting) = param.kind {
            return self.setting(param, setting, json);
        }
        if let (ParamKind::Texts { max_items: most }, Json::Array(items)) = (param.kind, json) {
            if most.is_some_and(|most| items.len() > most) {
                return self.flaw(param, &requirement(param.kind), &format!("{} of them", items.len()));
            }
            for item in items {
                self.store(param, item.as_str().map(|text| Value::Text(text.to_string())), &item.to_string());
            }
            return;
        }
        let value = match param.kind {
            ParamKind::Integer { low, high, .. } => {
                as_whole_number(json).filter(|number| (low..=high).contains(number)).map(Value::Integer)
            }
            ParamKind::Decimal { low, high } => {
                json.as_f64().filter(|number| (low..=high).contains(number)).map(Value::Decimal)
            }
            ParamKind::Word(words) => {
                json.as_str().filter(|text| words.contains(text)).map(|text| Value::Text(text.to_string()))
            }
            ParamKind::Text => json.as_str().map(|text| Value::Text(text.to_string())),
            ParamKind::ShortText { max_chars: most } => json.as_str().and_then(|text| parse_line(text, most)),
            ParamKind::Switch => json.as_bool().map(Value::Switch),
            ParamKind::Time | ParamKind::Texts { .. } | ParamKind::Words(_) | ParamKind::Setting(_) => None,
        };
        self.store(param, value, &json.to_string());
    }

    /// Converts the value of a setting into the text that `config` stores.
    fn setting(&mut self, param: &Param, setting: &Setting, json: &Json) {
        let text = match setting.kind {
            config::SettingType::Integer(..) => as_whole_number(json).map(|number| number.to_string()),
            // Check the range before conversion: the text is rounded, so a value outside could fit.
            config::SettingType::Decimal(low, high) => {
                json.as_f64().filter(|number| (low..=high).contains(number)).map(config::format_decimal)
            }
            config::SettingType::Switch => json.as_bool().map(|on| on.to_string()),
            config::SettingType::List => json.as_array().and_then(|items| {
                let item = |item: &Json| item.as_str().map(str::trim).map(str::to_string);
                // The stored list is split at commas.
                let is_valid = |item: &String| !item.is_empty() && !item.contains(',');
                let items: Vec<String> = items.iter().map(|it| item(it).filter(is_valid)).collect::<Option<_>>()?;
                Some(items.join(","))
            }),
            _ => json.as_str().map(|text| text.trim().to_string()),
        };
        let input = json.to_string();
        match text {
            Some(text) if text.is_empty() && setting.default.is_empty() => {
                self.values.0.push((param.name, Value::Nothing))
            }
            Some(text) if setting.check(&text).is_err() => self.flaw(param, &requirement(param.kind), &input),
            Some(text) => match (setting.kind == config::SettingType::Zone).then(|| (self.find_zone)(&text)) {
                // The handler reads the zone again and reports a transient error.
                Some(Err(error)) if error.kind != ErrorKind::Transient => {
                    self.flaw(param, &format!("must be a time zone: {error}"), &input)
                }
                _ => self.values.0.push((param.name, Value::Text(text))),
            },
            None => self.flaw(param, &requirement(param.kind), &input),
        }
    }

    fn default(&mut self, param: &Param) {
        let value = match param.kind {
            ParamKind::Integer { default, .. } => default.map(Value::Integer),
            ParamKind::Word(words) => words.first().map(|word| Value::Text(word.to_string())),
            _ => None,
        };
        self.values.0.extend(value.map(|value| (param.name, value)));
    }
}

fn parse_line(text: &str, max_chars: usize) -> Option<Value> {
    let is_valid = text.chars().count() <= max_chars && !text.contains(char::is_control);
    is_valid.then(|| Value::Text(text.to_string()))
}

/// JSON has one number type: 10.0 and 1e1 are integers like 10, also in JSON Schema.
fn as_whole_number(json: &Json) -> Option<i64> {
    let exact = |number: &f64| number.fract() == 0.0 && number.abs() <= MAX_INTEGER as f64;
    json.as_i64().or_else(|| json.as_f64().filter(exact).map(|number| number as i64))
}

/// A word for use in a sentence, in quotes if it consists of symbols only.
fn quote_if_symbol(word: &str) -> String {
    if word.contains(|each: char| each.is_ascii_alphanumeric()) { word.to_string() } else { format!("'{word}'") }
}

fn requirement(kind: ParamKind) -> String {
    match kind {
        ParamKind::Integer { low, high: MAX_INTEGER, .. } => format!("must be a whole number, {low} or more"),
        ParamKind::Integer { low, high, .. } => format!("must be a whole number from {low} to {high}"),
        ParamKind::Decimal { low, high } => format!("must be {}", config::format_decimal_range(low, high)),
        ParamKind::Word(words) => {
            format!("must be one of {}", words.iter().map(|word| quote_if_symbol(word)).collect::<Vec<_>>().join(", "))
        }
        ParamKind::Time => {
            "must be a time from 1970 to 9999: 2026-01-15T10:30:00Z, 2026-01-15, or Unix seconds or milliseconds"
                .to_string()
        }
        ParamKind::Text => "must be a text".to_string(),
        ParamKind::ShortText { max_chars: most } => format!("must be a text of up to {most} characters on one line"),
        ParamKind::Texts { max_items: None } => "must be a list of texts".to_string(),
        ParamKind::Texts { max_items: Some(most) } => format!("must be a list of at most {most} texts"),
        ParamKind::Words(words) => format!("must be one or more of {}", words.join(", ")),
        ParamKind::Switch => "must be true or false".to_string(),
        ParamKind::Setting(setting) => match setting.kind {
            config::SettingType::Integer(low, high) => format!("must be a whole number from {low} to {high}"),
            config::SettingType::Decimal(low, high) => format!("must be {}", config::format_decimal_range(low, high)),
            config::SettingType::Word(words) => requirement(ParamKind::Word(words)),
            config::SettingType::Switch => requirement(ParamKind::Switch),
            config::SettingType::List => {
                format!("must be a list of texts without commas, together at most {} bytes", config::MAX_TEXT_BYTES)
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
            location: ParamLocation::Query,
            kind: ParamKind::Integer { low: 1, high: 1000, default: Some(100) },
            doc: "",
        },
        Param {
            name: "offset",
            location: ParamLocation::Query,
            kind: ParamKind::Integer { low: 0, high: MAX_INTEGER, default: Some(0) },
            doc: "",
        },
        Param { name: "format", location: ParamLocation::Query, kind: ParamKind::Word(&["json", "csv"]), doc: "" },
        Param {
            name: "interface",
            location: ParamLocation::Query,
            kind: ParamKind::Texts { max_items: Some(3) },
            doc: "",
        },
        Param { name: "one", location: ParamLocation::Query, kind: ParamKind::Text, doc: "" },
    ];
    static INTERVAL: [Param; 1] = [Param {
        name: "collection_interval",
        location: ParamLocation::RequiredMember,
        kind: ParamKind::Integer { low: 1, high: 3600, default: None },
        doc: "",
    }];
    static DELAY: [Param; 1] = [Param {
        name: "retry_delay",
        location: ParamLocation::RequiredMember,
        kind: ParamKind::Decimal { low: 0.1, high: 300.0 },
        doc: "",
    }];
    static NAMES: [Param; 1] = [Param {
        name: "interfaces",
        location: ParamLocation::RequiredMember,
        kind: ParamKind::Texts { max_items: None },
        doc: "",
    }];

    fn read_params(params: &'static [Param], query: &str, body: &[u8]) -> Result<Values, Vec<Flaw>> {
        let zones = ZoneSource { active: &|| Arc::new(Zone::UTC), find: &Zone::parse };
        read(params, &RawParams { path: &[], query, body }, &zones)
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
        let values = read_params(&QUERY, "", b"").unwrap();
        assert_eq!((values.count("limit"), values.count("offset"), values.text("format")), (100, 0, Some("json")));
        assert_eq!(values.text("one"), None);
        let values =
            read_params(&QUERY, "limit=5&unknown=%ff&interface=a&interface=b%2Cc&&=x&format=csv&one=", b"").unwrap();
        assert_eq!((values.count("limit"), values.text("format"), values.text("one")), (5, Some("csv"), Some("")));
        assert_eq!(values.texts("interface").collect::<Vec<_>>(), ["a", "b,c"]);
        assert_eq!(read_params(&QUERY, "limit=5&limit=6", b"").unwrap().integer("limit"), Some(6));
    }

    #[test]
    fn lists_are_limited() {
        assert_eq!(
            read_params(&QUERY, "interface=a&interface=a&interface=b", b"").unwrap().texts("interface").count(),
            3
        );
        let flaws = read_params(&QUERY, "interface=a&interface=b&interface=c&interface=d", b"").unwrap_err();
        assert_eq!((flaws.len(), flaws[0].input.as_str()), (1, "4 of them"));
        assert_eq!(flaws[0].msg, "must be a list of at most 3 texts");
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let flaws = read_params(&QUERY, "limit=0&offset=-1&format=xml&interface=%ff", b"").unwrap_err();
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
    fn wrong_queries_are_refused() {
        for query in
            ["limit=1001", "limit=", "limit=1.0", "limit=1e2", "limit=99999999999999999999", "limit=%00", "limit"]
        {
            assert_eq!(read_params(&QUERY, query, b"").unwrap_err().len(), 1, "{query}");
        }
        let long = format!("limit={}", "9".repeat(5000));
        assert_eq!(read_params(&QUERY, &long, b"").unwrap_err()[0].input.len(), MAX_INPUT_CHARS);
    }

    #[test]
    fn bodies() {
        let check = |params, body: &[u8], expect: Result<Value, &str>| {
            let got = read_params(params, "", body);
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
        assert_eq!(read_params(&NAMES, "", br#"{"interfaces":[]}"#).unwrap(), Values::default());
    }
}
