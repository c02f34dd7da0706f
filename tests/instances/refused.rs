//! Addresses that cannot be bound: who has them, and what to do.

use crate::*;

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_is_left_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let config = format!("{ECHO_AND_WORKERS}{LISTENERS}").replace("127.0.0.1:0", &address);
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

/// That process may be the one that will be reloaded, so this is not a problem of the
/// configuration.
#[tokio::test]
async fn check_names_who_has_a_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("vestibule.toml");
    let text = format!(
        "[[listener]]\nname = \"front\"\naddress = \"tcp:{address}\"\n[[backend]]\nname = \"echo\"\n\
         to = \"echo\"\n"
    );
    fs::write(&file, text).expect("a file");
    let check = || async {
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_vestibule"));
        check.arg("check").arg("-c").arg(&file);
        let done = output(check.into()).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        String::from_utf8_lossy(&done.out).into_owned()
    };
    let said = check().await;
    let us = format!("  in use now: process {} (", std::process::id());
    assert!(said.contains(&us), "{said}");
    assert!(said.contains(&format!(" listens on {address}; ")), "{said}");
    drop(taken);
    assert!(!check().await.contains("in use"));
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_says_what_to_do() {
    require_root();
    let directory = enterable();
    let long = "x".repeat(120);
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("ours");
    // Only root may bind the others.
    let program = copy_of_vestibule(directory.path()).await;
    let unix = |path: &str| format!("unix:{}/{path}", directory.path().display());
    for (listen, gate, expected) in [
        ("127.0.0.1:1".to_owned(), None, "CAP_NET_BIND_SERVICE"),
        (
            "192.0.2.1:0".to_owned(),
            None,
            "this machine does not have the address 192.0.2.1",
        ),
        (
            "nowhere.invalid:8443".to_owned(),
            None,
            "the name \"nowhere.invalid\" has no address",
        ),
        (unix("nowhere/front.sock"), None, "run `mkdir -p "),
        (
            unix("vestibule/front.sock"),
            None,
            "vestibule is not a directory; choose another path",
        ),
        (unix("front.sock"), None, "user 65534 may not write to"),
        ("127.0.0.1:0".to_owned(), Some(&long), "limited to 107"),
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
async fn a_missing_permission_for_a_socket_is_an_error_with_advice() {
    require_root();
    let directory = enterable();
    let program = copy_of_vestibule(directory.path()).await;
    let theirs = directory.path().join("theirs");
    fs::create_dir(&theirs).expect("a directory");
    std::os::unix::fs::chown(&theirs, Some(STRANGER), Some(STRANGER)).expect("root may");
    for (command, path, extra, expected) in [
        (
            "run",
            "theirs/front.sock",
            "group = 1",
            "add the user to the group (`usermod -aG ",
        ),
        (
            "run",
            "theirs/front.sock",
            "owner = 1",
            "leave `owner` out, or start as root",
        ),
        ("check", "front.sock", "", "user 65534 may not write to"),
    ] {
        let file = directory.path().join("vestibule.toml");
        let text = format!(
            "[[listener]]\nname = \"front\"\naddress = \"unix:{}/{path}\"\n{extra}\n[[backend]]\n\
             name = \"echo\"\nto = \"echo\"\n",
            directory.path().display()
        );
        fs::write(&file, text).expect("a file");
        let mut vestibule = std::process::Command::new(&program);
        vestibule.arg(command).arg("-c").arg(&file);
        vestibule.uid(STRANGER).gid(STRANGER);
        let done = output(vestibule.into()).await;
        let said = String::from_utf8_lossy(&done.out) + done.err.as_str();
        assert!(said.contains(expected), "no {expected:?} in {said}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_a_socket_is_not_replaced() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let notes = directory.path().join("front.sock");
    fs::write(&notes, "precious").expect("a file");
    let mut vestibule = spawn(directory, &format!("{ECHO_AND_WORKERS}{LISTENERS}"));
    assert_eq!(vestibule.wait().await.code(), Some(1));
    assert!(only_line(&vestibule).await.contains("front.sock"));
    assert_eq!(fs::read_to_string(&notes).expect("a file"), "precious");
}
