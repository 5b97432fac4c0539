//! Settings: all of them in one document, and four on paths of their own, for clients of the original Net-Pulse, an
//! older program with the same paths.

use std::time::Duration;

use super::{REFRESH_TIMEOUT, SAVE_TIMEOUT, seconds};
use crate::config::{ChangedBy, Config, Origin, SETTINGS, Setting, SettingChanges, SettingType};
use crate::error::ErrorKind;
use crate::http::json::{
    self, DelaySetting, InterfacesChanged, InterfacesSetting, IntervalSetting, Ordered, RetriesSetting, SettingValue,
    Settings,
};
use crate::http::{Answer, Call, Context, HttpError};
use crate::live::{Iface, State};

pub fn all(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    let settings = document(&context.live.lock().config);
    Answer::json(&Settings { settings, saved: None })
}

pub fn patch(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let given = SETTINGS.iter().filter(|setting| call.values.has(setting.key));
    let changes: SettingChanges =
        given.map(|setting| (setting.key, call.values.text(setting.key).map(str::to_string))).collect();
    let zone = match changes.iter().find(|(key, _)| *key == "timezone") {
        Some((_, text)) => {
            let found = context.zone(text.as_deref().unwrap_or_default());
            Some(found.map_err(|error| {
                let status = if error.kind == ErrorKind::Transient { 503 } else { 500 };
                HttpError::new(status, format!("the time zone cannot be read: {error}"))
            })?)
        }
        None => None,
    };
    let saved = wait_for_sampler(context, context.live.change(zone, SAVE_TIMEOUT, |_| Ok::<_, HttpError>(changes))?);
    let settings = document(&context.live.lock().config);
    Answer::json(&Settings { settings, saved: Some(saved) })
}

/// Changes settings and returns whether the change is on disk. `changes` computes the change under the lock, so that
/// simultaneous changes do not overwrite each other.
pub(super) fn change(
    context: &Context,
    changes: impl FnOnce(&State) -> Result<SettingChanges, HttpError>,
) -> Result<bool, HttpError> {
    change_within(context, SAVE_TIMEOUT, changes)
}

pub(super) fn change_within(
    context: &Context,
    timeout: Duration,
    changes: impl FnOnce(&State) -> Result<SettingChanges, HttpError>,
) -> Result<bool, HttpError> {
    Ok(wait_for_sampler(context, context.live.change(None, timeout, changes)?))
}

/// Waits until the sampler has applied the change and read the counters again, so that the next request sees its
/// effect. Returns `saved` unchanged.
fn wait_for_sampler(context: &Context, saved: bool) -> bool {
    context.live.refresh(REFRESH_TIMEOUT);
    saved
}

fn document(config: &Config) -> Ordered<json::Setting> {
    let shown = SETTINGS.iter().filter(|setting| setting.changed_by != ChangedBy::Program);
    Ordered(shown.map(|setting| (setting.key, describe(config, setting))).collect())
}

fn describe(config: &Config, setting: &Setting) -> json::Setting {
    let (min, max) = match setting.kind {
        SettingType::Integer(low, high) => (Some(SettingValue::Integer(low)), Some(SettingValue::Integer(high))),
        SettingType::Decimal(low, high) => (Some(SettingValue::Decimal(low)), Some(SettingValue::Decimal(high))),
        _ => (None, None),
    };
    let words = match setting.kind {
        SettingType::Word(words) => Some(words.to_vec()),
        _ => None,
    };
    let origin = config.origin(setting.key);
    let configured = (value(config, setting), value(&Config::default(), setting));
    let (value, default) = match setting.key {
        // The flush interval depends on two settings, `flush` and `media`.
        "flush" => [config.flush_s(), config.media_flush_s()].map(|it| SettingValue::Integer(it.into())).into(),
        _ => configured,
    };
    let owner = config.owner(setting.key);
    json::Setting {
        value,
        default,
        // Only for `flush`: a flag or variable that sets `media` overrides a saved `flush`, and the active value is
        // then the default of that media.
        origin: if owner.is_some() && origin <= Origin::Saved { Origin::Default } else { origin }.name(),
        owner,
        kind: setting.kind.name(),
        min,
        max,
        words,
        flag: setting.flag,
        environment: setting.environment,
        help: setting.help,
        changeable: setting.changed_by == ChangedBy::User,
    }
}

fn value(config: &Config, setting: &Setting) -> SettingValue {
    let key = setting.key;
    match setting.kind {
        SettingType::Integer(..) => SettingValue::Integer(config.integer(key)),
        SettingType::Decimal(..) => SettingValue::Decimal(config.decimal(key)),
        SettingType::Word(_) | SettingType::Text | SettingType::Zone => {
            SettingValue::Text(config.text(key).to_string())
        }
        SettingType::List => SettingValue::List(config.list(key)),
        SettingType::Size => SettingValue::Integer(config.size(key)),
        SettingType::Switch => SettingValue::Switch(config.switch(key)),
    }
}

pub fn interfaces(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    let setting = {
        let state = context.live.lock();
        let monitored = state.inventory.interfaces.iter().filter(|iface| iface.monitored && iface.present());
        InterfacesSetting {
            interfaces: state.active.interfaces.clone(),
            monitored: monitored.map(|iface| iface.name.clone()).collect(),
        }
    };
    Answer::json(&setting)
}

pub fn put_interfaces(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let mut names: Vec<String> = Vec::new();
    let saved = change(context, |state| {
        let chosen = chosen(state, call)?;
        names = chosen.iter().map(|iface| iface.name.clone()).collect();
        Ok(interface_changes(state, &chosen))
    })?;
    Answer::json(&InterfacesChanged { message: "Monitored interfaces updated", interfaces: names, saved })
}

/// The requested interfaces, each once, found by name or altname.
fn chosen<'a>(state: &'a State, call: &Call) -> Result<Vec<&'a Iface>, HttpError> {
    let (mut chosen, mut unknown): (Vec<&Iface>, Vec<&str>) = (Vec::new(), Vec::new());
    for name in call.values.texts("interfaces") {
        match state.inventory.interface(name) {
            Some(iface) if !chosen.iter().any(|known| known.name == iface.name) => chosen.push(iface),
            None if !unknown.contains(&name) => unknown.push(name),
            _ => {}
        }
    }
    if !unknown.is_empty() {
        return Err(HttpError::new(400, format!("Invalid interfaces: {}", unknown.join(", "))));
    }
    // The kernel allows commas and stars in names. But the saved list is split at commas, and a star makes a pattern.
    if let Some(iface) = chosen.iter().find(|iface| iface.name.contains([',', '*'])) {
        let name = &iface.name;
        return Err(HttpError::new(
            400,
            format!("'{name}' cannot be chosen by name: a comma separates names, and a * makes a pattern"),
        ));
    }
    Ok(chosen)
}

fn interface_changes(state: &State, chosen: &[&Iface]) -> SettingChanges {
    let names: Vec<&str> = chosen.iter().map(|iface| iface.name.as_str()).collect();
    let mut changes = vec![("interfaces", (!names.is_empty()).then(|| names.join(",")))];
    // Entries of `ignore` that name one of these interfaces, and all `!` entries, would override the choice: drop them.
    let before = &state.active.ignored;
    let overrides = |pattern: &str| pattern.starts_with('!') || chosen.iter().any(|iface| iface.has_name(pattern));
    let after: Vec<String> = before.iter().filter(|pattern| !overrides(pattern)).cloned().collect();
    if !names.is_empty() && after != *before && state.config.owner("ignore").is_none() {
        changes.push(("ignore", (!after.is_empty()).then(|| after.join(","))));
    }
    changes
}

pub fn interval(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    let collection_interval_seconds = context.live.lock().active.interval_s;
    Answer::json(&IntervalSetting { collection_interval_seconds, saved: None })
}

pub fn put_interval(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let seconds = integer(call, "collection_interval")?;
    let saved = change(context, |_| Ok(vec![("interval", Some(seconds.to_string()))]))?;
    Answer::json(&IntervalSetting { collection_interval_seconds: seconds, saved: Some(saved) })
}

pub fn retries(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    let max_retries = context.live.lock().active.max_retries;
    Answer::json(&RetriesSetting { max_retries, saved: None })
}

pub fn put_retries(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let max_retries = integer(call, "max_retries")?;
    let saved = change(context, |_| Ok(vec![("max_retries", Some(max_retries.to_string()))]))?;
    Answer::json(&RetriesSetting { max_retries, saved: Some(saved) })
}

pub fn delay(context: &Context, _call: &Call) -> Result<Answer, HttpError> {
    let ms = context.live.lock().active.retry_delay_ms;
    Answer::json(&DelaySetting { retry_delay_seconds: f64::from(ms) / 1000.0, saved: None })
}

pub fn put_delay(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    // The route table limits it to 0.1 to 300.
    let ms = (call.values.decimal("retry_delay").unwrap_or(1.0) * 1000.0).round() as u32;
    let saved = change(context, |_| Ok(vec![("retry_delay", Some(seconds(ms)))]))?;
    Answer::json(&DelaySetting { retry_delay_seconds: f64::from(ms) / 1000.0, saved: Some(saved) })
}

fn integer(call: &Call, param: &str) -> Result<u32, HttpError> {
    u32::try_from(call.values.count(param))
        .map_err(|_| HttpError::new(500, format!("net-pulse is at fault: {param} is too large")))
}
