//! `net-pulse check --health`: asks the daemon that the same settings have started how it is, for supervisors
//! where there is neither a shell nor curl, as in a container. It never opens the history. What answers need not be
//! net-pulse: it is read within bounds of time and bytes, and nothing that it says moves a terminal's cursor.

use std::net::SocketAddr;

use serde_json::Value;

use super::{PATIENCE, database, settings};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::http::client::{Reply, connect, converse, reachable, shown};
use crate::system::peer::Trusted;
use crate::thread::{Mailbox, spawn};
use crate::{http, token};

/// What to print about a daemon that is well.
pub fn run(typed: &[(&'static str, String)]) -> Result<String> {
    let config = settings(typed)?;
    let port = config.integer("port");
    // On a thread that ends with the process, so that no single wait needs a bound of its own.
    let answers = Mailbox::default();
    let there = answers.clone();
    let work = move || there.put(ask(&config, "/health").and_then(|(address, answer)| said(address, &answer)));
    spawn("check", 0, Box::new(work))?;
    if let Some(said) = answers.take(PATIENCE) {
        return said;
    }
    let what = format!("no answer within {} s; the log of net-pulse may say why", PATIENCE.as_secs());
    Err(Error::system(format!("port {port}"), what))
}

/// What the daemon answers at `path`, and where it listens. All addresses lead to the same one: the first that is open
/// decides.
pub(super) fn ask(config: &Config, path: &str) -> Result<(SocketAddr, Vec<u8>)> {
    let found = http::resolve(&config.list("host")).map_err(|error| error.context(config.said_by("host")))?;
    let mut closed = None;
    for address in reachable(found, config.integer("port") as u16) {
        match connect(address) {
            Ok(stream) => {
                let token = credentials(config, address)?;
                let answer = converse(stream, address, path, &token)
                    .map_err(|cause| Error::system(address, cause).next("is it net-pulse that listens there?"))?;
                return Ok((address, answer));
            }
            Err(cause) if closed.is_none() => closed = Some(format!("{address}: {cause}")),
            Err(_) => {}
        }
    }
    let what = closed.unwrap_or_default();
    Err(Error::new(ErrorKind::System, format!("{what}; start net-pulse, or give the --host and --port that it has")))
}

/// The header that a private daemon asks for; on the loopback it knows us by our user. There the token is for none but
/// whom it cannot know like that: another program may have the port.
fn credentials(config: &Config, address: SocketAddr) -> Result<String> {
    let user = nix::unistd::geteuid();
    let known = address.ip().is_loopback() && Trusted::of_this_process().has(user.as_raw());
    if !config.switch("private") || known {
        return Ok(String::new());
    }
    let file = token::file(&database(config)?);
    match token::read(&file)? {
        Some(token) => Ok(format!("Authorization: Bearer {}\r\n", token.text())),
        None => Err(Error::system(file.display(), "there is no access token; give the --database that net-pulse has")),
    }
}

fn said(address: SocketAddr, answer: &[u8]) -> Result<String> {
    let Verdict { healthy, reason, .. } = judge(answer).map_err(|fault| Error::system(address, fault))?;
    Ok(if healthy { "healthy".to_string() } else { format!("degraded: {}", reason.unwrap_or_default()) })
}

/// What a daemon that does its work says of itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub healthy: bool,
    pub reason: Option<String>,
    pub database: Option<String>,
    pub zone: Option<String>,
}

/// Or why it does not. One that goes on without a part of it, as with a full disk, does its work: to start it anew would lose
/// what it keeps in memory.
pub(super) fn judge(answer: &[u8]) -> std::result::Result<Verdict, String> {
    let Reply { status, body, .. } = Reply::parse(answer).unwrap_or_default();
    let word = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(shown);
    let verdict = |healthy| Verdict {
        healthy,
        reason: word("/reason"),
        database: word("/details/database/database_path"),
        zone: word("/details/clock/timezone"),
    };
    match (status.as_str(), word("/status").as_deref(), word("/detail")) {
        ("200", Some("healthy"), _) => Ok(verdict(true)),
        ("200", Some("degraded"), _) => Ok(verdict(false)),
        ("200" | "503", Some("unhealthy"), _) => Err(format!("unhealthy: {}", word("/reason").unwrap_or_default())),
        ("401", ..) => {
            Err("the access token is asked for; give --private and the --database that net-pulse has, as the user that it has"
                .to_string())
        }
        (status, _, Some(detail)) => Err(format!("{} instead of its health: {detail}", shown(status))),
        _ => Err("this is no answer of net-pulse; give the --host and --port that it has".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_daemon() {
        let check = |answer: &str, expect: std::result::Result<&str, &str>| {
            let got = said(([127, 0, 0, 1], 80).into(), answer.replace('|', "\r\n").as_bytes());
            let got = got.map_err(|error| error.to_string().replace("127.0.0.1:80: ", ""));
            assert_eq!(got.as_ref().map(String::as_str).map_err(String::as_str), expect, "{answer}");
        };
        let foreign = Err("this is no answer of net-pulse; give the --host and --port that it has");
        check(r#"HTTP/1.1 200 OK|Content-Type: application/json||{"status":"healthy"}"#, Ok("healthy"));
        check(r#"HTTP/1.0 200||{"status":"degraded","reason":"disk full"}"#, Ok("degraded: disk full"));
        check(r#"HTTP/1.0 200||{"status":"degraded"}"#, Ok("degraded: "));
        check(r#"HTTP/1.1 503 x||{"status":"unhealthy","reason":"no netlink"}"#, Err("unhealthy: no netlink"));
        check(r#"HTTP/1.1 503 x||{"status":"unhealthy","reason":"\u001b[2J\n"}"#, Err("unhealthy: ?[2J?"));
        check(
            r#"HTTP/1.1 503 x||{"detail":"too much is going on here"}"#,
            Err("503 instead of its health: too much is going on here"),
        );
        check(
            r#"HTTP/1.1 401 x||{"detail":"this needs the access token"}"#,
            Err(
                "the access token is asked for; give --private and the --database that net-pulse has, as the user that it has",
            ),
        );
        // One word without the other is another program's health.
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
        assert!(judge(b"HTTP/1.1 200 OK\r\n\r\n\xff").is_err());
        let long = format!(r#"HTTP/1.1 503 x||{{"status":"unhealthy","reason":"{}"}}"#, "ü".repeat(5000));
        assert_eq!(judge(long.replace('|', "\r\n").as_bytes()).unwrap_err().chars().count(), 511);
    }

    #[test]
    fn what_cannot_be_asked_is_the_users_fault() {
        let error = run(&[("port", "0".to_string())]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Usage);
        assert!(error.to_string().starts_with("--port: 0 stands for any port"), "{error}");
    }
}
