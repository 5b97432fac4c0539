//! Interfaces: their properties, their raw counters, and changes to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{REFRESH_TIMEOUT, SAVE_TIMEOUT, find_interface, history_not_open, interface_not_found, link_state};
use crate::config::is_literal_pattern;
use crate::history::Sums;
use crate::http::json::{Address, ByName, FlatCounters, Flaw, Forgotten, Interface, InterfaceStats, Time, write};
use crate::http::{Answer, Call, Context, HttpError, JSON};
use crate::live::{CommandRefusal, Iface, InterfaceCommand, InterfaceEdit};

/// Timeout for an interface command. The sampler blocks on nothing but the kernel.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

pub fn all(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let today = context.history.today(call.unix())?;
    let map: ByName<Interface> = {
        let state = context.live.lock();
        let primary = state.inventory.primary.as_deref();
        state.inventory.interfaces.iter().map(|iface| (iface.name.clone(), describe(iface, primary, &today))).collect()
    };
    Ok(Answer::stream(JSON, move |_, out| write(out, &map)))
}

pub fn one(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    Answer::json(&find(context, call)?)
}

fn find(context: &Context, call: &Call) -> Result<Interface, HttpError> {
    let name = name(call);
    let today = context.history.today(call.unix())?;
    let state = context.live.lock();
    let found =
        state.inventory.interface(name).map(|iface| describe(iface, state.inventory.primary.as_deref(), &today));
    found.ok_or_else(|| interface_not_found(name))
}

fn name<'a>(call: &'a Call) -> &'a str {
    call.values.text("name").unwrap_or_default()
}

pub fn patch(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let edit = {
        let state = context.live.lock();
        let iface = find_interface(&state, name(call))?;
        let merge = match call.values.text("merge") {
            Some(name) => {
                let other = find_interface(&state, name)?;
                if other.name == iface.name {
                    return Err(validation_error("merge", "must be another interface", name));
                }
                Some(other.name.clone())
            }
            None => None,
        };
        if call.values.has("monitored") && !is_literal_pattern(&iface.name) {
            let msg = "must be left out: this interface name would be read as a pattern";
            return Err(validation_error("monitored", msg, &iface.name));
        }
        InterfaceEdit {
            name: iface.name.clone(),
            merge,
            alias: call.values.text("alias").map(|alias| alias.trim().to_string()),
            monitored: call.values.has("monitored").then(|| call.values.switch("monitored")),
            primary: call.values.switch("primary"),
        }
    };
    let saved = edit.is_empty() || send_command(context, InterfaceCommand::Edit(edit))?;
    Answer::json(&Interface { saved: Some(saved), ..find(context, call)? })
}

pub fn forget(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let name = {
        let state = context.live.lock();
        let iface = find_interface(&state, name(call))?;
        if iface.present() {
            return Err(still_present(&iface.name));
        }
        iface.name.clone()
    };
    let saved = send_command(context, InterfaceCommand::Forget { name: name.clone() })?;
    Answer::json(&Forgotten { message: format!("{name} and its history are forgotten"), saved })
}

/// Sends an interface command to the sampler. Returns whether its result is on disk.
fn send_command(context: &Context, command: InterfaceCommand) -> Result<bool, HttpError> {
    match context.live.submit_command(command, COMMAND_TIMEOUT) {
        Some(Ok(ticket)) => Ok(context.live.wait_until_saved(ticket, SAVE_TIMEOUT)),
        Some(Err(CommandRefusal::Unknown(name))) => Err(interface_not_found(&name)),
        Some(Err(CommandRefusal::Present(name))) => Err(still_present(&name)),
        Some(Err(CommandRefusal::Setting(refused))) => Err(refused.into()),
        Some(Err(CommandRefusal::IsPrimary(name))) => {
            let detail =
                format!("{name} is the chosen primary interface, which is always watched: send \"primary\":false too");
            Err(HttpError::new(409, detail))
        }
        Some(Err(CommandRefusal::Contradiction)) => Err(HttpError::new(
            409,
            "the primary interface is always watched: \"primary\":true and \"monitored\":false exclude each other",
        )),
        Some(Err(CommandRefusal::HistoryNotOpen)) => Err(history_not_open()),
        None => Err(HttpError::new(
            503,
            "the sampler is busy and makes the change later: request the interface again to see it",
        )),
    }
}

fn still_present(name: &str) -> HttpError {
    let detail = format!(
        "{name} is present: only an absent interface can be merged or forgotten; to stop watching it, send \"monitored\":false"
    );
    HttpError::new(409, detail)
}

fn validation_error(member: &str, msg: &str, input: &str) -> HttpError {
    let loc = ["body", member].map(str::to_string).to_vec();
    HttpError::flaws(vec![Flaw { loc, msg: msg.to_string(), input: input.to_string() }])
}

pub fn stats(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let name = name(call);
    let is_present = |name: &str| context.live.lock().inventory.interface(name).is_some_and(Iface::present);
    if !is_present(name) {
        return Err(interface_not_found(name));
    }
    context.live.refresh(REFRESH_TIMEOUT);
    let unix = context.clock.now().unix_ms.div_euclid(1000);
    let found = {
        let state = context.live.lock();
        state.inventory.interface(name).filter(|iface| iface.present()).map(|iface| raw_counters(iface, unix))
    };
    Answer::json(&found.ok_or_else(|| interface_not_found(name))?)
}

fn raw_counters(iface: &Iface, unix: i64) -> InterfaceStats {
    InterfaceStats {
        interface_name: iface.name.clone(),
        counters: FlatCounters(iface.raw),
        timestamp: Time(unix),
        status: link_state(iface),
    }
}

fn describe(iface: &Iface, primary: Option<&str>, today: &Sums) -> Interface {
    let today = iface.id.and_then(|id| today.get(&id)).copied().unwrap_or_default();
    Interface {
        name: iface.name.clone(),
        altnames: iface.altnames.clone(),
        addresses: iface.addresses.iter().map(address).collect(),
        status: link_state(iface),
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
        today_rx_bytes: today.rx_bytes(),
        today_tx_bytes: today.tx_bytes(),
        lifetime_rx_bytes: iface.lifetime.rx_bytes(),
        lifetime_tx_bytes: iface.lifetime.tx_bytes(),
        saved: None,
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
