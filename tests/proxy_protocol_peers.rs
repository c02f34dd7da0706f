//! The PROXY protocol with well-known programs: HAProxy in front of and behind Vestibule, nginx
//! behind it.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use common::client::Front;
use common::process::{Process, curl, output, tool};
use common::vestibule::{RELAYS, Relay, Vestibule};
use common::{project, until};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::Value;
use tempfile::TempDir;

const HELLO: &str = r#"
[[backend]]
name = "app"
to = "hello"

[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
accept_proxy_protocol = "required"
trusted_proxies = ["127.0.0.0/8"]
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]

[[listener]]
name = "unix"
address = "unix:{dir}/front.sock"
accept_proxy_protocol = "required"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]

[[listener]]
name = "plain"
address = "tcp:127.0.0.1:0"
accept_proxy_protocol = "required"
trusted_proxies = ["127.0.0.1"]
"#;

fn directory() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a directory"))
}

/// HAProxy with an inherited listening socket, so that no other program can take its port.
struct HaProxy {
    process: Process,
    port: u16,
}

impl HaProxy {
    /// `{port}` in the configuration stands for the socket.
    async fn start(directory: &Path, config: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        fcntl_setfd(&listener, FdFlags::empty()).expect("our own descriptor");
        let number = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let config = format!("{GLOBAL}{config}")
            .replace("{port}", &format!("fd@{number}"))
            .replace("{dir}", &directory.display().to_string());
        let path = directory.join("haproxy.cfg");
        fs::write(&path, config).expect("a file");
        let mut command = tool("haproxy");
        command.arg("-db").arg("-f").arg(path);
        let mut process = Process::start(command);
        let ready = directory.join("haproxy.sock");
        until("HAProxy listens", || {
            assert!(process.is_running(), "it ended: {:#?}", process.said().err);
            is_listening(&ready)
        })
        .await;
        Self { process, port }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/", self.port)
    }
}

/// The statistics socket exists as soon as the others do.
const GLOBAL: &str = "\
global
    stats socket unix@{dir}/haproxy.sock
defaults
    timeout connect 30s
    timeout client 30s
    timeout server 30s
    mode tcp
";

fn is_listening(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// The facts on the hello page, and the client's own address.
async fn hello(url: &str) -> (Value, String) {
    let mut command = curl();
    command
        .args(["-H", "accept: application/json", "-w"])
        .args(["%{stderr}%{local_ip}:%{local_port}", url]);
    let done = output(command).await;
    let facts = serde_json::from_slice(&done.out);
    (facts.unwrap_or_else(|_| panic!("{done:?}")), done.err)
}

#[tokio::test]
async fn the_clients_of_haproxy_are_known_in_every_form_of_its_header() {
    for relay in RELAYS {
        let directory = directory();
        let config = relay.config() + HELLO;
        let vestibule = Vestibule::start_whole(Arc::clone(&directory), &config).await;
        let [tcp, plain] = ["tcp", "plain"].map(|name| vestibule.address(name));
        let unix = "unix@{dir}/front.sock";
        let mut done = 0;
        for (scheme, to) in [("https", tcp.as_str()), ("https", unix), ("http", &plain)] {
            for options in [
                "send-proxy",
                "send-proxy-v2",
                "send-proxy-v2 proxy-v2-options crc32c,authority,unique-id,ssl",
                "send-proxy-v2-ssl-cn",
            ] {
                let config = format!(
                    "listen front\n    bind {{port}}\n    unique-id-format %pid\n    \
                     server vestibule {to} {options}\n"
                );
                let haproxy = HaProxy::start(directory.path(), &config).await;
                let (facts, client) = hello(&haproxy.url(scheme)).await;
                assert_eq!(facts["peer"], client, "{options} to {to}");
                assert_eq!(facts["local"], format!("127.0.0.1:{}", haproxy.port));
                done += 1;
                vestibule.ended("done", done).await;
                haproxy.process.terminate().await;
            }
        }
        assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    }
}

/// HAProxy terminates TLS and opens a new TLS connection, so its header has every field of the SSL
/// TLV.
#[tokio::test]
async fn haproxy_may_name_the_certificate_of_its_client() {
    let directory = directory();
    let vestibule = Vestibule::start_whole(Arc::clone(&directory), HELLO).await;
    let pem = ["certs/server.pem", "certs/server-key.pem"]
        .map(|file| fs::read_to_string(project(file)).expect("a file"));
    fs::write(directory.path().join("server.pem"), pem.concat()).expect("a file");
    let config = format!(
        "listen front\n    bind {{port}} ssl crt {{dir}}/server.pem ca-file {} verify optional\n    \
         server vestibule {} ssl verify none sni str(localhost) send-proxy-v2-ssl-cn \
         proxy-v2-options ssl,cert-cn,cert-key,cert-sig,ssl-cipher,crc32c,authority\n",
        project("certs/ca.pem"),
        vestibule.tcp()
    );
    let haproxy = HaProxy::start(directory.path(), &config).await;
    let mut command = curl();
    command
        .args(["-H", "accept: application/json", "-w"])
        .args(["%{stderr}%{local_ip}:%{local_port}", &haproxy.url("https")])
        .args(["--cert", &project("certs/client.pem")])
        .args(["--key", &project("certs/client-key.pem")]);
    let done = output(command).await;
    let facts: Value = serde_json::from_slice(&done.out).unwrap_or_else(|_| panic!("{done:?}"));
    assert_eq!(facts["peer"], done.err);
    // The identity that HAProxy has verified is not an identity that Vestibule has verified.
    assert_eq!(facts["identity"], Value::Null);
}

#[tokio::test]
async fn haproxys_health_checks_are_its_own_connections() {
    let directory = directory();
    let vestibule = Vestibule::start_whole(Arc::clone(&directory), HELLO).await;
    for (count, options) in ["send-proxy", "send-proxy-v2"].into_iter().enumerate() {
        let config = format!(
            "listen front\n    bind {{port}}\n    server vestibule {} {options} \
             check check-send-proxy check-ssl verify none inter 60s\n",
            vestibule.tcp()
        );
        let _haproxy = HaProxy::start(directory.path(), &config).await;
        until("a check", || vestibule.closed().len() > count).await;
        let closed = &vestibule.closed()[count];
        let peer = closed["span"]["peer"].as_str().expect("an address");
        assert!(peer.starts_with("127.0.0.1:"), "{closed}");
        assert_ne!(closed["outcome"], "handshake_failed", "{closed}");
    }
}

/// A proxy with both listeners in front of a server that expects headers.
async fn before(relay: Relay, directory: &Arc<TempDir>, to: &str, version: &str) -> Vestibule {
    let config = format!(
        "{}[[backend]]\nname = \"app\"\nto = \"{to}\"\nproxy_protocol = \"{version}\"\n",
        relay.config()
    );
    Vestibule::start_in(Arc::clone(directory), &config).await
}

/// What the server behind the proxy knows of the connection, through each listener, with the
/// client's own address if it has one.
async fn ask(vestibule: &Vestibule, front: &Front) -> (String, String) {
    let mut command = curl();
    command.args(["-w", "%{stderr}%{local_ip} %{local_port}"]);
    match front {
        Front::Tcp(address) => command.args(["--connect-to", &format!("::{address}")]),
        Front::Unix(path) => command.arg("--unix-socket").arg(path),
    };
    command.arg("https://localhost/");
    let done = output(command).await;
    assert_eq!(done.code, Some(0), "{done:?}; {:?}", vestibule.outcomes());
    (String::from_utf8(done.out).expect("text"), done.err)
}

#[tokio::test]
async fn haproxy_behind_us_sees_the_client_and_its_facts() {
    let config = r#"
frontend behind
    mode http
    bind {port} accept-proxy
    bind unix@{dir}/behind.sock accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id,hex]"
"#;
    for relay in RELAYS {
        let directory = directory();
        let haproxy = HaProxy::start(directory.path(), config).await;
        let unix = format!("unix:{}/behind.sock", directory.path().display());
        for to in [&format!("tcp:127.0.0.1:{}", haproxy.port), &unix] {
            for version in ["v1", "v2"] {
                let vestibule = before(relay, &directory, to, version).await;
                let address = vestibule.tcp();
                let port = address.rsplit(':').next().expect("a port");
                let (said, client) = ask(&vestibule, &Front::Tcp(address.clone())).await;
                let words: Vec<&str> = said.split(' ').collect();
                assert_eq!(words[..3].join(" "), format!("{client} {port}"));
                vestibule.ended("done", 1).await;
                let id = vestibule.closed()[0]["span"]["id"].clone();
                match version {
                    "v1" => assert_eq!(words[3..].concat(), ""),
                    _ => {
                        assert_eq!(words[3], "localhost");
                        let hex = words[4].to_lowercase();
                        assert_eq!((hex.len(), &hex[..8]), (32, id.as_str().expect("an id")));
                    }
                }
                // A client without an address is served as well.
                let path = vestibule.path("front.sock");
                ask(&vestibule, &Front::Unix(path)).await;
                vestibule.ended_over(relay, "done", 2).await;
                assert_eq!(vestibule.terminate().await, Some(0));
            }
        }
    }
}

#[tokio::test]
async fn nginx_behind_us_sees_the_client() {
    for relay in RELAYS {
        let directory = directory();
        let config = NGINX.replace("{dir}", &directory.path().display().to_string());
        fs::write(directory.path().join("nginx.conf"), config).expect("a file");
        let mut command = tool("nginx");
        command
            .arg("-p")
            .arg(directory.path())
            .args(["-e", "stderr", "-c", "nginx.conf"]);
        let mut nginx = Process::start(command);
        let socket = directory.path().join("nginx.sock");
        until("nginx listens", || {
            assert!(nginx.is_running(), "nginx ended: {:#?}", nginx.said().err);
            is_listening(&socket)
        })
        .await;
        for version in ["v1", "v2"] {
            let vestibule = before(relay, &directory, "unix:{dir}/nginx.sock", version).await;
            let address = vestibule.tcp();
            let (said, client) = ask(&vestibule, &Front::Tcp(address.clone())).await;
            let local = address.replace(':', " ");
            assert_eq!(said, format!("{client} to {local}"), "{version}");
            let path = vestibule.path("front.sock");
            let (said, _) = ask(&vestibule, &Front::Unix(path)).await;
            assert_eq!(said, "  to  ", "no address is known, {version}");
            vestibule.ended_over(relay, "done", 2).await;
            assert_eq!(vestibule.terminate().await, Some(0));
        }
    }
}

const NGINX: &str = r#"
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path {dir}/client;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {
        listen unix:{dir}/nginx.sock proxy_protocol;
        default_type text/plain;
        return 200 "$proxy_protocol_addr $proxy_protocol_port to $proxy_protocol_server_addr $proxy_protocol_server_port";
    }
}
"#;
