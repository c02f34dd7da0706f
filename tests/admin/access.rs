//! Who may use the admin API, and what a request needs to change anything.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::common::admin::{WRITE, send};
use crate::common::users::{STRANGER, as_user, enterable, require_root};
use crate::common::vestibule::{LISTENERS, Vestibule, message};
use crate::{ECHO, ask_of};

#[tokio::test]
async fn other_users_are_refused_by_mode_and_by_credentials() {
    require_root();
    let directory = enterable();
    let config = format!("[admin]\naddress = \"unix:{{dir}}/admin.sock\"\n{ECHO}{LISTENERS}");
    let vestibule = Vestibule::start_whole(Arc::clone(&directory), &config).await;
    let socket = vestibule.path("admin.sock");
    assert_eq!(
        fs::metadata(&socket).expect("a socket").mode() & 0o777,
        0o600
    );
    let path = socket.clone();
    let refused = as_user(STRANGER, STRANGER, move || {
        UnixStream::connect(path).is_err()
    })
    .await;
    assert!(refused);
    // Even if the mode is changed.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("ours");
    let answer = as_user(STRANGER, STRANGER, move || {
        let mut client = UnixStream::connect(socket).expect("the mode allows it");
        let _ = client.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        answer
    })
    .await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("\"code\":\"forbidden\""), "{answer}");
}

#[tokio::test]
async fn a_write_needs_its_header() {
    let vestibule = Vestibule::start(ECHO).await;
    for path in ["/v1/drain", "/v1/reload"] {
        for flags in [
            &[][..],
            &["-H", "Vestibule-Admin: 0"],
            &["-H", "Origin: http://localhost"],
        ] {
            let answer = ask_of(&vestibule, path, &[&["-X", "POST"], flags].concat()).await;
            assert_eq!((answer.status, &*answer.code()), (403, "forbidden"));
            assert!(!answer.headers.contains("access-control"), "{answer:?}");
        }
    }
    assert_eq!(ask_of(&vestibule, "/readyz", &[]).await.status, 200);
    let status = ask_of(&vestibule, "/v1/status", &[]).await.json();
    assert_eq!(status["reloads"]["requested"], 0);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_told_apart() {
    let vestibule = Vestibule::start(ECHO).await;
    for path in [
        "//",
        "/v1",
        "/v1/status/",
        "/metricz",
        "/v1/connections/a/b",
    ] {
        let answer = ask_of(&vestibule, path, &[]).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (404, "not_found"),
            "{path}"
        );
    }
    let answer = ask_of(&vestibule, "/v1/reload", &[]).await;
    assert_eq!(
        (answer.status, &*answer.code()),
        (405, "method_not_allowed")
    );
    assert!(answer.headers.contains("allow: post"), "{answer:?}");
    let answer = ask_of(&vestibule, "/v1/status", &["-X", "OPTIONS"]).await;
    assert_eq!(answer.status, 405);
    let answer = ask_of(&vestibule, "/v1/status", &["-I"]).await;
    assert_eq!((answer.status, &*answer.body), (200, ""));
}

#[tokio::test]
async fn over_tcp_only_loopback_hosts_may_read_and_nobody_may_write() {
    let vestibule = Vestibule::start(&format!("[admin]\naddress = \"127.0.0.1:0\"\n{ECHO}")).await;
    let url = url(&vestibule).await;
    let status = async |flags: &[&str]| send(flags, &format!("{url}/v1/status")).await.status;
    assert_eq!(status(&[]).await, 200);
    assert_eq!(status(&["-H", "Host: localhost"]).await, 200);
    for host in [
        "Host: evil.example",
        "Host: 192.0.2.1:80",
        "Host:",
        "Host: localhost.evil.example",
    ] {
        assert_eq!(status(&["-H", host]).await, 421, "{host}");
    }
    let write = [&["-X", "POST"], &WRITE[..]].concat();
    let answer = send(&write, &format!("{url}/v1/drain")).await;
    assert_eq!((answer.status, &*answer.code()), (403, "forbidden"));
    assert_eq!(send(&[], &format!("{url}/readyz")).await.status, 200);
}

#[tokio::test]
async fn over_tcp_writes_can_be_allowed() {
    let admin = "[admin]\naddress = \"127.0.0.1:0\"\nallow_writes_over_tcp = true\n";
    let vestibule = Vestibule::start(&format!("{admin}{ECHO}")).await;
    let url = url(&vestibule).await;
    let write = [&["-X", "POST"], &WRITE[..]].concat();
    let rebound = [&write[..], &["-H", "Host: evil.example"]].concat();
    assert_eq!(send(&rebound, &format!("{url}/v1/drain")).await.status, 421);
    let bare = send(&["-X", "POST"], &format!("{url}/v1/drain")).await;
    assert_eq!(bare.status, 403);
    let mut vestibule = vestibule;
    assert_eq!(send(&write, &format!("{url}/v1/drain")).await.status, 202);
    assert_eq!(vestibule.wait().await.code(), Some(0));
}

async fn url(vestibule: &Vestibule) -> String {
    let event = vestibule
        .event(|event| message(event).starts_with("admin API at tcp:"))
        .await;
    message(&event).replace("admin API at tcp:", "http://")
}
