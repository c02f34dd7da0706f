//! What a client of `/v1/events` gets, and what happens to one that does not read.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpStream, UnixStream};

use crate::common::admin::WRITE;
use crate::common::client::Front;
use crate::common::soon;
use crate::common::vestibule::Vestibule;
use crate::{ECHO, ask_of, relayed};

/// A stream after its head.
struct Follower(Lines<BufReader<UnixStream>>);

impl Follower {
    async fn of(vestibule: &Vestibule, query: &str) -> Self {
        let socket = UnixStream::connect(vestibule.path("run/admin.sock")).await;
        let mut socket = socket.expect("a socket");
        let head = format!("GET /v1/events{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(head.as_bytes()).await.expect("room");
        let mut follower = Self(BufReader::new(socket).lines());
        assert_eq!(follower.line().await, "HTTP/1.1 200 OK");
        // The hub has subscribed when it greets.
        while follower.line().await != "retry: 2000" {}
        follower
    }

    async fn line(&mut self) -> String {
        let line = soon("a line", self.0.next_line()).await;
        line.expect("an open stream").expect("a line")
    }

    /// The next event of this kind.
    async fn next(&mut self, kind: &str) -> Value {
        loop {
            let line = self.line().await;
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            let event: Value = serde_json::from_str(data).expect("JSON");
            if event["event"] == kind {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn openings_closings_refusals_limits_and_reloads_are_told() {
    let config = format!("[limits]\nconnections = 2\n{ECHO}");
    let vestibule = Vestibule::start(&config).await;
    let mut all = Follower::of(&vestibule, "").await;
    let front = Front::Tcp(vestibule.tcp());
    let client = relayed(&front).await;
    let open = all.next("open").await;
    assert_eq!(
        (&open["backend"], &open["tls"]["sni"]),
        (&"echo".into(), &"localhost".into())
    );

    let mut junk = TcpStream::connect(vestibule.tcp()).await.expect("open");
    junk.write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("open");
    let refuse = all.next("refuse").await;
    assert_eq!(
        (&refuse["outcome"], &refuse["clients"]),
        (&"not_tls".into(), &1.into())
    );

    let second = relayed(&front).await;
    for _ in 0..20 {
        // The connection is closed before or during the handshake.
        assert!(front.connect().await.is_err());
    }
    let limit = all.next("limit").await;
    assert_eq!(limit["limit"], "limits.connections");
    assert!(limit["clients"].as_u64() >= Some(1), "{limit}");

    drop((client, second));
    let close = all.next("close").await;
    assert_eq!(close["bytes_in"], 5);
    let flags = [&["-X", "POST"], &WRITE[..]].concat();
    assert_eq!(ask_of(&vestibule, "/v1/reload", &flags).await.status, 202);
    assert_eq!(all.next("reload").await["result"], "ok");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_counted_and_others_miss_nothing() {
    let config = format!("{ECHO}[[listener]]\nname = \"plain\"\naddress = \"tcp:127.0.0.1:0\"\n");
    let vestibule = Vestibule::start(&config).await;
    let slow = Follower::of(&vestibule, "").await;
    let mut reader = Follower::of(&vestibule, "?kinds=close").await;
    let plain = vestibule.address("plain");
    // The events of a connection take more than a kilobyte, and a socket buffers some hundred.
    for _ in 0..1500 {
        let mut client = TcpStream::connect(&plain).await.expect("open");
        client.shutdown().await.expect("open");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("a clean end");
        assert_eq!(reader.next("close").await["outcome"], "done");
    }
    let mut buffered = Vec::new();
    let mut slow = slow.0.into_inner();
    // What is in the socket is still there, and then it ends in the midst of an answer.
    soon("the end", slow.read_to_end(&mut buffered))
        .await
        .expect("an end");
    assert!(
        !buffered.ends_with(b"0\r\n\r\n"),
        "not the end of an answer"
    );
    let metrics = ask_of(&vestibule, "/metrics", &[]).await.body;
    let mut lines = metrics.lines();
    let dropped = lines.find_map(|it| it.strip_prefix("vestibule_dropped_total{what=\"events\"} "));
    assert!(dropped.is_some_and(|it| it != "0"), "{dropped:?}");
}

#[tokio::test]
async fn streams_have_16_places_and_leave_room_for_requests() {
    let vestibule = Vestibule::start(ECHO).await;
    let mut followers = Vec::new();
    for _ in 0..16 {
        followers.push(Follower::of(&vestibule, "?kinds=reload").await);
    }
    let refused = ask_of(&vestibule, "/v1/events", &[]).await;
    assert_eq!((refused.status, &*refused.code()), (503, "busy"));
    let wrong = ask_of(&vestibule, "/v1/events?kinds=opened", &[]).await;
    assert_eq!((wrong.status, &*wrong.code()), (400, "bad_request"));
    assert_eq!(ask_of(&vestibule, "/v1/events", &["-I"]).await.status, 200);
    assert_eq!(ask_of(&vestibule, "/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn the_history_has_a_sample_of_now_when_it_starts() {
    let vestibule = Vestibule::start(ECHO).await;
    let history = ask_of(&vestibule, "/v1/history", &[]).await.json();
    assert_eq!(history["interval"], 5);
    let samples = history["samples"].as_array().expect("a list");
    assert!(!samples.is_empty());
    assert_eq!(samples[0]["bytes_in"], 0);
}
