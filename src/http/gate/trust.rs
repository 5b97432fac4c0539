//! Whose request needs no token: that of root or of our own user on this machine, by the user of the socket at its other
//! end. A proxy on this machine makes everybody look local, but runs as a user of its own.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::system::peer::{self, Trusted};

pub struct Trust {
    users: Trusted,
    /// Reading needs the token too.
    pub private: bool,
    told: AtomicBool,
}

impl Trust {
    pub fn new(private: bool) -> Trust {
        Trust { users: Trusted::of_this_process(), private, told: AtomicBool::new(false) }
    }

    /// Asked at the moment when a whole request is let in: a client that has closed its end by then, or half of it, cannot
    /// be known any more.
    pub fn holds(&self, client: &TcpStream) -> bool {
        match peer::user(client) {
            Ok(user) => user.is_some_and(|user| self.users.has(user)),
            Err(error) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        "the access token is asked for on this machine too: the kernel does not tell who asks: {error}"
                    );
                }
                false
            }
        }
    }
}
