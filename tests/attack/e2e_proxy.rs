//! How the daemon finds out which user owns the client's socket: proxies with default settings, which add no header and
//! run as their own users; other users of this machine, with every kind of connection; and systems where the kernel
//! gives less information.

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
/// Uids that nothing else uses.
const ALICE_UID: u32 = 41_001;
const SERVICE_UID: u32 = 41_002;

/// The command of a server that is installed here, or that tests/all has unpacked.
fn server(name: &str) -> Option<Command> {
    let unpacked = format!("{}/.cache/servers/usr", env!("CARGO_MANIFEST_DIR"));
    let libraries = fs::read_dir(format!("{unpacked}/lib")).into_iter().flatten().flatten();
    let libraries: Vec<String> = libraries.map(|entry| entry.path().display().to_string()).collect();
    let commands = [format!("/usr/sbin/{name}"), format!("{unpacked}/sbin/{name}")].map(|path| {
        let mut command = Command::new(path);
        command.env("LD_LIBRARY_PATH", libraries.join(":")).stdout(Stdio::null()).stderr(Stdio::null());
        command
    });
    let works = |command: &mut Command| command.arg("-v").status().is_ok_and(|status| status.success());
    let found = commands.into_iter().find_map(|mut command| works(&mut command).then_some(command));
    if found.is_none() {
        skip(&format!("{name} is not there; tests/all has it unpacked"));
    }
    let found = found?;
    let mut command = Command::new(found.get_program());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    Some(command)
}

/// Runs a daemon as root on the loopback.
fn with_daemon(body: impl FnOnce(&Dir, &Daemon) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &[]);
        body(&dir, &daemon);
        check_collecting(&daemon);
        let log = daemon.stop().join("\n");
        assert!(!log.contains("panicked") && !log.contains("at fault"), "{log}");
    });
}

#[track_caller]
fn check_collecting(daemon: &Daemon) {
    // After many requests the queue may be full for a moment.
    wait_until("there is room", || daemon.request("GET", "/health", None).status == 200);
    assert_eq!(daemon.get("/collector/status")["is_running"], true, "somebody stopped it");
}

/// Sends a POST that would stop the collector, and returns the status.
fn stop_at(to: SocketAddr) -> u16 {
    ask(to, "POST", "/collector/stop", "*/*", None).expect("an answer").status
}

fn collect_at(to: SocketAddr) -> u16 {
    ask(to, "POST", "/collector/collect", "*/*", None).expect("an answer").status
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn script(name: &str) -> String {
    format!("{}/tests/attack/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a copy of strangers.py as `user`, because other users may have no access to the tree. `kind` is the way in
/// which it sends, `number` the source port or the number of requests (see strangers.py).
fn request_as(user: u32, kind: &str, port: u16, number: u32) -> String {
    let file = Dir::new();
    let path = file.join("strangers.py");
    fs::copy(script("strangers.py"), &path).expect("it is ours");
    chown(file.path(), Some(user), None).expect("root may");
    let mut command = Command::new("/usr/bin/python3");
    command.args([&path, kind, &port.to_string(), &number.to_string()]).current_dir("/").stdin(Stdio::null());
    let output = command.uid(user).gid(user).output().expect("python3; tests/all installs what is needed");
    assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

/// A server that runs until this value is dropped.
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
        // SIGTERM also ends the child processes of the server.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        if wait(&mut self.0, TIMEOUT).is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Starts nginx as `user` in front of `port`, with `options` beside `proxy_pass`.
fn nginx(dir: &Dir, user: &str, port: u16, options: &str) -> Option<(Service, SocketAddr)> {
    let front = free_address();
    let directories: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", dir.join(name)))
        .concat();
    let config = format!(
        "user {user};\nworker_processes 1;\ndaemon off;\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
         {directories}server {{ listen {front}; location / {{ proxy_pass http://127.0.0.1:{port}; {options} }} }}\n}}\n",
        dir.join("nginx.pid")
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config).expect("it is ours");
    let mut command = server("nginx")?;
    command.args(["-c", &path, "-p", &dir.join(""), "-e", "stderr"]);
    Some((Service::start(command, front), front))
}

/// nginx runs as www-data on Debian and as root on OpenWrt.
#[test]
fn clients_of_a_default_nginx_need_the_token() {
    with_daemon(|dir, daemon| {
        let token = fs::read_to_string(dir.join("net-pulse.db.token")).expect("it was made");
        for (user, options) in [
            ("www-data", ""),
            ("www-data", "proxy_http_version 1.1;"),
            ("www-data", "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;"),
            ("root", ""),
        ] {
            let Some((_nginx, front)) = nginx(dir, user, daemon.port(), options) else { return };
            assert_eq!(ask(front, "GET", "/health", "*/*", None).expect("an answer").status, 200, "{user} {options}");
            assert_eq!(stop_at(front), 401, "{user} {options}");
            let bearer = format!("Bearer {}", token.trim());
            let accepted = ask_with(front, "POST", "/collector/collect", &[("Authorization", &bearer)], None);
            assert_eq!(accepted.expect("an answer").status, 200, "{user} {options}");
        }
        assert_eq!(collect_at(loopback(daemon.port())), 200, "root without a proxy");
    });
}

#[test]
fn clients_of_a_default_haproxy_need_the_token() {
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

/// A TCP forwarder, as `ssh -L`, socat and the published ports of containers are.
#[test]
fn clients_of_a_tcp_forwarder_of_another_user_need_the_token() {
    with_daemon(|_, daemon| {
        for (user, status) in [(UNPRIVILEGED_UID, 401), (ALICE_UID, 401), (0, 200)] {
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
            // A forwarder of root counts as root, as SECURITY.md says.
            assert_eq!(collect_at(front), status, "{user}");
        }
    });
}

/// The daemon finds the user who owns the socket, for every kind of connection.
#[test]
fn other_users_of_this_machine_need_the_token() {
    with_daemon(|_, daemon| {
        let port = daemon.port();
        for user in [UNPRIVILEGED_UID, ALICE_UID] {
            for kind in ["plain", "old", "half", "mapped"] {
                assert_eq!(request_as(user, kind, port, 1), "401", "{kind} of {user}");
            }
            match request_as(user, "mptcp", port, 1).as_str() {
                none if none.starts_with("none: ") => skip(none),
                status => assert_eq!(status, "401", "MPTCP"),
            }
            match request_as(user, "unshared", port, 1).as_str() {
                none if none.starts_with("none: ") => skip(none),
                status => assert_eq!(status, "401", "root of a user namespace"),
            }
        }
        let answer = refusal_text_for(ALICE_UID, port);
        assert!(answer.contains("`net-pulse token`") && answer.contains("root"), "{answer}");
        // Requests of root that need the token too. "old" is HTTP/1.0, which counts as a proxy; for "passed", another
        // user opened the socket.
        for kind in ["old", "passed"] {
            assert_eq!(request_as(0, kind, port, 1), "401", "{kind} of root");
        }
        check_half_closed(daemon);
        check_collecting(daemon);
        for kind in ["plain", "mapped"] {
            assert_eq!(request_as(0, kind, port, 1), "200", "{kind} of root");
            assert_eq!(ask(loopback(port), "POST", "/collector/start", "*/*", None).expect("an answer").status, 200);
        }
    });
}

/// Checks that a request of root needs the token if its connection is half closed before the daemon sees it: the user
/// is then no longer certain.
fn check_half_closed(daemon: &Daemon) {
    daemon.freeze();
    let mut stream = TcpStream::connect(loopback(daemon.port())).expect("the kernel takes it");
    stream.write_all(b"POST /collector/stop HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("there is room");
    stream.shutdown(Shutdown::Write).expect("it is open");
    signal(daemon.pid(), Signal::SIGCONT);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    assert_eq!(parse_answer(&bytes, false).expect("an answer").status, 401);
}

/// The text of the refusal for this user.
fn refusal_text_for(user: u32, port: u16) -> String {
    let mut command = Command::new("/usr/bin/curl");
    command.args(["-s", "-X", "POST", &format!("http://127.0.0.1:{port}/collector/stop")]);
    let output = command.uid(user).gid(user).current_dir("/").output().expect("curl; tests/all installs it");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The daemon checks a request after its client has left. A closed socket shows the user 0, and the next connection
/// with the same two addresses may be one of root.
#[test]
fn a_client_that_left_before_the_check_is_not_root() {
    with_daemon(|_, daemon| {
        let source = SocketAddr::from(([127, 0, 0, 1], 50_001));
        for round in 0..3 {
            for kind in ["closed", "reset"] {
                let why = format!("{kind}, round {round}");
                // Everything is in the queue of the kernel when the daemon wakes up.
                daemon.freeze();
                request_as(ALICE_UID, kind, daemon.port(), u32::from(source.port()));
                // Only a reset frees the port at once.
                if kind == "closed" {
                    // Waits until the kernel keeps only the addresses, with the user 0.
                    let is_gone =
                        || !fs::read_to_string("/proc/thread-self/net/tcp").expect("a table").contains(" 41001 ");
                    wait_until("the socket is gone", is_gone);
                }
                let root = (kind == "reset").then(|| connect_from(source, loopback(daemon.port())));
                signal(daemon.pid(), Signal::SIGCONT);
                if let Some(mut root) = root {
                    root.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is open");
                    let mut bytes = Vec::new();
                    root.read_to_end(&mut bytes).expect("an answer");
                    assert_eq!(parse_answer(&bytes, false).expect("an answer").status, 200, "{why}");
                    reset(root);
                }
                assert_eq!(collect_at(loopback(daemon.port())), 200, "{why}");
                check_collecting(daemon);
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

/// The same with many random attempts, while root sends requests too.
#[test]
fn clients_that_send_and_leave_are_never_taken_for_root() {
    const ATTEMPTS: u32 = 3000;
    with_daemon(|_, daemon| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50999").expect("a namespace of our own");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let root_client = scope.spawn(|| {
                let mut accepted = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(loopback(daemon.port()), "POST", "/collector/collect", "*/*", None);
                    accepted += u32::from(answer.is_ok_and(|answer| answer.status == 200));
                }
                accepted
            });
            let sent: u32 = request_as(ALICE_UID, "racing", daemon.port(), ATTEMPTS).parse().expect("a number");
            stop.store(true, Ordering::Relaxed);
            let accepted = root_client.join().expect("it counts");
            assert!(sent > ATTEMPTS / 4 && accepted > 10, "{sent} were sent, and {accepted} of root answered");
        });
        check_collecting(daemon);
    });
}

/// Runs a daemon as its own user, as installations do.
fn as_user(user: u32, options: &[&str], body: impl FnOnce(&Dir, &Daemon) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        chown(dir.path(), Some(user), Some(user)).expect("root may");
        let binary = dir.join("net-pulse");
        fs::copy(BINARY, &binary).expect("it is there");
        let mut command = net_pulse(&binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(options);
        command.uid(user).gid(user).current_dir("/");
        let daemon = Daemon::spawn(command);
        body(&dir, &daemon);
        daemon.stop();
    });
}

#[test]
fn the_daemons_own_user_needs_no_token_except_nobody() {
    as_user(SERVICE_UID, &[], |_, daemon| {
        assert_eq!(request_as(ALICE_UID, "plain", daemon.port(), 1), "401");
        assert_eq!(request_as(UNPRIVILEGED_UID, "plain", daemon.port(), 1), "401");
        check_collecting(daemon);
        assert_eq!(request_as(SERVICE_UID, "plain", daemon.port(), 1), "200");
        assert_eq!(collect_at(loopback(daemon.port())), 200, "root");
    });
    as_user(UNPRIVILEGED_UID, &[], |_, daemon| {
        assert_eq!(request_as(UNPRIVILEGED_UID, "plain", daemon.port(), 1), "401");
        check_collecting(daemon);
        assert_eq!(collect_at(loopback(daemon.port())), 200, "root");
    });
}

#[test]
fn private_needs_the_token_for_reading_from_other_users() {
    as_user(SERVICE_UID, &["--private"], |_, daemon| {
        let status = |user: u32| {
            let mut command = Command::new("/usr/bin/curl");
            command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]);
            command.arg(format!("http://127.0.0.1:{}/api/interfaces", daemon.port()));
            let output = command.uid(user).gid(user).current_dir("/").output().expect("curl; tests/all installs it");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!([ALICE_UID, UNPRIVILEGED_UID, SERVICE_UID, 0].map(status), ["401", "401", "200", "200"]);
    });
}

/// The health check of a private daemon: root and the user of the daemon need no token. If the daemon runs as the
/// account without rights, its user is not trusted, but may read the token file and sends the token.
#[test]
fn root_and_the_daemons_user_can_check_a_private_daemon() {
    for user in [SERVICE_UID, UNPRIVILEGED_UID] {
        as_user(user, &["--private"], |dir, daemon| {
            let check = |uid: u32| {
                let mut command = net_pulse(&dir.join("net-pulse"));
                command.args(["--private", "--host", "127.0.0.1", "--port", &daemon.port().to_string()]);
                command.args(["--database", &dir.join("net-pulse.db"), "check", "--health"]);
                command.uid(uid).gid(uid).current_dir("/");
                finish(command)
            };
            for uid in [0, user] {
                let ended = check(uid);
                assert_eq!((ended.code, ended.out.as_str()), (Some(0), "healthy\n"), "{uid}: {}", ended.err);
            }
            let refused = check(ALICE_UID);
            assert_eq!(refused.code, Some(1), "{}", refused.out);
            assert!(refused.err.contains("access token") && refused.err.contains("user"), "{}", refused.err);
        });
    }
}

/// Sandboxes forbid sock_diag, and routers lack its module: then procfs shows the user. If neither works, root
/// needs the token too, and the log says so once.
#[test]
fn other_ways_to_find_the_user_of_a_socket() {
    let refusing = refusing();
    // Refuses sockets with domain 16 (AF_NETLINK) and protocol 4 (NETLINK_SOCK_DIAG).
    let rule = "socket 0=16 2=4";
    in_namespace(|| {
        let dir = Dir::new();
        let start = |wrapped: &[&str]| {
            let mut command = net_pulse(wrapped[0]);
            let database = dir.join("net-pulse.db");
            command.args(&wrapped[1..]).args([BINARY, "--host", "127.0.0.1", "--port", "0", "--database", &database]);
            Daemon::spawn(command)
        };
        let warnings = |daemon: &Daemon| {
            daemon.log().iter().filter(|line| line.contains("cannot find out which user sends them")).count()
        };
        let without_sock_diag = ["/usr/bin/python3", &refusing, rule, "--"];
        let daemon = start(&without_sock_diag);
        assert_eq!(collect_at(loopback(daemon.port())), 200, "root by procfs");
        assert_eq!(request_as(0, "mapped", daemon.port(), 1), "200", "root by procfs");
        assert_eq!(
            ask(loopback(daemon.port()), "POST", "/collector/start", "*/*", None).expect("an answer").status,
            200
        );
        for kind in ["plain", "half", "mapped", "old"] {
            assert_eq!(request_as(ALICE_UID, kind, daemon.port(), 1), "401", "{kind}");
        }
        request_as(ALICE_UID, "racing", daemon.port(), 300);
        check_collecting(&daemon);
        assert_eq!(warnings(&daemon), 0);
        daemon.stop();

        let without_procfs = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"];
        let daemon = start(&without_procfs);
        assert_eq!(collect_at(loopback(daemon.port())), 200, "root by sock_diag");
        assert_eq!(request_as(ALICE_UID, "plain", daemon.port(), 1), "401");
        assert_eq!(warnings(&daemon), 0);
        daemon.stop();

        let daemon = start(&[&without_procfs[..], &without_sock_diag].concat());
        for _ in 0..3 {
            assert_eq!(collect_at(loopback(daemon.port())), 401, "root cannot be known");
        }
        assert_eq!(daemon.get("/health")["status"], "healthy");
        wait_until("the log says so once", || warnings(&daemon) == 1);
        daemon.stop();
    });
}
