//! The system's log, by its socket: OpenWrt's logd, BusyBox's syslogd and all others take what syslog(3) writes. procd makes
//! an error of each line on standard error; here each has its own level.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use super::Line;

/// The facility of daemons.
const DAEMON: u8 = 3 << 3;

/// A log that is full is waited for. After so long the path is followed anew: another may have been put there meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);

pub struct Syslog {
    path: PathBuf,
}

impl Syslog {
    pub fn at(path: PathBuf) -> Syslog {
        Syslog { path }
    }

    /// Waits for as long as it is full. `false`: there is no such log.
    pub fn takes(&self, line: &Line) -> bool {
        let text = datagram(line, std::process::id());
        loop {
            match self.send(text.as_bytes()) {
                Ok(()) => return true,
                Err(cause)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].contains(&cause.kind()) => {
                }
                Err(_) => return false,
            }
        }
    }

    /// By a socket for this one line: lines are few, and the log may have been started anew since the last one.
    fn send(&self, text: &[u8]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to(text, &self.path).map(drop)
    }
}

/// Without a time, which the log stamps itself. logd takes the first sixteen characters for one where the last of these is a
/// space, as it would be behind a process number of three digits: so that has four.
fn datagram(line: &Line, process: u32) -> String {
    format!("<{}>net-pulse[{process:04}]: {}", DAEMON + line.severity(), line.text)
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn each_level_is_told_and_no_word_of_it() {
        let check = |level, word, expect: &str| assert_eq!(datagram(&Line::new(level, word, "it is so"), 4711), expect);
        check(Level::Error, "net-pulse: ", "<27>net-pulse[4711]: it is so");
        check(Level::Warn, "warning: ", "<28>net-pulse[4711]: it is so");
        check(Level::Info, "", "<30>net-pulse[4711]: it is so");
        check(Level::Debug, "", "<31>net-pulse[4711]: it is so");
        check(Level::Trace, "", "<31>net-pulse[4711]: it is so");
    }

    #[test]
    fn nothing_is_taken_for_a_time() {
        for process in [1, 12, 123, 1234, 12345, 4194304] {
            let text = datagram(&Line::new(Level::Info, "", "a b c d"), process);
            let (_, content) = text.split_once('>').unwrap();
            assert_ne!(content.as_bytes()[15], b' ', "{text}");
        }
    }
}
