//! `vestibule top` and `connections --watch` on a real terminal.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::client::{Client, Front};
use common::process::{output, vestibule};
use common::tmux::Tmux;
use common::vestibule::Vestibule;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ECHO: &str = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";

/// A client whose connection has moved `bytes` both ways.
async fn moved(front: &Front, bytes: usize) -> Client {
    let mut client = front.connect().await.expect("a handshake");
    client.write_all(&vec![7; bytes]).await.expect("open");
    client.flush().await.expect("open");
    let mut answer = vec![0; bytes];
    common::soon("an echo", client.read_exact(&mut answer))
        .await
        .expect("open");
    client
}

/// The command for the instance of this test. What it leaves behind is visible after it.
fn script(running: &Vestibule, words: &str) -> String {
    let binary = env!("CARGO_BIN_EXE_vestibule");
    let socket = running.path("run/admin.sock");
    let socket = socket.display();
    // The shell itself outlives Ctrl-C.
    format!(
        "trap : INT; {binary} {words} --admin unix:{socket}; code=$?; stty -a; echo \"ended with $code\"; exec cat"
    )
}

/// The address of a client, as the server shows it.
fn peer(client: &Client) -> String {
    match client.get_ref().0 {
        common::client::Socket::Tcp(stream) => stream.local_addr().expect("open").to_string(),
        common::client::Socket::Unix(_) => panic!("no address"),
    }
}

/// The row with the cursor is what is reversed.
fn rows(screen: &str) -> Vec<&str> {
    let rows = screen.lines().skip_while(|line| !line.contains("PEER"));
    rows.skip(1)
        .filter(|line| line.contains("127.0.0.1"))
        .collect()
}

/// The terminal is in its usual state, and the program has ended in order.
fn is_restored(screen: &str) -> bool {
    screen.contains("ended with 0") && screen.contains(" icanon") && !screen.contains("-icanon")
}

#[tokio::test]
async fn top_shows_connections_sorts_filters_and_kills_after_a_question() {
    let running = Vestibule::start(ECHO).await;
    let front = Front::Tcp(running.tcp());
    let small = moved(&front, 10).await;
    let mut large = moved(&front, 3_000_000).await;
    let middle = moved(&front, 40_000).await;
    let top = Tmux::start(80, 24, &script(&running, "top")).await;
    let screen = top.until("three rows", |it| rows(it).len() == 3).await;
    for part in ["ready", "open 3", "days ", "echo", "descriptors", "AGE▼"] {
        assert!(screen.contains(part), "{part}:\n{screen}");
    }
    assert!(rows(&screen)[0].contains(&peer(&small)), "{screen}");

    top.press(&["b"]).await;
    let is_first = |it: &str, client: &Client| {
        rows(it)
            .first()
            .is_some_and(|row| row.contains(&peer(client)))
    };
    top.until("the largest first", |it| is_first(it, &large))
        .await;
    top.press(&["b"]).await;
    top.until("the smallest first", |it| is_first(it, &small))
        .await;

    top.press(&["/"]).await;
    top.text(&peer(&large)).await;
    top.press(&["Enter"]).await;
    top.until("the filtered row", |it| {
        rows(it).len() == 1 && is_first(it, &large)
    })
    .await;
    top.press(&["Enter"]).await;
    top.shows("TLS13_AES_").await;
    top.press(&["Escape"]).await;
    top.until("the table", |it| !it.contains("TLS13_AES_"))
        .await;

    // No other key than y ends anything.
    top.press(&["k"]).await;
    top.shows("End connection").await;
    top.press(&["n"]).await;
    top.until("no question", |it| !it.contains("End connection"))
        .await;
    large.write_all(b"alive").await.expect("open");
    large.read_exact(&mut [0; 5]).await.expect("open");
    top.press(&["k"]).await;
    top.shows("End connection").await;
    top.press(&["y"]).await;
    let ended = common::soon("the end", large.read(&mut [0])).await;
    assert_eq!(ended.expect("a clean end"), 0);
    running.ended("killed", 1).await;
    top.shows("no connection matches").await;
    top.press(&["Escape"]).await;
    top.until("the others", |it| rows(it).len() == 2).await;
    assert_eq!(running.outcomes().get("killed"), Some(&1));
    drop((small, middle));

    top.press(&["q"]).await;
    top.until("a restored terminal", is_restored).await;
}

#[tokio::test]
async fn top_shows_a_lost_server_and_goes_on_when_it_is_back() {
    let running = Vestibule::start(ECHO).await;
    let front = Front::Tcp(running.tcp());
    let client = moved(&front, 10).await;
    let top = Tmux::start(80, 24, &script(&running, "top")).await;
    top.until("a row", |it| rows(it).len() == 1).await;
    let first = format!("process {}", running.pid());
    top.shows(&first).await;
    let directory = running.kill().await;
    drop(client);
    // A capture may be of a half-painted screen.
    let words = ["LOST, data", "trying again: nobody answers at unix:"];
    let lost = top
        .until("the loss", |it| words.iter().all(|word| it.contains(word)))
        .await;
    // What was known stays.
    assert_eq!(rows(&lost).len(), 1, "{lost}");
    let running = Vestibule::start_in(Arc::clone(&directory), ECHO).await;
    top.shows(&format!("process {}", running.pid())).await;
    top.until("no loss", |it| it.contains("ready") && !it.contains("LOST"))
        .await;
    top.press(&["C-c"]).await;
    top.until("a restored terminal", is_restored).await;
}

#[tokio::test]
async fn top_follows_the_size_of_its_terminal_and_leaves_it_in_order_on_sigterm() {
    let running = Vestibule::start(ECHO).await;
    let front = Front::Tcp(running.tcp());
    let _client = moved(&front, 10).await;
    let top = Tmux::start(40, 10, &script(&running, "top")).await;
    let small = top.until("a row", |it| rows(it).len() == 1).await;
    assert!(!small.contains("Certificates"), "{small}");
    top.resize(160, 50).await;
    top.until("everything", |it| {
        it.contains("Certificates") && it.contains("LISTENER")
    })
    .await;
    top.press(&["?"]).await;
    top.shows("Shift-Tab").await;
    let pid = only_child_named("vestibule", &running).await;
    kill_process(pid, Signal::TERM).expect("our own");
    top.until("a restored terminal", is_restored).await;
}

/// The process of `top`: the one that has this admin socket on its command line.
async fn only_child_named(name: &str, running: &Vestibule) -> Pid {
    let socket = running.path("run/admin.sock").display().to_string();
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let found = processes.filter_map(|entry| {
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let program = Path::new(line.split('\0').next()?).file_name()?.to_owned();
        (program == name && line.contains(&socket)).then_some(pid)
    });
    let found: Vec<i32> = found.collect();
    assert_eq!(found.len(), 1);
    Pid::from_raw(found[0]).expect("a pid")
}

#[tokio::test]
async fn where_the_api_takes_no_writes_top_says_so_and_kills_nothing() {
    let config = format!("[admin]\naddress = \"tcp:127.0.0.1:0\"\n{ECHO}");
    let running = Vestibule::start(&config).await;
    let front = Front::Tcp(running.tcp());
    let mut client = moved(&front, 10).await;
    let said = running
        .event(|it| common::vestibule::message(it).starts_with("admin API at tcp:"))
        .await;
    let address = common::vestibule::message(&said).trim_start_matches("admin API at ");
    let binary = env!("CARGO_BIN_EXE_vestibule");
    let top = Tmux::start(80, 24, &format!("{binary} top --admin {address}; exec cat")).await;
    top.until("a row", |it| rows(it).len() == 1).await;
    top.press(&["k"]).await;
    let screen = top
        .until("an answer", |it| {
            it.contains("End connection") || it.contains("over TCP")
        })
        .await;
    if screen.contains("End connection") {
        top.press(&["y"]).await;
    }
    top.shows("over TCP").await;
    client.write_all(b"alive").await.expect("open");
    client.read_exact(&mut [0; 5]).await.expect("open");
    assert!(running.outcomes().is_empty());
}

#[tokio::test]
async fn no_color_is_heeded() {
    let running = Vestibule::start(ECHO).await;
    let colour = "\u{1b}[3";
    let coloured = Tmux::start(80, 24, &script(&running, "top")).await;
    coloured.shows("ready").await;
    assert!(coloured.coloured_screen().await.contains(colour));
    let plain = format!("export NO_COLOR=1; {}", script(&running, "top"));
    let plain = Tmux::start(80, 24, &plain).await;
    plain.shows("ready").await;
    let screen = plain.coloured_screen().await;
    let colours = ["[3", "[4", "[9"].map(|it| format!("\u{1b}{it}"));
    let is_colour = |it: &String| {
        let after = screen.split(it.as_str()).skip(1);
        // [3m is italic, [4m underlined, [39m and [49m the terminal's own colours.
        after
            .into_iter()
            .any(|rest| !rest.starts_with(['m', '9', ';']))
    };
    assert!(!colours.iter().any(is_colour), "{screen:?}");
    // What matters stands out also without colours: it is reversed.
    let _directory = running.kill().await;
    plain.shows("LOST").await;
    let screen = plain.coloured_screen().await;
    assert!(screen.contains("7m LOST"), "{screen:?}");
}

#[tokio::test]
async fn without_a_terminal_top_says_what_to_use_instead() {
    let mut command = vestibule();
    command
        .args(["top", "--admin", "unix:/nowhere"])
        .env("TERM", "xterm");
    let done = output(command).await;
    assert_eq!(done.code, Some(2));
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    assert!(done.err.contains("needs a terminal"), "{}", done.err);
    assert!(done.err.contains("status --json"), "{}", done.err);
}

#[tokio::test]
async fn a_watch_on_a_terminal_stays_in_place() {
    let running = Vestibule::start(ECHO).await;
    let front = Front::Tcp(running.tcp());
    let client = moved(&front, 10).await;
    let words = script(&running, "connections --watch=1");
    let watch = Tmux::start(100, 12, &format!("echo before; {words}")).await;
    watch.until("a row", |it| rows(it).len() == 1).await;
    let second = moved(&front, 10).await;
    let screen = watch.until("two rows", |it| rows(it).len() == 2).await;
    assert_eq!(screen.matches("PEER").count(), 1, "{screen}");
    assert!(
        screen
            .lines()
            .next()
            .is_some_and(|it| it.contains("connections: 2"))
    );
    drop((client, second));
    let screen = watch.until("no row", |it| rows(it).is_empty()).await;
    assert!(!screen.contains("relaying"), "{screen}");
    watch.press(&["C-c"]).await;
    watch.shows("ended with 0").await;
    // What was there before is above.
    assert!(watch.history().await.starts_with("before"));
}
