//! The example workers in Python and Node, unchanged, at the gate of the real binary.

mod common;

use std::collections::HashSet;
use std::path::Path;

use common::client::{self, Client};
use common::gate::Watch;
use common::process::{Process, curl, node, output, tool};
use common::vestibule::Vestibule;
use common::{project, soon, until};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use uuid::Uuid;

const APP: &str = "[[backend]]\nname = \"app\"\nto = \"gate\"\n[timeouts]\nbackend = \"50s\"\n";

#[tokio::test]
async fn the_python_worker_answers_curl_with_the_facts() {
    let vestibule = Vestibule::start(APP).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let worker = python(&vestibule.gate(), 2);
    let mut command = curl();
    let local = "%{stderr}%{local_ip}:%{local_port} %{http_code} %{content_type}";
    command.args(["-w", local]);
    command.arg(localhost(&vestibule));
    let done = output(command).await;
    let (peer, form) = done.err.split_once(' ').expect("two words");
    assert_eq!(form, "200 application/json");
    let facts: Value = serde_json::from_slice(&done.out).expect("JSON");
    assert_eq!(facts["peer"], peer);
    assert_eq!(facts["backend"], "app");
    assert_eq!(facts["listener"], "tcp");
    assert_eq!(facts["tls"]["sni"], "localhost");
    assert_eq!(facts["tls"]["version"], "1.3");
    assert_eq!(facts["id"], watch.offer().await["id"]);
    vestibule.ended("done", 1).await;
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn the_python_worker_serves_several_connections_at_once_and_each_more_than_once() {
    const AT_ONCE: usize = 4;
    let vestibule = Vestibule::start(APP).await;
    let worker = python(&vestibule.gate(), AT_ONCE);
    let mut clients = Vec::new();
    for _ in 0..AT_ONCE {
        let client = client::connect(&vestibule.tcp()).await;
        clients.push(BufReader::new(client.expect("a handshake")));
    }
    // All of them are open when the last one is answered.
    let mut ids = Vec::new();
    for _ in 0..2 {
        for client in &mut clients {
            let (headers, facts) = soon("an answer", get(client)).await;
            assert!(!headers.contains("connection: close"), "{headers}");
            ids.push(facts["id"].as_str().expect("an id").to_owned());
        }
    }
    let (first, second) = ids.split_at(AT_ONCE);
    assert_eq!(first, second, "a connection keeps its id");
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), AT_ONCE);

    // A request is answered completely although the client has closed its side.
    let mut last = clients.pop().expect("a client");
    ask(&mut last).await;
    last.get_mut().shutdown().await.expect("open");
    let answer = soon("an answer", answer(&mut last)).await;
    assert_eq!(answer.1["id"], first[AT_ONCE - 1]);
    drop(clients);
    vestibule.ended("done", 1).await;
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn the_python_worker_serves_its_clients_to_the_end_after_sigterm_and_takes_no_new_ones() {
    let vestibule = Vestibule::start(APP).await;
    let worker = python(&vestibule.gate(), 2);
    let client = client::connect(&vestibule.tcp()).await;
    let mut client = BufReader::new(client.expect("a handshake"));
    soon("an answer", get(&mut client)).await;
    let pid = worker.pid();
    until("both places are there", || threads(pid) == 3).await;
    worker.signal(rustix::process::Signal::TERM);
    // The worker stops waiting at the gate for its second place: it has handled the signal.
    until("only the place in use is left", || threads(pid) == 2).await;
    let (headers, _) = soon("an answer", get(&mut client)).await;
    assert!(headers.contains("connection: close"), "{headers}");
    let mut rest = Vec::new();
    let end = soon("the end", client.read_to_end(&mut rest)).await;
    assert_eq!(end.expect("a clean end"), 0);
    client.get_mut().shutdown().await.expect("open");
    assert_eq!(worker.wait().await.0.code(), Some(0));
    vestibule.ended("done", 1).await;
}

#[tokio::test]
async fn the_workers_survive_the_end_of_their_gate_and_return_to_its_successor() {
    for start in [|gate: &Path| python(gate, 2), javascript] {
        let vestibule = Vestibule::start(APP).await;
        let worker = start(&vestibule.gate());
        output(get_with_curl(&vestibule)).await.ok();
        let directory = vestibule.kill().await;
        worker.line("retrying").await;
        let vestibule = Vestibule::start_in(directory, APP).await;
        output(get_with_curl(&vestibule)).await.ok();
        assert_eq!(worker.terminate().await, Some(0));
        vestibule.ended("done", 1).await;
    }
}

#[tokio::test]
async fn a_wrong_backend_ends_the_workers_with_the_reason() {
    let vestibule = Vestibule::start(APP).await;
    let gate = vestibule.gate();
    let mut python = tool("python3");
    python.arg(project("examples/python/worker.py"));
    python
        .arg("--gate")
        .arg(&gate)
        .args(["--backend", "nobody"]);
    let mut javascript = node();
    javascript.arg("worker.js").arg(&gate).arg("nobody");
    for command in [python, javascript] {
        let done = output(command).await;
        assert_eq!(done.code, Some(1), "{}", done.err);
        assert!(done.err.contains("unknown"), "{}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    }
}

#[tokio::test]
async fn the_node_worker_greets_a_websocket_with_its_id_and_echoes() {
    let vestibule = Vestibule::start(APP).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let worker = javascript(&vestibule.gate());
    let said = converse(&vestibule, 1).await.remove(0);
    let id = watch.offer().await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(said, [format!("hello {id}"), "good evening 0".into()]);
    vestibule.ended("done", 1).await;
    // A plain request gets the facts.
    let facts = output(get_with_curl(&vestibule)).await.ok();
    let facts: Value = serde_json::from_slice(&facts).expect("JSON");
    assert_eq!(facts["tls"]["sni"], "localhost");
    vestibule.ended("done", 2).await;
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn two_node_workers_compete_and_each_connection_is_greeted_once() {
    const CLIENTS: usize = 40;
    let vestibule = Vestibule::start(APP).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let workers = [javascript(&vestibule.gate()), javascript(&vestibule.gate())];
    let conversations = converse(&vestibule, CLIENTS).await;
    let mut offered = HashSet::new();
    for _ in 0..CLIENTS {
        let id = watch.offer().await["id"].clone();
        offered.insert(id.as_str().expect("an id").to_owned());
    }
    let mut greeted = HashSet::new();
    for (number, said) in conversations.iter().enumerate() {
        let [greeting, echo] = said.as_slice() else {
            panic!("a greeting and an echo, not {said:?}");
        };
        let id = greeting.strip_prefix("hello ").expect("a greeting");
        assert_eq!(Uuid::parse_str(id).expect("a UUID").get_version_num(), 4);
        assert!(greeted.insert(id.to_owned()), "{id} was greeted twice");
        assert_eq!(*echo, format!("good evening {number}"));
    }
    assert_eq!(greeted, offered);
    vestibule.ended("done", CLIENTS).await;
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());

    // One of the two ends, and the other continues to serve.
    let [first, second] = workers;
    assert_eq!(first.terminate().await, Some(0));
    assert_eq!(converse(&vestibule, 5).await.len(), 5);
    assert_eq!(second.terminate().await, Some(0));
    vestibule.ended("done", CLIENTS + 5).await;
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
}

#[tokio::test]
async fn the_node_worker_closes_its_websockets_as_going_away_after_sigterm() {
    let vestibule = Vestibule::start(APP).await;
    let worker = javascript(&vestibule.gate());
    let mut command = node();
    command
        .args(["--input-type=module", "--eval", LISTENER, "--"])
        .arg(vestibule.tcp());
    let client = Process::start(command);
    client.line("hello ").await;
    assert_eq!(worker.terminate().await, Some(0));
    client.line("closed with 1001").await;
    vestibule.ended("done", 1).await;
}

const LISTENER: &str = r#"
import WebSocket from 'ws';
const ws = new WebSocket(`wss://${process.argv[1]}/`, { servername: 'localhost' });
ws.on('message', (data) => console.log(String(data)));
ws.on('close', (code) => console.log(`closed with ${code}`));
"#;

/// Opens this many WebSockets at the same time, and returns what each received until it closed.
async fn converse(vestibule: &Vestibule, clients: usize) -> Vec<Vec<String>> {
    let mut command = node();
    command
        .args(["--input-type=module", "--eval", TALKER, "--"])
        .arg(vestibule.tcp())
        .arg(clients.to_string());
    serde_json::from_slice(&output(command).await.ok()).expect("JSON")
}

/// The close is answered last, so everything else comes before it.
const TALKER: &str = r#"
import WebSocket from 'ws';
const [address, clients] = process.argv.slice(1);
const talk = (number) => new Promise((resolve, reject) => {
  const ws = new WebSocket(`wss://${address}/`, { servername: 'localhost' });
  const said = [];
  ws.on('error', reject);
  ws.on('open', () => ws.send(`good evening ${number}`));
  ws.on('message', (data) => {
    said.push(String(data));
    if (said.length === 2) ws.close(1000);
  });
  ws.on('close', (code) => (code === 1000 ? resolve(said) : reject(new Error(`closed with ${code}`))));
});
console.log(JSON.stringify(await Promise.all(Array.from({ length: clients }, (_, n) => talk(n)))));
"#;

#[tokio::test]
async fn the_workers_in_the_gate_documentation_work() {
    let directory = tempfile::tempdir().expect("a directory");
    let page = std::fs::read_to_string(project("docs/gate.md")).expect("the page");
    let save = |language: &str| {
        let (_, code) = page.split_once(&format!("```{language}\n")).expect("code");
        let (code, _) = code.split_once("```").expect("its end");
        let path = directory.path().join(format!("hello.{language}"));
        std::fs::write(&path, code).expect("a file");
        path
    };
    let program = directory.path().join("hello");
    let mut compiler = tool("cc");
    compiler.args(["-Wall", "-Werror", "-o"]).arg(&program);
    compiler.arg(save("c"));
    output(compiler).await.ok();
    let mut python = tool("python3");
    python.arg(save("python"));
    for mut command in [python, tokio::process::Command::new(program)] {
        let vestibule = Vestibule::start(APP).await;
        command.arg(vestibule.gate()).arg("app");
        let _worker = Process::start(command);
        for _ in 0..2 {
            let client = client::connect(&vestibule.tcp()).await;
            let mut client = client.expect("a handshake");
            let mut greeting = String::new();
            let read = soon("a greeting", client.read_to_string(&mut greeting)).await;
            read.expect("a clean end");
            assert!(greeting.starts_with("hello, "), "{greeting}");
            client.shutdown().await.expect("open");
        }
        vestibule.ended("done", 2).await;
    }
}

fn python(gate: &Path, concurrency: usize) -> Process {
    let mut command = tool("python3");
    command
        .arg(project("examples/python/worker.py"))
        .arg("--gate")
        .arg(gate)
        .args(["--backend", "app", "--concurrency"])
        .arg(concurrency.to_string());
    Process::start(command)
}

fn javascript(gate: &Path) -> Process {
    let mut command = node();
    command.arg("worker.js").arg(gate).arg("app");
    Process::start(command)
}

fn localhost(vestibule: &Vestibule) -> String {
    format!(
        "https://{}/",
        vestibule.tcp().replace("127.0.0.1", "localhost")
    )
}

fn get_with_curl(vestibule: &Vestibule) -> tokio::process::Command {
    let mut command = curl();
    command.arg(localhost(vestibule));
    command
}

async fn get(client: &mut BufReader<Client>) -> (String, Value) {
    ask(client).await;
    answer(client).await
}

async fn ask(client: &mut BufReader<Client>) {
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let sent = client.get_mut().write_all(request).await;
    sent.expect("an open connection");
}

/// The headers, in lower case, and the facts.
async fn answer(client: &mut BufReader<Client>) -> (String, Value) {
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") {
        let read = client.read_line(&mut headers).await;
        assert_ne!(read.expect("a line"), 0, "it ended after {headers:?}");
    }
    let headers = headers.to_ascii_lowercase();
    let (_, length) = headers.split_once("content-length: ").expect("a length");
    let length = length.lines().next().expect("a line");
    let mut body = vec![0; length.parse().expect("a number")];
    client.read_exact(&mut body).await.expect("a whole body");
    (headers, serde_json::from_slice(&body).expect("JSON"))
}

fn threads(pid: u32) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    threads.expect("alive").count()
}
