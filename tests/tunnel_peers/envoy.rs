//! Envoy, with a listener of `tcp_proxy` for each authority.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use super::Doors;
use crate::common::process::{Process, output, python_tool, tool};

/// An Envoy that carries what comes to its ports in a tunnel to `port`, with the certificate of alice.
pub(super) async fn client(directory: &Path, port: u16, authorities: &[&str]) -> (Process, Doors) {
    let listeners: Vec<Value> = authorities.iter().map(|it| tunnelling(it)).collect();
    let clusters = json!([{
        "name": "vestibule",
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": endpoint("vestibule", port),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": type_url("upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": type_url("transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": "localhost",
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_certificates": [certificate(directory, "alice")],
                    "validation_context": {
                        "trusted_ca": file(directory, "ca.pem"),
                        "match_typed_subject_alt_names":
                            [{ "san_type": "DNS", "matcher": { "exact": "localhost" } }],
                    },
                },
            },
        },
    }]);
    let process = start(directory, &json!(listeners), &clusters).await;
    let doors = doors(directory).await;
    (process, doors)
}

fn tunnelling(authority: &str) -> Value {
    let ended = format!("ended {authority} %UPSTREAM_TRANSPORT_FAILURE_REASON%\n");
    json!({
        "name": authority,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": type_url("filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "tunnel",
                "cluster": "vestibule",
                "max_connect_attempts": 1,
                "tunneling_config": { "hostname": authority },
                "access_log": [{
                    "name": "envoy.access_loggers.stdout",
                    "typed_config": {
                        "@type": type_url("access_loggers.stream.v3.StdoutAccessLog"),
                        "log_format": { "text_format_source": { "inline_string": ended } },
                    },
                }],
            },
        }] }],
    })
}

/// An Envoy that takes tunnels, with a cluster for each authority. Returns its address.
pub(super) async fn server(directory: &Path, targets: &HashMap<&str, String>) -> (Process, String) {
    let cluster = |(authority, port): (&&str, &String)| {
        json!({
            "name": authority,
            "type": "STATIC",
            "connect_timeout": "10s",
            "load_assignment": endpoint(authority, port.parse().expect("a number")),
        })
    };
    let clusters: Vec<Value> = targets.iter().map(cluster).collect();
    let hosts: Vec<Value> = targets.keys().map(|it| host(it)).collect();
    let listener = json!([{
        "name": "tunnels",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type":
                        type_url("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "tunnels",
                    "codec_type": "HTTP2",
                    "http2_protocol_options": { "allow_connect": true },
                    "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
                    "route_config": { "virtual_hosts": hosts },
                    "http_filters": [{
                        "name": "envoy.filters.http.router",
                        "typed_config": { "@type": type_url("filters.http.router.v3.Router") },
                    }],
                },
            }],
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": type_url("transport_sockets.tls.v3.DownstreamTlsContext"),
                    "require_client_certificate": true,
                    "common_tls_context": {
                        "alpn_protocols": ["h2"],
                        "tls_certificates": [certificate(directory, "server")],
                        "validation_context": { "trusted_ca": file(directory, "ca.pem") },
                    },
                },
            },
        }],
    }]);
    let process = start(directory, &listener, &json!(clusters)).await;
    let at = doors(directory).await.remove("tunnels");
    (process, at.expect("its listener"))
}

/// What is asked for by this authority goes to the cluster of the same name.
fn host(authority: &str) -> Value {
    json!({
        "name": authority,
        "domains": [authority],
        "routes": [{
            "match": { "connect_matcher": {} },
            "route": {
                "cluster": authority,
                "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
            },
        }],
    })
}

/// Starts it, and waits until it serves.
async fn start(directory: &Path, listeners: &Value, clusters: &Value) -> Process {
    let config = json!({
        "admin": { "address": { "pipe": { "path": directory.join("envoy.sock") } } },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    });
    let path = directory.join("envoy.json");
    fs::write(&path, config.to_string()).expect("a file");
    let mut command = program().await;
    command.arg("-c").arg(path);
    command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "info"]);
    command.args(["--file-flush-interval-msec", "10"]);
    let process = Process::start(command);
    process.line("starting main dispatch loop").await;
    process
}

/// The program itself, without the Python around it.
async fn program() -> Command {
    let mut python = python_tool("python3");
    python.args(["-c", "import envoy; print(envoy.__path__[0], end='')"]);
    let directory = output(python).await.text();
    Command::new(Path::new(&directory).join("_bin/envoy"))
}

/// The ports that the kernel has given to its listeners.
async fn doors(directory: &Path) -> Doors {
    let answer = admin(directory, "listeners?format=json").await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let listeners = answer["listener_statuses"].as_array().expect("a list");
    let door = |it: &Value| {
        let name = it["name"].as_str().expect("a name").to_owned();
        let port = &it["local_address"]["socket_address"]["port_value"];
        (name, format!("127.0.0.1:{port}"))
    };
    listeners.iter().map(door).collect()
}

/// Asks its admin interface.
async fn admin(directory: &Path, path: &str) -> String {
    let mut command = tool("curl");
    command.args(["-q", "-sS", "--max-time", "50", "--unix-socket"]);
    command.arg(directory.join("envoy.sock"));
    command.arg(format!("http://envoy/{path}"));
    output(command).await.text()
}

/// Waits until a counter has this value.
pub(super) async fn counted(directory: &Path, counter: &str, value: u64) {
    let line = format!("{counter}: {value}");
    loop {
        let stats = admin(directory, &format!("stats?filter={counter}")).await;
        if stats.lines().any(|it| it == line) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn endpoint(cluster: &str, port: u16) -> Value {
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    json!({
        "cluster_name": cluster,
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
    })
}

fn certificate(directory: &Path, name: &str) -> Value {
    json!({
        "certificate_chain": file(directory, &format!("{name}.pem")),
        "private_key": file(directory, &format!("{name}-key.pem")),
    })
}

fn file(directory: &Path, name: &str) -> Value {
    json!({ "filename": directory.join(name) })
}

fn type_url(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}
