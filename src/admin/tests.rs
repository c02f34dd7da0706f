//! What observers are told of requests, and how long a stream lasts.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::config::Config;
use crate::proxy::Proxy;
use crate::supervisor::{ConfigSource, Supervisor};

const CONFIG: &str = r#"
[admin]
address = "tcp:127.0.0.1:0"
allow_writes_over_tcp = true
[[listener]]
name = "plain"
address = "tcp:127.0.0.1:0"
[[backend]]
name = "echo"
to = "echo"
"#;

#[tokio::test]
async fn only_changes_are_published_with_their_author_and_the_answer() {
    let config: Config = CONFIG.parse().expect("a configuration");
    let proxy = Proxy::builder(config).with_admin().bind().await;
    let mut proxy = proxy.expect("free ports");
    let admin = proxy.take_admin().expect("an address");
    let address = admin.addresses().next().expect("one");
    let supervisor = Supervisor::start(proxy, ConfigSource::code(|| Ok(Config::demo())));
    let handle = supervisor.handle();
    let mut events = handle.state().journal.subscribe("test", 8);
    let requests = async {
        for (method, header) in [("GET", "1"), ("DELETE", "0"), ("DELETE", "1")] {
            let stream = TcpStream::connect(address.trim_start_matches("tcp:")).await;
            let mut stream = stream.expect("it listens");
            let request = format!(
                "{method} /v1/connections?sni=x HTTP/1.1\r\nHost: localhost\r\n\
                 Vestibule-Admin: {header}\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.expect("open");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
        }
    };
    tokio::select! {
        () = requests => {}
        never = admin.serve(handle) => match never {},
    }
    let event = events.next_queued().expect("one event");
    let event = serde_json::to_value(&*event).expect("JSON");
    assert_eq!(event["event"], "admin");
    assert_eq!(event["action"], "DELETE /v1/connections?sni=x");
    assert_eq!(event["result"], "200");
    let author = event["address"].as_str();
    assert!(
        author.is_some_and(|it| it.starts_with("127.0.0.1:")),
        "{event}"
    );
    assert!(events.next_queued().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_lasts_longer_than_the_minute_of_a_request() {
    let config: Config = CONFIG.parse().expect("a configuration");
    let proxy = Proxy::builder(config).with_admin().bind().await;
    let mut proxy = proxy.expect("free ports");
    let admin = proxy.take_admin().expect("an address");
    let address = admin.addresses().next().expect("one");
    let supervisor = Supervisor::start(proxy, ConfigSource::code(|| Ok(Config::demo())));
    let handle = supervisor.handle();
    let follow = async {
        let stream = TcpStream::connect(address.trim_start_matches("tcp:")).await;
        let mut stream = BufReader::new(stream.expect("it listens"));
        let request = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await.expect("open");
        let (mut line, mut pings) = (String::new(), 0);
        // Two minutes.
        while pings < 8 {
            line.clear();
            let read = stream.read_line(&mut line).await.expect("an open stream");
            assert_ne!(read, 0, "it has ended after {pings} pings");
            pings += usize::from(line == ": ping\n");
        }
    };
    tokio::select! {
        () = follow => {}
        never = admin.serve(handle) => match never {},
    }
}
