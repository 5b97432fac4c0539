//! Whose history a link goes on with, and from which counters. Pure.
//!
//! A link's identity is its network stack (a namespace of a boot of a machine) and its `ifindex` there, or within one boot
//! its device, where that is known; its hardware address and its name are witnesses. All links are assigned at once, the
//! surest first: two that have exchanged their names must not both come to the same history. A boot that is unknown never
//! counts as the same, and what a kernel has counted is booked only as far as it can have passed since the latest sample.

use crate::model::{Counters, Kind, Link, Mark, Record, Stack};

/// Clocks are put right while a machine starts, and a battery clock has whole seconds: a boot that seems to have begun so
/// much before the latest sample may have begun after it, on a machine that is known to be the same and on others.
const BOOT_SLACK_S: [i64; 2] = [120, 5];

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
    // The history of many that are gone is no link's.
    let records: Vec<&Record> = records.iter().filter(|record| record.kind != Kind::Others).copied().collect();
    let records = &records[..];
    // Samples of this boot are in the database, or may be: then it began before the latest one, whatever the clock says.
    let here = |record: &&Record| agree(&record.stack.boot, &present.stack.boot);
    let latest = records.iter().max_by_key(|record| record.last_seen);
    // The latest sample may have been taken elsewhere, long after this namespace was looked at.
    let sampled_here = latest.is_some_and(|latest| latest.stack == *present.stack);
    let newest = present.newest.filter(|_| present.looked_ms.is_some() || sampled_here);
    let present = &Present { newest, ..*present };
    let may_be_here = |record: &&Record| {
        let unknown = record.stack.boot.is_empty() || present.stack.boot.is_empty();
        unknown && record.mono_ms <= present.mono_ms
    };
    let counted = records.iter().any(here) || latest.is_some_and(may_be_here);
    let past = |(assigned, link): (Option<Assigned>, &Candidate)| {
        let Assigned { end, past } = assigned?;
        let mut resume = resume(records[end], link, present);
        let other = |record: &&Record| record.id != records[end].id && may_be(record, link, present.stack);
        let unsure = !present.is_link(records[end], link) || present.relation(records[end]) == Relation::Unknown;
        let outdated = latest.is_some_and(|latest| latest.last_seen > records[end].last_seen);
        let from_unknown = matches!(resume, Resume::From(End { unsure: true, .. }));
        if (unsure && records.iter().any(other)) || (from_unknown && outdated) {
            // What it has counted may stand in that one already.
            resume = Resume::Anew("another history may have its counters");
        } else if matches!(resume, Resume::SinceBoot(_)) && counted {
            resume = Resume::Anew("this boot may have been counted before, and without it");
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

    /// As a setting, kept for the next start: the numbers behind what they hold in.
    pub fn to_text(self, stack: &Stack) -> String {
        format!("{}:{}:{}:{}", stack.boot, stack.namespace, self.ifindex, self.node)
    }

    /// `None` where they are of another network stack, or may be.
    pub fn of_text(text: &str, stack: &Stack) -> Option<Newest> {
        let mut parts = text.split(':');
        let same_boot = agree(parts.next()?, &stack.boot);
        let same_namespace = stack.namespace != 0 && parts.next()?.parse() == Ok(stack.namespace);
        let newest = Newest { ifindex: parts.next()?.parse().ok()?, node: parts.next()?.parse().ok()? };
        (same_boot && same_namespace).then_some(newest)
    }
}

/// What the present is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    pub stack: &'a Stack,
    pub mono_ms: u64,
    pub newest: Option<Newest>,
    /// When that look was, if it was this run's; else it was at the latest sample.
    pub looked_ms: Option<u64>,
    /// UTC seconds of the latest sample of all histories, which need not be the one with the greatest time.
    pub last_seen: i64,
}

/// How a record's network stack relates to the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    /// The same boot, and the namespace is not known: of a kernel that does not tell, or from version 0.1.
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

/// Whether a record may have the counters of this link: another one must not go on with them as well.
pub fn may_be(record: &Record, link: &Candidate, stack: &Stack) -> bool {
    if record.ifindex == 0 || differ(&record.stack.boot, &stack.boot) {
        return false;
    }
    match record.node != 0 && link.node != 0 {
        true => record.node == link.node,
        false => {
            // One that is moved to another namespace keeps its number where that is free there.
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

/// Set by software, mostly at random, and not by the maker of the hardware: the second bit of the first byte.
fn is_random(mac: &str) -> bool {
    mac.get(..2).and_then(|first| u8::from_str_radix(first, 16).ok()).is_some_and(|first| first & 2 != 0)
}

/// Whether a link goes on with a record.
type Rule<'a> = &'a dyn Fn(&Record, &Candidate) -> bool;

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
    let rules: [Rule; 5] = [
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
    let mut all: Vec<Option<Assigned>> = ends.iter().zip(links).map(assigned).collect();
    // A link that went to the history of its new name has left its own to one that bears its old name now.
    for (at, link) in links.iter().enumerate() {
        if all[at].is_none() {
            let taken = |found: usize| all.iter().flatten().any(|assigned| assigned.past == found);
            let left = (0..records.len()).find(|found| same_name(records[*found], link) && !taken(*found));
            all[at] = left.map(|found| Assigned { end: found, past: found });
        }
    }
    all
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
    /// From zero if the machine was started after the latest sample: what was counted before on this boot may stand in other
    /// histories.
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
    if present.newest.is_some_and(|newest| newest.is_before(link)) {
        if (record.node == 0 || link.node == 0) && relation == Relation::Same && agree(&record.mac, link.mac) {
            // It may have been away, and have come back under a new number.
            return Resume::From(End { counters: record.raw, mono_ms: record.mono_ms, mark: Mark::Gap, unsure: true });
        }
        let since = if relation == Relation::Same { record.mono_ms } else { 0 };
        return Resume::From(End::zero(present.looked_ms.unwrap_or(since)));
    }
    const ANOTHER: &str = "it is another link, which may have counted before";
    if present.looked_ms.is_some() {
        return Resume::Anew(ANOTHER);
    }
    if record.stack == Stack::default() && record.ifindex == 0 {
        return Resume::Anew("it was not counted before");
    }
    let same_id = agree(&record.stack.machine, &present.stack.machine);
    let like_before = is_random(&record.mac) || same_id;
    match relation {
        Relation::Same | Relation::SameBoot => Resume::Anew(ANOTHER),
        Relation::OtherNamespace => Resume::Anew("its counters are those of another network namespace"),
        Relation::Earlier => Resume::Anew("this machine was set back to a moment before the latest sample"),
        Relation::OtherMachine => Resume::Anew("its counters are those of another machine"),
        Relation::OtherBoot if differ(&record.mac, link.mac) && !(is_random(link.mac) && like_before) => {
            Resume::Anew("it has another hardware address: its counters are those of other hardware")
        }
        Relation::OtherBoot => Resume::SinceBoot(Boot {
            last_seen: present.last_seen,
            same_machine: same_id || (agree(&record.mac, link.mac) && !is_random(link.mac)),
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
    /// Its id is known and the same, or this very hardware.
    pub same_machine: bool,
}

impl Boot {
    /// Gives the reason where nothing can be booked.
    pub fn refusal(&self, boot_unix: i64, now_unix: i64) -> Option<&'static str> {
        let [same, other] = BOOT_SLACK_S;
        if boot_unix.saturating_add(if self.same_machine { same } else { other }) >= self.last_seen {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::COUNTERS;

    const MAKER: [&str; 2] = ["00:16:3e:00:00:01", "00:16:3e:00:00:02"];
    const RANDOM: [&str; 2] = ["02:16:3e:00:00:01", "02:16:3e:00:00:02"];

    fn stack(machine: &str, boot: &str, namespace: u64) -> Stack {
        Stack { machine: machine.to_string(), boot: boot.to_string(), namespace }
    }

    fn here() -> Stack {
        stack("m", "b", 7)
    }

    /// Last sampled ten minutes before the present, at second 5000.
    fn record(id: u32, name: &str, ifindex: u32, mac: &str, stack: Stack) -> Record {
        let raw = Counters([100; COUNTERS]);
        let (name, mac) = (name.to_string(), mac.to_string());
        Record { id, name, ifindex, mac, stack, raw, mono_ms: 400_000, last_seen: 5000, ..Record::default() }
    }

    fn link<'a>(ifindex: u32, name: &'a str, mac: &'a str) -> Candidate<'a> {
        Candidate { ifindex: Some(ifindex), node: 0, name, mac }
    }

    fn present(stack: &Stack) -> Present<'_> {
        let newest = Some(Newest { ifindex: 9, node: 90 });
        Present {
            stack,
            mono_ms: 1_000_000,
            newest: newest.filter(|_| *stack == here()),
            looked_ms: None,
            last_seen: 5000,
        }
    }

    fn end(unsure: bool) -> Resume {
        Resume::From(End { counters: Counters([100; COUNTERS]), mono_ms: 400_000, mark: Mark::Gap, unsure })
    }

    fn since_boot(same_machine: bool) -> Resume {
        Resume::SinceBoot(Boot { last_seen: 5000, same_machine })
    }

    /// What a link in the present goes on from; an empty text: not from anything.
    #[derive(Debug)]
    enum Expect {
        Is(Resume),
        Anew(&'static str),
    }

    fn check(record: &Record, link: &Candidate, here: &Stack, expect: Expect) {
        let found = find(&[*link], &[record], &present(here));
        let Some(Past { resume, .. }) = &found[0] else { panic!("no history for {link:?}: {record:?}") };
        match (&expect, resume) {
            (Expect::Is(expect), resume) if expect == resume => {}
            (Expect::Anew(words), Resume::Anew(why)) if why.contains(words) => {}
            _ => panic!("{resume:?} and not {expect:?} for {link:?}: {record:?}"),
        }
    }

    #[test]
    fn within_one_network_stack_the_number_is_the_link() {
        let [mac, other] = RANDOM;
        let known = record(1, "eth0", 3, mac, here());
        check(&known, &link(3, "eth0", mac), &here(), Expect::Is(end(false)));
        check(&known, &link(3, "wan", mac), &here(), Expect::Is(end(false)));
        // A new address alone, or none to compare with.
        check(&known, &link(3, "eth0", other), &here(), Expect::Is(end(false)));
        check(&known, &link(3, "wan", ""), &here(), Expect::Is(end(false)));
        // Made since: the kernel gives rising numbers.
        check(&known, &link(10, "eth0", other), &here(), Expect::Is(Resume::From(End::zero(400_000))));
        // Or it was away, and has come back under a new number.
        check(&known, &link(10, "eth0", mac), &here(), Expect::Is(end(true)));
        check(&known, &link(4, "eth0", mac), &here(), Expect::Anew("another link"));
        // Neither its name nor its address: a link that was moved here and has the number by chance.
        assert!(find(&[link(3, "wan", other)], &[&known], &present(&here()))[0].is_none());
    }

    #[test]
    fn within_one_boot_the_device_is_the_link() {
        let known = Record { node: 50, ..record(1, "eth0", 3, RANDOM[0], here()) };
        let device = |node, ifindex| Candidate { node, ..link(ifindex, "eth0", RANDOM[0]) };
        check(&known, &device(50, 4), &here(), Expect::Is(end(false)));
        check(&known, &device(50, 4), &stack("m", "b", 8), Expect::Is(end(false)));
        // The same number, name and address, and another device all the same.
        check(&known, &device(60, 3), &here(), Expect::Anew("another link"));
        check(&known, &device(91, 10), &here(), Expect::Is(Resume::From(End::zero(400_000))));
        // A high number that it has brought along from elsewhere.
        check(&known, &device(89, 10), &here(), Expect::Anew("another link"));
    }

    #[test]
    fn another_namespace_of_the_same_boot_begins_anew() {
        let known = record(1, "eth0", 3, RANDOM[0], here());
        let there = stack("m", "b", 8);
        check(&known, &link(3, "eth0", RANDOM[1]), &there, Expect::Anew("another network namespace"));
        check(&known, &link(3, "eth0", RANDOM[0]), &there, Expect::Anew("another network namespace"));
        check(&known, &link(99, "eth0", RANDOM[0]), &there, Expect::Anew("another network namespace"));
        assert!(find(&[link(3, "eno1", RANDOM[1])], &[&known], &present(&there))[0].is_none(), "by its number");
        // As version 0.1 has left it, or a kernel without namespaces: the name has to agree.
        let unknown = record(1, "eth0", 3, "", stack("", "b", 0));
        check(&unknown, &link(3, "eth0", RANDOM[1]), &there, Expect::Is(end(false)));
        assert!(find(&[link(3, "eno1", RANDOM[1])], &[&unknown], &present(&there))[0].is_none());
        // The same number of another boot is another namespace.
        check(&known, &link(3, "eth0", RANDOM[0]), &stack("m", "c", 7), Expect::Is(since_boot(true)));
    }

    #[test]
    fn another_machine_or_other_hardware_begins_anew() {
        let there = stack("n", "c", 7);
        let known = |mac| record(1, "eth0", 3, mac, here());
        check(&known(MAKER[0]), &link(3, "eth0", MAKER[0]), &there, Expect::Anew("another machine"));
        let (later, unknown) = (stack("m", "c", 7), stack("", "c", 7));
        check(&known(MAKER[0]), &link(3, "eth0", MAKER[0]), &later, Expect::Is(since_boot(true)));
        check(&known(MAKER[0]), &link(3, "eth0", MAKER[1]), &later, Expect::Anew("another hardware address"));
        check(&known(RANDOM[1]), &link(3, "eth0", MAKER[0]), &later, Expect::Anew("another hardware address"));
        check(&known(MAKER[0]), &link(3, "eth0", RANDOM[1]), &unknown, Expect::Anew("another hardware address"));
        check(&known(MAKER[0]), &link(3, "eth0", RANDOM[1]), &later, Expect::Is(since_boot(true)));
        // Random addresses tell nothing, and no address neither.
        check(&known(RANDOM[0]), &link(3, "eth0", RANDOM[1]), &later, Expect::Is(since_boot(true)));
        check(&known(MAKER[0]), &link(3, "eth0", ""), &later, Expect::Is(since_boot(true)));
        check(&known(RANDOM[0]), &link(3, "eth0", RANDOM[0]), &unknown, Expect::Is(since_boot(false)));
        check(&known(""), &link(3, "eth0", ""), &unknown, Expect::Is(since_boot(false)));
        check(&known(MAKER[0]), &link(3, "eth0", MAKER[0]), &unknown, Expect::Is(since_boot(true)));
        // A virtual machine that was set back has the same boot, and an earlier time.
        let ahead = Record { mono_ms: 2_000_000, ..known(MAKER[0]) };
        check(&ahead, &link(3, "eth0", MAKER[0]), &here(), Expect::Anew("set back"));
    }

    #[test]
    fn e13_when_a_boot_began_is_a_matter_of_both_times() {
        let check = |last_seen, same_machine, boot_unix, now_unix, expect: Option<&str>| {
            let refusal = Boot { last_seen, same_machine }.refusal(boot_unix, now_unix);
            match (refusal, expect) {
                (None, None) => {}
                (Some(why), Some(words)) if why.contains(words) => {}
                _ => panic!("{refusal:?} and not {expect:?}: {last_seen} {boot_unix} {now_unix}"),
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
        // It cannot be earlier now than then.
        check(5000, true, 20, 4000, None);
        check(5000, false, 20, 4000, Some("in the future"));
        check(i64::MAX, false, i64::MIN, 0, Some("in the future"));
    }

    #[test]
    fn without_a_boot_id_nothing_is_taken_for_the_same_boot() {
        let nameless = stack("m", "", 7);
        let known = record(1, "eth0", 3, RANDOM[0], nameless.clone());
        for (record, here) in
            [(&known, &nameless), (&known, &here()), (&record(1, "eth0", 3, RANDOM[0], here()), &nameless)]
        {
            // Only a difference that has certainly passed, whichever boot it is.
            check(record, &link(3, "eth0", RANDOM[0]), here, Expect::Is(end(true)));
            check(record, &link(3, "eth0", RANDOM[1]), here, Expect::Anew("without its boot id"));
            check(record, &link(3, "eth0", ""), here, Expect::Anew("without its boot id"));
            check(record, &link(4, "eth0", RANDOM[0]), here, Expect::Anew("without its boot id"));
            assert!(find(&[link(3, "wan", RANDOM[1])], &[record], &present(here))[0].is_none(), "{record:?}");
        }
        // A smaller monotonic clock proves that the machine was started anew.
        let ahead = Record { mono_ms: 2_000_000, ..known };
        check(&ahead, &link(3, "eth0", RANDOM[0]), &nameless, Expect::Is(since_boot(true)));
    }

    /// The records that links go on with: whose counters, and whose history.
    fn assigned(links: &[Candidate], records: &[Record], here: &Stack) -> Vec<Option<(u32, u32)>> {
        let records: Vec<&Record> = records.iter().collect();
        let pasts = find(links, &records, &present(here));
        pasts.iter().map(|past| past.as_ref().map(|past| (past.end.id, past.record.id))).collect()
    }

    #[test]
    fn names_that_were_exchanged_stay_with_their_links() {
        let [a, b] = RANDOM;
        let two = [record(1, "eth0", 3, a, here()), record(2, "eth1", 4, b, here())];
        let links = [link(3, "eth1", a), link(4, "eth0", b)];
        assert_eq!(assigned(&links, &two, &here()), [Some((1, 1)), Some((2, 2))]);
        let three = [("a", 3), ("b", 4), ("c", 5)];
        let records: Vec<Record> =
            (1..).zip(three).map(|(id, (name, ifindex))| record(id, name, ifindex, "", here())).collect();
        let circle = [link(3, "b", ""), link(4, "c", ""), link(5, "a", "")];
        assert_eq!(assigned(&circle, &records, &here()), [Some((1, 1)), Some((2, 2)), Some((3, 3))]);
        // One of them to the name of one that is gone, and a new link with its old name goes on with what it left.
        let records = [record(1, "eth0", 2, "", here()), record(2, "eth1", 3, b, here())];
        let links = [link(3, "eth0", b), link(10, "eth1", "")];
        assert_eq!(assigned(&links, &records, &here()), [Some((2, 1)), Some((2, 2))]);
        // One of them to a name that has a history of its own, which no link bears.
        let records = [record(1, "eth1", 3, a, here()), record(2, "wwan0", 9, "", stack("m", "older", 1))];
        assert_eq!(assigned(&[link(3, "wwan0", a)], &records, &here()), [Some((1, 2))]);
    }

    #[test]
    fn on_another_boot_the_makers_address_counts_for_more_than_the_name() {
        let later = stack("m", "c", 1);
        let [a, b] = MAKER;
        let records = [record(1, "eth0", 3, a, here()), record(2, "eth1", 4, b, here())];
        let exchanged = [link(2, "eth1", a), link(3, "eth0", b)];
        assert_eq!(assigned(&exchanged, &records, &later), [Some((1, 1)), Some((2, 2))]);
        // Ports of a switch have one address in common, and random ones come from nowhere: by name.
        for mac in [a, RANDOM[0]] {
            let records = [record(1, "lan1", 3, mac, here()), record(2, "lan2", 4, mac, here())];
            let links = [link(2, "lan2", mac), link(3, "lan1", mac)];
            assert_eq!(assigned(&links, &records, &later), [Some((2, 2)), Some((1, 1))]);
        }
        let records = [record(1, "eth0", 3, RANDOM[0], here())];
        assert_eq!(assigned(&[link(2, "eth1", RANDOM[0])], &records, &later), [None]);
    }

    #[test]
    fn what_another_history_may_have_is_not_booked_twice() {
        let nameless = stack("m", "", 7);
        // The link was eth1 on this boot, whose id could be read then; eth0 is a history from before.
        let records = [
            record(1, "eth1", 3, RANDOM[0], here()),
            Record { mono_ms: 2_000_000, ..record(2, "eth0", 4, RANDOM[1], stack("m", "older", 7)) },
        ];
        let records: Vec<&Record> = records.iter().collect();
        let found = find(&[link(3, "eth0", "")], &records, &present(&nameless));
        let Some(Past { resume: Resume::Anew(why), .. }) = &found[0] else { panic!("{found:?}") };
        assert!(why.contains("another history"), "{why}");
    }

    #[test]
    fn the_newest_link_is_known_again_in_its_namespace_only() {
        let newest = Newest { ifindex: 12, node: u64::MAX };
        let text = newest.to_text(&here());
        assert_eq!(Newest::of_text(&text, &here()), Some(newest));
        for stack in [stack("m", "b", 8), stack("m", "c", 7), stack("m", "", 7), stack("m", "b", 0)] {
            assert_eq!(Newest::of_text(&text, &stack), None, "{stack:?}");
            assert_eq!(Newest::of_text(&newest.to_text(&stack), &here()), None, "{stack:?}");
        }
        for text in ["", "b", "b:7:12", "b:7:x:5", "::12:5"] {
            assert_eq!(Newest::of_text(text, &here()), None, "{text}");
        }
    }
}
