//! The upstream of the gate: one tiny_http server on a Unix socket that only the gate can connect to.
//!
//! tiny_http accepts its connections itself, so its socket needs an address. An abstract address is open to every
//! local user, who could then send requests that the gate would refuse; such a request can end the process. So the
//! socket is a file in a private directory (mode 0700). Where `/proc` allows it, the file is removed at once, and the
//! gate connects through an open descriptor of it. Then a killed process leaves no file behind, and a program that
//! cleans /tmp cannot cut the connection.

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

use super::UpstreamConnector;
use crate::error::{Error, Result};

/// tiny_http's accept thread ends at the first failed `accept()`. The gate restarts the server at most this often.
const RESTART_INTERVAL: Duration = Duration::from_millis(500);

/// Minimum time between two warnings in the log.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The running tiny_http server. The workers take their requests from it.
pub struct Upstream {
    running: Mutex<RunningServer>,
    closing: AtomicBool,
    /// Number of workers.
    workers: usize,
    /// Per slot: whether the client of its request has left.
    client_left: Vec<AtomicBool>,
}

#[derive(Default)]
struct RunningServer {
    server: Option<Arc<Server>>,
    socket_path: Option<SocketPath>,
}

impl Upstream {
    /// `directories`: where the socket may be created, the best first.
    pub fn open(directories: Vec<PathBuf>, workers: usize) -> Result<(Arc<Upstream>, TinyHttpConnector)> {
        let client_left = (0..workers).map(|_| AtomicBool::new(false)).collect();
        let upstream =
            Arc::new(Upstream { running: Mutex::default(), closing: AtomicBool::new(false), workers, client_left });
        let mut connector =
            TinyHttpConnector { upstream: upstream.clone(), directories, last_start: None, last_warning: None };
        connector.start_server().map_err(|error| {
            Error::system(
                "cannot create a private socket: set TMPDIR to a directory that net-pulse may write to",
                error,
            )
        })?;
        Ok((upstream, connector))
    }

    fn running(&self) -> MutexGuard<'_, RunningServer> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for the next request. `None` after `close`.
    pub fn next(&self) -> Option<Request> {
        loop {
            let server = self.running().server.clone()?;
            let received = server.recv();
            if self.closing.load(Ordering::Relaxed) {
                return None;
            }
            match received {
                Ok(request) => return Some(request),
                // Either the server was replaced, or its accept thread ended. In the second case the gate restarts
                // the server.
                Err(error) => log::debug!("tiny_http: {error}"),
            }
        }
    }

    /// Whether the client of the request in this slot has left, so that its answer is not needed.
    pub fn client_left(&self, slot: Option<usize>) -> bool {
        let client_left = slot.and_then(|slot| self.client_left.get(slot));
        client_left.is_some_and(|client_left| client_left.load(Ordering::Relaxed))
    }

    /// Makes `next` return `None` in every worker, now and later.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let server = self.running().server.take();
        if let Some(server) = server {
            (0..self.workers).for_each(|_| server.unblock());
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.close();
        // tiny_http's accept thread checks whether to end only after it has accepted a connection. tiny_http cannot
        // open that connection itself if the socket file is already removed.
        if let Some(socket_path) = &self.running().socket_path {
            let _ = connect_to(&socket_path.path);
        }
    }
}

/// Opens the connections of the gate to tiny_http, and restarts tiny_http when it no longer accepts any.
pub struct TinyHttpConnector {
    upstream: Arc<Upstream>,
    directories: Vec<PathBuf>,
    last_start: Option<Instant>,
    /// Time of the last warning in the log that the server was restarted.
    last_warning: Option<Instant>,
}

/// Path that leads to the socket.
struct SocketPath {
    path: PathBuf,
    /// Open descriptor of the removed socket file; `path` names it in /proc/self/fd.
    _descriptor: Option<OwnedFd>,
    /// Directory of the socket file, to be removed at the end.
    directory: Option<PathBuf>,
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_dir(directory);
        }
    }
}

impl TinyHttpConnector {
    /// Starts a new server in place of the old one, on a new socket.
    fn start_server(&mut self) -> io::Result<()> {
        self.last_start = Some(Instant::now());
        let (listener, socket_path) = listen(&self.directories)?;
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        let running = RunningServer { server: Some(Arc::new(server)), socket_path: Some(socket_path) };
        let old = std::mem::replace(&mut *self.upstream.running(), running);
        // Wakes the workers that wait in the old server. This comes last, so that they find the new server.
        if let Some(old) = old.server {
            (0..self.upstream.workers).for_each(|_| old.unblock());
        }
        Ok(())
    }

    fn try_connect(&self) -> io::Result<UnixStream> {
        self.upstream
            .running()
            .socket_path
            .as_ref()
            .map_or(Err(io::ErrorKind::NotFound.into()), |socket_path| connect_to(&socket_path.path))
    }
}

impl UpstreamConnector for TinyHttpConnector {
    fn connect(&mut self) -> io::Result<UnixStream> {
        match self.try_connect() {
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                if self.last_start.is_some_and(|last_start| last_start.elapsed() < RESTART_INTERVAL) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                if self.last_warning.is_none_or(|last_warning| last_warning.elapsed() >= WARNING_INTERVAL) {
                    self.last_warning = Some(Instant::now());
                    log::warn!("tiny_http no longer accepts connections ({error}): restarting it");
                }
                self.start_server()?;
                self.try_connect()
            }
            result => result,
        }
    }

    fn set_client_left(&mut self, slot: usize, client_left: bool) {
        if let Some(flag) = self.upstream.client_left.get(slot) {
            flag.store(client_left, Ordering::Relaxed);
        }
    }
}

/// Connects without blocking, even if the listener's queue is full.
fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

fn listen(directories: &[PathBuf]) -> io::Result<(UnixListener, SocketPath)> {
    let mut last_error = io::Error::from(io::ErrorKind::NotFound);
    for parent in directories {
        for unlink in [true, false] {
            match listen_in(parent, unlink) {
                Ok(found) => return Ok(found),
                Err(error) => last_error = io::Error::new(error.kind(), format!("{}: {error}", parent.display())),
            }
        }
    }
    Err(last_error)
}

fn listen_in(parent: &Path, unlink: bool) -> io::Result<(UnixListener, SocketPath)> {
    let directory = create_private_directory(parent)?;
    let mut socket_path = SocketPath { path: directory.join("http"), _descriptor: None, directory: Some(directory) };
    let listener = UnixListener::bind(&socket_path.path)?;
    if unlink {
        let descriptor = open_path(&socket_path.path)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        // This drops the old value, which removes the file and its directory.
        socket_path = SocketPath { path, _descriptor: Some(descriptor), directory: None };
    }
    // Tries to connect: some security modules (LSMs) know a file by its path, and refuse connections to a removed one.
    connect_to(&socket_path.path)?;
    Ok((listener, socket_path))
}

fn create_private_directory(parent: &Path) -> io::Result<PathBuf> {
    let mut already_exists = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..16 {
        let path = parent.join(format!("net-pulse-{}-{number}", std::process::id()));
        // `create` fails if anything exists at this path, also a symbolic link. So the directory is certainly ours.
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => already_exists = error,
            Err(error) => return Err(error),
        }
    }
    Err(already_exists)
}

#[cfg(target_os = "linux")]
fn open_path(path: &Path) -> io::Result<OwnedFd> {
    use nix::sys::stat::Mode;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn open_path(_: &Path) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("np-upstream-{}-{name}", std::process::id()));
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

    fn connect_and_talk((listener, socket_path): (UnixListener, SocketPath)) {
        let (mut probe, _) = listener.accept().expect("the probe");
        assert_eq!(probe.read(&mut [0; 1]).expect("its end"), 0);
        let mut client = connect_to(&socket_path.path).expect("a connection");
        let (mut server, _) = listener.accept().expect("a connection");
        client.write_all(b"x").expect("buffer space");
        let mut byte = [0];
        server.read_exact(&mut byte).expect("a byte");
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn an_unlinked_socket_leaves_no_file() {
        let dir = Dir::new("hidden");
        let found = listen_in(&dir.0, true).expect("a socket");
        assert_eq!(dir.entries(), 0, "no file is left");
        connect_and_talk(found);
    }

    #[test]
    fn a_socket_file_is_removed_with_its_owner() {
        let dir = Dir::new("named");
        let found = listen_in(&dir.0, false).expect("a socket");
        assert_eq!(dir.entries(), 1);
        let directory = found.1.directory.clone().expect("a directory");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(directory).expect("it exists").permissions());
        assert_eq!(mode & 0o777, 0o700);
        connect_and_talk(found);
        assert_eq!(dir.entries(), 0);
    }

    #[test]
    fn unusable_directories_are_skipped() {
        let dir = Dir::new("skipped");
        let deep = dir.0.join("d".repeat(200));
        fs::create_dir(&deep).expect("a directory");
        let directories = ["/proc".into(), "/nonexistent/net-pulse".into(), deep, dir.0.clone()];
        connect_and_talk(listen(&directories).expect("the last directory"));
        let error = listen(&directories[..2]).err().expect("an error");
        assert!(error.to_string().starts_with("/nonexistent/net-pulse: "), "{error}");
    }
}
