//! `[[join]]`, and files that have nothing else.

use super::*;

const HEAD: &str = "\
[[join]]
front = \"front.example:15008\"
backend = \"app\"
to = \"unix:/run/app.sock\"
";

const TLS: &str = "\
[join.tls]
ca = \"certs/ca.pem\"
certificate = { chain = \"certs/client.pem\", key = \"certs/client-key.pem\" }
";

#[test]
fn a_join_needs_neither_listener_nor_backend() {
    let config = parse(&format!("{HEAD}{TLS}"));
    assert_eq!(config.listeners.len() + config.backends.len(), 0);
    let [join] = &config.joins[..] else {
        panic!("{:?}", config.joins)
    };
    assert_eq!((join.offers, &*join.backend), (8, "app"));
    assert_eq!(join.tls.alpn, ["h2"]);
    assert_eq!(join.fronts[0].to_string(), "tcp:front.example:15008");
    let text = config.summary().to_string();
    let line = "join tcp:front.example:15008: worker of app, unix:/run/app.sock\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_join_stands_beside_a_listener_and_other_joins() {
    let other = HEAD.replace("/app.sock", "/other.sock");
    let config = parse(&with(&format!(
        "{HEAD}offers = 1000\n{TLS}{other}{TLS}alpn = \"hbone\"\n"
    )));
    assert_eq!(config.joins.len(), 2);
    assert_eq!(config.joins[0].offers, 1000);
    assert_eq!(config.joins[1].tls.alpn, ["hbone"]);
    assert_eq!(config.backends.len(), 1);
}

#[test]
fn a_listener_still_needs_a_backend() {
    let text = format!("{LISTENER}{HEAD}{TLS}");
    let found = problems(&text);
    assert!(found[0].contains("there is no `[[backend]]`"), "{found:?}");
}

#[test]
fn wrong_values_are_reported() {
    for (text, expected) in wrong_fronts().into_iter().chain(other_wrong_values()) {
        let found = problems(&text);
        let is_told = found.iter().any(|it| it.contains(expected));
        assert!(is_told, "{expected}: {found:#?}");
    }
}

/// The valid configuration, with a part of it replaced.
fn line(from: &str, to: &str) -> String {
    format!("{HEAD}{TLS}").replace(from, to)
}

type Wrong = (String, &'static str);

fn wrong_fronts() -> Vec<Wrong> {
    vec![
        (
            line("\"front.example:15008\"", "\"fleet\""),
            "`join.front`: \"fleet\": this version has no fleet",
        ),
        (
            line("\"front.example:15008\"", "[]"),
            "`join.front`: expected at least one address",
        ),
        (
            line("\"front.example:15008\"", "\":15008\""),
            "the address of a front needs a host",
        ),
        (
            line("\"front.example:15008\"", "\"a:0\""),
            "the port of a front must not be 0",
        ),
        (
            line("\"front.example:15008\"", "\"hello\""),
            "expected the address of a front",
        ),
        (line("front =", "fronts ="), "`join` needs the key `front`"),
    ]
}

fn other_wrong_values() -> Vec<Wrong> {
    vec![
        (
            line("\"unix:/run/app.sock\"", "\"gate\""),
            "expected the address of a local server",
        ),
        (
            line("\"unix:/run/app.sock\"", "[]"),
            "`join.to`: expected at least one address",
        ),
        (
            line("\"app\"", "\"a b\""),
            "`join.backend`: expected a name",
        ),
        (
            line("[join.tls]", "offers = 0\n[join.tls]"),
            "`join.offers`: expected a whole number from 1 to 1000",
        ),
        (
            HEAD.to_owned(),
            "`join` needs the table `[join.tls]` with a `certificate`",
        ),
        (
            format!("{HEAD}[join.tls]\nca = \"certs/ca.pem\"\n"),
            "`join.tls` needs the key `certificate`",
        ),
        (
            line("front.example:15008", "unix:/front.sock"),
            "`join.tls` needs the key `server_name`",
        ),
        (
            line("ca = \"certs/ca.pem\"", "ca = []"),
            "`join.tls.ca`: an empty list trusts no authority",
        ),
        (
            format!("{HEAD}{TLS}{HEAD}{TLS}"),
            "the same table is there twice",
        ),
        (
            line("to =", "server = 1\nto ="),
            "`join.server`: write `front`",
        ),
        (line("to =", "alpn = 1\nto ="), "belongs under `[join.tls]`"),
    ]
}

#[test]
fn a_join_to_an_own_listener_is_a_loop() {
    let head = HEAD.replace("unix:/run/app.sock", "127.0.0.1:8443");
    let found = problems(&with(&format!("{head}{TLS}")));
    assert_eq!(found.len(), 1, "{found:?}");
    let expected = "`join.to`: tcp:127.0.0.1:8443 is the address of the listener";
    assert!(found[0].contains(expected), "{found:?}");
}

#[test]
fn half_a_set_up_of_network_workers_is_a_warning() {
    const WORKERS: &str = "\
[[listener]]
name = \"workers\"
address = \"127.0.0.1:15008\"
[listener.tls]
certificates = [ { chain = \"certs/server.pem\", key = \"certs/server-key.pem\" } ]
client_auth = \"required\"
client_ca = \"certs/ca.pem\"
[listener.tunnel]
workers = true
";
    const SERVED: &str = "[[backend]]\nname = \"jobs\"\nto = \"gate\"\nworkers = [\"cn:worker\"]\n";
    const ROUTE: &str = "[[route]]\nbackend = \"app\"\n";
    let said = |text: &str| {
        let config = parse(&with(&format!("{text}{ROUTE}")));
        let all = config.warnings().iter().map(|it| it.message.clone());
        let about: Vec<String> = all.filter(|it| it.contains("workers`")).collect();
        about
    };
    assert_eq!(said(&format!("{SERVED}{WORKERS}")), [""; 0]);
    let whole = parse(&with(&format!("{SERVED}{WORKERS}{ROUTE}")));
    let summary = whole.summary().to_string();
    let line = "tunnels: from clients at 1 listener; network workers at 1 listener for 1 backend\n";
    assert!(summary.contains(line), "{summary}");
    let [listener] = &said(WORKERS)[..] else {
        panic!("one warning");
    };
    assert!(listener.contains("`listener.tunnel.workers`: every worker is refused"));
    let [backend] = &said(SERVED)[..] else {
        panic!("one warning");
    };
    assert!(backend.contains("`backend.workers` has no effect"));
}

#[test]
fn the_summary_counts_tunnels_workers_and_joins() {
    let config = parse(&with(&format!("{HEAD}{TLS}")));
    let text = config.summary().to_string();
    let line = "\ntunnels: 1 join\n";
    assert!(text.contains(line), "{text}");
    let config = parse(&with("[runtime]\nmax_memory = \"512MiB\"\n"));
    let text = config.summary().to_string();
    assert!(
        text.ends_with("max_memory: 512.0 MiB\n") && !text.contains("tunnels"),
        "{text}"
    );
}
