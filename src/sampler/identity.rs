//! Decides which stored history each link continues, and from which counters. Pure.
//!
//! The identity of a link is its network stack (one network namespace of one boot of one machine) with its `ifindex`
//! there, or its device within one boot, where that is known. Its hardware address and its name are further evidence.
//! All links are assigned together, the surest matches first, so that two links that swapped their names do not get the
//! same history. An unknown boot never counts as the same boot. Of the counters of a kernel, only traffic that can have
//! passed after the latest sample is counted.

use crate::model::{Counters, InterfaceKind, Link, Mark, NetworkStack, Record};

/// Tolerance for the start of a boot: clocks are corrected while a machine starts, and a battery clock has whole
/// seconds. A boot that seems to have begun up to this much before the latest sample may have begun after it. First
/// value: on the same machine for certain; second: otherwise.
const BOOT_SLACK_S: [i64; 2] = [120, 5];

/// A link without a history in this run.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// `None` if a notification announced the link: then it is none of the links that an earlier run saw.
    pub ifindex: Option<u32>,
    pub node: u64,
    pub name: &'a str,
    pub mac: &'a str,
}

impl<'a> Candidate<'a> {
    pub fn of(link: &'a Link, came: bool) -> Candidate<'a> {
        Candidate { ifindex: (!came).then_some(link.ifindex), node: link.inode, name: &link.name, mac: &link.mac }
    }
}

/// The stored history that a link continues.
#[derive(Clone, Debug)]
pub struct Continuation {
    /// The record whose raw counters the link continues. It differs from `record` if the link was renamed to a name
    /// that has its own history.
    pub counters_from: Record,
    pub record: Record,
    pub resume: Resume,
}

impl Continuation {
    /// Event detail for a new hardware address, which alone is no reason to make a fresh start.
    pub fn address_change(&self, mac: &str) -> Option<String> {
        let before = &self.counters_from.mac;
        differ(before, mac).then(|| format!("the hardware address is now {mac} and was {before}; counting continues"))
    }
}

/// Returns the history of each link; `None` if it has none.
pub fn assign_histories(links: &[Candidate], records: &[&Record], this_run: &ThisRun) -> Vec<Option<Continuation>> {
    // "others" is the history of many gone links; no link continues it.
    let records: Vec<&Record> = records.iter().filter(|record| record.kind != InterfaceKind::Others).copied().collect();
    let records = &records[..];
    // With samples of this boot in the database, for certain or perhaps, this boot began before the latest sample,
    // whatever the clock says.
    let of_this_boot = |record: &&Record| agree(&record.stack.boot, &this_run.stack.boot);
    let latest = records.iter().max_by_key(|record| record.last_seen);
    // The latest sample may have been taken in another stack, long after the links of this namespace were listed.
    let sampled_here = latest.is_some_and(|latest| latest.stack == *this_run.stack);
    let newest = this_run.newest.filter(|_| this_run.listed_ms.is_some() || sampled_here);
    let this_run = &ThisRun { newest, ..*this_run };
    let may_be_of_this_boot = |record: &&Record| {
        let unknown = record.stack.boot.is_empty() || this_run.stack.boot.is_empty();
        unknown && record.mono_ms <= this_run.mono_ms
    };
    let counted = records.iter().any(of_this_boot) || latest.is_some_and(may_be_of_this_boot);
    let continuation = |(assigned, link): (Option<AssignedRecords>, &Candidate)| {
        let AssignedRecords { counters, history } = assigned?;
        let mut resume = resume(records[counters], link, this_run);
        let other =
            |record: &&Record| record.id != records[counters].id && may_have_counters_of(record, link, this_run.stack);
        let uncertain =
            !this_run.is_link(records[counters], link) || this_run.relation(records[counters]) == Relation::Unknown;
        let outdated = latest.is_some_and(|latest| latest.last_seen > records[counters].last_seen);
        let from_unknown = matches!(resume, Resume::From(StartPoint { uncertain: true, .. }));
        if (uncertain && records.iter().any(other)) || (from_unknown && outdated) {
            // That record may already include this link's traffic.
            resume = Resume::FreshStart("another history may already contain its traffic");
        } else if matches!(resume, Resume::SinceBoot(_)) && counted {
            resume = Resume::FreshStart("this boot may have been counted before, without this interface");
        }
        Some(Continuation { counters_from: records[counters].clone(), record: records[history].clone(), resume })
    };
    assign(links, records, this_run).into_iter().zip(links).map(continuation).collect()
}

/// Indexes into the list of records: whose counters the link continues, and whose history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AssignedRecords {
    counters: usize,
    /// Another record than `counters` if the link was renamed to a name that has its own history.
    history: usize,
}

/// The highest numbers among the links of a namespace at one listing. The kernel gives each new link higher ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewestLink {
    pub ifindex: u32,
    pub node: u64,
}

impl NewestLink {
    pub fn max(self, link: &Link) -> NewestLink {
        NewestLink { ifindex: self.ifindex.max(link.ifindex), node: self.node.max(link.inode) }
    }

    /// Both numbers must be higher, where both are known: a link that was moved here from another namespace has counted
    /// before and keeps its numbers.
    fn is_before(&self, link: &Candidate) -> bool {
        link.ifindex.is_some_and(|ifindex| ifindex > self.ifindex)
            && (link.node == 0 || self.node == 0 || link.node > self.node)
    }

    /// As the value of the setting `newest_link`: the stack in which the numbers are valid comes first.
    pub fn to_text(self, stack: &NetworkStack) -> String {
        format!("{}:{}:{}:{}", stack.boot, stack.namespace, self.ifindex, self.node)
    }

    /// `None` if the numbers are, or may be, of another network stack.
    pub fn from_text(text: &str, stack: &NetworkStack) -> Option<NewestLink> {
        let mut parts = text.split(':');
        let same_boot = agree(parts.next()?, &stack.boot);
        let same_namespace = stack.namespace != 0 && parts.next()?.parse() == Ok(stack.namespace);
        let newest = NewestLink { ifindex: parts.next()?.parse().ok()?, node: parts.next()?.parse().ok()? };
        (same_boot && same_namespace).then_some(newest)
    }
}

/// What the stored records are compared with.
#[derive(Clone, Copy, Debug)]
pub struct ThisRun<'a> {
    pub stack: &'a NetworkStack,
    pub mono_ms: u64,
    pub newest: Option<NewestLink>,
    /// Monotonic time of the listing that `newest` is from, if this run made it; `None` if it was at the latest stored
    /// sample.
    pub listed_ms: Option<u64>,
    /// UTC seconds of the sample that was stored last, which need not have the greatest time.
    pub last_seen: i64,
}

/// Relation of a record's network stack to the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    /// The same boot; the namespace is unknown, because the kernel has none or version 0.1 wrote the record.
    SameBoot,
    OtherNamespace,
    /// The same boot, but earlier than the latest sample: a virtual machine was restored from a snapshot.
    Earlier,
    OtherBoot,
    OtherMachine,
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
            // A link that moves between namespaces can get a number that was used before. If neither the name nor the
            // address agrees, it is another link.
            Relation::Same => record.name == link.name || !differ(&record.mac, link.mac),
            Relation::SameBoot => record.name == link.name || agree(&record.mac, link.mac),
            Relation::Unknown => {
                let (one, other) = (record.stack.namespace, self.stack.namespace);
                let twin = (one != 0 && other != 0 && one != other)
                    || (record.node != 0 && link.node != 0 && record.node != link.node);
                record.name == link.name && agree(&record.mac, link.mac) && !twin
            }
            _ => false,
        }
    }
}

/// Whether the record may have the counters of this link. If so, no other record may continue them as well.
pub fn may_have_counters_of(record: &Record, link: &Candidate, stack: &NetworkStack) -> bool {
    if record.ifindex == 0 || differ(&record.stack.boot, &stack.boot) {
        return false;
    }
    match record.node != 0 && link.node != 0 {
        true => record.node == link.node,
        false => {
            // A link that is moved to another namespace keeps its number if that is free there.
            let [one, other] = [record.stack.namespace, stack.namespace];
            let reachable = one == other || one == 0 || other == 0 || agree(&record.mac, link.mac);
            link.ifindex == Some(record.ifindex) && reachable
        }
    }
}

fn agree(one: &str, other: &str) -> bool {
    !one.is_empty() && one == other
}

fn differ(one: &str, other: &str) -> bool {
    !one.is_empty() && !other.is_empty() && one != other
}

/// The address is set by software, often at random, and not by the manufacturer: the locally administered bit (bit 1 of
/// the first byte) is set.
fn is_locally_administered(mac: &str) -> bool {
    mac.get(..2).and_then(|first| u8::from_str_radix(first, 16).ok()).is_some_and(|first| first & 2 != 0)
}

/// Whether a link continues a record.
type Rule<'a> = &'a dyn Fn(&Record, &Candidate) -> bool;

/// Assigns records to links. No record is assigned twice.
fn assign(links: &[Candidate], records: &[&Record], this_run: &ThisRun) -> Vec<Option<AssignedRecords>> {
    let is_unique = |mac: &str| {
        !mac.is_empty()
            && !is_locally_administered(mac)
            && links.iter().filter(|link| link.mac == mac).count() == 1
            && records.iter().filter(|record| record.mac == mac).count() == 1
    };
    let same_name = |record: &Record, link: &Candidate| record.name == link.name;
    // The surest rule first.
    let rules: [Rule; 5] = [
        &|record, link| this_run.is_link(record, link) && same_name(record, link),
        &|record, link| this_run.is_link(record, link),
        &|record, link| same_name(record, link) && agree(&record.mac, link.mac),
        // Only if the address is unique: the ports of a switch may share one, and a bridge has that of a port.
        &|record, link| record.mac == link.mac && is_unique(link.mac),
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
    let history = |own: usize, link: &Candidate| {
        let of_new_name = |found: &usize| !counters.contains(&Some(*found)) && same_name(records[*found], link);
        let renamed = !same_name(records[own], link);
        (0..records.len()).find(|found| renamed && of_new_name(found)).unwrap_or(own)
    };
    let assigned = |(counters, link): (&Option<usize>, &Candidate)| {
        counters.map(|counters| AssignedRecords { counters, history: history(counters, link) })
    };
    let mut all: Vec<Option<AssignedRecords>> = counters.iter().zip(links).map(assigned).collect();
    // If a link moved to the history of its new name, its own record is free for a link that has its old name now.
    for (at, link) in links.iter().enumerate() {
        if all[at].is_none() {
            let taken = |found: usize| all.iter().flatten().any(|assigned| assigned.history == found);
            let left = (0..records.len()).find(|found| same_name(records[*found], link) && !taken(*found));
            all[at] = left.map(|found| AssignedRecords { counters: found, history: found });
        }
    }
    all
}

/// Counters and time from which a link continues: what it counted beyond them passed since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartPoint {
    pub counters: Counters,
    pub mono_ms: u64,
    /// Mark of the sample for the difference.
    pub mark: Mark,
    /// The machine may have been rebooted since. Then the difference counts only if no counter has fallen.
    pub uncertain: bool,
}

impl StartPoint {
    /// For a link that was created after this time, or that counted from zero since the boot.
    pub fn zero(mono_ms: u64) -> StartPoint {
        StartPoint { counters: Counters::ZERO, mono_ms, mark: Mark::Reset, uncertain: false }
    }
}

/// How a link continues a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    From(StartPoint),
    /// From zero if this boot began after the latest sample. Otherwise the traffic of this boot may already be in other
    /// histories.
    SinceBoot(Boot),
    /// The first reading only sets the baseline. The text says why earlier traffic is not counted.
    FreshStart(&'static str),
}

fn resume(record: &Record, link: &Candidate, this_run: &ThisRun) -> Resume {
    let relation = this_run.relation(record);
    if this_run.is_link(record, link) {
        let (counters, mono_ms, uncertain) = (record.raw, record.mono_ms, relation == Relation::Unknown);
        return Resume::From(StartPoint { counters, mono_ms, mark: Mark::Gap, uncertain });
    }
    if this_run.newest.is_some_and(|newest| newest.is_before(link)) {
        if (record.node == 0 || link.node == 0) && relation == Relation::Same && agree(&record.mac, link.mac) {
            // It may have been away and have returned with a new number.
            return Resume::From(StartPoint {
                counters: record.raw,
                mono_ms: record.mono_ms,
                mark: Mark::Gap,
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
        Relation::Earlier => Resume::FreshStart("this machine was set back to a time before the latest sample"),
        Relation::OtherMachine => Resume::FreshStart("its counters belong to another machine"),
        Relation::OtherBoot if differ(&record.mac, link.mac) && !(is_locally_administered(link.mac) && may_differ) => {
            Resume::FreshStart("it has another hardware address: its counters belong to other hardware")
        }
        Relation::OtherBoot => Resume::SinceBoot(Boot {
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

/// A boot other than that of the latest sample. Its counters at the first reading are counted from zero if it began
/// after that sample; that is decided once the wall clock is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    pub last_seen: i64,
    /// The machine id is known and the same, or the hardware address of the manufacturer is.
    pub same_machine: bool,
}

impl Boot {
    /// Returns why the counters of this boot are not counted; `None` if they are.
    pub fn fresh_start_reason(&self, boot_unix: i64, now_unix: i64) -> Option<&'static str> {
        let [same, other] = BOOT_SLACK_S;
        if boot_unix.saturating_add(if self.same_machine { same } else { other }) >= self.last_seen {
            return None;
        }
        // If it is earlier now than at the latest sample, one of the clocks is wrong, and neither tells when the boot
        // began. Boots of one machine follow each other.
        match (now_unix < self.last_seen, self.same_machine) {
            (true, true) => None,
            (true, false) => Some("by the clock, the latest sample lies in the future, and the machine has no id"),
            (false, _) => Some("this boot began before the latest sample"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::COUNTERS;

    const MAKER: [&str; 2] = ["00:16:3e:00:00:01", "00:16:3e:00:00:02"];
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

    fn link<'a>(ifindex: u32, name: &'a str, mac: &'a str) -> Candidate<'a> {
        Candidate { ifindex: Some(ifindex), node: 0, name, mac }
    }

    fn this_run(stack: &NetworkStack) -> ThisRun<'_> {
        let newest = Some(NewestLink { ifindex: 9, node: 90 });
        ThisRun {
            stack,
            mono_ms: 1_000_000,
            newest: newest.filter(|_| *stack == here()),
            listed_ms: None,
            last_seen: 5000,
        }
    }

    fn from_record(uncertain: bool) -> Resume {
        Resume::From(StartPoint { counters: Counters([100; COUNTERS]), mono_ms: 400_000, mark: Mark::Gap, uncertain })
    }

    fn since_boot(same_machine: bool) -> Resume {
        Resume::SinceBoot(Boot { last_seen: 5000, same_machine })
    }

    /// The expected start. `FreshStart` holds a part of the reason.
    #[derive(Debug)]
    enum Expect {
        Is(Resume),
        FreshStart(&'static str),
    }

    fn check(record: &Record, link: &Candidate, here: &NetworkStack, expect: Expect) {
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
        // Created since: the kernel gives rising numbers.
        check(&known, &link(10, "eth0", other), &here(), Expect::Is(Resume::From(StartPoint::zero(400_000))));
        // Or it was away and has returned with a new number.
        check(&known, &link(10, "eth0", mac), &here(), Expect::Is(from_record(true)));
        check(&known, &link(4, "eth0", mac), &here(), Expect::FreshStart("another link"));
        // Neither the name nor the address agrees: a link that was moved here and has the number by chance.
        assert!(assign_histories(&[link(3, "wan", other)], &[&known], &this_run(&here()))[0].is_none());
    }

    #[test]
    fn within_one_boot_the_device_identifies_the_link() {
        let known = Record { node: 50, ..record(1, "eth0", 3, RANDOM[0], here()) };
        let device = |node, ifindex| Candidate { node, ..link(ifindex, "eth0", RANDOM[0]) };
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
            "by its number"
        );
        // A record of version 0.1, or of a kernel without namespaces: the name has to agree.
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
        check(&known(MAKER[0]), &link(3, "eth0", MAKER[0]), &there, Expect::FreshStart("another machine"));
        let (later, unknown) = (stack("m", "c", 7), stack("", "c", 7));
        check(&known(MAKER[0]), &link(3, "eth0", MAKER[0]), &later, Expect::Is(since_boot(true)));
        check(&known(MAKER[0]), &link(3, "eth0", MAKER[1]), &later, Expect::FreshStart("another hardware address"));
        check(&known(RANDOM[1]), &link(3, "eth0", MAKER[0]), &later, Expect::FreshStart("another hardware address"));
        check(&known(MAKER[0]), &link(3, "eth0", RANDOM[1]), &unknown, Expect::FreshStart("another hardware address"));
        check(&known(MAKER[0]), &link(3, "eth0", RANDOM[1]), &later, Expect::Is(since_boot(true)));
        // Random addresses are no evidence, and neither is a missing one.
        check(&known(RANDOM[0]), &link(3, "eth0", RANDOM[1]), &later, Expect::Is(since_boot(true)));
        check(&known(MAKER[0]), &link(3, "eth0", ""), &later, Expect::Is(since_boot(true)));
        check(&known(RANDOM[0]), &link(3, "eth0", RANDOM[0]), &unknown, Expect::Is(since_boot(false)));
        check(&known(""), &link(3, "eth0", ""), &unknown, Expect::Is(since_boot(false)));
        check(&known(MAKER[0]), &link(3, "eth0", MAKER[0]), &unknown, Expect::Is(since_boot(true)));
        // A virtual machine that was restored from a snapshot has the same boot and an earlier time.
        let ahead = Record { mono_ms: 2_000_000, ..known(MAKER[0]) };
        check(&ahead, &link(3, "eth0", MAKER[0]), &here(), Expect::FreshStart("set back"));
    }

    #[test]
    fn e13_the_start_of_a_boot_is_judged_by_both_times() {
        let check = |last_seen, same_machine, boot_unix, now_unix, expect: Option<&str>| {
            let fresh_start_reason = Boot { last_seen, same_machine }.fresh_start_reason(boot_unix, now_unix);
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
        // It cannot be earlier now than at the latest sample.
        check(5000, true, 20, 4000, None);
        check(5000, false, 20, 4000, Some("in the future"));
        check(i64::MAX, false, i64::MIN, 0, Some("in the future"));
    }

    #[test]
    fn an_unknown_boot_never_counts_as_the_same_boot() {
        let nameless = stack("m", "", 7);
        let known = record(1, "eth0", 3, RANDOM[0], nameless.clone());
        for (record, here) in
            [(&known, &nameless), (&known, &here()), (&record(1, "eth0", 3, RANDOM[0], here()), &nameless)]
        {
            // Only a difference that passed for certain, whichever boot it is.
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
        check(&ahead, &link(3, "eth0", RANDOM[0]), &nameless, Expect::Is(since_boot(true)));
    }

    /// Ids of the records that the links continue: counters and history.
    fn assigned(links: &[Candidate], records: &[Record], here: &NetworkStack) -> Vec<Option<(u32, u32)>> {
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
        // A link has the name of a gone one, and a new link with its old name continues the record that became free.
        let records = [record(1, "eth0", 2, "", here()), record(2, "eth1", 3, b, here())];
        let links = [link(3, "eth0", b), link(10, "eth1", "")];
        assert_eq!(assigned(&links, &records, &here()), [Some((2, 1)), Some((2, 2))]);
        // A link has a name that has its own history and that no other link has.
        let records = [record(1, "eth1", 3, a, here()), record(2, "wwan0", 9, "", stack("m", "older", 1))];
        assert_eq!(assigned(&[link(3, "wwan0", a)], &records, &here()), [Some((1, 2))]);
    }

    #[test]
    fn on_another_boot_the_manufacturers_address_outranks_the_name() {
        let later = stack("m", "c", 1);
        let [a, b] = MAKER;
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
    fn traffic_that_another_history_may_have_is_not_counted_twice() {
        let nameless = stack("m", "", 7);
        // The link was eth1 earlier on this boot, when the boot id could be read; eth0 is an older history.
        let records = [
            record(1, "eth1", 3, RANDOM[0], here()),
            Record { mono_ms: 2_000_000, ..record(2, "eth0", 4, RANDOM[1], stack("m", "older", 7)) },
        ];
        let records: Vec<&Record> = records.iter().collect();
        let found = assign_histories(&[link(3, "eth0", "")], &records, &this_run(&nameless));
        let Some(Continuation { resume: Resume::FreshStart(why), .. }) = &found[0] else { panic!("{found:?}") };
        assert!(why.contains("another history"), "{why}");
    }

    #[test]
    fn the_saved_newest_link_is_valid_in_its_namespace_only() {
        let newest = NewestLink { ifindex: 12, node: u64::MAX };
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
