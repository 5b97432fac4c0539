//! Who may do what, once a request is inside: asks for the access token where it is needed. Whoever guesses is told to
//! wait, and to the log; what keeps them out is the length of the token. The names and origins were looked at by the
//! gate. A connection that this refuses has read nothing of the history and changed nothing.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gate::access::{bearer, changes_something, needs_token, same_secret};
use super::{Answer, Ask, Fault, routes};
use crate::history::Disk;
use crate::text::counted;
use crate::token::{self, Stamp, Token};

/// Wrong tokens of one address that are answered before it is told to wait.
const FREE: u32 = 5;
const WINDOW_MS: u64 = 60_000;
/// Of so many addresses wrong tokens are remembered; then the one that began first is forgotten.
const ADDRESSES: usize = 64;

pub struct Guard {
    file: PathBuf,
    /// Reading needs the token too.
    private: bool,
    /// Changing does not.
    open: bool,
    known: Arc<Mutex<Known>>,
    failures: Mutex<Failures>,
}

/// The file as it was when it was last read.
#[derive(Default)]
struct Known {
    /// `None` where it could be neither read nor made: then nothing is let in from outside.
    token: Option<Arc<Token>>,
    stamp: Option<Stamp>,
}

impl Guard {
    pub fn new(file: PathBuf, token: Option<Token>, private: bool, open: bool) -> Guard {
        // Read once more at the first request, because it may have changed since it was read.
        let known = Known { token: token.map(Arc::new), stamp: None };
        Guard { file, private, open, known: Arc::new(Mutex::new(known)), failures: Mutex::default() }
    }

    pub fn private(&self) -> bool {
        self.private
    }

    /// The file is read by the thread that may wait for the disk. If that takes long, what is known of it holds.
    fn token(&self, disk: &Disk) -> Option<Arc<Token>> {
        let (file, known) = (self.file.clone(), self.known.clone());
        let _ = disk.glance(move |_| look(&file, &known));
        lock(&self.known).token.clone()
    }

    /// The answer for who is refused. The right token is taken even from an address that guesses: with 128 bits nobody
    /// finds it by trying, and otherwise one phone could lock out the rest of its network, which in IPv6 counts as one.
    pub fn refuses(&self, ask: &Ask, disk: &Disk, mono_ms: u64) -> Option<Answer> {
        // What is not known to come from here comes from elsewhere.
        let from = ask.from.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        // What may be asked is no secret, and the page has to be there to ask for the token.
        let harmless = ask.method == "OPTIONS" || (!changes_something(ask.method) && routes::is_page(ask));
        if harmless || !needs_token(ask.method, ask.trusted, self.private, self.open) {
            return None;
        }
        let Some(given) = ask.authorization.and_then(bearer) else {
            let known = lock(&self.known).token.clone();
            // It is made once there is a place for it.
            return Some(match known.or_else(|| self.token(disk)) {
                Some(_) if from.to_canonical().is_loopback() => unauthorized(NEEDED_HERE, ""),
                Some(_) => unauthorized(NEEDED, ""),
                None => unauthorized(NONE, ""),
            });
        };
        let token = self.token(disk);
        if token.is_some_and(|token| same_secret(given.as_bytes(), token.text().as_bytes())) {
            return None;
        }
        let outcome = lock(&self.failures).add(from, mono_ms);
        if let Some(unsaid) = outcome.say {
            log::warn!("{}", warning(unsaid, from));
        }
        Some(match outcome.wait_s {
            None => unauthorized(WRONG, r#", error="invalid_token""#),
            Some(seconds) => {
                let detail = format!("too many wrong tokens from this address: try again in {seconds} s; {ASK}");
                let mut answer = Fault::new(429, detail).answer();
                answer.header("Retry-After", seconds.to_string());
                answer
            }
        })
    }
}

fn warning(unsaid: u32, from: IpAddr) -> String {
    format!("{}; the last one came from {from}", counted(unsaid.into(), "wrong access token", "wrong access tokens"))
}

/// Nothing that panics is done while this is locked, and nothing that waits.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that was replaced takes the old token's worth from now on. One that is gone takes nothing away: it is made anew
/// by the next `net-pulse token`.
fn look(file: &Path, known: &Mutex<Known>) {
    let stamp = token::stamp(file);
    if stamp.is_none() || stamp == lock(known).stamp {
        return;
    }
    let read = token::read(file);
    let mut known = lock(known);
    known.stamp = stamp;
    match read {
        Ok(Some(token)) => known.token = Some(Arc::new(token)),
        Ok(None) => {}
        Err(error) => log::warn!("the access token stays as it was: {error}"),
    }
}

const ASK: &str = "`net-pulse token` on the router prints the right one";
const NEEDED: &str = "this needs the access token: run `net-pulse token` on the router, and send what it prints as the \
                      header 'Authorization: Bearer TOKEN'";
/// On the machine itself as well, for who is used to needing none there.
/// In the challenge of a 401 (RFC 6750, 3).
pub const REALM: &str = r#"realm="net-pulse""#;
const NEEDED_HERE: &str = "this needs the access token: on the router itself only root and the user of net-pulse change \
                           things without it, in HTTP/1.1 and through no proxy; run `net-pulse token` there as one of \
                           them, and send what it prints as the header 'Authorization: Bearer TOKEN'";
const WRONG: &str = "this is not the access token: run `net-pulse token` on the router, which prints it";
const NONE: &str =
    "this needs the access token, and there is none: run `net-pulse token` on the router, which says why";

fn unauthorized(detail: &str, more: &str) -> Answer {
    let mut answer = Fault::new(401, detail).answer();
    answer.header("WWW-Authenticate", format!("Bearer {REALM}{more}"));
    answer
}

/// Wrong tokens of the last minute, by address. It has a fixed size, whoever asks.
#[derive(Default)]
struct Failures {
    /// Since when, and how many.
    addresses: Vec<(IpAddr, u64, u32)>,
    said_ms: Option<u64>,
    /// Not yet told to the log.
    unsaid: u32,
}

#[derive(Debug, PartialEq)]
struct Outcome {
    /// Too many: how long until the next one is looked at.
    wait_s: Option<u64>,
    /// So many are to be told to the log.
    say: Option<u32>,
}

impl Failures {
    fn add(&mut self, from: IpAddr, mono_ms: u64) -> Outcome {
        let network = network(from);
        let over = |since: u64| mono_ms.saturating_sub(since) >= WINDOW_MS;
        self.addresses.retain(|(_, since, _)| !over(*since));
        let known = self.addresses.iter().position(|(known, ..)| *known == network).unwrap_or_else(|| {
            if self.addresses.len() >= ADDRESSES {
                // In the order in which they began.
                self.addresses.remove(0);
            }
            self.addresses.push((network, mono_ms, 0));
            self.addresses.len() - 1
        });
        let mut wait_s = None;
        if let Some((_, since, count)) = self.addresses.get_mut(known) {
            *count = count.saturating_add(1);
            let left_ms = WINDOW_MS.saturating_sub(mono_ms.saturating_sub(*since));
            wait_s = (*count > FREE).then(|| left_ms.div_ceil(1000).max(1));
        }
        self.unsaid = self.unsaid.saturating_add(1);
        let say = self.said_ms.is_none_or(over).then(|| {
            self.said_ms = Some(mono_ms);
            std::mem::take(&mut self.unsaid)
        });
        Outcome { wait_s, say }
    }
}

/// One subscriber has at least a /64 of IPv6, and takes any address in it.
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
    fn one_wrong_token_and_two() {
        let check = |count, expect| assert!(warning(count, ip("192.0.2.1")).starts_with(expect));
        check(1, "1 wrong access token; the last one came from 192.0.2.1");
        check(2, "2 wrong access tokens; ");
    }

    #[test]
    fn five_are_free_and_the_sixth_waits_for_the_rest_of_the_minute() {
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
    fn an_ipv6_network_is_one_address() {
        let mut failures = Failures::default();
        let mut wait = |from: &str| failures.add(ip(from), 0).wait_s.is_some();
        for host in 1..=5 {
            assert!(!wait(&format!("2001:db8::{host}:1")));
        }
        assert!(wait("2001:db8::ffff:ffff:ffff:ffff"));
        assert!(!wait("2001:db8:0:1::1"));
    }

    #[test]
    fn e43_the_table_does_not_grow() {
        let mut failures = Failures::default();
        for number in 0..10_000_u32 {
            failures.add(IpAddr::V4(number.into()), u64::from(number));
            assert!(failures.addresses.len() <= ADDRESSES);
        }
        assert!(failures.addresses.capacity() <= 2 * ADDRESSES);
        // Of those that are left the counts go on.
        let newest = IpAddr::V4(9999.into());
        (0..4).for_each(|_| assert_eq!(failures.add(newest, 10_000).wait_s, None));
        assert!(failures.add(newest, 10_000).wait_s.is_some());
    }

    #[test]
    fn the_log_hears_of_it_once_a_minute() {
        let mut failures = Failures::default();
        let said: Vec<(u64, u32)> = (0..10_000_u64)
            .filter_map(|number| Some((number * 20, failures.add(ip("192.0.2.1"), number * 20).say?)))
            .collect();
        assert_eq!(said, [(0, 1), (60_000, 3000), (120_000, 3000), (180_000, 3000)]);
    }
}
