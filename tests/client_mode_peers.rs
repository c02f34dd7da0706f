//! Client mode with well-known servers, started with flags alone.

mod common;

use common::authority::Authority;
use common::client::Front;
use common::process::{Process, curl, output, tool};
use common::site::{Door, IN_THE_CLEAR, TLS, certificates};
use common::vestibule::Vestibule;
use common::{soon, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn openssl_gets_our_certificate_and_our_protocol() {
    for version in ["-tls1_2", "-tls1_3"] {
        let directory = certificates();
        let server = s_server(&directory, &[version, "-Verify", "1", "-alpn", "h2"]);
        let to = accepting(&server).await;
        let certificate = "certificate = { chain = \"us.pem\", key = \"us-key.pem\" }\n";
        let right = backend(
            "right",
            &to,
            &format!("{TLS}{certificate}alpn = [\"h2\"]\n"),
        );
        let config = format!("{IN_THE_CLEAR}{right}");
        let vestibule = Vestibule::start_in(directory, &config).await;
        let door = Door::Clear(Front::Unix(vestibule.path("clear.sock")));
        let mut client = door.enter().await;
        client.write_all(b"stressed\n").await.expect("open");
        let mut answer = [0; 9];
        soon("an answer", client.read_exact(&mut answer))
            .await
            .expect("open");
        assert_eq!(&answer, b"desserts\n");
    }
}

#[tokio::test]
async fn nginx_verifies_our_certificate_and_serves_a_plaintext_curl() {
    let directory = certificates();
    let config = NGINX.replace("{dir}", &directory.path().display().to_string());
    std::fs::write(directory.path().join("nginx.conf"), config).expect("a file");
    let mut command = tool("nginx");
    command
        .arg("-p")
        .arg(directory.path())
        .args(["-e", "stderr", "-c", "nginx.conf"]);
    let mut nginx = Process::start(command);
    let socket = directory.path().join("nginx.sock");
    until("nginx listens", || {
        assert!(nginx.is_running(), "nginx ended: {:#?}", nginx.said().err);
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    })
    .await;
    let to = format!("unix:{}", socket.display());
    let certificate = "certificate = { chain = \"us.pem\", key = \"us-key.pem\" }\n";
    let config = format!(
        "{IN_THE_CLEAR}{}",
        backend("nginx", &to, &format!("{TLS}{certificate}"))
    );
    let vestibule = Vestibule::start_in(directory, &config).await;
    let mut command = curl();
    command
        .arg("--unix-socket")
        .arg(vestibule.path("clear.sock"));
    command.args(["http://api.internal/", "http://api.internal/"]);
    let answer = output(command).await.text();
    assert_eq!(answer, "SUCCESS CN=us api.internal\n".repeat(2));
    // When a client has left, nginx closes the connection without `close_notify`. The relay cannot
    // tell that from a truncation.
    vestibule.ended("backend_reset", 1).await;
    let mut command = curl();
    command
        .arg("--unix-socket")
        .arg(vestibule.path("clear.sock"))
        .args(["-H", "connection: close", "http://api.internal/"]);
    let answer = output(command).await.text();
    assert_eq!(answer, "SUCCESS CN=us api.internal\n");
    vestibule.ended("done", 1).await;
}

#[tokio::test]
async fn flags_alone_run_client_mode() {
    let directory = certificates();
    let authority = Authority::new(directory.path(), "other");
    authority.issue("local", &["localhost"]);
    let server = s_server_as(&directory, "local", &[]);
    let port = accepting(&server)
        .await
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let mut command = common::process::vestibule();
    command
        .args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--to",
            &format!("tls:localhost:{port}"),
        ])
        .arg("--backend-ca")
        .arg(directory.path().join("other.pem"));
    let process = Process::start(command);
    let line = process.line("listening on tcp:").await;
    let (_, address) = line.split_once("listening on tcp:").expect("an address");
    let address = address.split_whitespace().next().expect("an address");
    let mut client = Front::Tcp(address.into())
        .socket()
        .await
        .expect("a listener");
    client.write_all(b"live\n").await.expect("open");
    let mut answer = [0; 5];
    soon("an answer", client.read_exact(&mut answer))
        .await
        .expect("open");
    assert_eq!(&answer, b"evil\n");
    let done = output(check_with_roots(&directory, "other.pem")).await;
    assert_eq!(done.code, Some(0), "{}", String::from_utf8_lossy(&done.out));
}

/// `vestibule check` of a backend that trusts the platform's roots, which are in the file `roots`.
fn check_with_roots(directory: &TempDir, roots: &str) -> tokio::process::Command {
    let text = "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n[[backend]]\nname = \"b\"\n\
                to = \"localhost:1\"\n[backend.tls]\n";
    let path = directory.path().join("roots.toml");
    std::fs::write(&path, text).expect("a file");
    let mut command = common::process::vestibule();
    command.args(["check", "-c"]).arg(path);
    command.env("SSL_CERT_FILE", directory.path().join(roots));
    command.env("SSL_CERT_DIR", directory.path().join("none"));
    command
}

#[tokio::test]
async fn an_empty_platform_root_store_is_an_error_with_advice() {
    let directory = certificates();
    std::fs::write(directory.path().join("empty.pem"), "").expect("a file");
    let done = output(check_with_roots(&directory, "empty.pem")).await;
    assert_eq!(done.code, Some(2), "{}", done.err);
    let said = String::from_utf8_lossy(&done.out);
    assert!(said.contains("roots.toml:7:1: "), "{said}");
    assert!(said.contains("`ca-certificates`"), "{said}");
}

fn backend(name: &str, to: &str, tls: &str) -> String {
    format!("[[backend]]\nname = \"{name}\"\nto = \"{to}\"\n{tls}")
}

/// An `openssl s_server` that reverses each line.
fn s_server(directory: &TempDir, more: &[&str]) -> Process {
    s_server_as(directory, "api", more)
}

fn s_server_as(directory: &TempDir, name: &str, more: &[&str]) -> Process {
    let mut command = tool("openssl");
    command
        .current_dir(directory.path())
        .args(["s_server", "-rev", "-accept", "127.0.0.1:0"])
        .args([
            "-cert",
            &format!("{name}.pem"),
            "-key",
            &format!("{name}-key.pem"),
        ])
        .args(["-CAfile", "ca.pem", "-verify_return_error"])
        .args(more);
    Process::start(command)
}

async fn accepting(server: &Process) -> String {
    let line = server.line("ACCEPT ").await;
    line.trim_start_matches("ACCEPT ").to_owned()
}

const NGINX: &str = r#"
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {
        listen unix:{dir}/nginx.sock ssl;
        ssl_certificate {dir}/api.pem;
        ssl_certificate_key {dir}/api-key.pem;
        ssl_client_certificate {dir}/ca.pem;
        ssl_verify_client on;
        location / {
            return 200 "$ssl_client_verify $ssl_client_s_dn $ssl_server_name\n";
        }
    }
}
"#;
