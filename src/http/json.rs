//! The shapes of the wire. Each is written once: the declaration is what serde serialises, what `/openapi.json`
//! publishes, comments included, and what the tests check every answer against.

use crate::sorted;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use serde::ser::{Serialize, Serializer};

use crate::clock::{Civil, date, rfc3339};
use crate::model::{COUNTER_NAMES, COUNTERS, Counters};

/// UTC seconds, as RFC 3339 on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// A day of the configured time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(pub Civil);

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&date(self.0))
    }
}

/// An interface's name, shared by all the rows that carry it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub Arc<str>);

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Counters from one number up to another, by their names in the object that they are flattened into.
#[derive(Clone, Debug)]
pub struct Counted<const FROM: usize, const TO: usize>(pub Counters);

impl<const FROM: usize, const TO: usize> Serialize for Counted<FROM, TO> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(COUNTER_NAMES.iter().zip(&self.0.0).take(TO).skip(FROM))
    }
}

/// A sample had so many counters, the bytes and packets, before it had `created_at` and then the others.
pub const FIRST_COUNTERS: usize = 4;

pub type EachCounter = Counted<0, COUNTERS>;
pub type BytesAndPackets = Counted<0, FIRST_COUNTERS>;
pub type ErrorsAndOthers = Counted<FIRST_COUNTERS, COUNTERS>;

/// What such a type is in a declaration.
const COUNTED: [(&str, std::ops::Range<usize>); 3] = [
    ("EachCounter", 0..COUNTERS),
    ("BytesAndPackets", 0..FIRST_COUNTERS),
    ("ErrorsAndOthers", FIRST_COUNTERS..COUNTERS),
];

pub type ByName<T> = sorted::Map<String, T>;

/// An object whose members keep the order in which they are here.
#[derive(Clone, Debug)]
pub struct Ordered<T>(pub Vec<(&'static str, T)>);

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A setting's value, in whatever JSON has for its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    Integer(u64),
    Decimal(f64),
    Text(String),
    List(Vec<String>),
    Switch(bool),
}

impl Serialize for SettingValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            SettingValue::Integer(number) => serializer.serialize_u64(*number),
            SettingValue::Decimal(number) => serializer.serialize_f64(*number),
            SettingValue::Text(text) => serializer.serialize_str(text),
            SettingValue::List(items) => items.serialize(serializer),
            SettingValue::Switch(on) => serializer.serialize_bool(*on),
        }
    }
}

/// Words of a fixed vocabulary; `SCALARS` lists them.
pub type Overall = &'static str;
pub type CollectorWord = &'static str;
pub type DatabaseWord = &'static str;
pub type InterfacesWord = &'static str;
pub type RunWord = &'static str;
pub type LinkWord = &'static str;
pub type Family = &'static str;
pub type KindWord = &'static str;
pub type EventWord = &'static str;
pub type OriginWord = &'static str;
pub type SettingKind = &'static str;

/// What a type that is no shape is in JSON Schema.
pub const SCALARS: [(&str, &str); 24] = [
    ("String", r#"{"type":"string"}"#),
    ("Name", r#"{"type":"string"}"#),
    ("Time", r#"{"type":"string","format":"date-time"}"#),
    ("Date", r#"{"type":"string","format":"date"}"#),
    ("bool", r#"{"type":"boolean"}"#),
    ("u8", r#"{"type":"integer","minimum":0}"#),
    ("u32", r#"{"type":"integer","minimum":0}"#),
    ("u64", r#"{"type":"integer","minimum":0}"#),
    ("usize", r#"{"type":"integer","minimum":0}"#),
    ("i64", r#"{"type":"integer"}"#),
    ("f64", r#"{"type":"number"}"#),
    ("Overall", r#"{"enum":["healthy","degraded","unhealthy"]}"#),
    ("CollectorWord", r#"{"enum":["healthy","stopped","unhealthy"]}"#),
    ("DatabaseWord", r#"{"enum":["healthy","degraded","unhealthy"]}"#),
    ("InterfacesWord", r#"{"enum":["healthy","unhealthy"]}"#),
    ("RunWord", r#"{"enum":["running","stopped"]}"#),
    ("LinkWord", r#"{"enum":["up","down"]}"#),
    ("Family", r#"{"enum":["inet","inet6"]}"#),
    ("KindWord", r#"{"type":"string"}"#),
    ("EventWord", r#"{"type":"string"}"#),
    ("OriginWord", r#"{"enum":["default","saved","environment","flag"]}"#),
    ("SettingKind", r#"{"enum":["integer","decimal","text","word","list","size","switch"]}"#),
    (
        "SettingValue",
        r#"{"anyOf":[{"type":"integer"},{"type":"number"},{"type":"string"},{"type":"boolean"},{"type":"array","items":{"type":"string"}}]}"#,
    ),
    ("&'staticstr", r#"{"type":"string"}"#),
];

/// A declaration as text, which is a third of the size of a table of it, and needs no relocation.
pub struct Shape {
    pub name: &'static str,
    pub doc: &'static str,
    /// Each `name:type`, then its attributes behind tabs, then `\x1e`: the compiler breaks long attributes into lines.
    fields: &'static str,
}

/// A field of a shape, read back.
pub struct Field {
    pub name: &'static str,
    /// Without white space.
    pub kind: String,
    pub doc: Option<&'static str>,
    /// Left out rather than null.
    pub optional: bool,
}

impl Field {
    fn plain(name: &'static str, kind: &str) -> Field {
        Field { name, kind: kind.to_string(), doc: None, optional: false }
    }
}

impl Shape {
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        let declared = self.fields.split_terminator('\x1e').map(|text| {
            let mut parts = text.split('\t');
            let (name, kind) = parts.next().unwrap_or_default().split_once(':').unwrap_or_default();
            let kind: String = kind.chars().filter(|each| !each.is_whitespace()).collect();
            let mut field = Field::plain(name, &kind);
            for attribute in parts {
                if !attribute.starts_with("doc") {
                    // Of flattened ones no more is left than their members.
                    field.optional = attribute.contains("Option::is_none");
                } else if let (Some(start), Some(end)) = (attribute.find('"'), attribute.rfind('"')) {
                    field.doc = attribute.get(start + 1..end).map(str::trim);
                }
            }
            field
        });
        declared.flat_map(|field| {
            let counted = COUNTED.iter().find(|(kind, _)| *kind == field.kind).map(|(_, range)| range.clone());
            let counters = counted.clone().unwrap_or(0..0).map(|at| Field::plain(COUNTER_NAMES[at], "u64"));
            counters.chain(Some(field).filter(|_| counted.is_none()))
        })
    }
}

macro_rules! shapes {
    ($( #[doc = $doc:literal] $name:ident { $( $(#[$attr:meta])* $field:ident: $type:ty, )* } )*) => {
        $(
            #[doc = $doc]
            #[derive(Clone, Debug, serde::Serialize)]
            pub struct $name { $( $(#[$attr])* pub $field: $type, )* }
        )*

        pub const SHAPES: &[Shape] = &[ $( Shape {
            name: stringify!($name),
            doc: $doc,
            fields: concat!($( stringify!($field), ":", stringify!($type), $( "\t", stringify!($attr), )* "\x1e", )*),
        }, )* ];
    };
}

shapes! {
    /// What answers here, for whoever asks without being a browser.
    About {
        name: &'static str,
        version: &'static str,
        description: &'static str,
        status: &'static str,
    }
    /// The state of the service in one word.
    Health {
        status: Overall,
        /// What is wrong; absent while all is well.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// The collector's own bookkeeping since it was started.
    Stats {
        total_polls: u64,
        successful_polls: u64,
        failed_polls: u64,
        interfaces_monitored: usize,
        last_poll_time: Option<Time>,
        last_successful_poll: Option<Time>,
        total_errors: u64,
        consecutive_failures: u64,
        uptime_seconds: u64,
    }
    /// The collector's settings, as text.
    Configuration {
        /// Comma-separated: the chosen ones, else all that are not ignored.
        monitored_interfaces: String,
        /// Seconds.
        polling_interval: String,
        max_retries: String,
        /// Seconds.
        retry_delay: String,
        last_collection: Option<Time>,
    }
    /// Whether samples are taken, and how that goes.
    CollectorStatus {
        is_running: bool,
        stats: Stats,
        configuration: Configuration,
        /// Interfaces of which an earlier reading is known, so that the next one gives a difference.
        previous_data_count: usize,
        /// Where counters are read: getstats, getlink or sysfs.
        source: &'static str,
        /// Why not from a better source.
        source_note: Option<String>,
        last_error: Option<String>,
    }
    /// The collector was started or stopped.
    Run {
        message: &'static str,
        status: RunWord,
        /// The decision is on disk and survives a restart.
        saved: bool,
    }
    /// A sample that was taken because somebody asked.
    Collection {
        success: bool,
        timestamp: Time,
        interfaces_collected: usize,
        errors: Vec<String>,
        stats: Stats,
    }
    /// One address of an interface.
    Address {
        family: Family,
        address: String,
        netmask: String,
        broadcast: Option<String>,
    }
    /// One network interface.
    Interface {
        name: String,
        /// Further names that the kernel has for it; it is found by each of them, and answers by `name`.
        altnames: Vec<String>,
        addresses: Vec<Address>,
        status: LinkWord,
        mtu: u32,
        /// Mbit/s.
        speed: Option<u32>,
        kind: KindWord,
        mac: Option<String>,
        /// 0 while it is absent.
        ifindex: u32,
        alias: String,
        present: bool,
        monitored: bool,
        /// The headline figure is this one's.
        primary: bool,
        /// The bridge or bond that it is a port of, else the link below it.
        parent: Option<String>,
        ignored_because: Option<String>,
        /// Bytes per second at the latest reading.
        rx_rate: Option<u64>,
        /// Bytes per second at the latest reading.
        tx_rate: Option<u64>,
        /// In the local day so far, as of the latest sample.
        today_rx_bytes: u64,
        /// In the local day so far, as of the latest sample.
        today_tx_bytes: u64,
        /// Never falls, over restarts and reboots.
        lifetime_rx_bytes: u64,
        /// Never falls, over restarts and reboots.
        lifetime_tx_bytes: u64,
        /// After a change: it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// An interface and its history are no more.
    Forgotten {
        message: String,
        /// It is on disk.
        saved: bool,
    }
    /// An interface's raw kernel counters.
    InterfaceStats {
        interface_name: String,
        #[serde(flatten)]
        counters: EachCounter,
        timestamp: Time,
        status: LinkWord,
    }
    /// What passed through one interface since its previous sample.
    Record {
        /// Stable and unique.
        id: u64,
        timestamp: Time,
        interface_name: Name,
        #[serde(flatten)]
        counters: BytesAndPackets,
        created_at: Time,
        #[serde(flatten)]
        others: ErrorsAndOthers,
    }
    /// What passed through one interface in one bucket of time.
    BucketRecord {
        from: Time,
        to: Time,
        interface_name: Name,
        #[serde(flatten)]
        counters: EachCounter,
        /// The highest rate of one sample, bytes per second.
        rx_peak: u64,
        /// The highest rate of one sample, bytes per second.
        tx_peak: u64,
        /// Seconds of it that are accounted for.
        observed: u64,
    }
    /// All interfaces together, by the kernel's counters. Bridges count what their ports count: see `primary`.
    Summary {
        total_interfaces: usize,
        active_interfaces: usize,
        total_rx_bytes: u64,
        total_tx_bytes: u64,
        total_rx_packets: u64,
        total_tx_packets: u64,
        timestamp: Time,
        primary: Option<Headline>,
    }
    /// The one interface that stands for the line to the outside: nothing is counted twice here.
    Headline {
        name: String,
        rx_bytes: u64,
        tx_bytes: u64,
        rx_packets: u64,
        tx_packets: u64,
        /// Bytes per second at the latest reading.
        rx_rate: Option<u64>,
        /// Bytes per second at the latest reading.
        tx_rate: Option<u64>,
        lifetime_rx_bytes: u64,
        lifetime_tx_bytes: u64,
    }
    /// Which interfaces are chosen by name.
    InterfacesSetting {
        /// Empty for all that are not ignored.
        interfaces: Vec<String>,
        /// Those of which samples are taken at present.
        monitored: Vec<String>,
    }
    /// The choice of interfaces was changed.
    InterfacesChanged {
        message: &'static str,
        interfaces: Vec<String>,
        saved: bool,
    }
    /// Seconds between two samples.
    IntervalSetting {
        collection_interval_seconds: u32,
        /// After a change: it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// Further attempts after a failed reading.
    RetriesSetting {
        max_retries: u32,
        /// After a change: it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// Seconds between two attempts.
    DelaySetting {
        retry_delay_seconds: f64,
        /// After a change: it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// Every setting, in the order in which people should see them.
    Settings {
        settings: Ordered<Setting>,
        /// After a change: it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// One setting.
    Setting {
        /// What is in force: integers and sizes (bytes) as numbers, lists as arrays, no text as an empty one.
        value: SettingValue,
        default: SettingValue,
        /// What set it.
        origin: OriginWord,
        /// The flag or the variable that it belongs to: it cannot be changed here.
        owner: Option<&'static str>,
        kind: SettingKind,
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<SettingValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<SettingValue>,
        /// What it may be, where that is one of a few words.
        #[serde(skip_serializing_if = "Option::is_none")]
        words: Option<Vec<&'static str>>,
        flag: Option<&'static str>,
        environment: Option<&'static str>,
        help: &'static str,
        /// False: only a flag or the environment sets it.
        changeable: bool,
    }
    /// The machine.
    SystemInfo {
        hostname: String,
        os: String,
        /// Of Net-Pulse.
        version: &'static str,
        /// Of the machine.
        uptime_seconds: u64,
        cpu_count: u32,
        memory_total: u64,
        memory_available: u64,
    }
    /// The state of the service, part by part.
    SystemHealth {
        status: Overall,
        /// What is wrong, and what the settings ask for that is not there, which changes no status; null without either.
        reason: Option<String>,
        database_status: DatabaseWord,
        interfaces_status: InterfacesWord,
        collector_status: CollectorWord,
        timestamp: Time,
        /// False while the wall clock cannot be right.
        clock_believed: bool,
        /// Where counters are read: getstats, getlink or sysfs.
        source: &'static str,
        /// Why not from a better source.
        source_note: Option<String>,
        details: HealthDetails,
    }
    /// What the words of the health are made of.
    HealthDetails {
        database: DatabaseDetails,
        interfaces: InterfacesDetails,
        collector: CollectorStatus,
        clock: ClockDetails,
        http: HttpDetails,
    }
    /// The history on disk.
    DatabaseDetails {
        /// As many as the history has, unsaved ones included.
        traffic_data_records: u64,
        configuration_records: u64,
        database_size_bytes: u64,
        database_path: String,
        last_saved: Option<Time>,
        /// What a power cut would lose now.
        unsaved_seconds: u64,
        unsaved_records: usize,
        /// The same as `unsaved_records`.
        unsaved_samples: usize,
        /// Time of the oldest unsaved sample; null without one, or while the clock cannot be believed.
        unsaved_since: Option<Time>,
        /// Of the primary interface, in the samples that are not saved.
        unsaved_rx_bytes: u64,
        /// Of the primary interface, in the samples that are not saved.
        unsaved_tx_bytes: u64,
        /// What this run has handed to the file system for the history and its log, by the kernel's count of the writing
        /// thread, as of the latest save. What a flash chip makes of it is more or less than that. Null in the first
        /// hour, and where the kernel does not count (it lacks CONFIG_TASK_IO_ACCOUNTING).
        bytes_written_per_day: Option<u64>,
        /// Between two saves, as in force.
        flush_interval_seconds: u32,
        save_failures: u64,
        error: Option<String>,
    }
    /// How many links there are.
    InterfacesDetails {
        total_interfaces: usize,
        active_interfaces: usize,
        monitored_interfaces: usize,
        /// What `interfaces` and `primary` ask for while no interface that is there has such a name.
        unmatched: Vec<String>,
        /// How often the kernel has dropped reports of links that came or went.
        reports_lost: u64,
    }
    /// What is thought of the clock.
    ClockDetails {
        /// False while the wall clock cannot be right: samples wait in memory until it can.
        believed: bool,
        timezone: String,
    }
    /// The web server itself.
    HttpDetails {
        /// Requests that ended in a fault of the program.
        panics: u32,
        /// Of the addresses that `host` names, those at which it cannot be reached now: not there yet, or another machine's.
        unreachable: Vec<String>,
    }
    /// How busy the machine is, and this program.
    SystemMetrics {
        /// Since this was last asked.
        cpu_percent: f64,
        memory_percent: f64,
        /// Of the file system that holds the history.
        disk_usage_percent: f64,
        network_interfaces_count: usize,
        timestamp: Time,
        /// Of this program.
        rss_bytes: u64,
        /// Of this program.
        cpu_seconds: f64,
    }
    /// Rates in columns of equal length. A bucket of which nothing is known is null, never 0.
    Series {
        from: Time,
        to: Time,
        /// Seconds; local days may have an hour more or less.
        step: i64,
        /// The local day with which the first bucket begins; the others follow by whole days. Null where buckets are shorter.
        first_day: Option<Date>,
        /// Starts of the buckets, Unix seconds, ascending.
        t: Vec<i64>,
        interfaces: ByName<SeriesColumns>,
    }
    /// Bytes per second, a mean over the seconds that were observed: their product is the bytes, but for those of gaps.
    SeriesColumns {
        /// Seconds of the bucket that the rates are a mean of; 0 where they are null.
        observed: Vec<u64>,
        rx: Vec<Option<u64>>,
        tx: Vec<Option<u64>>,
        /// The highest rate of one sample.
        rx_peak: Vec<Option<u64>>,
        /// The highest rate of one sample.
        tx_peak: Vec<Option<u64>>,
    }
    /// What passed in one hour, day, week, month or year of the configured time zone.
    Total {
        from: Time,
        to: Time,
        /// In the configured time zone, which the reader's may not be.
        first_day: Date,
        last_day: Date,
        rx_bytes: u64,
        tx_bytes: u64,
        rx_packets: u64,
        tx_packets: u64,
        /// Seconds of it that are accounted for: of a period that has begun, or was missed in part, not all of it.
        observed: u64,
        /// The period is over, and nearly all of it is accounted for.
        complete: bool,
    }
    /// Rates of the latest seconds of interfaces that are watched, in columns of equal length, oldest first.
    LiveRates {
        /// To be passed as `since` the next time.
        next: u64,
        /// Unix seconds.
        t: Vec<i64>,
        interfaces: ByName<LiveColumns>,
    }
    /// Bytes per second; null where the interface was not there.
    LiveColumns {
        rx: Vec<Option<u64>>,
        tx: Vec<Option<u64>>,
    }
    /// Something that a reader of the figures wants to know of.
    EventRecord {
        /// Null while the wall clock could not be believed.
        time: Option<Time>,
        kind: EventWord,
        /// Empty where it concerns the whole machine.
        interface: String,
        detail: String,
    }
    /// What went wrong, in one sentence.
    Problem {
        detail: String,
    }
    /// All the faults of a request.
    Problems {
        detail: Vec<Flaw>,
    }
    /// One fault of a request.
    Flaw {
        /// `query`, `path` or `body`, and the name.
        loc: Vec<String>,
        msg: String,
        input: String,
    }
}

/// `About.name`, by which another start knows who has its port.
pub const NAME: &str = "Net-Pulse";

/// Everything is serialised to this one writer: each further type of writer would be a second copy of the serialiser.
pub type Out<'a> = &'a mut dyn Write;

pub fn write(out: Out, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    serde_json::to_writer(out, value).map_err(io::Error::from)
}

pub fn bytes(value: &(impl Serialize + ?Sized)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(&mut bytes, value)?;
    Ok(bytes)
}

/// A JSON array, one element at a time.
pub fn write_list<T: Serialize>(out: Out, items: impl Iterator<Item = T>) -> io::Result<()> {
    out.write_all(b"[")?;
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        write(out, &item)?;
    }
    out.write_all(b"]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_known() {
        for shape in SHAPES {
            assert!(shape.fields().count() > 0, "{}", shape.name);
            for field in shape.fields() {
                let mut name = field.kind.as_str();
                while let Some((_, inner)) = name.split_once('<') {
                    name = inner.strip_suffix('>').unwrap();
                }
                let known = SCALARS.iter().any(|(it, _)| *it == name) || SHAPES.iter().any(|it| it.name == name);
                assert!(known, "{}.{}: {}", shape.name, field.name, field.kind);
            }
        }
        let health: Vec<Field> = SHAPES.iter().find(|shape| shape.name == "Health").unwrap().fields().collect();
        assert_eq!((health[1].name, health[1].kind.as_str(), health[1].optional), ("reason", "Option<String>", true));
        assert_eq!(health[1].doc, Some("What is wrong; absent while all is well."));
    }

    #[test]
    fn lists() {
        let check = |items: &[u8], expect: &str| {
            let mut out = Vec::new();
            write_list(&mut out, items.iter()).unwrap();
            assert_eq!(out, expect.as_bytes());
        };
        check(&[], "[]");
        check(&[1], "[1]");
        check(&[1, 2], "[1,2]");
    }
}
