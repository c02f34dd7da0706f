//! One path, one instance: a live one is respected, a dead one followed, and strangers stay out.

mod common;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::client::{Client, Front};
use common::gate;
use common::process::{Process, output, tool};
use common::vestibule::{LISTENERS, Vestibule, complete, message};
use common::{bytes, project, soon};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_res_uid};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

/// TCP goes to an echo, Unix to workers.
const CONFIG: &str = r#"
[[backend]]
name = "echo"
to = "echo"
[[backend]]
name = "app"
to = "gate"
[[route]]
listener = ["tcp"]
backend = "echo"
[[route]]
listener = ["unix"]
backend = "app"
"#;

/// Nobody's on most systems; not root's, and not ours.
const STRANGER: u32 = 65_534;
const GUESTS: u32 = 65_000;

#[tokio::test]
async fn a_second_instance_on_the_runtime_directory_names_the_first_and_leaves_it_alone() {
    let first = Vestibule::start(CONFIG).await;
    let config = format!("{CONFIG}{LISTENERS}").replace("front.sock", "other.sock");
    let mut second = spawn(Arc::clone(&first.directory), &config);
    assert_eq!(second.wait().await.code(), Some(2));
    let said = only_line(&second).await;
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert!(said.contains("gate.sock"), "{said}");
    assert!(!second.path("other.sock").exists());
    assert_serves(&first).await;
}

#[tokio::test]
async fn a_second_instance_on_a_listeners_path_names_the_first_and_leaves_it_alone() {
    let first = Vestibule::start(CONFIG).await;
    let runtime = "[runtime]\ndirectory = \"{dir}/second\"\nlog_format = \"json\"\n";
    let mut second = spawn(
        Arc::clone(&first.directory),
        &format!("{runtime}{CONFIG}{LISTENERS}"),
    );
    assert_eq!(second.wait().await.code(), Some(2));
    let said = only_line(&second).await;
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert!(said.contains("front.sock"), "{said}");
    // What it had bound by then is gone again.
    let left = fs::read_dir(first.path("second")).expect("a directory");
    assert_eq!(left.count(), 0);
    assert_serves(&first).await;
}

#[tokio::test]
async fn after_a_kill_the_next_one_takes_over_at_once() {
    let first = Vestibule::start(CONFIG).await;
    assert_serves(&first).await;
    let directory = first.kill().await;
    // It had no time to tidy up.
    assert!(directory.path().join("run/gate.sock").exists());
    assert!(directory.path().join("front.sock").exists());
    for _ in 0..3 {
        let next = Vestibule::start_in(Arc::clone(&directory), CONFIG).await;
        assert_serves(&next).await;
        next.kill().await;
    }
    let last = Vestibule::start_in(directory, CONFIG).await;
    assert_serves(&last).await;
    let files = ["run/gate.sock", "front.sock", "run/gate.sock.lock"].map(|file| last.path(file));
    assert_eq!(last.terminate().await, Some(0));
    assert!(!files.iter().any(|file| file.exists()));
}

#[tokio::test]
async fn of_two_that_start_at_the_same_moment_exactly_one_wins() {
    for round in 0..10 {
        let shared = tempfile::tempdir().expect("a directory");
        // What a killed one left is in the way of every other round.
        if round % 2 == 1 {
            fs::create_dir(shared.path().join("run")).expect("a directory");
            fs::set_permissions(shared.path().join("run"), Permissions::from_mode(0o700))
                .expect("ours");
            for name in ["run/gate.sock", "front.sock"] {
                drop(std::os::unix::net::UnixListener::bind(
                    shared.path().join(name),
                ));
            }
        }
        // Each has a file of its own, and all paths in it are shared.
        let config = format!(
            "[runtime]\ndirectory = \"{{dir}}/run\"\nlog_format = \"json\"\n{CONFIG}{LISTENERS}"
        )
        .replace("{dir}", &shared.path().display().to_string());
        let directory = || Arc::new(tempfile::tempdir().expect("a directory"));
        let (mut one, mut two) = (spawn(directory(), &config), spawn(directory(), &config));
        let lost = tokio::select! {
            lost = one.wait() => { std::mem::swap(&mut one, &mut two); lost }
            lost = two.wait() => lost,
        };
        assert_eq!(lost.code(), Some(2), "{:?}", two.log());
        assert!(only_line(&two).await.contains("process"), "{:?}", two.log());
        one.until_started().await;
        let front = Front::Unix(shared.path().join("front.sock"));
        serve_one(&front, &shared.path().join("run/gate.sock")).await;
        assert_eq!(one.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn the_gate_is_open_to_its_user_alone() {
    let vestibule = Vestibule::start(CONFIG).await;
    let mode = |path: &Path| fs::metadata(path).expect("a file").mode() & 0o777;
    assert_eq!(mode(&vestibule.gate()), 0o600);
    assert_eq!(mode(&vestibule.path("run")), 0o700);
    assert_eq!(mode(&vestibule.path("run/gate.sock.lock")), 0o600);
}

#[tokio::test]
async fn a_group_that_is_allowed_owns_the_gate_and_is_let_in() {
    require_root();
    let directory = enterable();
    let gate = directory.path().join("gate.sock");
    let _vestibule = start_with_gate(&directory, &format!("allow_gids = [{STRANGER}]")).await;
    let metadata = fs::metadata(&gate).expect("a file");
    assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o660, STRANGER));
    assert_eq!(ask_as(STRANGER - 1, STRANGER, &gate).await, "NO unknown");
    // Whom the mode keeps out does not even get an answer.
    let kept_out = ask_as(STRANGER - 1, STRANGER - 1, &gate).await;
    assert_eq!(kept_out, "PermissionDenied");
}

#[tokio::test]
async fn a_user_is_let_in_if_allowed_and_else_cannot_connect() {
    require_root();
    let directory = enterable();
    let gate = directory.path().join("gate.sock");
    let allow = format!("allow_uids = [{STRANGER}]\nallow_gids = [{GUESTS}, 7]");
    let _vestibule = start_with_gate(&directory, &allow).await;
    assert_eq!(ask_as(STRANGER, STRANGER, &gate).await, "NO unknown");
    assert_eq!(ask_as(0, 0, &gate).await, "NO unknown");
    assert_eq!(ask_as(STRANGER - 1, GUESTS, &gate).await, "NO unknown");
    let kept_out = ask_as(STRANGER - 1, STRANGER, &gate).await;
    assert_eq!(kept_out, "PermissionDenied");
}

#[tokio::test]
async fn a_supplementary_group_counts() {
    require_root();
    for others in ["", ", 7"] {
        let directory = enterable();
        let gate = directory.path().join("gate.sock");
        let allow = format!("allow_gids = [{GUESTS}{others}]");
        let _vestibule = start_with_gate(&directory, &allow).await;
        // The kernel tells of a process: a thread of this one has no groups of its own there.
        let mut python = tool("setpriv");
        python.args([format!("--reuid={STRANGER}"), format!("--regid={STRANGER}")]);
        python.args([&format!("--groups={GUESTS}"), "/usr/bin/python3", "-c", ASK]);
        let answer = output({
            python.arg(&gate);
            python
        });
        assert_eq!(answer.await.text(), "NO unknown\n");
    }
}

/// Asks for a connection that there is not.
const ASK: &str = r#"
import socket, sys
gate = socket.socket(socket.AF_UNIX)
gate.connect(sys.argv[1])
gate.sendall(b"CLAIM 00000000-0000-4000-8000-000000000000\n")
sys.stdout.write(gate.makefile().read())
"#;

#[tokio::test]
async fn a_live_socket_of_another_program_is_left_to_it_and_named() {
    for path in ["front.sock", "run/gate.sock"] {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        fs::create_dir(directory.path().join("run")).expect("a directory");
        let theirs = UnixListener::bind(directory.path().join(path)).expect("a path");
        let mut vestibule = spawn(Arc::clone(&directory), &format!("{CONFIG}{LISTENERS}"));
        assert_eq!(vestibule.wait().await.code(), Some(2), "{path}");
        let said = only_line(&vestibule).await;
        let us = format!("process {} (", std::process::id());
        assert!(said.contains(path) && said.contains(&us), "{said}");
        theirs.set_nonblocking(true).expect("a socket");
        while theirs.accept().is_ok() {}
        let client = UnixStream::connect(directory.path().join(path));
        client.expect("it serves as before");
        assert!(theirs.accept().is_ok());
    }
}

#[tokio::test]
async fn a_directory_above_the_gate_that_others_can_exchange_is_refused_and_named() {
    for gate in ["{dir}/above/run/gate.sock", "gate.sock"] {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let above = directory.path().join("above");
        fs::create_dir_all(above.join("run")).expect("a directory");
        fs::set_permissions(&above, Permissions::from_mode(0o777)).expect("ours");
        let config = format!(
            "[runtime]\ndirectory = \"{{dir}}/above/run\"\nlog_format = \"json\"\n\
             [gate]\npath = \"{gate}\"\n{CONFIG}{LISTENERS}"
        );
        let mut vestibule = spawn(directory, &config);
        assert_eq!(vestibule.wait().await.code(), Some(1));
        let said = only_line(&vestibule).await;
        assert!(
            said.contains(&format!("other users can write to {}", above.display())),
            "{said}"
        );
        let left = fs::read_dir(above.join("run")).expect("a directory");
        assert_eq!(left.count(), 0);
    }
}

#[tokio::test]
async fn a_backend_that_is_a_listener_or_the_gate_is_refused_whatever_it_is_called() {
    for (to, problem) in [
        ("unix:{dir}/front.sock", "the listener \\\"unix\\\""),
        ("unix:{dir}/run/gate.sock", "the gate"),
        ("unix:{dir}/link.sock", "the listener \"unix\""),
    ] {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        symlink("front.sock", directory.path().join("link.sock")).expect("a link");
        let config =
            format!("{CONFIG}{LISTENERS}").replace("to = \"echo\"", &format!("to = \"{to}\""));
        let mut vestibule = spawn(Arc::clone(&directory), &config);
        assert_eq!(vestibule.wait().await.code(), Some(2), "{to}");
        let said = format!("{:?}", vestibule.whole_log().await);
        let problem = problem.replace(['\\', '"'], "");
        let said = said.replace(['\\', '"'], "");
        assert!(said.contains(&format!("leads back to {problem}")), "{said}");
    }
}

#[tokio::test]
async fn a_unix_listener_is_open_to_its_user_and_to_those_whom_the_configuration_names() {
    require_root();
    for (keys, expected) in [
        ("", (0o600, 0, 0)),
        ("group = 65533", (0o660, 0, 65_533)),
        ("mode = \"0666\"", (0o666, 0, 0)),
        (
            "mode = \"640\"\nowner = \"nobody\"\ngroup = \"root\"",
            (0o640, STRANGER, 0),
        ),
    ] {
        let directory = enterable();
        let plain = format!(
            "[[listener]]\nname = \"plain\"\naddress = \"unix:{{dir}}/plain.sock\"\n{keys}\n"
        );
        let vestibule = Vestibule::start_in(directory, &format!("{CONFIG}{plain}")).await;
        let there = fs::metadata(vestibule.path("plain.sock")).expect("a socket");
        let found = (there.mode() & 0o777, there.uid(), there.gid());
        assert_eq!(found, expected, "{keys}");
    }
}

#[tokio::test]
async fn without_a_claimed_backend_there_is_no_gate_and_no_directory_for_it() {
    let echo = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";
    // Nobody can make a directory in a file.
    let runtime = "[runtime]\ndirectory = \"{dir}/vestibule.toml/run\"\nlog_format = \"json\"\n";
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let vestibule = Vestibule::start_in(directory, &format!("{runtime}{echo}")).await;
    let log = format!("{:?}", vestibule.log());
    assert!(!log.contains("gate at"), "{log}");
    assert_eq!(vestibule.terminate().await, Some(0));

    // A reload that brings one opens the gate.
    let vestibule = Vestibule::start(echo).await;
    assert!(!vestibule.path("run").exists());
    let config = complete(&vestibule.directory, &format!("{CONFIG}{LISTENERS}"));
    fs::write(vestibule.path("vestibule.toml"), config).expect("a file");
    vestibule
        .event(|event| message(event).starts_with("gate at unix:"))
        .await;
    vestibule.event(|event| message(event) == "reloaded").await;
    assert_serves(&vestibule).await;
    let gate = vestibule.gate();
    assert_eq!(vestibule.terminate().await, Some(0));
    assert!(!gate.exists());
}

#[tokio::test]
async fn a_user_that_is_allowed_and_cannot_reach_the_gate_is_named_at_the_start() {
    let config = format!("[gate]\nallow_uids = [{STRANGER}]\n{CONFIG}");
    let vestibule = Vestibule::start(&config).await;
    let said = vestibule
        .event(|event| message(event).contains("cannot reach the gate"))
        .await;
    let said = message(&said);
    assert!(
        said.contains(&format!("user {STRANGER} of gate.allow_uids")),
        "{said}"
    );
    // The directory of the test, which is the first that keeps others out.
    let directory = vestibule.directory.path().display().to_string();
    assert!(
        said.contains(&format!("setfacl -m u:{STRANGER}:x {directory}")),
        "{said}"
    );
}

#[tokio::test]
async fn a_registered_address_serves_only_while_its_listener_is_the_registrants() {
    require_root();
    let directory = enterable();
    let theirs = directory.path().join("theirs");
    fs::create_dir(&theirs).expect("a directory");
    std::os::unix::fs::chown(&theirs, Some(STRANGER), None).expect("root may");
    let vestibule = start_with_gate(&directory, &format!("allow_uids = [{STRANGER}]")).await;
    let gate = directory.path().join("gate.sock");
    let front = Front::Unix(vestibule.path("front.sock"));

    // A socket that only root may open.
    let secret = directory.path().join("secret.sock");
    let ours = tokio::net::UnixListener::bind(&secret).expect("a path");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("ours");
    let mut registration =
        register_as(STRANGER, &gate, &format!("unix:{}", secret.display())).await;
    assert_eq!(registration.line().await, "OK {}");
    let mut client = front.connect().await.expect("a handshake");
    client
        .write_all(b"for the worker alone")
        .await
        .expect("open");
    let (mut dialled, _) = soon("a dial", ours.accept()).await.expect("one");
    let mut got = Vec::new();
    let read = soon("its end", dialled.read_to_end(&mut got)).await;
    assert_eq!(
        (read.ok(), got.len()),
        (Some(0), 0),
        "nothing is said to it"
    );
    assert_eq!(registration.line().await, "NO forbidden");
    assert_eq!(registration.line().await, "", "closed");
    // The client has waited, and another worker has it.
    let (_, mut worker) = soon("a connection", gate::accept(&gate, "app")).await;
    let mut said = [0; 20];
    worker.read_exact(&mut said).await.expect("all of it");
    assert_eq!(&said, b"for the worker alone");
    drop((worker, client));

    // A port of root, and what Vestibule has open itself, are refused at once.
    let root = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = root.local_addr().expect("bound").port();
    for address in [
        format!("tcp:127.0.0.1:{port}"),
        format!("tcp:localhost:{port}"),
        format!("unix:{}", gate.display()),
        format!("unix:{}", vestibule.path("front.sock").display()),
        format!("tcp:{}", vestibule.tcp()),
    ] {
        for uid in [STRANGER, 0] {
            let mut registration = register_as(uid, &gate, &address).await;
            let expected = match uid == 0 && address.ends_with(&port.to_string()) {
                true => "OK {}",
                false => "NO forbidden",
            };
            assert_eq!(registration.line().await, expected, "{address} by {uid}");
        }
    }
    drop(root);

    // Their own serve.
    let path = theirs.join("own.sock");
    let unix = as_user(STRANGER, STRANGER, {
        let path = path.clone();
        move || UnixListener::bind(path).expect("theirs")
    });
    let tcp = as_user(STRANGER, STRANGER, || {
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port")
    });
    let (unix, tcp) = (unix.await, tcp.await);
    let port = tcp.local_addr().expect("bound");
    let serve = |mut stream: Box<dyn Write + Send>| stream.write_all(b"own").expect("open");
    let mut registration = register_as(STRANGER, &gate, &format!("unix:{}", path.display())).await;
    assert_eq!(registration.line().await, "OK {}");
    // They go on listening, as whose listener it is is asked after the connect.
    let served = std::thread::spawn(move || {
        serve(Box::new(unix.accept().expect("one").0));
        unix
    });
    assert_eq!(read_all(&front).await, "own");
    drop(served.join().expect("served"));
    drop(registration);
    vestibule
        .event(|event| {
            message(event) == "address withdrawn"
                && event["address"]
                    .as_str()
                    .is_some_and(|it| it.ends_with("own.sock"))
        })
        .await;
    let mut registration = register_as(STRANGER, &gate, &format!("tcp:{port}")).await;
    assert_eq!(registration.line().await, "OK {}");
    let served = std::thread::spawn(move || {
        serve(Box::new(tcp.accept().expect("one").0));
        tcp
    });
    assert_eq!(read_all(&front).await, "own");
    drop(served.join().expect("served"));
}

/// What a client is told until the end.
async fn read_all(front: &Front) -> String {
    let mut client = front.connect().await.expect("a handshake");
    let mut said = String::new();
    let read = soon("an answer", client.read_to_string(&mut said)).await;
    read.expect("a clean end");
    said
}

/// A registration at the gate by a user, in a thread that has its credentials for it.
struct Registered(tokio::io::BufReader<tokio::net::UnixStream>);

async fn register_as(uid: u32, gate: &Path, address: &str) -> Registered {
    let (gate, line) = (gate.to_owned(), format!("REGISTER app {address}\n"));
    let socket = as_user(uid, uid, move || {
        let mut socket = UnixStream::connect(gate).expect("the gate");
        socket.write_all(line.as_bytes()).expect("room");
        socket.set_nonblocking(true).expect("a socket");
        socket
    })
    .await;
    let socket = tokio::net::UnixStream::from_std(socket).expect("a socket");
    Registered(tokio::io::BufReader::new(socket))
}

impl Registered {
    /// The next line; nothing when the gate has closed.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = soon("an answer", self.0.read_line(&mut line)).await;
        line.trim_end().to_owned()
    }
}

#[tokio::test]
async fn a_directory_that_others_can_write_to_is_refused() {
    for (mode, gate) in [
        (0o777, "gate.sock"),
        (0o770, "gate.sock"),
        (0o722, "{dir}/run/gate.sock"),
    ] {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let run = directory.path().join("run");
        fs::create_dir(&run).expect("a directory");
        fs::set_permissions(&run, Permissions::from_mode(mode)).expect("ours");
        let config = format!("[gate]\npath = \"{gate}\"\n{CONFIG}{LISTENERS}");
        let mut vestibule = spawn(directory, &config);
        assert_eq!(vestibule.wait().await.code(), Some(1), "{mode:o}");
        let said = only_line(&vestibule).await;
        assert!(said.contains(&run.display().to_string()), "{said}");
        assert!(said.contains("other users can write to it"), "{said}");
        assert_eq!(fs::read_dir(&run).expect("a directory").count(), 0);
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_is_left_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let config = format!("{CONFIG}{LISTENERS}").replace("127.0.0.1:0", &address);
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let mut vestibule = spawn(directory, &config);
    assert_eq!(vestibule.wait().await.code(), Some(1));
    let said = only_line(&vestibule).await;
    assert!(said.contains(&address), "{said}");
    assert!(said.contains("in use"), "{said}");
    let us = format!("process {} (", std::process::id());
    assert!(said.contains(&us), "{said}");
    let left = fs::read_dir(vestibule.path("run")).expect("a directory");
    assert_eq!(left.count(), 0);
    assert!(!vestibule.path("front.sock").exists());
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_says_what_to_do() {
    require_root();
    let directory = enterable();
    let long = "x".repeat(120);
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("ours");
    // Only root may have the others.
    let program = directory.path().join("vestibule");
    fs::copy(env!("CARGO_BIN_EXE_vestibule"), &program).expect("room");
    let unix = |path: &str| format!("unix:{}/{path}", directory.path().display());
    for (listen, gate, expected) in [
        ("127.0.0.1:1".to_owned(), None, "CAP_NET_BIND_SERVICE"),
        (
            "192.0.2.1:0".to_owned(),
            None,
            "this machine has no address 192.0.2.1",
        ),
        (unix("nowhere/front.sock"), None, "run `mkdir -p "),
        (
            unix("vestibule/front.sock"),
            None,
            "vestibule is not a directory",
        ),
        (unix("front.sock"), None, "user 65534 may not write to"),
        ("127.0.0.1:0".to_owned(), Some(&long), "at most 107"),
    ] {
        let mut command = std::process::Command::new(&program);
        command.args(["run", "--listen", &listen, "--cert", "server.pem", "--key"]);
        command.args(["server-key.pem", "--to"]);
        match gate {
            Some(name) => command.args(["gate", "--gate", &format!("{name}/gate.sock")]),
            None => command.arg("127.0.0.1:9"),
        };
        for file in ["server.pem", "server-key.pem"] {
            let copy = directory.path().join(file);
            fs::copy(project(&format!("certs/{file}")), &copy).expect("a file");
            fs::set_permissions(&copy, Permissions::from_mode(0o644)).expect("ours");
        }
        command
            .current_dir(directory.path())
            .uid(STRANGER)
            .gid(STRANGER);
        if gate.is_some() {
            command.uid(0).gid(0);
        }
        let done = output(command.into()).await;
        assert_eq!(done.code, Some(1), "{listen}: {}", done.err);
        assert!(
            done.err.contains(expected),
            "no {expected:?} in {}",
            done.err
        );
        let errors = done.err.lines().filter(|line| line.contains("ERROR"));
        assert_eq!(errors.count(), 1, "{}", done.err);
    }
}

#[tokio::test]
async fn a_user_who_is_turned_away_keeps_no_worker_out() {
    require_root();
    const CONNECTIONS: usize = 200;
    let directory = enterable();
    let gate = directory.path().join("gate.sock");
    let allow = format!("[gate]\npath = \"{{dir}}/gate.sock\"\nallow_uids = [{STRANGER}]\n");
    // A line for each of them would be the flood that the test waits for.
    let vestibule = Vestibule::spawn(
        Arc::clone(&directory),
        &format!("{allow}{CONFIG}{LISTENERS}"),
        |mut command| {
            command.env("RUST_LOG", "vestibule=info");
            command
        },
    );
    vestibule.until_started().await;
    // As on a file system without access control lists.
    let removed = rustix::fs::removexattr(&gate, "system.posix_acl_access");
    removed.expect("a list");
    fs::set_permissions(&gate, Permissions::from_mode(0o666)).expect("ours");
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..2)
        .map(|_| {
            let (stop, gate) = (Arc::clone(&stop), gate.clone());
            std::thread::spawn(move || {
                become_user(STRANGER - 1, STRANGER - 1);
                while !stop.load(Ordering::Relaxed) {
                    drop(UnixStream::connect(&gate));
                }
            })
        })
        .collect();
    let mut command = common::process::vestibule();
    command.args(["claim", "--gate"]).arg(&gate);
    command.args(["--backend", "app", "--max", "1", "--", "echo", "served"]);
    let worker = Process::start(command);
    let front = Front::Unix(vestibule.path("front.sock"));
    soon("all to be served", async {
        for _ in 0..CONNECTIONS {
            assert_eq!(read_all(&front).await, "served\n");
        }
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        flood.join().expect("no panic");
    }
    assert!(worker.said().err.is_empty(), "{:?}", worker.said());
    assert_eq!(
        ask_as(STRANGER - 1, STRANGER - 1, &gate).await,
        "NO forbidden"
    );
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_not_replaced() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let notes = directory.path().join("front.sock");
    fs::write(&notes, "precious").expect("a file");
    let mut vestibule = spawn(directory, &format!("{CONFIG}{LISTENERS}"));
    assert_eq!(vestibule.wait().await.code(), Some(1));
    assert!(only_line(&vestibule).await.contains("front.sock"));
    assert_eq!(fs::read_to_string(&notes).expect("a file"), "precious");
}

fn spawn(directory: Arc<TempDir>, config: &str) -> Vestibule {
    Vestibule::spawn(directory, config, |command| command)
}

/// The one line that a failed start says.
async fn only_line(vestibule: &Vestibule) -> String {
    let log = vestibule.whole_log().await;
    assert_eq!(log.len(), 1, "{log:#?}");
    message(&log[0]).to_owned()
}

async fn start_with_gate(directory: &Arc<TempDir>, allow: &str) -> Vestibule {
    let config = format!("[gate]\npath = \"{{dir}}/gate.sock\"\n{allow}\n{CONFIG}");
    Vestibule::start_in(Arc::clone(directory), &config).await
}

/// A directory that every user can enter, and only ours change.
fn enterable() -> Arc<TempDir> {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("ours");
    Arc::new(directory)
}

/// Only root can become somebody else. A test that nobody can see fail would be worse than none.
fn require_root() {
    assert!(geteuid().is_root(), "this test must run as root");
}

/// What the gate answers another user, or why it is out of that user's reach.
async fn ask_as(uid: u32, gid: u32, gate: &Path) -> String {
    let gate = gate.to_owned();
    let asked = as_user(uid, gid, move || {
        UnixStream::connect(gate).map(|mut socket| {
            // It may have said no and closed already.
            let _ = socket.write_all(b"CLAIM 00000000-0000-4000-8000-000000000000\n");
            let mut line = String::new();
            let _ = socket.read_to_string(&mut line);
            line.trim_end().to_owned()
        })
    });
    asked
        .await
        .unwrap_or_else(|error| format!("{:?}", error.kind()))
}

/// What this comes to when another user does it.
async fn as_user<T: Send + 'static>(
    uid: u32,
    gid: u32,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    // On Linux a thread has its own credentials, and this one ends with them.
    let (done, is_done) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        become_user(uid, gid);
        let _ = done.send(work());
    });
    let done = soon("the work of a user", is_done).await.expect("no panic");
    thread.join().expect("no panic");
    done
}

fn become_user(uid: u32, gid: u32) {
    set_thread_groups(&[]).expect("root may");
    set_thread_gid(Gid::from_raw(gid)).expect("root may");
    let uid = Uid::from_raw(uid);
    set_thread_res_uid(uid, uid, uid).expect("root may");
}

async fn assert_serves(vestibule: &Vestibule) {
    let client = Front::Tcp(vestibule.tcp()).connect().await;
    finish(client.expect("a handshake")).await;
    serve_one(
        &Front::Unix(vestibule.path("front.sock")),
        &vestibule.gate(),
    )
    .await;
}

/// A client at the Unix listener, and a worker at the gate.
async fn serve_one(front: &Front, path: &Path) {
    let mut client = front.connect().await.expect("a handshake");
    let (_, mut worker) = soon("a connection", gate::accept(path, "app")).await;
    worker.write_all(b"served").await.expect("open");
    drop(worker);
    let mut said = String::new();
    let read = soon("the worker's word", client.read_to_string(&mut said)).await;
    read.expect("a clean end");
    assert_eq!(said, "served");
    client.shutdown().await.expect("open");
}

async fn finish(mut client: Client) {
    const BYTES: usize = 100;
    bytes::send(&mut client, 7, BYTES).await.expect("open");
    soon("the echo", bytes::expect(&mut client, 7, BYTES)).await;
}
