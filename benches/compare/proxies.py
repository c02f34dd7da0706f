"""The proxies: how each is configured and started.

Each one has the same task: TLS 1.2 and 1.3 on 127.0.0.1:PORT with one ECDSA P-256 certificate, a
single worker, no access log, and no limit that the work would reach. The plaintext goes to the
backend's socket. All other settings have their defaults.
"""

import os
import pathlib
from dataclasses import dataclass
from typing import Callable

# The sides with TLS: the clients, as usual; the backend, which is client mode; or both.
SERVER, CLIENT, BOTH = "server", "client", "both"
TUNNEL = "tunnel"  # as SERVER; the connections are streams of HTTP/2 in few TLS connections
ALL_SIDES = (SERVER, CLIENT, BOTH, TUNNEL)

STREAMS = 128  # at a time on one tunnel
CONNECTIONS = 19000  # for proxies that need a number as a limit; below the limit on descriptors


@dataclass(frozen=True)
class Setting:
    """The parameters of a configuration."""

    directory: pathlib.Path  # for the files of this proxy
    port: int
    backend: str  # "unix:/path" or "host:port"
    certificate: pathlib.Path
    key: pathlib.Path
    workers: int
    client_ca: pathlib.Path | None = None  # accept client certificates from this authority
    side: str = SERVER  # the sides with TLS
    hosts: tuple = ()  # files NAME.pem with a certificate and its key, besides the one above
    ca: pathlib.Path | None = None  # the authority of the backend's certificate, if it has TLS

    @property
    def to_clients(self):
        """Whether clients use TLS."""
        return self.side in (SERVER, BOTH, TUNNEL)

    @property
    def to_backend(self):
        """Whether the backend uses TLS."""
        return self.side in (CLIENT, BOTH)

    @property
    def unix(self):
        """The path of the backend's socket, or None."""
        return self.backend.removeprefix("unix:") if self.backend.startswith("unix:") else None

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return path

    def pem(self):
        """Certificate and key in one file."""
        return self.write("both.pem", self.certificate.read_text() + self.key.read_text())


@dataclass(frozen=True)
class Proxy:
    """A proxy in the comparison."""

    name: str  # on the command line and in the results
    label: str  # in tables
    program: str
    version: tuple  # the arguments that print its version
    command: Callable  # (program, Setting) -> its command line; writes the configuration
    tls: bool = True
    sides: tuple = (SERVER,)  # the sides where it supports TLS
    why: str = ""  # notes for readers about its configuration


# --- Vestibule ---------------------------------------------------------------------------------


def vestibule(relay):
    def command(program, setting):
        client_auth = f'client_auth = "optional"\nclient_ca = ["{setting.client_ca}"]' if setting.client_ca else ""
        if setting.side == TUNNEL:
            client_auth = f'client_auth = "required"\nclient_ca = ["{setting.ca}"]\n[listener.tunnel]\nstreams = {STREAMS}'
        pairs = [(setting.certificate, setting.key), *((path, path) for path in setting.hosts)]
        certificates = ", ".join(f'{{ chain = "{chain}", key = "{key}" }}' for chain, key in pairs)
        listener = f"""\
[listener.tls]
certificates = [ {certificates} ]
{client_auth}
""" if setting.to_clients else ""
        backend = f"""\
[backend.tls]
server_name = "localhost"
ca = "{setting.ca}"
""" if setting.to_backend else ""
        path = setting.write("vestibule.toml", f"""\
[runtime]
workers = {setting.workers}
relay = "{relay}"
log = "warn"
[limits]
connections = "unlimited"
connections_per_ip = "unlimited"
connections_per_identity = "unlimited"
pending = "unlimited"
handshaking = "unlimited"
[gate]
path = "none"
[[listener]]
name = "compared"
address = "tcp:127.0.0.1:{setting.port}"
{listener}
[[backend]]
name = "load"
to = ["{setting.backend if setting.unix else 'tcp:' + setting.backend}"]
{backend}
""")
        return [program, "run", "-c", path]

    return command


# --- Peers -------------------------------------------------------------------------------------


def haproxy(tls):
    def command(program, setting):
        bind = f"bind 127.0.0.1:{setting.port}" + (f" ssl crt {setting.pem()}" if tls and setting.to_clients else "")
        bind += f" ca-file {setting.client_ca} verify optional" if setting.client_ca else ""
        bind += f" crt {setting.hosts[0].parent}" if setting.hosts else ""
        address = f"unix@{setting.unix}" if setting.unix else setting.backend
        if setting.to_backend:
            address += f" ssl verify required ca-file {setting.ca} sni str(localhost) verifyhost localhost"
        path = setting.write("haproxy.cfg", f"""\
global
    nbthread {setting.workers}
    maxconn {CONNECTIONS // 2}
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend compared
    {bind}
    default_backend load
backend load
    server load {address}
""")
        return [program, "-db", "-f", path]

    return command


def nginx(program, setting):
    address = f"unix:{setting.unix}" if setting.unix else setting.backend
    client_auth = ""
    if setting.client_ca:
        client_auth = f"ssl_client_certificate {setting.client_ca}; ssl_verify_client optional; ssl_verify_depth 10;"
    # Its stream module has no servers by name.
    by_name = f"{setting.hosts[0].parent}/$ssl_server_name.pem" if setting.hosts else None
    path = setting.write("nginx.conf", f"""\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user {"root" if os.geteuid() == 0 else "nobody"};
worker_processes {setting.workers};
worker_rlimit_nofile {CONNECTIONS};
pid {setting.directory}/nginx.pid;
error_log {setting.directory}/error.log crit;
events {{
    worker_connections {CONNECTIONS};
}}
stream {{
    server {{
        listen 127.0.0.1:{setting.port} ssl;
        ssl_certificate {by_name or setting.certificate};
        ssl_certificate_key {by_name or setting.key};
        ssl_protocols TLSv1.2 TLSv1.3;
        {client_auth}
        proxy_timeout 1h;
        proxy_pass {address};
    }}
}}
""")
    return [program, "-p", setting.directory, "-c", path, "-e", setting.directory / "error.log"]


def hitch(program, setting):
    # Its workers refuse to run as root.
    user = 'user = "nobody"' if os.geteuid() == 0 else ""
    address = setting.unix or "[{}]:{}".format(*setting.backend.rsplit(":", 1))
    path = setting.write("hitch.conf", f"""\
frontend = {{
    host = "127.0.0.1"
    port = "{setting.port}"
}}
backend = "{address}"
pem-file = "{setting.pem()}"
tls-protos = TLSv1.2 TLSv1.3
workers = {setting.workers}
daemon = off
log-level = 0
{user}
""")
    return [program, f"--config={path}"]


def stunnel(program, setting):
    path = setting.write("stunnel.conf", f"""\
foreground = yes
syslog = no
debug = err
pid =
[compared]
accept = 127.0.0.1:{setting.port}
connect = {setting.unix or setting.backend}
cert = {setting.certificate}
key = {setting.key}
sslVersionMin = TLSv1.2
TIMEOUTidle = 3600
""")
    return [program, path]


def envoy(program, setting):
    if setting.unix:
        address = f"pipe: {{ path: {setting.unix} }}"
    else:
        host, port = setting.backend.rsplit(":", 1)
        address = f"socket_address: {{ address: {host}, port_value: {port} }}"
    extensions = "type.googleapis.com/envoy.extensions"
    verified = f"""\
            validation_context: {{ trusted_ca: {{ filename: {setting.ca} }} }}
            alpn_protocols: [ h2 ]
""" if setting.side == TUNNEL else ""
    pairs = [(setting.certificate, setting.key), *((path, path) for path in setting.hosts)]
    shown = "\n".join(f"            - {{ certificate_chain: {{ filename: {chain} }}, private_key: {{ filename: {key} }} }}" for chain, key in pairs)
    to_clients = f"""\
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": {extensions}.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: {"true" if setting.side == TUNNEL else "false"}
          common_tls_context:
            tls_certificates:
{shown}
{verified}""" if setting.to_clients else ""
    to_backend = f"""\
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": {extensions}.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context:
          tls_params: {{ tls_maximum_protocol_version: TLSv1_3 }}
          validation_context:
            trusted_ca: {{ filename: {setting.ca} }}
            match_typed_subject_alt_names:
            - {{ san_type: DNS, matcher: {{ exact: localhost }} }}
""" if setting.to_backend else ""
    relay = f"""\
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": {extensions}.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: compared
          cluster: load
""" if setting.side != TUNNEL else f"""\
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: compared
          codec_type: HTTP2
          http2_protocol_options: {{ allow_connect: true, max_concurrent_streams: {STREAMS} }}
          stream_idle_timeout: 0s
          upgrade_configs: [ {{ upgrade_type: CONNECT }} ]
          route_config:
            virtual_hosts:
            - name: load
              domains: ["*"]
              routes:
              - match: {{ connect_matcher: {{}} }}
                route: {{ cluster: load, timeout: 0s, upgrade_configs: [ {{ upgrade_type: CONNECT, connect_config: {{}} }} ] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": {extensions}.filters.http.router.v3.Router
              suppress_envoy_headers: true
"""
    path = setting.write("envoy.yaml", f"""\
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {setting.port} }} }}
    filter_chains:
    - filters:
{relay}{to_clients}  clusters:
  - name: load
    type: STATIC
{to_backend}    circuit_breakers:
      thresholds: [ {{ max_connections: 1000000, max_pending_requests: 1000000, max_requests: 1000000 }} ]
    load_assignment:
      cluster_name: load
      endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ {address} }} }} }} ] }} ]
""")
    return [program, "-c", path, "--concurrency", str(setting.workers), "--disable-hot-restart", "-l", "error"]


def catalogue(vestibule_program, envoy_program):
    """All of them, in the order of the tables."""
    return [
        Proxy("vestibule", "Vestibule", vestibule_program, ("--version",), vestibule("auto"),
              sides=ALL_SIDES, why="defaults"),
        Proxy("vestibule-stream", 'Vestibule, relay = "stream"', vestibule_program, ("--version",), vestibule("stream"),
              sides=ALL_SIDES, why="without the record relay"),
        Proxy("haproxy", "HAProxy", "haproxy", ("-v",), haproxy(tls=True), sides=(SERVER, CLIENT, BOTH),
              why="mode tcp, default buffers"),
        Proxy("nginx", "nginx stream", "nginx", ("-v",), nginx, why="default buffers"),
        Proxy("envoy", "Envoy", envoy_program, ("--version",), envoy, sides=ALL_SIDES,
              why="tcp_proxy, circuit breaker raised"),
        Proxy("hitch", "hitch", "hitch", ("--version",), hitch, why="defaults"),
        Proxy("stunnel", "stunnel", "stunnel", ("-version",), stunnel, why="defaults, a thread for each connection"),
        Proxy("haproxy-plain", "HAProxy without TLS", "haproxy", ("-v",), haproxy(tls=False), tls=False,
              why="the same relay with no TLS on either side"),
    ]
