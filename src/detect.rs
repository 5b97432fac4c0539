//! Decides what kind of interface a link is, whether it is watched, and which interface is the primary one. Pure: the
//! caller passes the facts in.

use crate::model::{BY_KIND, Kind, Link};

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

/// By driver name (IFLA_INFO_KIND). The most reliable source where the kernel has one.
const BY_DRIVER: [(&str, Kind); 26] = [
    ("bridge", Kind::Bridge),
    ("bond", Kind::Bond),
    ("team", Kind::Bond),
    ("vlan", Kind::Vlan),
    ("veth", Kind::Veth),
    ("wireguard", Kind::Vpn),
    ("amneziawg", Kind::Vpn),
    ("ovpn", Kind::Vpn),
    ("tun", Kind::Vpn),
    ("ppp", Kind::Ppp),
    ("sit", Kind::Vpn),
    ("gre", Kind::Vpn),
    ("gretap", Kind::Vpn),
    ("ipip", Kind::Vpn),
    ("ip6tnl", Kind::Vpn),
    ("vti", Kind::Vpn),
    ("xfrm", Kind::Vpn),
    ("rmnet", Kind::Wwan),
    ("ifb", Kind::Virtual),
    ("dummy", Kind::Virtual),
    ("macvlan", Kind::Container),
    ("ipvlan", Kind::Container),
    ("macvtap", Kind::Container),
    ("ipvtap", Kind::Container),
    ("vxlan", Kind::Virtual),
    ("dsa", Kind::Ethernet),
];

/// By `DEVTYPE` of the uevent.
const BY_DEVTYPE: [(&str, Kind); 5] =
    [("wlan", Kind::Wifi), ("wwan", Kind::Wwan), ("bridge", Kind::Bridge), ("bond", Kind::Bond), ("vlan", Kind::Vlan)];

/// By hardware type (ARPHRD_*).
const BY_HARDWARE: [(u16, Kind); 8] = [
    (ARPHRD_LOOPBACK, Kind::Loopback),
    (ARPHRD_PPP, Kind::Ppp),
    (ARPHRD_TUNNEL, Kind::Vpn),
    (ARPHRD_TUNNEL6, Kind::Vpn),
    (ARPHRD_SIT, Kind::Vpn),
    (ARPHRD_IPGRE, Kind::Vpn),
    (ARPHRD_RAWIP, Kind::Wwan),
    (ARPHRD_NONE, Kind::Vpn),
];

/// By name, for links without a driver name (read from sysfs, or on another system). The first match counts.
const BY_NAME: [(&str, Kind); 40] = [
    ("docker*", Kind::Container),
    ("podman*", Kind::Container),
    ("cni*", Kind::Container),
    ("lxc*", Kind::Container),
    ("macvlan*", Kind::Container),
    ("macvtap*", Kind::Container),
    ("ipvlan*", Kind::Container),
    ("ipvtap*", Kind::Container),
    ("virbr*", Kind::Bridge),
    ("br-*", Kind::Bridge),
    ("bridge*", Kind::Bridge),
    ("veth*", Kind::Veth),
    ("bond*", Kind::Bond),
    ("wg*", Kind::Vpn),
    ("tun*", Kind::Vpn),
    ("tap*", Kind::Vpn),
    ("utun*", Kind::Vpn),
    ("tailscale*", Kind::Vpn),
    ("zt*", Kind::Vpn),
    ("ipsec*", Kind::Vpn),
    ("ppp*", Kind::Ppp),
    ("pppoe-*", Kind::Ppp),
    ("wwan*", Kind::Wwan),
    ("wwp*", Kind::Wwan),
    ("usb*", Kind::Wwan),
    ("rmnet*", Kind::Wwan),
    ("wlan*", Kind::Wifi),
    ("wl*", Kind::Wifi),
    ("phy*-ap*", Kind::Wifi),
    ("phy*-sta*", Kind::Wifi),
    ("ath*", Kind::Wifi),
    ("ra*", Kind::Wifi),
    ("awdl*", Kind::Apple),
    ("llw*", Kind::Apple),
    ("anpi*", Kind::Apple),
    ("ap*", Kind::Apple),
    ("ifb*", Kind::Virtual),
    ("dummy*", Kind::Virtual),
    ("lo", Kind::Loopback),
    ("lo0", Kind::Loopback),
];

/// The kind of a link. Facts from the kernel take precedence over its name.
pub fn kind(link: &Link) -> Kind {
    let driver = BY_DRIVER.iter().find(|(word, _)| *word == link.driver).map(|(_, kind)| *kind);
    let devtype = BY_DEVTYPE.iter().find(|(word, _)| *word == link.devtype).map(|(_, kind)| *kind);
    let by_name = || BY_NAME.iter().find(|(pattern, _)| matches(pattern, &link.name)).map(|(_, kind)| *kind);
    if link.hardware == ARPHRD_LOOPBACK {
        return Kind::Loopback;
    }
    if link.wireless {
        return Kind::Wifi;
    }
    if is_guest_tap(link) {
        return Kind::Virtual;
    }
    if let Some(kind) = driver.or(devtype) {
        // The bridge of a container engine counts as a container, because that is how its owner sees it.
        return match by_name() {
            Some(Kind::Container) if kind == Kind::Bridge => Kind::Container,
            _ => kind,
        };
    }
    if let Some((_, kind)) = BY_HARDWARE.iter().find(|(hardware, _)| *hardware == link.hardware) {
        return *kind;
    }
    match by_name() {
        Some(kind) if !link.physical || kind == Kind::Wwan => kind,
        _ if link.physical => Kind::Ethernet,
        _ if link.name.contains('.') => Kind::Vlan,
        _ if link.hardware == ARPHRD_ETHER => Kind::Ethernet,
        _ => Kind::Other,
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

/// Reason for a guest link: the host's end of a virtual cable (veth, tap) to a container, virtual machine or namespace.
const GUEST_LINK: &str = "virtual cable to a container, virtual machine or namespace: comes and goes with it";

/// What a link with a name in `GUEST_LINK_NAMES` must also be to count as a guest link.
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
    // Kubernetes: Calico, Cilium and LXC, Amazon, Azure, Google, Antrea.
    ("cali*", Requires::NotBridge),
    ("lxc*", Requires::NotBridge),
    ("eni*", Requires::NotBridge),
    ("azv*", Requires::NotBridge),
    ("gke*", Requires::NotBridge),
    ("nsm-*", Requires::NotBridge),
];

/// Names of uplinks and home networks, which are never guest links. A veth with such a name is the inner end: Net-Pulse
/// itself runs in the container.
const NEVER_GUEST_LINKS: [&str; 3] = ["eth*", "wan*", "lan*"];

/// The place of a link in the host's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The link has an address beyond link-local scope or the default route, or had one earlier in this run.
    pub is_end: bool,
    /// The link is a port of a bridge or bond that has other ports too.
    pub beside_others: bool,
}

/// Whether a link is a guest link. Its traffic also passes the uplink and is counted there.
fn is_guest_link(link: &Link, standing: Standing) -> bool {
    if standing.is_end || link.physical || NEVER_GUEST_LINKS.iter().any(|pattern| matches(pattern, &link.name)) {
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
    GUEST_LINK_NAMES.iter().any(generated) || (link.driver == "veth" && is_port && standing.beside_others)
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
pub struct Wanted {
    /// Patterns of the setting `interfaces`. If there are any, a link is watched only if one matches; the built-in
    /// rules do not apply then.
    pub interfaces: Vec<String>,
    /// Patterns of the setting `ignore`, in addition to the built-in rules. `!` before a pattern means: never ignore.
    pub ignored: Vec<String>,
    /// Name of the primary interface that the user chose; it is always watched. Empty for none.
    pub primary: String,
}

impl Wanted {
    /// Whether a setting names this link. A pattern that consists only of `*` and a pattern for a kind name no link.
    pub fn speaks_of(&self, name: &str) -> bool {
        let names_links = |pattern: &&str| !pattern.starts_with(BY_KIND) && pattern.bytes().any(|byte| byte != b'*');
        let bare = |pattern: &'_ String| pattern.strip_prefix('!').unwrap_or(pattern).to_string();
        let mut patterns = self.interfaces.iter().chain(&self.ignored).map(bare);
        self.primary == name || patterns.any(|pattern| names_links(&pattern.as_str()) && matches(&pattern, name))
    }
}

/// Why a link is not watched, as a text for the user; `None` if it is watched. Settings match its altnames too, the
/// built-in rules only its own name.
pub fn ignored_because(link: &Link, kind: Kind, standing: Standing, wanted: &Wanted) -> Option<String> {
    let Link { name, altnames, .. } = link;
    let fits = |pattern: &str| fits(pattern, name, altnames, kind);
    if *name == wanted.primary || altnames.contains(&wanted.primary) {
        return None;
    }
    // A full name takes precedence over a pattern, and the link's own name over an altname.
    if wanted.ignored.iter().any(|ignored| ignored == name) {
        return Some("ignored by its name".to_string());
    }
    let kept = || wanted.ignored.iter().filter_map(|pattern| pattern.strip_prefix('!'));
    if kept().any(|kept| kept == name) {
        return None;
    }
    if let Some(altname) = altnames.iter().find(|altname| wanted.ignored.contains(altname)) {
        return Some(format!("ignored by its altname '{altname}'"));
    }
    if kept().any(fits) {
        return None;
    }
    if !wanted.interfaces.is_empty() {
        let listed = wanted.interfaces.iter().any(|pattern| fits(pattern));
        return (!listed).then(|| "not among the interfaces to watch".to_string());
    }
    if let Some(pattern) = wanted.ignored.iter().find(|pattern| fits(pattern)) {
        return Some(format!("matches the pattern '{pattern}' of interfaces to ignore"));
    }
    if kind == Kind::Loopback {
        return Some(DEFAULT_IGNORED[0].1.to_string());
    }
    if let Some((_, reason)) = DEFAULT_IGNORED.iter().find(|(pattern, _)| matches(pattern, name)) {
        return Some((*reason).to_string());
    }
    if is_guest_link(link, standing) {
        return Some(GUEST_LINK.to_string());
    }
    is_container_bridge(name).then(|| "container bridge: its traffic is counted on the uplink".to_string())
}

/// Docker names the bridge of a network `br-` and twelve hex digits. At least eight are required here, because a
/// router's own bridge may have a short name that looks like hex (`br-dad`).
fn is_container_bridge(name: &str) -> bool {
    name.strip_prefix("br-").is_some_and(|rest| rest.len() >= 8 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a pattern matches a link's name or one of its altnames, or is `kind:` and the link's kind.
pub fn fits(pattern: &str, name: &str, altnames: &[String], kind: Kind) -> bool {
    if let Some(word) = pattern.strip_prefix(BY_KIND) {
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
pub struct Claim {
    pub ifindex: u32,
    /// Received and sent, within `elapsed_ms`.
    pub bytes: u64,
    pub packets: u64,
    pub elapsed_ms: u64,
}

/// A link with less traffic than this cannot become the primary interface.
const MIN_PRIMARY_BYTES: u64 = 1024;

impl Claim {
    pub fn qualifies(&self) -> bool {
        self.bytes >= MIN_PRIMARY_BYTES
    }

    /// Bytes plus 1000 for each packet per second, so that interactive traffic with small packets counts as well.
    pub fn score(&self) -> u64 {
        let per_second = self.packets.saturating_mul(1000) / self.elapsed_ms.max(1);
        self.bytes.saturating_add(per_second.saturating_mul(1000))
    }
}

/// The only watched link, which needs no comparison. `None` if there are several, or if the default route uses another
/// link.
pub fn only(mut watched: impl Iterator<Item = u32>, default_route: Option<u32>) -> Option<u32> {
    let first = watched.next()?;
    (watched.next().is_none() && default_route.is_none_or(|route| route == first)).then_some(first)
}

/// The choice before any traffic was measured: the link of the default route, else the one with the most bytes in its
/// kernel counters.
pub fn provisional(carried: impl Iterator<Item = (u32, u64)>, default_route: Option<u32>) -> Option<u32> {
    let is_route = |ifindex: u32| Some(ifindex) == default_route;
    let best = carried.max_by_key(|(ifindex, bytes)| (is_route(*ifindex), *bytes, std::cmp::Reverse(*ifindex)));
    best.filter(|(ifindex, bytes)| is_route(*ifindex) || *bytes > 0).map(|(ifindex, _)| ifindex)
}

/// The primary interface: the link of the default route if it carried at least `MIN_PRIMARY_BYTES`, else the busiest.
pub fn primary(claims: &[Claim], default_route: Option<u32>) -> Option<u32> {
    let best = claims
        .iter()
        .filter(|claim| claim.qualifies())
        .max_by_key(|claim| (Some(claim.ifindex) == default_route, claim.score(), std::cmp::Reverse(claim.ifindex)));
    best.map(|claim| claim.ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, driver: &str, hardware: u16) -> Link {
        Link { name: name.to_string(), driver: driver.to_string(), hardware, ..Link::default() }
    }

    fn reason(name: &str, altnames: &[String], kind: Kind, wanted: &Wanted) -> Option<String> {
        let link = Link { altnames: altnames.to_vec(), ..link(name, "", ARPHRD_ETHER) };
        ignored_because(&link, kind, Standing::default(), wanted)
    }

    #[test]
    fn kinds() {
        let check = |link: Link, expect| assert_eq!(kind(&link), expect, "{link:?}");
        check(link("lo", "", 772), Kind::Loopback);
        check(link("eth0", "", 1), Kind::Ethernet);
        check(Link { physical: true, ..link("enp3s0", "", 1) }, Kind::Ethernet);
        check(Link { wireless: true, physical: true, ..link("wlp2s0", "", 1) }, Kind::Wifi);
        check(Link { devtype: "wlan".to_string(), ..link("phy0-ap0", "", 1) }, Kind::Wifi);
        check(Link { devtype: "wwan".to_string(), physical: true, ..link("wwan0", "", 65534) }, Kind::Wwan);
        check(link("rmnet_data0", "", 519), Kind::Wwan);
        check(link("wg0", "wireguard", 65534), Kind::Vpn);
        check(link("tun0", "tun", 65534), Kind::Vpn);
        check(link("utun3", "", 0), Kind::Vpn);
        check(link("macvtap0", "macvtap", 1), Kind::Container);
        check(link("guest0", "macvtap", 1), Kind::Container);
        check(link("guest0", "ipvtap", 1), Kind::Container);
        check(link("macvtap0", "", 1), Kind::Container);
        check(link("ipvtap7", "", 1), Kind::Container);
        check(link("macvlan1", "", 1), Kind::Container);
        check(link("pppoe-wan", "ppp", 512), Kind::Ppp);
        check(link("ppp0", "", 512), Kind::Ppp);
        check(link("br-lan", "bridge", 1), Kind::Bridge);
        check(link("docker0", "bridge", 1), Kind::Container);
        check(link("bond0", "bond", 1), Kind::Bond);
        check(link("eth0.7", "vlan", 1), Kind::Vlan);
        check(link("eth0.7", "", 1), Kind::Vlan);
        check(link("vethab12", "veth", 1), Kind::Veth);
        check(link("eth0", "veth", 1), Kind::Veth);
        check(link("lan1", "dsa", 1), Kind::Ethernet);
        check(link("awdl0", "", 1), Kind::Apple);
        check(link("ifb0", "ifb", 1), Kind::Virtual);
        check(link("odd", "", 32), Kind::Other);
        // A physical device is not classified by its name.
        check(Link { physical: true, ..link("rail0", "", 1) }, Kind::Ethernet);
    }

    #[test]
    fn a_tap_that_is_a_port_of_a_bridge_belongs_to_a_virtual_machine() {
        let check = |name: &str, driver: &str, master: &str, expect| {
            let port = Link { master_driver: master.to_string(), ..link(name, driver, ARPHRD_ETHER) };
            assert_eq!(kind(&port), expect, "{port:?}");
        };
        for bridge in ["bridge", "openvswitch"] {
            for name in ["vnet3", "tap0", "tap100i0", "guest"] {
                check(name, "tun", bridge, Kind::Virtual);
            }
            // Without a driver name, the link's name decides.
            check("vnet3", "", bridge, Kind::Virtual);
            check("tap0", "", bridge, Kind::Virtual);
            check("eth3", "", bridge, Kind::Ethernet);
            check("wg0", "wireguard", bridge, Kind::Vpn);
            check("vethab12", "veth", bridge, Kind::Veth);
            check("tap0", "gretap", bridge, Kind::Vpn);
        }
        // OpenVPN.
        check("tap0", "tun", "", Kind::Vpn);
        check("vnet0", "tun", "", Kind::Vpn);
        check("tap0", "", "", Kind::Vpn);
        check("tap0", "tun", "bond", Kind::Vpn);
        check("tap0", "tun", "vrf", Kind::Vpn);
        let card = Link { physical: true, master_driver: "bridge".to_string(), ..link("tap0", "", ARPHRD_ETHER) };
        assert_eq!(kind(&card), Kind::Ethernet);
    }

    #[test]
    fn e29_links_ignored_by_default() {
        let wanted = Wanted::default();
        let check = |name: &str, kind, ignored: bool| {
            assert_eq!(reason(name, &[], kind, &wanted).is_some(), ignored, "{name}");
        };
        check("lo", Kind::Loopback, true);
        check("loop", Kind::Loopback, true);
        check("veth12ab", Kind::Veth, true);
        check("eth0", Kind::Veth, false);
        check("docker0", Kind::Container, true);
        check("br-0123456789ab", Kind::Bridge, true);
        check("br-lan", Kind::Bridge, false);
        check("br-beefcafe", Kind::Bridge, true);
        check("br-dad", Kind::Bridge, false);
        check("ifb4eth0", Kind::Virtual, true);
        check("eth0.ifb", Kind::Other, true);
        check("dummy0", Kind::Virtual, true);
        check("pppoe-wan", Kind::Ppp, false);
        check("wg0", Kind::Vpn, false);
    }

    #[test]
    fn guest_links_are_recognised_by_name_and_by_bridge() {
        let check_at = |name: &str, driver: &str, master: &str, standing: Standing, ignored: bool| {
            let link = Link { master_driver: master.to_string(), ..link(name, driver, ARPHRD_ETHER) };
            let reason = ignored_because(&link, kind(&link), standing, &Wanted::default());
            assert_eq!(reason.as_deref(), ignored.then_some(GUEST_LINK), "{name} {driver} {master} {standing:?}");
        };
        let check = |name, driver, master, ignored| check_at(name, driver, master, Standing::default(), ignored);
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
            check_at(name, driver, master, Standing { is_end: true, beside_others: true }, false);
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
        let beside = Standing { beside_others: true, is_end: false };
        check_at("web", "veth", "bridge", beside, true);
        check_at("web", "veth", "openvswitch", beside, true);
        for (name, driver, master) in [
            ("eth0", "veth", "bridge"),
            ("wan", "veth", "bridge"),
            ("lan2", "veth", "bridge"),
            ("web", "vlan", "bridge"),
            ("web", "", "bridge"),
            ("web", "veth", "bond"),
        ] {
            check_at(name, driver, master, beside, false);
        }
        let card = Link { physical: true, ..link("eni0", "", ARPHRD_ETHER) };
        assert_eq!(ignored_because(&card, Kind::Ethernet, Standing::default(), &Wanted::default()), None);
    }

    #[test]
    fn a_kind_works_like_a_pattern() {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let check = |interfaces: &[&str], ignored: &[&str], name: &str, kind: Kind, watched: bool| {
            let wanted = Wanted { interfaces: list(interfaces), ignored: list(ignored), ..Wanted::default() };
            assert_eq!(reason(name, &[], kind, &wanted).is_none(), watched, "{wanted:?} {name} {kind:?}");
        };
        check(&["kind:veth"], &[], "veth12", Kind::Veth, true);
        check(&["kind:veth"], &[], "eth0", Kind::Ethernet, false);
        check(&["kind:veth", "eth0"], &[], "eth0", Kind::Ethernet, true);
        check(&["kind:eth"], &[], "eth0", Kind::Ethernet, false);
        check(&["kind:*"], &[], "eth0", Kind::Ethernet, false);
        check(&[], &["kind:vpn"], "wg0", Kind::Vpn, false);
        check(&[], &["kind:vpn", "!wg0"], "wg0", Kind::Vpn, true);
        check(&[], &["!kind:veth"], "veth12", Kind::Veth, true);
        check(&[], &["!kind:veth"], "docker0", Kind::Container, false);
    }

    #[test]
    fn settings_that_mention_a_name() {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let check = |interfaces: &[&str], ignored: &[&str], primary: &str, expect: bool| {
            let wanted = Wanted { interfaces: list(interfaces), ignored: list(ignored), primary: primary.to_string() };
            assert_eq!(wanted.speaks_of("ppp0"), expect, "{wanted:?}");
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
        let wanted =
            Wanted { interfaces: vec!["veth*".to_string()], ignored: vec!["veth1*".to_string()], ..Wanted::default() };
        assert_eq!(reason("veth1", &[], Kind::Veth, &wanted), None);
        assert!(reason("eth0", &[], Kind::Ethernet, &wanted).is_some());
        let wanted = Wanted { ignored: vec!["eth*".to_string()], ..Wanted::default() };
        assert_eq!(
            reason("eth0", &[], Kind::Ethernet, &wanted).as_deref(),
            Some("matches the pattern 'eth*' of interfaces to ignore")
        );
    }

    #[test]
    fn a_name_takes_precedence_over_patterns_and_rules() {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let check = |interfaces: &[&str], ignored: &[&str], name: &str, expect: bool| {
            let wanted = Wanted { interfaces: list(interfaces), ignored: list(ignored), ..Wanted::default() };
            assert_eq!(reason(name, &[], Kind::Other, &wanted).is_none(), expect, "{wanted:?} {name}");
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
        let wanted = Wanted { interfaces: vec!["eth*".to_string()], ignored: vec![primary.clone()], primary };
        assert_eq!(reason("wan0", &[], Kind::Loopback, &wanted), None);
        assert!(reason("wan1", &[], Kind::Ethernet, &wanted).is_some());
    }

    #[test]
    fn settings_match_altnames_and_the_own_name_takes_precedence() {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let check = |interfaces: &[&str], ignored: &[&str], primary: &str, altnames: &[&str], expect: Option<&str>| {
            let wanted = Wanted { interfaces: list(interfaces), ignored: list(ignored), primary: primary.to_string() };
            let reason = reason("enp3s0", &list(altnames), Kind::Ethernet, &wanted);
            assert_eq!(reason.as_deref(), expect, "{wanted:?} {altnames:?}");
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
        // The built-in rules look at the own name only.
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
            assert_eq!(only(watched.iter().copied(), route), expect, "{watched:?} {route:?}");
        };
        check(&[], None, None);
        check(&[], Some(2), None);
        check(&[2], None, Some(2));
        check(&[2], Some(2), Some(2));
        check(&[2], Some(3), None);
        check(&[2, 3], None, None);
        check(&[2, 3], Some(2), None);
    }

    fn claim(ifindex: u32, bytes: u64, packets: u64) -> Claim {
        Claim { ifindex, bytes, packets, elapsed_ms: 10_000 }
    }

    #[test]
    fn primary_by_score_and_default_route() {
        let check =
            |claims: &[Claim], route, expect| assert_eq!(primary(claims, route), expect, "{claims:?} {route:?}");
        check(&[], None, None);
        check(&[claim(2, 1023, 900)], Some(2), None);
        check(&[claim(2, 1024, 1)], None, Some(2));
        check(&[claim(2, 5000, 10), claim(3, 9000, 10)], None, Some(3));
        check(&[claim(2, 5000, 10), claim(3, 9000, 10)], Some(2), Some(2));
        check(&[claim(2, 100, 1), claim(3, 9000, 10)], Some(2), Some(3));
        // 100 packets per second count more than 90 kB.
        check(&[claim(2, 10_000, 1000), claim(3, 90_000, 60)], None, Some(2));
        check(&[claim(2, 5000, 10), claim(3, 5000, 10)], None, Some(2));
        assert_eq!(Claim { elapsed_ms: 0, ..claim(1, u64::MAX, u64::MAX) }.score(), u64::MAX);
    }
}
