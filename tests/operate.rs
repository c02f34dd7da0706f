//! docs/operate.md: each of its commands runs here, in the situation that the page describes, and prints
//! what the page shows.

mod common;
mod operate {
    pub(crate) mod page;
}

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::backend::Backend;
use common::client::{Client, Front, Socket, config_for};
use common::pki::{Authority, Subject};
use common::process::{curl, output, path_with_vestibule, s_client};
use common::resources::limited;
use common::vestibule::{LISTENERS, Vestibule};
use common::{project, soon};
use operate::page::{self, Step};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ALL_VERSIONS;

/// The titles of the page, each with a test below.
const TITLES: [&str; 13] = [
    "Clients are refused",
    "A backend is down",
    "A server needs maintenance",
    "Connections wait and nobody serves them",
    "One client takes all",
    "A certificate expires",
    "Memory grows",
    "Who was connected at that time?",
    "A reload failed",
    "A key was stolen",
    "Too many open files",
    "The log does not say enough",
    "The machine needs maintenance",
];

const RUNTIME: &str = "[runtime]\nworkers = 2\ndirectory = \"{dir}/vestibule\"\nlog_format = \"json\"\n\
    [audit]\npath = \"audit.log\"\n";
const ECHO: &str = "[[backend]]\nname = \"app\"\nto = \"echo\"\n";

#[test]
fn each_section_has_its_test() {
    let titles: Vec<String> = page::sections().into_iter().map(|it| it.title).collect();
    assert_eq!(titles, TITLES);
}

#[tokio::test]
async fn clients_are_refused() {
    let route = "[[route]]\nsni = [\"app.example.com\", \"localhost\"]\nbackend = \"app\"\n";
    let case = Case::start(&format!("{ECHO}{route}")).await;
    for _ in 0..2 {
        let mut client = s_client(&case.running.tcp());
        client.args(["-servername", "shop.example.com"]);
        output(client).await;
    }
    let mut plain = curl();
    plain.arg(format!("http://{}/", case.running.tcp()));
    output(plain).await;
    case.running.ended("not_tls", 1).await;
    case.follow("Clients are refused").await;
}

#[tokio::test]
async fn a_backend_is_down() {
    let config =
        "[timeouts]\nbackend = \"1s\"\n[[backend]]\nname = \"app\"\nto = \"unix:{dir}/app.sock\"\n";
    let case = Case::start(config).await;
    let front = Front::Tcp(case.running.tcp());
    let mut client = front.connect().await.expect("a handshake");
    let _ = soon("the end", client.read(&mut [0])).await;
    case.running.ended("backend_timeout", 1).await;
    case.follow("A backend is down").await;
}

#[tokio::test]
async fn a_server_needs_maintenance() {
    let directory = directory();
    let backends = ["app-1.sock", "app-2.sock"].map(|it| Backend::unix(&directory.path().join(it)));
    let config = "[[backend]]\nname = \"app\"\n\
        to = [\"unix:{dir}/app-1.sock\", \"unix:{dir}/app-2.sock\"]\n";
    let case = Case::start_in(directory, config, |command| command).await;
    let front = Front::Tcp(case.running.tcp());
    // One connection for each.
    let mut open = Vec::new();
    for backend in &backends {
        let client = front.connect().await.expect("a handshake");
        open.push((
            client,
            soon("a dial", backend.accept())
                .await
                .expect("a connection"),
        ));
    }
    case.follow("A server needs maintenance").await;
}

#[tokio::test]
async fn connections_wait_and_nobody_serves_them() {
    let config = "[timeouts]\nbackend = \"50s\"\n[[backend]]\nname = \"app\"\nto = \"gate\"\n";
    let case = Case::start(config).await;
    let _client = Front::Tcp(case.running.tcp())
        .connect()
        .await
        .expect("a handshake");
    case.until("\"waiting\":1").await;
    case.follow("Connections wait and nobody serves them").await;
}

#[tokio::test]
async fn one_client_takes_all() {
    let case = Case::start(ECHO).await;
    let mut clients = Vec::new();
    for bytes in [3_000_000, 2_000_000, 1_500_000] {
        clients.push(moved(&Front::Tcp(case.running.tcp()), bytes).await);
    }
    clients.push(moved(&Front::Unix(case.running.path("front.sock")), 10).await);
    case.follow("One client takes all").await;
    case.running.ended("killed", 3).await;
}

#[tokio::test]
async fn a_certificate_expires() {
    let (directory, root) = (directory(), Authority::root("example"));
    let install = |directory: &Path, days| {
        let issued = root.issue(&Subject {
            dns: vec!["app.example.com".into()],
            days: Some(days),
            ..Subject::default()
        });
        std::fs::write(directory.join("key.pem"), issued.key).expect("ours");
        std::fs::write(directory.join("chain.pem"), issued.chain).expect("ours");
    };
    install(directory.path(), 6);
    let listener = "[[listener]]\nname = \"https\"\naddress = \"tcp:127.0.0.1:0\"\n[listener.tls]\n\
        certificates = [ { chain = \"{dir}/chain.pem\", key = \"{dir}/key.pem\" } ]\n";
    let case = Case::start_whole(directory, &format!("{ECHO}{listener}"), |it| it).await;
    let path = case.running.directory.path().to_owned();
    case.follow_with("A certificate expires", |block| {
        if block == 1 {
            install(&path, 91);
        }
    })
    .await;
}

#[tokio::test]
async fn memory_grows() {
    let case = Case::start(ECHO).await;
    let front = Front::Tcp(case.running.tcp());
    let _clients = [moved(&front, 10).await, moved(&front, 10).await];
    case.follow("Memory grows").await;
}

#[tokio::test]
async fn who_was_connected_at_that_time() {
    let (case, root) = mutual().await;
    let mut client = named(&case, &root, "alice").await;
    client.shutdown().await.expect("open");
    let _ = client.read(&mut [0]).await;
    case.running.ended("done", 1).await;
    case.follow("Who was connected at that time?").await;
}

#[tokio::test]
async fn a_reload_failed() {
    let case = Case::start(ECHO).await;
    let file = case.running.path("vestibule.toml");
    let good = std::fs::read_to_string(&file).expect("ours");
    // The page has the places of the mistakes.
    std::fs::write(
        &file,
        format!("[timeouts]\nidle = 0\nhandshak = \"5s\"\n{good}"),
    )
    .expect("ours");
    case.until("\"last_problem\":{").await;
    case.follow_with("A reload failed", |block| {
        if block == 1 {
            std::fs::write(&file, &good).expect("ours");
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_was_stolen() {
    let (case, root) = mutual().await;
    let mut clients = [
        named(&case, &root, "alice").await,
        named(&case, &root, "alice").await,
    ];
    case.follow("A key was stolen").await;
    for client in &mut clients {
        assert_eq!(
            soon("the end", client.read(&mut [0]))
                .await
                .expect("a clean end"),
            0
        );
    }
    case.running.ended("revoked", 2).await;
}

#[tokio::test]
async fn too_many_open_files() {
    let listeners = format!("[limits]\nconnections = 10000\n{ECHO}{LISTENERS}");
    let mut case = Case::start_whole(directory(), &listeners, |it| limited(it, 4096)).await;
    case.prefix = "ulimit -n 4096; ";
    case.follow("Too many open files").await;
}

#[tokio::test]
async fn the_log_does_not_say_enough() {
    let case = Case::start(ECHO).await;
    case.follow("The log does not say enough").await;
}

#[tokio::test]
async fn the_machine_needs_maintenance() {
    let case = Case::start(ECHO).await;
    let client = moved(&Front::Tcp(case.running.tcp()), 10).await;
    let leave = async {
        case.until("\"state\":\"draining\"").await;
        drop(client);
    };
    tokio::join!(case.follow("The machine needs maintenance"), leave);
}

/// A running Vestibule in the situation of a section.
struct Case {
    running: Vestibule,
    /// Before each command.
    prefix: &'static str,
}

impl Case {
    async fn start(config: &str) -> Self {
        Self::start_in(directory(), config, |command| command).await
    }

    async fn start_in(
        directory: Arc<TempDir>,
        config: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> Self {
        Self::start_whole(directory, &format!("{config}{LISTENERS}"), change).await
    }

    async fn start_whole(
        directory: Arc<TempDir>,
        config: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> Self {
        let running = Vestibule::spawn(directory, &format!("{config}\n{RUNTIME}"), change);
        running.until_started().await;
        Self {
            running,
            prefix: "",
        }
    }

    async fn follow(&self, title: &str) {
        self.follow_with(title, |_| {}).await;
    }

    /// Runs the commands of a section. `before` runs before each block, with its number.
    async fn follow_with(&self, title: &str, mut before: impl FnMut(usize)) {
        let section = page::sections().into_iter().find(|it| it.title == title);
        let section = section.expect("on the page");
        for (number, block) in section.blocks.iter().enumerate() {
            before(number);
            for step in block {
                self.take(step).await;
            }
        }
    }

    /// Runs one command. The audit log is written a moment after the event.
    async fn take(&self, step: &Step) {
        let began = Instant::now();
        loop {
            let output = self.output(&step.command).await;
            let is_late = began.elapsed() > Duration::from_secs(10);
            match step.check(&output) {
                Ok(()) => return println!("$ {}\n{output}", step.command),
                Err(_) if step.command.starts_with("vestibule log") && !is_late => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What a command prints, with the paths and addresses of the page.
    async fn output(&self, command: &str) -> String {
        let directory = self.running.directory.path().display().to_string();
        let (etc, run) = (
            format!("{directory}/vestibule.toml"),
            format!("{directory}/vestibule"),
        );
        let time = |it: SystemTime| humantime::format_rfc3339_seconds(it).to_string();
        let (now, while_ago) = (SystemTime::now(), Duration::from_secs(600));
        let command = command
            .replace("/etc/vestibule.toml", &etc)
            .replace("/run/vestibule", &run)
            .replace("/run/app", &format!("{directory}/app"))
            .replace(
                "%2Frun%2Fapp",
                &format!("{directory}/app").replace('/', "%2F"),
            )
            .replace("2026-11-20T14:00:00Z", &time(now - while_ago))
            .replace("2026-11-20T14:10:00Z", &time(now + while_ago))
            .replace("192.0.2.7", "127.0.0.1");
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &format!("{}{command}", self.prefix)])
            .current_dir(self.running.directory.path())
            .env("PATH", path_with_vestibule())
            .env("XDG_RUNTIME_DIR", self.running.directory.path());
        let done = common::process::run(shell, b"").await;
        // On a terminal they come as they are written, in any order.
        let text = String::from_utf8(done.out).expect("text") + &done.err;
        text.replace(&etc, "/etc/vestibule.toml")
            .replace(&directory, "/run")
    }

    /// Waits until the status has this.
    async fn until(&self, part: &str) {
        soon(part, async {
            while !self
                .output("vestibule status --json")
                .await
                .replace(": ", ":")
                .contains(part)
            {}
        })
        .await;
    }
}

fn directory() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a directory"))
}

/// A client whose connection has moved `bytes` both ways.
async fn moved(front: &Front, bytes: usize) -> Client {
    let mut client = front.connect().await.expect("a handshake");
    client.write_all(&vec![7; bytes]).await.expect("open");
    client.flush().await.expect("open");
    let mut answer = vec![0; bytes];
    let echo = soon("an echo", client.read_exact(&mut answer)).await;
    echo.expect("open");
    client
}

/// A listener whose clients need a certificate of the authority.
async fn mutual() -> (Case, Authority) {
    let (directory, root) = (directory(), Authority::root("clients"));
    std::fs::write(directory.path().join("ca.pem"), root.pem()).expect("ours");
    let listener = "[[listener]]\nname = \"https\"\naddress = \"tcp:127.0.0.1:0\"\n[listener.tls]\n\
        certificates = [ { chain = \"{certs}/server.pem\", key = \"{certs}/server-key.pem\" } ]\n\
        client_auth = \"required\"\nclient_ca = [\"{dir}/ca.pem\"]\n";
    let case = Case::start_whole(directory, &format!("{ECHO}{listener}"), |it| it).await;
    (case, root)
}

/// A client with a certificate for this name, whose connection is relayed.
async fn named(case: &Case, root: &Authority, cn: &'static str) -> TlsStream<Socket> {
    let issued = root.issue(&Subject::named(cn));
    let authority = std::fs::read_to_string(project("certs/ca.pem")).expect("the CA");
    let config = config_for(ALL_VERSIONS, &authority, Some(&issued));
    let front = Front::Tcp(case.running.address("https"));
    let socket = front.socket().await.expect("a connection");
    let name = "localhost".try_into().expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let mut client = connector.connect(name, socket).await.expect("a handshake");
    client.write_all(b"hello").await.expect("open");
    let echo = soon("an echo", client.read_exact(&mut [0; 5])).await;
    echo.expect("open");
    client
}
