//! Authorisation: asks for the access token where a request needs it. An address that sends more than five wrong tokens
//! in a minute gets 429, and the log gets at most one warning per minute. The protection itself is the length of the
//! token. The gate has checked Host and Origin before. A request that is refused here has read no history and changed
//! nothing.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gate::access::{bearer, changes_something, needs_token, same_secret};
use super::{Answer, HttpError, HttpRequest, routes};
use crate::history::DiskThread;
use crate::text::counted;
use crate::token::{self, Stamp, Token};

/// Wrong tokens per minute from one address that get 401; further ones get 429.
const FREE_ATTEMPTS: u32 = 5;
const WINDOW_MS: u64 = 60_000;
/// Number of addresses whose wrong tokens are counted. When the table is full, the entry that began first is dropped.
const MAX_ADDRESSES: usize = 64;

/// Decides whether a request needs the access token, and verifies it.
pub struct Auth {
    file: PathBuf,
    /// Reading needs the token too (`--private`).
    private: bool,
    /// Changing needs no token (`--open`).
    open: bool,
    cached: Arc<Mutex<CachedToken>>,
    failures: Mutex<Failures>,
}

/// The token as last read from its file.
#[derive(Default)]
struct CachedToken {
    /// `None` when the file could neither be read nor created: then every token is refused.
    token: Option<Arc<Token>>,
    stamp: Option<Stamp>,
}

impl Auth {
    pub fn new(file: PathBuf, token: Option<Token>, private: bool, open: bool) -> Auth {
        // Without a stamp the first request reads the file again: it may have changed since `token` was read.
        let cached = CachedToken { token: token.map(Arc::new), stamp: None };
        Auth { file, private, open, cached: Arc::new(Mutex::new(cached)), failures: Mutex::default() }
    }

    pub fn private(&self) -> bool {
        self.private
    }

    /// The token, read again on the disk thread if its file has changed. If that takes longer than 250 ms: the cached
    /// token.
    fn token(&self, disk: &DiskThread) -> Option<Arc<Token>> {
        let (file, cached) = (self.file.clone(), self.cached.clone());
        let _ = disk.run_quick(move |_| reload_if_changed(&file, &cached));
        lock(&self.cached).token.clone()
    }

    /// Returns the refusal, or `None` when the request is authorised. The right token is accepted even from an address
    /// with many wrong ones. It is too long to be guessed: net-pulse makes tokens of 140 random bits. And otherwise one
    /// device could lock out its network, because a whole IPv6 /64 counts as one address.
    pub fn refusal(&self, request: &HttpRequest, disk: &DiskThread, mono_ms: u64) -> Option<Answer> {
        // Without an address the client counts as remote.
        let from = request.client_ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        // The list of methods is no secret, and the page must load to ask the user for the token.
        let is_public = request.method == "OPTIONS" || (!changes_something(request.method) && routes::is_page(request));
        if is_public || !needs_token(request.method, request.trusted, self.private, self.open) {
            return None;
        }
        let Some(presented) = request.authorization.and_then(bearer) else {
            let cached = lock(&self.cached).token.clone();
            // The token may have been created in the meantime.
            return Some(match cached.or_else(|| self.token(disk)) {
                Some(_) if from.to_canonical().is_loopback() => unauthorized(TOKEN_NEEDED_ON_ROUTER, ""),
                Some(_) => unauthorized(TOKEN_NEEDED, ""),
                None => unauthorized(NO_TOKEN_FILE, ""),
            });
        };
        let token = self.token(disk);
        if token.is_some_and(|token| same_secret(presented.as_bytes(), token.text().as_bytes())) {
            return None;
        }
        let outcome = lock(&self.failures).add(from, mono_ms);
        if let Some(unlogged) = outcome.log_count {
            log::warn!("{}", warning(unlogged, from));
        }
        Some(match outcome.wait_s {
            None => unauthorized(WRONG_TOKEN, r#", error="invalid_token""#),
            Some(seconds) => {
                let detail = format!("too many wrong tokens from this address: try again in {seconds} s; {HINT}");
                let mut answer = HttpError::new(429, detail).answer();
                answer.header("Retry-After", seconds.to_string());
                answer
            }
        })
    }
}

fn warning(unlogged: u32, from: IpAddr) -> String {
    format!("{}; the last one came from {from}", counted(unlogged.into(), "wrong access token", "wrong access tokens"))
}

/// No code panics or blocks while this is locked.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the token file if it changed. A replaced file makes the old token invalid. A deleted one changes nothing: the
/// next `net-pulse token` creates it again.
fn reload_if_changed(file: &Path, cached: &Mutex<CachedToken>) {
    let stamp = token::stamp(file);
    if stamp.is_none() || stamp == lock(cached).stamp {
        return;
    }
    let read = token::read(file);
    let mut cached = lock(cached);
    cached.stamp = stamp;
    match read {
        Ok(Some(token)) => cached.token = Some(Arc::new(token)),
        Ok(None) => {}
        Err(error) => log::warn!("the previous access token stays valid: {error}"),
    }
}

const HINT: &str = "`net-pulse token` on the router prints the right one";
const TOKEN_NEEDED: &str = "this needs the access token: run `net-pulse token` on the router, and send what it prints \
                            as the header 'Authorization: Bearer TOKEN'";
/// The realm of the challenge in a 401 (RFC 6750, 3).
pub const REALM: &str = r#"realm="net-pulse""#;
/// For a client on the machine itself, where root and the user of net-pulse need no token.
const TOKEN_NEEDED_ON_ROUTER: &str = "this needs the access token: run `net-pulse token` on this machine, as root or as \
                                      the user of net-pulse, and send what it prints as the header 'Authorization: \
                                      Bearer TOKEN'; these two users need no token over HTTP/1.1 and without a proxy";
const WRONG_TOKEN: &str = "this is not the access token: run `net-pulse token` on the router, which prints it";
const NO_TOKEN_FILE: &str =
    "this needs the access token, and there is none: run `net-pulse token` on the router, which says why";

fn unauthorized(detail: &str, challenge_error: &str) -> Answer {
    let mut answer = HttpError::new(401, detail).answer();
    answer.header("WWW-Authenticate", format!("Bearer {REALM}{challenge_error}"));
    answer
}

/// Wrong tokens of the last minute, by address, in a table of limited size.
#[derive(Default)]
struct Failures {
    /// Address, time of the first wrong token (monotonic ms) and number of wrong tokens.
    addresses: Vec<(IpAddr, u64, u32)>,
    logged_ms: Option<u64>,
    /// Wrong tokens that are not logged yet.
    unlogged: u32,
}

/// How to answer and log one wrong token.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Too many wrong tokens: seconds until the next one gets 401 again.
    wait_s: Option<u64>,
    /// Log a warning with this number of wrong tokens.
    log_count: Option<u32>,
}

impl Failures {
    fn add(&mut self, from: IpAddr, mono_ms: u64) -> Outcome {
        let network = network(from);
        let is_over = |since: u64| mono_ms.saturating_sub(since) >= WINDOW_MS;
        self.addresses.retain(|(_, since, _)| !is_over(*since));
        let index = self.addresses.iter().position(|(known, ..)| *known == network).unwrap_or_else(|| {
            if self.addresses.len() >= MAX_ADDRESSES {
                // The first entry is the oldest.
                self.addresses.remove(0);
            }
            self.addresses.push((network, mono_ms, 0));
            self.addresses.len() - 1
        });
        let mut wait_s = None;
        if let Some((_, since, count)) = self.addresses.get_mut(index) {
            *count = count.saturating_add(1);
            let left_ms = WINDOW_MS.saturating_sub(mono_ms.saturating_sub(*since));
            wait_s = (*count > FREE_ATTEMPTS).then(|| left_ms.div_ceil(1000).max(1));
        }
        self.unlogged = self.unlogged.saturating_add(1);
        let log_count = self.logged_ms.is_none_or(is_over).then(|| {
            self.logged_ms = Some(mono_ms);
            std::mem::take(&mut self.unlogged)
        });
        Outcome { wait_s, log_count }
    }
}

/// One subscriber has at least an IPv6 /64 and can use any address in it.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn warning_in_singular_and_plural() {
        let check = |count, expect| assert!(warning(count, ip("192.0.2.1")).starts_with(expect));
        check(1, "1 wrong access token; the last one came from 192.0.2.1");
        check(2, "2 wrong access tokens; ");
    }

    #[test]
    fn the_sixth_wrong_token_of_a_minute_gets_429() {
        let mut failures = Failures::default();
        let mut wait = |from: &str, at: u64| failures.add(ip(from), at).wait_s;
        for at in 0..5 {
            assert_eq!(wait("192.0.2.1", 1000 * at), None, "{at}");
        }
        assert_eq!(wait("192.0.2.1", 5000), Some(55));
        assert_eq!(wait("192.0.2.1", 59_999), Some(1));
        assert_eq!(wait("::ffff:192.0.2.1", 59_999), Some(1));
        assert_eq!(wait("192.0.2.2", 59_999), None, "another address");
        assert_eq!(wait("192.0.2.1", 60_000), None, "another minute");
    }

    #[test]
    fn addresses_of_one_ipv6_64_count_together() {
        let mut failures = Failures::default();
        let mut wait = |from: &str| failures.add(ip(from), 0).wait_s.is_some();
        for host in 1..=5 {
            assert!(!wait(&format!("2001:db8::{host}:1")));
        }
        assert!(wait("2001:db8::ffff:ffff:ffff:ffff"));
        assert!(!wait("2001:db8:0:1::1"));
    }

    #[test]
    fn e43_the_table_has_a_fixed_size() {
        let mut failures = Failures::default();
        for number in 0..10_000_u32 {
            failures.add(IpAddr::V4(number.into()), u64::from(number));
            assert!(failures.addresses.len() <= MAX_ADDRESSES);
        }
        assert!(failures.addresses.capacity() <= 2 * MAX_ADDRESSES);
        // The counts of the remaining addresses are kept.
        let newest = IpAddr::V4(9999.into());
        (0..4).for_each(|_| assert_eq!(failures.add(newest, 10_000).wait_s, None));
        assert!(failures.add(newest, 10_000).wait_s.is_some());
    }

    #[test]
    fn wrong_tokens_are_logged_once_a_minute() {
        let mut failures = Failures::default();
        let logged: Vec<(u64, u32)> = (0..10_000_u64)
            .filter_map(|number| Some((number * 20, failures.add(ip("192.0.2.1"), number * 20).log_count?)))
            .collect();
        assert_eq!(logged, [(0, 1), (60_000, 3000), (120_000, 3000), (180_000, 3000)]);
    }
}
