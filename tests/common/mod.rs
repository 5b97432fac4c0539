//! What the outside-in tests share: a network namespace that goes away by itself, links and traffic of exactly known
//! size in it, and the real binary with an HTTP client. But for `past` it knows nothing of the program's modules: what it
//! checks is what a user could check. Nothing here waits for ever, and nothing leaves the loopback or the test's own
//! namespace.

// Each of the three crates takes this in whole and uses a part of it.
#![allow(dead_code)]

pub mod disk;
pub mod past;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, getsockopt, sendto, setsockopt, socket,
    sockopt,
};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

/// The order of the program's own columns.
pub const COUNTERS: [&str; 8] =
    ["rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_drops", "tx_drops"];
pub type Counters = [u64; 8];

/// Anything that has not happened by then will not happen.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Says so on the real stderr, which the test harness does not capture: `tests/all` counts these lines.
pub fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

/// Runs a test's body on a thread with a network namespace and a mount namespace of its own, loopback up, `/sys` showing
/// that namespace's links. Both end with the thread and its children; nothing is named, nothing is left behind.
pub fn in_namespace(body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let test = thread::Builder::new().name("namespace".to_string());
        let result = test.spawn_scoped(scope, || {
            if let Err(why) = enter() {
                return skip(&format!("{why}: network namespaces need root"));
            }
            body();
        });
        if let Err(panic) = result.expect("a thread").join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn enter() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("not root".to_string());
    }
    let said = |what: &'static str| move |errno: nix::Error| format!("{what}: {errno}");
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(said("unshare"))?;
    // Without this the mounts below would show up outside, on machines where / is shared.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(said("private mounts"))?;
    // /sys/class/net shows the namespace of whoever mounted it, not of whoever reads it.
    mount(Some("none"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).map_err(said("sysfs"))?;
    // Router solicitations and MLD reports would move counters at moments of their own choosing. /proc/sys/net shows the
    // namespace of the thread that opens it.
    for which in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        if Path::new(&path).exists() {
            fs::write(&path, "1").map_err(|error| format!("{path}: {error}"))?;
        }
    }
    ip("link set lo up");
    Ok(())
}

/// `ip` with these words, inside the namespace; it has to succeed.
pub fn ip(words: &str) {
    run("ip", words);
}

pub fn run(program: &str, words: &str) {
    let output = Command::new(program).args(words.split_whitespace()).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; tests/all installs what is needed"));
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Two ends of a cable, both up. They are not called veth*, which is ignored by default.
pub fn cable(one: &str, other: &str) {
    ip(&format!("link add {one} type veth peer name {other}"));
    ip(&format!("link set {other} up"));
    ip(&format!("link set {one} up"));
    wait_until("both ends have a carrier", || operstate(one) == "up" && operstate(other) == "up");
}

fn operstate(name: &str) -> String {
    fs::read_to_string(format!("/sys/class/net/{name}/operstate")).unwrap_or_default().trim().to_string()
}

/// The kernel's own figures, by the road that the program takes last.
pub fn kernel(name: &str) -> Counters {
    let read = |file: &str| {
        let path = format!("/sys/class/net/{name}/statistics/{file}");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.trim().parse::<u64>().expect("a number")
    };
    [
        read("rx_bytes"),
        read("tx_bytes"),
        read("rx_packets"),
        read("tx_packets"),
        read("rx_errors"),
        read("tx_errors"),
        read("rx_dropped") + read("rx_missed_errors"),
        read("tx_dropped"),
    ]
}

pub fn minus(after: Counters, before: Counters) -> Counters {
    std::array::from_fn(|at| after[at].checked_sub(before[at]).expect("a kernel counter fell"))
}

pub fn plus(one: Counters, other: Counters) -> Counters {
    std::array::from_fn(|at| one[at] + other[at])
}

/// IPv4 that is none: counted as received, then dropped by the protocol without a further count.
pub const QUIET: u16 = 0x0800;
/// For local experiments: no protocol takes it, and the device counts a drop.
pub const UNKNOWN: u16 = 0x88b5;
pub const EVERYBODY: [u8; 6] = [0xff; 6];

/// Raw frames out of one interface. A frame of N bytes is N in tx_bytes: no checksum is counted, nothing is padded.
pub struct Wire {
    socket: OwnedFd,
    address: LinkAddr,
}

impl Wire {
    pub fn of(name: &str) -> Wire {
        // Protocol 0: this socket receives nothing. The address of a packet socket cannot be made without `unsafe`,
        // but the kernel hands one out for every link.
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).expect("a packet socket");
        let address = nix::ifaddrs::getifaddrs().expect("addresses").find_map(|entry| {
            let address = entry.address.filter(|address| address.family() == Some(AddressFamily::Packet))?;
            (entry.interface_name == name).then(|| *address.as_link_addr().expect("a link address"))
        });
        Wire { socket, address: address.unwrap_or_else(|| panic!("no link {name}")) }
    }

    pub fn send(&self, to: [u8; 6], protocol: u16, bytes: usize, count: usize) {
        let mut frame = vec![0; bytes];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&protocol.to_be_bytes());
        for _ in 0..count {
            // A dropped frame may be reported here or not, depending on the driver: the counters decide.
            let _ = sendto(self.socket.as_raw_fd(), &frame, &self.address, MsgFlags::empty());
        }
    }
}

/// `bytes` must be at least 14.
pub fn send(from: &str, bytes: usize, count: usize) {
    Wire::of(from).send(EVERYBODY, QUIET, bytes, count);
}

/// A tunnel that ends in this namespace again: the one kind of link here on which all eight counters can be moved.
pub struct Tunnel {
    name: String,
    wire: Wire,
    port: u16,
}

impl Tunnel {
    const LOOP: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
    const NO_ROUTE: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
    const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 0xcc];
    const VNI: u8 = 7;

    pub fn new(name: &str) -> Tunnel {
        let port = 4789;
        ip(&format!("link add {name} type vxlan id {} local 127.0.0.1 dstport {port} nolearning", Self::VNI));
        ip(&format!("link set {name} up"));
        ip("route add unreachable 10.66.0.1");
        run("bridge", &format!("fdb add {} dev {name} dst 127.0.0.1", mac(Self::LOOP)));
        run("bridge", &format!("fdb add {} dev {name} dst 10.66.0.1", mac(Self::NO_ROUTE)));
        Tunnel { name: name.to_string(), wire: Wire::of(name), port }
    }

    /// Moves every counter by an amount of its own, made of `n`, and returns by how much.
    pub fn burst(&self, n: usize) -> Counters {
        const SENT: usize = 200;
        const RECEIVED: usize = 36;
        let before = kernel(&self.name);
        self.wire.send(Self::LOOP, QUIET, SENT, 4 * n);
        self.wire.send(Self::LOOP, UNKNOWN, SENT, 3 * n);
        self.wire.send(Self::NOBODY, QUIET, SENT, 2 * n);
        self.wire.send(Self::NO_ROUTE, QUIET, SENT, n);
        self.receive(&[0; RECEIVED], 5 * n);
        // Damaged: the IPv4 header that is announced is not there.
        self.receive(b"xxx", n);
        let (n, sent, received) = (n as u64, SENT as u64, RECEIVED as u64);
        // What comes in through the socket is counted without its 14 bytes of Ethernet, the short cut to itself with them.
        let moved = [7 * n * sent + 5 * n * received, 7 * n * sent, 12 * n, 7 * n, n, n, 3 * n, 2 * n];
        wait_until("the tunnel has counted all that was sent", || minus(kernel(&self.name), before) == moved);
        moved
    }

    /// From outside, in the tunnel's own envelope: VNI, two hardware addresses, the type of IPv4, and what claims to be it.
    fn receive(&self, packet: &[u8], count: usize) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
        let envelope =
            [&[8, 0, 0, 0, 0, 0, Self::VNI, 0][..], &Self::LOOP, &[2, 0, 0, 0, 0, 0xdd, 8, 0], packet].concat();
        for _ in 0..count {
            socket.send_to(&envelope, (Ipv4Addr::LOCALHOST, self.port)).expect("loopback takes it");
        }
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[track_caller]
pub fn wait_until(what: &str, ready: impl FnMut() -> bool) {
    wait_until_within(what, PATIENCE, ready);
}

/// For what takes its time by design.
#[track_caller]
pub fn wait_until_within(what: &str, longest: Duration, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + longest;
    while !ready() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// An address that nobody else had a moment ago, for what has to be said before the program is started.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port")
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    let mut linger = getsockopt(&stream, sockopt::Linger).expect("a socket");
    (linger.l_onoff, linger.l_linger) = (1, 0);
    setsockopt(&stream, sockopt::Linger, &linger).expect("a socket");
}

/// The script that has the kernel refuse calls: `python3 REFUSING RULE... -- COMMAND...`.
pub fn refusing() -> String {
    format!("{}/tests/common/refusing.py", env!("CARGO_MANIFEST_DIR"))
}

pub fn strace_is_there() -> bool {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !there {
        skip("strace is not installed: no system call is made to fail");
    }
    there
}

pub fn rest(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// A directory of the test's own, gone with the value.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("net-pulse-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain path").to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The binary under test, without what the developer's own shell says to it.
pub fn net_pulse(binary: &str) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NETPULSE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run that ends by itself left behind.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A copy of the binary that was just made is busy while another test's child still holds its descriptor: between the
/// fork and the exec of that one.
fn spawn(command: &mut Command) -> Child {
    for _ in 0..50 {
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => rest(20),
            outcome => return outcome.expect("the binary starts"),
        }
    }
    panic!("the binary stays busy");
}

/// Runs until it ends; a run that does not end is a failure.
pub fn finish(mut command: Command) -> Ended {
    let mut child = spawn(&mut command);
    // Read on threads of their own: a full pipe would keep the child from ending.
    let (out, err) = (swallow(child.stdout.take()), swallow(child.stderr.take()));
    let status = wait(&mut child, PATIENCE);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (out, err) = (out.join().expect("text"), err.join().expect("text"));
    let status = status.unwrap_or_else(|| panic!("it did not end by itself; it said: {out}{err}"));
    Ended { code: status.code(), out, err }
}

fn swallow(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    let mut pipe = pipe.expect("a pipe");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// How it ended, if it has by then.
pub fn wait(child: &mut Child, longest: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The running program. Killed when dropped.
pub struct Daemon {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
    pub first_line: String,
}

impl Daemon {
    /// On the loopback of this namespace, with the database in `dir`.
    pub fn start(dir: &Dir, more: &[&str]) -> Daemon {
        Daemon::start_binary(env!("CARGO_BIN_EXE_net-pulse"), dir, more)
    }

    pub fn start_binary(binary: &str, dir: &Dir, more: &[&str]) -> Daemon {
        let mut command = net_pulse(binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(more);
        Daemon::spawn(command)
    }

    /// Wherever it says it is. A fault of the database may be told before that.
    pub fn spawn(command: Command) -> Daemon {
        let (mut daemon, lines) = Daemon::launch(command);
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let address = address_in(&line);
                    if daemon.first_line.is_empty() {
                        daemon.first_line = line;
                    }
                    if let Some(address) = address {
                        daemon.address = address;
                        return daemon;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no URL within {PATIENCE:?}: {:?}", daemon.log()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without a URL: {:?}, {:?}", daemon.child.wait(), daemon.log())
                }
            }
        }
    }

    /// At an address known before, without a word from it.
    pub fn spawn_at(command: Command, address: SocketAddr) -> Daemon {
        let (mut daemon, _) = Daemon::launch(command);
        daemon.address = address;
        wait_until("it listens", || TcpStream::connect_timeout(&address, PATIENCE).is_ok());
        daemon
    }

    fn launch(mut command: Command) -> (Daemon, Receiver<String>) {
        let mut child = spawn(command.stdout(Stdio::null()));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, reader) = follow(child.stderr.take().expect("a pipe"), log.clone());
        (Daemon { child, address: ([0; 4], 0).into(), log, reader: Some(reader), first_line: String::new() }, lines)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("the reader does not panic").clone()
    }

    /// SIGTERM, and a clean end. Returns all that it ever said.
    pub fn stop(mut self) -> Vec<String> {
        self.end(Signal::SIGTERM);
        let reader = self.reader.take().expect("it is waited for once");
        reader.join().expect("the reader does not panic");
        self.log()
    }

    pub fn end_by(mut self, signal: Signal) {
        self.end(signal);
    }

    fn end(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
        let status = wait(&mut self.child, PATIENCE);
        let status = status.unwrap_or_else(|| panic!("{signal} was not heeded: {:?}", self.log()));
        assert_eq!(status.code(), Some(0), "after {signal}: {status}, {:?}", self.log());
    }

    /// SIGKILL: nothing more is flushed.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child of ours");
    }

    pub fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path, None);
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    pub fn post(&self, path: &str) -> Value {
        let answer = self.request("POST", path, None);
        assert_eq!(answer.status, 200, "POST {path}: {}", answer.text());
        answer.json()
    }

    pub fn put(&self, path: &str, body: Value) -> Answer {
        self.request("PUT", path, Some(body.to_string()))
    }

    pub fn request(&self, method: &str, path: &str, body: Option<String>) -> Answer {
        let answer = ask(self.address, method, path, "application/json", body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}; log: {:#?}", self.log()))
    }

    /// As a browser asks for it.
    pub fn page(&self, path: &str) -> Answer {
        let answer = ask(self.address, "GET", path, "text/html,application/xhtml+xml,*/*;q=0.8", None);
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Has a sample taken now, so that everything up to here is booked.
    pub fn collect(&self) -> Value {
        let answer = self.post("/collector/collect");
        assert_eq!(answer["success"], true, "{answer}");
        answer
    }

    /// The rows of one interface, oldest first.
    pub fn export(&self, name: &str) -> Vec<Value> {
        let rows = self.get(&format!("/api/export/traffic?format=json&interface_name={name}"));
        let Value::Array(rows) = rows else { panic!("the export is no list: {rows}") };
        for row in &rows {
            assert_eq!(row["interface_name"], name, "{row}");
        }
        rows
    }

    /// Everything that was ever booked for one interface.
    pub fn booked(&self, name: &str) -> Counters {
        self.export(name).iter().map(counters_of).fold([0; 8], plus)
    }

    pub fn interface(&self, name: &str) -> Value {
        self.get(&format!("/api/interfaces/{name}"))
    }

    pub fn polls(&self) -> u64 {
        self.get("/collector/status")["stats"]["successful_polls"].as_u64().expect("a number")
    }

    /// Until `count` further ticks have passed.
    pub fn ticks(&self, count: u64) {
        let goal = self.polls() + count;
        wait_until("the timer ticks", || self.polls() >= goal);
    }

    /// Bytes of memory that it has now.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most it ever had.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&path).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("a line of its own");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// The id of the thread of that name.
    pub fn thread(&self, name: &str) -> Option<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
        tasks.flatten().find_map(|task| {
            let comm = fs::read_to_string(task.path().join("comm")).ok()?;
            (comm.trim() == name).then(|| task.file_name().to_str()?.parse().ok())?
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is shipped, unless it is older than what it was made of.
pub fn release_binary() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // target/debug/net-pulse and target/release/net-pulse are neighbours, wherever the target directory is.
    let binary = Path::new(env!("CARGO_BIN_EXE_net-pulse")).parent()?.parent()?.join("release/net-pulse");
    let made = fs::metadata(&binary).ok()?.modified().ok()?;
    let newest = ["src", "www"].iter().filter_map(|dir| newest_below(&here.join(dir))).max()?;
    (made >= newest).then_some(binary)
}

fn newest_below(dir: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    entries
        .filter_map(|entry| {
            let kind = entry.file_type().ok()?;
            if kind.is_dir() { newest_below(&entry.path()) } else { entry.metadata().ok()?.modified().ok() }
        })
        .max()
}

pub fn counters_of(row: &Value) -> Counters {
    COUNTERS.map(|name| row[name].as_u64().unwrap_or_else(|| panic!("{name} is no number in {row}")))
}

fn follow(
    pipe: impl Read + Send + 'static,
    log: Arc<Mutex<Vec<String>>>,
) -> (Receiver<String>, thread::JoinHandle<()>) {
    let (sender, receiver) = channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { break };
            log.lock().expect("no one panics with it").push(line.clone());
            let _ = sender.send(line);
        }
    });
    (receiver, reader)
}

/// The address behind `http://` in a line of the log.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    rest.split(['/', ' ']).next()?.parse().ok()
}

pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }
}

/// One request on a connection of its own.
pub fn ask(to: SocketAddr, method: &str, path: &str, accept: &str, body: Option<String>) -> io::Result<Answer> {
    ask_with(to, method, path, &[("Accept", accept)], body)
}

/// With headers of the caller's choice; a Host among them takes the place of the right one.
pub fn ask_with(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += &format!("Host: {to}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = &body {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n{}", body.unwrap_or_default()).as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let answer = parse_answer(&bytes, method == "HEAD");
    answer.ok_or_else(|| io::Error::other(format!("no HTTP: {:?}", String::from_utf8_lossy(&bytes))))
}

pub fn parse_answer(bytes: &[u8], without_body: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string())))
        .collect::<Option<_>>()?;
    let mut answer = Answer { status, headers, body: bytes[end + 4..].to_vec() };
    if without_body {
        return answer.body.is_empty().then_some(answer);
    }
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        answer.body = unchunk(&answer.body)?;
    } else if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().ok()?;
        // A body cut short is a fault, not a short answer.
        if answer.body.len() != length {
            return None;
        }
    }
    Some(answer)
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
