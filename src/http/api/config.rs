//! The settings that may be changed while running.

use super::collector::seconds;
use super::{SAVE_PATIENCE, free};
use crate::http::json::{DelaySetting, InterfacesChanged, InterfacesSetting, IntervalSetting, RetriesSetting};
use crate::http::{Answer, Call, Context, Fault};
use crate::live::Tuning;

pub fn interfaces(context: &Context, _call: &Call) -> Result<Answer, Fault> {
    let setting = {
        let state = context.live.lock();
        let monitored = state.interfaces.iter().filter(|iface| iface.monitored && iface.present());
        InterfacesSetting {
            interfaces: state.tuning.interfaces.clone(),
            monitored: monitored.map(|iface| iface.name.clone()).collect(),
        }
    };
    Answer::json(&setting)
}

pub fn put_interfaces(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let mut names: Vec<String> = Vec::new();
    {
        let state = context.live.lock();
        free(&state, "interfaces")?;
        let mut unknown = Vec::new();
        for name in call.values.texts("interfaces") {
            let list = if state.interface(name).is_some() { &mut names } else { &mut unknown };
            if !list.iter().any(|known| known == name) {
                list.push(name.to_string());
            }
        }
        if !unknown.is_empty() {
            return Err(Fault::new(400, format!("Invalid interfaces: {}", unknown.join(", "))));
        }
    }
    // The kernel allows them. What is saved is cut at commas, and a star is a pattern.
    if let Some(name) = names.iter().find(|name| name.contains([',', '*'])) {
        return Err(Fault::new(
            400,
            format!("'{name}' cannot be chosen by name: commas and stars mean something else"),
        ));
    }
    let text = (!names.is_empty()).then(|| names.join(","));
    let chosen = names.clone();
    let saved = save(context, "interfaces", text, |tuning| tuning.interfaces = chosen);
    Answer::json(&InterfacesChanged { message: "Monitored interfaces updated", interfaces: names, saved })
}

pub fn interval(context: &Context, _call: &Call) -> Result<Answer, Fault> {
    let collection_interval_seconds = context.live.lock().tuning.interval_s;
    Answer::json(&IntervalSetting { collection_interval_seconds, saved: None })
}

pub fn put_interval(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let seconds = whole(context, call, "interval", "collection_interval")?;
    let saved = save(context, "interval", Some(seconds.to_string()), |tuning| tuning.interval_s = seconds);
    Answer::json(&IntervalSetting { collection_interval_seconds: seconds, saved: Some(saved) })
}

pub fn retries(context: &Context, _call: &Call) -> Result<Answer, Fault> {
    let max_retries = context.live.lock().tuning.max_retries;
    Answer::json(&RetriesSetting { max_retries, saved: None })
}

pub fn put_retries(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let max_retries = whole(context, call, "max_retries", "max_retries")?;
    let saved = save(context, "max_retries", Some(max_retries.to_string()), |tuning| tuning.max_retries = max_retries);
    Answer::json(&RetriesSetting { max_retries, saved: Some(saved) })
}

pub fn delay(context: &Context, _call: &Call) -> Result<Answer, Fault> {
    let ms = context.live.lock().tuning.retry_delay_ms;
    Answer::json(&DelaySetting { retry_delay_seconds: f64::from(ms) / 1000.0, saved: None })
}

pub fn put_delay(context: &Context, call: &Call) -> Result<Answer, Fault> {
    free(&context.live.lock(), "retry_delay")?;
    // The table has kept it within 0.1 and 300.
    let ms = (call.values.decimal("retry_delay").unwrap_or(1.0) * 1000.0).round() as u32;
    let saved = save(context, "retry_delay", Some(seconds(ms)), |tuning| tuning.retry_delay_ms = ms);
    Answer::json(&DelaySetting { retry_delay_seconds: f64::from(ms) / 1000.0, saved: Some(saved) })
}

fn whole(context: &Context, call: &Call, key: &str, param: &str) -> Result<u32, Fault> {
    free(&context.live.lock(), key)?;
    u32::try_from(call.values.count(param)).map_err(|_| Fault::new(500, format!("{param} has no range")))
}

fn save(context: &Context, key: &str, text: Option<String>, apply: impl FnOnce(&mut Tuning)) -> bool {
    context.live.change(vec![(key.to_string(), text)], SAVE_PATIENCE, apply)
}
