//! The real binary, with a configuration in a directory of its own.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{project, soon};

/// A running Vestibule. Dropping it kills the process by its id.
pub struct Vestibule {
    /// The time before the start.
    born: Instant,
    child: Child,
    pub directory: Arc<TempDir>,
    log: watch::Receiver<Vec<Value>>,
    _reader: JoinSet<()>,
}

/// A listener with TLS on a free port, and one on a Unix socket in the test's directory. `{dir}` in
/// a configuration stands for that directory.
pub const LISTENERS: &str = r#"
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]

[[listener]]
name = "unix"
address = "unix:{dir}/front.sock"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
"#;

/// TCP clients get an echo, clients of the Unix socket get workers.
pub const ECHO_AND_WORKERS: &str = r#"
[[backend]]
name = "echo"
to = "echo"
[[backend]]
name = "app"
to = "gate"
[[route]]
listener = ["tcp"]
backend = "echo"
[[route]]
listener = ["unix"]
backend = "app"
"#;

/// The `relay` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Relay {
    Auto,
    Stream,
}

pub const RELAYS: [Relay; 2] = [Relay::Auto, Relay::Stream];

impl Relay {
    /// The beginning of a configuration with this relay.
    pub fn config(self) -> String {
        let word = match self {
            Self::Auto => "auto",
            Self::Stream => "stream",
        };
        format!("{RUNTIME}relay = \"{word}\"\n")
    }

    /// The word in the log for a side with TLS.
    pub fn side(self) -> &'static str {
        match self {
            Self::Auto => "record",
            Self::Stream => "stream",
        }
    }
}

impl Vestibule {
    /// Starts with the two listeners of [`LISTENERS`], followed by `config`.
    pub async fn start(config: &str) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().expect("a directory")), config).await
    }

    /// Like [`Self::start`], with this relay.
    pub async fn start_over(relay: Relay, config: &str) -> Self {
        Self::start(&(relay.config() + config)).await
    }

    pub async fn start_in(directory: Arc<TempDir>, config: &str) -> Self {
        Self::start_whole(directory, &format!("{config}\n{LISTENERS}")).await
    }

    /// Starts with `config` alone, and waits until it listens.
    pub async fn start_whole(directory: Arc<TempDir>, config: &str) -> Self {
        let vestibule = Self::spawn(directory, config, |command| command);
        vestibule.until_started().await;
        vestibule
    }

    /// Like [`Self::start_whole`], beside others in the same directory.
    pub async fn start_as(directory: &Arc<TempDir>, file: &str, config: &str) -> Self {
        let vestibule = Self::spawn_as(Arc::clone(directory), file, config, |command| command);
        vestibule.until_started().await;
        vestibule
    }

    /// Starts and waits for nothing. `change` may wrap or extend the command.
    pub fn spawn(
        directory: Arc<TempDir>,
        config: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> Self {
        Self::spawn_as(directory, "vestibule.toml", config, change)
    }

    fn spawn_as(
        directory: Arc<TempDir>,
        file: &str,
        config: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> Self {
        let path = directory.path().join(file);
        fs::write(&path, complete(&directory, config)).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
        command
            .args(["run", "-c"])
            .arg(path)
            .env("RUST_LOG", "vestibule=debug");
        let born = Instant::now();
        let mut child = change(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, log) = watch::channel(Vec::new());
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut lines = stderr.lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // A line that is not JSON is kept as text: a panic, or an error before logging is
                // set up.
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                sender.send_modify(|log| log.push(event));
            }
        });
        Self {
            born,
            child,
            directory,
            log,
            _reader: reader,
        }
    }

    pub async fn until_started(&self) {
        let started = self.event(|event| message(event).starts_with("limits: "));
        soon("start", started).await;
    }

    /// The first event, past or future, for which `is_it` returns true.
    pub async fn event(&self, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        let mut log = self.log.clone();
        let found = soon("the event", log.wait_for(|log| log.iter().any(&mut is_it))).await;
        match found {
            Ok(log) => log
                .iter()
                .find(|event| is_it(event))
                .expect("just seen")
                .clone(),
            Err(_) => panic!(
                "it ended without the event; its log: {:#?}",
                *self.log.borrow()
            ),
        }
    }

    /// Waits until it has logged this text `count` times.
    pub async fn said(&self, text: &str, count: usize) {
        let mut log = self.log.clone();
        let is_enough = |log: &Vec<Value>| {
            let times = log.iter().filter(|event| message(event) == text);
            times.count() >= count
        };
        let what = format!("{count} times {text:?}");
        if soon(&what, log.wait_for(is_enough)).await.is_err() {
            panic!("it ended before {what}");
        }
    }

    /// Everything that was logged so far.
    pub fn log(&self) -> Vec<Value> {
        self.log.borrow().clone()
    }

    /// Everything that was logged until the exit.
    pub async fn whole_log(&self) -> Vec<Value> {
        let mut log = self.log.clone();
        soon("the end of the log", async {
            while log.changed().await.is_ok() {}
        })
        .await;
        self.log()
    }

    /// The longest time that it can have run.
    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("not waited for")
    }

    /// `127.0.0.1:PORT` of the listener `tcp`.
    pub fn tcp(&self) -> String {
        self.address("tcp")
    }

    /// The address of a TCP listener, from the log of the start.
    pub fn address(&self, listener: &str) -> String {
        let log = self.log.borrow();
        let line = log.iter().find(|event| {
            event["listener"] == listener && message(event).starts_with("listening on tcp:")
        });
        message(line.expect("a listener"))
            .trim_start_matches("listening on tcp:")
            .to_owned()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn gate(&self) -> PathBuf {
        self.path("run/gate.sock")
    }

    /// The number of connections by outcome so far, including the refused ones.
    pub fn outcomes(&self) -> HashMap<String, usize> {
        outcomes(&self.log.borrow())
    }

    /// Waits until `count` connections have ended with `outcome`.
    pub async fn ended(&self, outcome: &str, count: usize) {
        let mut log = self.log.clone();
        let what = format!("{count} times {outcome}");
        let seen = soon(
            &what,
            log.wait_for(|log| outcomes(log).get(outcome).copied().unwrap_or(0) >= count),
        )
        .await;
        if seen.is_err() {
            panic!("it ended before {what}: {:?}", self.outcomes());
        }
    }

    /// Waits until `count` connections have ended with `outcome`, and checks the relay of all
    /// connections.
    pub async fn ended_over(&self, relay: Relay, outcome: &str, count: usize) {
        self.ended(outcome, count).await;
        self.assert_over(relay);
    }

    /// Checks that all clients and backends with TLS were relayed in this way. All clients must
    /// have TLS.
    pub fn assert_over(&self, relay: Relay) {
        let sides = self.sides();
        assert_ne!(sides.len(), 0, "no connection had a relay");
        for (client, backend) in sides {
            assert_eq!(client, relay.side());
            let backends = ["none", "plain", relay.side()];
            assert!(backends.contains(&&*backend), "{backend}");
        }
    }

    /// The words in the log for the client's side and the backend's side of each ended connection
    /// with a route. The backend's side is `none` if no backend had the connection.
    pub fn sides(&self) -> Vec<(String, String)> {
        let word = |side: &Value| side.as_str().unwrap_or("none").to_owned();
        let sides = |it: &Value| {
            let span = &it["span"];
            (word(&span["client_side"]), word(&span["backend_side"]))
        };
        let closed = self.closed().into_iter();
        let routed = closed.filter(|it| !it["span"]["client_side"].is_null());
        routed.map(|it| sides(&it)).collect()
    }

    /// The closing events so far.
    pub fn closed(&self) -> Vec<Value> {
        self.log
            .borrow()
            .iter()
            .filter(|event| message(event) == "connection closed")
            .cloned()
            .collect()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("our own child");
    }

    pub async fn wait(&mut self) -> ExitStatus {
        soon("exit", self.child.wait())
            .await
            .expect("our own child")
    }

    /// Sends SIGTERM, and returns the exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.wait().await.code()
    }

    /// Sends SIGKILL, so that it cannot clean up.
    pub async fn kill(mut self) -> Arc<TempDir> {
        self.signal(rustix::process::Signal::KILL);
        self.wait().await;
        Arc::clone(&self.directory)
    }

    /// The number of open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a live process")
            .count()
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("alive");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("a VmRSS line");
        let kib = line.split_whitespace().nth(1).expect("a number");
        kib.parse::<usize>().expect("a number") * 1024
    }
}

/// The common part of configurations. Keys of `[runtime]` may follow.
pub const RUNTIME: &str =
    "[runtime]\nworkers = 2\ndirectory = \"{dir}/run\"\nlog_format = \"json\"\n";

/// Fills in the directories of the test and of the certificates, and the paths of logs and sockets.
pub fn complete(directory: &TempDir, config: &str) -> String {
    let config = if config.contains("[runtime]") {
        config.into()
    } else {
        format!("{RUNTIME}{config}")
    };
    config
        .replace("{dir}", &directory.path().display().to_string())
        .replace("{certs}", &project("certs"))
}

pub fn message(event: &Value) -> &str {
    event["message"].as_str().unwrap_or_default()
}

fn outcomes(log: &[Value]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for event in log {
        if let Some(outcome) = event["outcome"].as_str() {
            *counts.entry(outcome.to_owned()).or_default() += 1;
        }
    }
    counts
}
