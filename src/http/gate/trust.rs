//! Decides which requests need no access token: those that root, or the user that this process runs as, sends from this
//! machine. The kernel knows which user owns the socket at the other end.
//!
//! A reverse proxy on this machine makes every client look local, but the proxy runs as another user.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::system::peer::{self, TrustedUsers};

/// The users that the gate trusts, and the setting `private`.
pub struct Trust {
    users: TrustedUsers,
    /// Reading needs the token too.
    pub private: bool,
    warned: AtomicBool,
}

impl Trust {
    pub fn new(private: bool) -> Trust {
        Trust { users: TrustedUsers::of_this_process(), private, warned: AtomicBool::new(false) }
    }

    /// Whether a trusted user owns the other end of this connection. The gate calls this when it starts the request. If
    /// the client has closed or half closed its socket before that, its user is no longer certain, and the result is
    /// false.
    pub fn trusts(&self, client: &TcpStream) -> bool {
        match peer::user(client) {
            Ok(user) => user.is_some_and(|user| self.users.contains(user)),
            Err(error) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        "requests from this machine need the access token too: cannot find out which user sends them: {error}"
                    );
                }
                false
            }
        }
    }
}
