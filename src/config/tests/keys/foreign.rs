//! Mistakes of new users, and the message with the correction.

use super::*;

#[test]
fn a_key_of_another_program_or_table_is_reported_with_the_right_one() {
    for (section, line, answer) in [
        ("limits", "idle = \"5s\"", "belongs under `[timeouts]`"),
        ("timeouts", "pending = 5", "belongs under `[limits]`"),
        (
            "gate",
            "mode = \"0660\"",
            "leave it out; `allow_uids` and `allow_gids` determine it",
        ),
        (
            "listener",
            "port = 8443",
            "write `address = \"0.0.0.0:8443\"`",
        ),
        (
            "listener",
            "client_auth = \"none\"",
            "belongs under `[listener.tls]`",
        ),
        (
            "listener.tls",
            "max_version = \"1.3\"",
            "not supported; TLS 1.3 is always offered, and `min_version = \"1.3\"` turns TLS 1.2 off",
        ),
        (
            "listener.tls",
            "accept_proxy_protocol = \"required\"",
            "belongs to `[[listener]]`; write it above `[listener.tls]`",
        ),
        ("route", "host = \"a.example\"", "write `sni`"),
        (
            "backend",
            "servers = []",
            "write `to = \"127.0.0.1:9000\"`, or a list of addresses",
        ),
        (
            "backend",
            "server_name = \"a\"",
            "belongs under `[backend.tls]`",
        ),
        ("backend.tls", "sni = \"a\"", "write `server_name`"),
    ] {
        let (key, _) = line.split_once(' ').expect("a key");
        let text = file(section, line);
        let number = text.lines().position(|l| l == line).expect("a line") + 1;
        let expected = format!("{number}:1: `{section}.{key}`: {answer}");
        assert_eq!(problems(&text), [expected], "{text}");
    }
}

#[test]
fn a_misspelled_key_is_recognized_even_if_the_right_one_was_only_looked_for() {
    for (section, line, meant) in [
        ("backend.tls", "alow = [\"cn:x\"]", "allow"),
        ("backend.tls", "serber_name = \"a\"", "server_name"),
        ("backend.tls", "certifcate = {}", "certificate"),
        ("backend", "proxy_protocl = \"v1\"", "proxy_protocol"),
        ("backend", "tsl = {}", "tls"),
        ("listener.tls", "ocps = \"a.der\"", "ocsp"),
        ("listener.tls", "client_aut = \"none\"", "client_auth"),
        ("listener", "trusted_proxis = []", "trusted_proxies"),
        ("route", "identiy = \"cn:x\"", "identity"),
    ] {
        let (key, _) = line.split_once(' ').expect("a key");
        let said = problems(&file(section, line)).join("\n");
        let expected = format!("unknown key `{section}.{key}`, did you mean `{meant}`?");
        assert!(said.ends_with(&expected), "{said}");
    }
}

#[test]
fn a_value_in_another_form_is_reported_with_the_right_form() {
    for (section, line, column, message) in [
        (
            "limits",
            "pending = \"100\"",
            11,
            "write 100 without quotes; \"unlimited\" turns it off",
        ),
        ("backend", "park = \"true\"", 8, "write true without quotes"),
        (
            "listener.tls",
            "min_version = 1.2",
            15,
            "write \"1.2\", in quotes",
        ),
        (
            "listener.tls",
            "client_auth = true",
            15,
            "expected one of the words none, optional, required, found a boolean",
        ),
        (
            "backend",
            "tls = true",
            7,
            "expected a table, as under `[backend.tls]`, found a boolean",
        ),
    ] {
        let (key, _) = line.split_once(' ').expect("a key");
        let text = file(section, line);
        let number = text.lines().position(|l| l == line).expect("a line") + 1;
        let expected = format!("{number}:{column}: `{section}.{key}`: {message}");
        assert_eq!(problems(&text), [expected], "{text}");
    }
    let said = problems(&file("listener.tls", "certificates = [\"server.pem\"]"));
    let example = "as in `certificates = [ { chain = \"chain.pem\", key = \"key.pem\" } ]`";
    assert!(said[0].contains(example), "{said:?}");
}

#[test]
fn a_misspelled_protocol_is_reported_with_the_right_one() {
    for (written, meant) in [
        ("HTTP/1.1", "http/1.1"),
        ("H2", "h2"),
        ("http/2", "h2"),
        ("http1.1", "http/1.1"),
        ("http", "http/1.1"),
        ("htp/1.1", "http/1.1"),
        ("postgresq", "postgresql"),
        ("MQTT", "mqtt"),
        ("PostgreSQL", "postgresql"),
    ] {
        for section in ["listener.tls", "route", "backend.tls"] {
            let said = problems(&file(section, &format!("alpn = [\"{written}\"]")));
            let expected = format!("unknown protocol {written:?}, did you mean {meant:?}?");
            assert!(said.len() == 1 && said[0].ends_with(&expected), "{said:?}");
        }
    }
    for several in ["h2,http/1.1", "h2 http/1.1", "http/1.1 "] {
        let said = problems(&file("listener.tls", &format!("alpn = [\"{several}\"]")));
        assert!(said.len() == 1 && said[0].contains("as a list"), "{said:?}");
    }
    for right in [
        "h2",
        "h2c",
        "http/1.0",
        "http/1.1",
        "my-Protocol/2",
        "acme-tls/1",
    ] {
        assert_eq!(
            problems(&file("listener.tls", &format!("alpn = [\"{right}\"]"))),
            [""; 0]
        );
    }
}
