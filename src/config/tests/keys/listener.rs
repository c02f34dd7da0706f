//! The `[[listener]]` tables, and their TLS.

use super::*;

#[test]
fn listener() {
    check("listener", LISTENER_RIGHT, LISTENER_WRONG);
}

const LISTENER_RIGHT: &[&str] = &[
    "name = \"a-B_9.c\"",
    "address = \"tcp:0.0.0.0:8443\"",
    "address = \"[::]:0\"",
    "address = \"unix:/run/front.sock\"",
    "accept_proxy_protocol = \"none\"",
    "trusted_proxies = []",
    "accept_proxy_protocol = \"required\"\ntrusted_proxies = [\"10.0.0.0/8\", \"2001:db8::1\"]",
    "accept_proxy_protocol = \"required\"\ntrusted_proxies = \"10.0.0.1\"",
    "address = \"unix:/run/front.sock\"\naccept_proxy_protocol = \"required\"",
    "address = \"unix:/run/front.sock\"\nmode = \"0660\"\nowner = \"root\"\ngroup = 7",
    "address = \"unix:/run/front.sock\"\nmode = 0o600\nowner = \"12\"",
];

const LISTENER_WRONG: &[Wrong] = &[
    (
        "mode = \"0600\"",
        8,
        "`listener.mode`: only for `unix:` addresses; leave it out",
    ),
    (
        "group = \"root\"",
        9,
        "`listener.group`: only for `unix:` addresses; leave it out",
    ),
    (
        "name = \"\"",
        8,
        "`listener.name`: expected a name of 1 to 64 letters, digits, `-`, `_` and `.`, \
         found \"\"",
    ),
    (
        "name = \"a b\"",
        8,
        "`listener.name`: expected a name of 1 to 64 letters, digits, `-`, `_` and `.`, \
         found \"a b\"",
    ),
    (
        "address = \"0.0.0.0\"",
        11,
        "`listener.address`: \"0.0.0.0\": the port is missing; write `127.0.0.1:8443`, or `unix:/path` for a Unix socket",
    ),
    (
        "address = \"::1:80\"",
        11,
        "`listener.address`: \"::1:80\": write an IPv6 address in brackets, as in `[::1]:8443`",
    ),
    (
        "address = \"systemd:https\"",
        11,
        "`listener.address`: \"systemd:https\": `systemd:` addresses are not supported in \
         this version; use `tcp:` or `unix:`",
    ),
    (
        "accept_proxy_protocol = \"required\"",
        25,
        "`listener.accept_proxy_protocol` needs `trusted_proxies`, the networks of the load balancers, as in `trusted_proxies = [\"10.0.0.0/8\"]`",
    ),
    (
        "accept_proxy_protocol = \"require\"",
        25,
        "`listener.accept_proxy_protocol`: unknown value \"require\", did you mean \
         \"required\"?",
    ),
    (
        "accept_proxy_protocol = true",
        25,
        "`listener.accept_proxy_protocol`: expected one of the words none, required, found a boolean",
    ),
    (
        "trusted_proxies = [\"10.0.0.0/8\"]",
        19,
        "`listener.trusted_proxies` has no effect without `accept_proxy_protocol = \"required\"`; add it, or remove `trusted_proxies`",
    ),
    (
        "trusted_proxies = [\"10.0.0.0/33\"]",
        20,
        "`listener.trusted_proxies`: \"10.0.0.0/33\": expected a network such as \
         192.0.2.0/24 or 2001:db8::/32, or one address",
    ),
    (
        "trusted_proxies = [10]",
        20,
        "`listener.trusted_proxies`: expected a string, found an integer",
    ),
    (
        "tls = true",
        7,
        "`listener.tls`: expected a table, as under `[listener.tls]`, found a boolean",
    ),
];

#[test]
fn listener_tls() {
    check("listener.tls", LISTENER_TLS_RIGHT, LISTENER_TLS_WRONG);
}

const LISTENER_TLS_RIGHT: &[&str] = &[
    "unknown_sni = \"first\"",
    "unknown_sni = \"refuse\"",
    "client_auth = \"none\"",
    "client_auth = \"optional\"\nclient_ca = \"certs/ca.pem\"",
    "client_auth = \"required\"\nclient_ca = [\"certs/ca.pem\"]",
    "client_ca = [\"certs/ca.pem\"]",
    "client_ca = []",
    "crl = []",
    "alpn = []",
    "alpn = [\"h2\", \"http/1.1\"]",
    "alpn = \"h2\"",
    "min_version = \"1.2\"",
    "min_version = \"1.3\"",
    "tickets = \"rotate\"",
    "tickets = \"none\"",
];

const LISTENER_TLS_WRONG: &[Wrong] = &[
    (
        "certificates = \"certs/server.pem\"",
        16,
        "`listener.tls.certificates`: expected a list of tables, as in `certificates = [ { chain = \"chain.pem\", key = \"key.pem\" } ]`, found a string",
    ),
    (
        "certificates = [ \"certs/server.pem\" ]",
        18,
        "`listener.tls.certificates`: expected a table, as in `certificates = [ { chain = \"chain.pem\", key = \"key.pem\" } ]`, found a string",
    ),
    (
        "unknown_sni = \"second\"",
        15,
        "`listener.tls.unknown_sni`: unknown value \"second\"; one of: first, refuse",
    ),
    (
        "client_auth = \"require\"",
        15,
        "`listener.tls.client_auth`: unknown value \"require\", did you mean \"required\"?",
    ),
    (
        "client_auth = \"required\"",
        15,
        "`client_auth` needs `client_ca = [\"…\"]`, the authorities of the client certificates",
    ),
    (
        "client_auth = \"optional\"",
        15,
        "`client_auth` needs `client_ca = [\"…\"]`, the authorities of the client certificates",
    ),
    (
        "client_ca = [\"certs/none.pem\"]",
        14,
        "`listener.tls.client_ca`: cannot read certs/none.pem: No such file or directory \
         (os error 2)",
    ),
    (
        "client_ca = [\"certs/server-key.pem\"]",
        14,
        "certs/server-key.pem: the bundle has no certificate, which starts with -----BEGIN CERTIFICATE-----; the file contains a private key",
    ),
    (
        "crl = [\"certs/ca.pem\"]",
        8,
        "certs/ca.pem: not a certificate revocation list (RFC 5280 §5) in PEM or DER: the file contains a certificate",
    ),
    (
        "alpn = [\"h2\", \"\"]",
        15,
        "`listener.tls.alpn`: the name of a protocol must have 1 to 255 bytes, found 0",
    ),
    (
        "min_version = \"1.1\"",
        15,
        "`listener.tls.min_version`: unknown value \"1.1\", did you mean \"1.2\"?",
    ),
    (
        "min_version = 1.3",
        15,
        "`listener.tls.min_version`: write \"1.3\", in quotes",
    ),
    (
        "tickets = { secret_file = \"certs/none\" }",
        27,
        "`listener.tls.tickets.secret_file`: cannot read certs/none: No such file or \
         directory (os error 2)",
    ),
    (
        "tickets = { secret_file = \"rust-toolchain.toml\" , file = 5 }",
        51,
        "unknown key `listener.tls.tickets.file`; known here: secret_file",
    ),
    (
        "tickets = {}",
        11,
        "`listener.tls.tickets` needs the key `secret_file`",
    ),
    (
        "tickets = 5",
        11,
        "`listener.tls.tickets`: expected \"rotate\", \"none\" or { secret_file = \"PATH\" }, \
         found an integer",
    ),
    (
        "tickets = \"rotated\"",
        11,
        "`listener.tls.tickets`: expected \"rotate\", \"none\" or { secret_file = \"PATH\" }, \
         found \"rotated\"",
    ),
];

#[test]
fn a_secret_for_tickets_that_is_empty_is_a_problem() {
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let line = format!("tickets = {{ secret_file = {:?} }}", empty.path());
    let problems = problems(&file("listener.tls", &line));
    let expected = format!(
        "6:27: {}: a ticket secret needs 32 random bytes or more, as from `openssl rand 32`; this one has 0",
        empty.path().display()
    );
    assert_eq!(problems, [expected]);
}

#[test]
fn listener_tunnel() {
    check("listener.tunnel", TUNNEL_RIGHT, TUNNEL_WRONG);
}

const TUNNEL_RIGHT: &[&str] = &[
    "",
    "alpn = \"hbone\"",
    "streams = 1",
    "streams = 8190",
    "workers = true",
];

const TUNNEL_WRONG: &[Wrong] = &[
    (
        "alpn = \"\"",
        8,
        "`listener.tunnel.alpn`: the name of a protocol must have 1 to 255 bytes, found 0",
    ),
    (
        "streams = 0",
        11,
        "`listener.tunnel.streams`: expected a whole number from 1 to 8190, found 0",
    ),
    (
        "streams = 8191",
        11,
        "`listener.tunnel.streams`: expected a whole number from 1 to 8190, found 8191",
    ),
    (
        "workers = 1",
        11,
        "`listener.tunnel.workers`: expected true or false, found an integer",
    ),
];

#[test]
fn a_tunnel_needs_clients_with_certificates() {
    const TLS: &str = "[listener.tls]\ncertificates = [ { chain = \"certs/server.pem\", key = \"certs/server-key.pem\" } ]\n";
    let optional = format!("{TLS}client_auth = \"optional\"\nclient_ca = \"certs/ca.pem\"\n");
    for tls in ["", TLS, &optional] {
        let text = format!("{LISTENER}{tls}[listener.tunnel]\n{BACKEND}");
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        let expected = "`listener.tunnel` needs `client_auth = \"required\"` in `[listener.tls]`";
        assert!(found[0].contains(expected), "{found:?}");
    }
}

#[test]
fn a_tunnel_adds_no_problem_to_those_of_its_tls() {
    for (more, expected) in [
        (
            "client_auth = \"required\"\n",
            "`client_auth` needs `client_ca",
        ),
        ("client_auth = \"require\"\n", "did you mean \"required\"?"),
    ] {
        let text = format!(
            "{LISTENER}[listener.tls]\ncertificates = [ {{ chain = \"certs/server.pem\", key = \
             \"certs/server-key.pem\" }} ]\n{more}[listener.tunnel]\n{BACKEND}"
        );
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(expected), "{found:?}");
    }
}
