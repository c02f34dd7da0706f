//! One path, one instance: a live one is respected, a dead one followed, and strangers stay out.

mod common;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use common::client::{Client, Front};
use common::gate;
use common::vestibule::{LISTENERS, Vestibule, message};
use common::{bytes, soon};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_res_uid};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
async fn a_user_is_let_in_if_allowed_and_else_forbidden() {
    require_root();
    let directory = enterable();
    let gate = directory.path().join("gate.sock");
    // The mode must let every user connect, for one to be let in: the kernel says who it is.
    let vestibule = start_with_gate(&directory, &format!("allow_uids = [{STRANGER}]")).await;
    assert_eq!(ask_as(STRANGER, STRANGER, &gate).await, "NO unknown");
    assert_eq!(ask_as(STRANGER - 1, STRANGER, &gate).await, "NO forbidden");
    assert_eq!(ask_as(0, 0, &gate).await, "NO unknown");
    let warning = vestibule
        .event(|event| message(event) == "gate client forbidden")
        .await;
    assert_eq!(warning["uid"], STRANGER - 1);
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
    let left = fs::read_dir(vestibule.path("run")).expect("a directory");
    assert_eq!(left.count(), 0);
    assert!(!vestibule.path("front.sock").exists());
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
    // On Linux a thread has its own credentials, and this one ends with them.
    let (answer, answered) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        become_user(uid, gid);
        let asked = UnixStream::connect(gate).map(|mut socket| {
            // It may have said no and closed already.
            let _ = socket.write_all(b"CLAIM 00000000-0000-4000-8000-000000000000\n");
            let mut line = String::new();
            let _ = socket.read_to_string(&mut line);
            line.trim_end().to_owned()
        });
        answer.send(asked.unwrap_or_else(|error| format!("{:?}", error.kind())))
    });
    let answer = soon("an answer", answered).await.expect("no panic");
    thread.join().expect("no panic").expect("we listened");
    answer
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
