//! Whose history a link goes on with, and from which counters. Pure.
//!
//! A link's identity is its network stack (a namespace of a boot of a machine) and its `ifindex` there, or within one boot
//! its device, where that is known; its hardware address and its name are witnesses. All links are assigned at once, the surest first: two that have exchanged their
//! names must not both come to the same history. What is unknown never counts as equal, and what a kernel has counted is
//! booked only as far as it can have passed since the history's latest sample.

use crate::model::{Counters, Link, Mark, Record, Stack};

/// Clocks are put right while a machine starts, and a battery clock has whole seconds: a boot that seems to have begun so
/// much before the latest sample may have begun after it.
pub const BOOT_SLACK_S: i64 = 120;

/// A link that has no history yet in this run.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// `None` where it was seen to come: then it is none of those that were there before.
    pub ifindex: Option<u32>,
    pub node: u64,
    pub name: &'a str,
    pub mac: &'a str,
}

impl<'a> Candidate<'a> {
    pub fn of(link: &'a Link, came: bool) -> Candidate<'a> {
        Candidate { ifindex: (!came).then_some(link.ifindex), node: link.node, name: &link.name, mac: &link.mac }
    }
}

/// The history of a link.
#[derive(Clone, Debug)]
pub struct Past {
    /// Whose counters go on here.
    pub end: Record,
    pub record: Record,
    pub resume: Resume,
}

impl Past {
    /// What to tell where the hardware address is another, and that alone is no reason to lose anything.
    pub fn readdressed(&self, mac: &str) -> Option<String> {
        let before = &self.end.mac;
        differ(before, mac).then(|| format!("the hardware address is {mac} now, and was {before}; counting goes on"))
    }
}

/// Each link with its history, if it has one.
pub fn find(links: &[Candidate], records: &[&Record], present: &Present) -> Vec<Option<Past>> {
    let past = |(assigned, link): (Option<Assigned>, &Candidate)| {
        let Assigned { end, past } = assigned?;
        let mut resume = resume(records[end], link, present);
        let other = |record: &&Record| record.id != records[end].id && may_be(record, link, present.stack);
        // What it has counted may stand in that history already.
        let sure = present.is_link(records[end], link) && present.relation(records[end]) != Relation::Unknown;
        if !sure && records.iter().any(other) {
            resume = Resume::Anew("another history may have its counters");
        }
        Some(Past { end: records[end].clone(), record: records[past].clone(), resume })
    };
    assign(links, records, present).into_iter().zip(links).map(past).collect()
}

/// Places in the list of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Assigned {
    end: usize,
    /// Another one where the link was renamed to what has a history of its own.
    past: usize,
}

/// The highest numbers of a namespace's links, as of some look. The kernel gives higher ones to each link that it makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    pub ifindex: u32,
    pub node: u64,
}

impl Newest {
    pub fn or(self, link: &Link) -> Newest {
        Newest { ifindex: self.ifindex.max(link.ifindex), node: self.node.max(link.node) }
    }

    /// Of two numbers one may be misleading: a link that was moved here has counted before, and keeps its own.
    fn is_before(&self, link: &Candidate) -> bool {
        link.ifindex.is_some_and(|ifindex| ifindex > self.ifindex)
            && (link.node == 0 || self.node == 0 || link.node > self.node)
    }

    /// As a setting, kept for the next start: the numbers behind their namespace.
    pub fn to_text(self, namespace: u64) -> String {
        format!("{namespace}:{}:{}", self.ifindex, self.node)
    }

    /// `None` where they are another namespace's.
    pub fn of_text(text: &str, namespace: u64) -> Option<Newest> {
        let mut parts = text.split(':');
        let same = namespace != 0 && parts.next()?.parse() == Ok(namespace);
        let newest = Newest { ifindex: parts.next()?.parse().ok()?, node: parts.next()?.parse().ok()? };
        same.then_some(newest)
    }
}

/// What the present is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    pub stack: &'a Stack,
    pub mono_ms: u64,
    pub newest: Option<Newest>,
    /// When that look was, if it was this run's; else it was before each record's latest sample.
    pub looked_ms: Option<u64>,
}

/// How a record's network stack relates to the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    /// The same boot of a kernel that does not say which namespace it is.
    SameBoot,
    OtherNamespace,
    /// The same boot, at a moment before the latest sample: a virtual machine that was set back.
    Earlier,
    OtherBoot,
    OtherMachine,
    Unknown,
}

impl Present<'_> {
    fn relation(&self, record: &Record) -> Relation {
        let (here, there) = (self.stack, &record.stack);
        let earlier = self.mono_ms < record.mono_ms;
        let known = !here.boot.is_empty() && !there.boot.is_empty();
        if known && here.boot == there.boot {
            return match () {
                _ if earlier => Relation::Earlier,
                _ if here.namespace == 0 || there.namespace == 0 => Relation::SameBoot,
                _ if here.namespace == there.namespace => Relation::Same,
                _ => Relation::OtherNamespace,
            };
        }
        match () {
            _ if differ(&here.machine, &there.machine) => Relation::OtherMachine,
            // The monotonic clock counts from the boot: it can only be smaller in a later one.
            _ if known || earlier => Relation::OtherBoot,
            _ => Relation::Unknown,
        }
    }

    /// The very link that a record's counters are of.
    fn is_link(&self, record: &Record, link: &Candidate) -> bool {
        let Some(ifindex) = link.ifindex.filter(|_| record.ifindex != 0) else { return false };
        let relation = self.relation(record);
        let same_boot = matches!(relation, Relation::Same | Relation::SameBoot | Relation::OtherNamespace);
        if same_boot && record.node != 0 && link.node != 0 {
            return record.node == link.node;
        }
        if record.ifindex != ifindex {
            return false;
        }
        match relation {
            // Numbers are given again where links move between namespaces: a link that has neither its name nor its
            // address any more is another one.
            Relation::Same => record.name == link.name || !differ(&record.mac, link.mac),
            Relation::SameBoot => record.name == link.name || agree(&record.mac, link.mac),
            Relation::Unknown => record.name == link.name && agree(&record.mac, link.mac),
            _ => false,
        }
    }
}

/// Whether a record may have the counters of this link: another one must not go on with them as well.
pub fn may_be(record: &Record, link: &Candidate, stack: &Stack) -> bool {
    if record.ifindex == 0 || differ(&record.stack.boot, &stack.boot) {
        return false;
    }
    match record.node != 0 && link.node != 0 {
        true => record.node == link.node,
        false => {
            let [one, other] = [record.stack.namespace, stack.namespace];
            link.ifindex == Some(record.ifindex) && (one == other || one == 0 || other == 0)
        }
    }
}

fn agree(one: &str, other: &str) -> bool {
    !one.is_empty() && one == other
}

fn differ(one: &str, other: &str) -> bool {
    !one.is_empty() && !other.is_empty() && one != other
}

/// Set by software, mostly at random, and not by the maker of the hardware: the second bit of the first byte.
fn is_random(mac: &str) -> bool {
    mac.get(..2).and_then(|first| u8::from_str_radix(first, 16).ok()).is_some_and(|first| first & 2 != 0)
}

/// No record goes to two links.
fn assign(links: &[Candidate], records: &[&Record], present: &Present) -> Vec<Option<Assigned>> {
    let alone = |mac: &str| {
        !mac.is_empty()
            && !is_random(mac)
            && links.iter().filter(|link| link.mac == mac).count() == 1
            && records.iter().filter(|record| record.mac == mac).count() == 1
    };
    let same_name = |record: &Record, link: &Candidate| record.name == link.name;
    // The surest first.
    let rules: [&dyn Fn(&Record, &Candidate) -> bool; 5] = [
        &|record, link| present.is_link(record, link) && same_name(record, link),
        &|record, link| present.is_link(record, link),
        &|record, link| same_name(record, link) && agree(&record.mac, link.mac),
        // The ports of a switch may have one address in common, and so has a bridge with its port.
        &|record, link| record.mac == link.mac && alone(link.mac),
        &same_name,
    ];
    let mut ends: Vec<Option<usize>> = vec![None; links.len()];
    for rule in rules {
        for (at, link) in links.iter().enumerate() {
            if ends[at].is_none() {
                let fits = |found: &usize| !ends.contains(&Some(*found)) && rule(records[*found], link);
                ends[at] = (0..records.len()).find(fits);
            }
        }
    }
    let past = |end: usize, link: &Candidate| {
        let waiting = |found: &usize| !ends.contains(&Some(*found)) && same_name(records[*found], link);
        let renamed = !same_name(records[end], link);
        (0..records.len()).find(|found| renamed && waiting(found)).unwrap_or(end)
    };
    let assigned = |(end, link): (&Option<usize>, &Candidate)| end.map(|end| Assigned { end, past: past(end, link) });
    ends.iter().zip(links).map(assigned).collect()
}

/// Where a history ends: what a link has counted beyond these counters has passed since this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub counters: Counters,
    pub mono_ms: u64,
    /// What to call the difference.
    pub mark: Mark,
    /// Whether the machine was started anew since is not known: only counters that have not fallen can be compared.
    pub unsure: bool,
}

impl End {
    /// Of a link that was made since this moment, or has counted since the machine was started.
    pub fn zero(mono_ms: u64) -> End {
        End { counters: Counters::ZERO, mono_ms, mark: Mark::Reset, unsure: false }
    }
}

/// How a link goes on from the end of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    From(End),
    /// From zero if the machine was started after the latest sample.
    SinceBoot(Boot),
    /// Its first reading is a beginning: why nothing of it can be booked.
    Anew(&'static str),
}

fn resume(record: &Record, link: &Candidate, present: &Present) -> Resume {
    let relation = present.relation(record);
    if present.is_link(record, link) {
        let (counters, mono_ms, unsure) = (record.raw, record.mono_ms, relation == Relation::Unknown);
        return Resume::From(End { counters, mono_ms, mark: Mark::Gap, unsure });
    }
    let made_since = present.newest.is_some_and(|newest| newest.is_before(link));
    if let (true, Some(looked_ms)) = (made_since, present.looked_ms) {
        return Resume::From(End::zero(looked_ms));
    }
    if record.stack == Stack::default() && record.ifindex == 0 {
        return Resume::Anew("it was not counted before");
    }
    match relation {
        Relation::Same if made_since => Resume::From(End::zero(record.mono_ms)),
        Relation::Same | Relation::SameBoot => Resume::Anew("it is another link, which may have counted before"),
        Relation::OtherNamespace => Resume::Anew("its counters are those of another network namespace"),
        Relation::Earlier => Resume::Anew("this machine was set back to a moment before the latest sample"),
        Relation::OtherMachine => Resume::Anew("its counters are those of another machine"),
        Relation::OtherBoot if differ(&record.mac, link.mac) && !(is_random(&record.mac) && is_random(link.mac)) => {
            Resume::Anew("it has another hardware address: its counters are those of other hardware")
        }
        Relation::OtherBoot => Resume::SinceBoot(Boot {
            last_seen: record.last_seen,
            same_machine: agree(&record.stack.machine, &present.stack.machine),
        }),
        Relation::Unknown => Resume::Anew("whether the machine was started anew cannot be told without its boot id"),
    }
}

/// What cannot be told here, for people; `None` where all is known.
pub fn unknown(stack: &Stack) -> Option<&'static str> {
    stack.boot.is_empty().then_some(
        "the boot id cannot be read (/proc/sys/kernel/random/boot_id): at a start, only what certainly passed since the \
         latest sample is booked",
    )
}

/// A boot that is not the one of the latest sample. What it has counted by its first reading is booked if it began after
/// that sample, which is decided once the clock can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    pub last_seen: i64,
    /// Its id is known, and the same.
    pub same_machine: bool,
}

impl Boot {
    /// Gives the reason where nothing can be booked.
    pub fn refusal(&self, boot_unix: i64, now_unix: i64) -> Option<&'static str> {
        if boot_unix.saturating_add(BOOT_SLACK_S) >= self.last_seen {
            return None;
        }
        // It cannot be earlier now than it was then, so that one of the clocks is wrong, and neither tells of the boot.
        // A machine's boots follow each other.
        match (now_unix < self.last_seen, self.same_machine) {
            (true, true) => None,
            (true, false) => {
                Some("the clock says that the latest sample lies in the future, and the machine has no id")
            }
            (false, _) => Some("this boot began before the latest sample"),
        }
    }
}
