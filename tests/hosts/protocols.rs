//! Which protocol (ALPN) is selected.

use crate::*;

/// The first protocol of ours that the client offers and for which there is a route.
#[tokio::test]
async fn only_a_protocol_with_a_route_is_selected() {
    let site = Site::new(vec![("wild", Subject::host(&["*.example"]))]);
    let routes = "
        [[route]]
        sni = \"new.example\"
        alpn = [\"h2\", \"http/1.1\"]
        backend = \"hello\"
        [[route]]
        sni = \"old.example\"
        alpn = \"http/1.1\"
        backend = \"hello\"
        [[route]]
        sni = \"any.example\"
        backend = \"hello\"
    ";
    let vestibule = site.start(&format!("{routes}{HELLO}")).await;
    for (name, offered, expected) in [
        ("new.example", "h2,http/1.1", "ALPN protocol: h2"),
        ("new.example", "http/1.1,h2", "ALPN protocol: h2"),
        ("new.example", "http/1.1", "ALPN protocol: http/1.1"),
        ("old.example", "h2,http/1.1", "ALPN protocol: http/1.1"),
        // The configuration does not say what this backend speaks.
        ("any.example", "h2,http/1.1", "No ALPN negotiated"),
        ("any.example", "smtp", "No ALPN negotiated"),
        ("old.example", "h2", "access denied"),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = negotiate(
                &vestibule,
                &[version, "-servername", name, "-alpn", offered],
            )
            .await;
            assert!(said.contains(expected), "{name} {offered}: {said}");
        }
    }
}

/// Compares `s_client` with several protocols with `check --explain` for the first of them.
#[tokio::test]
async fn explain_agrees_with_the_handshake_about_protocols() {
    let mut wrong = Vec::new();
    for (keys, routes, named, handshake, explained) in EXPLAINED.iter().copied() {
        let routes: Vec<String> = (routes.iter())
            .map(|route| format!("[[route]]\n{route}\n"))
            .collect();
        let site = Site::new(vec![("any", Subject::host(&["*.example"]))]);
        let vestibule = site
            .start(&format!("{keys}\n{}{HELLO}", routes.concat()))
            .await;
        for version in ["-tls1_2", "-tls1_3"] {
            let said = negotiate(
                &vestibule,
                &[version, "-servername", "a.example", "-alpn", named],
            )
            .await;
            if !said.contains(handshake) {
                wrong.push(format!("{keys} {routes:?} {named}: {said}"));
            }
        }
        let first = named.split(',').next().expect("a protocol");
        let mut command = common::process::vestibule();
        command
            .args(["check", "--explain", "--sni", "a.example"])
            .args(["--alpn", first, "-c"])
            .arg(vestibule.path("vestibule.toml"));
        let said = output(command).await.text();
        if !said.contains(explained) {
            wrong.push(format!("{keys} {routes:?} {named}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

type Explained = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static str,
);

/// Keys of the listener, its routes, the client's protocols, and the results of the handshake and
/// of `--explain`.
const EXPLAINED: &[Explained] = &[
    // What a route denies is not available without a protocol either.
    (
        "",
        &[DENY_H2, TO],
        "h2",
        DENIED,
        "access_denied: `deny = true`",
    ),
    (
        OURS,
        &[DENY_H2, TO],
        "h2",
        DENIED,
        "access_denied: `deny = true`",
    ),
    (
        "",
        &[DENY_H2, ONLY_HTTP, TO],
        "h2,http/1.1",
        "protocol: http/1.1",
        "access_denied",
    ),
    ("", &[DENY_H2, TO], "foo", NONE, "protocol: none\n"),
    // RFC 7301 §3.2, whatever the routes are.
    (
        OURS,
        &[ONLY_H2, ONLY_HTTP],
        "foo",
        NO_PROTOCOL,
        "no_application_protocol",
    ),
    (
        OURS,
        &[ONLY_H2, ONLY_HTTP],
        "h2",
        "protocol: h2",
        "protocol: h2\n",
    ),
    (
        "",
        &[ONLY_H2, ONLY_HTTP],
        "foo",
        DENIED,
        "access_denied: no route matches",
    ),
    // Alice must reach her backend, and her identity is not known yet.
    (
        ASKS,
        &[ALICE, TO],
        "h2,http/1.1",
        "protocol: h2",
        "protocol: h2\n",
    ),
    (
        ASKS,
        &[ALICE, ONLY_H2, TO],
        "h2,http/1.1",
        "protocol: h2",
        "protocol: h2\n",
    ),
    (
        ASKS,
        &[ALICE, ONLY_HTTP],
        "h2,http/1.1",
        "protocol: h2",
        "access_denied: no route",
    ),
    (
        ASKS,
        &[ALICE, DENY],
        "h2",
        "protocol: h2",
        "access_denied: `deny = true`",
    ),
];

const DENIED: &str = "SSL alert number 49";
const NO_PROTOCOL: &str = "SSL alert number 120";
const NONE: &str = "No ALPN negotiated";

const OURS: &str = "alpn = [\"h2\", \"http/1.1\"]";
const ASKS: &str = "client_auth = \"optional\"\nclient_ca = \"{dir}/ca.pem\"";

const TO: &str = "backend = \"hello\"";
const DENY: &str = "deny = true";
const ALICE: &str = "alpn = \"h2\"\nidentity = \"cn:alice\"\nbackend = \"hello\"";
const ONLY_H2: &str = "alpn = \"h2\"\nbackend = \"hello\"";
const ONLY_HTTP: &str = "alpn = \"http/1.1\"\nbackend = \"hello\"";
const DENY_H2: &str = "alpn = \"h2\"\ndeny = true";

/// The whole output of `openssl s_client`.
async fn negotiate(vestibule: &Vestibule, options: &[&str]) -> String {
    let mut command = tool("openssl");
    command
        .args(["s_client", "-connect", &vestibule.tcp()])
        .args(options);
    let done = output(command).await;
    String::from_utf8_lossy(&done.out).into_owned() + &done.err
}
