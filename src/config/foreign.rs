//! Keys of other programs, or keys in the wrong table, with what to write instead.

use super::table::Table;

pub(super) fn root(table: &mut Table<'_>) {
    table.foreign(
        &["frontend", "http", "listen", "server", "tls"],
        "write `[[listener]]` and its table `[listener.tls]`",
    );
    table.foreign(&["pool", "upstream"], "write `[[backend]]`");
    table.foreign(&["log", "logging", "workers"], "belongs under `[runtime]`");
}

pub(super) fn limits(table: &mut Table<'_>) {
    table.foreign(
        &[
            "backend",
            "drain",
            "half_close",
            "handshake",
            "idle",
            "lifetime",
            "unacknowledged",
        ],
        "belongs under `[timeouts]`",
    );
}

pub(super) fn timeouts(table: &mut Table<'_>) {
    table.foreign(
        &["connect", "dial"],
        "write `backend`, the time until a backend has the connection",
    );
    table.foreign(
        &[
            "connections",
            "connections_per_ip",
            "handshaking",
            "pending",
        ],
        "belongs under `[limits]`",
    );
}

pub(super) fn gate(table: &mut Table<'_>) {
    table.foreign(
        &["group", "mode", "owner"],
        "leave it out; `allow_uids` and `allow_gids` determine it",
    );
    table.foreign(&["address"], "write `path`");
}

pub(super) fn route(table: &mut Table<'_>) {
    table.foreign(
        &["domain", "host", "hostname", "name", "server_name"],
        "write `sni`",
    );
    table.foreign(&["peer", "source"], "write `from`");
    table.foreign(&["to"], "write `backend`, the name of a `[[backend]]`");
    table.foreign(
        &["header", "method", "path", "prefix", "uri", "url"],
        "not supported; routes see the TLS connection, not HTTP",
    );
}

pub(super) fn listener(table: &mut Table<'_>) {
    table.foreign(
        &["port", "host", "bind", "listen"],
        "write `address = \"0.0.0.0:8443\"`",
    );
    table.foreign(
        &[
            "alpn",
            "certificates",
            "client_auth",
            "client_ca",
            "crl",
            "min_version",
            "ocsp",
            "tickets",
            "unknown_sni",
        ],
        "belongs under `[listener.tls]`",
    );
    table.foreign(CERTIFICATE, IN_A_LIST);
}

pub(super) fn handshake(table: &mut Table<'_>) {
    table.foreign(
        &["max_version", "versions", "protocols", "ssl_protocols"],
        "not supported; TLS 1.3 is always offered, and `min_version = \"1.3\"` turns TLS 1.2 off",
    );
    table.foreign(
        &["ciphers", "cipher_suites", "ssl_ciphers", "curves"],
        "not supported; leave it out, only strong ones are offered",
    );
    table.foreign(
        &[
            "name",
            "address",
            "accept_proxy_protocol",
            "trusted_proxies",
        ],
        "belongs to `[[listener]]`; write it above `[listener.tls]`",
    );
    table.foreign(CERTIFICATE, IN_A_LIST);
}

pub(super) fn backend(table: &mut Table<'_>) {
    table.foreign(
        &[
            "address",
            "addresses",
            "host",
            "port",
            "server",
            "servers",
            "target",
            "upstream",
            "url",
        ],
        "write `to = \"127.0.0.1:9000\"`, or a list of addresses",
    );
    table.foreign(
        &["allow", "alpn", "ca", "certificate", "server_name"],
        "belongs under `[backend.tls]`",
    );
}

pub(super) fn client_mode(table: &mut Table<'_>) {
    table.foreign(
        &["insecure", "insecure_skip_verify", "skip_verify", "verify"],
        "not supported; name the authority of the server's certificate with `ca = [\"ca.pem\"]`",
    );
    table.foreign(&["sni"], "write `server_name`");
    table.foreign(
        &["name", "to", "balance", "proxy_protocol", "park", "health"],
        "belongs to `[[backend]]`; write it above `[backend.tls]`",
    );
}

const CERTIFICATE: &[&str] = &[
    "cert",
    "cert_file",
    "certificate",
    "chain",
    "key",
    "key_file",
];

const IN_A_LIST: &str = "write `certificates = [ { chain = \"chain.pem\", key = \"key.pem\" } ]` under \
                         `[listener.tls]`";
