//! Decides which stored history each link continues, and from which counters. Pure.
//!
//! Two facts identify a link: its network stack (one network namespace of one boot of one machine) and its `ifindex` in
//! that stack. Within one boot, its device (the inode in sysfs) alone identifies it, where that is known. Its hardware
//! address and its name are further evidence. All links are assigned together, the surest matches first, so that two
//! links that swapped their names do not get the same history. An unknown boot never counts as the same boot. Only
//! traffic that can have passed after the latest sample is counted.

use crate::model::{Counters, InterfaceKind, Link, NetworkStack, Record, SampleQuality};

/// Tolerance for the start of a boot: clocks are corrected while a machine starts, and a battery clock has whole
/// seconds. A boot that seems to have begun up to this much before the latest sample may have begun after it. The first
/// value applies if the machine is certainly the same, otherwise the second.
const BOOT_SLACK_S: [i64; 2] = [120, 5];

/// The facts that identify a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkIdentity<'a> {
    /// `None` if a notification announced the link, so it is new: no earlier run saw it.
    pub ifindex: Option<u32>,
    /// 0 if unknown.
    pub inode: u64,
    pub name: &'a str,
    pub mac: &'a str,
}

impl<'a> LinkIdentity<'a> {
    pub fn of(link: &'a Link, announced: bool) -> LinkIdentity<'a> {
        LinkIdentity {
            ifindex: (!announced).then_some(link.ifindex),
            inode: link.inode,
            name: &link.name,
            mac: &link.mac,
        }
    }
}

/// The stored history that a link continues.
#[derive(Clone, Debug)]
pub struct Continuation {
    /// The record whose raw counters the link continues. It differs from `record` if the link was renamed to a name
    /// that has its own history.
    pub counters_from: Record,
    /// The record whose history the link continues.
    pub record: Record,
    pub resume: Resume,
}

impl Continuation {
    /// Event detail for a new hardware address, if counting continues in spite of it.
    pub fn address_change(&self, mac: &str) -> Option<String> {
        let before = &self.counters_from.mac;
        differ(before, mac).then(|| format!("the hardware address is now {mac} and was {before}; counting continues"))
    }
}

/// Returns the history that each link continues; `None` for a link without one.
pub fn assign_histories(links: &[LinkIdentity], records: &[&Record], this_run: &ThisRun) -> Vec<Option<Continuation>> {
    // "others" is the history of many gone links; no link continues it.
    let records: Vec<&Record> = records.iter().filter(|record| record.kind != InterfaceKind::Others).copied().collect();
    let records = &records[..];
    // If the database has, or may have, samples of this boot, this boot began before the latest sample, whatever the
    // clock shows.
    let of_this_boot = |record: &&Record| agree(&record.stack.boot, &this_run.stack.boot);
    let latest = records.iter().max_by_key(|record| record.last_seen);
    // The latest sample may have been taken in another stack, long after the links of this namespace were listed. Then
    // a link that is newer than `newest` may still be older than the latest sample.
    let sampled_here = latest.is_some_and(|latest| latest.stack == *this_run.stack);
    let newest = this_run.newest.filter(|_| this_run.listed_ms.is_some() || sampled_here);
    let this_run = &ThisRun { newest, ..*this_run };
    let may_be_of_this_boot = |record: &&Record| {
        let unknown = record.stack.boot.is_empty() || this_run.stack.boot.is_empty();
        unknown && record.mono_ms <= this_run.mono_ms
    };
    let boot_was_counted = records.iter().any(of_this_boot) || latest.is_some_and(may_be_of_this_boot);
    let continuation = |(assigned, link): (Option<AssignedRecords>, &LinkIdentity)| {
        let AssignedRecords { counters, history } = assigned?;
        let mut resume = resume(records[counters], link, this_run);
        let other =
            |record: &&Record| record.id != records[counters].id && may_have_counters_of(record, link, this_run.stack);
        let uncertain =
            !this_run.is_link(records[counters], link) || this_run.relation(records[counters]) == Relation::Unknown;
        let outdated = latest.is_some_and(|latest| latest.last_seen > records[counters].last_seen);
        let from_unknown = matches!(resume, Resume::From(StartPoint { uncertain: true, .. }));
        if (uncertain && records.iter().any(other)) || (from_unknown && outdated) {
            // Another record may already include this link's traffic.
            resume = Resume::FreshStart("another history may already contain its traffic");
        } else if matches!(resume, Resume::SinceBoot(_)) && boot_was_counted {
            resume = Resume::FreshStart("this boot may have been counted before, without this interface");
        }
        Some(Continuation { counters_from: records[counters].clone(), record: records[history].clone(), resume })
    };
    assign(links, records, this_run).into_iter().zip(links).map(continuation).collect()
}

/// Indexes into the list of records: the one whose counters a link continues, and the one whose history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AssignedRecords {
    counters: usize,
    /// Differs from `counters` if the link was renamed to a name that has its own history.
    history: usize,
}

/// The highest ifindex and the highest inode among the links of a namespace at one listing. The kernel gives each new
/// link higher numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewestLink {
    pub ifindex: u32,
    pub inode: u64,
}

impl NewestLink {
    pub fn max(self, link: &Link) -> NewestLink {
        NewestLink { ifindex: self.ifindex.max(link.ifindex), inode: self.inode.max(link.inode) }
    }

    /// Whether a link was created after the listing. Both numbers must be higher, as far as they are known: a link that
    /// was moved here from another namespace keeps its numbers, and its counters include earlier traffic.
    fn is_before(&self, link: &LinkIdentity) -> bool {
        link.ifindex.is_some_and(|ifindex| ifindex > self.ifindex)
            && (link.inode == 0 || self.inode == 0 || link.inode > self.inode)
    }

    /// Text for the saved setting `newest_link`. It begins with the boot and the namespace in which the numbers are
    /// valid.
    pub fn to_text(self, stack: &NetworkStack) -> String {
        format!("{}:{}:{}:{}", stack.boot, stack.namespace, self.ifindex, self.inode)
    }

    /// Parses the saved setting `newest_link`. `None` if the numbers are, or may be, of another network stack.
    pub fn from_text(text: &str, stack: &NetworkStack) -> Option<NewestLink> {
        let mut parts = text.split(':');
        let same_boot = agree(parts.next()?, &stack.boot);
        let same_namespace = stack.namespace != 0 && parts.next()?.parse() == Ok(stack.namespace);
        let newest = NewestLink { ifindex: parts.next()?.parse().ok()?, inode: parts.next()?.parse().ok()? };
        (same_boot && same_namespace).then_some(newest)
    }
}

/// The present network stack and times, which the stored records are compared with.
#[derive(Clone, Copy, Debug)]
pub struct ThisRun<'a> {
    pub stack: &'a NetworkStack,
    /// Monotonic time of the assignment; at a rejoin, that of this run's start.
    pub mono_ms: u64,
    pub newest: Option<NewestLink>,
    /// Monotonic time of the listing of this run that `newest` is from. `None` if an earlier run saved `newest`: then
    /// `newest` is as of the latest stored sample.
    pub listed_ms: Option<u64>,
    /// UTC seconds of the sample that was stored last, which need not have the greatest time.
    pub last_seen: i64,
}

/// Relation of a record's network stack and time to the present ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    /// The same boot; the namespace is unknown, because the kernel has none or version 0.1 wrote the record.
    SameBoot,
    OtherNamespace,
    /// The same boot, but the present is earlier than the latest sample: a virtual machine was restored from a
    /// snapshot.
    Earlier,
    OtherBoot,
    OtherMachine,
    /// It is not known whether it is the same boot, because a boot id is missing.
    Unknown,
}

impl ThisRun<'_> {
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
            // The monotonic clock counts from the boot, so a smaller value means a later boot.
            _ if known || earlier => Relation::OtherBoot,
            _ => Relation::Unknown,
        }
    }

    /// Whether the record's counters are of this very link.
    fn is_link(&self, record: &Record, link: &LinkIdentity) -> bool {
        let Some(ifindex) = link.ifindex.filter(|_| record.ifindex != 0) else { return false };
        let relation = self.relation(record);
        let same_boot = matches!(relation, Relation::Same | Relation::SameBoot | Relation::OtherNamespace);
        if same_boot && record.inode != 0 && link.inode != 0 {
            return record.inode == link.inode;
        }
        if record.ifindex != ifindex {
            return false;
        }
        match relation {
            // A link that moves between namespaces can get a number that was used before. If the name and the known
            // address both differ, it is another link.
            Relation::Same => record.name == link.name || !differ(&record.mac, link.mac),
            Relation::SameBoot => record.name == link.name || agree(&record.mac, link.mac),
            Relation::Unknown => {
                let (one, other) = (record.stack.namespace, self.stack.namespace);
                let is_other_link = (one != 0 && other != 0 && one != other)
                    || (record.inode != 0 && link.inode != 0 && record.inode != link.inode);
                record.name == link.name && agree(&record.mac, link.mac) && !is_other_link
            }
            _ => false,
        }
    }
}

/// Whether the record's raw counters may be of this link. If so, the link's traffic must not be added to another record
/// as well.
pub fn may_have_counters_of(record: &Record, link: &LinkIdentity, stack: &NetworkStack) -> bool {
    if record.ifindex == 0 || differ(&record.stack.boot, &stack.boot) {
        return false;
    }
    match record.inode != 0 && link.inode != 0 {
        true => record.inode == link.inode,
        false => {
            // A link that is moved to another namespace keeps its number if that is free there.
            let [one, other] = [record.stack.namespace, stack.namespace];
            let may_have_moved = one == other || one == 0 || other == 0 || agree(&record.mac, link.mac);
            link.ifindex == Some(record.ifindex) && may_have_moved
        }
    }
}

fn agree(one: &str, other: &str) -> bool {
    !one.is_empty() && one == other
}

fn differ(one: &str, other: &str) -> bool {
    !one.is_empty() && !other.is_empty() && one != other
}

/// Whether software set the address, often at random, and not the manufacturer: the locally administered bit (bit 1 of
/// the first byte) is set.
fn is_locally_administered(mac: &str) -> bool {
    mac.get(..2).and_then(|first| u8::from_str_radix(first, 16).ok()).is_some_and(|first| first & 2 != 0)
}

/// Decides whether a link continues a record.
type Rule<'a> = &'a dyn Fn(&Record, &LinkIdentity) -> bool;

/// Assigns records to links. No record is assigned twice.
fn assign(links: &[LinkIdentity], records: &[&Record], this_run: &ThisRun) -> Vec<Option<AssignedRecords>> {
    let is_identifying = |mac: &str| {
        !mac.is_empty()
            && !is_locally_administered(mac)
            && links.iter().filter(|link| link.mac == mac).count() == 1
            && records.iter().filter(|record| record.mac == mac).count() == 1
    };
    let same_name = |record: &Record, link: &LinkIdentity| record.name == link.name;
    // The surest rule first.
    let rules: [Rule; 5] = [
        &|record, link| this_run.is_link(record, link) && same_name(record, link),
        &|record, link| this_run.is_link(record, link),
        &|record, link| same_name(record, link) && agree(&record.mac, link.mac),
        // Only if the manufacturer set the address and it is unique: the ports of a switch may share one, and a bridge
        // has the address of a port.
        &|record, link| record.mac == link.mac && is_identifying(link.mac),
        &same_name,
    ];
    let mut counters: Vec<Option<usize>> = vec![None; links.len()];
    for rule in rules {
        for (at, link) in links.iter().enumerate() {
            if counters[at].is_none() {
                let fits = |found: &usize| !counters.contains(&Some(*found)) && rule(records[*found], link);
                counters[at] = (0..records.len()).find(fits);
            }
        }
    }
    let history = |own: usize, link: &LinkIdentity| {
        let of_new_name = |found: &usize| !counters.contains(&Some(*found)) && same_name(records[*found], link);
        let renamed = !same_name(records[own], link);
        (0..records.len()).find(|found| renamed && of_new_name(found)).unwrap_or(own)
    };
    let assigned = |(counters, link): (&Option<usize>, &LinkIdentity)| {
        counters.map(|counters| AssignedRecords { counters, history: history(counters, link) })
    };
    let mut all: Vec<Option<AssignedRecords>> = counters.iter().zip(links).map(assigned).collect();
    // A link that continues the history of its new name leaves its own record free for a link that has its old name
    // now.
    for (at, link) in links.iter().enumerate() {
        if all[at].is_none() {
            let taken = |found: usize| all.iter().flatten().any(|assigned| assigned.history == found);
            let left = (0..records.len()).find(|found| same_name(records[*found], link) && !taken(*found));
            all[at] = left.map(|found| AssignedRecords { counters: found, history: found });
        }
    }
    all
}

/// Counters and time from which a link continues: its traffic since `mono_ms` is the difference from `counters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartPoint {
    pub counters: Counters,
    pub mono_ms: u64,
    /// Quality of the sample for the difference.
    pub quality: SampleQuality,
    /// The counters may be of an earlier boot or of another link. Then the difference counts only if no counter has
    /// fallen.
    pub uncertain: bool,
}

impl StartPoint {
    /// Start of a link whose counters were zero at `mono_ms`, because it was created later or has counted since the
    /// boot.
    pub fn zero(mono_ms: u64) -> StartPoint {
        StartPoint { counters: Counters::ZERO, mono_ms, quality: SampleQuality::Reset, uncertain: false }
    }
}

/// How a link continues a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    From(StartPoint),
    /// From zero if this boot began after the latest sample. Otherwise a fresh start, because stored histories may
    /// already contain traffic of this boot.
    SinceBoot(BootCheck),
    /// The first reading only sets the baseline. The text says why earlier traffic is not counted.
    FreshStart(&'static str),
}

fn resume(record: &Record, link: &LinkIdentity, this_run: &ThisRun) -> Resume {
    let relation = this_run.relation(record);
    if this_run.is_link(record, link) {
        let (counters, mono_ms, uncertain) = (record.raw, record.mono_ms, relation == Relation::Unknown);
        return Resume::From(StartPoint { counters, mono_ms, quality: SampleQuality::Gap, uncertain });
    }
    if this_run.newest.is_some_and(|newest| newest.is_before(link)) {
        if (record.inode == 0 || link.inode == 0) && relation == Relation::Same && agree(&record.mac, link.mac) {
            // The link may have been in another namespace and have returned with a new number.
            return Resume::From(StartPoint {
                counters: record.raw,
                mono_ms: record.mono_ms,
                quality: SampleQuality::Gap,
                uncertain: true,
            });
        }
        let since = if relation == Relation::Same { record.mono_ms } else { 0 };
        return Resume::From(StartPoint::zero(this_run.listed_ms.unwrap_or(since)));
    }
    const ANOTHER: &str = "it is another link, whose counters may include earlier traffic";
    if this_run.listed_ms.is_some() {
        return Resume::FreshStart(ANOTHER);
    }
    if record.stack == NetworkStack::default() && record.ifindex == 0 {
        return Resume::FreshStart("it was not counted before");
    }
    let same_machine_id = agree(&record.stack.machine, &this_run.stack.machine);
    let may_differ = is_locally_administered(&record.mac) || same_machine_id;
    match relation {
        Relation::Same | Relation::SameBoot => Resume::FreshStart(ANOTHER),
        Relation::OtherNamespace => Resume::FreshStart("its counters belong to another network namespace"),
        Relation::Earlier => Resume::FreshStart("this machine was restored to a state before the latest sample"),
        Relation::OtherMachine => Resume::FreshStart("its counters belong to another machine"),
        Relation::OtherBoot if differ(&record.mac, link.mac) && !(is_locally_administered(link.mac) && may_differ) => {
            Resume::FreshStart("it has another hardware address: its counters belong to other hardware")
        }
        Relation::OtherBoot => Resume::SinceBoot(BootCheck {
            last_seen: this_run.last_seen,
            same_machine: same_machine_id || (agree(&record.mac, link.mac) && !is_locally_administered(link.mac)),
        }),
        Relation::Unknown => Resume::FreshStart("without its boot id it is not known whether the machine was rebooted"),
    }
}

/// Note for the user if the boot id cannot be read.
pub fn boot_id_note(stack: &NetworkStack) -> Option<&'static str> {
    stack.boot.is_empty().then_some(
        "the boot id cannot be read (/proc/sys/kernel/random/boot_id): after a start, only traffic that \
         certainly followed the latest sample is counted",
    )
}

/// Facts to decide whether this boot began after the latest sample, which was taken on another boot. If it did, the
/// first reading is counted from zero. The decision waits until the wall clock is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootCheck {
    /// UTC seconds of the latest sample.
    pub last_seen: i64,
    /// The machine id is known and the same, or the manufacturer's hardware address is the same.
    pub same_machine: bool,
}

impl BootCheck {
    /// Returns why the counters of this boot are not counted; `None` if they are.
    pub fn fresh_start_reason(&self, boot_unix: i64, now_unix: i64) -> Option<&'static str> {
        let [same, other] = BOOT_SLACK_S;
        if boot_unix.saturating_add(if self.same_machine { same } else { other }) >= self.last_seen {
            return None;
        }
        // If the present time is before the latest sample, the clock is wrong now or was wrong then, so it does not
        // show when this boot began. On the same machine, another boot is always a later one.
        match (now_unix < self.last_seen, self.same_machine) {
            (true, true) => None,
            (true, false) => Some("the clock shows a time before the latest sample, and the machine id is unknown"),
            (false, _) => Some("this boot began before the latest sample"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::COUNTERS;

    /// Addresses set by a manufacturer.
    const VENDOR: [&str; 2] = ["00:16:3e:00:00:01", "00:16:3e:00:00:02"];
    /// Locally administered addresses.
    const RANDOM: [&str; 2] = ["02:16:3e:00:00:01", "02:16:3e:00:00:02"];

    fn stack(machine: &str, boot: &str, namespace: u64) -> NetworkStack {
        NetworkStack { machine: machine.to_string(), boot: boot.to_string(), namespace }
    }

    fn here() -> NetworkStack {
        stack("m", "b", 7)
    }

    /// Last sampled at second 5000, ten minutes before the present.
    fn record(id: u32, name: &str, ifindex: u32, mac: &str, stack: NetworkStack) -> Record {
        let raw = Counters([100; COUNTERS]);
        let (name, mac) = (name.to_string(), mac.to_string());
        Record { id, name, ifindex, mac, stack, raw, mono_ms: 400_000, last_seen: 5000, ..Record::default() }
    }

    fn link<'a>(ifindex: u32, name: &'a str, mac: &'a str) -> LinkIdentity<'a> {
        LinkIdentity { ifindex: Some(ifindex), inode: 0, name, mac }
    }

    fn this_run(stack: &NetworkStack) -> ThisRun<'_> {
        let newest = Some(NewestLink { ifindex: 9, inode: 90 });
        ThisRun {
            stack,
            mono_ms: 1_000_000,
            newest: newest.filter(|_| *stack == here()),
            listed_ms: None,
            last_seen: 5000,
        }
    }

    fn from_record(uncertain: bool) -> Resume {
        Resume::From(StartPoint {
            counters: Counters([100; COUNTERS]),
            mono_ms: 400_000,
            quality: SampleQuality::Gap,
            uncertain,
        })
    }

    fn since_boot(same_machine: bool) -> Resume {
        Resume::SinceBoot(BootCheck { last_seen: 5000, same_machine })
    }

    /// The expected `Resume`. `FreshStart` holds a part of the reason.
    #[derive(Debug)]
    enum Expect {
        Is(Resume),
        FreshStart(&'static str),
    }

    fn check(record: &Record, link: &LinkIdentity, here: &NetworkStack, expect: Expect) {
        let found = assign_histories(&[*link], &[record], &this_run(here));
        let Some(Continuation { resume, .. }) = &found[0] else { panic!("no history for {link:?}: {record:?}") };
        match (&expect, resume) {
            (Expect::Is(expect), resume) if expect == resume => {}
            (Expect::FreshStart(words), Resume::FreshStart(why)) if why.contains(words) => {}
            _ => panic!("{resume:?} and not {expect:?} for {link:?}: {record:?}"),
        }
    }

    #[test]
    fn within_one_network_stack_the_ifindex_identifies_the_link() {
        let [mac, other] = RANDOM;
        let known = record(1, "eth0", 3, mac, here());
        check(&known, &link(3, "eth0", mac), &here(), Expect::Is(from_record(false)));
        check(&known, &link(3, "wan", mac), &here(), Expect::Is(from_record(false)));
        // The address is new, or unknown.
        check(&known, &link(3, "eth0", other), &here(), Expect::Is(from_record(false)));
        check(&known, &link(3, "wan", ""), &here(), Expect::Is(from_record(false)));
        // Created after the latest listing: its number is higher.
        check(&known, &link(10, "eth0", other), &here(), Expect::Is(Resume::From(StartPoint::zero(400_000))));
        // Created later as well, or it was in another namespace and has returned with a new number.
        check(&known, &link(10, "eth0", mac), &here(), Expect::Is(from_record(true)));
        check(&known, &link(4, "eth0", mac), &here(), Expect::FreshStart("another link"));
        // Neither the name nor the address agrees: a link that was moved here and has the number by chance.
        assert!(assign_histories(&[link(3, "wan", other)], &[&known], &this_run(&here()))[0].is_none());
    }

    #[test]
    fn within_one_boot_the_device_identifies_the_link() {
        let known = Record { inode: 50, ..record(1, "eth0", 3, RANDOM[0], here()) };
        let device = |inode, ifindex| LinkIdentity { inode, ..link(ifindex, "eth0", RANDOM[0]) };
        check(&known, &device(50, 4), &here(), Expect::Is(from_record(false)));
        check(&known, &device(50, 4), &stack("m", "b", 8), Expect::Is(from_record(false)));
        // The same number, name and address, but another device.
        check(&known, &device(60, 3), &here(), Expect::FreshStart("another link"));
        check(&known, &device(91, 10), &here(), Expect::Is(Resume::From(StartPoint::zero(400_000))));
        // It has a high number because it comes from another namespace.
        check(&known, &device(89, 10), &here(), Expect::FreshStart("another link"));
    }

    #[test]
    fn another_namespace_of_the_same_boot_makes_a_fresh_start() {
        let known = record(1, "eth0", 3, RANDOM[0], here());
        let there = stack("m", "b", 8);
        check(&known, &link(3, "eth0", RANDOM[1]), &there, Expect::FreshStart("another network namespace"));
        check(&known, &link(3, "eth0", RANDOM[0]), &there, Expect::FreshStart("another network namespace"));
        check(&known, &link(99, "eth0", RANDOM[0]), &there, Expect::FreshStart("another network namespace"));
        assert!(
            assign_histories(&[link(3, "eno1", RANDOM[1])], &[&known], &this_run(&there))[0].is_none(),
            "the number alone is no evidence"
        );
        // A record of version 0.1, or of a kernel without namespaces: the name must agree.
        let unknown = record(1, "eth0", 3, "", stack("", "b", 0));
        check(&unknown, &link(3, "eth0", RANDOM[1]), &there, Expect::Is(from_record(false)));
        assert!(assign_histories(&[link(3, "eno1", RANDOM[1])], &[&unknown], &this_run(&there))[0].is_none());
        // The same namespace number on another boot is another namespace.
        check(&known, &link(3, "eth0", RANDOM[0]), &stack("m", "c", 7), Expect::Is(since_boot(true)));
    }

    #[test]
    fn another_machine_or_other_hardware_makes_a_fresh_start() {
        let there = stack("n", "c", 7);
        let known = |mac| record(1, "eth0", 3, mac, here());
        check(&known(VENDOR[0]), &link(3, "eth0", VENDOR[0]), &there, Expect::FreshStart("another machine"));
        let (later, unknown) = (stack("m", "c", 7), stack("", "c", 7));
        check(&known(VENDOR[0]), &link(3, "eth0", VENDOR[0]), &later, Expect::Is(since_boot(true)));
        check(&known(VENDOR[0]), &link(3, "eth0", VENDOR[1]), &later, Expect::FreshStart("another hardware address"));
        check(&known(RANDOM[1]), &link(3, "eth0", VENDOR[0]), &later, Expect::FreshStart("another hardware address"));
        check(&known(VENDOR[0]), &link(3, "eth0", RANDOM[1]), &unknown, Expect::FreshStart("another hardware address"));
        check(&known(VENDOR[0]), &link(3, "eth0", RANDOM[1]), &later, Expect::Is(since_boot(true)));
        // Random addresses are no evidence, and neither is a missing one.
        check(&known(RANDOM[0]), &link(3, "eth0", RANDOM[1]), &later, Expect::Is(since_boot(true)));
        check(&known(VENDOR[0]), &link(3, "eth0", ""), &later, Expect::Is(since_boot(true)));
        check(&known(RANDOM[0]), &link(3, "eth0", RANDOM[0]), &unknown, Expect::Is(since_boot(false)));
        check(&known(""), &link(3, "eth0", ""), &unknown, Expect::Is(since_boot(false)));
        check(&known(VENDOR[0]), &link(3, "eth0", VENDOR[0]), &unknown, Expect::Is(since_boot(true)));
        // A virtual machine that was restored from a snapshot has the same boot and an earlier time.
        let ahead = Record { mono_ms: 2_000_000, ..known(VENDOR[0]) };
        check(&ahead, &link(3, "eth0", VENDOR[0]), &here(), Expect::FreshStart("was restored"));
    }

    #[test]
    fn e13_start_and_present_time_decide_whether_a_boot_is_counted() {
        let check = |last_seen, same_machine, boot_unix, now_unix, expect: Option<&str>| {
            let fresh_start_reason = BootCheck { last_seen, same_machine }.fresh_start_reason(boot_unix, now_unix);
            match (fresh_start_reason, expect) {
                (None, None) => {}
                (Some(why), Some(words)) if why.contains(words) => {}
                _ => panic!("{fresh_start_reason:?} and not {expect:?}: {last_seen} {boot_unix} {now_unix}"),
            }
        };
        check(5000, false, 5000, 5100, None);
        check(5000, false, 9000, 9100, None);
        let [same, other] = BOOT_SLACK_S;
        check(5000, false, 5000 - other, 5100, None);
        check(5000, false, 5000 - other - 1, 5100, Some("began before"));
        check(5000, true, 5000 - same, 5100, None);
        check(5000, true, 5000 - same - 1, 5100, Some("began before"));
        check(5000, false, 1000, 5100, Some("began before"));
        // The present time is before the latest sample: the clock is wrong.
        check(5000, true, 20, 4000, None);
        check(5000, false, 20, 4000, Some("a time before the latest"));
        check(i64::MAX, false, i64::MIN, 0, Some("a time before the latest"));
    }

    #[test]
    fn an_unknown_boot_never_counts_as_the_same_boot() {
        let no_boot_id = stack("m", "", 7);
        let known = record(1, "eth0", 3, RANDOM[0], no_boot_id.clone());
        for (record, here) in
            [(&known, &no_boot_id), (&known, &here()), (&record(1, "eth0", 3, RANDOM[0], here()), &no_boot_id)]
        {
            // Only a difference that certainly passed since, on the same boot or another.
            check(record, &link(3, "eth0", RANDOM[0]), here, Expect::Is(from_record(true)));
            check(record, &link(3, "eth0", RANDOM[1]), here, Expect::FreshStart("without its boot id"));
            check(record, &link(3, "eth0", ""), here, Expect::FreshStart("without its boot id"));
            check(record, &link(4, "eth0", RANDOM[0]), here, Expect::FreshStart("without its boot id"));
            assert!(
                assign_histories(&[link(3, "wan", RANDOM[1])], &[record], &this_run(here))[0].is_none(),
                "{record:?}"
            );
        }
        // A smaller monotonic clock proves a reboot.
        let ahead = Record { mono_ms: 2_000_000, ..known };
        check(&ahead, &link(3, "eth0", RANDOM[0]), &no_boot_id, Expect::Is(since_boot(true)));
    }

    /// Ids of the records that the links continue: counters and history.
    fn assigned(links: &[LinkIdentity], records: &[Record], here: &NetworkStack) -> Vec<Option<(u32, u32)>> {
        let records: Vec<&Record> = records.iter().collect();
        let continuations = assign_histories(links, &records, &this_run(here));
        continuations
            .iter()
            .map(|found| found.as_ref().map(|found| (found.counters_from.id, found.record.id)))
            .collect()
    }

    #[test]
    fn links_that_swapped_names_keep_their_histories() {
        let [a, b] = RANDOM;
        let two = [record(1, "eth0", 3, a, here()), record(2, "eth1", 4, b, here())];
        let links = [link(3, "eth1", a), link(4, "eth0", b)];
        assert_eq!(assigned(&links, &two, &here()), [Some((1, 1)), Some((2, 2))]);
        let three = [("a", 3), ("b", 4), ("c", 5)];
        let records: Vec<Record> =
            (1..).zip(three).map(|(id, (name, ifindex))| record(id, name, ifindex, "", here())).collect();
        let circle = [link(3, "b", ""), link(4, "c", ""), link(5, "a", "")];
        assert_eq!(assigned(&circle, &records, &here()), [Some((1, 1)), Some((2, 2)), Some((3, 3))]);
        // A link has the name of a gone one. A new link with its old name continues the record that became free.
        let records = [record(1, "eth0", 2, "", here()), record(2, "eth1", 3, b, here())];
        let links = [link(3, "eth0", b), link(10, "eth1", "")];
        assert_eq!(assigned(&links, &records, &here()), [Some((2, 1)), Some((2, 2))]);
        // A link was renamed to a name that has its own history and that no other link has.
        let records = [record(1, "eth1", 3, a, here()), record(2, "wwan0", 9, "", stack("m", "older", 1))];
        assert_eq!(assigned(&[link(3, "wwan0", a)], &records, &here()), [Some((1, 2))]);
    }

    #[test]
    fn on_another_boot_the_manufacturers_address_outranks_the_name() {
        let later = stack("m", "c", 1);
        let [a, b] = VENDOR;
        let records = [record(1, "eth0", 3, a, here()), record(2, "eth1", 4, b, here())];
        let exchanged = [link(2, "eth1", a), link(3, "eth0", b)];
        assert_eq!(assigned(&exchanged, &records, &later), [Some((1, 1)), Some((2, 2))]);
        // Ports of a switch share one address, and random addresses are no evidence: the names decide.
        for mac in [a, RANDOM[0]] {
            let records = [record(1, "lan1", 3, mac, here()), record(2, "lan2", 4, mac, here())];
            let links = [link(2, "lan2", mac), link(3, "lan1", mac)];
            assert_eq!(assigned(&links, &records, &later), [Some((2, 2)), Some((1, 1))]);
        }
        let records = [record(1, "eth0", 3, RANDOM[0], here())];
        assert_eq!(assigned(&[link(2, "eth1", RANDOM[0])], &records, &later), [None]);
    }

    #[test]
    fn traffic_that_another_history_may_contain_is_not_counted_twice() {
        let no_boot_id = stack("m", "", 7);
        // The link was eth1 earlier on this boot, when the boot id could be read; eth0 is an older history.
        let records = [
            record(1, "eth1", 3, RANDOM[0], here()),
            Record { mono_ms: 2_000_000, ..record(2, "eth0", 4, RANDOM[1], stack("m", "older", 7)) },
        ];
        let records: Vec<&Record> = records.iter().collect();
        let found = assign_histories(&[link(3, "eth0", "")], &records, &this_run(&no_boot_id));
        let Some(Continuation { resume: Resume::FreshStart(why), .. }) = &found[0] else { panic!("{found:?}") };
        assert!(why.contains("another history"), "{why}");
    }

    #[test]
    fn the_saved_newest_link_is_valid_in_its_namespace_only() {
        let newest = NewestLink { ifindex: 12, inode: u64::MAX };
        let text = newest.to_text(&here());
        assert_eq!(NewestLink::from_text(&text, &here()), Some(newest));
        for stack in [stack("m", "b", 8), stack("m", "c", 7), stack("m", "", 7), stack("m", "b", 0)] {
            assert_eq!(NewestLink::from_text(&text, &stack), None, "{stack:?}");
            assert_eq!(NewestLink::from_text(&newest.to_text(&stack), &here()), None, "{stack:?}");
        }
        for text in ["", "b", "b:7:12", "b:7:x:5", "::12:5"] {
            assert_eq!(NewestLink::from_text(text, &here()), None, "{text}");
        }
    }
}
