//! The meaning of a configuration: every value reaches its user, and the defaults are as documented.

use std::collections::HashSet;

use super::*;
use crate::backend::Park;
use crate::backend::pool::{Balance, CheckSettings};
use crate::proxy_protocol::ProxyProtocol;
use crate::route::{Query, RouteRefusal};
use crate::tls::{Alpn, MinVersion, Tickets};

/// Every supported key, with a value other than its default.
pub(super) const EVERYTHING: &str = r#"
[runtime]
workers = 2
directory = "/run/vestibule"
log = "debug"
log_format = "json"
access_log = "connections"
max_memory = "64MiB"
relay = "stream"
core_dumps = true
heartbeat = "/run/vestibule/beat"
idle_exit = "10m"

[limits]
connections = 9
connections_per_ip = 8
connections_per_identity = 7
pending = "unlimited"
handshaking = 512
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
path = "audit.log"
rotate = "1MiB"
keep = 3

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
    assert_eq!(config.runtime.access_log, AccessLog::Connections);
    assert_eq!(config.runtime.heartbeat, Some("/run/vestibule/beat".into()));
    assert_eq!(config.runtime.idle_exit, Some(Duration::from_secs(600)));
    assert_eq!(config.runtime.directory, Some("/run/vestibule".into()));
    assert_eq!(
        (config.log(), config.log_format()),
        (Some("debug"), LogFormat::Json)
    );
    assert_eq!(
        config.limits,
        limits::AdmissionSettings {
            connections: Some(9),
            connections_per_ip: Some(8),
            connections_per_identity: Some(7),
            pending: None,
            handshaking: Some(512),
            handshakes_per_second: Some(6),
            handshakes_per_second_per_ip: Some(5),
        }
    );
    assert_eq!(config.timeouts.handshake, seconds(1));
    assert_eq!(config.timeouts.backend, seconds(2));
    assert_eq!(
        config.timeouts.relay,
        relay::InactivityTimeouts {
            idle: seconds(3),
            half_close: None,
            unacknowledged: seconds(7),
        }
    );
    assert_eq!(config.timeouts.lifetime, seconds(5 * 60));
    assert_eq!(
        (config.drain_timeout(), config.unacknowledged),
        (seconds(6), seconds(7))
    );
    assert_eq!(
        config.gate,
        Some(gate::GateSettings {
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
            authority: Some("db:5432"),
        })
    };
    let sni = Some("www.example.com");
    assert_eq!(choose("https", sni, Some("h2"), "192.0.2.1"), Ok("api"));
    for (listener, sni, alpn, peer) in [
        ("https", sni, Some("h2"), "192.0.3.1"),
        ("https", sni, None, "192.0.2.1"),
        ("https", None, Some("h2"), "192.0.2.1"),
    ] {
        assert_eq!(
            choose(listener, sni, alpn, peer),
            Err(RouteRefusal::NoRoute)
        );
    }
    assert_eq!(choose("inside", None, None, "192.0.2.1"), Ok("app"));
    assert_eq!(
        choose("inside", None, None, "198.51.100.7"),
        Err(RouteRefusal::Denied)
    );
}

/// Client addresses are converted to IPv4 in the same way.
#[test]
fn an_ipv4_mapped_network_is_that_ipv4_network() {
    let network = |text: &str| -> ipnet::IpNet { text.parse().expect("a network") };
    for (written, meant) in [
        ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
        ("::ffff:c000:201/128", "192.0.2.1/32"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("::7f00:1/104", "::7f00:1/104"),
    ] {
        let proxies =
            format!("accept_proxy_protocol = \"required\"\ntrusted_proxies = \"{written}\"\n");
        let route = format!("[[route]]\nfrom = \"{written}\"\nbackend = \"app\"\n");
        let config = parse(&format!("{LISTENER}{proxies}{BACKEND}{route}"));
        let trusted = Trusted::new(vec![network(meant)]);
        assert_eq!(config.listeners[0].proxies, Some(trusted), "{written}");
        let peer = Some(network(meant).addr());
        let query = Query {
            listener: "front",
            peer,
            ..Query::default()
        };
        assert_eq!(config.routes.choose(&query), Ok("app"), "{written}");
    }
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
        assert_eq!(limits.handshaking, Some(1_024));
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
        assert_eq!(backend.check, None);
        assert_eq!(backend.proxy_protocol, None);
        assert_eq!(config.listeners[0].proxies, None);
    }
}

#[test]
fn checks_send_and_expect_bytes() {
    let health = "health = { interval = \"2s\", send = \"PING\\r\\n\", expect = \"+PONG\\u0000\" }";
    let config = parse(&format!("{LISTENER}{BACKEND}{health}\n").replace("hello", "tcp:a:1"));
    let expected = CheckSettings {
        interval: Duration::from_secs(2),
        send: b"PING\r\n".into(),
        expect: b"+PONG\0".into(),
    };
    assert_eq!(config.backends[0].check, Some(expected));
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
