//! Sends lines to the socket of the system log, in the format of syslog(3), which OpenWrt's logd, BusyBox's syslogd and
//! all others read. On OpenWrt this keeps the level of each line: procd logs every line of standard error as an error.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use super::Line;

/// The facility LOG_DAEMON of syslog(3), shifted as in a message.
const LOG_DAEMON: u8 = 3 << 3;

/// Timeout of one attempt to send to a full log. Each attempt opens the path again: the log may have been restarted.
const SEND_TIMEOUT: Duration = Duration::from_millis(500);

/// The socket of the system log.
pub struct Syslog {
    path: PathBuf,
}

impl Syslog {
    pub fn new(path: PathBuf) -> Syslog {
        Syslog { path }
    }

    /// Sends a line; blocks while the log is full. `false` when nothing listens on the path.
    pub fn send(&self, line: &Line) -> bool {
        let text = datagram(line, std::process::id());
        loop {
            match self.send_datagram(text.as_bytes()) {
                Ok(()) => return true,
                Err(cause)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].contains(&cause.kind()) => {
                }
                Err(_) => return false,
            }
        }
    }

    /// Uses a new socket for each line: lines are rare, and the log may have been restarted since the last one.
    fn send_datagram(&self, text: &[u8]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        socket.send_to(text, &self.path).map(drop)
    }
}

/// Formats the message without a time, because the log adds one. If the 16th character after `>` is a space, logd takes
/// the first 16 characters for a time. A process ID of three digits would cause that, so the ID has at least four.
fn datagram(line: &Line, pid: u32) -> String {
    format!("<{}>net-pulse[{pid:04}]: {}", LOG_DAEMON + line.severity(), line.text)
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn the_level_becomes_the_priority_and_the_prefix_is_left_out() {
        let check =
            |level, prefix, expect: &str| assert_eq!(datagram(&Line::new(level, prefix, "it is so"), 4711), expect);
        check(Level::Error, "net-pulse: ", "<27>net-pulse[4711]: it is so");
        check(Level::Warn, "warning: ", "<28>net-pulse[4711]: it is so");
        check(Level::Info, "", "<30>net-pulse[4711]: it is so");
        check(Level::Debug, "", "<31>net-pulse[4711]: it is so");
        check(Level::Trace, "", "<31>net-pulse[4711]: it is so");
    }

    #[test]
    fn the_sixteenth_character_is_never_a_space() {
        for pid in [1, 12, 123, 1234, 12345, 4194304] {
            let text = datagram(&Line::new(Level::Info, "", "a b c d"), pid);
            let (_, content) = text.split_once('>').unwrap();
            assert_ne!(content.as_bytes()[15], b' ', "{text}");
        }
    }
}
