//! `vestibule claim`, the worker for any program, and the shell examples that use it.

mod claim {
    mod ends;
}
mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::client::{self, Client, Socket};
use common::gate::{self, Watch};
use common::process::{self, Process, output, path_with_vestibule, run, s_client, tool};
use common::vestibule::Vestibule;
use common::{bytes, project, soon, until};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, SockAddr, Socket as Socket2, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::process::Command;

const APP: &str = "[[backend]]\nname = \"app\"\nto = \"gate\"\n[timeouts]\nbackend = \"50s\"\n";

#[tokio::test]
async fn the_shell_echo_gives_a_client_all_its_bytes_back() {
    const BYTES: usize = 3 * 1024 * 1024 + 11;
    let vestibule = Vestibule::start(APP).await;
    let worker = Process::start(echo(&vestibule.gate(), "app"));
    for _ in 0..3 {
        let client = client::connect(&vestibule.tcp()).await;
        let (mut reader, mut writer) = tokio::io::split(client.expect("a handshake"));
        let (sent, ()) = soon("the echo", async {
            tokio::join!(
                bytes::send(&mut writer, 5, BYTES),
                bytes::expect(&mut reader, 5, BYTES)
            )
        })
        .await;
        sent.expect("an open connection");
    }
    vestibule.ended("done", 3).await;
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn openssl_talks_to_a_command_that_ends_the_connection() {
    let vestibule = Vestibule::start(APP).await;
    let script = "read -r line; echo \"you said $line\"; echo 'and here is the log' >&2";
    let worker = claim(&vestibule.gate(), &["--", "sh", "-c", script]);
    for (version, word) in [("-tls1_2", "good"), ("-tls1_3", "evening")] {
        let mut command = s_client(&vestibule.tcp());
        command.args(["-quiet", version]);
        let said = run(command, format!("{word}\n").as_bytes()).await;
        assert_eq!(said.text(), format!("you said {word}\n"));
    }
    // Stderr is not part of the connection.
    worker.lines("and here is the log", 2).await;
    vestibule.ended("done", 2).await;
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn a_command_has_the_facts_in_its_environment() {
    let vestibule = Vestibule::start(APP).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let _worker = claim(&vestibule.gate(), &["--", &whoami()]);
    let mut client = Visitor::connect(&vestibule).await;
    let id = watch.offer().await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let peer = client.peer();
    assert_eq!(
        client.greeting().await,
        [
            format!("id        {id}"),
            format!("peer      {peer}"),
            "sni       localhost".to_owned(),
            "alpn      none".to_owned(),
            "identity  none".to_owned(),
        ]
    );
    client.is_echoed().await;
    client.leave().await;
    vestibule.ended("done", 1).await;
}

#[tokio::test]
async fn no_more_commands_run_than_max_and_the_other_connections_wait() {
    const CLIENTS: usize = 6;
    const OTHERS: usize = 20;
    let vestibule = Vestibule::start(APP).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let worker = claim(&vestibule.gate(), &["--max", "2", "--", &whoami()]);
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut client = Visitor::connect(&vestibule).await;
        client.greeting().await;
        served.push(client);
        watch.offer().await;
    }
    // If the worker had a third place, it would soon get one of these.
    for _ in 0..OTHERS {
        let mut client = Visitor::connect(&vestibule).await;
        let id = watch.offer().await["id"].clone();
        let (facts, mut socket) = soon("it", gate::accept(&vestibule.gate(), "app")).await;
        assert_eq!(facts["id"], id);
        let said = socket.write_all(b"served by another\n").await;
        said.expect("an open connection");
        assert_eq!(client.line().await, "served by another");
        drop(socket);
        client.leave().await;
    }
    let mut waiting = Vec::new();
    for _ in 2..CLIENTS {
        waiting.push(Visitor::connect(&vestibule).await);
        watch.offer().await;
    }
    assert_eq!(worker.children(), 2);

    // Each one that leaves makes room for the next, in the order of arrival.
    for mut next in waiting {
        served.remove(0).leave().await;
        next.greeting().await;
        assert!(worker.children() <= 2, "{} commands", worker.children());
        served.push(next);
        for client in &mut served {
            client.is_echoed().await;
        }
    }
    for client in served {
        client.leave().await;
    }
    vestibule.ended("done", CLIENTS + OTHERS).await;
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn claim_waits_for_a_missing_gate_and_serves_once_it_is_there() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let gate: PathBuf = directory.path().join("run/gate.sock");
    let mut worker = claim(&gate, &["--", &whoami()]);
    let said = worker.line("trying again").await;
    assert!(said.contains(&gate.display().to_string()), "{said}");

    // A gate that does not work: three attempts, and each gets its answer.
    std::fs::create_dir(gate.parent().expect("a directory")).expect("a directory");
    let useless = UnixListener::bind(&gate).expect("a path");
    for answer in ["", "NO busy\n", "NO draining\n"] {
        let (mut attempt, _) = soon("an attempt", useless.accept()).await.expect("one");
        let mut line = [0; 11];
        attempt.read_exact(&mut line).await.expect("a line");
        assert_eq!(&line, b"ACCEPT app\n");
        attempt.write_all(answer.as_bytes()).await.expect("room");
    }
    drop(useless);
    std::fs::remove_dir_all(directory.path().join("run")).expect("ours");

    // A gate that appears, disappears without an answer, and appears again.
    let mut directory = directory;
    for _ in 0..3 {
        let vestibule = Vestibule::start_in(Arc::clone(&directory), APP).await;
        let mut client = Visitor::connect(&vestibule).await;
        client.greeting().await;
        client.leave().await;
        vestibule.ended("done", 1).await;
        directory = vestibule.kill().await;
        assert!(worker.is_running());
    }
    worker.line("the connection to the gate").await;
    // SIGTERM also ends it while it waits between two attempts.
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn claim_waits_silently_in_the_queue_of_a_full_gate() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("gate.sock");
    let gate = Socket2::new(Domain::UNIX, Type::STREAM.nonblocking(), None).expect("a socket");
    gate.bind(&SockAddr::unix(&path).expect("short"))
        .expect("a path");
    gate.listen(0).expect("a queue for one");
    let first = std::os::unix::net::UnixStream::connect(&path).expect("room");
    let worker = claim(&path, &["--", "cat"]);
    let tasks = format!("/proc/{}/task", worker.pid());
    // The wait at the gate uses one more thread.
    let threads = || std::fs::read_dir(&tasks).map_or(0, Iterator::count);
    until("it waits", || threads() > 1).await;
    let gate = UnixListener::from_std(gate.into()).expect("a listener");
    for _ in 0..2 {
        let (mut client, _) = soon("a client", gate.accept()).await.expect("one");
        if client.peer_cred().expect("a peer").pid() == Some(worker.pid().cast_signed()) {
            let mut line = [0; 11];
            client.read_exact(&mut line).await.expect("a line");
            assert_eq!(&line, b"ACCEPT app\n");
            assert!(worker.said().err.is_empty(), "{:?}", worker.said());
            // The gate closes, and the worker notices.
            drop((client, gate, first));
            worker.line("trying again").await;
            return;
        }
    }
    panic!("it has not come");
}

#[tokio::test]
async fn a_gate_may_have_a_path_that_is_not_utf_8() {
    let directory = tempfile::tempdir().expect("a directory");
    let gate = directory.path().join(OsStr::from_bytes(b"gate\xff.sock"));
    let mut command = process::vestibule();
    command.args(["run", "--listen", "localhost:0", "--to", "gate", "--gate"]);
    command.arg(&gate);
    command.args(["--cert", &project("certs/server.pem")]);
    command.args(["--key", &project("certs/server-key.pem")]);
    let vestibule = Process::start(command);
    let line = vestibule.line("listening on tcp:127.0.0.1:").await;
    let port = line.split("127.0.0.1:").nth(1).expect("a port");
    let port = port.split(' ').next().expect("a port").to_owned();
    let mut command = process::vestibule();
    command.args(["claim", "--gate"]).arg(&gate);
    command.args(["--backend", "default", "--", "cat"]);
    let worker = Process::start(command);
    // `localhost` has an IPv4 and an IPv6 address.
    assert!(line.contains(&format!("[::1]:{port}")), "{line}");
    for host in ["127.0.0.1", "[::1]"] {
        let client = client::connect(&format!("{host}:{port}")).await;
        let mut client = Visitor(BufReader::new(client.expect("a handshake")));
        client.is_echoed().await;
        client.leave().await;
    }
    assert_eq!(worker.terminate().await, Some(0));
    assert_eq!(vestibule.terminate().await, Some(0));
    assert!(!gate.exists());
}

/// A client of whoami.sh or of another example that echoes lines.
struct Visitor(BufReader<Client>);

impl Visitor {
    async fn connect(vestibule: &Vestibule) -> Self {
        let client = client::connect(&vestibule.tcp()).await;
        Self(BufReader::new(client.expect("a handshake")))
    }

    fn peer(&self) -> String {
        match self.0.get_ref().get_ref().0 {
            Socket::Tcp(tcp) => tcp.local_addr().expect("connected").to_string(),
            Socket::Unix(_) => panic!("TCP"),
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = soon("a line", self.0.read_line(&mut line)).await;
        assert_ne!(read.expect("an open connection"), 0, "no more lines");
        line.trim_end_matches('\n').to_owned()
    }

    /// The five lines of whoami.sh.
    async fn greeting(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..5 {
            lines.push(self.line().await);
        }
        lines
    }

    async fn say(&mut self, words: &str) {
        let said = self.0.get_mut().write_all(words.as_bytes()).await;
        said.expect("an open connection");
    }

    async fn is_echoed(&mut self) {
        self.say("still there?\n").await;
        assert_eq!(self.line().await, "still there?");
    }

    /// Closes its side, and waits for the end of the other side.
    async fn leave(mut self) {
        self.0.get_mut().shutdown().await.expect("open");
        let mut rest = Vec::new();
        let end = soon("the end", self.0.read_to_end(&mut rest)).await;
        assert_eq!(end.expect("a clean end"), 0);
    }

    /// Waits for the end of the connection, of any kind.
    async fn ends(&mut self) {
        let mut rest = Vec::new();
        let _ = soon("the end", self.0.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{rest:?}");
    }
}

fn claim(gate: &Path, arguments: &[&str]) -> Process {
    let mut command = process::vestibule();
    command.args(["claim", "--gate"]).arg(gate);
    command.args(["--backend", "app"]).args(arguments);
    Process::start(command)
}

fn whoami() -> String {
    project("examples/shell/whoami.sh")
}

fn echo(gate: &Path, backend: &str) -> Command {
    let mut command = Command::new(project("examples/shell/echo.sh"));
    command.arg(gate).arg(backend);
    command.env("PATH", path_with_vestibule());
    command
}

/// The number of sockets at a gate: waiting workers and open connections.
fn connected(gate: &Path) -> usize {
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("Linux");
    let gate = gate.display().to_string();
    let of_gate = sockets.lines().filter(|line| line.ends_with(&gate));
    // One of them is the listener of the gate.
    of_gate.count() - 1
}
