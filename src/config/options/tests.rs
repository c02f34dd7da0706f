//! Tests the options against the decoder of files: the same keys, values and problems.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use std::path::PathBuf;

use super::*;
use crate::address::Address;
use crate::config::LogFormat;
use crate::proxy_protocol::ProxyProtocol;

mod everything;
mod memory;
mod wrong;

use self::everything::{EVERYTHING, everything};

const CHAIN: &str = "certs/server.pem";
const KEY: &str = "certs/server-key.pem";

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

fn front() -> ListenerOptions {
    ListenerOptions::new("front", address("127.0.0.1:0"))
}

fn app() -> BackendOptions {
    BackendOptions::new("app", BackendTarget::Gate)
}

/// As [`front`], with TLS.
fn secure() -> ListenerTlsOptions {
    ListenerTlsOptions::new(CertificateOptions::from_files(CHAIN, KEY))
}

/// Builds a configuration that is valid except for the listener.
fn with(listener: ListenerOptions) -> Result<Config, ConfigError> {
    Config::builder().listener(listener).backend(app()).build()
}

fn problems(built: Result<Config, ConfigError>) -> Vec<String> {
    let error = built.expect_err("a problem");
    assert!(
        error
            .problems()
            .iter()
            .all(|it| (it.line, it.column) == (0, 0))
    );
    let shown: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        error.to_string().matches(char::is_control).count(),
        shown.len() - 1
    );
    let messages = error.problems().iter();
    let expected: Vec<String> = messages
        .map(|it| format!("configuration: {}", it.message))
        .collect();
    assert_eq!(shown, expected);
    error
        .problems()
        .iter()
        .map(|it| it.message.clone())
        .collect()
}

fn text_of(builder: ConfigBuilder) -> String {
    render::render(builder).expect("what TOML can say").text
}

/// The meaning of a configuration, from any source.
fn meaning(config: &Config) -> String {
    format!(
        "{:#?}",
        (
            &config.runtime,
            &config.limits,
            &config.timeouts,
            (config.drain, config.unacknowledged, &config.gate),
            &config.admin,
            &config.listeners,
            &config.routes,
            (&config.backends, &config.joins),
            (&config.base, &config.files),
        )
    )
}

#[test]
fn each_setter_writes_its_key_as_a_file_has_it() {
    let written: toml::Table = EVERYTHING.parse().expect("TOML");
    let rendered: toml::Table = text_of(everything()).parse().expect("TOML");
    assert_eq!(rendered, written);
}

#[test]
fn options_have_the_same_meaning_as_a_file() {
    let ca = || [DataSource::file("certs/ca.pem")];
    let tls = secure()
        .client_auth(ClientAuthMode::Required)
        .client_ca(ca());
    let api = BackendOptions::new("api", address("localhost:9000"))
        .health(HealthOptions::default().fall(9))
        .tls(
            BackendTlsOptions::default()
                .ca(ca())
                .allow(["dns:api.internal"]),
        );
    let built = Config::builder()
        .runtime(
            RuntimeOptions::default()
                .workers(3)
                .relay(RelayMode::Stream),
        )
        .limits(LimitOptions::default().pending(None).handshaking(7))
        .timeouts(
            TimeoutOptions::default()
                .idle(Duration::from_secs(90 * 60))
                .unacknowledged(Duration::from_millis(1500)),
        )
        .gate(GateOptions::none())
        .listener(front().tls(tls))
        .route(RouteOptions::to("api").identity(["ou:ops"]))
        .route(RouteOptions::deny())
        .backend(app())
        .backend(api)
        .build()
        .expect("a configuration");
    let written: Config = OF_FILES_THAT_ARE_THERE.parse().expect("a configuration");
    assert_eq!(meaning(&built), meaning(&written));
    assert_eq!(built.files().len(), 4);
}

/// The staples, lists and secrets of the other tests do not exist as files.
const OF_FILES_THAT_ARE_THERE: &str = r#"
[runtime]
workers = 3
relay = "stream"
[limits]
pending = "unlimited"
handshaking = 7
[timeouts]
idle = "1h 30m"
unacknowledged = "1500ms"
[gate]
path = "none"
[[listener]]
name = "front"
address = "127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "certs/server.pem", key = "certs/server-key.pem" } ]
client_auth = "required"
client_ca = ["certs/ca.pem"]
[[route]]
identity = "ou:ops"
backend = "api"
[[route]]
deny = true
[[backend]]
name = "app"
to = "gate"
[[backend]]
name = "api"
to = "localhost:9000"
health = { fall = 9 }
tls = { ca = "certs/ca.pem", allow = "dns:api.internal" }
"#;

#[test]
fn options_that_are_not_set_have_their_defaults() {
    let bare = with(front()).expect("a configuration");
    let unset = Config::builder()
        .runtime(RuntimeOptions::default())
        .limits(LimitOptions::default())
        .timeouts(TimeoutOptions::default())
        .gate(GateOptions::default())
        .admin(AdminOptions::default())
        .listener(front())
        .backend(app().health(HealthOptions::default()))
        .build()
        .expect("a configuration");
    assert_eq!(meaning(&bare), meaning(&unset));
    assert_eq!(bare.limits, crate::limits::AdmissionSettings::default());
    assert_eq!(bare.timeouts.handshake, Some(Duration::from_secs(10)));
}

/// The decoder reports the keys that it knows, for a document where each table has an unknown key.
#[test]
fn every_key_that_a_file_may_have_can_be_set() {
    const UNKNOWN: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";
    let rendered = text_of(everything());
    let mut text = format!("{UNKNOWN} = 1\n");
    for line in rendered.lines() {
        text.push_str(&format!("{line}\n"));
        if line.starts_with('[') {
            text.push_str(&format!("{UNKNOWN} = 1\n"));
        }
    }
    let error = text.parse::<Config>().expect_err("unknown keys");
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for problem in error.problems() {
        let told = problem.message.strip_prefix("unknown key `");
        if let Some((path, keys)) = told.and_then(|it| it.split_once("`; known here: ")) {
            let path = path.trim_end_matches(UNKNOWN).trim_end_matches('.');
            let keys = keys.split(", ").map(str::to_owned);
            known.entry(path.to_owned()).or_default().extend(keys);
        }
    }
    let mut settable = BTreeMap::new();
    let rendered: toml::Table = rendered.parse().expect("TOML");
    add_keys("", &rendered, &mut settable);
    assert_eq!(
        settable, known,
        "left: what the options set; right: what a file may have"
    );
    assert!(known.len() > 10, "{known:?}");
}

/// Adds the keys of each table, by the table's dotted path.
fn add_keys(path: &str, keys: &toml::Table, all: &mut BTreeMap<String, BTreeSet<String>>) {
    let own = all.entry(path.to_owned()).or_default();
    own.extend(keys.keys().cloned());
    for (key, value) in keys {
        let path = format!("{path}.{key}");
        let path = path.trim_start_matches('.');
        match value {
            toml::Value::Table(inner) => add_keys(path, inner, all),
            toml::Value::Array(elements) => {
                let inner = elements.iter().filter_map(toml::Value::as_table);
                inner.for_each(|inner| add_keys(path, inner, all));
            }
            _ => {}
        }
    }
}

#[test]
fn every_duration_is_written_exactly() {
    for duration in [
        Duration::from_nanos(1),
        Duration::new(1, 999_999_999),
        Duration::from_secs(24 * 60 * 60 - 1),
        Duration::from_secs(100 * 365 * 24 * 60 * 60),
    ] {
        let timeouts = TimeoutOptions::default().lifetime(duration).drain(None);
        let built = Config::builder()
            .timeouts(timeouts)
            .listener(front())
            .backend(app());
        let config = built.build().expect("a configuration");
        assert_eq!(config.timeouts.lifetime, Some(duration));
        assert_eq!(config.drain_timeout(), None);
    }
}

#[test]
fn a_gate_at_a_file_named_none_is_a_gate() {
    let built = |gate| {
        Config::builder()
            .gate(gate)
            .listener(front())
            .backend(app())
            .build()
    };
    let gate = |options| built(options).expect("a configuration").gate;
    assert_eq!(gate(GateOptions::none()), None);
    let path = gate(GateOptions::default().path("none"))
        .expect("a gate")
        .path;
    assert_eq!(path, PathBuf::from("./none"));
}
