//! `net-pulse check --health`: asks the daemon that the same settings have started how it is, for whoever supervises it
//! where there is neither a shell nor curl, as in a container. It never opens the history. What answers need not be
//! net-pulse: it is read within bounds of time and bytes, and nothing that it says moves a terminal's cursor.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::http::client::{Reply, connect, converse, nearest, shown};
use crate::system::peer::Trusted;
use crate::thread::{Mailbox, spawn};
use crate::{http, token};

/// For everything together: names are looked up, the token may lie on a disk that hangs, and a server can drip.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What to print about a daemon that is well.
pub fn run(typed: &[(&'static str, String)]) -> Result<String> {
    let config = settings(typed)?;
    let port = config.integer("port");
    // On a thread that ends with the process, so that no single wait needs a bound of its own.
    let answers = Mailbox::default();
    let there = answers.clone();
    spawn("check", 0, Box::new(move || there.put(ask(&config))))?;
    if let Some(said) = answers.take(PATIENCE) {
        return said;
    }
    let what = format!("no answer within {} s; the log of net-pulse may say why", PATIENCE.as_secs());
    Err(Error::system(format!("port {port}"), what))
}

/// Those that a daemon can be found by.
pub(super) fn settings(typed: &[(&'static str, String)]) -> Result<Config> {
    let config = Config::new(typed, environment)?;
    if config.integer("port") == 0 {
        let what = "0 stands for any port that is free; give the one that net-pulse says in its log";
        return Err(Error::usage(what).context(config.said_by("port")));
    }
    Ok(config)
}

pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// All addresses lead to the same daemon: the first one that is open decides.
pub(super) fn ask(config: &Config) -> Result<String> {
    let found = http::resolve(&config.list("host")).map_err(|error| error.context(config.said_by("host")))?;
    let mut closed = None;
    for address in nearest(found, config.integer("port") as u16) {
        match connect(address) {
            Ok(stream) => {
                let token = credentials(config, address)?;
                let answer =
                    converse(stream, address, "/health", &token).map_err(|cause| Error::system(address, cause))?;
                return judge(&answer).map_err(|fault| Error::system(address, fault));
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
    let file = token::file(&config.database(user.is_root(), environment)?);
    match token::read(&file)? {
        Some(token) => Ok(format!("Authorization: Bearer {}\r\n", token.text())),
        None => Err(Error::system(file.display(), "there is no access token; give the --database that net-pulse has")),
    }
}

/// The line to print, or why all is not well. Who goes on without a part of it, as with a full disk, is well enough: to
/// start it anew would lose what it keeps in memory.
fn judge(answer: &[u8]) -> std::result::Result<String, String> {
    let Reply { status, body, .. } = Reply::parse(answer).unwrap_or_default();
    let word = |name| body.get(name).and_then(Value::as_str).map(shown);
    match (status.as_str(), word("status").as_deref(), word("reason"), word("detail")) {
        ("200", Some("healthy"), ..) => Ok("healthy".to_string()),
        ("200", Some("degraded"), reason, _) => Ok(format!("degraded: {}", reason.unwrap_or_default())),
        ("503", Some("unhealthy"), reason, _) => Err(format!("unhealthy: {}", reason.unwrap_or_default())),
        ("401", ..) => {
            Err("the access token is asked for; give --private and the --database that net-pulse has, as the user that it has"
                .to_string())
        }
        (status, _, _, Some(detail)) => Err(format!("{} instead of its health: {detail}", shown(status))),
        _ => Err("this is no answer of net-pulse; give the --host and --port that it has".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_daemon() {
        let check = |answer: &str, expect: std::result::Result<&str, &str>| {
            let got = judge(answer.replace('|', "\r\n").as_bytes());
            assert_eq!(got.as_ref().map(String::as_str).map_err(String::as_str), expect, "{answer}");
        };
        let foreign = Err("this is no answer of net-pulse; give the --host and --port that it has");
        check(r#"HTTP/1.1 200 OK|Content-Type: application/json||{"status":"healthy"}"#, Ok("healthy"));
        check(r#"HTTP/1.0 200||{"status":"degraded","reason":"disk full"}"#, Ok("degraded: disk full"));
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
        // One word without the other is somebody else's health.
        check(r#"HTTP/1.1 200 OK||{"status":"unhealthy"}"#, foreign);
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
