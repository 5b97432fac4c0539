//! Who is known by the socket at the other end: proxies with their default settings, which add no header and run as users
//! of their own, other users of this machine in all ways that a connection can have, and where the kernel tells less.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::disk::signal;
use crate::common::*;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;

const BINARY: &str = env!("CARGO_BIN_EXE_net-pulse");
/// An account without rights, on every Debian.
const UNPRIVILEGED: u32 = 65534;
/// Of users that nothing else runs as.
const ALICE: u32 = 41_001;
const SERVICE: u32 = 41_002;

/// A server as it is installed here, or as tests/all has unpacked it.
fn server(name: &str) -> Option<Command> {
    let unpacked = format!("{}/.cache/servers/usr", env!("CARGO_MANIFEST_DIR"));
    let libraries = fs::read_dir(format!("{unpacked}/lib")).into_iter().flatten().flatten();
    let libraries: Vec<String> = libraries.map(|entry| entry.path().display().to_string()).collect();
    let commands = [format!("/usr/sbin/{name}"), format!("{unpacked}/sbin/{name}")].map(|path| {
        let mut command = Command::new(path);
        command.env("LD_LIBRARY_PATH", libraries.join(":")).stdout(Stdio::null()).stderr(Stdio::null());
        command
    });
    let there = |command: &mut Command| command.arg("-v").status().is_ok_and(|status| status.success());
    let found = commands.into_iter().find_map(|mut command| there(&mut command).then_some(command));
    if found.is_none() {
        skip(&format!("{name} is not there; tests/all has it unpacked"));
    }
    let found = found?;
    let mut command = Command::new(found.get_program());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    Some(command)
}

/// A daemon of root on the loopback.
fn with_daemon(body: impl FnOnce(&Dir, &Daemon) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &[]);
        body(&dir, &daemon);
        runs(&daemon);
        let log = daemon.stop().join("\n");
        assert!(!log.contains("panicked") && !log.contains("at fault"), "{log}");
    });
}

#[track_caller]
fn runs(daemon: &Daemon) {
    // After a crowd the waiting room may be full for a moment.
    wait_until("there is room", || daemon.request("GET", "/health", None).status == 200);
    assert_eq!(daemon.get("/collector/status")["is_running"], true, "somebody stopped it");
}

/// The status of a POST that would stop the collection.
fn stop_at(to: SocketAddr) -> u16 {
    ask(to, "POST", "/collector/stop", "*/*", None).expect("an answer").status
}

fn collect_at(to: SocketAddr) -> u16 {
    ask(to, "POST", "/collector/collect", "*/*", None).expect("an answer").status
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn script(name: &str) -> String {
    format!("{}/tests/attack/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// strangers.py, a copy of it: the tree may be closed to other users.
fn stranger(user: u32, how: &str, port: u16, number: u32) -> String {
    let file = Dir::new();
    let path = file.join("strangers.py");
    fs::copy(script("strangers.py"), &path).expect("it is ours");
    chown(file.path(), Some(user), None).expect("root may");
    let mut command = Command::new("/usr/bin/python3");
    command.args([&path, how, &port.to_string(), &number.to_string()]).current_dir("/").stdin(Stdio::null());
    let output = command.uid(user).gid(user).output().expect("python3; tests/all installs what is needed");
    assert!(output.status.success(), "{how}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

/// A server that runs until this is dropped.
struct Service(Child);

impl Service {
    fn start(mut command: Command, address: SocketAddr) -> Service {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let service = Service(child.expect("it starts"));
        wait_until("it listens", || TcpStream::connect(address).is_ok());
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Its own processes end with it only where it is asked.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        if wait(&mut self.0, PATIENCE).is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// nginx in front of `port`, as `user`, with `more` beside the `proxy_pass`.
fn nginx(dir: &Dir, user: &str, port: u16, more: &str) -> Option<(Service, SocketAddr)> {
    let front = free_address();
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", dir.join(name)))
        .concat();
    let config = format!(
        "user {user};\nworker_processes 1;\ndaemon off;\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
         {folders}server {{ listen {front}; location / {{ proxy_pass http://127.0.0.1:{port}; {more} }} }}\n}}\n",
        dir.join("nginx.pid")
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config).expect("it is ours");
    let mut command = server("nginx")?;
    command.args(["-c", &path, "-p", &dir.join(""), "-e", "stderr"]);
    Some((Service::start(command, front), front))
}

/// Debian's nginx runs as www-data, OpenWrt's as root.
#[test]
fn nginx_with_its_default_settings_opens_nothing() {
    with_daemon(|dir, daemon| {
        let token = fs::read_to_string(dir.join("net-pulse.db.token")).expect("it was made");
        for (user, more) in [
            ("www-data", ""),
            ("www-data", "proxy_http_version 1.1;"),
            ("www-data", "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;"),
            ("root", ""),
        ] {
            let Some((_nginx, front)) = nginx(dir, user, daemon.port(), more) else { return };
            assert_eq!(ask(front, "GET", "/health", "*/*", None).expect("an answer").status, 200, "{user} {more}");
            assert_eq!(stop_at(front), 401, "{user} {more}");
            let bearer = format!("Bearer {}", token.trim());
            let known = ask_with(front, "POST", "/collector/collect", &[("Authorization", &bearer)], None);
            assert_eq!(known.expect("an answer").status, 200, "{user} {more}");
        }
        assert_eq!(collect_at(at(daemon.port())), 200, "root without a proxy");
    });
}

#[test]
fn haproxy_with_its_default_settings_opens_nothing() {
    with_daemon(|dir, daemon| {
        for mode in ["http", "tcp"] {
            let front = free_address();
            let config = format!(
                "global\n user www-data\n group www-data\ndefaults\n mode {mode}\n timeout connect 5s\n timeout client 5s\n \
                 timeout server 5s\nlisten all\n bind {front}\n server one 127.0.0.1:{}\n",
                daemon.port()
            );
            let path = dir.join("haproxy.cfg");
            fs::write(&path, config).expect("it is ours");
            let Some(mut command) = server("haproxy") else { return };
            command.args(["-db", "-f", &path]);
            let _haproxy = Service::start(command, front);
            assert_eq!(ask(front, "GET", "/health", "*/*", None).expect("an answer").status, 200, "{mode}");
            assert_eq!(stop_at(front), 401, "{mode}");
        }
    });
}

/// Bytes in, bytes out, as `ssh -L`, socat and many a container's port do it.
#[test]
fn a_plain_forwarder_of_another_user_opens_nothing() {
    with_daemon(|_, daemon| {
        for (user, status) in [(UNPRIVILEGED, 401), (ALICE, 401), (0, 200)] {
            let front = free_address();
            let file = Dir::new();
            let path = file.join("forwarder.py");
            fs::copy(script("forwarder.py"), &path).expect("it is ours");
            chown(file.path(), Some(user), None).expect("root may");
            let mut command = Command::new("/usr/bin/python3");
            command.args([&path, &front.port().to_string(), &daemon.port().to_string()]).current_dir("/");
            command.uid(user).gid(user);
            let _forwarder = Service::start(command, front);
            assert_eq!(ask(front, "GET", "/health", "*/*", None).expect("an answer").status, 200, "{user}");
            // That of root is root, as SECURITY.md says.
            assert_eq!(collect_at(front), status, "{user}");
        }
    });
}

/// However a connection is made: the user is that of its socket.
#[test]
fn other_users_of_this_machine_are_asked_for_the_token() {
    with_daemon(|_, daemon| {
        let port = daemon.port();
        for user in [UNPRIVILEGED, ALICE] {
            for how in ["plain", "old", "half", "mapped"] {
                assert_eq!(stranger(user, how, port, 1), "401", "{how} of {user}");
            }
            match stranger(user, "mptcp", port, 1).as_str() {
                none if none.starts_with("none: ") => skip(none),
                status => assert_eq!(status, "401", "MPTCP"),
            }
            match stranger(user, "unshared", port, 1).as_str() {
                none if none.starts_with("none: ") => skip(none),
                status => assert_eq!(status, "401", "root of a user namespace"),
            }
        }
        let said = ask_as(ALICE, port);
        assert!(said.contains("`net-pulse token`") && said.contains("root"), "{said}");
        // Root itself, where the connection does not say so.
        for how in ["old", "passed"] {
            assert_eq!(stranger(0, how, port, 1), "401", "{how} of root");
        }
        half_closed(daemon);
        runs(daemon);
        for how in ["plain", "mapped"] {
            assert_eq!(stranger(0, how, port, 1), "200", "{how} of root");
            assert_eq!(ask(at(port), "POST", "/collector/start", "*/*", None).expect("an answer").status, 200);
        }
    });
}

/// Root's own request, from a connection that is half closed before the daemon sees it.
fn half_closed(daemon: &Daemon) {
    daemon.freeze();
    let mut stream = TcpStream::connect(at(daemon.port())).expect("the kernel takes it");
    stream.write_all(b"POST /collector/stop HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("there is room");
    stream.shutdown(Shutdown::Write).expect("it is open");
    signal(daemon.pid(), Signal::SIGCONT);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    assert_eq!(parse_answer(&bytes, false).expect("an answer").status, 401);
}

/// What is told to who is refused.
fn ask_as(user: u32, port: u16) -> String {
    let mut command = Command::new("/usr/bin/curl");
    command.args(["-s", "-X", "POST", &format!("http://127.0.0.1:{port}/collector/stop")]);
    let output = command.uid(user).gid(user).current_dir("/").output().expect("curl; tests/all installs it");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What is judged after its sender has gone: a socket that is closed shows the user 0, and the next connection of the
/// same two addresses may be root's.
#[test]
fn who_is_gone_before_the_request_is_judged_is_not_root() {
    with_daemon(|_, daemon| {
        let source = SocketAddr::from(([127, 0, 0, 1], 50_001));
        for round in 0..3 {
            for how in ["closed", "reset"] {
                let why = format!("{how}, round {round}");
                // All of this is in the kernel's queue when the daemon wakes up.
                daemon.freeze();
                stranger(ALICE, how, daemon.port(), u32::from(source.port()));
                // Only a reset makes the port free at once.
                if how == "closed" {
                    // Until the kernel keeps no more of it than the addresses, with the user 0.
                    let gone =
                        || !fs::read_to_string("/proc/thread-self/net/tcp").expect("a table").contains(" 41001 ");
                    wait_until("the socket is gone", gone);
                }
                let root = (how == "reset").then(|| connect_from(source, at(daemon.port())));
                signal(daemon.pid(), Signal::SIGCONT);
                if let Some(mut root) = root {
                    root.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is open");
                    let mut bytes = Vec::new();
                    root.read_to_end(&mut bytes).expect("an answer");
                    assert_eq!(parse_answer(&bytes, false).expect("an answer").status, 200, "{why}");
                    reset(root);
                }
                assert_eq!(collect_at(at(daemon.port())), 200, "{why}");
                runs(daemon);
            }
        }
    });
}

fn connect_from(source: SocketAddr, to: SocketAddr) -> TcpStream {
    let (source, to) = (SockaddrStorage::from(source), SockaddrStorage::from(to));
    let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&stream, sockopt::ReuseAddr, &true).expect("a socket");
    bind(stream.as_raw_fd(), &source).expect("the port is free");
    connect(stream.as_raw_fd(), &to).expect("the kernel takes it");
    stream.into()
}

/// The same by chance and in numbers, while root asks as well.
#[test]
fn who_sends_and_is_gone_is_never_taken_for_root() {
    const TRIES: u32 = 3000;
    with_daemon(|_, daemon| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50999").expect("a namespace of our own");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut known = 0;
                while !over.load(Ordering::Relaxed) {
                    let answer = ask(at(daemon.port()), "POST", "/collector/collect", "*/*", None);
                    known += u32::from(answer.is_ok_and(|answer| answer.status == 200));
                }
                known
            });
            let sent: u32 = stranger(ALICE, "racing", daemon.port(), TRIES).parse().expect("a number");
            over.store(true, Ordering::Relaxed);
            let known = asking.join().expect("it counts");
            assert!(sent > TRIES / 4 && known > 10, "{sent} were sent, and {known} of root answered");
        });
        runs(daemon);
    });
}

/// A daemon with a user of its own, as everywhere but in these tests.
fn as_user(user: u32, more: &[&str], body: impl FnOnce(&Dir, &Daemon) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        chown(dir.path(), Some(user), Some(user)).expect("root may");
        let binary = dir.join("net-pulse");
        fs::copy(BINARY, &binary).expect("it is there");
        let mut command = net_pulse(&binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(more);
        command.uid(user).gid(user).current_dir("/");
        let daemon = Daemon::spawn(command);
        body(&dir, &daemon);
        daemon.stop();
    });
}

#[test]
fn the_daemons_own_user_needs_no_token_unless_it_is_one_of_many() {
    as_user(SERVICE, &[], |_, daemon| {
        assert_eq!(stranger(ALICE, "plain", daemon.port(), 1), "401");
        assert_eq!(stranger(UNPRIVILEGED, "plain", daemon.port(), 1), "401");
        runs(daemon);
        assert_eq!(stranger(SERVICE, "plain", daemon.port(), 1), "200");
        assert_eq!(collect_at(at(daemon.port())), 200, "root");
    });
    as_user(UNPRIVILEGED, &[], |_, daemon| {
        assert_eq!(stranger(UNPRIVILEGED, "plain", daemon.port(), 1), "401");
        runs(daemon);
        assert_eq!(collect_at(at(daemon.port())), 200, "root");
    });
}

#[test]
fn private_asks_other_users_for_reading_too() {
    as_user(SERVICE, &["--private"], |_, daemon| {
        let status = |user: u32| {
            let mut command = Command::new("/usr/bin/curl");
            command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]);
            command.arg(format!("http://127.0.0.1:{}/api/interfaces", daemon.port()));
            let output = command.uid(user).gid(user).current_dir("/").output().expect("curl; tests/all installs it");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!([ALICE, UNPRIVILEGED, SERVICE, 0].map(status), ["401", "401", "200", "200"]);
    });
}

/// The health check of a private daemon: root and its own user are known, and the user that cannot be shows the token,
/// which it may read.
#[test]
fn a_private_daemon_is_checked_by_its_user_and_by_root() {
    for user in [SERVICE, UNPRIVILEGED] {
        as_user(user, &["--private"], |dir, daemon| {
            let check = |asking: u32| {
                let mut command = net_pulse(&dir.join("net-pulse"));
                command.args(["--private", "--host", "127.0.0.1", "--port", &daemon.port().to_string()]);
                command.args(["--database", &dir.join("net-pulse.db"), "check", "--health"]);
                command.uid(asking).gid(asking).current_dir("/");
                finish(command)
            };
            for known in [0, user] {
                let ended = check(known);
                assert_eq!((ended.code, ended.out.as_str()), (Some(0), "healthy\n"), "{known}: {}", ended.err);
            }
            let refused = check(ALICE);
            assert_eq!(refused.code, Some(1), "{}", refused.out);
            assert!(refused.err.contains("access token") && refused.err.contains("user"), "{}", refused.err);
        });
    }
}

/// sock_diag is refused in sandboxes, and its module missing on routers: then procfs tells. Where that tells nothing
/// either, everybody is asked, and the log says so once.
#[test]
fn where_the_kernel_tells_less() {
    let refusing = refusing();
    // A netlink socket of NETLINK_SOCK_DIAG.
    let rule = "socket 0=16 2=4";
    in_namespace(|| {
        let dir = Dir::new();
        let start = |wrapped: &[&str]| {
            let mut command = net_pulse(wrapped[0]);
            let database = dir.join("net-pulse.db");
            command.args(&wrapped[1..]).args([BINARY, "--host", "127.0.0.1", "--port", "0", "--database", &database]);
            Daemon::spawn(command)
        };
        let warned = |daemon: &Daemon| {
            daemon.log().iter().filter(|line| line.contains("cannot find out which user sends them")).count()
        };
        let python = ["/usr/bin/python3", &refusing, rule, "--"];
        let daemon = start(&python);
        assert_eq!(collect_at(at(daemon.port())), 200, "root by procfs");
        assert_eq!(stranger(0, "mapped", daemon.port(), 1), "200", "root by procfs");
        assert_eq!(ask(at(daemon.port()), "POST", "/collector/start", "*/*", None).expect("an answer").status, 200);
        for how in ["plain", "half", "mapped", "old"] {
            assert_eq!(stranger(ALICE, how, daemon.port(), 1), "401", "{how}");
        }
        stranger(ALICE, "racing", daemon.port(), 300);
        runs(&daemon);
        assert_eq!(warned(&daemon), 0);
        daemon.stop();

        let blind = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"];
        let daemon = start(&blind);
        assert_eq!(collect_at(at(daemon.port())), 200, "root by sock_diag");
        assert_eq!(stranger(ALICE, "plain", daemon.port(), 1), "401");
        assert_eq!(warned(&daemon), 0);
        daemon.stop();

        let daemon = start(&[&blind[..], &python].concat());
        for _ in 0..3 {
            assert_eq!(collect_at(at(daemon.port())), 401, "root cannot be known");
        }
        assert_eq!(daemon.get("/health")["status"], "healthy");
        wait_until("it is told once", || warned(&daemon) == 1);
        daemon.stop();
    });
}
