//! Parses the text files of /proc and /sys: pure functions over bytes. A value that cannot be parsed becomes `None`,
//! zero or empty.

use std::net::{IpAddr, Ipv6Addr};

use crate::model::Address;

/// Names of the values of IFLA_OPERSTATE, in their order (`operstates` in net/core/net-sysfs.c;
/// `include/uapi/linux/if.h`, IF_OPER_*).
const OPERSTATES: [&str; 7] = ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];
pub const OPERSTATE_UNKNOWN: u8 = 0;
const OPERSTATE_UP: u8 = 6;

// `include/uapi/linux/if.h`.
const IFF_UP: u32 = 0x1;
pub const IFF_RUNNING: u32 = 0x40;

// `include/uapi/linux/route.h`.
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

/// A name or an alias as text. The kernel allows any bytes in them; those that are not UTF-8 become U+FFFD.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A hardware address as text; empty if it is none. Hardware addresses have 6, 8 or 20 bytes. Tunnels keep their IP
/// address in the same attribute, and loopback has zeros.
pub fn mac(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    if matches!(bytes.len(), 6 | 8 | 20) && bytes.iter().any(|byte| *byte != 0) {
        for byte in bytes {
            let colon = if out.is_empty() { "" } else { ":" };
            let _ = write!(out, "{colon}{byte:02x}");
        }
    }
    out
}

/// Normalises a hardware address as sysfs writes it.
pub fn mac_text(text: &[u8]) -> String {
    let bytes: Option<Vec<u8>> =
        trim(text).split(|byte| *byte == b':').map(|pair| hex(pair)?.try_into().ok()).collect();
    bytes.map_or(String::new(), |bytes| mac(&bytes))
}

/// Whether a link is up. Tunnels and many drivers never report a state: then the flags decide.
pub fn is_up(operstate: u8, flags: u32) -> bool {
    match operstate {
        OPERSTATE_UP => true,
        OPERSTATE_UNKNOWN => flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING,
        _ => false,
    }
}

/// The value of IFLA_OPERSTATE for a name in sysfs.
pub fn operstate(text: &[u8]) -> u8 {
    let word = trim(text);
    OPERSTATES.iter().position(|name| name.as_bytes() == word).map_or(OPERSTATE_UNKNOWN, |at| at as u8)
}

/// Link speed in Mbit/s. Drivers that do not know it write 0, -1, or -1 as an unsigned number.
pub fn speed(text: &[u8]) -> Option<u32> {
    number(text)?.try_into().ok().filter(|speed| *speed != 0 && *speed != u32::MAX)
}

/// Hash of ifindex and name. Two different sets of links almost certainly have different sums of these hashes.
pub fn link_hash(ifindex: u32, name: &[u8]) -> u64 {
    // FNV-1a mixes the last bytes badly: without this step, the sum stays the same in half of the cases where two links
    // swap their names.
    const MIX: u64 = 0xff51_afd7_ed55_8ccd;
    let hash = fnv1a(ifindex.to_be_bytes().iter().chain(name));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(MIX);
    mixed ^ (mixed >> 33)
}

/// FNV-1a, 64 bits.
fn fnv1a<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// Hash of a machine id, as 16 hexadecimal digits. The id itself must stay secret (machine-id(5)). The hash has half as
/// many digits, so the id cannot be recovered from it.
pub fn machine_hash(id: &[u8]) -> Option<String> {
    let id = trim(id);
    let valid = id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit);
    valid.then(|| format!("{:016x}", fnv1a(b"net-pulse ".iter().chain(id))))
}

/// A decimal number, with optional white space around it.
pub fn number(text: &[u8]) -> Option<u64> {
    digits(trim(text), 10)
}

/// A hexadecimal number, with or without `0x`.
pub fn hex(text: &[u8]) -> Option<u64> {
    let text = trim(text);
    digits(text.strip_prefix(b"0x").unwrap_or(text), 16)
}

fn digits(text: &[u8], radix: u32) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        let digit = char::from(*byte).to_digit(radix)?;
        sum.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}

/// `DEVTYPE` of a uevent file. Empty if there is none.
pub fn devtype(uevent: &[u8]) -> String {
    let value = lines(uevent).find_map(|line| line.strip_prefix(b"DEVTYPE="));
    value.map_or(String::new(), |value| lossy(trim(value)))
}

/// Metric and interface of a line of /proc/net/route, if it is a usable default route.
pub fn ipv4_default(line: &[u8]) -> Option<(u32, &[u8])> {
    const NAME: usize = 0;
    const DESTINATION: usize = 1;
    const FLAGS: usize = 3;
    const METRIC: usize = 6;
    const MASK: usize = 7;
    let field = |at| words(line).nth(at);
    if hex(field(DESTINATION)?)? != 0 || hex(field(MASK)?)? != 0 || !is_usable(field(FLAGS)?) {
        return None;
    }
    Some((number(field(METRIC)?)?.try_into().ok()?, field(NAME)?))
}

/// The same for /proc/net/ipv6_route. The source prefix does not matter: default routes of OpenWrt apply to one
/// source prefix only.
pub fn ipv6_default(line: &[u8]) -> Option<(u32, &[u8])> {
    const PREFIX: usize = 1;
    const METRIC: usize = 5;
    const FLAGS: usize = 8;
    const NAME: usize = 9;
    let field = |at| words(line).nth(at);
    if hex(field(PREFIX)?)? != 0 || !is_usable(field(FLAGS)?) {
        return None;
    }
    Some((hex(field(METRIC)?)?.try_into().ok()?, field(NAME)?))
}

fn is_usable(flags: &[u8]) -> bool {
    hex(flags).is_some_and(|flags| flags as u32 & (RTF_UP | RTF_REJECT) == RTF_UP)
}

/// The address in a line of /proc/net/if_inet6.
pub fn inet6_address(line: &[u8]) -> Option<Address> {
    let mut fields = words(line);
    let octets = fields.next().filter(|octets| octets.len() == 32)?;
    let high = u128::from(digits(&octets[..16], 16)?);
    let low = u128::from(digits(&octets[16..], 16)?);
    let ifindex = hex(fields.next()?)?.try_into().ok()?;
    let prefix = hex(fields.next()?)?.try_into().ok().filter(|prefix| *prefix <= 128)?;
    Some(Address { ifindex, ip: IpAddr::V6(Ipv6Addr::from(high << 64 | low)), prefix, broadcast: None })
}

/// Total and available memory in bytes, from /proc/meminfo.
pub fn meminfo(text: &[u8]) -> (u64, u64) {
    let value = |key: &[u8]| {
        let line = lines(text).find_map(|line| line.strip_prefix(key)?.strip_prefix(b":"))?;
        number(words(line).next()?)?.checked_mul(1024)
    };
    // Kernels before 3.14 have no MemAvailable.
    let estimate = || {
        let parts = [&b"MemFree"[..], b"Buffers", b"Cached"];
        parts.iter().fold(0u64, |sum, part| sum.saturating_add(value(part).unwrap_or(0)))
    };
    (value(b"MemTotal").unwrap_or(0), value(b"MemAvailable").unwrap_or_else(estimate))
}

/// CPU time since boot over all CPUs in clock ticks (busy, total), and the number of CPUs, from /proc/stat.
pub fn cpu(text: &[u8]) -> (u64, u64, u32) {
    // user, nice, system, idle, iowait, irq, softirq, steal. user and nice already include the guest times that
    // follow.
    const FIELDS: usize = 8;
    const IDLE_FIELDS: [usize; 2] = [3, 4];
    let (mut busy, mut total, mut count) = (0u64, 0u64, 0u32);
    for line in lines(text) {
        let mut fields = words(line);
        match fields.next().and_then(|name| name.strip_prefix(b"cpu")) {
            Some(b"") => {
                for (at, jiffies) in fields.take(FIELDS).map(|field| number(field).unwrap_or(0)).enumerate() {
                    total = total.saturating_add(jiffies);
                    busy = busy.saturating_add(if IDLE_FIELDS.contains(&at) { 0 } else { jiffies });
                }
            }
            Some(_) => count = count.saturating_add(1),
            None => {}
        }
    }
    (busy, total, count)
}

/// Whole seconds since boot, from /proc/uptime.
pub fn uptime(text: &[u8]) -> u64 {
    text.split(|byte| *byte == b'.').next().and_then(number).unwrap_or(0)
}

/// Resident memory in bytes, from /proc/self/status.
pub fn resident(text: &[u8]) -> u64 {
    let line = lines(text).find_map(|line| line.strip_prefix(b"VmRSS:"));
    line.and_then(|line| number(words(line).next()?)).unwrap_or(0).saturating_mul(1024)
}

/// `wchar`, in bytes, from /proc/thread-self/io.
pub fn wchar(text: &[u8]) -> Option<u64> {
    lines(text).find_map(|line| number(trim(line.strip_prefix(b"wchar:")?)))
}

pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

pub fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e9_an_invalid_speed_is_unknown() {
        #[track_caller]
        fn check(text: &str, expect: Option<u32>) {
            assert_eq!(speed(text.as_bytes()), expect);
        }
        check("1000\n", Some(1000));
        check("10", Some(10));
        check("400000\n", Some(400_000));
        check("0\n", None);
        check("-1\n", None);
        check("4294967295\n", None);
        check("99999999999999999999\n", None);
        check("", None);
        check("unknown\n", None);
    }

    #[test]
    fn numbers() {
        #[track_caller]
        fn check(text: &str, expect: Option<u64>) {
            assert_eq!(number(text.as_bytes()), expect);
        }
        check("18446744073709551615\n", Some(u64::MAX));
        check("18446744073709551616\n", None);
        check(" 7 ", Some(7));
        check("\n", None);
        check("+7", None);
        check("0x7", None);
        check("7 7", None);
        assert_eq!(hex(b"0x1043\n"), Some(0x1043));
        assert_eq!(hex(b"00200200"), Some(0x0020_0200));
        assert_eq!(hex(b"0x"), None);
    }

    #[test]
    fn hardware_addresses() {
        #[track_caller]
        fn check(bytes: &[u8], expect: &str) {
            assert_eq!(mac(bytes), expect);
        }
        check(&[2, 0, 0, 0, 0, 0xab], "02:00:00:00:00:ab");
        check(&[0; 6], "");
        check(&[], "");
        // The IPv4 address of a tunnel.
        check(&[10, 0, 0, 1], "");
        assert_eq!(mac(&[1; 20]).len(), 59);
        assert_eq!(mac_text(b"02:00:00:00:00:AB\n"), "02:00:00:00:00:ab");
        assert_eq!(mac_text(b"00:00:00:00:00:00\n"), "");
        assert_eq!(mac_text(b"10.0.0.1\n"), "");
        assert_eq!(mac_text(b"\n"), "");
    }

    #[test]
    fn e33_operstates_by_name() {
        assert!(is_up(operstate(b"up\n"), 0));
        assert!(is_up(operstate(b"unknown\n"), 0x41));
        assert!(is_up(operstate(b"a state of a later kernel\n"), 0x41));
        assert!(!is_up(operstate(b"unknown\n"), 0x1003));
        assert!(!is_up(operstate(b"lowerlayerdown\n"), 0x41));
    }

    #[test]
    fn link_hashes_differ_for_renamed_and_replaced_links() {
        assert_ne!(link_hash(1, b"eth0"), link_hash(2, b"eth0"));
        assert_ne!(link_hash(1, b"eth0"), link_hash(1, b"eth1"));
        for (one, other) in (1..40).flat_map(|one| (one + 1..40).map(move |other| (one, other))) {
            let swapped = link_hash(one, b"eth1").wrapping_add(link_hash(other, b"eth0"));
            assert_ne!(link_hash(one, b"eth0").wrapping_add(link_hash(other, b"eth1")), swapped, "{one} {other}");
        }
    }

    #[test]
    fn default_routes_of_ipv4() {
        #[track_caller]
        fn check(line: &str, expect: Option<(u32, &str)>) {
            assert_eq!(ipv4_default(line.as_bytes()), expect.map(|(metric, name)| (metric, name.as_bytes())));
        }
        check("va\t00000000\t0102010A\t0003\t0\t0\t50\t00000000\t0\t0\t0   ", Some((50, "va")));
        check("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT", None);
        check("va\t0002010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0", None);
        // 0.0.0.0/1 of a VPN, a route that is down, a reject route.
        check("tun0\t00000000\t0102010A\t0003\t0\t0\t0\t00000080\t0\t0\t0", None);
        check("va\t00000000\t0102010A\t0002\t0\t0\t50\t00000000\t0\t0\t0", None);
        check("*\t00000000\t00000000\t0201\t0\t0\t50\t00000000\t0\t0\t0", None);
        check("va\t00000000", None);
        check("", None);
    }

    #[test]
    fn default_routes_of_ipv6() {
        #[track_caller]
        fn check(prefix: &str, metric: &str, flags: &str, expect: Option<(u32, &str)>) {
            let zeros = "0".repeat(32);
            let line = format!("{zeros} {prefix} {zeros} 00 {zeros} {metric} 00000001 00000000 {flags}     wan");
            assert_eq!(ipv6_default(line.as_bytes()), expect.map(|(metric, name)| (metric, name.as_bytes())));
        }
        check("00", "00000400", "00000003", Some((1024, "wan")));
        check("00", "ffffffff", "00200200", None);
        check("40", "00000100", "00000001", None);
        check("00", "1ffffffff", "00000003", None);
        assert_eq!(ipv6_default(b"00000000000000000000000000000000 00"), None);
    }

    #[test]
    fn addresses_of_ipv6() {
        let address = inet6_address(b"fe80000000000000348993fffe777748 03 40 20 c0       va").unwrap();
        let ip = "fe80::3489:93ff:fe77:7748".parse().unwrap();
        assert_eq!(address, Address { ifindex: 3, ip, prefix: 64, broadcast: None });
        assert_eq!(inet6_address(b"fe80 03 40 20 c0 va"), None);
        assert_eq!(inet6_address(b"fe80000000000000348993fffe777748 03 81 20 c0 va"), None);
    }

    #[test]
    fn memory() {
        let with_available = b"MemTotal:       62092 kB\nMemFree:  1 kB\nMemAvailable:   20000 kB\n";
        assert_eq!(meminfo(with_available), (62_092 * 1024, 20_000 * 1024));
        let without_available = b"MemTotal: 100 kB\nMemFree: 10 kB\nBuffers: 5 kB\nCached: 7 kB\nSwapCached: 50 kB\n";
        assert_eq!(meminfo(without_available), (100 * 1024, 22 * 1024));
        assert_eq!(meminfo(b""), (0, 0));
        assert_eq!(meminfo(b"MemTotal: 18446744073709551615 kB\n"), (0, 0));
        assert_eq!(resident(b"Name:\tx\nVmHWM:\t 900 kB\nVmRSS:\t    5204 kB\n"), 5204 * 1024);
        assert_eq!(resident(b"Name:\tkthread\n"), 0);
    }

    #[test]
    fn processors() {
        let two = b"cpu  10 1 5 70 4 2 3 5 9 9\ncpu0 5 0 0 0\ncpu1 5 0 0 0\nintr 99\n";
        assert_eq!(cpu(two), (26, 100, 2));
        // Linux 2.4 had four fields.
        assert_eq!(cpu(b"cpu 1 2 3 4\n"), (6, 10, 0));
        assert_eq!(cpu(b""), (0, 0, 0));
        assert_eq!(cpu(b"cpu 18446744073709551615 18446744073709551615\n").1, u64::MAX);
    }

    #[test]
    fn uptimes_and_device_types() {
        assert_eq!(uptime(b"350735.47 234388.90\n"), 350_735);
        assert_eq!(uptime(b""), 0);
        assert_eq!(devtype(b"DEVTYPE=wlan\nINTERFACE=wlan0\nIFINDEX=3\n"), "wlan");
        assert_eq!(devtype(b"INTERFACE=eth0\nIFINDEX=2\n"), "");
    }
}
