//! Plain data that every other room agrees on. It knows nothing of the operating system, of SQL or of JSON,
//! and does no work beyond adding numbers up.

/// The counters, in the order in which every array, block and CSV row has them. A further one goes to the end: what was
/// stored before it is known by their number. `source` says where the kernel has it, and `store/migrate.rs` notes it.
pub const COUNTER_NAMES: &[&str] =
    &["rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_drops", "tx_drops"];
pub const COUNTERS: usize = COUNTER_NAMES.len();

pub const RX_BYTES: usize = 0;
pub const TX_BYTES: usize = 1;
pub const RX_PACKETS: usize = 2;
pub const TX_PACKETS: usize = 3;
pub const RX_DROPS: usize = 6;

/// One interface's counters, or the difference of two readings of them, indexed as `COUNTER_NAMES`.
/// `rx_drops` is the kernel's rx_dropped + rx_missed_errors, as `/proc/net/dev` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub [u64; COUNTERS]);

impl Counters {
    pub const ZERO: Counters = Counters([0; COUNTERS]);

    /// These, and zero for the others.
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

    /// What came since an earlier reading.
    pub fn since(&self, before: &Counters) -> Counters {
        Counters(std::array::from_fn(|at| self.0[at].saturating_sub(before.0[at])))
    }

    /// Sums are kept for years: they stop at the top rather than start again from zero.
    pub fn add(&mut self, other: &Counters) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(value);
        }
    }
}

/// An interface's number in the database: it stays with the history through renames, reboots and replacements.
pub type IfaceId = u32;

/// One interface's counters at one moment, as the kernel gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub ifindex: u32,
    pub counters: Counters,
    pub width: Width,
}

/// How many bits the counters are known to have at the source that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    Bits32,
    Bits64,
}

/// What the operating system says of a network link. Raw facts only: `detect` makes a kind of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    /// Further names that it can be asked for by (`ip link property add dev NAME altname OTHER`). Netlink alone tells them:
    /// for sysfs there are none.
    pub altnames: Vec<String>,
    /// ARPHRD_*: 1 Ethernet, 772 loopback, 512 PPP, 65534 none (tun, WireGuard) ...
    pub hardware: u16,
    /// IFLA_INFO_KIND ("veth", "bridge", "wireguard" ...), empty where the kernel names none.
    pub driver: String,
    /// It has an 802.11 side (`phy80211` or `wireless` in sysfs).
    pub wireless: bool,
    /// `DEVTYPE` of its uevent ("wlan", "wwan", "bridge" ...), empty where unknown.
    pub devtype: String,
    /// It stands on real hardware (`device` in sysfs).
    pub physical: bool,
    /// ifindex of the bridge or bond it is a port of; 0 for none.
    pub master: u32,
    /// `driver` of that one ("bridge", "openvswitch", "bond" ...), empty for none and where it is unknown.
    pub master_driver: String,
    /// ifindex of the link below it (a VLAN's parent); 0 for none or in another namespace.
    pub lower: u32,
    pub mtu: u32,
    /// Hardware address, lower-case hex with colons; empty where it has none.
    pub mac: String,
    /// Of the device: the inode of its directory in sysfs. It stays through changes of name, number and namespace, and the
    /// kernel gives a higher one to each device that it makes; 0 where it is not known. It says nothing beyond the boot.
    pub node: u64,
    pub alias: String,
    pub up: bool,
    /// Mbit/s; `None` where the driver says 0, -1 or nothing.
    pub speed: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ifindex: u32,
    pub ip: std::net::IpAddr,
    pub prefix: u8,
    pub broadcast: Option<std::net::Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
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
    Apple,
    Virtual,
    #[default]
    Other,
    /// No link's: the history of many that are gone.
    Others,
}

/// Before the name of a kind, in place of a pattern of names. No link can have it in its name: the kernel allows no colon.
pub const BY_KIND: &str = "kind:";

impl Kind {
    pub const NAMES: [(Kind, &'static str); 15] = [
        (Kind::Ethernet, "ethernet"),
        (Kind::Wifi, "wifi"),
        (Kind::Wwan, "wwan"),
        (Kind::Ppp, "ppp"),
        (Kind::Vpn, "vpn"),
        (Kind::Bridge, "bridge"),
        (Kind::Bond, "bond"),
        (Kind::Vlan, "vlan"),
        (Kind::Veth, "veth"),
        (Kind::Container, "container"),
        (Kind::Loopback, "loopback"),
        (Kind::Apple, "apple"),
        (Kind::Virtual, "virtual"),
        (Kind::Other, "other"),
        (Kind::Others, "others"),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("other", |(_, name)| name)
    }

    pub fn from_name(name: &str) -> Kind {
        Self::NAMES.iter().find(|(_, known)| *known == name).map_or(Kind::Other, |(kind, _)| *kind)
    }
}

/// How a sample came to be. Anything but `Plain` is a `null` in the chart, and counts in the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// The difference of two readings one interval apart.
    #[default]
    Plain = 0,
    /// The counters began again from zero; the numbers are what has passed since.
    Reset = 1,
    /// The difference is real, but nobody looked for longer than an interval (a restart, a suspend, a stop of the timer).
    Gap = 2,
}

impl Mark {
    pub fn from_code(code: u64) -> Mark {
        match code {
            1 => Mark::Reset,
            2 => Mark::Gap,
            _ => Mark::Plain,
        }
    }
}

/// What passed through one interface up to one tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub iface: IfaceId,
    pub mark: Mark,
    /// The time that the numbers cover, by the monotonic clock, ending at the tick.
    pub span_ms: u64,
    pub delta: Counters,
}

/// One turn of the timer thread. Its samples lie behind one another in the batch's one array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Rises by one with every tick, over restarts too.
    pub seq: u64,
    /// CLOCK_BOOTTIME in milliseconds.
    pub mono_ms: u64,
    /// UTC seconds; `None` while the wall clock cannot be believed ("unplaced").
    pub unix: Option<i64>,
    /// Where this tick's samples end in `Batch::samples`; they begin where the previous tick's end.
    pub end: usize,
}

/// Ticks that are not yet on disk, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub ticks: Vec<Tick>,
    pub samples: Vec<Sample>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.ticks.is_empty()
    }

    /// Each tick with its own samples.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Tick, &[Sample])> {
        (0..self.ticks.len()).map(|at| (&self.ticks[at], self.samples_of(at)))
    }

    pub fn samples_of(&self, at: usize) -> &[Sample] {
        let start = if at == 0 { 0 } else { self.ticks[at - 1].end };
        &self.samples[start..self.ticks[at].end]
    }

    /// Gives the samples of one interface to another, or takes them out: ticks stay as they are.
    pub fn edit(&mut self, edit: &Edit, absorb: impl Fn(&mut Sample, &Sample)) {
        if !self.samples.iter().any(|sample| edit.takes(sample.iface)) {
            return;
        }
        let mut samples: Vec<Sample> = Vec::with_capacity(self.samples.len());
        let mut start = 0;
        for tick in &mut self.ticks {
            let kept = samples.len();
            for sample in &self.samples[start..tick.end] {
                let mut sample = *sample;
                if edit.takes(sample.iface) {
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

    /// Takes out the first `count` ticks and their samples.
    pub fn drop_front(&mut self, count: usize) {
        let cut = if count == 0 { 0 } else { self.ticks[count - 1].end };
        self.ticks.drain(..count);
        self.samples.drain(..cut);
        for tick in &mut self.ticks {
            tick.end -= cut;
        }
    }
}

/// Which instance of the network stack a link belongs to: a namespace of a boot of a machine. An `ifindex` means the same
/// link within one of them only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// A digest of the machine's id, which is not to be told; empty where it has none.
    pub machine: String,
    /// Empty where it cannot be read.
    pub boot: String,
    /// Of the network namespace, the same for as long as that lasts; 0 where the kernel has none. It says nothing beyond
    /// the boot: these numbers are small and come again.
    pub namespace: u64,
}

/// What is remembered of an interface between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub id: IfaceId,
    pub name: String,
    pub kind: Kind,
    /// The user's own name for it; empty for none.
    pub alias: String,
    /// Whose counters `raw` are: a link's number in its network stack, with its hardware address and its device as
    /// witnesses. 0 when no link has them any more.
    pub ifindex: u32,
    pub stack: Stack,
    pub mac: String,
    pub node: u64,
    pub first_seen: i64,
    pub last_seen: i64,
    /// Raw counters at the newest sample.
    pub raw: Counters,
    /// Sum of everything ever booked: never falls.
    pub lifetime: Counters,
    /// CLOCK_BOOTTIME of the newest sample, on that boot.
    pub mono_ms: u64,
}

/// Raw counters that cannot be had by adding up deltas: a first reading, a reset, a wrap, a new identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// As of the end of this tick.
    pub seq: u64,
    pub iface: IfaceId,
    pub raw: Counters,
}

/// A change of what has been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Of an interface that is not there any more nothing is left.
    Forget { id: IfaceId, name: String },
    /// Its history becomes part of another's.
    Merge { id: IfaceId, name: String, into: IfaceId, into_name: String },
    /// The histories of many that are gone become part of one that belongs to none of them.
    Fold { ids: Vec<IfaceId>, into: IfaceId, into_name: String },
}

impl Edit {
    /// The interfaces that are gone afterwards.
    pub fn gone(&self) -> &[IfaceId] {
        match self {
            Edit::Forget { id, .. } | Edit::Merge { id, .. } => std::slice::from_ref(id),
            Edit::Fold { ids, .. } => ids,
        }
    }

    pub fn takes(&self, id: IfaceId) -> bool {
        self.gone().contains(&id)
    }

    /// The one that has their history then.
    pub fn into(&self) -> Option<IfaceId> {
        match self {
            Edit::Forget { .. } => None,
            Edit::Merge { into, .. } | Edit::Fold { into, .. } => Some(*into),
        }
    }
}

/// Something that a reader of the figures wants to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `None` while the wall clock cannot be believed.
    pub unix: Option<i64>,
    pub mono_ms: u64,
    pub kind: EventKind,
    /// Empty where it concerns the whole machine.
    pub interface: String,
    pub detail: String,
}

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

/// What passed through one interface in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    pub sum: Counters,
    /// The highest rate of one plain sample, bytes per second.
    pub rx_peak: u64,
    pub tx_peak: u64,
    /// Seconds observed by plain samples; the chart shows nothing where this is 0.
    pub covered: u32,
    /// Seconds that `sum` counts without anybody having looked (gaps and resets).
    pub blind: u32,
}

impl Cell {
    /// Adds another part of the same time, or a part of a longer one. The order of such additions does not matter.
    pub fn add(&mut self, other: &Cell) {
        self.sum.add(&other.sum);
        self.rx_peak = self.rx_peak.max(other.rx_peak);
        self.tx_peak = self.tx_peak.max(other.tx_peak);
        self.covered = self.covered.saturating_add(other.covered);
        self.blind = self.blind.saturating_add(other.blind);
    }

    /// Seconds that the sum stands for.
    pub fn observed(&self) -> u64 {
        u64::from(self.covered) + u64::from(self.blind)
    }

    /// Where a clock was set back, the same minutes have passed twice: the numbers count, the time does not.
    pub fn within(mut self, length_s: i64) -> Cell {
        let length = u32::try_from(length_s).unwrap_or(u32::MAX);
        self.covered = self.covered.min(length);
        self.blind = self.blind.min(length - self.covered);
        self
    }
}

/// A cell with its place in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// UTC seconds; a local day may be 23 or 25 hours long.
    pub from: i64,
    pub to: i64,
    pub cell: Cell,
}

impl Bucket {
    pub fn new(from: i64, to: i64, cell: &Cell) -> Bucket {
        Bucket { from, to, cell: cell.within(to - from) }
    }
}

/// Facts about the machine, for `/api/system/*`; read when asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    pub hostname: String,
    /// e.g. "Linux 6.6.52 mips".
    pub os: String,
    pub uptime_s: u64,
    pub cpu_count: u32,
    pub memory_total: u64,
    pub memory_available: u64,
    /// Jiffies since boot, all CPUs together: busy and all. Two readings make a percentage.
    pub cpu_busy: u64,
    pub cpu_all: u64,
    /// Of the file system that holds the database.
    pub disk_total: u64,
    pub disk_free: u64,
    /// This process.
    pub rss_bytes: u64,
    pub cpu_ms: u64,
}
