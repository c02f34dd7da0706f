//! Any text as a configuration: no panic, and every problem has a place in the text.

use crate::config::{Config, ConfigError};

/// Parses the input as a configuration, twice.
///
/// The input is the text itself. After a byte that no UTF-8 text starts with, it is indices into
/// [`HEADS`], [`KEYS`] and [`VALUES`], from which a nearly valid text is composed.
///
/// # Panics
///
/// A problem has no place in the text, or more than one line, or the two results differ.
pub fn config(data: &[u8]) {
    let text = match data.split_first() {
        Some((&COMPOSED, numbers)) => compose(numbers),
        _ => String::from_utf8_lossy(data).into_owned(),
    };
    // The input may name any file as a certificate, and a read of some of these files never ends.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    match (text.parse::<Config>(), text.parse::<Config>()) {
        (Ok(first), Ok(second)) => assert_eq!(shown(first), shown(second)),
        (Err(first), Err(second)) => {
            assert_eq!(first.problems(), second.problems());
            check(&text, &first);
        }
        (first, second) => panic!("once {first:?}, then {second:?}"),
    }
}

fn check(text: &str, error: &ConfigError) {
    let lines: Vec<&str> = text.split('\n').collect();
    let problems = error.problems();
    assert!(!problems.is_empty(), "refused without a reason");
    for problem in problems {
        assert!((1..=lines.len()).contains(&problem.line), "{problem:?}");
        // The end of a line is a valid place, too.
        let columns = lines[problem.line - 1].chars().count() + 1;
        assert!((1..=columns).contains(&problem.column), "{problem:?}");
        assert!(!problem.message.contains(char::is_control), "{problem:?}");
    }
    let places = problems
        .iter()
        .map(|problem| (problem.line, problem.column));
    assert!(places.is_sorted(), "{problems:?}");
    assert_eq!(error.to_string().lines().count(), problems.len());
}

/// The whole configuration, in an order that is the same in every run.
fn shown(mut config: Config) -> String {
    let gate = config.gate.take().map(|gate| {
        let sorted = |ids: std::collections::HashSet<u32>| {
            let mut ids = Vec::from_iter(ids);
            ids.sort_unstable();
            ids
        };
        let (uids, gids) = (sorted(gate.allow_uids), sorted(gate.allow_gids));
        (gate.path, uids, gids, gate.max_clients)
    });
    format!("{gate:?} {config:?}")
}

/// Each line is composed from two bytes.
fn compose(numbers: &[u8]) -> String {
    let pick = |words: &[&'static str], number: u8| words[usize::from(number) % words.len()];
    let mut text = String::new();
    for line in numbers.chunks_exact(2).take(256) {
        if usize::from(line[0]) < HEADS.len() {
            text.push_str(pick(HEADS, line[0]));
        } else {
            text.push_str(pick(KEYS, line[0] - HEADS.len() as u8));
            text.push_str(" = ");
            text.push_str(pick(VALUES, line[1]));
        }
        text.push('\n');
    }
    text
}

/// This byte does not occur in UTF-8.
const COMPOSED: u8 = 0xff;

const HEADS: &[&str] = &[
    "[[listener]]",
    "[listener.tls]",
    "[[listener.tls.certificates]]",
    "[[backend]]",
    "[backend.health]",
    "[[route]]",
    "[gate]",
    "[limits]",
    "[timeouts]",
    "[runtime]",
    "[admin]",
    "[audit]",
];

#[rustfmt::skip]
const KEYS: &[&str] = &[
    "name", "address", "to", "backend", "deny", "tls", "certificates", "chain", "key", "listener",
    "sni", "alpn", "from", "identity", "balance", "park", "health", "fall", "rise", "interval", "send", "expect",
    "min_version", "tickets", "unknown_sni", "client_auth", "client_ca", "crl", "ocsp",
    "accept_proxy_protocol", "trusted_proxies", "proxy_protocol", "path", "allow_uids",
    "allow_gids", "max_clients", "connections", "connections_per_ip", "connections_per_identity",
    "pending", "handshaking", "handshakes_per_second", "handshakes_per_second_per_ip", "handshake", "idle",
    "half_close", "lifetime", "drain", "unacknowledged", "workers", "directory", "log",
    "log_format", "max_memory", "relay", "core_dumps", "access_log", "heartbeat", "idle_exit", "rotate", "keep", "allow_writes_over_tcp",
    "conections", "\"a\\nb\"", "\"\"", "gate.path", "ключ",
];

#[rustfmt::skip]
const VALUES: &[&str] = &[
    "\"app\"", "\"other\"", "\"gate\"", "\"hello\"", "\"echo\"", "\"127.0.0.1:80\"",
    "\"tcp:[::1]:0\"", "\"unix:/run/a.sock\"", "\"none\"", "\"unlimited\"", "\"10s\"", "\"0s\"",
    "\"99999999999999999999y\"", "true", "false", "0", "1", "-1", "0x10", "4294967296", "1_000",
    "99999999999999999999999999", "1.5", "nan", "1979-05-27T07:32:00Z", "[]", "{}", "[[]]",
    "[\"app\", \"gate\"]", "[\"h2\", 1, true]", "[\"127.0.0.1:80\", \"unix:/run/b.sock\"]",
    "[{ chain = \"certs/server.pem\", key = \"certs/server-key.pem\" }]",
    "[{ chain = \"certs/ca.pem\", key = \"certs/server-key.pem\" }]",
    "\"certs/server.pem\"", "\"certs/server-key.pem\"", "\"no\\nsuch\\u001bfile\"",
    "\"*.example.com\"", "\"192.0.2.0/24\"", "[\"2001:db8::/32\", \"::1\"]", "\"1.3\"", "\"rotate\"",
    "\"round_robin\"", "\"source\"", "\"json\"", "\"stream\"", "\"64KiB\"", "\"1e400TiB\"",
    "\"\"\"\nmany\nlines\"\"\"", "'\u{fffd}'", "\"\"",
];
