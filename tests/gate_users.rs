//! Who may use the gate: file mode, access control list and groups, and whose listeners may be
//! registered.

mod common;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::client::Front;
use common::process::{Process, output, tool};
use common::users::{STRANGER, as_user, become_user, enterable, require_root};
use common::vestibule::{ECHO_AND_WORKERS, LISTENERS, Vestibule, message};
use common::{gate, soon};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

const GUESTS: u32 = 65_000;

#[tokio::test]
async fn only_its_own_user_may_use_the_gate() {
    let vestibule = Vestibule::start(ECHO_AND_WORKERS).await;
    let mode = |path: &Path| fs::metadata(path).expect("a file").mode() & 0o777;
    assert_eq!(mode(&vestibule.gate()), 0o600);
    assert_eq!(mode(&vestibule.path("run")), 0o700);
    assert_eq!(mode(&vestibule.path("run/gate.sock.lock")), 0o600);
}

#[tokio::test]
async fn an_allowed_group_owns_the_gate_and_may_use_it() {
    require_root();
    let directory = enterable();
    let gate = directory.path().join("gate.sock");
    let _vestibule = start_with_gate(&directory, &format!("allow_gids = [{STRANGER}]")).await;
    let metadata = fs::metadata(&gate).expect("a file");
    assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o660, STRANGER));
    assert_eq!(ask_as(STRANGER - 1, STRANGER, &gate).await, "NO unknown");
    // A user who is excluded by the mode cannot connect at all.
    let kept_out = ask_as(STRANGER - 1, STRANGER - 1, &gate).await;
    assert_eq!(kept_out, "PermissionDenied");
}

#[tokio::test]
async fn an_allowed_user_may_use_the_gate_and_others_cannot_connect() {
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
        // The kernel reports the groups of a process, so a thread with other groups is not enough
        // here.
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

/// As in another container, whose processes have no pid here.
#[tokio::test]
async fn a_supplementary_group_counts_across_pid_namespaces() {
    require_root();
    for others in ["", ", 7"] {
        let directory = enterable();
        let config = format!(
            "[gate]\npath = \"{{dir}}/gate.sock\"\nallow_gids = [{GUESTS}{others}]\n{ECHO_AND_WORKERS}{LISTENERS}"
        );
        let vestibule = Vestibule::spawn(Arc::clone(&directory), &config, |command| {
            let mut unshare = tool("unshare");
            unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
            unshare.arg(command.as_std().get_program());
            unshare.args(command.as_std().get_args());
            unshare
        });
        vestibule.until_started().await;
        let gate = directory.path().join("gate.sock");
        let ask = async |groups: u32| {
            let mut python = tool("setpriv");
            python.args([format!("--reuid={STRANGER}"), format!("--regid={STRANGER}")]);
            python.args([&format!("--groups={groups}"), "/usr/bin/python3", "-c", ASK]);
            python.arg(&gate);
            output(python).await
        };
        assert_eq!(ask(GUESTS).await.text(), "NO unknown\n");
        let kept_out = ask(GUESTS + 1).await;
        assert!(kept_out.err.contains("PermissionError"), "{}", kept_out.err);
    }
}

/// Claims an unknown connection.
const ASK: &str = r#"
import socket, sys
gate = socket.socket(socket.AF_UNIX)
gate.connect(sys.argv[1])
gate.sendall(b"CLAIM 00000000-0000-4000-8000-000000000000\n")
sys.stdout.write(gate.makefile().read())
"#;

#[tokio::test]
async fn an_allowed_user_who_cannot_reach_the_gate_is_named_at_the_start() {
    for (key, whose, entry) in [("allow_uids", "user", "u"), ("allow_gids", "group", "g")] {
        let config = format!("[gate]\n{key} = [{STRANGER}]\n{ECHO_AND_WORKERS}");
        let vestibule = Vestibule::start(&config).await;
        let said = vestibule
            .event(|event| message(event).contains("cannot reach the gate"))
            .await;
        let said = message(&said);
        let who = format!("{whose} {STRANGER} of gate.{key}");
        assert!(said.contains(&who), "{said}");
        // The first directory on the path that excludes others is the one of the test.
        let directory = vestibule.directory.path().display().to_string();
        let advice = format!("setfacl -m {entry}:{STRANGER}:x {directory}");
        assert!(said.contains(&advice), "{said}");
    }
}

#[tokio::test]
async fn a_registered_address_is_used_only_while_its_listener_belongs_to_the_registrant() {
    require_root();
    let directory = enterable();
    let theirs = directory.path().join("theirs");
    fs::create_dir(&theirs).expect("a directory");
    std::os::unix::fs::chown(&theirs, Some(STRANGER), None).expect("root may");
    let vestibule = start_with_gate(&directory, &format!("allow_uids = [{STRANGER}]")).await;
    let gate = directory.path().join("gate.sock");
    let front = Front::Unix(vestibule.path("front.sock"));

    a_secret_socket_gets_nothing(&directory, &gate, &front).await;
    what_others_listen_on_is_refused(&gate, &vestibule).await;
    their_own_serve(&theirs, &gate, &front, &vestibule).await;
}

/// A socket that only root may open.
async fn a_secret_socket_gets_nothing(directory: &TempDir, gate: &Path, front: &Front) {
    let secret = directory.path().join("secret.sock");
    let ours = tokio::net::UnixListener::bind(&secret).expect("a path");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("ours");
    let mut registration = register_as(STRANGER, gate, &format!("unix:{}", secret.display())).await;
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
    // The client has waited, and another worker gets it.
    let (_, mut worker) = soon("a connection", gate::accept(gate, "app")).await;
    let mut said = [0; 20];
    worker.read_exact(&mut said).await.expect("all of it");
    assert_eq!(&said, b"for the worker alone");
    drop((worker, client));
}

/// A port of root, and Vestibule's own listeners, are refused at once.
async fn what_others_listen_on_is_refused(gate: &Path, vestibule: &Vestibule) {
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
            let mut registration = register_as(uid, gate, &address).await;
            let expected = match uid == 0 && address.ends_with(&port.to_string()) {
                true => "OK {}",
                false => "NO forbidden",
            };
            assert_eq!(registration.line().await, expected, "{address} by {uid}");
        }
    }
}

async fn their_own_serve(theirs: &Path, gate: &Path, front: &Front, vestibule: &Vestibule) {
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
    let mut registration = register_as(STRANGER, gate, &format!("unix:{}", path.display())).await;
    assert_eq!(registration.line().await, "OK {}");
    // The listeners stay open, because their owner is checked after the connect.
    let served = std::thread::spawn(move || {
        serve(Box::new(unix.accept().expect("one").0));
        unix
    });
    assert_eq!(read_all(front).await, "own");
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
    let mut registration = register_as(STRANGER, gate, &format!("tcp:{port}")).await;
    assert_eq!(registration.line().await, "OK {}");
    let served = std::thread::spawn(move || {
        serve(Box::new(tcp.accept().expect("one").0));
        tcp
    });
    assert_eq!(read_all(front).await, "own");
    drop(served.join().expect("served"));
}

#[tokio::test]
async fn a_refused_user_keeps_no_worker_out() {
    require_root();
    const CONNECTIONS: usize = 200;
    let directory = enterable();
    let gate = directory.path().join("gate.sock");
    let allow = format!("[gate]\npath = \"{{dir}}/gate.sock\"\nallow_uids = [{STRANGER}]\n");
    // A log line for each of them would be the flood that this test forbids.
    let vestibule = Vestibule::spawn(
        Arc::clone(&directory),
        &format!("{allow}{ECHO_AND_WORKERS}{LISTENERS}"),
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

/// What a client receives until the end.
async fn read_all(front: &Front) -> String {
    let mut client = front.connect().await.expect("a handshake");
    let mut said = String::new();
    let read = soon("an answer", client.read_to_string(&mut said)).await;
    read.expect("a clean end");
    said
}

/// A registration at the gate by another user, made in a thread with that user's credentials.
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
    /// The next line; empty when the gate has closed.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = soon("an answer", self.0.read_line(&mut line)).await;
        line.trim_end().to_owned()
    }
}

async fn start_with_gate(directory: &Arc<TempDir>, allow: &str) -> Vestibule {
    let config = format!("[gate]\npath = \"{{dir}}/gate.sock\"\n{allow}\n{ECHO_AND_WORKERS}");
    Vestibule::start_in(Arc::clone(directory), &config).await
}

/// The gate's answer to another user, or the error of that user's connect.
async fn ask_as(uid: u32, gid: u32, gate: &Path) -> String {
    let gate = gate.to_owned();
    let asked = as_user(uid, gid, move || {
        UnixStream::connect(gate).map(|mut socket| {
            // The gate may have refused and closed already.
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
