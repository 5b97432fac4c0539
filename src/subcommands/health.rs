//! `net-pulse check --health`: asks the daemon that runs with the same settings for its health. It is for supervisors
//! without a shell or curl, as in a container. It never opens the database. Another program may listen on the port, so
//! the answer is limited in time and bytes, and control characters in it are not printed.

use std::net::SocketAddr;

use serde_json::Value;

use super::{TIMEOUT, database_path, read_settings};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::http::client::{Reply, connect, daemon_addresses, http_get, printable_answer_text};
use crate::system::peer::TrustedUsers;
use crate::thread::{Queue, spawn};
use crate::{http, token};

/// Returns the line to print about a healthy or degraded daemon; fails for an unhealthy one.
pub fn run(flags: &[(&'static str, String)]) -> Result<String> {
    let config = read_settings(flags)?;
    let port = config.integer("port");
    // The thread ends with the process, so its reads and writes need no timeouts.
    let results = Queue::default();
    let sender = results.clone();
    let work = move || sender.put(request(&config, "/health").and_then(|(address, answer)| summary(address, &answer)));
    spawn("check", 0, Box::new(work))?;
    if let Some(result) = results.take(TIMEOUT) {
        return result;
    }
    let cause = format!("no answer within {} s; see the log of net-pulse", TIMEOUT.as_secs());
    Err(Error::system(format!("port {port}"), cause))
}

/// Requests `path` from the daemon. Returns the address it listens on and the whole answer, head and body. All
/// addresses of the settings lead to the same daemon, so the first that accepts a connection is used.
pub(super) fn request(config: &Config, path: &str) -> Result<(SocketAddr, Vec<u8>)> {
    let found = http::resolve(&config.list("host")).map_err(|error| error.context(config.set_by("host")))?;
    let mut first_error = None;
    for address in daemon_addresses(found, config.integer("port") as u16) {
        match connect(address) {
            Ok(stream) => {
                let token = authorization(config, address)?;
                let answer = http_get(stream, address, path, &token)
                    .map_err(|cause| Error::system(address, cause).with_hint("does net-pulse listen there?"))?;
                return Ok((address, answer));
            }
            Err(cause) if first_error.is_none() => first_error = Some(format!("{address}: {cause}")),
            Err(_) => {}
        }
    }
    let cause = first_error.unwrap_or_default();
    Err(Error::new(ErrorKind::System, format!("{cause}; start net-pulse, or give its --host and --port")))
}

/// The header with the access token for a daemon that runs with `--private`, else empty. On the loopback the daemon
/// recognises this process by its user. There the token is sent only for a user that the daemon cannot recognise (65534
/// or overflowuid), because another program may listen on the port.
fn authorization(config: &Config, address: SocketAddr) -> Result<String> {
    let user = nix::unistd::geteuid();
    let recognised = address.ip().is_loopback() && TrustedUsers::of_this_process().contains(user.as_raw());
    if !config.switch("private") || recognised {
        return Ok(String::new());
    }
    let file = token::path_for(&database_path(config)?);
    match token::read(&file)? {
        Some(token) => Ok(format!("Authorization: Bearer {}\r\n", token.text())),
        None => Err(Error::system(file.display(), "there is no access token; give the --database that net-pulse uses")),
    }
}

/// The line to print about an answer to `/health`.
fn summary(address: SocketAddr, answer: &[u8]) -> Result<String> {
    let DaemonHealth { healthy, reason, .. } = parse_health(answer).map_err(|reason| Error::system(address, reason))?;
    Ok(if healthy { "healthy".to_string() } else { format!("degraded: {}", reason.unwrap_or_default()) })
}

/// Health of a daemon that works, healthy or degraded.
#[derive(Debug, Default, PartialEq)]
pub(super) struct DaemonHealth {
    pub healthy: bool,
    pub reason: Option<String>,
    pub database: Option<String>,
    pub zone: Option<String>,
}

/// Parses the answer of a daemon. The error is the reason why the daemon does not work. A degraded daemon, for example
/// with a full disk, counts as working: a restart would lose the data it keeps in memory.
pub(super) fn parse_health(answer: &[u8]) -> std::result::Result<DaemonHealth, String> {
    let Reply { status, body, .. } = Reply::parse(answer).unwrap_or_default();
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(printable_answer_text);
    let health = |healthy| DaemonHealth {
        healthy,
        reason: text("/reason"),
        database: text("/details/database/database_path"),
        zone: text("/details/clock/timezone"),
    };
    match (status.as_str(), text("/status").as_deref(), text("/detail")) {
        ("200", Some("healthy"), _) => Ok(health(true)),
        ("200", Some("degraded"), _) => Ok(health(false)),
        ("200" | "503", Some("unhealthy"), _) => Err(format!("unhealthy: {}", text("/reason").unwrap_or_default())),
        ("401", ..) => {
            Err("the access token is needed; give --private and the --database of net-pulse, and run this as its user"
                .to_string())
        }
        (status, _, Some(detail)) => {
            Err(format!("answered {} instead of its health: {detail}", printable_answer_text(status)))
        }
        _ => Err("the answer is not from net-pulse; give the --host and --port of net-pulse".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_their_summaries() {
        let check = |answer: &str, expect: std::result::Result<&str, &str>| {
            let got = summary(([127, 0, 0, 1], 80).into(), answer.replace('|', "\r\n").as_bytes());
            let got = got.map_err(|error| error.to_string().replace("127.0.0.1:80: ", ""));
            assert_eq!(got.as_ref().map(String::as_str).map_err(String::as_str), expect, "{answer}");
        };
        let foreign = Err("the answer is not from net-pulse; give the --host and --port of net-pulse");
        check(r#"HTTP/1.1 200 OK|Content-Type: application/json||{"status":"healthy"}"#, Ok("healthy"));
        check(r#"HTTP/1.0 200||{"status":"degraded","reason":"disk full"}"#, Ok("degraded: disk full"));
        check(r#"HTTP/1.0 200||{"status":"degraded"}"#, Ok("degraded: "));
        check(r#"HTTP/1.1 503 x||{"status":"unhealthy","reason":"no netlink"}"#, Err("unhealthy: no netlink"));
        check(r#"HTTP/1.1 503 x||{"status":"unhealthy","reason":"\u001b[2J\n"}"#, Err("unhealthy: ?[2J?"));
        check(
            r#"HTTP/1.1 503 x||{"detail":"too much is going on here"}"#,
            Err("answered 503 instead of its health: too much is going on here"),
        );
        check(
            r#"HTTP/1.1 401 x||{"detail":"this needs the access token"}"#,
            Err("the access token is needed; give --private and the --database of net-pulse, and run this as its user"),
        );
        // Status code and health must match; else the answer is from another program.
        check(r#"HTTP/1.1 503 OK||{"status":"healthy"}"#, foreign);
        check(r#"HTTP/1.1 200 OK||{"status":"UP"}"#, foreign);
        check(r#"HTTP/1.1 200 OK||{"status":["healthy"]}"#, foreign);
        check(r#"HTTP/1.1 200 OK||"healthy""#, foreign);
        check(r#"HTTP/1.1 200 OK||{"status":"healthy""#, foreign);
        check(r#"HTTP/1.1 200 OK|{"status":"healthy"}"#, foreign);
        check(r#"SSH-2.0-dropbear||{"status":"healthy"}"#, foreign);
        check(r#"HTTP/1.1||{"status":"healthy"}"#, foreign);
        check("||", foreign);
        check("", foreign);
        check(&format!("HTTP/1.1 200 OK||{}", "[".repeat(10_000)), foreign);
        assert!(parse_health(b"HTTP/1.1 200 OK\r\n\r\n\xff").is_err());
        let long = format!(r#"HTTP/1.1 503 x||{{"status":"unhealthy","reason":"{}"}}"#, "ü".repeat(5000));
        assert_eq!(parse_health(long.replace('|', "\r\n").as_bytes()).unwrap_err().chars().count(), 511);
    }

    #[test]
    fn port_0_is_a_usage_error() {
        let error = run(&[("port", "0".to_string())]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Usage);
        assert!(error.to_string().starts_with("--port: 0 means any free port"), "{error}");
    }
}
