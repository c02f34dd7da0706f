//! `[backend.tunnel]`.

use super::*;

#[test]
fn backend_tunnel() {
    check("backend.tunnel", RIGHT, WRONG);
}

const RIGHT: &[&str] = &[
    "",
    "authority = \"[2001:db8::1]:443\"",
    "connections = 1",
    "connections = 100",
    "streams = 1",
    "streams = 8190",
];

const WRONG: &[Wrong] = &[
    (
        "authority = \"db\"",
        13,
        "`backend.tunnel.authority`: \"db\": not a host and a port, as in db.example:5432",
    ),
    (
        "connections = 0",
        15,
        "`backend.tunnel.connections`: expected a whole number from 1 to 100, found 0",
    ),
    (
        "connections = 101",
        15,
        "`backend.tunnel.connections`: expected a whole number from 1 to 100, found 101",
    ),
    (
        "streams = 0",
        11,
        "`backend.tunnel.streams`: expected a whole number from 1 to 8190, found 0",
    ),
    (
        "streams = 8191",
        11,
        "`backend.tunnel.streams`: expected a whole number from 1 to 8190, found 8191",
    ),
];

#[test]
fn tunnels_to_a_backend_need_tls_an_address_and_an_authority() {
    const TLS: &str = "[backend.tls]\nserver_name = \"a\"\nca = \"certs/ca.pem\"\n";
    const TUNNEL: &str = "[backend.tunnel]\nauthority = \"db:5432\"\n";
    for (to, tables, expected) in [
        (
            "a:1",
            TUNNEL.to_owned(),
            "`backend.tunnel` needs `[backend.tls]`",
        ),
        (
            "gate",
            format!("{TLS}{TUNNEL}"),
            "`backend.tunnel` needs addresses in `to`",
        ),
        (
            "a:1",
            format!("{TLS}[backend.tunnel]\n"),
            "needs the key `authority`",
        ),
    ] {
        let text = format!("{LISTENER}[[backend]]\nname = \"app\"\nto = \"{to}\"\n{tables}");
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(expected), "{found:?}");
    }
}
