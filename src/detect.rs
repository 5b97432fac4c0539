//! Decides what kind of interface a link is, whether it is watched, and which interface is the primary one. Pure: the
//! caller passes the facts in.

use crate::model::{InterfaceKind, KIND_PREFIX, Link};

// From include/uapi/linux/if_arp.h.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_PPP: u16 = 512;
const ARPHRD_TUNNEL: u16 = 768;
const ARPHRD_TUNNEL6: u16 = 769;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_SIT: u16 = 776;
const ARPHRD_IPGRE: u16 = 778;
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_NONE: u16 = 65534;

/// Kind by driver name (IFLA_INFO_KIND): the most reliable source, for links whose driver the kernel reports.
const BY_DRIVER: [(&str, InterfaceKind); 26] = [
    ("bridge", InterfaceKind::Bridge),
    ("bond", InterfaceKind::Bond),
    ("team", InterfaceKind::Bond),
    ("vlan", InterfaceKind::Vlan),
    ("veth", InterfaceKind::Veth),
    ("wireguard", InterfaceKind::Vpn),
    ("amneziawg", InterfaceKind::Vpn),
    ("ovpn", InterfaceKind::Vpn),
    ("tun", InterfaceKind::Vpn),
    ("ppp", InterfaceKind::Ppp),
    ("sit", InterfaceKind::Vpn),
    ("gre", InterfaceKind::Vpn),
    ("gretap", InterfaceKind::Vpn),
    ("ipip", InterfaceKind::Vpn),
    ("ip6tnl", InterfaceKind::Vpn),
    ("vti", InterfaceKind::Vpn),
    ("xfrm", InterfaceKind::Vpn),
    ("rmnet", InterfaceKind::Wwan),
    ("ifb", InterfaceKind::Virtual),
    ("dummy", InterfaceKind::Virtual),
    ("macvlan", InterfaceKind::Container),
    ("ipvlan", InterfaceKind::Container),
    ("macvtap", InterfaceKind::Container),
    ("ipvtap", InterfaceKind::Container),
    ("vxlan", InterfaceKind::Virtual),
    ("dsa", InterfaceKind::Ethernet),
];

/// Kind by `DEVTYPE` of the uevent.
const BY_DEVTYPE: [(&str, InterfaceKind); 5] = [
    ("wlan", InterfaceKind::Wifi),
    ("wwan", InterfaceKind::Wwan),
    ("bridge", InterfaceKind::Bridge),
    ("bond", InterfaceKind::Bond),
    ("vlan", InterfaceKind::Vlan),
];

/// Kind by hardware type (ARPHRD_*).
const BY_HARDWARE: [(u16, InterfaceKind); 8] = [
    (ARPHRD_LOOPBACK, InterfaceKind::Loopback),
    (ARPHRD_PPP, InterfaceKind::Ppp),
    (ARPHRD_TUNNEL, InterfaceKind::Vpn),
    (ARPHRD_TUNNEL6, InterfaceKind::Vpn),
    (ARPHRD_SIT, InterfaceKind::Vpn),
    (ARPHRD_IPGRE, InterfaceKind::Vpn),
    (ARPHRD_RAWIP, InterfaceKind::Wwan),
    (ARPHRD_NONE, InterfaceKind::Vpn),
];

/// Kind by the name of the link, for links without a driver name (read from sysfs, or on another system). The first
/// match counts.
const BY_NAME: [(&str, InterfaceKind); 40] = [
    ("docker*", InterfaceKind::Container),
    ("podman*", InterfaceKind::Container),
    ("cni*", InterfaceKind::Container),
    ("lxc*", InterfaceKind::Container),
    ("macvlan*", InterfaceKind::Container),
    ("macvtap*", InterfaceKind::Container),
    ("ipvlan*", InterfaceKind::Container),
    ("ipvtap*", InterfaceKind::Container),
    ("virbr*", InterfaceKind::Bridge),
    ("br-*", InterfaceKind::Bridge),
    ("bridge*", InterfaceKind::Bridge),
    ("veth*", InterfaceKind::Veth),
    ("bond*", InterfaceKind::Bond),
    ("wg*", InterfaceKind::Vpn),
    ("tun*", InterfaceKind::Vpn),
    ("tap*", InterfaceKind::Vpn),
    ("utun*", InterfaceKind::Vpn),
    ("tailscale*", InterfaceKind::Vpn),
    ("zt*", InterfaceKind::Vpn),
    ("ipsec*", InterfaceKind::Vpn),
    ("ppp*", InterfaceKind::Ppp),
    ("pppoe-*", InterfaceKind::Ppp),
    ("wwan*", InterfaceKind::Wwan),
    ("wwp*", InterfaceKind::Wwan),
    ("usb*", InterfaceKind::Wwan),
    ("rmnet*", InterfaceKind::Wwan),
    ("wlan*", InterfaceKind::Wifi),
    ("wl*", InterfaceKind::Wifi),
    ("phy*-ap*", InterfaceKind::Wifi),
    ("phy*-sta*", InterfaceKind::Wifi),
    ("ath*", InterfaceKind::Wifi),
    ("ra*", InterfaceKind::Wifi),
    ("awdl*", InterfaceKind::Apple),
    ("llw*", InterfaceKind::Apple),
    ("anpi*", InterfaceKind::Apple),
    ("ap*", InterfaceKind::Apple),
    ("ifb*", InterfaceKind::Virtual),
    ("dummy*", InterfaceKind::Virtual),
    ("lo", InterfaceKind::Loopback),
    ("lo0", InterfaceKind::Loopback),
];

/// The kind of a link. Facts from the kernel take precedence over its name.
pub fn kind(link: &Link) -> InterfaceKind {
    let driver = BY_DRIVER.iter().find(|(word, _)| *word == link.driver).map(|(_, kind)| *kind);
    let devtype = BY_DEVTYPE.iter().find(|(word, _)| *word == link.devtype).map(|(_, kind)| *kind);
    let by_name = || BY_NAME.iter().find(|(pattern, _)| matches(pattern, &link.name)).map(|(_, kind)| *kind);
    if link.hardware_type == ARPHRD_LOOPBACK {
        return InterfaceKind::Loopback;
    }
    if link.wireless {
        return InterfaceKind::Wifi;
    }
    if is_guest_tap(link) {
        return InterfaceKind::Virtual;
    }
    if let Some(kind) = driver.or(devtype) {
        // The bridge of a container engine counts as a container, because that is how its owner sees it.
        return match by_name() {
            Some(InterfaceKind::Container) if kind == InterfaceKind::Bridge => InterfaceKind::Container,
            _ => kind,
        };
    }
    if let Some((_, kind)) = BY_HARDWARE.iter().find(|(hardware, _)| *hardware == link.hardware_type) {
        return *kind;
    }
    match by_name() {
        Some(kind) if !link.physical || kind == InterfaceKind::Wwan => kind,
        _ if link.physical => InterfaceKind::Ethernet,
        _ if link.name.contains('.') => InterfaceKind::Vlan,
        _ if link.hardware_type == ARPHRD_ETHER => InterfaceKind::Ethernet,
        _ => InterfaceKind::Other,
    }
}

/// Whether a link is the tap device of a virtual machine and not of a VPN. A hypervisor makes its taps ports of a
/// bridge, under any name (`vnet0`, `tap100i0`); a routing VPN does not.
fn is_guest_tap(link: &Link) -> bool {
    let by_name = || link.driver.is_empty() && ["tap*", "vnet*"].iter().any(|pattern| matches(pattern, &link.name));
    let is_tap = link.driver == "tun" || (!link.physical && by_name());
    is_tap && BRIDGE_DRIVERS.contains(&link.master_driver.as_str())
}

/// Drivers of bridges. Bonds and VRFs have ports too, but those ports lead to no guests.
pub const BRIDGE_DRIVERS: [&str; 2] = ["bridge", "openvswitch"];

/// Names that are not watched by default, with the reason that the user sees.
const DEFAULT_IGNORED: [(&str, &str); 8] = [
    ("lo", "loopback: never leaves this machine"),
    ("docker*", "container bridge: its traffic is counted on the uplink"),
    ("podman*", "container bridge: its traffic is counted on the uplink"),
    ("ifb*", "traffic shaping: repeats the traffic of another interface"),
    ("*.ifb", "traffic shaping: repeats the traffic of another interface"),
    ("dummy*", "dummy: carries no traffic"),
    ("awdl*", "Apple's peer-to-peer link"),
    ("llw*", "Apple's peer-to-peer link"),
];

/// Why a guest link is not watched. A guest link is the host's end of a virtual cable (veth, tap) to a container,
/// virtual machine or namespace.
const GUEST_LINK_REASON: &str = "virtual cable to a container, virtual machine or namespace: comes and goes with it";

/// Second condition for a guest link, besides a name in `GUEST_LINK_NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requires {
    /// Not a bridge: `lxc*` must not match the bridge `lxcbr0`.
    NotBridge,
    /// A port of a bridge: elsewhere, a VPN may have such a name.
    BridgePort,
    Bridge,
}

/// Names that container engines, hypervisors and clusters generate for guest links. `#` matches one digit or more, `*`
/// matches anything.
const GUEST_LINK_NAMES: [(&str, Requires); 21] = [
    // Docker, podman, LXD, flannel, Weave, and the kernel's default name.
    ("veth*", Requires::NotBridge),
    // libvirt.
    ("vnet#", Requires::NotBridge),
    // Proxmox VE: tap of a virtual machine; links and bridges of its firewall.
    ("tap#i#", Requires::BridgePort),
    ("fwpr#p#", Requires::NotBridge),
    ("fwln#i#", Requires::NotBridge),
    ("fwln#o#", Requires::NotBridge),
    ("fwbr#i#", Requires::Bridge),
    // Xen.
    ("vif#.#", Requires::NotBridge),
    ("vif#.#-emu", Requires::NotBridge),
    // OpenStack Neutron: a prefix and the beginning of a UUID with its hyphen.
    ("tap*-*", Requires::BridgePort),
    ("qvo*-*", Requires::NotBridge),
    ("qvb*-*", Requires::NotBridge),
    ("qbr*-*", Requires::Bridge),
    // systemd-nspawn.
    ("vb-*", Requires::NotBridge),
    ("ve-*", Requires::NotBridge),
    // Kubernetes: Calico, Cilium and LXC, Amazon, Azure, Google, Network Service Mesh.
    ("cali*", Requires::NotBridge),
    ("lxc*", Requires::NotBridge),
    ("eni*", Requires::NotBridge),
    ("azv*", Requires::NotBridge),
    ("gke*", Requires::NotBridge),
    ("nsm-*", Requires::NotBridge),
];

/// Names of uplinks and home networks, which are never guest links. A veth with such a name is the container's end of
/// the cable: Net-Pulse itself runs in the container.
const NEVER_GUEST_LINKS: [&str; 3] = ["eth*", "wan*", "lan*"];

/// The place of a link in the host's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkRole {
    /// The link has an address beyond link-local scope or the default route, or had one earlier in this run.
    pub is_endpoint: bool,
    /// The link is a port of a bridge or bond that has other ports too.
    pub shares_bridge: bool,
}

/// Whether a link is a guest link. Its traffic also passes the uplink and is counted there.
fn is_guest_link(link: &Link, role: LinkRole) -> bool {
    if role.is_endpoint || link.physical || NEVER_GUEST_LINKS.iter().any(|pattern| matches(pattern, &link.name)) {
        return false;
    }
    let is_bridge = link.driver == "bridge" || link.devtype == "bridge";
    let is_port = BRIDGE_DRIVERS.contains(&link.master_driver.as_str());
    let generated = |(pattern, requires): &(&str, Requires)| {
        matches_digits(pattern, &link.name)
            && match requires {
                Requires::NotBridge => !is_bridge,
                Requires::BridgePort => is_port,
                Requires::Bridge => is_bridge,
            }
    };
    GUEST_LINK_NAMES.iter().any(generated) || (link.driver == "veth" && is_port && role.shares_bridge)
}

/// Like `matches`; in addition, `#` matches one digit or more.
fn matches_digits(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('#') else { return matches(pattern, name) };
    let Some(rest) = name.strip_prefix(before) else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    digits > 0 && matches_digits(after, &rest[digits..])
}

/// The user's settings that decide which links are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchSettings {
    /// Patterns of the setting `interfaces`. If there are any, they decide: the patterns of `ignored` and the built-in
    /// rules do not apply then. Full names and exceptions (`!`) in `ignored`, and `primary`, take precedence.
    pub interfaces: Vec<String>,
    /// Patterns of the setting `ignore`, in addition to the built-in rules. `!` before a pattern means: never ignore.
    pub ignored: Vec<String>,
    /// Name of the primary interface that the user chose; it is always watched. Empty for none.
    pub primary: String,
}

impl WatchSettings {
    /// Whether a setting mentions a link with this name. Patterns for a kind, and patterns that consist only of `*`, do
    /// not count.
    pub fn mentions(&self, name: &str) -> bool {
        let names_links =
            |pattern: &&str| !pattern.starts_with(KIND_PREFIX) && pattern.bytes().any(|byte| byte != b'*');
        let bare = |pattern: &'_ String| pattern.strip_prefix('!').unwrap_or(pattern).to_string();
        let mut patterns = self.interfaces.iter().chain(&self.ignored).map(bare);
        self.primary == name || patterns.any(|pattern| names_links(&pattern.as_str()) && matches(&pattern, name))
    }
}

/// Why a link is not watched, as a text for the user; `None` if it is watched. The patterns of the settings also
/// match its altnames, the built-in rules only its own name.
pub fn ignored_because(link: &Link, kind: InterfaceKind, role: LinkRole, settings: &WatchSettings) -> Option<String> {
    let Link { name, altnames, .. } = link;
    let fits = |pattern: &str| matches_link(pattern, name, altnames, kind);
    if *name == settings.primary || altnames.contains(&settings.primary) {
        return None;
    }
    // A full name takes precedence over a pattern, and the link's own name over an altname.
    if settings.ignored.iter().any(|ignored| ignored == name) {
        return Some("ignored by its name".to_string());
    }
    let exceptions = || settings.ignored.iter().filter_map(|pattern| pattern.strip_prefix('!'));
    if exceptions().any(|exception| exception == name) {
        return None;
    }
    if let Some(altname) = altnames.iter().find(|altname| settings.ignored.contains(altname)) {
        return Some(format!("ignored by its altname '{altname}'"));
    }
    if exceptions().any(fits) {
        return None;
    }
    if !settings.interfaces.is_empty() {
        let listed = settings.interfaces.iter().any(|pattern| fits(pattern));
        return (!listed).then(|| "not among the interfaces to watch".to_string());
    }
    if let Some(pattern) = settings.ignored.iter().find(|pattern| fits(pattern)) {
        return Some(format!("matches the pattern '{pattern}' of interfaces to ignore"));
    }
    if kind == InterfaceKind::Loopback {
        return Some(DEFAULT_IGNORED[0].1.to_string());
    }
    if let Some((_, reason)) = DEFAULT_IGNORED.iter().find(|(pattern, _)| matches(pattern, name)) {
        return Some((*reason).to_string());
    }
    if is_guest_link(link, role) {
        return Some(GUEST_LINK_REASON.to_string());
    }
    is_container_bridge(name).then(|| "container bridge: its traffic is counted on the uplink".to_string())
}

/// Docker names the bridge of a network `br-` and twelve hex digits. At least eight are required here, because a
/// router's own bridge may have a short name that looks like hex (`br-dad`).
fn is_container_bridge(name: &str) -> bool {
    name.strip_prefix("br-").is_some_and(|rest| rest.len() >= 8 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a pattern matches a link's name or one of its altnames, or consists of `kind:` and the link's kind.
pub fn matches_link(pattern: &str, name: &str, altnames: &[String], kind: InterfaceKind) -> bool {
    if let Some(word) = pattern.strip_prefix(KIND_PREFIX) {
        return word == kind.name();
    }
    matches(pattern, name) || altnames.iter().any(|altname| matches(pattern, altname))
}

/// Whether a name matches a pattern in full. `*` matches any text, also an empty one; every other byte matches itself.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The traffic of one link while the sampler looks for the primary interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryCandidate {
    pub ifindex: u32,
    /// Received and sent, within `elapsed_ms`.
    pub bytes: u64,
    pub packets: u64,
    pub elapsed_ms: u64,
}

/// A link with less traffic than this cannot become the primary interface.
const MIN_PRIMARY_BYTES: u64 = 1024;

impl PrimaryCandidate {
    pub fn qualifies(&self) -> bool {
        self.bytes >= MIN_PRIMARY_BYTES
    }

    /// Bytes plus 1000 for each packet per second, so that interactive traffic with small packets counts as well.
    pub fn score(&self) -> u64 {
        let per_second = self.packets.saturating_mul(1000) / self.elapsed_ms.max(1);
        self.bytes.saturating_add(per_second.saturating_mul(1000))
    }
}

/// The only watched link, which is the primary interface whatever its traffic. `None` if several links are watched,
/// or if the default route uses another link.
pub fn sole_interface(mut watched: impl Iterator<Item = u32>, default_route: Option<u32>) -> Option<u32> {
    let first = watched.next()?;
    (watched.next().is_none() && default_route.is_none_or(|route| route == first)).then_some(first)
}

/// The choice before any traffic was measured: the link of the default route, else the one with the most bytes in its
/// kernel counters.
pub fn provisional_primary(carried: impl Iterator<Item = (u32, u64)>, default_route: Option<u32>) -> Option<u32> {
    let is_route = |ifindex: u32| Some(ifindex) == default_route;
    let best = carried.max_by_key(|(ifindex, bytes)| (is_route(*ifindex), *bytes, std::cmp::Reverse(*ifindex)));
    best.filter(|(ifindex, bytes)| is_route(*ifindex) || *bytes > 0).map(|(ifindex, _)| ifindex)
}

/// The primary interface: the link of the default route if it qualifies, else the one with the highest score.
pub fn primary(candidates: &[PrimaryCandidate], default_route: Option<u32>) -> Option<u32> {
    let best = candidates.iter().filter(|candidate| candidate.qualifies()).max_by_key(|candidate| {
        (Some(candidate.ifindex) == default_route, candidate.score(), std::cmp::Reverse(candidate.ifindex))
    });
    best.map(|candidate| candidate.ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, driver: &str, hardware: u16) -> Link {
        Link { name: name.to_string(), driver: driver.to_string(), hardware_type: hardware, ..Link::default() }
    }

    fn reason(name: &str, altnames: &[String], kind: InterfaceKind, settings: &WatchSettings) -> Option<String> {
        let link = Link { altnames: altnames.to_vec(), ..link(name, "", ARPHRD_ETHER) };
        ignored_because(&link, kind, LinkRole::default(), settings)
    }

    #[test]
    fn kinds() {
        let check = |link: Link, expect| assert_eq!(kind(&link), expect, "{link:?}");
        check(link("lo", "", 772), InterfaceKind::Loopback);
        check(link("eth0", "", 1), InterfaceKind::Ethernet);
        check(Link { physical: true, ..link("enp3s0", "", 1) }, InterfaceKind::Ethernet);
        check(Link { wireless: true, physical: true, ..link("wlp2s0", "", 1) }, InterfaceKind::Wifi);
        check(Link { devtype: "wlan".to_string(), ..link("phy0-ap0", "", 1) }, InterfaceKind::Wifi);
        check(Link { devtype: "wwan".to_string(), physical: true, ..link("wwan0", "", 65534) }, InterfaceKind::Wwan);
        check(link("rmnet_data0", "", 519), InterfaceKind::Wwan);
        check(link("wg0", "wireguard", 65534), InterfaceKind::Vpn);
        check(link("tun0", "tun", 65534), InterfaceKind::Vpn);
        check(link("utun3", "", 0), InterfaceKind::Vpn);
        check(link("macvtap0", "macvtap", 1), InterfaceKind::Container);
        check(link("guest0", "macvtap", 1), InterfaceKind::Container);
        check(link("guest0", "ipvtap", 1), InterfaceKind::Container);
        check(link("macvtap0", "", 1), InterfaceKind::Container);
        check(link("ipvtap7", "", 1), InterfaceKind::Container);
        check(link("macvlan1", "", 1), InterfaceKind::Container);
        check(link("pppoe-wan", "ppp", 512), InterfaceKind::Ppp);
        check(link("ppp0", "", 512), InterfaceKind::Ppp);
        check(link("br-lan", "bridge", 1), InterfaceKind::Bridge);
        check(link("docker0", "bridge", 1), InterfaceKind::Container);
        check(link("bond0", "bond", 1), InterfaceKind::Bond);
        check(link("eth0.7", "vlan", 1), InterfaceKind::Vlan);
        check(link("eth0.7", "", 1), InterfaceKind::Vlan);
        check(link("vethab12", "veth", 1), InterfaceKind::Veth);
        check(link("eth0", "veth", 1), InterfaceKind::Veth);
        check(link("lan1", "dsa", 1), InterfaceKind::Ethernet);
        check(link("awdl0", "", 1), InterfaceKind::Apple);
        check(link("ifb0", "ifb", 1), InterfaceKind::Virtual);
        check(link("odd", "", 32), InterfaceKind::Other);
        // A physical device is not classified by its name.
        check(Link { physical: true, ..link("rail0", "", 1) }, InterfaceKind::Ethernet);
    }

    #[test]
    fn a_tap_that_is_a_port_of_a_bridge_belongs_to_a_virtual_machine() {
        let check = |name: &str, driver: &str, master: &str, expect| {
            let port = Link { master_driver: master.to_string(), ..link(name, driver, ARPHRD_ETHER) };
            assert_eq!(kind(&port), expect, "{port:?}");
        };
        for bridge in ["bridge", "openvswitch"] {
            for name in ["vnet3", "tap0", "tap100i0", "guest"] {
                check(name, "tun", bridge, InterfaceKind::Virtual);
            }
            // Without a driver name, the link's name decides.
            check("vnet3", "", bridge, InterfaceKind::Virtual);
            check("tap0", "", bridge, InterfaceKind::Virtual);
            check("eth3", "", bridge, InterfaceKind::Ethernet);
            check("wg0", "wireguard", bridge, InterfaceKind::Vpn);
            check("vethab12", "veth", bridge, InterfaceKind::Veth);
            check("tap0", "gretap", bridge, InterfaceKind::Vpn);
        }
        // OpenVPN.
        check("tap0", "tun", "", InterfaceKind::Vpn);
        check("vnet0", "tun", "", InterfaceKind::Vpn);
        check("tap0", "", "", InterfaceKind::Vpn);
        check("tap0", "tun", "bond", InterfaceKind::Vpn);
        check("tap0", "tun", "vrf", InterfaceKind::Vpn);
        let card = Link { physical: true, master_driver: "bridge".to_string(), ..link("tap0", "", ARPHRD_ETHER) };
        assert_eq!(kind(&card), InterfaceKind::Ethernet);
    }

    #[test]
    fn e29_links_ignored_by_default() {
        let settings = WatchSettings::default();
        let check = |name: &str, kind, ignored: bool| {
            assert_eq!(reason(name, &[], kind, &settings).is_some(), ignored, "{name}");
        };
        check("lo", InterfaceKind::Loopback, true);
        check("loop", InterfaceKind::Loopback, true);
        check("veth12ab", InterfaceKind::Veth, true);
        check("eth0", InterfaceKind::Veth, false);
        check("docker0", InterfaceKind::Container, true);
        check("br-0123456789ab", InterfaceKind::Bridge, true);
        check("br-lan", InterfaceKind::Bridge, false);
        check("br-beefcafe", InterfaceKind::Bridge, true);
        check("br-dad", InterfaceKind::Bridge, false);
        check("ifb4eth0", InterfaceKind::Virtual, true);
        check("eth0.ifb", InterfaceKind::Other, true);
        check("dummy0", InterfaceKind::Virtual, true);
        check("pppoe-wan", InterfaceKind::Ppp, false);
        check("wg0", InterfaceKind::Vpn, false);
    }

    #[test]
    fn guest_links_are_recognised_by_name_and_by_bridge() {
        let check_at = |name: &str, driver: &str, master: &str, role: LinkRole, ignored: bool| {
            let link = Link { master_driver: master.to_string(), ..link(name, driver, ARPHRD_ETHER) };
            let reason = ignored_because(&link, kind(&link), role, &WatchSettings::default());
            assert_eq!(reason.as_deref(), ignored.then_some(GUEST_LINK_REASON), "{name} {driver} {master} {role:?}");
        };
        let check = |name, driver, master, ignored| check_at(name, driver, master, LinkRole::default(), ignored);
        for (name, driver, master) in [
            ("veth12ab", "veth", ""),
            ("veth0", "", ""),
            ("vnet0", "tun", "bridge"),
            ("vnet12", "tun", ""),
            ("tap100i0", "tun", "bridge"),
            ("tap100i0", "", "openvswitch"),
            ("fwpr100p0", "veth", "bridge"),
            ("fwln100i0", "veth", ""),
            ("fwln101o1", "openvswitch", ""),
            ("fwbr100i0", "bridge", ""),
            ("vif3.0", "", "bridge"),
            ("vif3.0-emu", "tun", "bridge"),
            ("tap0a1b2c3d-4e", "tun", "bridge"),
            ("qvo0a1b2c3d-4e", "veth", "openvswitch"),
            ("qbr0a1b2c3d-4e", "bridge", ""),
            ("ve-web", "veth", ""),
            ("vb-web", "veth", "bridge"),
            ("cali0123456789a", "veth", ""),
            ("lxc0123456789a", "veth", ""),
            ("lxc_health", "veth", ""),
            ("eni0123456789a", "veth", ""),
            ("azv01234567", "veth", ""),
            ("gke01234567", "veth", ""),
        ] {
            check(name, driver, master, true);
            // With an address or the default route it is no guest link.
            check_at(name, driver, master, LinkRole { is_endpoint: true, shares_bridge: true }, false);
        }
        for (name, driver, master) in [
            // Not a port of a bridge: a VPN.
            ("tap100i0", "tun", ""),
            ("tap0", "tun", "bridge"),
            ("tap0", "tun", ""),
            ("vnet", "tun", ""),
            ("vnet0x", "tun", ""),
            ("vif0", "", ""),
            ("vif3.", "", ""),
            ("lxcbr0", "bridge", ""),
            ("fwbr100i0", "", ""),
            ("fwpr100", "veth", ""),
            ("uplink", "veth", ""),
            ("uplink", "veth", "bridge"),
            ("wg0", "wireguard", ""),
            ("enp3s0", "", "bridge"),
        ] {
            check(name, driver, master, false);
        }
        // A veth that shares a bridge with other ports is a guest link under any name.
        let port_of_shared_bridge = LinkRole { shares_bridge: true, is_endpoint: false };
        check_at("web", "veth", "bridge", port_of_shared_bridge, true);
        check_at("web", "veth", "openvswitch", port_of_shared_bridge, true);
        for (name, driver, master) in [
            ("eth0", "veth", "bridge"),
            ("wan", "veth", "bridge"),
            ("lan2", "veth", "bridge"),
            ("web", "vlan", "bridge"),
            ("web", "", "bridge"),
            ("web", "veth", "bond"),
        ] {
            check_at(name, driver, master, port_of_shared_bridge, false);
        }
        let card = Link { physical: true, ..link("eni0", "", ARPHRD_ETHER) };
        assert_eq!(
            ignored_because(&card, InterfaceKind::Ethernet, LinkRole::default(), &WatchSettings::default()),
            None
        );
    }

    #[test]
    fn a_kind_works_like_a_pattern() {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let check = |interfaces: &[&str], ignored: &[&str], name: &str, kind: InterfaceKind, watched: bool| {
            let settings =
                WatchSettings { interfaces: list(interfaces), ignored: list(ignored), ..WatchSettings::default() };
            assert_eq!(reason(name, &[], kind, &settings).is_none(), watched, "{settings:?} {name} {kind:?}");
        };
        check(&["kind:veth"], &[], "veth12", InterfaceKind::Veth, true);
        check(&["kind:veth"], &[], "eth0", InterfaceKind::Ethernet, false);
        check(&["kind:veth", "eth0"], &[], "eth0", InterfaceKind::Ethernet, true);
        check(&["kind:eth"], &[], "eth0", InterfaceKind::Ethernet, false);
        check(&["kind:*"], &[], "eth0", InterfaceKind::Ethernet, false);
        check(&[], &["kind:vpn"], "wg0", InterfaceKind::Vpn, false);
        check(&[], &["kind:vpn", "!wg0"], "wg0", InterfaceKind::Vpn, true);
        check(&[], &["!kind:veth"], "veth12", InterfaceKind::Veth, true);
        check(&[], &["!kind:veth"], "docker0", InterfaceKind::Container, false);
    }

    #[test]
    fn settings_that_mention_a_name() {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let check = |interfaces: &[&str], ignored: &[&str], primary: &str, expect: bool| {
            let settings =
                WatchSettings { interfaces: list(interfaces), ignored: list(ignored), primary: primary.to_string() };
            assert_eq!(settings.mentions("ppp0"), expect, "{settings:?}");
        };
        check(&["ppp0"], &[], "", true);
        check(&["p*"], &[], "", true);
        check(&[], &["!ppp*"], "", true);
        check(&[], &["ppp0"], "", true);
        check(&[], &[], "ppp0", true);
        check(&[], &[], "", false);
        check(&["*", "**", "kind:ppp", "eth0"], &["!kind:ppp", "!*"], "wg0", false);
    }

    #[test]
    fn patterns_take_precedence_over_built_in_rules() {
        let settings = WatchSettings {
            interfaces: vec!["veth*".to_string()],
            ignored: vec!["veth1*".to_string()],
            ..WatchSettings::default()
        };
        assert_eq!(reason("veth1", &[], InterfaceKind::Veth, &settings), None);
        assert!(reason("eth0", &[], InterfaceKind::Ethernet, &settings).is_some());
        let settings = WatchSettings { ignored: vec!["eth*".to_string()], ..WatchSettings::default() };
        assert_eq!(
            reason("eth0", &[], InterfaceKind::Ethernet, &settings).as_deref(),
            Some("matches the pattern 'eth*' of interfaces to ignore")
        );
    }

    #[test]
    fn a_name_takes_precedence_over_patterns_and_rules() {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let check = |interfaces: &[&str], ignored: &[&str], name: &str, expect: bool| {
            let settings =
                WatchSettings { interfaces: list(interfaces), ignored: list(ignored), ..WatchSettings::default() };
            assert_eq!(reason(name, &[], InterfaceKind::Other, &settings).is_none(), expect, "{settings:?} {name}");
        };
        check(&[], &["!lo"], "lo", true);
        check(&[], &["!docker*"], "docker0", true);
        check(&[], &["eth*", "!eth1"], "eth1", true);
        check(&[], &["eth*", "!eth1"], "eth2", false);
        check(&[], &["!eth*", "eth1"], "eth1", false);
        check(&["eth*"], &["eth1"], "eth1", false);
        check(&["eth*"], &["eth1"], "eth2", true);
        check(&["eth*"], &["!wg0"], "wg0", true);
        check(&["eth*"], &["!wg0"], "wg1", false);
    }

    #[test]
    fn the_chosen_primary_interface_is_always_watched() {
        let primary = "wan0".to_string();
        let settings = WatchSettings { interfaces: vec!["eth*".to_string()], ignored: vec![primary.clone()], primary };
        assert_eq!(reason("wan0", &[], InterfaceKind::Loopback, &settings), None);
        assert!(reason("wan1", &[], InterfaceKind::Ethernet, &settings).is_some());
    }

    #[test]
    fn settings_match_altnames_and_the_own_name_takes_precedence() {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let check = |interfaces: &[&str], ignored: &[&str], primary: &str, altnames: &[&str], expect: Option<&str>| {
            let settings =
                WatchSettings { interfaces: list(interfaces), ignored: list(ignored), primary: primary.to_string() };
            let reason = reason("enp3s0", &list(altnames), InterfaceKind::Ethernet, &settings);
            assert_eq!(reason.as_deref(), expect, "{settings:?} {altnames:?}");
        };
        let other = Some("not among the interfaces to watch");
        check(&["wan"], &[], "", &["x", "wan"], None);
        check(&["w*"], &[], "", &["wan"], None);
        check(&["wan"], &[], "", &[], other);
        check(&["wan"], &[], "", &["wan0"], other);
        check(&[], &["w*"], "", &["wan"], Some("matches the pattern 'w*' of interfaces to ignore"));
        check(&[], &["wan"], "", &["wan"], Some("ignored by its altname 'wan'"));
        check(&[], &["e*", "!wan"], "", &["wan"], None);
        check(&["lan"], &["!w*"], "", &["wan"], None);
        check(&[], &["wan"], "wan", &["wan"], None);
        check(&["lan"], &[], "wan", &["wan"], None);
        // The own name.
        check(&[], &["wan", "!enp3s0"], "", &["wan"], None);
        check(&[], &["enp3s0", "!wan"], "", &["wan"], Some("ignored by its name"));
        check(&[], &["wan", "!w*"], "", &["wan"], Some("ignored by its altname 'wan'"));
        // The built-in rules match only the own name.
        check(&[], &[], "", &["veth0", "docker0", "lo"], None);
    }

    #[test]
    fn patterns() {
        let check = |pattern, name, expect| assert_eq!(matches(pattern, name), expect, "{pattern} {name}");
        check("eth0", "eth0", true);
        check("eth0", "eth01", false);
        check("eth*", "eth", true);
        check("*", "", true);
        check("*.ifb", "eth0.ifb", true);
        check("*.ifb", "eth0.ifb2", false);
        check("a*b*c", "aXbYc", true);
        check("a*b*c", "abc", true);
        check("a*b*c", "acb", false);
        check("a*a", "a", false);
        check("**", "x", true);
        check("", "", true);
        check("", "x", false);
        check("w*ü*", "wlanü0", true);
    }

    #[test]
    fn the_only_watched_link_is_the_primary_unless_the_default_route_differs() {
        let check = |watched: &[u32], route, expect| {
            assert_eq!(sole_interface(watched.iter().copied(), route), expect, "{watched:?} {route:?}");
        };
        check(&[], None, None);
        check(&[], Some(2), None);
        check(&[2], None, Some(2));
        check(&[2], Some(2), Some(2));
        check(&[2], Some(3), None);
        check(&[2, 3], None, None);
        check(&[2, 3], Some(2), None);
    }

    fn candidate(ifindex: u32, bytes: u64, packets: u64) -> PrimaryCandidate {
        PrimaryCandidate { ifindex, bytes, packets, elapsed_ms: 10_000 }
    }

    #[test]
    fn primary_by_score_and_default_route() {
        let check = |candidates: &[PrimaryCandidate], route, expect| {
            assert_eq!(primary(candidates, route), expect, "{candidates:?} {route:?}")
        };
        check(&[], None, None);
        check(&[candidate(2, 1023, 900)], Some(2), None);
        check(&[candidate(2, 1024, 1)], None, Some(2));
        check(&[candidate(2, 5000, 10), candidate(3, 9000, 10)], None, Some(3));
        check(&[candidate(2, 5000, 10), candidate(3, 9000, 10)], Some(2), Some(2));
        check(&[candidate(2, 100, 1), candidate(3, 9000, 10)], Some(2), Some(3));
        // 100 packets per second count more than 90 kB.
        check(&[candidate(2, 10_000, 1000), candidate(3, 90_000, 60)], None, Some(2));
        check(&[candidate(2, 5000, 10), candidate(3, 5000, 10)], None, Some(2));
        assert_eq!(PrimaryCandidate { elapsed_ms: 0, ..candidate(1, u64::MAX, u64::MAX) }.score(), u64::MAX);
    }
}
