//! Checks between the parts of a file.

use super::*;

#[test]
fn names_are_unique_among_their_kind() {
    let namesake = LISTENER.replace("8443", "8444");
    let text = format!("{LISTENER}{namesake}{}", BACKEND.replace("app", "front"));
    assert_eq!(
        problems(&text),
        ["5:8: the name \"front\" is used twice; change one of them"]
    );
    let route = "[[route]]\nbackend = \"app\"\n";
    let text = format!("{LISTENER}{BACKEND}{BACKEND}{route}");
    assert_eq!(
        problems(&text),
        ["8:8: the name \"app\" is used twice; change one of them"]
    );
}

#[test]
fn an_identity_rule_without_client_certificates_gets_a_warning() {
    let listener = |name: &str, client_auth: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
             certificates = [ {{ chain = \"certs/server.pem\", key = \"certs/server-key.pem\" }} ]\n\
             {client_auth}\n"
        )
    };
    let asks = listener(
        "asks",
        "client_auth = \"optional\"\nclient_ca = \"certs/ca.pem\"",
    );
    let silent = listener("silent", "");
    let route =
        |more: &str| format!("[[route]]\n{more}identity = \"cn:alice\"\nbackend = \"app\"\n");
    for (text, expected) in [
        (format!("{asks}{silent}{}", route("")), 0),
        (
            format!("{asks}{silent}{}", route("listener = \"asks\"\n")),
            0,
        ),
        (
            format!("{asks}{silent}{}", route("listener = \"silent\"\n")),
            1,
        ),
        (format!("{silent}{}", route("")), 1),
    ] {
        let config = parse(&format!("{text}{BACKEND}"));
        assert_eq!(config.warnings().len(), expected, "{text}");
    }
}

#[test]
fn a_route_after_one_that_matches_everything_gets_a_warning() {
    for (earlier, later, expected) in [
        ("", "", true),
        ("", "sni = \"a.example\"", true),
        ("", "from = \"10.0.0.0/8\"\nalpn = \"h2\"", true),
        ("listener = \"front\"", "listener = \"front\"", true),
        ("listener = \"front\"", "", false),
        ("alpn = [\"h2\", \"http/1.1\"]", "alpn = \"h2\"", true),
        ("alpn = \"h2\"", "alpn = [\"h2\", \"http/1.1\"]", false),
        ("alpn = \"h2\"", "", false),
        ("sni = \"a.example\"", "", false),
        ("from = \"10.0.0.0/8\"", "", false),
        ("identity = \"cn:web\"", "", false),
    ] {
        let route = |keys: &str| format!("[[route]]\n{keys}\nbackend = \"app\"\n");
        let text = format!("{LISTENER}{}{}{BACKEND}", route(earlier), route(later));
        let line = 4 + route(earlier).lines().count();
        let config = parse(&text);
        let warned = config.warnings().iter();
        let warned: Vec<_> = warned
            .filter(|warning| warning.message.starts_with("`route`"))
            .map(|warning| (warning.line, &*warning.message))
            .collect();
        let warning = "`route`: never matches, because the route in line 4 matches first";
        let expected = expected.then_some((line, warning));
        assert_eq!(warned, Vec::from_iter(expected), "{text}");
    }
}

#[test]
fn two_listeners_with_one_address_are_a_problem_before_they_are_bound() {
    let second = |address: &str| {
        format!("{LISTENER}[[listener]]\nname = \"second\"\naddress = \"{address}\"\n{BACKEND}")
    };
    let text = second("tcp:127.0.0.1:8443");
    assert_eq!(
        problems(&text),
        ["6:11: another listener already uses tcp:127.0.0.1:8443"]
    );
    parse(&second("tcp:127.0.0.1:8444"));
    // With port 0 the system chooses a different port for each.
    parse(&second("tcp:127.0.0.1:0").replace("8443", "0"));
}

#[test]
fn a_listener_with_the_address_of_the_gate_is_a_problem_before_it_is_bound() {
    let beside = |runtime: &str, gate: &str| {
        let listener = LISTENER.replace("tcp:127.0.0.1:8443", "unix:/run/v/gate.sock");
        format!("runtime = {{ {runtime} }}\ngate = {{ {gate} }}\n{listener}{BACKEND}")
    };
    for (runtime, gate, is_taken) in [
        ("", "path = \"/run/v/gate.sock\"", true),
        ("directory = \"/run/v\"", "path = \"gate.sock\"", true),
        ("directory = \"/run/v\"", "", true),
        ("directory = \"/run/w\"", "", false),
        ("directory = \"/run/v\"", "path = \"none\"", false),
        ("", "path = \"/run/v/other.sock\"", false),
        ("", "", false),
    ] {
        let expected = is_taken.then_some("5:11: the gate already uses unix:/run/v/gate.sock");
        let text = beside(runtime, gate);
        assert_eq!(problems(&text), Vec::from_iter(expected), "{text}");
    }
}
