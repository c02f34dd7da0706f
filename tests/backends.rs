//! Well-known servers as backends: nginx on a Unix socket, WebSocket on TCP.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::bytes::Bytes;
use common::process::{Process, curl, node, output, tool};
use common::until;
use common::vestibule::Vestibule;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

const TEN_MIB: usize = 10 * 1024 * 1024;
const PAGE: &str = "<!doctype html><title>behind</title>\n";

#[tokio::test]
async fn nginx_behind_a_unix_socket_serves_its_pages_through_tls() {
    let site = Site::start().await;
    let page = output(site.curl(&["https://localhost/"])).await.text();
    assert_eq!(page, PAGE);
    let mut headers = site.curl(&["-o", "/dev/null", "-D", "-"]);
    headers.arg("https://localhost/nowhere");
    let headers = output(headers).await.text();
    assert!(headers.starts_with("HTTP/1.1 404 "), "{headers}");
    assert!(headers.contains("Server: nginx"), "{headers}");
    site.all_done(2).await;
}

#[tokio::test]
async fn a_large_file_of_nginx_arrives_byte_for_byte() {
    let site = Site::start().await;
    for version in ["1.2", "1.3"] {
        let mut command = site.curl(&["--tls-max", version]);
        command.arg("https://localhost/large");
        let answer = output(command).await.ok();
        assert!(answer == content(), "{} bytes, not the file", answer.len());
    }
    let mut part = site.curl(&["--range", "5000000-5000099"]);
    part.arg("https://localhost/large");
    let answer = output(part).await.ok();
    assert_eq!(answer, content()[5_000_000..5_000_100]);
    site.all_done(3).await;
}

#[tokio::test]
async fn requests_to_nginx_share_a_connection_that_is_kept_alive() {
    let site = Site::start().await;
    let mut command = site.curl(&["-w", "%{stderr}%{num_connects} %{http_code}\n"]);
    for path in ["", "large", "nowhere", ""] {
        command.args(["-o", "/dev/null", &format!("https://localhost/{path}")]);
    }
    let done = output(command).await;
    assert_eq!(done.err, "1 200\n0 200\n0 404\n0 200\n", "new connections");
    site.all_done(1).await;
}

#[tokio::test]
async fn a_large_upload_reaches_nginx_byte_for_byte() {
    let site = Site::start().await;
    let large = site.directory.path().join("site/large");
    let mut command = site.curl(&["-H", "expect:", "-H", "content-type: text/plain"]);
    command
        .arg("--data-binary")
        .arg(format!("@{}", large.display()))
        .arg("https://localhost/upload");
    let answer = output(command).await.text();
    assert_eq!(answer, format!("stored {TEN_MIB}\n"));
    let stored = fs::read_dir(site.directory.path().join("uploads")).expect("the uploads");
    let stored: Vec<_> = stored.map(|file| file.expect("a file").path()).collect();
    let [file] = stored.as_slice() else {
        panic!("one request, {stored:?}");
    };
    let file = fs::read(file).expect("the upload");
    assert!(file == content(), "{} bytes, not the file", file.len());
    site.all_done(1).await;
}

#[tokio::test]
async fn nginx_that_starts_late_serves_the_clients_that_waited() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    prepare(&directory);
    let vestibule = before_nginx(&directory).await;
    let alone = vestibule.descriptors();
    let url = format!("https://{}/", vestibule.tcp());
    let mut early = JoinSet::new();
    for _ in 0..5 {
        let mut command = curl();
        command.arg(&url);
        early.spawn(output(command));
    }
    until("five are in", || vestibule.descriptors() >= alone + 5).await;
    let _nginx = nginx(&directory).await;
    for client in early.join_all().await {
        assert_eq!(client.text(), PAGE);
    }
    vestibule.ended("done", 5).await;
}

#[tokio::test]
async fn websockets_pass_to_a_server_on_tcp() {
    let mut server = node();
    server.args(["--input-type=module", "--eval", SERVER]);
    let server = Process::start(server);
    let listening = server.line("listening on ").await;
    let port = listening.trim_start_matches("listening on ");
    let config = format!("[[backend]]\nname = \"app\"\nto = \"tcp:127.0.0.1:{port}\"\n");
    let vestibule = Vestibule::start(&config).await;

    let mut client = node();
    client
        .args(["--input-type=module", "--eval", CLIENT, "--"])
        .arg(vestibule.tcp());
    let answer = output(client).await.text();
    let conversations: Value = serde_json::from_str(&answer).expect("JSON");
    let conversations = conversations.as_array().expect("a list");
    assert_eq!(conversations.len(), 5);
    for (number, said) in conversations.iter().enumerate() {
        let expected = json!({
            "first": format!("hello /{number}"),
            "text": format!("good evening {number}"),
            "largeIsWhole": true,
            "pong": true,
            "code": 4000 + number,
        });
        assert_eq!(*said, expected);
    }
    vestibule.ended("done", 5).await;
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
}

/// Greets, echoes, answers pings, and closes with the code that it receives.
const SERVER: &str = r#"
import { WebSocketServer } from 'ws';
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 }, () => {
  console.log(`listening on ${server.address().port}`);
});
server.on('connection', (ws, request) => {
  ws.send(`hello ${request.url}`);
  ws.on('message', (data, binary) => ws.send(data, { binary }));
});
"#;

/// Five conversations at the same time: a greeting, a text, 8 MiB, a ping, a close.
const CLIENT: &str = r#"
import { randomBytes } from 'node:crypto';
import WebSocket from 'ws';
const [address] = process.argv.slice(1);
const large = randomBytes(8 * 1024 * 1024);
const talk = (number) => new Promise((resolve, reject) => {
  const ws = new WebSocket(`wss://${address}/${number}`, { servername: 'localhost' });
  const said = {};
  ws.on('error', reject);
  ws.on('message', (data, binary) => {
    if (!said.first) {
      said.first = String(data);
      ws.send(`good evening ${number}`);
    } else if (!said.text) {
      said.text = String(data);
      ws.send(large);
    } else {
      said.largeIsWhole = binary && large.equals(data);
      ws.ping('still there?');
    }
  });
  ws.on('pong', (data) => {
    said.pong = String(data) === 'still there?';
    ws.close(4000 + number);
  });
  ws.on('close', (code) => resolve({ ...said, code }));
});
console.log(JSON.stringify(await Promise.all([0, 1, 2, 3, 4].map(talk))));
"#;

/// nginx with a page and a large file, behind Vestibule.
struct Site {
    vestibule: Vestibule,
    directory: Arc<TempDir>,
    _nginx: Process,
}

impl Site {
    async fn start() -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        prepare(&directory);
        Self {
            _nginx: nginx(&directory).await,
            vestibule: before_nginx(&directory).await,
            directory,
        }
    }

    /// A curl that resolves `localhost` to this site.
    fn curl(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = curl();
        command
            .args(["--connect-to", &format!("::{}", self.vestibule.tcp())])
            .args(arguments);
        command
    }

    /// Checks that there were exactly this many connections, all with the outcome `done`.
    async fn all_done(&self, count: usize) {
        self.vestibule.ended("done", count).await;
        let outcomes = self.vestibule.outcomes();
        assert_eq!(outcomes.get("done"), Some(&count), "{outcomes:?}");
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    }
}

async fn before_nginx(directory: &Arc<TempDir>) -> Vestibule {
    let config = "[[backend]]\nname = \"nginx\"\nto = \"unix:{dir}/nginx.sock\"\n[timeouts]\nbackend = \"50s\"\n";
    Vestibule::start_in(Arc::clone(directory), config).await
}

fn prepare(directory: &TempDir) {
    let directory = directory.path();
    for name in ["site", "uploads", "logs"] {
        fs::create_dir(directory.join(name)).expect("a directory");
    }
    fs::write(directory.join("site/index.html"), PAGE).expect("a page");
    fs::write(directory.join("site/large"), content()).expect("a file");
    let config = NGINX.replace("{dir}", &directory.display().to_string());
    fs::write(directory.join("nginx.conf"), config).expect("a configuration");
}

/// One process in the foreground, with all its files in the directory. Waits until it listens.
async fn nginx(directory: &TempDir) -> Process {
    let directory = directory.path();
    let mut command = tool("nginx");
    command
        .arg("-p")
        .arg(directory)
        .args(["-e", "stderr", "-c", "nginx.conf"]);
    let mut nginx = Process::start(command);
    let socket = directory.join("nginx.sock");
    until("nginx listens", || {
        assert!(nginx.is_running(), "nginx ended: {:#?}", nginx.said().err);
        is_listening(&socket)
    })
    .await;
    nginx
}

fn is_listening(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// nginx stores an upload and passes it on to itself.
const NGINX: &str = r#"
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_max_body_size 20m;
    client_body_temp_path {dir}/uploads;
    proxy_temp_path {dir}/logs/proxy;
    fastcgi_temp_path {dir}/logs/fastcgi;
    uwsgi_temp_path {dir}/logs/uwsgi;
    scgi_temp_path {dir}/logs/scgi;
    server {
        listen unix:{dir}/nginx.sock;
        root {dir}/site;
        location = /upload {
            client_body_in_file_only on;
            proxy_pass http://unix:{dir}/nginx.sock:/stored;
        }
        location = /stored {
            return 200 "stored $http_content_length\n";
        }
    }
}
"#;

fn content() -> Vec<u8> {
    let mut content = vec![0; TEN_MIB];
    Bytes::seeded(11).fill(&mut content);
    content
}
