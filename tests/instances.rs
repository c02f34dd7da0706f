//! One path, one instance: a running one is left alone, a dead one is replaced, and other programs'
//! sockets are not touched.

mod common;
mod instances {
    mod refused;
}

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;

use common::client::{Client, Front};
use common::gate;
use common::process::{copy_of_vestibule, output};
use common::users::{STRANGER, enterable, require_root};
use common::vestibule::{ECHO_AND_WORKERS, LISTENERS, Vestibule, complete, message};
use common::{bytes, project, soon};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_second_instance_on_the_runtime_directory_names_the_first_and_leaves_it_alone() {
    let first = Vestibule::start(ECHO_AND_WORKERS).await;
    let config = format!("{ECHO_AND_WORKERS}{LISTENERS}").replace("front.sock", "other.sock");
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
    let first = Vestibule::start(ECHO_AND_WORKERS).await;
    let runtime = "[runtime]\ndirectory = \"{dir}/second\"\nlog_format = \"json\"\n";
    let mut second = spawn(
        Arc::clone(&first.directory),
        &format!("{runtime}{ECHO_AND_WORKERS}{LISTENERS}"),
    );
    assert_eq!(second.wait().await.code(), Some(2));
    let said = only_line(&second).await;
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert!(said.contains("front.sock"), "{said}");
    // What it had bound before the failure is removed.
    let left = fs::read_dir(first.path("second")).expect("a directory");
    assert_eq!(left.count(), 0);
    assert_serves(&first).await;
}

#[tokio::test]
async fn after_a_kill_the_next_one_takes_over_at_once() {
    let first = Vestibule::start(ECHO_AND_WORKERS).await;
    assert_serves(&first).await;
    let directory = first.kill().await;
    // It was killed and could not remove its files.
    assert!(directory.path().join("run/gate.sock").exists());
    assert!(directory.path().join("front.sock").exists());
    for _ in 0..3 {
        let next = Vestibule::start_in(Arc::clone(&directory), ECHO_AND_WORKERS).await;
        assert_serves(&next).await;
        next.kill().await;
    }
    let last = Vestibule::start_in(directory, ECHO_AND_WORKERS).await;
    assert_serves(&last).await;
    let files = ["run/gate.sock", "front.sock", "run/gate.sock.lock"].map(|file| last.path(file));
    assert_eq!(last.terminate().await, Some(0));
    assert!(!files.iter().any(|file| file.exists()));
}

#[tokio::test]
async fn if_two_start_at_the_same_moment_exactly_one_wins() {
    for round in 0..10 {
        let shared = tempfile::tempdir().expect("a directory");
        // In every other round, files of a killed instance are in the way.
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
        // Each instance has a configuration of its own with the same paths.
        let config = format!(
            "[runtime]\ndirectory = \"{{dir}}/run\"\nlog_format = \"json\"\n{ECHO_AND_WORKERS}{LISTENERS}"
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
async fn a_live_socket_of_another_program_is_left_alone_and_named() {
    for path in ["front.sock", "run/gate.sock"] {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        fs::create_dir(directory.path().join("run")).expect("a directory");
        let theirs = UnixListener::bind(directory.path().join(path)).expect("a path");
        let mut vestibule = spawn(
            Arc::clone(&directory),
            &format!("{ECHO_AND_WORKERS}{LISTENERS}"),
        );
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
async fn a_live_socket_that_this_user_may_not_open_is_left_alone() {
    require_root();
    let directory = enterable();
    let open = |mode| Permissions::from_mode(mode);
    fs::set_permissions(directory.path(), open(0o777)).expect("ours");
    let path = directory.path().join("front.sock");
    let theirs = UnixListener::bind(&path).expect("a path");
    fs::set_permissions(&path, open(0o600)).expect("ours");
    let program = copy_of_vestibule(directory.path()).await;
    let mut command = std::process::Command::new(&program);
    command.args(["run", "--to", "tls:127.0.0.1:9", "--listen"]);
    command.arg(format!("unix:{}", path.display()));
    command.uid(STRANGER).gid(STRANGER);
    let done = output(command.into()).await;
    assert_eq!(done.code, Some(2), "{}", done.err);
    assert!(done.err.contains("front.sock"), "{}", done.err);
    UnixStream::connect(&path).expect("it serves as before");
    drop(theirs);
}

#[tokio::test]
async fn a_directory_above_the_gate_that_others_can_replace_is_refused_and_named() {
    for gate in ["{dir}/above/run/gate.sock", "gate.sock"] {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let above = directory.path().join("above");
        fs::create_dir_all(above.join("run")).expect("a directory");
        fs::set_permissions(&above, Permissions::from_mode(0o777)).expect("ours");
        let config = format!(
            "[runtime]\ndirectory = \"{{dir}}/above/run\"\nlog_format = \"json\"\n\
             [gate]\npath = \"{gate}\"\n{ECHO_AND_WORKERS}{LISTENERS}"
        );
        let mut vestibule = spawn(directory, &config);
        assert_eq!(vestibule.wait().await.code(), Some(1));
        let said = only_line(&vestibule).await;
        assert!(
            said.contains(&format!(
                "other users can write to the directory above it, {}",
                above.display()
            )),
            "{said}"
        );
        let left = fs::read_dir(above.join("run")).expect("a directory");
        assert_eq!(left.count(), 0);
    }
}

#[tokio::test]
async fn a_backend_that_is_a_listener_or_the_gate_is_refused_under_any_name() {
    for (to, problem) in [
        ("unix:{dir}/front.sock", "the listener \\\"unix\\\""),
        ("unix:{dir}/run/gate.sock", "the gate"),
        ("unix:{dir}/link.sock", "the listener \"unix\""),
    ] {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        symlink("front.sock", directory.path().join("link.sock")).expect("a link");
        let config = format!("{ECHO_AND_WORKERS}{LISTENERS}")
            .replace("to = \"echo\"", &format!("to = \"{to}\""));
        let mut vestibule = spawn(Arc::clone(&directory), &config);
        assert_eq!(vestibule.wait().await.code(), Some(2), "{to}");
        let said = format!("{:?}", vestibule.whole_log().await);
        let problem = problem.replace(['\\', '"'], "");
        let said = said.replace(['\\', '"'], "");
        assert!(
            said.contains(&format!("is the address of {problem}")),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_unix_listener_is_open_to_its_user_and_to_configured_users() {
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
        let vestibule = Vestibule::start_in(directory, &format!("{ECHO_AND_WORKERS}{plain}")).await;
        let there = fs::metadata(vestibule.path("plain.sock")).expect("a socket");
        let found = (there.mode() & 0o777, there.uid(), there.gid());
        assert_eq!(found, expected, "{keys}");
    }
}

#[tokio::test]
async fn without_a_claimed_backend_and_an_admin_api_no_directory_is_needed() {
    let echo = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";
    // A directory cannot be created inside a file.
    let runtime = "[runtime]\ndirectory = \"{dir}/vestibule.toml/run\"\nlog_format = \"json\"\n";
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let vestibule = Vestibule::start_in(directory, &format!("{runtime}{echo}")).await;
    let log = format!("{:?}", vestibule.log());
    assert!(!log.contains("gate at"), "{log}");
    // The default of the admin API does not keep a start from serving.
    assert!(
        log.contains("no admin socket: ") && log.contains("/run"),
        "{log}"
    );
    assert_eq!(vestibule.terminate().await, Some(0));

    // A reload that adds a claimed backend opens the gate.
    let no_admin = "[admin]\naddress = \"none\"\n";
    let vestibule = Vestibule::start(&format!("{no_admin}{echo}")).await;
    assert!(!vestibule.path("run").exists());
    let config = complete(
        &vestibule.directory,
        &format!("{no_admin}{ECHO_AND_WORKERS}{LISTENERS}"),
    );
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
        let config = format!("[gate]\npath = \"{gate}\"\n{ECHO_AND_WORKERS}{LISTENERS}");
        let mut vestibule = spawn(directory, &config);
        assert_eq!(vestibule.wait().await.code(), Some(1), "{mode:o}");
        let said = only_line(&vestibule).await;
        assert!(said.contains(&run.display().to_string()), "{said}");
        assert!(said.contains("other users can write to it"), "{said}");
        assert_eq!(fs::read_dir(&run).expect("a directory").count(), 0);
    }
}

fn spawn(directory: Arc<TempDir>, config: &str) -> Vestibule {
    Vestibule::spawn(directory, config, |command| command)
}

/// The only line of a start that fails.
async fn only_line(vestibule: &Vestibule) -> String {
    let log = vestibule.whole_log().await;
    assert_eq!(log.len(), 1, "{log:#?}");
    message(&log[0]).to_owned()
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

/// Serves a client at the Unix listener through a worker at the gate.
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
