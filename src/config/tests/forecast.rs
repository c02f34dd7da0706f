//! Conditions that would keep a start from binding an address are found before the start.

use super::*;

/// The problems of a listener at this address. `DIR` stands for the directory.
fn unready(address: &str, directory: &std::path::Path) -> Vec<String> {
    let directory = directory.display().to_string();
    let address = address.replace("DIR", &directory);
    let config = parse(&format!("{LISTENER}{BACKEND}").replace("tcp:127.0.0.1:8443", &address));
    let all = config.unready().iter();
    all.inspect(|it| assert_eq!((it.line, it.column), (3, 11)))
        .map(|it| it.message.replace(&directory, "DIR"))
        .collect()
}

#[test]
fn obstacles_for_a_socket_are_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fs::write(path.join("file"), "precious").expect("a file");
    fs::create_dir(path.join("dir")).expect("a directory");
    drop(std::os::unix::net::UnixListener::bind(path.join("stale")).expect("a socket"));
    for (address, expected) in [
        ("unix:DIR/new", None),
        ("unix:DIR/stale", None),
        (
            "unix:DIR/file",
            Some("DIR/file exists and is not a socket; remove it, or"),
        ),
        (
            "unix:DIR/dir",
            Some("DIR/dir exists and is not a socket; remove it, or"),
        ),
        (
            "unix:DIR/file/front.sock",
            Some("DIR/file is not a directory; choose another path"),
        ),
        (
            "unix:DIR/file/below/front.sock",
            Some("cannot use DIR/file/below: Not a directory"),
        ),
        (
            "unix:DIR/none/front.sock",
            Some("the directory DIR/none does not exist; run `mkdir -p DIR/none`"),
        ),
    ] {
        let found = unready(address, path);
        assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
        let expected = format!("`listener.address`: {}", expected.unwrap_or_default());
        assert!(
            found.iter().all(|it| it.starts_with(&expected)),
            "{found:?}"
        );
    }
}

#[test]
fn a_gate_in_a_directory_that_others_can_change_is_found() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display();
    let open = directory.path().join("open");
    fs::create_dir(&open).expect("a directory");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("a mode");
    let shared = "`gate.path`: cannot use the directory DIR/open: other users can write to it (mode 1777); \
                  choose another directory, such as a private one inside it";
    for (gate, to, expected) in [
        ("DIR/open/gate.sock", "gate", Some(shared)),
        ("DIR/open/gate.sock", "echo", None),
        ("DIR/gate.sock", "gate", None),
        ("DIR/new/gate.sock", "gate", None),
        ("gate.sock", "gate", None),
    ] {
        let gate = gate.replace("DIR", &path.to_string());
        let backend = format!("[[backend]]\nname = \"app\"\nto = \"{to}\"\n");
        let config = parse(&format!("[gate]\npath = \"{gate}\"\n{LISTENER}{backend}"));
        let found: Vec<String> = (config.unready().iter())
            .filter(|it| it.message.starts_with("`gate"))
            .inspect(|it| assert_eq!((it.line, it.column), (2, 8)))
            .map(|it| it.message.replace(&path.to_string(), "DIR"))
            .collect();
        assert_eq!(found, expected.as_slice(), "{gate} of {to}");
    }
}

#[test]
fn an_address_of_another_machine_and_an_unknown_name_are_found() {
    for (address, expected) in [
        ("tcp:127.0.0.1:0", None),
        ("tcp:localhost:0", None),
        ("tcp:0.0.0.0:0", None),
        (
            "tcp:192.0.2.1:0",
            Some("this machine does not have the address 192.0.2.1;"),
        ),
        (
            "tcp:nowhere.invalid:8443",
            Some("the name \"nowhere.invalid\" has no address; correct it, "),
        ),
    ] {
        let found = unready(address, std::path::Path::new("/"));
        assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
        let expected = expected.unwrap_or_default();
        assert!(found.iter().all(|it| it.contains(expected)), "{found:?}");
    }
}

#[test]
fn two_listeners_at_one_path_through_a_link_are_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fs::create_dir(path.join("real")).expect("a directory");
    std::os::unix::fs::symlink("real", path.join("link")).expect("a link");
    let listener = |name: &str, place: &str| {
        let address = format!("unix:{}/{place}", path.display());
        LISTENER
            .replace("front", name)
            .replace("tcp:127.0.0.1:8443", &address)
    };
    let unready = |second: &str| {
        let (first, second) = (listener("a", "real/front.sock"), listener("b", second));
        parse(&format!("{first}{second}{BACKEND}"))
            .unready()
            .to_vec()
    };
    assert_eq!(unready("link/other.sock"), []);
    let [problem] = &unready("link/front.sock")[..] else {
        panic!("one problem");
    };
    assert_eq!((problem.line, problem.column), (6, 11));
    let expected = "/real/front.sock, which is the same path through a link; change one of the two";
    assert!(problem.message.ends_with(expected), "{problem:?}");
}
