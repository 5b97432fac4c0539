//! tiny_http behind the gate: one server on a Unix socket that nobody but the gate can reach.
//!
//! A socket without a name would be best, but tiny_http accepts its connections itself, and what accepts needs a name.
//! An abstract one can be reached by every local user, and one request that the gate would have refused ends the process.
//! So it is a file in a directory of our own, and where `/proc` allows it the file is gone before anybody can look: a
//! descriptor still leads there. A killed process leaves nothing behind, and nothing that tidies up /tmp can break it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tiny_http::{Request, Server};

use super::Inward;
use crate::error::{Error, Result};

/// tiny_http's accepting thread dies of one failed `accept()`. It is replaced, but not in a tight loop.
const BETWEEN_SERVERS: Duration = Duration::from_millis(500);

const BETWEEN_WORDS: Duration = Duration::from_secs(60);

/// What the workers ask for requests.
pub struct Inner {
    running: Mutex<Running>,
    closing: AtomicBool,
    workers: usize,
    /// By place: whoever asked from there has left.
    left: Vec<AtomicBool>,
}

#[derive(Default)]
struct Running {
    server: Option<Arc<Server>>,
    way: Option<Way>,
}

impl Inner {
    /// `places` are directories in which a socket may be made, the best one first.
    pub fn open(places: Vec<PathBuf>, workers: usize) -> Result<(Arc<Inner>, Road)> {
        let left = (0..workers).map(|_| AtomicBool::new(false)).collect();
        let inner = Arc::new(Inner { running: Mutex::default(), closing: AtomicBool::new(false), workers, left });
        let mut road = Road { inner: inner.clone(), places, tried: None, said: None };
        road.build()
            .map_err(|error| Error::system("no directory to make a private socket in; set TMPDIR to one", error))?;
        Ok((inner, road))
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The next request, or `None` when there will be no more.
    pub fn next(&self) -> Option<Request> {
        loop {
            let server = self.running().server.clone()?;
            let received = server.recv();
            if self.closing.load(Ordering::Relaxed) {
                return None;
            }
            match received {
                Ok(request) => return Some(request),
                // Either the server was replaced, or its accepting thread said its last word; then the gate will notice.
                Err(error) => log::debug!("tiny_http: {error}"),
            }
        }
    }

    /// Whether nobody waits for an answer to this any more.
    pub fn has_left(&self, place: Option<usize>) -> bool {
        let left = place.and_then(|place| self.left.get(place));
        left.is_some_and(|left| left.load(Ordering::Relaxed))
    }

    /// Wakes every worker out of `next`, for good.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let server = self.running().server.take();
        if let Some(server) = server {
            (0..self.workers).for_each(|_| server.unblock());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
        // tiny_http's accepting thread looks up only when somebody comes, and without a file it cannot call itself.
        if let Some(way) = &self.running().way {
            let _ = reach(&way.path);
        }
    }
}

/// The gate's way to the server.
pub struct Road {
    inner: Arc<Inner>,
    places: Vec<PathBuf>,
    tried: Option<Instant>,
    /// When it was last said in the log that the server was replaced.
    said: Option<Instant>,
}

/// How the socket is reached.
struct Way {
    path: PathBuf,
    /// What `path` leads through, when the file itself is gone.
    _descriptor: Option<OwnedFd>,
    /// What is to be removed at the end.
    directory: Option<PathBuf>,
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_dir(directory);
        }
    }
}

impl Road {
    fn build(&mut self) -> io::Result<()> {
        self.tried = Some(Instant::now());
        let (listener, way) = listen(&self.places)?;
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        let running = Running { server: Some(Arc::new(server)), way: Some(way) };
        let old = std::mem::replace(&mut *self.inner.running(), running);
        // After the new one is in place: whoever wakes up asks that one.
        if let Some(old) = old.server {
            (0..self.inner.workers).for_each(|_| old.unblock());
        }
        Ok(())
    }

    fn reach(&self) -> io::Result<UnixStream> {
        self.inner.running().way.as_ref().map_or(Err(io::ErrorKind::NotFound.into()), |way| reach(&way.path))
    }
}

impl Inward for Road {
    fn connect(&mut self) -> io::Result<UnixStream> {
        match self.reach() {
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                if self.tried.is_some_and(|tried| tried.elapsed() < BETWEEN_SERVERS) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                if self.said.is_none_or(|said| said.elapsed() >= BETWEEN_WORDS) {
                    self.said = Some(Instant::now());
                    log::warn!("tiny_http has stopped accepting ({error}): starting it anew");
                }
                self.build()?;
                self.reach()
            }
            result => result,
        }
    }

    fn leave(&mut self, place: usize, left: bool) {
        if let Some(known) = self.inner.left.get(place) {
            known.store(left, Ordering::Relaxed);
        }
    }
}

/// Connects without ever waiting for anybody: not even the listener's queue.
fn reach(path: &Path) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

fn listen(places: &[PathBuf]) -> io::Result<(UnixListener, Way)> {
    let mut reason = io::Error::from(io::ErrorKind::NotFound);
    for place in places {
        for hide in [true, false] {
            match listen_in(place, hide) {
                Ok(found) => return Ok(found),
                Err(error) => reason = io::Error::new(error.kind(), format!("{}: {error}", place.display())),
            }
        }
    }
    Err(reason)
}

fn listen_in(place: &Path, hide: bool) -> io::Result<(UnixListener, Way)> {
    let directory = own_directory(place)?;
    let mut way = Way { path: directory.join("http"), _descriptor: None, directory: Some(directory) };
    let listener = UnixListener::bind(&way.path)?;
    if hide {
        let descriptor = handle(&way.path)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        // The old way removes its file here.
        way = Way { path, _descriptor: Some(descriptor), directory: None };
    }
    // Some security modules know files by their names, and refuse those that have lost theirs.
    reach(&way.path)?;
    Ok((listener, way))
}

fn own_directory(place: &Path) -> io::Result<PathBuf> {
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..16 {
        let path = place.join(format!("net-pulse-{}-{number}", std::process::id()));
        // It fails on whatever is there already, a link included: what it makes is ours.
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

#[cfg(target_os = "linux")]
fn handle(path: &Path) -> io::Result<OwnedFd> {
    use nix::sys::stat::Mode;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn handle(_: &Path) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("np-inner-{}-{name}", std::process::id()));
            fs::create_dir(&path).expect("a directory");
            Dir(path)
        }

        fn entries(&self) -> usize {
            fs::read_dir(&self.0).expect("a directory").count()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn talk((listener, way): (UnixListener, Way)) {
        let (mut probe, _) = listener.accept().expect("the probe");
        assert_eq!(probe.read(&mut [0; 1]).expect("its end"), 0);
        let mut near = reach(&way.path).expect("a connection");
        let (mut far, _) = listener.accept().expect("a connection");
        near.write_all(b"x").expect("room");
        let mut byte = [0];
        far.read_exact(&mut byte).expect("a byte");
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_socket_without_a_trace() {
        let dir = Dir::new("hidden");
        let found = listen_in(&dir.0, true).expect("a socket");
        assert_eq!(dir.entries(), 0, "nothing is left to find");
        talk(found);
    }

    #[test]
    fn a_socket_with_a_name_goes_with_its_owner() {
        let dir = Dir::new("named");
        let found = listen_in(&dir.0, false).expect("a socket");
        assert_eq!(dir.entries(), 1);
        let inside = found.1.directory.clone().expect("a directory");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(inside).expect("it exists").permissions());
        assert_eq!(mode & 0o777, 0o700);
        talk(found);
        assert_eq!(dir.entries(), 0);
    }

    #[test]
    fn places_that_cannot_be_used_are_passed_over() {
        let dir = Dir::new("places");
        let deep = dir.0.join("d".repeat(200));
        fs::create_dir(&deep).expect("a directory");
        let places = ["/proc".into(), "/nonexistent/net-pulse".into(), deep, dir.0.clone()];
        talk(listen(&places).expect("the last one"));
        let error = listen(&places[..2]).err().expect("no place");
        assert!(error.to_string().starts_with("/nonexistent/net-pulse: "), "{error}");
    }
}
