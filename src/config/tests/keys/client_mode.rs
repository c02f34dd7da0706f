//! `[backend.tls]`: TLS to a backend.

use super::*;

#[test]
fn backend_tls() {
    check("backend.tls", BACKEND_TLS_RIGHT, BACKEND_TLS_WRONG);
}

const BACKEND_TLS_RIGHT: &[&str] = &[
    "server_name = \"api.internal\"",
    "server_name = \"10.0.0.1\"",
    "server_name = \"::1\"",
    "ca = \"certs/ca.pem\"",
    "ca = [\"certs/ca.pem\", \"certs/ca.pem\"]",
    "certificate = { chain = \"certs/client.pem\", key = \"certs/client-key.pem\" }",
    "alpn = []",
    "alpn = [\"h2\", \"http/1.1\"]",
    "allow = \"uri:spiffe://corp/ns/*/sa/api\"",
    "allow = [\"cn:api\", \"dns:*.internal\"]",
];

const BACKEND_TLS_WRONG: &[Wrong] = &[
    (
        "server_name = \"a b\"",
        15,
        "`backend.tls.server_name`: \"a b\": expected a DNS name or an IP address, as in \
         `api.internal` or `10.0.0.1`",
    ),
    (
        "server_name = \"*.internal\"",
        15,
        "`backend.tls.server_name`: \"*.internal\": expected a DNS name or an IP address, \
         as in `api.internal` or `10.0.0.1`",
    ),
    (
        "server_name = 5",
        15,
        "`backend.tls.server_name`: expected a string, found an integer",
    ),
    (
        "ca = []",
        6,
        "`backend.tls.ca`: an empty list trusts no authority; leave the key out to trust the authorities of this machine",
    ),
    (
        "ca = [\"certs/ca.pem\", \"certs/none.pem\"]",
        23,
        "`backend.tls.ca`: cannot read certs/none.pem: No such file or directory (os \
         error 2)",
    ),
    (
        "ca = \"certs/ca-key.pem\"",
        6,
        "certs/ca-key.pem: the bundle has no certificate, which starts with -----BEGIN CERTIFICATE-----; the file contains a private key",
    ),
    (
        "certificate = { chain = \"certs/client.pem\", key = \"certs/server-key.pem\" }",
        51,
        "certs/server-key.pem: the private key belongs to no certificate of the chain, which starts with O=Vestibule DEVELOPMENT ONLY - do not trust, OU=ops, CN=web; use the key with which the certificate was requested",
    ),
    (
        "certificate = { chain = \"certs/client.pem\" }",
        15,
        "`backend.tls.certificate` needs the key `key`",
    ),
    (
        "certificate = { chain = \"certs/client.pem\", key = \"certs/client-key.pem\", ocsp = \"o\" }",
        75,
        "unknown key `backend.tls.certificate.ocsp`; known here: chain, key",
    ),
    (
        "certificate = \"certs/client.pem\"",
        15,
        "`backend.tls.certificate`: expected a table, as under `[backend.tls.certificate]`, found a string",
    ),
    (
        "alpn = [\"h2\", \"\"]",
        15,
        "`backend.tls.alpn`: the name of a protocol must have 1 to 255 bytes, found 0",
    ),
    (
        "allow = []",
        9,
        "`backend.tls.allow`: an empty list allows no server; leave the key out to allow every server with a valid certificate",
    ),
    (
        "allow = [\"cn:api\", \"api\"]",
        20,
        "`backend.tls.allow`: \"api\": an identity rule must start with `uri:`, `dns:`, `cn:`, `ou:` or `sha256:`",
    ),
    (
        "servername = \"api\"",
        1,
        "unknown key `backend.tls.servername`, did you mean `server_name`?",
    ),
];

#[test]
fn a_backend_whose_addresses_have_no_name_needs_one() {
    let with_to = |to: &str, name: &str| {
        format!(
            "{LISTENER}[[backend]]\nname = \"app\"\nto = {to}\n\
             tls = {{ {name}ca = \"certs/ca.pem\" }}\n"
        )
    };
    for (to, why) in [
        (
            "\"unix:/run/app.sock\"",
            "the certificate of `unix:/run/app.sock` cannot be checked without a name",
        ),
        (
            "[\"localhost:1\", \"unix:/run/app.sock\"]",
            "the certificate of `unix:/run/app.sock` cannot be checked without a name",
        ),
        (
            "\"-a-:1\"",
            "the certificate of `tcp:-a-:1` cannot be checked without a name",
        ),
        (
            "\"gate\"",
            "a worker may register a `unix:` address, which has no name",
        ),
    ] {
        let expected = format!("7:7: `backend.tls` needs the key `server_name`: {why}");
        assert_eq!(problems(&with_to(to, "")), [expected]);
        let named = with_to(to, "server_name = \"api.internal\", ");
        assert_eq!(problems(&named), [""; 0], "{named}");
    }
    for to in ["\"localhost:1\"", "\"127.0.0.1:1\"", "\"[::1]:1\""] {
        assert_eq!(problems(&with_to(to, "")), [""; 0], "{to}");
    }
}

#[test]
fn every_value_of_backend_tls_arrives() {
    let lines = "server_name = \"api.internal\"\nalpn = [\"h2\"]\nallow = [\"cn:api\"]\n\
                 certificate = { chain = \"certs/client.pem\", key = \"certs/client-key.pem\" }";
    let config = parse(&file("backend.tls", lines));
    let tls = config.backends[0].tls.as_ref().expect("TLS");
    let name = tls.server_name.as_ref().expect("a name");
    assert_eq!(name.to_str(), "api.internal");
    assert_eq!(tls.alpn, ["h2"]);
    let rules: Vec<String> = tls.allow.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["cn:api"]);
    assert!(tls.certificate.is_some());
    assert!(
        parse(&file("backend", "park = true")).backends[0]
            .tls
            .is_none()
    );
}

#[test]
fn a_tls_prefix_in_a_file_is_reported_with_the_right_table() {
    let text = format!("{LISTENER}[[backend]]\nname = \"app\"\nto = \"tls:db.internal:5433\"\n");
    let expected = "6:6: `backend.to`: \"tls:db.internal:5433\": for TLS to the backend, write `to = \"tcp:host:port\"` and a table `[backend.tls]`";
    assert_eq!(problems(&text), [expected]);
}
