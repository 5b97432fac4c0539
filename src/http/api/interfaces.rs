//! Interfaces: what they are, and what their counters say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{READ_PATIENCE, link_word, no_interface};
use crate::http::json::{Address, Interface, InterfaceStats, Map, Time, write};
use crate::http::{Answer, Call, Context, Fault, JSON};
use crate::live::Iface;

pub fn all(context: &Context, _call: &Call) -> Result<Answer, Fault> {
    let map: Map<Interface> = {
        let state = context.live.lock();
        let primary = state.primary.as_deref();
        state.interfaces.iter().map(|iface| (iface.name.clone(), describe(iface, primary))).collect()
    };
    Ok(Answer::stream(JSON, move |_, out| write(out, &map)))
}

pub fn one(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let name = call.values.text("name").unwrap_or_default();
    let found = {
        let state = context.live.lock();
        state.interface(name).map(|iface| describe(iface, state.primary.as_deref()))
    };
    Answer::json(&found.ok_or_else(|| no_interface(name))?)
}

pub fn stats(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let name = call.values.text("name").unwrap_or_default();
    let known = |name: &str| context.live.lock().interface(name).is_some_and(Iface::present);
    if !known(name) {
        return Err(no_interface(name));
    }
    context.live.refresh(READ_PATIENCE);
    let unix = context.clock.now().unix_ms.div_euclid(1000);
    let found = {
        let state = context.live.lock();
        state.interface(name).filter(|iface| iface.present()).map(|iface| raw(iface, unix))
    };
    Answer::json(&found.ok_or_else(|| no_interface(name))?)
}

fn raw(iface: &Iface, unix: i64) -> InterfaceStats {
    let [rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_drops, tx_drops] = iface.raw.0;
    InterfaceStats {
        interface_name: iface.name.clone(),
        rx_bytes,
        tx_bytes,
        rx_packets,
        tx_packets,
        rx_errors,
        tx_errors,
        rx_drops,
        tx_drops,
        timestamp: Time(unix),
        status: link_word(iface),
    }
}

fn describe(iface: &Iface, primary: Option<&str>) -> Interface {
    Interface {
        name: iface.name.clone(),
        addresses: iface.addresses.iter().map(address).collect(),
        status: link_word(iface),
        mtu: iface.mtu,
        speed: iface.speed,
        kind: iface.kind.name(),
        mac: (!iface.mac.is_empty()).then(|| iface.mac.clone()),
        ifindex: iface.ifindex,
        alias: iface.alias.clone(),
        present: iface.present(),
        monitored: iface.monitored,
        primary: primary == Some(&iface.name),
        parent: iface.parent.clone(),
        ignored_because: iface.ignored_because.clone(),
        rx_rate: iface.rates.map(|rates| rates.0),
        tx_rate: iface.rates.map(|rates| rates.1),
        lifetime_rx_bytes: iface.lifetime.rx_bytes(),
        lifetime_tx_bytes: iface.lifetime.tx_bytes(),
    }
}

fn address(address: &crate::model::Address) -> Address {
    let prefix = u32::from(address.prefix);
    let (family, netmask) = match address.ip {
        IpAddr::V4(_) => ("inet", Ipv4Addr::from(!u32::MAX.checked_shr(prefix).unwrap_or(0)).to_string()),
        IpAddr::V6(_) => ("inet6", Ipv6Addr::from(!u128::MAX.checked_shr(prefix).unwrap_or(0)).to_string()),
    };
    Address {
        family,
        address: address.ip.to_string(),
        netmask,
        broadcast: address.broadcast.map(|address| address.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks() {
        let check = |ip: &str, prefix, family, netmask: &str| {
            let found =
                address(&crate::model::Address { ifindex: 1, ip: ip.parse().unwrap(), prefix, broadcast: None });
            assert_eq!((found.family, found.netmask.as_str()), (family, netmask));
        };
        check("192.168.1.1", 24, "inet", "255.255.255.0");
        check("10.0.0.1", 0, "inet", "0.0.0.0");
        check("10.0.0.1", 32, "inet", "255.255.255.255");
        check("10.0.0.1", 200, "inet", "255.255.255.255");
        check("fe80::1", 64, "inet6", "ffff:ffff:ffff:ffff::");
        check("::1", 128, "inet6", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        check("::1", 0, "inet6", "::");
        check("::1", 255, "inet6", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    }
}
