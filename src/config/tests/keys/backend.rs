//! The `[[backend]]` tables.

use super::*;

#[test]
fn backend() {
    check("backend", BACKEND_RIGHT, BACKEND_WRONG);
}

const BACKEND_RIGHT: &[&str] = &[
    "to = \"unix:/run/api.sock\"",
    "to = \"tcp:localhost:9000\"",
    "to = [\"unix:/run/api.sock\", \"tcp:127.0.0.1:9000\"]",
    "to = \"gate\"",
    "to = \"gate\"\nworkers = []",
    "to = \"gate\"\nworkers = [\"cn:worker\", \"uri:spiffe://corp/ns/*/sa/app\"]",
    "to = \"hello\"",
    "to = \"echo\"",
    "balance = \"least_connections\"",
    "balance = \"round_robin\"",
    "balance = \"source\"",
    "proxy_protocol = \"none\"",
    "to = \"tcp:127.0.0.1:9000\"\nproxy_protocol = \"v1\"",
    "to = \"unix:/run/api.sock\"\nproxy_protocol = \"v2\"",
    "to = \"gate\"\nproxy_protocol = \"v2\"",
    "to = \"echo\"\nproxy_protocol = \"none\"",
    "park = true",
    "park = false",
    "health = { interval = \"none\", fall = 3, rise = 2 }",
    "health = { interval = \"none\", send = \"\", expect = \"\" }",
];

const BACKEND_WRONG: &[Wrong] = &[
    (
        "workers = \"cn:worker\"",
        11,
        "`backend.workers` needs `to = \"gate\"`: workers come for connections, and are not dialled",
    ),
    (
        "workers = [\"worker\"]",
        12,
        "`backend.workers`: \"worker\": an identity rule must start with `uri:`, `dns:`, `cn:`, `ou:` or `sha256:`",
    ),
    (
        "name = \"a/b\"",
        8,
        "`backend.name`: expected a name of 1 to 64 letters, digits, `-`, `_` and `.`, \
         found \"a/b\"",
    ),
    (
        "to = \"gat\"",
        6,
        "`backend.to`: \"gat\": the port is missing; write `127.0.0.1:8443`, or `unix:/path` for a Unix socket; or write gate, hello or echo",
    ),
    (
        "to = \"a:0\"",
        6,
        "`backend.to`: \"a:0\": the port of a backend must not be 0",
    ),
    ("to = []", 6, "`backend.to`: expected at least one address"),
    (
        "to = [\"a:1\", \"gate\"]",
        14,
        "`backend.to`: gate, hello and echo cannot be combined with other entries",
    ),
    (
        "to = 9000",
        6,
        "`backend.to`: expected a string, found an integer",
    ),
    (
        "balance = \"roundrobin\"",
        11,
        "`backend.balance`: unknown value \"roundrobin\", did you mean \"round_robin\"?",
    ),
    (
        "proxy_protocol = \"v2\"",
        18,
        "`backend.proxy_protocol`: hello and echo are built in and read no PROXY protocol header; leave it out",
    ),
    (
        "proxy_protocol = \"v3\"",
        18,
        "`backend.proxy_protocol`: unknown value \"v3\", did you mean \"v1\"?",
    ),
    (
        "proxy_protocol = 2",
        18,
        "`backend.proxy_protocol`: expected one of the words none, v1, v2, found an integer",
    ),
    (
        "park = \"no\"",
        8,
        "`backend.park`: expected true or false, found a string",
    ),
    (
        "health = { interval = \"5s\" }",
        23,
        "`backend.health.interval`: hello and echo have no address to check",
    ),
    (
        "health = { interval = \"99ms\" }",
        23,
        "`backend.health.interval`: expected a duration of at least 100ms; \"unlimited\" turns it \
         off",
    ),
    (
        "health = { expect = \"+PONG\" }",
        21,
        "`backend.health.expect`: nothing is checked without `interval`; add `interval = \"2s\"`",
    ),
    (
        "health = { send = \"PING\", interval = \"none\" }",
        19,
        "`backend.health.send`: nothing is checked without `interval`; add `interval = \"2s\"`",
    ),
    (
        "health = { send = 1 }",
        19,
        "`backend.health.send`: expected a string, found an integer",
    ),
    (
        "health = { fall = 0 }",
        19,
        "`backend.health.fall`: expected a whole number from 1 to 4294967295, found 0",
    ),
    (
        "health = { rise = \"2\" }",
        19,
        "`backend.health.rise`: write 2 without quotes",
    ),
    (
        "tls = true",
        7,
        "`backend.tls`: expected a table, as under `[backend.tls]`, found a boolean",
    ),
    (
        "tls = { ca = \"certs/ca.pem\" }",
        7,
        "`backend.tls`: hello and echo are built in and use no TLS; leave the table out",
    ),
];
