//! Every key, in a file and set by the options.

use std::time::Duration;

use super::*;

pub(super) const EVERYTHING: &str = r#"
[runtime]
workers = 2
directory = "/run/vestibule"
log = "debug"
log_format = "json"
access_log = "connections"
relay = "stream"
core_dumps = true
max_memory = "67108864B"
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
unacknowledged = "7ms"

[gate]
path = "workers.sock"
allow_uids = [33]
allow_gids = [34, 35]
max_clients = 36

[admin]
address = "unix:control.sock"
allow_writes_over_tcp = true

[audit]
path = "/var/log/vestibule/audit.log"
rotate = "9B"
keep = 8

[[listener]]
name = "https"
address = "tcp:[::1]:8443"
accept_proxy_protocol = "required"
trusted_proxies = ["10.0.0.0/8", "192.0.2.1"]
[listener.tls]
certificates = [
    { chain = "a.pem", key = "a-key.pem", ocsp = "a.der" },
    { chain = "b.pem", key = "b-key.pem" },
]
ocsp = "staple.der"
unknown_sni = "refuse"
client_auth = "optional"
client_ca = ["ca.pem", "other.pem"]
crl = ["crl.pem"]
alpn = ["h2", "http/1.1"]
min_version = "1.3"
tickets = { secret_file = "secret" }
[listener.tunnel]
alpn = "hbone"
streams = 7
workers = true

[[listener]]
name = "inside"
address = "unix:/run/inside.sock"
mode = "0060"
owner = "www-data"
group = 33

[[route]]
listener = ["https"]
sni = ["api.example.com", "*.example.com"]
alpn = ["h2"]
from = ["192.0.2.0/24"]
identity = ["cn:alice"]
authority = ["db:5432", "*.svc.example:*"]
backend = "api"

[[route]]
deny = true

[[backend]]
name = "api"
to = ["unix:/run/api.sock", "tcp:127.0.0.1:9000"]
balance = "source"
proxy_protocol = "v2"
park = false
health = { interval = "3s", send = "PING\r\n", expect = "+PONG", fall = 5, rise = 4 }
[backend.tls]
server_name = "api.internal"
ca = ["api-ca.pem"]
certificate = { chain = "client.pem", key = "client-key.pem" }
alpn = ["http/1.1"]
allow = ["ou:ops"]
[backend.tunnel]
authority = "db:5432"
connections = 3
streams = 8

[[backend]]
name = "app"
to = "gate"
workers = ["cn:worker", "ou:ops"]

[[join]]
front = ["tcp:front.example:8443", "tcp:10.0.0.2:8443"]
backend = "app"
to = ["unix:/run/app.sock"]
offers = 9
[join.tls]
server_name = "front.internal"
ca = ["front-ca.pem"]
certificate = { chain = "worker.pem", key = "worker-key.pem" }
alpn = ["hbone"]
allow = ["ou:edge"]
"#;

pub(super) fn everything() -> ConfigBuilder {
    Config::builder()
        .runtime(runtime())
        .limits(limits())
        .timeouts(timeouts())
        .gate(gate())
        .admin(
            AdminOptions::default()
                .unix("control.sock")
                .allow_writes_over_tcp(true),
        )
        .audit(
            AuditOptions::new("/var/log/vestibule/audit.log")
                .rotate(9)
                .keep(8),
        )
        .listener(
            ListenerOptions::new("https", address("[::1]:8443"))
                .accept_proxy_protocol(AcceptProxyProtocol::Required)
                .trusted_proxies(["10.0.0.0/8", "192.0.2.1"])
                .tls(listener_tls())
                .tunnel(tunnel()),
        )
        .listener(
            ListenerOptions::new("inside", address("unix:/run/inside.sock"))
                .mode(0o60)
                .owner("www-data")
                .group(33),
        )
        .route(
            RouteOptions::to("api")
                .listener(["https"])
                .sni(["api.example.com", "*.example.com"])
                .alpn(["h2"])
                .from(["192.0.2.0/24"])
                .identity(["cn:alice"])
                .authority(["db:5432", "*.svc.example:*"]),
        )
        .route(RouteOptions::deny())
        .backend(api())
        .backend(app().workers(["cn:worker", "ou:ops"]))
        .join(join())
}

fn tunnel() -> TunnelOptions {
    TunnelOptions::default()
        .alpn("hbone")
        .streams(7)
        .workers(true)
}

fn join() -> JoinOptions {
    let fronts = [address("front.example:8443"), address("10.0.0.2:8443")];
    let certificate = || CertificateOptions::from_files("worker.pem", "worker-key.pem");
    let to = [address("unix:/run/app.sock")];
    JoinOptions::new("app", fronts, to, certificate())
        .offers(9)
        .tls(
            BackendTlsOptions::default()
                .server_name("front.internal")
                .ca([DataSource::file("front-ca.pem")])
                .certificate(certificate())
                .alpn(["hbone"])
                .allow(["ou:edge"]),
        )
}

fn runtime() -> RuntimeOptions {
    RuntimeOptions::default()
        .workers(2)
        .directory("/run/vestibule")
        .log("debug")
        .log_format(LogFormat::Json)
        .access_log(AccessLog::Connections)
        .relay(RelayMode::Stream)
        .core_dumps(true)
        .max_memory(64 << 20)
        .heartbeat("/run/vestibule/beat")
        .idle_exit(Duration::from_secs(600))
}

fn limits() -> LimitOptions {
    LimitOptions::default()
        .connections(9)
        .connections_per_ip(8)
        .connections_per_identity(7)
        .pending(None)
        .handshaking(512)
        .handshakes_per_second(6)
        .handshakes_per_second_per_ip(5)
}

fn timeouts() -> TimeoutOptions {
    TimeoutOptions::default()
        .handshake(Duration::from_secs(1))
        .backend(Duration::from_secs(2))
        .idle(Duration::from_secs(3))
        .half_close(None)
        .lifetime(Duration::from_secs(5 * 60))
        .drain(Duration::from_secs(6))
        .unacknowledged(Duration::from_millis(7))
}

fn gate() -> GateOptions {
    GateOptions::default()
        .path("workers.sock")
        .allow_uids([33])
        .allow_gids([34, 35])
        .max_clients(36)
}

fn listener_tls() -> ListenerTlsOptions {
    let first = CertificateOptions::from_files("a.pem", "a-key.pem");
    ListenerTlsOptions::new(first.ocsp(DataSource::file("a.der")))
        .certificate(CertificateOptions::from_files("b.pem", "b-key.pem"))
        .ocsp(DataSource::file("staple.der"))
        .unknown_sni(UnknownSni::Refuse)
        .client_auth(ClientAuthMode::Optional)
        .client_ca(["ca.pem", "other.pem"].map(DataSource::file))
        .crl([DataSource::file("crl.pem")])
        .alpn(["h2", "http/1.1"])
        .min_version(MinVersion::Tls13)
        .tickets(SessionTickets::Secret(DataSource::file("secret")))
}

fn api() -> BackendOptions {
    let to = [address("unix:/run/api.sock"), address("127.0.0.1:9000")];
    BackendOptions::new("api", to)
        .balance(Balance::Source)
        .proxy_protocol(ProxyProtocol::V2)
        .park(false)
        .health(
            HealthOptions::default()
                .interval(Duration::from_secs(3))
                .send("PING\r\n")
                .expect("+PONG")
                .fall(5)
                .rise(4),
        )
        .tls(
            BackendTlsOptions::default()
                .server_name("api.internal")
                .ca([DataSource::file("api-ca.pem")])
                .certificate(CertificateOptions::from_files(
                    "client.pem",
                    "client-key.pem",
                ))
                .alpn(["http/1.1"])
                .allow(["ou:ops"]),
        )
        .tunnel(
            BackendTunnelOptions::new("db:5432")
                .connections(3)
                .streams(8),
        )
}

/// The words that the document above does not contain.
#[test]
fn each_variant_of_a_listener_option_writes_its_word() {
    let tls = |tls: ListenerTlsOptions| front().tls(tls);
    let words = [
        (
            tls(secure().unknown_sni(UnknownSni::First)),
            "unknown_sni",
            "first",
        ),
        (
            tls(secure().client_auth(ClientAuthMode::None)),
            "client_auth",
            "none",
        ),
        (
            tls(secure().client_auth(ClientAuthMode::Required)),
            "client_auth",
            "required",
        ),
        (
            tls(secure().min_version(MinVersion::Tls12)),
            "min_version",
            "1.2",
        ),
        (
            tls(secure().tickets(SessionTickets::Rotate)),
            "tickets",
            "rotate",
        ),
        (
            tls(secure().tickets(SessionTickets::None)),
            "tickets",
            "none",
        ),
        (
            front().accept_proxy_protocol(AcceptProxyProtocol::None),
            "accept_proxy_protocol",
            "none",
        ),
    ];
    for (listener, key, word) in words {
        let text = text_of(Config::builder().listener(listener).backend(app()));
        assert!(text.contains(&format!("{key} = \"{word}\"\n")), "{text}");
    }
}

#[test]
fn each_variant_of_a_backend_option_writes_its_word() {
    let hello = || BackendOptions::new("app", BackendTarget::Hello);
    let words = [
        (hello(), "to", "hello"),
        (
            BackendOptions::new("app", BackendTarget::Echo),
            "to",
            "echo",
        ),
        (
            hello().balance(Balance::LeastConnections),
            "balance",
            "least_connections",
        ),
        (
            hello().balance(Balance::RoundRobin),
            "balance",
            "round_robin",
        ),
        (hello().proxy_protocol(None), "proxy_protocol", "none"),
        (
            app().proxy_protocol(ProxyProtocol::V1),
            "proxy_protocol",
            "v1",
        ),
    ];
    for (backend, key, word) in words {
        let builder = Config::builder().listener(front()).backend(backend);
        builder.clone().build().expect("a configuration");
        let text = text_of(builder);
        assert!(text.contains(&format!("{key} = \"{word}\"\n")), "{text}");
    }
}

#[test]
fn each_variant_of_a_runtime_option_writes_its_word() {
    let runtime = RuntimeOptions::default()
        .log_format(LogFormat::Text)
        .access_log(AccessLog::Failures)
        .relay(RelayMode::Auto);
    let text = text_of(Config::builder().runtime(runtime));
    assert!(
        text.contains("access_log = \"failures\"\nlog_format = \"text\"\nrelay = \"auto\"\n"),
        "{text}"
    );
}
