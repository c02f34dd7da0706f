//! The `[[route]]` tables.

use super::*;

#[test]
fn route() {
    check("route", ROUTE_RIGHT, ROUTE_WRONG);
}

const ROUTE_RIGHT: &[&str] = &[
    "listener = [\"front\"]",
    "listener = \"front\"",
    "sni = [\"api.example.com\", \"*.example.com\"]",
    "alpn = [\"h2\"]",
    "from = [\"192.0.2.0/24\", \"2001:db8::/32\", \"192.0.2.1\"]",
    "identity = [\"uri:spiffe://corp/ns/*/sa/web\", \"dns:*.corp.example\"]",
    "identity = \"cn:alice\"",
    "authority = [\"db:5432\", \"*.svc.example:*\", \"[2001:db8::1]:443\"]",
    "backend = \"app\"",
    "deny = true",
    "deny = false\nbackend = \"app\"",
];

const ROUTE_WRONG: &[Wrong] = &[
    (
        "listener = [\"frnt\"]",
        13,
        "`route.listener`: no listener has the name \"frnt\", did you mean \"front\"?",
    ),
    (
        "listener = [\"front\", \"gopher\"]",
        22,
        "`route.listener`: no listener has the name \"gopher\"; known: front",
    ),
    (
        "sni = [\"a*.example.com\"]",
        8,
        "`route.sni`: \"a*.example.com\": not a name pattern; write a DNS name (no address), as in `*.example.com`: `*` is one label, `**` (once) is one or more",
    ),
    (
        "from = []",
        8,
        "`route.from`: an empty list matches nothing; leave the key out to match \
         everything",
    ),
    (
        "authority = [\"db\"]",
        14,
        "`route.authority`: \"db\": not a host and a port; write for example `db:5432` or `*.svc.example:*`: `*` is one label or any port, `**` (once) is one or more labels",
    ),
    (
        "alpn = [2]",
        9,
        "`route.alpn`: expected a string, found an integer",
    ),
    (
        "from = [\"192.0.2.0/33\"]",
        9,
        "`route.from`: \"192.0.2.0/33\": expected a network such as 192.0.2.0/24 or \
         2001:db8::/32, or one address",
    ),
    (
        "from = [\"::ffff:10.0.0.0/8\"]",
        9,
        "`route.from`: \"::ffff:10.0.0.0/8\": an IPv4-mapped IPv6 network needs a prefix from 96 to 128",
    ),
    (
        "identity = []",
        12,
        "`route.identity`: an empty list matches nothing; leave the key out to match \
         everything",
    ),
    (
        "identity = [\"cn:alice\", \"alice\"]",
        25,
        "`route.identity`: \"alice\": an identity rule must start with `uri:`, `dns:`, `cn:`, `ou:` or `sha256:`",
    ),
    (
        "backend = \"ap\"",
        11,
        "`route.backend`: no backend has the name \"ap\", did you mean \"app\"?",
    ),
    (
        "deny = 1",
        8,
        "`route.deny`: expected true or false, found an integer",
    ),
];

#[test]
fn a_route_either_names_a_backend_or_denies() {
    for line in [
        "deny = false",
        "deny = true\nbackend = \"app\"",
        "sni = \"a\"",
    ] {
        let text = format!("{LISTENER}{BACKEND}[[route]]\n{line}\n");
        assert_eq!(
            problems(&text),
            ["7:1: a route needs either `backend = \"…\"` or `deny = true`"]
        );
    }
}
