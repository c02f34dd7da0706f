//! `runtime.max_memory`: a flood closes new connections and then idle ones, and not the process.

mod common;
mod memory_budget {
    pub(super) mod group;
    pub(super) mod neighbours;
}

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use common::admin::ask;
use common::backend::Backend;
use common::client::{self, Client, Front, Socket};
use common::resources::raise_own_limit;
use common::vestibule::{LISTENERS, RUNTIME, Vestibule, message};
use common::{soon, within};
use memory_budget::group::Group;
use memory_budget::neighbours::Neighbours;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const MIB: usize = 1024 * 1024;

/// `max_memory`, and the limit of the control group.
const GROUP: (usize, usize) = (64 * MIB, 80 * MIB);

/// Without a group the sockets do not count, and more connections than this test has descriptors for
/// would fit.
const NO_GROUP: (usize, usize) = (48 * MIB, 64 * MIB);

const CONFIG: &str = r#"max_memory = "{max}B"
[limits]
connections = 15000
connections_per_ip = "unlimited"
[timeouts]
handshake = "30s"
[[backend]]
name = "app"
to = "unix:{dir}/app.sock"
"#;

/// Half a gigabyte and 20,000 attempts take long on a machine that is busy.
const LONG: Duration = Duration::from_secs(300);

/// A message. Its first byte says what the backend answers.
const MESSAGE: usize = 64;
const ECHO: u8 = 1;
const FLOOD: u8 = 2;

/// A process in a group of its own, if the machine allows that.
struct Site {
    vestibule: Vestibule,
    front: Front,
    _serving: JoinSet<()>,
    max: usize,
    /// What may never be used.
    limit: usize,
    /// Dropped after the process.
    group: Option<Group>,
}

impl Site {
    async fn start() -> Self {
        raise_own_limit();
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let backend = Backend::unix(&directory.path().join("app.sock"));
        let serving = backend.serve(serve);
        let group = Group::new(GROUP.1);
        let ((max, limit), source) = match &group {
            Some(_) => (GROUP, "cgroup"),
            None => (NO_GROUP, "process"),
        };
        eprintln!("the memory of the {source} is measured, of at most {max} bytes");
        let config = CONFIG.replace("{max}", &max.to_string());
        let config = format!("{RUNTIME}{config}{LISTENERS}");
        let vestibule = Vestibule::spawn(directory, &config, |mut command| {
            command.env("RUST_LOG", "vestibule=info");
            match &group {
                Some(group) => group.run(&command),
                None => command,
            }
        });
        vestibule.until_started().await;
        let site = Self {
            front: Front::Tcp(vestibule.tcp()),
            vestibule,
            _serving: serving,
            max,
            limit,
            group,
        };
        assert_eq!(site.memory().await["source"], source);
        site
    }

    async fn status(&self) -> Value {
        status(&self.vestibule).await
    }

    async fn memory(&self) -> Value {
        self.status().await["memory"].clone()
    }

    async fn used(&self) -> usize {
        let used = self.memory().await["used"].as_u64();
        used.expect("a number") as usize
    }

    async fn shed(&self) -> usize {
        let shed = &self.status().await["connections"]["ended"]["shed"];
        shed.as_u64().unwrap_or(0) as usize
    }

    async fn until_there_is_room(&self) {
        let room = async { while served(&self.front).await.is_none() {} };
        soon("room for new clients", room).await;
    }

    async fn until_below_90_percent(&self) {
        let below = async { while self.used().await >= self.max / 10 * 9 {} };
        within(LONG, "below 90 %", below).await;
    }

    /// Ends the process, so that its group can be removed.
    async fn end(self) {
        self.vestibule.kill().await;
    }

    /// The most memory that was used, in bytes: of the group, or resident in the process.
    fn peak(&self) -> usize {
        if let Some(group) = &self.group {
            return group.peak();
        }
        let path = format!("/proc/{}/status", self.vestibule.pid());
        let status = fs::read_to_string(path).expect("alive");
        let line = status.lines().find(|it| it.starts_with("VmHWM:"));
        let kib = line.and_then(|it| it.split_whitespace().nth(1));
        kib.and_then(|it| it.parse::<usize>().ok()).expect("a peak") * 1024
    }
}

async fn status(vestibule: &Vestibule) -> Value {
    let socket = vestibule.path("run/admin.sock");
    ask(&socket, "/v1/status", &[]).await.json()
}

async fn serve(mut socket: Socket) {
    let mut message = [0; MESSAGE];
    while socket.read_exact(&mut message).await.is_ok() {
        let answer = match message[0] {
            // More than the sockets on the way hold.
            FLOOD => vec![0; 64 * MIB / SLOW],
            _ => message.to_vec(),
        };
        let times = if message[0] == FLOOD { SLOW } else { 1 };
        for _ in 0..times {
            if socket.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

async fn echo(client: &mut Client, word: u8) -> std::io::Result<()> {
    let mut message = [word; MESSAGE];
    message[0] = ECHO;
    client.write_all(&message).await?;
    client.flush().await?;
    let mut answer = [0; MESSAGE];
    client.read_exact(&mut answer).await?;
    assert_eq!(answer, message, "other bytes");
    Ok(())
}

/// A client whose connection has carried an echo. `None` if it was closed.
async fn served(front: &Front) -> Option<Client> {
    let mut client = front.connect().await.ok()?;
    echo(&mut client, 7).await.ok()?;
    Some(client)
}

/// This many attempts, at most `at_a_time`. Returns the clients that were served.
async fn attempts(front: &Front, count: usize, at_a_time: usize) -> Vec<Client> {
    let places = Arc::new(Semaphore::new(at_a_time));
    let mut coming = JoinSet::new();
    for _ in 0..count {
        let place = Arc::clone(&places).acquire_owned().await.expect("open");
        let front = front.clone();
        coming.spawn(async move {
            let served = served(&front).await;
            drop(place);
            served
        });
    }
    let all = within(LONG, "all attempts", coming.join_all()).await;
    all.into_iter().flatten().collect()
}

/// Whether Vestibule has closed the connection, with `close_notify`.
async fn is_closed(client: &mut Client) -> bool {
    let read = tokio::time::timeout(Duration::from_millis(1), client.read(&mut [0])).await;
    match read {
        Ok(read) => {
            assert_eq!(read.expect("close_notify"), 0);
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_flood_closes_new_connections_and_then_those_that_have_been_idle_longest() {
    let site = Site::start().await;
    let neighbours = Neighbours::new(&site.front).await;
    let mut slow = attempts(&site.front, SLOW, 25).await;
    assert_eq!(slow.len(), SLOW);
    // Idle clients in the order in which they become idle, until memory is at 80 %.
    let mut idle: Vec<Vec<Client>> = Vec::new();
    while site.memory().await["pressure"] == "none" {
        let group = attempts(&site.front, 100, 50).await;
        assert_eq!(group.len(), 100, "refused below 80 %");
        idle.push(group);
    }
    assert!(idle.len() >= 4, "{} hundred clients", idle.len());

    let newest = attempts(&site.front, ATTEMPTS, 100).await;
    let refused = ATTEMPTS - newest.len();
    assert!(refused > ATTEMPTS / 2, "{} were served", newest.len());
    assert!(site.shed().await >= refused);
    for group in &mut idle {
        for client in group {
            assert!(!is_closed(client).await, "closed below 95 %");
        }
    }

    // Clients that do not read what they asked for.
    for client in &mut slow {
        client.write_all(&[FLOOD; MESSAGE]).await.expect("open");
        client.flush().await.expect("open");
    }
    let before = refused;
    let shedding = async { while site.shed().await == before {} };
    within(LONG, "idle connections are closed", shedding).await;
    site.until_below_90_percent().await;

    let mut closed = Vec::new();
    for group in &mut idle {
        let mut count = 0;
        for client in group {
            count += usize::from(is_closed(client).await);
        }
        closed.push(count);
    }
    eprintln!(
        "closed of each hundred: {closed:?}; peak {} MiB",
        site.peak() / MIB
    );
    assert_eq!(closed[0], 100, "{closed:?}");
    // All of a group before the first of the next: at most one is in between.
    assert!(closed.is_sorted_by(|one, next| one >= next), "{closed:?}");
    let partial = closed.iter().filter(|it| (1..100).contains(*it));
    assert!(partial.count() <= 1, "{closed:?}");

    assert!(site.peak() < site.limit, "{} MiB", site.peak() / MIB);
    site.until_there_is_room().await;
    neighbours.leave().await;
    site.end().await;
}

const SLOW: usize = 75;
const ATTEMPTS: usize = 20_000;

#[tokio::test]
async fn a_client_that_finds_no_memory_is_counted_logged_and_audited() {
    const CONFIG: &str = r#"max_memory = "1MiB"
[audit]
path = "{dir}/audit.log"
[[backend]]
name = "echo"
to = "echo"
"#;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let config = format!("{RUNTIME}{CONFIG}{LISTENERS}");
    let vestibule = Vestibule::start_whole(Arc::clone(&directory), &config).await;
    let said = |part: &'static str| vestibule.event(move |it| message(it).contains(part));
    said("clients will be refused; raise it").await;
    said("memory=1.0MiB").await;
    let is_refusing =
        async { while status(&vestibule).await["memory"]["pressure"] != "shedding" {} };
    soon("the first sample", is_refusing).await;

    assert!(served(&Front::Tcp(vestibule.tcp())).await.is_none());
    let ended = &status(&vestibule).await["connections"]["ended"];
    assert_eq!(ended, &serde_json::json!({"shed": 1}));
    let metrics = ask(&vestibule.path("run/admin.sock"), "/metrics", &[]).await;
    for sample in [
        "vestibule_connections_total{listener=\"tcp\",outcome=\"shed\"} 1",
        "vestibule_memory_max_bytes 1048576",
        "vestibule_memory_pressure 3",
    ] {
        assert!(metrics.body.contains(sample), "{sample}: {}", metrics.body);
    }
    let refused = said("clients not served: memory is short").await;
    assert_eq!(
        (&refused["reason"], &refused["clients"]),
        (&"shed".into(), &1.into())
    );
    // That does not help either, because it is the memory of the process itself.
    said("closing idle connections frees no memory").await;

    assert_eq!(vestibule.terminate().await, Some(0));
    let audit = fs::read_to_string(directory.path().join("audit.log")).expect("a log");
    let lines = audit
        .lines()
        .map(|it| serde_json::from_str(it).expect("JSON"));
    let refused: Vec<Value> = lines.filter(|it: &Value| it["event"] == "refuse").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["outcome"], "shed");
}

#[tokio::test]
async fn half_hellos_fill_no_memory_that_others_need() {
    let site = Site::start().await;
    let neighbours = Neighbours::new(&site.front).await;
    let mut idle = attempts(&site.front, 200, 50).await;
    assert_eq!(idle.len(), 200);
    let half = Arc::new(half_a_hello());
    // One address may have an eighth of the handshakes.
    let mut coming = JoinSet::new();
    for index in 0..HALVES {
        let (half, to) = (Arc::clone(&half), site.vestibule.tcp());
        let source = format!("127.0.0.{}", 2 + index % 20);
        coming.spawn(async move {
            let mut socket = client::from(&source, &to).await.ok()?;
            socket.write_all(&half).await.ok()?;
            Some(socket)
        });
    }
    let mut held: Vec<Socket> = Vec::new();
    for socket in soon("all hellos", coming.join_all()).await {
        held.extend(socket);
    }
    // What the kernel has taken is read soon.
    let read = async { while site.used().await < site.max / 2 {} };
    soon("they are read", read).await;
    assert!(site.peak() < site.limit, "{} MiB", site.peak() / MIB);
    eprintln!("{} hellos; peak {} MiB", held.len(), site.peak() / MIB);
    for client in &mut idle {
        assert!(!is_closed(client).await, "closed for strangers");
    }
    drop(held);
    site.until_below_90_percent().await;
    site.until_there_is_room().await;
    neighbours.leave().await;
    site.end().await;
}

/// More than fit into the memory.
const HALVES: usize = 1_500;

/// A ClientHello of 64 KiB without its end, in four records.
fn half_a_hello() -> Vec<u8> {
    let message = [&[1, 0, 0xff, 0xff][..], &[0; 0xff00]].concat();
    let records = message.chunks(1 << 14).flat_map(|part| {
        let [high, low] = (part.len() as u16).to_be_bytes();
        [&[22, 3, 1, high, low], part].concat()
    });
    records.collect()
}
