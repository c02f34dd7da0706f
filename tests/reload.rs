//! What a reload changes, what it leaves alone, and whom it turns out.

mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::backend::Backend;
use common::client::{Front, config_for};
use common::gate::{self, Watch};
use common::pki::{Authority, Issued, Subject, replace};
use common::vestibule::{Vestibule, complete, message};
use common::{soon, within};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig};

type Client = TlsStream<TcpStream>;

/// A site with an authority of its own, whose certificates may change.
struct Site {
    directory: Arc<TempDir>,
    authority: Authority,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            directory: Arc::new(tempfile::tempdir().expect("a directory")),
            authority: Authority::root("everybody"),
        };
        replace(&site.path("ca.pem"), &site.authority.pem());
        site.revoke(&[]);
        site.server(&["localhost"]);
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self, names: &[&str]) {
        let issued = self.authority.issue(&Subject::host(names));
        issued.write(self.directory.path(), "server");
    }

    fn client(&self, name: &'static str) -> Issued {
        self.authority.issue(&Subject::named(name))
    }

    fn revoke(&self, serials: &[u64]) {
        replace(
            &self.path("revoked.pem"),
            &self.authority.revocations(serials),
        );
    }

    async fn start(&self, rest: &str) -> Vestibule {
        Vestibule::start_whole(Arc::clone(&self.directory), &config(rest)).await
    }

    /// Writes another configuration in the place of the one that runs.
    fn configure(&self, text: &str) {
        replace(
            &self.path("vestibule.toml"),
            &complete(&self.directory, text),
        );
    }

    fn config(&self, certificate: Option<&Issued>) -> Arc<ClientConfig> {
        Arc::new(config_for(ALL_VERSIONS, &self.authority.pem(), certificate))
    }
}

fn config(rest: &str) -> String {
    format!("{LISTENER}{rest}")
}

const LISTENER: &str = r#"
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{dir}/server.pem", key = "{dir}/server-key.pem" } ]
client_auth = "optional"
client_ca = "{dir}/ca.pem"
crl = "{dir}/revoked.pem"
"#;

const ECHO: &str = "
[[backend]]
name = \"echo\"
to = \"echo\"
";

async fn connect(vestibule: &Vestibule, config: &Arc<ClientConfig>) -> std::io::Result<Client> {
    let socket = TcpStream::connect(vestibule.tcp()).await?;
    socket.set_nodelay(true)?;
    let name = "localhost".try_into().expect("a name");
    TlsConnector::from(Arc::clone(config))
        .connect(name, socket)
        .await
}

/// The certificate that a new client is shown. One that resumes a session is shown none.
async fn shown(vestibule: &Vestibule, site: &Site) -> Vec<u8> {
    let client = connect(vestibule, &site.config(None)).await;
    let client = client.expect("a handshake");
    let (_, connection) = client.get_ref();
    let chain = connection.peer_certificates().expect("a certificate");
    chain[0].to_vec()
}

/// A connection that works.
async fn open(vestibule: &Vestibule, config: &Arc<ClientConfig>) -> Client {
    let mut client = connect(vestibule, config).await.expect("a handshake");
    echo(&mut client).await.expect("an echo");
    client
}

async fn echo(client: &mut Client) -> std::io::Result<()> {
    client.write_all(b"word").await?;
    let mut word = [0; 4];
    client.read_exact(&mut word).await?;
    assert_eq!(&word, b"word");
    Ok(())
}

/// Waits until it has reloaded so many times.
async fn reloaded(vestibule: &Vestibule, times: usize) {
    vestibule.said("reloaded", times).await;
}

async fn refused(vestibule: &Vestibule) -> String {
    let event = vestibule
        .event(|event| message(event).starts_with("not reloaded, nothing has changed: "))
        .await;
    message(&event).to_owned()
}

/// Waits until it has refused to reload so many times.
async fn refusals(vestibule: &Vestibule, times: usize) {
    soon("a refusal", async {
        let is_one = |event: &serde_json::Value| message(event).starts_with("not reloaded");
        while vestibule.log().iter().filter(|event| is_one(event)).count() < times {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn exactly_those_whose_certificate_is_revoked_are_turned_out_within_a_second() {
    const REVOKED: usize = 50;
    const OTHERS: usize = 500;
    let site = Site::new();
    let (mallory, alice) = (site.client("mallory"), site.client("alice"));
    let vestibule = site.start(ECHO).await;
    let mut revoked = Vec::new();
    let mut others = Vec::new();
    let (for_mallory, for_alice) = (site.config(Some(&mallory)), site.config(Some(&alice)));
    let for_nobody = site.config(None);
    for _ in 0..REVOKED {
        revoked.push(open(&vestibule, &for_mallory).await);
    }
    for index in 0..OTHERS {
        let config = if index % 5 == 0 {
            &for_nobody
        } else {
            &for_alice
        };
        others.push(open(&vestibule, config).await);
    }

    site.revoke(&[mallory.serial]);
    vestibule.signal(Signal::HUP);
    let asked = Instant::now();
    let mut ended = JoinSet::new();
    for mut client in revoked {
        ended.spawn(async move {
            // A clean close_notify, not a reset.
            assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
        });
    }
    within(Duration::from_secs(10), "their end", ended.join_all()).await;
    let took = asked.elapsed();
    vestibule.ended("revoked", REVOKED).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    for client in &mut others {
        echo(client).await.expect("the others stay");
    }
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    // And nobody comes in with it any more.
    let error = open_and_fail(&vestibule, &for_mallory).await;
    assert!(error.contains("CertificateRevoked"), "{error}");
}

#[tokio::test]
async fn who_waits_for_a_worker_and_is_revoked_is_told_to_watchers_as_refused() {
    let site = Site::new();
    let mallory = site.client("mallory");
    let vestibule = site.start(APP).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let client = connect(&vestibule, &site.config(Some(&mallory))).await;
    let mut client = client.expect("a handshake");
    let id = soon("an offer", watch.offer()).await["id"].clone();
    let id = id.as_str().expect("an id");
    site.revoke(&[mallory.serial]);
    let event = soon("an event", watch.next()).await.expect("an event");
    assert_eq!(event, format!("GONE {id} refused"));
    assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    vestibule.ended("revoked", 1).await;
}

/// What a client is told that is not let in: in TLS 1.3 it is not before its first read.
async fn open_and_fail(vestibule: &Vestibule, config: &Arc<ClientConfig>) -> String {
    let mut client = match connect(vestibule, config).await {
        Ok(client) => client,
        Err(error) => return error.to_string(),
    };
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest).await {
        Ok(_) => panic!("let in: {rest:?}"),
        Err(error) => error.to_string(),
    }
}

/// An authority of which there are two certificates, one of them revoked: who shows the same
/// certificate of its own may be let in by way of the other.
#[tokio::test]
async fn who_shows_another_chain_for_the_same_certificate_is_looked_at_for_itself() {
    let site = Site::new();
    let (team, serial) = site.authority.intermediate("team");
    let alice = team.issue(&Subject::named("alice"));
    let leaf = alice.chain.split_inclusive(END).next().expect("a leaf");
    let chain = leaf.to_owned() + "\n" + &site.authority.vouch_again("team", &team);
    let otherwise = Issued {
        chain,
        key: alice.key.clone(),
        der: alice.der.clone(),
        serial: alice.serial,
    };
    let vestibule = site.start(ECHO).await;
    let (revoked, good) = (site.config(Some(&alice)), site.config(Some(&otherwise)));
    let (mut leaving, mut staying) = (Vec::new(), Vec::new());
    // So many that no order of looking at them is right by chance.
    for _ in 0..4 {
        leaving.push(open(&vestibule, &revoked).await);
        staying.push(open(&vestibule, &good).await);
    }
    site.revoke(&[serial]);
    reloaded(&vestibule, 1).await;
    for client in &mut staying {
        echo(client).await.expect("the others stay");
    }
    for client in &mut leaving {
        let end = soon("their end", client.read(&mut [0])).await;
        assert_eq!(end.expect("an end"), 0);
    }
    vestibule.ended("revoked", 4).await;
}

const END: &str = "-----END CERTIFICATE-----";

#[tokio::test]
async fn whom_no_route_takes_any_more_is_turned_out() {
    let site = Site::new();
    let (alice, bob) = (site.client("alice"), site.client("bob"));
    let routes = |names: &str| {
        config(&format!(
            "[[route]]\nidentity = [{names}]\nbackend = \"echo\"\n{ECHO}"
        ))
    };
    let vestibule = Vestibule::start_whole(
        Arc::clone(&site.directory),
        &routes("\"cn:alice\", \"cn:bob\""),
    )
    .await;
    let mut alice = open(&vestibule, &site.config(Some(&alice))).await;
    let mut bob = open(&vestibule, &site.config(Some(&bob))).await;
    site.configure(&routes("\"cn:alice\""));
    vestibule.ended("revoked", 1).await;
    assert_eq!(bob.read(&mut [0]).await.expect("an end"), 0);
    echo(&mut alice).await.expect("she stays");
}

#[tokio::test]
async fn a_configuration_with_a_mistake_changes_nothing() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let client = site.config(None);
    let mut before = open(&vestibule, &client).await;
    for (text, expected) in [
        (config("conections = 5\n"), "unknown key"),
        (
            config(ECHO).replace("server-key", "ca"),
            "there is no private key in the key file",
        ),
        (
            format!("{}[timeouts]\nunacknowledged = \"1s\"\n", config(ECHO)),
            "timeouts.unacknowledged is not what it was; that takes a restart",
        ),
        (
            config(ECHO) + "[[listener]]\nname = \"more\"\naddress = \"tcp:203.0.113.1:1\"\n",
            "cannot listen on tcp:203.0.113.1:1",
        ),
    ] {
        site.configure(&text);
        let said = refused(&vestibule).await;
        let is_it = |event: &serde_json::Value| {
            message(event).starts_with("not reloaded") && message(event).contains(expected)
        };
        vestibule.event(is_it).await;
        assert!(!said.is_empty());
        echo(&mut before).await.expect("it goes on");
        open(&vestibule, &client).await;
    }
    site.configure(&config(ECHO));
    reloaded(&vestibule, 1).await;
    echo(&mut before).await.expect("it goes on");
}

#[tokio::test]
async fn listeners_come_and_go_and_their_connections_stay() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let client = site.config(None);
    let mut old = open(&vestibule, &client).await;
    let address = vestibule.tcp();
    let more = "[[listener]]\nname = \"unix\"\naddress = \"unix:{dir}/front.sock\"\n";
    site.configure(&config(&format!("{ECHO}{more}")));
    reloaded(&vestibule, 1).await;
    let unix = Front::Unix(site.path("front.sock"));
    let mut plain = unix.socket().await.expect("it listens");
    plain.write_all(b"word").await.expect("room");
    plain.read_exact(&mut [0; 4]).await.expect("an echo");

    let only_unix = format!("{more}{ECHO}");
    site.configure(&only_unix);
    reloaded(&vestibule, 2).await;
    soon("the port to be closed", async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    echo(&mut old).await.expect("it stays");
    plain.write_all(b"word").await.expect("room");
    plain.read_exact(&mut [0; 4]).await.expect("an echo");

    site.configure(&config(ECHO));
    reloaded(&vestibule, 3).await;
    assert!(!site.path("front.sock").exists());
    let error = unix.socket().await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    echo(&mut old).await.expect("it stays");
}

#[tokio::test]
async fn another_name_for_an_open_listener_is_refused_with_the_reason() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = free.local_addr().expect("bound");
    drop(free);
    for address in ["unix:{dir}/front.sock", &format!("tcp:{port}")] {
        let site = Site::new();
        let address = address.replace("{dir}", &site.directory.path().display().to_string());
        let named = |name: &str| {
            config(&format!(
                "{ECHO}[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n"
            ))
        };
        let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &named("old")).await;
        site.configure(&named("new"));
        let said = refused(&vestibule).await;
        let expected = format!(
            "listener \"new\" cannot have {address}, which is that of the open listener \"old\""
        );
        assert!(said.contains(&expected), "{said}");
        let front = match address.strip_prefix("unix:") {
            Some(path) => Front::Unix(path.into()),
            None => Front::Tcp(port.to_string()),
        };
        let mut client = front.socket().await.expect("it goes on");
        client.write_all(b"word").await.expect("room");
        client.read_exact(&mut [0; 4]).await.expect("an echo");
    }
}

const APP: &str = "
[[backend]]
name = \"app\"
to = \"gate\"
";

/// A worker that says a word to each connection, and the socket that says that it is there.
struct Worker {
    registration: UnixStream,
    _serving: JoinSet<()>,
}

impl Worker {
    async fn register(vestibule: &Vestibule) -> Self {
        let backend = Backend::tcp().await;
        let line = format!("REGISTER app {}", backend.address());
        let serving = backend.serve(|mut socket| async move {
            let _ = socket.write_all(b"served").await;
        });
        let mut registration = gate::send(&vestibule.gate(), &line).await;
        let answer = soon("an answer", gate::line(&mut registration)).await;
        assert_eq!(answer.expect("an answer"), "OK {}");
        Self {
            registration,
            _serving: serving,
        }
    }

    /// Until the gate has closed its socket.
    async fn dismissed(mut self) {
        let end = soon("its dismissal", self.registration.read(&mut [0])).await;
        assert_eq!(end.expect("an end"), 0);
    }
}

async fn assert_served(client: &mut Client) {
    let mut said = String::new();
    let read = soon("a worker", client.read_to_string(&mut said)).await;
    read.expect("a clean end");
    assert_eq!(said, "served");
}

#[tokio::test]
async fn a_registered_worker_serves_on_when_its_backend_is_changed() {
    let site = Site::new();
    let vestibule = site.start(APP).await;
    let client = site.config(None);
    let worker = Worker::register(&vestibule).await;
    let changes = [
        "balance = \"round_robin\"",
        "health = { fall = 1 }",
        "park = false",
    ];
    for (round, change) in changes.into_iter().enumerate() {
        site.configure(&config(&format!("{APP}{change}\n")));
        reloaded(&vestibule, round + 1).await;
        let mut client = connect(&vestibule, &client).await.expect("a handshake");
        assert_served(&mut client).await;
    }
    // It is the new backend's as it was the old one's: once it has gone, connections wait.
    drop(worker);
    vestibule.said("address withdrawn", 1).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let mut client = connect(&vestibule, &client).await.expect("a handshake");
    soon("an offer", watch.offer()).await;
    let _worker = Worker::register(&vestibule).await;
    assert_served(&mut client).await;
}

#[tokio::test]
async fn who_has_waited_since_before_a_reload_is_served_by_a_worker_that_comes_after_it() {
    let site = Site::new();
    let vestibule = site.start(APP).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let client = connect(&vestibule, &site.config(None)).await;
    let mut client = client.expect("a handshake");
    soon("an offer", watch.offer()).await;
    site.configure(&config(&format!("{APP}balance = \"source\"\n")));
    reloaded(&vestibule, 1).await;
    let _worker = Worker::register(&vestibule).await;
    assert_served(&mut client).await;
}

#[tokio::test]
async fn registered_workers_of_a_backend_that_takes_none_any_more_are_sent_away() {
    let site = Site::new();
    let vestibule = site.start(APP).await;
    let without = [APP.replace("app", "other"), APP.replace("gate", "hello")];
    for (round, without) in without.iter().enumerate() {
        let worker = Worker::register(&vestibule).await;
        site.configure(&config(without));
        worker.dismissed().await;
        site.configure(&config(APP));
        reloaded(&vestibule, 2 * (round + 1)).await;
        // It may come again.
        let _worker = Worker::register(&vestibule).await;
        let client = connect(&vestibule, &site.config(None)).await;
        assert_served(&mut client.expect("a handshake")).await;
    }
}

#[tokio::test]
async fn who_waits_for_connections_of_a_backend_that_has_none_any_more_is_told() {
    let site = Site::new();
    let vestibule = site.start(APP).await;
    let without = [
        (APP.replace("app", "other"), "unknown"),
        (APP.replace("gate", "hello"), "forbidden"),
    ];
    for (round, (without, reason)) in without.into_iter().enumerate() {
        let mut waiting = gate::send(&vestibule.gate(), "ACCEPT app").await;
        let mut watch = Watch::new(&vestibule.gate(), "app").await;
        gate::until_in_place(&vestibule.gate()).await;
        site.configure(&config(&without));
        let answer = soon("an answer", gate::line(&mut waiting)).await;
        assert_eq!(answer.expect("an answer"), format!("NO {reason}"));
        let end = soon("the end of the watch", watch.next()).await;
        assert_eq!(end.expect_err("an end").kind(), ErrorKind::UnexpectedEof);
        site.configure(&config(APP));
        reloaded(&vestibule, 2 * (round + 1)).await;
    }
    // A change of another kind leaves them where they are.
    let mut waiting = gate::send(&vestibule.gate(), "ACCEPT app").await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    gate::until_in_place(&vestibule.gate()).await;
    site.configure(&config(&format!("{APP}park = false\n")));
    reloaded(&vestibule, 5).await;
    let _client = connect(&vestibule, &site.config(None)).await;
    soon("an offer", watch.offer()).await;
    let answer = soon("an answer", gate::line(&mut waiting)).await;
    assert!(answer.expect("an answer").starts_with("OK "));
}

/// Clients that come all the time, one after the other, and count what went wrong.
struct Load {
    stop: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(address: String, config: Arc<ClientConfig>) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            came: Arc::default(),
            clients: JoinSet::new(),
        };
        for _ in 0..4 {
            let (stop, came) = (Arc::clone(&load.stop), Arc::clone(&load.came));
            let (address, config) = (address.clone(), Arc::clone(&config));
            load.clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let socket = TcpStream::connect(&address).await.expect("a listener");
                    let name = "localhost".try_into().expect("a name");
                    let connector = TlsConnector::from(Arc::clone(&config));
                    let client = connector.connect(name, socket).await;
                    let mut client = client.expect("a handshake");
                    echo(&mut client).await.expect("an echo");
                    client.shutdown().await.expect("an end");
                    came.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    /// Until so many more have come.
    async fn for_more(&self, count: usize) {
        let until = self.came.load(Ordering::Relaxed) + count;
        soon("more clients", async {
            while self.came.load(Ordering::Relaxed) < until {
                assert!(!self.clients.is_empty(), "a client has failed");
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(client) = soon("a client's end", self.clients.join_next()).await {
            client.expect("no client fails");
        }
    }
}

#[tokio::test]
async fn a_hundred_reloads_fail_no_handshake_and_leave_the_memory_as_it_was() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let load = Load::start(vestibule.tcp(), site.config(None));
    let mut memory = 0;
    for round in 1..=110 {
        site.server(&["localhost"]);
        vestibule.signal(Signal::HUP);
        reloaded(&vestibule, round).await;
        load.for_more(5).await;
        if round == 10 {
            memory = vestibule.memory();
        }
    }
    load.end().await;
    let now = vestibule.memory();
    assert!(
        now < memory + memory / 4 + 4 * MIB,
        "{memory} and then {now}"
    );
    assert_eq!(vestibule.outcomes().keys().collect::<Vec<_>>(), ["done"]);
}

const MIB: usize = 1024 * 1024;

/// As a script does it: each file in its own moment.
#[tokio::test]
async fn a_certificate_and_its_key_may_be_replaced_one_after_the_other() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let client = site.config(None);
    let load = Load::start(vestibule.tcp(), Arc::clone(&client));
    for _ in 0..3 {
        let issued = site.authority.issue(&Subject::host(&["localhost"]));
        replace(&site.path("server.pem"), &issued.chain);
        tokio::time::sleep(Duration::from_millis(50)).await;
        replace(&site.path("server-key.pem"), &issued.key);
        soon("the new certificate", async {
            loop {
                if shown(&vestibule, &site).await == issued.der {
                    return;
                }
            }
        })
        .await;
    }
    load.end().await;
}

/// Written in place, in two halves: the first is no certificate yet.
#[tokio::test]
async fn a_file_that_is_half_written_is_not_taken() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let client = site.config(None);
    let load = Load::start(vestibule.tcp(), Arc::clone(&client));
    let issued = site.authority.issue(&Subject::host(&["localhost"]));
    let (half, _) = issued.chain.split_at(issued.chain.len() / 2);
    std::fs::write(site.path("server.pem"), half).expect("a file");
    refused(&vestibule).await;
    load.for_more(20).await;
    std::fs::write(site.path("server.pem"), &issued.chain).expect("a file");
    std::fs::write(site.path("server-key.pem"), &issued.key).expect("a file");
    reloaded(&vestibule, 1).await;
    load.for_more(20).await;
    load.end().await;
}

/// A volume of Kubernetes: the files are links into `..data`, itself a link that is swapped.
#[tokio::test]
async fn a_volume_whose_link_is_swapped_is_noticed() {
    let site = Site::new();
    let volume = site.path("volume");
    let version = |name: &str| {
        let directory = volume.join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let issued = site.authority.issue(&Subject::host(&["localhost"]));
        issued.write(&directory, "server");
        issued
    };
    let swap = |name: &str| {
        let beside = volume.join("..data_tmp");
        std::os::unix::fs::symlink(name, &beside).expect("a link");
        std::fs::rename(&beside, volume.join("..data")).expect("a swap");
    };
    version("..2026_1");
    swap("..2026_1");
    for file in ["server.pem", "server-key.pem"] {
        let target = Path::new("..data").join(file);
        std::os::unix::fs::symlink(target, volume.join(file)).expect("a link");
    }
    let text = config(ECHO).replace("{dir}/server", "{dir}/volume/server");
    let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &text).await;
    let client = site.config(None);
    open(&vestibule, &client).await;
    for (round, name) in ["..2026_2", "..2026_3"].into_iter().enumerate() {
        let issued = version(name);
        swap(name);
        reloaded(&vestibule, round + 1).await;
        assert!(
            shown(&vestibule, &site).await == issued.der,
            "round {round}"
        );
    }
}

/// The configuration comes first, and what it names later.
#[tokio::test]
async fn a_file_that_a_refused_configuration_names_is_waited_for() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    site.configure(&config(ECHO).replace("revoked.pem", "late.pem"));
    let said = refused(&vestibule).await;
    assert!(said.contains("late.pem"), "{said}");
    replace(&site.path("late.pem"), &site.authority.revocations(&[]));
    reloaded(&vestibule, 1).await;
}

#[tokio::test]
async fn a_refused_configuration_is_tried_again_with_each_file_of_it_and_of_the_one_before() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let other = |path: &str| replace(&site.path(path), &site.authority.revocations(&[7]));
    other("other.pem");
    let unbindable = "[[listener]]\nname = \"more\"\naddress = \"tcp:203.0.113.1:1\"\n";
    for (round, mistake) in ["conections = 5\n", unbindable].into_iter().enumerate() {
        let tries = 1 + 3 * round;
        let text = config(&format!("{ECHO}{mistake}"));
        site.configure(&text.replace("revoked.pem", "other.pem"));
        refusals(&vestibule, tries).await;
        other("other.pem");
        refusals(&vestibule, tries + 1).await;
        other("revoked.pem");
        refusals(&vestibule, tries + 2).await;
    }
    site.configure(&config(ECHO));
    reloaded(&vestibule, 1).await;
}
