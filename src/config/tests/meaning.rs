//! What a configuration means: every value arrives where it is used, and the defaults are those of
//! the contract.

use std::collections::HashSet;
use std::time::SystemTime;

use super::*;
use crate::identity::Identity;
use crate::proxy_protocol::ProxyProtocol;
use crate::route::{Query, Refusal};
use crate::tls::client_auth::Demand;
use crate::tls::{Alpn, MinVersion, Tickets};

/// Every key that is built, with another value than its default.
pub(super) const EVERYTHING: &str = r#"
[runtime]
workers = 2
directory = "/run/vestibule"
log = "debug"
log_format = "json"
max_memory = "none"
relay = "stream"

[limits]
connections = 9
connections_per_ip = 8
connections_per_identity = 7
pending = "unlimited"
handshakes_per_second = 6
handshakes_per_second_per_ip = 5

[timeouts]
handshake = "1s"
backend = "2s"
idle = "3s"
half_close = "unlimited"
lifetime = "5m"
drain = "6s"
unacknowledged = "7s"

[gate]
path = "workers.sock"
allow_uids = [33]
allow_gids = [34, 35]
max_clients = 36

[admin]
address = "none"
allow_writes_over_tcp = false

[audit]
path = "none"
rotate = "64MiB"
keep = 10

[[listener]]
name = "https"
address = "tcp:0.0.0.0:8443"
accept_proxy_protocol = "required"
trusted_proxies = ["10.0.0.0/8", "192.0.2.1"]
[listener.tls]
certificates = [ { chain = "certs/server.pem", key = "certs/server-key.pem" } ]
unknown_sni = "first"
client_auth = "none"
alpn = ["http/1.1"]
min_version = "1.3"
tickets = "none"

[[listener]]
name = "inside"
address = "unix:/run/inside.sock"

[[route]]
listener = ["https"]
sni = ["api.example.com", "*.example.com"]
alpn = ["h2"]
from = ["192.0.2.0/24"]
backend = "api"

[[route]]
from = "198.51.100.7"
deny = true

[[route]]
listener = "inside"
backend = "app"

[[backend]]
name = "api"
to = ["unix:/run/api.sock", "tcp:127.0.0.1:9000"]
balance = "round_robin"
proxy_protocol = "v2"
park = false
health = { interval = "none", fall = 5, rise = 4 }

[[backend]]
name = "app"
to = "gate"
"#;

const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn every_value_arrives() {
    let config = parse(EVERYTHING);
    assert_eq!(config.runtime.workers, Some(2));
    assert_eq!(config.runtime.directory, Some("/run/vestibule".into()));
    assert_eq!(
        (config.log(), config.log_format()),
        (Some("debug"), LogFormat::Json)
    );
    assert_eq!(
        config.limits,
        limits::Settings {
            connections: Some(9),
            connections_per_ip: Some(8),
            connections_per_identity: Some(7),
            pending: None,
            handshakes_per_second: Some(6),
            handshakes_per_second_per_ip: Some(5),
        }
    );
    assert_eq!(config.timeouts.handshake, seconds(1));
    assert_eq!(config.timeouts.backend, seconds(2));
    assert_eq!(
        config.timeouts.relay,
        relay::Settings {
            idle: seconds(3),
            half_close: None,
        }
    );
    assert_eq!(config.timeouts.lifetime, seconds(5 * 60));
    assert_eq!(
        (config.drain_timeout(), config.unacknowledged),
        (seconds(6), seconds(7))
    );
    assert_eq!(
        config.gate,
        Some(gate::Settings {
            path: "workers.sock".into(),
            allow_uids: HashSet::from([33]),
            allow_gids: HashSet::from([34, 35]),
            max_clients: Some(36),
        })
    );
}

#[test]
fn every_listener_and_backend_arrives() {
    let config = parse(EVERYTHING);
    let [https, inside] = &config.listeners[..] else {
        panic!("two listeners");
    };
    assert_eq!(
        (&*https.name, https.address.to_string()),
        ("https", "tcp:0.0.0.0:8443".into())
    );
    let tls = https.tls.as_ref().expect("TLS");
    assert_eq!(tls.alpn, Alpn::Offered(vec!["http/1.1".into()]));
    assert_eq!(tls.min_version, MinVersion::Tls13);
    assert!(matches!(tls.tickets, Tickets::None));
    assert_eq!(inside.address, Address::Unix("/run/inside.sock".into()));
    assert!(inside.tls.is_none());
    let networks = ["10.0.0.0/8", "192.0.2.1/32"].map(|text| text.parse().expect("a network"));
    let proxies = Some(Trusted::new(networks.to_vec()));
    assert_eq!((&https.proxies, &inside.proxies), (&proxies, &None));

    let [api, app] = &config.backends[..] else {
        panic!("two backends");
    };
    let tcp = "tcp:127.0.0.1:9000".parse().expect("an address");
    let to = To::Dialled(vec![Address::Unix("/run/api.sock".into()), tcp]);
    assert_eq!((&*api.name, &api.to), ("api", &to));
    assert_eq!((api.balance, api.park), (Balance::RoundRobin, Park::Refuse));
    assert_eq!(api.health, Health { fall: 5, rise: 4 });
    assert_eq!((&*app.name, &app.to), ("app", &To::Gate));
    assert_eq!(
        (api.proxy_protocol, app.proxy_protocol),
        (Some(ProxyProtocol::V2), None)
    );
}

#[test]
fn every_route_arrives() {
    let config = parse(EVERYTHING);
    let choose = |listener, sni, alpn, peer: &str| {
        let peer = Some(peer.parse().expect("an IP address"));
        config.routes.choose(&Query {
            listener,
            sni,
            alpn,
            peer,
            identity: None,
        })
    };
    let sni = Some("www.example.com");
    assert_eq!(choose("https", sni, Some("h2"), "192.0.2.1"), Ok("api"));
    for (listener, sni, alpn, peer) in [
        ("https", sni, Some("h2"), "192.0.3.1"),
        ("https", sni, None, "192.0.2.1"),
        ("https", None, Some("h2"), "192.0.2.1"),
    ] {
        assert_eq!(choose(listener, sni, alpn, peer), Err(Refusal::NoRoute));
    }
    assert_eq!(choose("inside", None, None, "192.0.2.1"), Ok("app"));
    assert_eq!(
        choose("inside", None, None, "198.51.100.7"),
        Err(Refusal::Denied)
    );
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let tls = "[listener.tls]\n\
               certificates = [ { chain = \"certs/server.pem\", key = \"certs/server-key.pem\" } ]";
    let bare = parse(&format!("{LISTENER}{tls}\n{BACKEND}"));
    let empty = "[runtime]\n[limits]\n[timeouts]\n[gate]\n[admin]\n[audit]\n";
    let empty = parse(&format!("{empty}{LISTENER}{tls}\n{BACKEND}health = {{}}\n"));
    for config in [bare, empty] {
        assert_eq!(
            (config.runtime.workers, &config.runtime.directory),
            (None, &None)
        );
        assert_eq!((config.log(), config.log_format()), (None, LogFormat::Text));
        let limits = config.limits;
        assert_eq!(limits.connections, Some(10_000));
        assert_eq!(limits.connections_per_ip, Some(1_000));
        assert_eq!(limits.pending, Some(1_024));
        assert_eq!(config.timeouts.handshake, seconds(10));
        assert_eq!(config.timeouts.backend, seconds(5));
        assert_eq!(config.timeouts.relay.idle, seconds(60 * 60));
        assert_eq!(config.timeouts.relay.half_close, seconds(60));
        assert_eq!(config.timeouts.lifetime, None);
        assert_eq!(
            (config.drain, config.unacknowledged),
            (seconds(30), seconds(30))
        );
        let gate = config.gate.expect("a gate");
        assert_eq!(
            (&*gate.path, gate.max_clients),
            (Path::new("gate.sock"), Some(1024))
        );
        assert!(gate.allow_uids.is_empty() && gate.allow_gids.is_empty());
        let tls = config.listeners[0].tls.as_ref().expect("TLS");
        assert_eq!(tls.alpn, Alpn::OfRoutes(Vec::new()));
        assert_eq!(tls.min_version, MinVersion::Tls12);
        assert!(matches!(tls.tickets, Tickets::Rotate));
        let backend = &config.backends[0];
        assert_eq!(
            (backend.balance, backend.park),
            (Balance::LeastConnections, Park::Hold)
        );
        assert_eq!(backend.health, Health { fall: 3, rise: 2 });
        assert_eq!(backend.proxy_protocol, None);
        assert_eq!(config.listeners[0].proxies, None);
    }
}

#[test]
fn without_routes_everything_goes_to_the_one_backend() {
    let config = parse(&with(""));
    let query = Query {
        listener: "front",
        ..Query::default()
    };
    assert_eq!(config.routes.choose(&query), Ok("app"));
}

#[test]
fn without_protocols_of_its_own_a_listener_offers_those_of_its_routes() {
    let text = EVERYTHING.replace("alpn = [\"http/1.1\"]", "alpn = []");
    let tls = parse(&text).listeners.remove(0).tls.expect("TLS");
    assert_eq!(tls.alpn, Alpn::OfRoutes(vec!["h2".into()]));
}

#[test]
fn off_is_off() {
    for off in ["unlimited", "none"] {
        let part = format!(
            "[limits]\nconnections = \"{off}\"\nconnections_per_ip = \"{off}\"\n\
             [timeouts]\nhandshake = \"{off}\"\nbackend = \"{off}\"\nidle = \"{off}\"\n\
             drain = \"{off}\"\nunacknowledged = \"{off}\"\n[gate]\nmax_clients = \"{off}\"\n"
        );
        let config = parse(&with(&part));
        assert_eq!(config.limits.connections, None);
        assert_eq!(config.limits.connections_per_ip, None);
        assert_eq!(
            (config.timeouts.handshake, config.timeouts.backend),
            (None, None)
        );
        assert_eq!((config.timeouts.relay.idle, config.drain), (None, None));
        assert_eq!(config.unacknowledged, None);
        assert_eq!(config.gate.expect("a gate").max_clients, None);
    }
    assert!(parse(&with("[gate]\npath = \"none\"")).gate.is_none());
}

#[test]
fn without_a_gate_a_claimed_backend_is_left_to_the_program() {
    let gateless = with("[gate]\npath = \"none\"").replace("tcp:127.0.0.1:9000", "gate");
    let config = parse(&gateless);
    assert_eq!((config.gate, &config.backends[0].to), (None, &To::Gate));
}

#[test]
fn the_demo_is_on_this_machine_and_says_hello() {
    let demo = Config::demo();
    assert!(demo.listeners[0].address.is_local());
    assert!(demo.listeners[0].tls.is_some());
    assert_eq!(demo.backends[0].to, To::Hello);
    assert!(demo.gate.is_none());
}

#[test]
fn a_sidecar_is_one_listener_and_one_backend() {
    let sidecar = |to: &str, gate: Option<&str>| Sidecar {
        listen: "127.0.0.1:0".parse().expect("an address"),
        certificate: Some(("certs/server.pem".into(), "certs/server-key.pem".into())),
        client_ca: None,
        allow: Vec::new(),
        to: to.into(),
        proxy_protocol: None,
        gate: gate.map(PathBuf::from),
        backend_ca: to.starts_with("tls:").then(|| "certs/ca.pem".into()),
        backend_certificate: None,
    };
    for (to, gate, expected) in [
        ("tcp:127.0.0.1:9000", None, None),
        ("gate", None, Some("gate.sock")),
        ("gate", Some("/run/g"), Some("/run/g")),
        ("hello", Some("g"), Some("g")),
        ("tls:localhost:9000", None, None),
    ] {
        let config = Config::sidecar(&sidecar(to, gate)).expect("a configuration");
        let gate = config.gate.map(|gate| gate.path);
        assert_eq!(gate, expected.map(PathBuf::from), "{to}");
        let query = Query::default();
        assert_eq!(config.routes.choose(&query), Ok("default"));
        assert_eq!(config.backends[0].tls.is_some(), to.starts_with("tls:"));
    }

    let wrong = |sidecar: Sidecar| {
        Config::sidecar(&sidecar)
            .expect_err("a problem")
            .to_string()
    };
    assert_eq!(
        wrong(sidecar("9000", None)),
        "backend \"9000\": an address needs a port, as in `127.0.0.1:8443`, or is `unix:/path`; or \
         one of the words gate, hello, echo"
    );
    let greeted = |to: &str| Sidecar {
        proxy_protocol: Some(ProxyProtocol::V1),
        ..sidecar(to, None)
    };
    for to in ["tcp:127.0.0.1:9000", "gate"] {
        let config = Config::sidecar(&greeted(to)).expect("a configuration");
        assert_eq!(config.backends[0].proxy_protocol, Some(ProxyProtocol::V1));
    }
    assert_eq!(
        wrong(greeted("hello")),
        "backend \"hello\": hello and echo are built in and read no PROXY protocol header"
    );
    let files = Some(("certs/server.pem".into(), "certs/client-key.pem".into()));
    let message = wrong(Sidecar {
        certificate: files,
        ..sidecar("echo", None)
    });
    assert!(
        message.starts_with("certs/client-key.pem: the private key does not belong"),
        "{message}"
    );
    for (to, why) in [
        ("tls:9000", "an address needs a port"),
        ("tls:echo", "`tls:` is for a host and port"),
        ("tls:gate", "`tls:` is for a host and port"),
        (
            "tls:unix:/run/app.sock",
            "the host is a name or an IP address",
        ),
    ] {
        let message = wrong(sidecar(to, None));
        assert!(message.contains(why), "{message}");
    }
    let message = wrong(Sidecar {
        backend_ca: Some("certs/ca-key.pem".into()),
        ..sidecar("tls:localhost:9000", None)
    });
    assert!(
        message.starts_with("certs/ca-key.pem: there is no certificate"),
        "{message}"
    );
    let message = wrong(Sidecar {
        backend_ca: Some("certs/ca.pem".into()),
        ..sidecar("localhost:9000", None)
    });
    assert!(message.contains("tls:HOST:PORT"), "{message}");
}

/// `--client-ca` and `--allow`.
#[test]
fn the_short_form_says_whom_to_let_in() {
    let sidecar = |ca: Option<&str>, allow: &[&str], to: &str| Sidecar {
        listen: "127.0.0.1:0".parse().expect("an address"),
        certificate: Some(("certs/server.pem".into(), "certs/server-key.pem".into())),
        client_ca: ca.map(PathBuf::from),
        allow: allow.iter().map(|rule| (*rule).to_owned()).collect(),
        to: to.into(),
        proxy_protocol: None,
        backend_ca: to.starts_with("tls:").then(|| "certs/ca.pem".into()),
        backend_certificate: None,
        gate: None,
    };
    let ca = Some("certs/ca.pem");
    let config = Config::sidecar(&sidecar(ca, &["cn:alice", "ou:ops"], "echo"));
    let config = config.expect("a configuration");
    let tls = config.listeners[0].tls.as_ref().expect("TLS");
    let demand = tls.client_auth.as_ref().map(|it| it.demand());
    assert_eq!(demand, Some(Demand::Required));
    let choose = |cn: &str| {
        let identity = Identity {
            cn: Some(cn.into()),
            ..Identity::default()
        };
        let query = Query {
            identity: Some(&identity),
            ..Query::default()
        };
        config.routes.choose(&query).map(str::to_owned)
    };
    assert_eq!(choose("alice"), Ok("default".into()));
    assert_eq!(choose("bob"), Err(Refusal::NoRoute));

    // Without TLS of ours the rules are about the server.
    let client_mode = Sidecar {
        certificate: None,
        ..sidecar(None, &["dns:localhost"], "tls:localhost:9000")
    };
    let config = Config::sidecar(&client_mode).expect("a configuration");
    let towards = config.backends[0].tls.as_ref().expect("TLS");
    assert_eq!(towards.allow, ["dns:localhost".parse().expect("a rule")]);

    for (wrong, message) in [
        (
            sidecar(None, &["cn:alice"], "echo"),
            "rules about whom to allow need the CA of the clients, or a backend as `tls:HOST:PORT`",
        ),
        (
            sidecar(ca, &["alice"], "echo"),
            "rule \"alice\": an identity rule starts with `uri:`, `dns:`, `cn:`, `ou:` or `sha256:`",
        ),
        (
            sidecar(Some("certs/server-key.pem"), &[], "echo"),
            "certs/server-key.pem: there is no certificate in it",
        ),
        (
            Sidecar {
                certificate: None,
                ..sidecar(ca, &[], "tls:localhost:9000")
            },
            "a CA for clients is for a listener with a certificate and key of its own",
        ),
    ] {
        let error = Config::sidecar(&wrong).expect_err("wrong").to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// As with a file, and for what is shown to a backend too.
#[test]
fn the_short_form_says_when_a_certificate_expires() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, from: SystemTime, until: SystemTime| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        (params.not_before, params.not_after) = (from.into(), until.into());
        let certificate = params.self_signed(&key).expect("a certificate");
        let path = |suffix: &str| directory.path().join(format!("{name}{suffix}.pem"));
        fs::write(path(""), certificate.pem()).expect("a file");
        fs::write(path("-key"), key.serialize_pem()).expect("a file");
        (path(""), path("-key"))
    };
    let now = SystemTime::now();
    let good = write("good", now - DAY, now + 90 * DAY);
    let sidecar = |certificate: &(PathBuf, PathBuf), backend_certificate: &(PathBuf, PathBuf)| {
        let sidecar = Sidecar {
            listen: "127.0.0.1:0".parse().expect("an address"),
            certificate: Some(certificate.clone()),
            client_ca: None,
            allow: Vec::new(),
            to: "tls:localhost:9000".into(),
            proxy_protocol: None,
            backend_ca: Some("certs/ca.pem".into()),
            backend_certificate: Some(backend_certificate.clone()),
            gate: None,
        };
        let config = Config::sidecar(&sidecar).expect("a configuration");
        let said = |problems: &[Problem]| -> Vec<String> {
            problems.iter().map(|it| it.message.clone()).collect()
        };
        (said(config.warnings()), said(config.expired()))
    };
    assert_eq!(sidecar(&good, &good), (Vec::new(), Vec::new()));
    for (name, from, until, warns, expires) in [
        (
            "soon",
            now - DAY,
            now + 10 * DAY,
            "the certificate expires on ",
            "",
        ),
        (
            "late",
            now - 9 * DAY,
            now - DAY,
            "",
            "the certificate expired on ",
        ),
        (
            "early",
            now + DAY,
            now + 9 * DAY,
            "",
            "the certificate is not valid before ",
        ),
    ] {
        let odd = write(name, from, until);
        for (warnings, expired) in [sidecar(&odd, &good), sidecar(&good, &odd)] {
            for (said, expected) in [(warnings, warns), (expired, expires)] {
                let starts = format!("{}: {expected}", odd.0.display());
                let is_it = |line: &String| line.starts_with(&starts);
                assert_eq!(said.len(), usize::from(!expected.is_empty()), "{said:?}");
                assert!(said.iter().all(is_it), "{said:?}");
            }
        }
    }
}
