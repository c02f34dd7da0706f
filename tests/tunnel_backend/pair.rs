//! Two Vestibules: one that brings tunnels, and one that takes them, in front of a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::common::changing::Site;
use crate::common::soon;
use crate::common::tunnel::LISTENER;
use crate::common::vestibule::{Relay, Vestibule};

/// The near one has plaintext clients and the far ones are reached through wires that can be cut.
pub(crate) struct Pair {
    pub(crate) site: Site,
    pub(crate) near: Vestibule,
    pub(crate) far: Vec<Vestibule>,
    pub(crate) wires: Vec<Wire>,
}

pub(crate) const ECHO: &str = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";

impl Pair {
    /// `near` are more keys of the near backend, and then more tables.
    pub(crate) async fn start(relay: Relay, near: &str, far: &[&str]) -> Self {
        let site = site();
        let (mut farther, mut wires) = (Vec::new(), Vec::new());
        for (index, rest) in far.iter().enumerate() {
            let runtime = runtime(relay, &format!("far-{index}"), 2);
            let file = format!("far-{index}.toml");
            let config = format!("{runtime}{LISTENER}{rest}");
            let far = Vestibule::start_as(&site.directory, &file, &config).await;
            wires.push(Wire::to(&far.tcp()).await);
            farther.push(far);
        }
        let to: Vec<String> = wires.iter().map(|it| it.address.clone()).collect();
        let near = start_near(&site, relay, &to, near).await;
        Self {
            site,
            near,
            far: farther,
            wires,
        }
    }

    pub(crate) async fn client(&self) -> TcpStream {
        connect(&self.near).await
    }
}

/// With the certificate `alice` for the near Vestibule.
pub(crate) fn site() -> Site {
    let site = Site::new();
    site.client("alice").write(site.directory.path(), "alice");
    site
}

/// A Vestibule with one worker, whose backend is reached through tunnels to these addresses.
pub(crate) async fn start_near(site: &Site, relay: Relay, to: &[String], more: &str) -> Vestibule {
    let config = near_config(relay, to, more);
    Vestibule::start_as(&site.directory, "near.toml", &config).await
}

/// `{tunnel}` in `more` is where keys of `[backend.tunnel]` follow; what is before it are keys of the backend.
pub(crate) fn near_config(relay: Relay, to: &[String], more: &str) -> String {
    let (keys, tables) = more.split_once("{tunnel}").unwrap_or(("", more));
    let (runtime, to) = (runtime(relay, "near", 1), to.join("\", \"tcp:"));
    format!(
        r#"{runtime}
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[[backend]]
name = "db"
to = ["tcp:{to}"]
{keys}
[backend.tls]
server_name = "localhost"
ca = "{{dir}}/ca.pem"
certificate = {{ chain = "{{dir}}/alice.pem", key = "{{dir}}/alice-key.pem" }}
[backend.tunnel]
authority = "db:5432"
{tables}
"#
    )
}

fn runtime(relay: Relay, name: &str, workers: usize) -> String {
    let word = match relay {
        Relay::Auto => "auto",
        Relay::Stream => "stream",
    };
    format!(
        "[runtime]\nworkers = {workers}\ndirectory = \"{{dir}}/{name}\"\nlog_format = \"json\"\nrelay = \"{word}\"\n"
    )
}

pub(crate) async fn connect(vestibule: &Vestibule) -> TcpStream {
    let client = TcpStream::connect(vestibule.tcp()).await.expect("TCP");
    client.set_nodelay(true).expect("an open socket");
    client
}

/// A place between two programs, where connections are counted and cut.
pub(crate) struct Wire {
    pub(crate) address: String,
    accepted: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Wire {
    pub(crate) async fn to(there: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, there) = (Arc::clone(&accepted), there.to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut here, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let there = there.clone();
                connections.spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(there).await {
                        let _ = copy_bidirectional(&mut here, &mut there).await;
                    }
                });
            }
        });
        Self {
            address,
            accepted,
            tasks,
        }
    }

    /// The number of connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Cuts all connections, and accepts no others.
    pub(crate) async fn cut(&mut self) {
        soon("the end of the wire", self.tasks.shutdown()).await;
    }
}
