//! Types of the JSON answers. One declaration serves three purposes: serde serialises it, `/openapi.json` publishes it
//! (doc comments included), and the tests check every answer against it.

use crate::sorted;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use serde::ser::{Serialize, Serializer};

use crate::clock::{Civil, date, rfc3339};
use crate::model::{COUNTER_NAMES, COUNTERS, Counters};

/// UTC seconds; RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// Local date in the configured time zone; `2026-01-15` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(pub Civil);

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&date(self.0))
    }
}

/// Interface name. Rows share the string.
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

/// The counters `FROM..TO` of [`COUNTER_NAMES`], flattened into the object that holds the field.
#[derive(Clone, Debug)]
pub struct FlatCounters<const FROM: usize, const TO: usize>(pub Counters);

impl<const FROM: usize, const TO: usize> Serialize for FlatCounters<FROM, TO> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(COUNTER_NAMES.iter().zip(&self.0.0).take(TO).skip(FROM))
    }
}

/// A [`Record`] has this many counters (bytes and packets) before `created_at`, and the others after it.
pub const FIRST_COUNTERS: usize = 4;

pub type EachCounter = FlatCounters<0, COUNTERS>;
pub type BytesAndPackets = FlatCounters<0, FIRST_COUNTERS>;
pub type ErrorsAndOthers = FlatCounters<FIRST_COUNTERS, COUNTERS>;

/// Counter ranges of the types above, for [`Shape::fields`].
const COUNTER_RANGES: [(&str, std::ops::Range<usize>); 3] = [
    ("EachCounter", 0..COUNTERS),
    ("BytesAndPackets", 0..FIRST_COUNTERS),
    ("ErrorsAndOthers", FIRST_COUNTERS..COUNTERS),
];

pub type ByName<T> = sorted::Map<String, T>;

/// A JSON object that keeps the order of its members.
#[derive(Clone, Debug)]
pub struct Ordered<T>(pub Vec<(&'static str, T)>);

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Value of a setting, in the JSON type that fits its kind.
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

/// Strings with a fixed set of values. [`SCALARS`] lists the values, except those of `KindWord` and `EventWord`.
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

/// JSON Schema of each field type that is not a [`Shape`].
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

/// The declaration of a JSON object type, as text. Text is a third of the size of a table of fields and needs no
/// relocations.
pub struct Shape {
    pub name: &'static str,
    pub doc: &'static str,
    /// Each field is `name:type`, then its attributes, each after a tab; `\x1e` ends the field. A newline cannot
    /// separate fields, because the compiler breaks long attributes into lines.
    fields: &'static str,
}

/// A field of a [`Shape`], parsed from its text. `doc` has only the last line of the doc comment, so keep the doc
/// comments of fields to one line.
pub struct Field {
    pub name: &'static str,
    /// Its Rust type, without white space.
    pub kind: String,
    pub doc: Option<&'static str>,
    /// How `None` is written. True: the member is left out. False: the member is null.
    pub optional: bool,
}

impl Field {
    fn required(name: &'static str, kind: &str) -> Field {
        Field { name, kind: kind.to_string(), doc: None, optional: false }
    }
}

impl Shape {
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        let declared = self.fields.split_terminator('\x1e').map(|text| {
            let mut parts = text.split('\t');
            let (name, kind) = parts.next().unwrap_or_default().split_once(':').unwrap_or_default();
            let kind: String = kind.chars().filter(|each| !each.is_whitespace()).collect();
            let mut field = Field::required(name, &kind);
            for attribute in parts {
                if !attribute.starts_with("doc") {
                    // `flatten` needs no handling here: below, the counters replace the field that has it.
                    field.optional = attribute.contains("Option::is_none");
                } else if let (Some(start), Some(end)) = (attribute.find('"'), attribute.rfind('"')) {
                    field.doc = attribute.get(start + 1..end).map(str::trim);
                }
            }
            field
        });
        declared.flat_map(|field| {
            let counted = COUNTER_RANGES.iter().find(|(kind, _)| *kind == field.kind).map(|(_, range)| range.clone());
            let counters = counted.clone().unwrap_or(0..0).map(|at| Field::required(COUNTER_NAMES[at], "u64"));
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
    /// Name and version of the service, for clients other than browsers.
    About {
        name: &'static str,
        version: &'static str,
        description: &'static str,
        status: &'static str,
    }
    /// Health of the service in one word.
    Health {
        status: Overall,
        /// What is wrong; absent when the service is healthy.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// Statistics of the collector since the program started.
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
        /// Comma-separated: the setting interfaces; if that is empty, all monitored interfaces that are present.
        monitored_interfaces: String,
        /// Seconds.
        polling_interval: String,
        max_retries: String,
        /// Seconds.
        retry_delay: String,
        last_collection: Option<Time>,
    }
    /// State of the collector, which takes the samples.
    CollectorStatus {
        is_running: bool,
        stats: Stats,
        configuration: Configuration,
        /// Number of interfaces that have a previous reading, so that the next reading gives a sample.
        previous_data_count: usize,
        /// How counters are read: getstats or getlink (both netlink), or sysfs.
        source: &'static str,
        /// Why a better source is not used.
        source_note: Option<String>,
        last_error: Option<String>,
    }
    /// Answer to starting or stopping the collector.
    Run {
        message: &'static str,
        status: RunWord,
        /// True: the new state is on disk and survives a restart.
        saved: bool,
    }
    /// Result of taking one sample on request.
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
        /// Alternative names of the kernel. Requests may use any of them; answers use `name`.
        altnames: Vec<String>,
        addresses: Vec<Address>,
        status: LinkWord,
        mtu: u32,
        /// Mbit/s.
        speed: Option<u32>,
        kind: KindWord,
        mac: Option<String>,
        /// Kernel interface index; 0 while the interface is absent.
        ifindex: u32,
        alias: String,
        present: bool,
        monitored: bool,
        /// True: this is the primary interface.
        primary: bool,
        /// Name of its bridge or bond, or else of the link below it, such as the parent of a VLAN.
        parent: Option<String>,
        ignored_because: Option<String>,
        /// Bytes per second at the latest reading; null before the second reading.
        rx_rate: Option<u64>,
        /// Bytes per second at the latest reading; null before the second reading.
        tx_rate: Option<u64>,
        /// Bytes of the current local day, up to the latest sample.
        today_rx_bytes: u64,
        /// Bytes of the current local day, up to the latest sample.
        today_tx_bytes: u64,
        /// Bytes since the interface became known. Never falls, also after restarts and reboots.
        lifetime_rx_bytes: u64,
        /// Bytes since the interface became known. Never falls, also after restarts and reboots.
        lifetime_tx_bytes: u64,
        /// Only after a change: true when it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// Answer to forgetting an interface.
    Forgotten {
        message: String,
        /// True: the change is on disk.
        saved: bool,
    }
    /// Raw kernel counters of one interface.
    InterfaceStats {
        interface_name: String,
        #[serde(flatten)]
        counters: EachCounter,
        timestamp: Time,
        status: LinkWord,
    }
    /// One sample: the traffic of one interface since its previous sample.
    Record {
        /// Stable and unique.
        id: u64,
        timestamp: Time,
        interface_name: Name,
        #[serde(flatten)]
        counters: BytesAndPackets,
        /// The same as `timestamp`.
        created_at: Time,
        #[serde(flatten)]
        others: ErrorsAndOthers,
    }
    /// Traffic of one interface in one bucket of time.
    BucketRecord {
        from: Time,
        to: Time,
        interface_name: Name,
        #[serde(flatten)]
        counters: EachCounter,
        /// Highest rate of one sample, in bytes per second.
        rx_peak: u64,
        /// Highest rate of one sample, in bytes per second.
        tx_peak: u64,
        /// Seconds of the bucket that samples cover, including gaps over which traffic was spread.
        observed: u64,
    }
    /// Kernel counters of all present interfaces together. A bridge counts its ports' traffic again: see `primary`.
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
    /// Counters of the primary interface. Unlike the sums of all interfaces, they count no traffic twice.
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
    /// The setting interfaces: the interfaces that are chosen by name.
    InterfacesSetting {
        /// Empty: all interfaces that are not ignored.
        interfaces: Vec<String>,
        /// Interfaces that are sampled now.
        monitored: Vec<String>,
    }
    /// Answer to changing the setting interfaces.
    InterfacesChanged {
        message: &'static str,
        interfaces: Vec<String>,
        saved: bool,
    }
    /// Seconds between two samples.
    IntervalSetting {
        collection_interval_seconds: u32,
        /// Only after a change: true when it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// Number of retries after a failed reading.
    RetriesSetting {
        max_retries: u32,
        /// Only after a change: true when it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// Seconds between two attempts.
    DelaySetting {
        retry_delay_seconds: f64,
        /// Only after a change: true when it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// All settings, in the order in which to show them.
    Settings {
        settings: Ordered<Setting>,
        /// Only after a change: true when it is on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        saved: Option<bool>,
    }
    /// One setting.
    Setting {
        /// Active value: integers and sizes (bytes) as numbers, lists as arrays, an unset text as an empty string.
        value: SettingValue,
        default: SettingValue,
        /// Where the active value comes from.
        origin: OriginWord,
        /// Flag or environment variable that sets it; then it cannot be changed here.
        owner: Option<&'static str>,
        kind: SettingKind,
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<SettingValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<SettingValue>,
        /// Allowed values, if there is a fixed list.
        #[serde(skip_serializing_if = "Option::is_none")]
        words: Option<Vec<&'static str>>,
        flag: Option<&'static str>,
        environment: Option<&'static str>,
        help: &'static str,
        /// False: only a flag or an environment variable can set it.
        changeable: bool,
    }
    /// Facts about the machine. Memory sizes are in bytes.
    SystemInfo {
        hostname: String,
        os: String,
        /// Version of Net-Pulse.
        version: &'static str,
        /// Uptime of the machine.
        uptime_seconds: u64,
        cpu_count: u32,
        memory_total: u64,
        memory_available: u64,
    }
    /// Health of the service in detail.
    SystemHealth {
        status: Overall,
        /// What is wrong, then notes that change no status, such as a missing interface; null if there is neither.
        reason: Option<String>,
        database_status: DatabaseWord,
        interfaces_status: InterfacesWord,
        collector_status: CollectorWord,
        timestamp: Time,
        /// False while the wall clock is not trusted, for example after a boot in 1970.
        clock_believed: bool,
        /// How counters are read: getstats or getlink (both netlink), or sysfs.
        source: &'static str,
        /// Why a better source is not used.
        source_note: Option<String>,
        details: HealthDetails,
    }
    /// Facts behind the health.
    HealthDetails {
        database: DatabaseDetails,
        interfaces: InterfacesDetails,
        collector: CollectorStatus,
        clock: ClockDetails,
        http: HttpDetails,
    }
    /// The database and the samples that are not saved.
    DatabaseDetails {
        /// Number of samples, unsaved ones included.
        traffic_data_records: u64,
        configuration_records: u64,
        database_size_bytes: u64,
        database_path: String,
        last_saved: Option<Time>,
        /// Seconds of history that a power cut would lose now.
        unsaved_seconds: u64,
        unsaved_records: usize,
        /// The same as `unsaved_records`.
        unsaved_samples: usize,
        /// Time of the oldest unsaved sample; null without one, and while the wall clock is not trusted.
        unsaved_since: Option<Time>,
        /// Unsaved bytes of the primary interface.
        unsaved_rx_bytes: u64,
        /// Unsaved bytes of the primary interface.
        unsaved_tx_bytes: u64,
        // This run's bytes for the database and its write-ahead log, up to the latest save. A flash chip may write more
        // or less. A kernel without CONFIG_TASK_IO_ACCOUNTING does not count.
        /// Bytes per day that saving writes, by the kernel's count; null in the first hour or if it does not count.
        bytes_written_per_day: Option<u64>,
        /// Active interval between two saves.
        flush_interval_seconds: u32,
        save_failures: u64,
        error: Option<String>,
    }
    /// Numbers of interfaces.
    InterfacesDetails {
        total_interfaces: usize,
        active_interfaces: usize,
        monitored_interfaces: usize,
        /// Names and patterns in the settings interfaces and primary that match no present interface.
        unmatched: Vec<String>,
        /// How often the kernel dropped notifications of links that appeared or disappeared.
        reports_lost: u64,
    }
    /// State of the wall clock.
    ClockDetails {
        /// False while the wall clock is not trusted: samples then wait in memory.
        believed: bool,
        timezone: String,
    }
    /// The web server.
    HttpDetails {
        /// Number of panics (errors in the program) in the web server.
        panics: u32,
        /// Addresses from the setting host at which the server cannot be reached now.
        unreachable: Vec<String>,
    }
    /// Load of the machine and of this program.
    SystemMetrics {
        /// CPU load of the machine since the previous request for metrics; in the first answer, since the boot.
        cpu_percent: f64,
        memory_percent: f64,
        /// Of the file system that holds the database.
        disk_usage_percent: f64,
        network_interfaces_count: usize,
        timestamp: Time,
        /// Resident memory of this program.
        rss_bytes: u64,
        /// CPU time of this program.
        cpu_seconds: f64,
    }
    /// Rates in columns of equal length. A bucket without data is null, never 0.
    Series {
        from: Time,
        to: Time,
        /// Seconds per bucket; a local day may have an hour more or less.
        step: i64,
        /// Local date of the first bucket if `step` is whole days, else null; each bucket is `step` / 86400 local days.
        first_day: Option<Date>,
        /// Start times of the buckets, Unix seconds, ascending.
        t: Vec<i64>,
        interfaces: ByName<SeriesColumns>,
    }
    /// Mean rates in bytes per second. Rate times `observed` is about the bytes of the bucket, unless the rate is null.
    SeriesColumns {
        /// Number of seconds over which the rates are averaged; 0 where the rates are null.
        observed: Vec<u64>,
        rx: Vec<Option<u64>>,
        tx: Vec<Option<u64>>,
        /// Highest rate of one sample, in bytes per second; the mean rate if that is higher.
        rx_peak: Vec<Option<u64>>,
        /// Highest rate of one sample, in bytes per second; the mean rate if that is higher.
        tx_peak: Vec<Option<u64>>,
    }
    /// Traffic in one hour, day, week, month or year of the configured time zone.
    Total {
        from: Time,
        to: Time,
        /// First local date of the period, in the configured time zone.
        first_day: Date,
        last_day: Date,
        rx_bytes: u64,
        tx_bytes: u64,
        rx_packets: u64,
        tx_packets: u64,
        /// Seconds of the period that samples cover; not all of it while it lasts or if samples are missing.
        observed: u64,
        /// True: the period is over and samples cover nearly all of it.
        complete: bool,
    }
    /// Rates of the latest seconds of the monitored interfaces, in columns of equal length, oldest first.
    LiveRates {
        /// Value of `since` for the next request.
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
    /// One event that explains the figures, such as a counter reset or a gap.
    EventRecord {
        /// Null if the wall clock was not trusted at that time.
        time: Option<Time>,
        kind: EventWord,
        /// Empty when it concerns the whole machine.
        interface: String,
        detail: String,
    }
    /// The error in one sentence.
    Problem {
        detail: String,
    }
    /// All errors of a request.
    Problems {
        detail: Vec<Flaw>,
    }
    /// One error of a request.
    Flaw {
        /// `query`, `path` or `body`, then the name of the parameter or member.
        loc: Vec<String>,
        msg: String,
        input: String,
    }
}

/// Value of `About.name`. By this name, a second net-pulse recognises that another one has the port.
pub const SERVICE_NAME: &str = "Net-Pulse";

/// The one writer type for all JSON: each further type would compile a second copy of the serialiser.
pub type Out<'a> = &'a mut dyn Write;

pub fn write(out: Out, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    serde_json::to_writer(out, value).map_err(io::Error::from)
}

pub fn bytes(value: &(impl Serialize + ?Sized)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(&mut bytes, value)?;
    Ok(bytes)
}

/// Writes a JSON array element by element.
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
    fn every_field_type_has_a_schema() {
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
        assert_eq!(health[1].doc, Some("What is wrong; absent when the service is healthy."));
    }

    #[test]
    fn write_list_writes_json_arrays() {
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
