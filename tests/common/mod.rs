//! Helpers for tests that run the program from outside: a network namespace that disappears by itself, links and traffic
//! of known size in it, and the real binary with an HTTP client. Only `stored_history` uses modules of the program; all
//! other helpers check what a user could check. Every wait has a time limit, and no packet leaves the loopback or the
//! test's own namespace.

// Each of the three test crates includes this module and uses only a part of it.
#![allow(dead_code)]

pub mod disk;
pub mod stored_history;

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

/// The counters, in the order of the program's columns.
pub const COUNTERS: [&str; 8] =
    ["rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_drops", "tx_drops"];
pub type Counters = [u64; 8];

/// Time limit for everything that a test waits for.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// Prints a `skipped:` line to the real stderr, which the test harness does not capture. `tests/all` counts these
/// lines.
pub fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

/// Runs a test's body on a thread with its own network and mount namespace, in which the loopback is up and `/sys`
/// shows the links of that namespace. The kernel removes both with the thread and its children; nothing is left behind.
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

/// Moves the current thread into new namespaces.
fn enter() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("not root".to_string());
    }
    let failed = |what: &'static str| move |errno: nix::Error| format!("{what}: {errno}");
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(failed("unshare"))?;
    // Otherwise the mounts below would appear outside the namespace on machines where / is mounted shared.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(failed("private mounts"))?;
    // /sys/class/net shows the network namespace of the process that mounted sysfs, so it is mounted again.
    mount(Some("none"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).map_err(failed("sysfs"))?;
    // IPv6 is off: router solicitations and MLD reports would change the counters at any time. /proc/sys/net belongs to
    // the network namespace of the thread that opens it.
    for which in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        if Path::new(&path).exists() {
            fs::write(&path, "1").map_err(|error| format!("{path}: {error}"))?;
        }
    }
    ip("link set lo up");
    Ok(())
}

/// Runs `ip` with these words inside the namespace; fails the test if `ip` fails.
pub fn ip(words: &str) {
    run("ip", words);
}

/// Runs a program with these words; fails the test if the program fails.
pub fn run(program: &str, words: &str) {
    let output = Command::new(program).args(words.split_whitespace()).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; tests/all installs what is needed"));
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Creates a pair of veth links, both up. Do not name them veth*: the program ignores such names by default.
pub fn cable(one: &str, other: &str) {
    ip(&format!("link add {one} type veth peer name {other}"));
    ip(&format!("link set {other} up"));
    ip(&format!("link set {one} up"));
    wait_until("both ends have a carrier", || operstate(one) == "up" && operstate(other) == "up");
}

fn operstate(name: &str) -> String {
    fs::read_to_string(format!("/sys/class/net/{name}/operstate")).unwrap_or_default().trim().to_string()
}

/// The kernel's counters from sysfs, which is the program's last choice of source.
pub fn kernel_counters(name: &str) -> Counters {
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

/// EtherType of IPv4, for frames without a valid IPv4 header: the device counts them as received, and IPv4 drops them,
/// which changes no counter of the device.
pub const INVALID_IPV4: u16 = 0x0800;
/// EtherType for local experiments: no protocol accepts it, so the device counts a drop.
pub const UNKNOWN_ETHERTYPE: u16 = 0x88b5;
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// An account without rights: user 65534, which Debian reserves for that.
pub const UNPRIVILEGED_UID: u32 = 65_534;

/// Sends raw frames out of one interface. A frame of N bytes adds N to tx_bytes: no checksum is counted, nothing is
/// padded.
pub struct RawSocket {
    socket: OwnedFd,
    address: LinkAddr,
}

impl RawSocket {
    pub fn of(name: &str) -> RawSocket {
        // With protocol 0 this socket receives nothing. Building the address of a packet socket needs `unsafe`, so it
        // is taken from getifaddrs, which returns one for every link.
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).expect("a packet socket");
        let address = nix::ifaddrs::getifaddrs().expect("addresses").find_map(|entry| {
            let address = entry.address.filter(|address| address.family() == Some(AddressFamily::Packet))?;
            (entry.interface_name == name).then(|| *address.as_link_addr().expect("a link address"))
        });
        RawSocket { socket, address: address.unwrap_or_else(|| panic!("no link {name}")) }
    }

    pub fn send(&self, to: [u8; 6], protocol: u16, bytes: usize, count: usize) {
        let mut frame = vec![0; bytes];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&protocol.to_be_bytes());
        for _ in 0..count {
            // Some drivers report a dropped frame here, others do not. Tests look at the counters.
            let _ = sendto(self.socket.as_raw_fd(), &frame, &self.address, MsgFlags::empty());
        }
    }
}

/// Broadcasts `count` frames of `bytes` bytes each. `bytes` must be at least 14, the Ethernet header.
pub fn send(from: &str, bytes: usize, count: usize) {
    RawSocket::of(from).send(BROADCAST, INVALID_IPV4, bytes, count);
}

/// A VXLAN tunnel with both ends in this namespace: the only kind of link here on which all eight counters can be
/// changed.
pub struct Tunnel {
    name: String,
    socket: RawSocket,
    port: u16,
}

impl Tunnel {
    const LOOP: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
    const NO_ROUTE: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
    const NO_FDB_ENTRY: [u8; 6] = [2, 0, 0, 0, 0, 0xcc];
    const VNI: u8 = 7;

    pub fn new(name: &str) -> Tunnel {
        let port = 4789;
        ip(&format!("link add {name} type vxlan id {} local 127.0.0.1 dstport {port} nolearning", Self::VNI));
        ip(&format!("link set {name} up"));
        ip("route add unreachable 10.66.0.1");
        run("bridge", &format!("fdb add {} dev {name} dst 127.0.0.1", mac(Self::LOOP)));
        run("bridge", &format!("fdb add {} dev {name} dst 10.66.0.1", mac(Self::NO_ROUTE)));
        Tunnel { name: name.to_string(), socket: RawSocket::of(name), port }
    }

    /// Raises every counter by an amount proportional to `n`, and returns the amounts.
    pub fn burst(&self, n: usize) -> Counters {
        const SENT: usize = 200;
        const RECEIVED: usize = 36;
        let before = kernel_counters(&self.name);
        self.socket.send(Self::LOOP, INVALID_IPV4, SENT, 4 * n);
        self.socket.send(Self::LOOP, UNKNOWN_ETHERTYPE, SENT, 3 * n);
        self.socket.send(Self::NO_FDB_ENTRY, INVALID_IPV4, SENT, 2 * n);
        self.socket.send(Self::NO_ROUTE, INVALID_IPV4, SENT, n);
        self.receive(&[0; RECEIVED], 5 * n);
        // A damaged packet: its type is IPv4, but the IPv4 header is missing.
        self.receive(b"xxx", n);
        let (n, sent, received) = (n as u64, SENT as u64, RECEIVED as u64);
        // Packets received through the socket are counted without their 14 bytes of Ethernet; packets that the tunnel
        // sends to itself directly are counted with them.
        let delta = [7 * n * sent + 5 * n * received, 7 * n * sent, 12 * n, 7 * n, n, n, 3 * n, 2 * n];
        wait_until("the tunnel has counted all that was sent", || minus(kernel_counters(&self.name), before) == delta);
        delta
    }

    /// Sends packets to the tunnel from outside, each in the tunnel's encapsulation: VNI, two hardware addresses, the
    /// EtherType of IPv4, and the packet.
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

/// Waits until `ready` returns true; fails the test after `TIMEOUT`.
#[track_caller]
pub fn wait_until(what: &str, ready: impl FnMut() -> bool) {
    wait_until_within(what, TIMEOUT, ready);
}

/// As `wait_until`, with a longer time limit for what is slow by design.
#[track_caller]
pub fn wait_until_within(what: &str, longest: Duration, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + longest;
    while !ready() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// An address with a port that is free now, for tests that must know it before the program starts.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port")
}

/// Closes the connection with a TCP reset.
pub fn reset(stream: TcpStream) {
    let mut linger = getsockopt(&stream, sockopt::Linger).expect("a socket");
    (linger.l_onoff, linger.l_linger) = (1, 0);
    setsockopt(&stream, sockopt::Linger, &linger).expect("a socket");
}

/// Path of the script that makes the kernel refuse system calls: `python3 PATH RULE... -- COMMAND...`.
pub fn refusing() -> String {
    format!("{}/tests/common/refusing.py", env!("CARGO_MANIFEST_DIR"))
}

pub fn strace_or_skip() -> bool {
    let installed =
        Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !installed {
        skip("strace is not installed: no system call is made to fail");
    }
    installed
}

pub fn sleep_ms(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// A temporary directory, removed when this value is dropped.
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

/// A command for the binary under test, without the NETPULSE_* variables of the developer's shell.
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

/// Exit code and output of a run that ended by itself.
pub struct FinishedRun {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Starts the command, trying again on ETXTBSY. A newly copied binary is busy while a child of another test still has
/// the write descriptor open, between its fork and its exec.
fn spawn(command: &mut Command) -> Child {
    for _ in 0..50 {
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => sleep_ms(20),
            result => return result.expect("the binary starts"),
        }
    }
    panic!("the binary stays busy");
}

/// Runs the command until it ends; fails the test if it does not end by itself within `TIMEOUT`.
pub fn finish(mut command: Command) -> FinishedRun {
    let mut child = spawn(&mut command);
    // Threads read the output: a full pipe would keep the child from ending.
    let (out, err) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
    let status = wait(&mut child, TIMEOUT);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (out, err) = (out.join().expect("text"), err.join().expect("text"));
    let status = status.unwrap_or_else(|| panic!("the program did not end by itself; its output: {out}{err}"));
    FinishedRun { code: status.code(), out, err }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    let mut pipe = pipe.expect("a pipe");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The exit status, or `None` when the child still runs after `longest`.
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
    /// Starts the program on the loopback of this namespace, with the database in `dir`.
    pub fn start(dir: &Dir, more: &[&str]) -> Daemon {
        Daemon::start_binary(env!("CARGO_BIN_EXE_net-pulse"), dir, more)
    }

    pub fn start_binary(binary: &str, dir: &Dir, more: &[&str]) -> Daemon {
        let mut command = net_pulse(binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(more);
        Daemon::spawn(command)
    }

    /// Starts the program and waits for its URL in the log. An error about the database may be logged before it.
    pub fn spawn(command: Command) -> Daemon {
        let (mut daemon, lines) = Daemon::launch(command);
        loop {
            match lines.recv_timeout(TIMEOUT) {
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
                Err(RecvTimeoutError::Timeout) => panic!("no URL within {TIMEOUT:?}: {:?}", daemon.log()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the program ended without a URL: {:?}, {:?}", daemon.child.wait(), daemon.log())
                }
            }
        }
    }

    /// Starts the program at a known address, and waits until it listens there. Its log is not needed.
    pub fn spawn_at(command: Command, address: SocketAddr) -> Daemon {
        let (mut daemon, _) = Daemon::launch(command);
        daemon.address = address;
        wait_until("the program listens", || TcpStream::connect_timeout(&address, TIMEOUT).is_ok());
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

    /// Ends the program with SIGTERM, requires exit code 0, and returns its whole log.
    pub fn stop(mut self) -> Vec<String> {
        self.end(Signal::SIGTERM);
        let reader = self.reader.take().expect("only this function takes it");
        reader.join().expect("the reader does not panic");
        self.log()
    }

    pub fn end_by(mut self, signal: Signal) {
        self.end(signal);
    }

    fn end(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the program runs");
        let status = wait(&mut self.child, TIMEOUT);
        let status = status.unwrap_or_else(|| panic!("the program still runs after {signal}: {:?}", self.log()));
        assert_eq!(status.code(), Some(0), "after {signal}: {status}, {:?}", self.log());
    }

    /// Kills the program with SIGKILL: it saves nothing more.
    pub fn kill(mut self) {
        self.child.kill().expect("the program runs");
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

    /// Requests a page with the Accept header of a browser.
    pub fn page(&self, path: &str) -> Answer {
        let answer = ask(self.address, "GET", path, "text/html,application/xhtml+xml,*/*;q=0.8", None);
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Makes the program take a sample now, so that all traffic so far is counted.
    pub fn collect(&self) -> Value {
        let answer = self.post("/collector/collect");
        assert_eq!(answer["success"], true, "{answer}");
        answer
    }

    /// The exported samples of one interface, oldest first.
    pub fn export(&self, name: &str) -> Vec<Value> {
        let rows = self.get(&format!("/api/export/traffic?format=json&interface_name={name}"));
        let Value::Array(rows) = rows else { panic!("the export is no list: {rows}") };
        for row in &rows {
            assert_eq!(row["interface_name"], name, "{row}");
        }
        rows
    }

    /// The sum of all samples of one interface.
    pub fn exported_sum(&self, name: &str) -> Counters {
        self.export(name).iter().map(counters_of).fold([0; 8], plus)
    }

    pub fn interface(&self, name: &str) -> Value {
        self.get(&format!("/api/interfaces/{name}"))
    }

    pub fn polls(&self) -> u64 {
        self.get("/collector/status")["stats"]["successful_polls"].as_u64().expect("a number")
    }

    /// Waits for `count` more ticks.
    pub fn wait_for_ticks(&self, count: u64) {
        let goal = self.polls() + count;
        wait_until("the timer ticks", || self.polls() >= goal);
    }

    /// Resident memory now, in bytes.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Peak of the resident memory, in bytes.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&path).expect("the program runs");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("a line with this key");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// The thread ID of the thread with this name.
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

/// The release binary; `None` when it is missing or older than the sources.
pub fn release_binary() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The directories debug and release are next to each other, wherever the target directory is.
    let binary = Path::new(env!("CARGO_BIN_EXE_net-pulse")).parent()?.parent()?.join("release/net-pulse");
    let built = fs::metadata(&binary).ok()?.modified().ok()?;
    let newest = ["src", "www"].iter().filter_map(|dir| newest_below(&here.join(dir))).max()?;
    (built >= newest).then_some(binary)
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
            log.lock().expect("the log is never poisoned").push(line.clone());
            let _ = sender.send(line);
        }
    });
    (receiver, reader)
}

/// The address after `http://` in a line of the log.
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

/// Sends one request on a new connection.
pub fn ask(to: SocketAddr, method: &str, path: &str, accept: &str, body: Option<String>) -> io::Result<Answer> {
    ask_with(to, method, path, &[("Accept", accept)], body)
}

/// Sends one request with these headers. A Host header among them replaces the correct one.
pub fn ask_with(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
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
        // A body that was cut off is an error, not a short answer.
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
