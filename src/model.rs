//! Plain data types that all other modules share: links, readings, samples, records, cells, events. The functions here
//! work on these types only: no code for the operating system, SQL or JSON.

/// The counters, in the order of every array, stored block and CSV row. A new counter goes to the end, because older
/// rows are recognised by their number of counters; it also needs a row in `source/linux/counters.rs` and in
/// `store/migrate.rs`.
pub const COUNTER_NAMES: &[&str] =
    &["rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_drops", "tx_drops"];
pub const COUNTERS: usize = COUNTER_NAMES.len();

pub const RX_BYTES: usize = 0;
pub const TX_BYTES: usize = 1;
pub const RX_PACKETS: usize = 2;
pub const TX_PACKETS: usize = 3;
pub const RX_DROPS: usize = 6;

/// One interface's counters, or the difference of two readings, indexed as `COUNTER_NAMES`.
/// `rx_drops` is the sum of the kernel's rx_dropped and rx_missed_errors, as in `/proc/net/dev`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub [u64; COUNTERS]);

impl Counters {
    pub const ZERO: Counters = Counters([0; COUNTERS]);

    /// The given values for the first `N` counters, zero for the others.
    pub const fn of<const N: usize>(first: [u64; N]) -> Counters {
        let mut all = Counters::ZERO;
        let mut at = 0;
        while at < N {
            all.0[at] = first[at];
            at += 1;
        }
        all
    }

    pub fn is_zero(&self) -> bool {
        *self == Counters::ZERO
    }

    pub fn rx_bytes(&self) -> u64 {
        self.0[RX_BYTES]
    }

    pub fn tx_bytes(&self) -> u64 {
        self.0[TX_BYTES]
    }

    /// The difference from an earlier reading; zero for a counter that fell.
    pub fn since(&self, before: &Counters) -> Counters {
        Counters(std::array::from_fn(|at| self.0[at].saturating_sub(before.0[at])))
    }

    /// Adds each counter. A sum stops at its maximum: a wrong total must not start again from zero.
    pub fn add(&mut self, other: &Counters) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(value);
        }
    }
}

/// Identifies an interface in the database. It stays the same when the link is renamed, the machine reboots or the
/// device is replaced.
pub type IfaceId = u32;

/// The raw kernel counters of one link at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub ifindex: u32,
    pub counters: Counters,
    pub width: Width,
}

/// Number of bits of the counters in the source's format. A driver may count with fewer bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    Bits32,
    Bits64,
}

/// A network link as the operating system reports it. Raw facts only: `detect` derives the kind from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    /// Alternative names (`ip link property add dev NAME altname OTHER`). Only netlink reports them; empty when the
    /// source is sysfs.
    pub altnames: Vec<String>,
    /// ARPHRD_* of include/uapi/linux/if_arp.h: 1 Ethernet, 512 PPP, 772 loopback, 65534 none (tun, WireGuard) ...
    pub hardware_type: u16,
    /// IFLA_INFO_KIND ("veth", "bridge", "wireguard" ...); empty if the kernel reports none.
    pub driver: String,
    /// A Wi-Fi device (`phy80211` or `wireless` exists in sysfs).
    pub wireless: bool,
    /// `DEVTYPE` of the uevent ("wlan", "wwan", "bridge" ...); empty if unknown.
    pub devtype: String,
    /// Backed by hardware (`device` exists in sysfs).
    pub physical: bool,
    /// ifindex of the master (bridge, bond, VRF ...) that the link is a port of; 0 for none.
    pub master: u32,
    /// `driver` of the master ("bridge", "openvswitch", "bond" ...); empty if there is none or it is unknown.
    pub master_driver: String,
    /// ifindex of the link below (the parent of a VLAN); 0 if there is none or it is in another namespace.
    pub lower: u32,
    pub mtu: u32,
    /// Hardware address, lower-case hex with colons; empty if the link has none.
    pub mac: String,
    /// Inode of the device's directory in sysfs; 0 if unknown. It stays the same when the link changes its name,
    /// ifindex or namespace, and each new device gets a higher one. Only comparable within one boot.
    pub inode: u64,
    pub alias: String,
    pub up: bool,
    /// Mbit/s; `None` if the driver reports 0, -1 or nothing.
    pub speed: Option<u32>,
}

/// An IP address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ifindex: u32,
    pub ip: std::net::IpAddr,
    /// Length in bits.
    pub prefix: u8,
    pub broadcast: Option<std::net::Ipv4Addr>,
}

/// Kind of an interface; `detect::kind` determines it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfaceKind {
    Ethernet,
    Wifi,
    Wwan,
    Ppp,
    Vpn,
    Bridge,
    Bond,
    Vlan,
    Veth,
    Container,
    Loopback,
    /// Apple's peer-to-peer links (awdl, llw).
    Apple,
    Virtual,
    #[default]
    Other,
    /// The interface "others": no link, but the merged history of many links that are gone.
    Others,
}

/// Prefix of a pattern that matches all links of a kind (`kind:veth`). It cannot be part of a link's name: the kernel
/// allows no colon there (`dev_valid_name` in net/core/dev.c).
pub const KIND_PREFIX: &str = "kind:";

impl InterfaceKind {
    pub const NAMES: [(InterfaceKind, &'static str); 15] = [
        (InterfaceKind::Ethernet, "ethernet"),
        (InterfaceKind::Wifi, "wifi"),
        (InterfaceKind::Wwan, "wwan"),
        (InterfaceKind::Ppp, "ppp"),
        (InterfaceKind::Vpn, "vpn"),
        (InterfaceKind::Bridge, "bridge"),
        (InterfaceKind::Bond, "bond"),
        (InterfaceKind::Vlan, "vlan"),
        (InterfaceKind::Veth, "veth"),
        (InterfaceKind::Container, "container"),
        (InterfaceKind::Loopback, "loopback"),
        (InterfaceKind::Apple, "apple"),
        (InterfaceKind::Virtual, "virtual"),
        (InterfaceKind::Other, "other"),
        (InterfaceKind::Others, "others"),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("other", |(_, name)| name)
    }

    pub fn from_name(name: &str) -> InterfaceKind {
        Self::NAMES.iter().find(|(_, known)| *known == name).map_or(InterfaceKind::Other, |(kind, _)| *kind)
    }
}

/// Quality of a sample. Samples of every quality count in the totals. The chart has a rate only where there is a
/// `Plain` sample, and `null` elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SampleQuality {
    /// The delta of two readings at most 2.5 intervals apart, or several such samples that were merged.
    #[default]
    Plain = 0,
    /// The counters started from zero; the delta is the traffic since then.
    Reset = 1,
    /// The rate is unknown: the readings are further apart (restart, suspend, delayed timer), or a byte counter fell.
    /// The delta is zero if it is unknown too (an impossible rise, or a baseline that belongs to other counters).
    Gap = 2,
}

impl SampleQuality {
    /// The quality that the database stores as this number; `Plain` for an unknown number.
    pub fn from_code(code: u64) -> SampleQuality {
        match code {
            1 => SampleQuality::Reset,
            2 => SampleQuality::Gap,
            _ => SampleQuality::Plain,
        }
    }
}

/// The delta of one interface at one tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub iface: IfaceId,
    pub quality: SampleQuality,
    /// Length of the time that the delta covers, on the monotonic clock. It ends at the tick.
    pub span_ms: u64,
    pub delta: Counters,
}

/// One turn of the sampler's timer, or the moment of the last samples of links that disappeared between two turns. The
/// samples of a tick are contiguous in the array of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Sequence number: rises by one with every tick. It continues after a restart, which skips some numbers, so that
    /// none is used twice (`SEQ_MARGIN` in `store/watermarks.rs`).
    pub seq: u64,
    /// CLOCK_BOOTTIME in milliseconds.
    pub mono_ms: u64,
    /// UTC seconds; `None` while there is no trusted wall clock. It is filled in later.
    pub unix: Option<i64>,
    /// End of this tick's samples in `Batch::samples`; they start at the previous tick's `end`.
    pub end: usize,
}

/// Ticks that are saved together in one transaction, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub ticks: Vec<Tick>,
    pub samples: Vec<Sample>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.ticks.is_empty()
    }

    /// Each tick with its samples.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Tick, &[Sample])> {
        (0..self.ticks.len()).map(|at| (&self.ticks[at], self.samples_of(at)))
    }

    pub fn samples_of(&self, at: usize) -> &[Sample] {
        let start = if at == 0 { 0 } else { self.ticks[at - 1].end };
        &self.samples[start..self.ticks[at].end]
    }

    /// Moves the samples of the interfaces that the edit removes to its target interface, or deletes them. The ticks
    /// stay. `absorb` merges the second of two samples of one interface in the same tick into the first.
    pub fn edit(&mut self, edit: &HistoryEdit, absorb: impl Fn(&mut Sample, &Sample)) {
        if !self.samples.iter().any(|sample| edit.removes(sample.iface)) {
            return;
        }
        let mut samples: Vec<Sample> = Vec::with_capacity(self.samples.len());
        let mut start = 0;
        for tick in &mut self.ticks {
            let kept = samples.len();
            for sample in &self.samples[start..tick.end] {
                let mut sample = *sample;
                if edit.removes(sample.iface) {
                    let Some(into) = edit.into() else { continue };
                    sample.iface = into;
                }
                match samples[kept..].iter_mut().find(|known| known.iface == sample.iface) {
                    Some(known) => absorb(known, &sample),
                    None => samples.push(sample),
                }
            }
            (start, tick.end) = (tick.end, samples.len());
        }
        self.samples = samples;
    }

    pub fn clear(&mut self) {
        self.ticks.clear();
        self.samples.clear();
    }

    /// Removes the first `count` ticks and their samples.
    pub fn drop_front(&mut self, count: usize) {
        let cut = if count == 0 { 0 } else { self.ticks[count - 1].end };
        self.ticks.drain(..count);
        self.samples.drain(..cut);
        for tick in &mut self.ticks {
            tick.end -= cut;
        }
    }
}

/// Identifies one instance of the kernel's network stack: machine, boot and network namespace. An ifindex is only
/// unique within one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkStack {
    /// Digest of the machine id (see machine-id(5): the id itself is confidential); empty if there is none.
    pub machine: String,
    /// Boot id; empty if it cannot be read.
    pub boot: String,
    /// Cookie of the network namespace (`SO_NETNS_COOKIE`), or its inode on kernels before 5.14; 0 if the kernel has no
    /// namespaces. Only unique within one boot: inode numbers are small and the kernel uses them again.
    pub namespace: u64,
}

/// The stored identity of an interface, with its totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub id: IfaceId,
    pub name: String,
    pub kind: InterfaceKind,
    /// The name that the user chose; empty for none.
    pub alias: String,
    /// ifindex of the link that `raw` was read from; 0 if that link is gone. `stack`, `mac` and `inode` tell whether a
    /// link found later is the same one.
    pub ifindex: u32,
    pub stack: NetworkStack,
    pub mac: String,
    pub inode: u64,
    /// UTC seconds.
    pub first_seen: i64,
    /// UTC seconds.
    pub last_seen: i64,
    /// Raw counters at the newest sample or anchor.
    pub raw: Counters,
    /// Sum of all deltas since the interface became known; never falls.
    pub lifetime: Counters,
    /// CLOCK_BOOTTIME in milliseconds at the newest sample or anchor, on the boot in `stack`.
    pub mono_ms: u64,
}

/// Raw counters of an interface after a tick. The sampler adds one where the store cannot compute them as the previous
/// raw counters plus the delta: at the first reading of a link, after a reset or a wrap, when a counter fell, and after
/// a merge. The first sample with traffic and every sample that is not plain get one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Sequence number of the tick at which `raw` was read.
    pub seq: u64,
    pub iface: IfaceId,
    pub raw: Counters,
}

/// A change to stored history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryEdit {
    /// Deletes the history of an interface whose link is gone.
    Forget { id: IfaceId, name: String },
    /// Adds the history of one interface to another interface.
    Merge { id: IfaceId, name: String, into: IfaceId, into_name: String },
    /// Adds the histories of many gone links to the interface "others".
    MergeIntoOthers { ids: Vec<IfaceId>, into: IfaceId, into_name: String },
}

impl HistoryEdit {
    /// The interfaces that do not exist after the edit.
    pub fn removed(&self) -> &[IfaceId] {
        match self {
            HistoryEdit::Forget { id, .. } | HistoryEdit::Merge { id, .. } => std::slice::from_ref(id),
            HistoryEdit::MergeIntoOthers { ids, .. } => ids,
        }
    }

    pub fn removes(&self, id: IfaceId) -> bool {
        self.removed().contains(&id)
    }

    /// The interface that receives the history of the removed ones; `None` if it is deleted.
    pub fn into(&self) -> Option<IfaceId> {
        match self {
            HistoryEdit::Forget { .. } => None,
            HistoryEdit::Merge { into, .. } | HistoryEdit::MergeIntoOthers { into, .. } => Some(*into),
        }
    }
}

/// An event of the event list, for example a reset of counters or a change of the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// UTC seconds; `None` while there is no trusted wall clock.
    pub unix: Option<i64>,
    /// CLOCK_BOOTTIME in milliseconds.
    pub mono_ms: u64,
    pub kind: EventKind,
    /// Name of the interface; empty for an event of the whole machine.
    pub interface: String,
    /// One sentence for the user.
    pub detail: String,
}

/// Kind of an event. `NAMES` has the names in the API and the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Start,
    Stop,
    Appeared,
    Vanished,
    Renamed,
    Merged,
    Forgotten,
    Reset,
    Wrap,
    Dip,
    HardwareAddress,
    Gap,
    Implausible,
    ClockStep,
    Primary,
    Storage,
}

impl EventKind {
    pub const NAMES: [(EventKind, &'static str); 16] = [
        (EventKind::Start, "start"),
        (EventKind::Stop, "stop"),
        (EventKind::Appeared, "appeared"),
        (EventKind::Vanished, "vanished"),
        (EventKind::Renamed, "renamed"),
        (EventKind::Merged, "merged"),
        (EventKind::Forgotten, "forgotten"),
        (EventKind::Reset, "reset"),
        (EventKind::Wrap, "wrap"),
        (EventKind::Dip, "dip"),
        (EventKind::HardwareAddress, "hardware_address"),
        (EventKind::Gap, "gap"),
        (EventKind::Implausible, "implausible"),
        (EventKind::ClockStep, "clock_step"),
        (EventKind::Primary, "primary"),
        (EventKind::Storage, "storage"),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// Sums of one interface in one bucket of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    pub sum: Counters,
    /// The highest rates of a plain sample, in bytes per second.
    pub rx_peak: u64,
    pub tx_peak: u64,
    /// Seconds that plain samples cover. If 0, the chart has no rate for this cell.
    pub plain_s: u32,
    /// Seconds that gaps and resets cover: their traffic is in `sum`, but its rate is unknown.
    pub gap_s: u32,
}

impl Cell {
    /// Adds another cell of the same bucket, or a finer cell inside this bucket. The order of additions does not
    /// matter.
    pub fn add(&mut self, other: &Cell) {
        self.sum.add(&other.sum);
        self.rx_peak = self.rx_peak.max(other.rx_peak);
        self.tx_peak = self.tx_peak.max(other.tx_peak);
        self.plain_s = self.plain_s.saturating_add(other.plain_s);
        self.gap_s = self.gap_s.saturating_add(other.gap_s);
    }

    /// Seconds that the sum covers.
    pub fn observed(&self) -> u64 {
        u64::from(self.plain_s) + u64::from(self.gap_s)
    }

    /// Limits the observed seconds to the length of the bucket. After a clock was set back, a bucket can contain the
    /// traffic of twice its length: the sum counts all of it, the seconds do not.
    pub fn clamped_to(mut self, length_s: i64) -> Cell {
        let length = u32::try_from(length_s).unwrap_or(u32::MAX);
        self.plain_s = self.plain_s.min(length);
        self.gap_s = self.gap_s.min(length - self.plain_s);
        self
    }
}

/// A cell with its range of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// UTC seconds. A local day may have 23 or 25 hours.
    pub from: i64,
    /// UTC seconds, exclusive.
    pub to: i64,
    pub cell: Cell,
}

impl Bucket {
    pub fn new(from: i64, to: i64, cell: &Cell) -> Bucket {
        Bucket { from, to, cell: cell.clamped_to(to - from) }
    }
}

/// Facts about the machine for `/api/system/*`, read at each request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    pub hostname: String,
    /// e.g. "Linux 6.6.52 mips".
    pub os: String,
    pub uptime_s: u64,
    pub cpu_count: u32,
    /// Bytes, like all memory and disk sizes here.
    pub memory_total: u64,
    pub memory_available: u64,
    /// Clock ticks (USER_HZ, see proc_stat(5)) since boot, summed over all CPUs: busy time, and busy and idle time
    /// together. The CPU load is the ratio of their differences between two readings.
    pub cpu_busy: u64,
    pub cpu_total: u64,
    /// Size and free space of the file system that contains the database.
    pub disk_total: u64,
    pub disk_free: u64,
    /// Resident memory of this process.
    pub rss_bytes: u64,
    /// CPU time of this process.
    pub cpu_ms: u64,
}
