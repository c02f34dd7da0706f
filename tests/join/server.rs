//! The local server is down, or this worker is at its limits: then the front has to find another worker.

use h2::Reason;

use crate::common::backend::Backend;
use crate::common::changing::Site;
use crate::common::client::Socket;
use crate::common::vestibule::{RUNTIME, Vestibule, message};
use crate::join::front::{Front, echo, join, worker};
use crate::{FACTS, echo_server};

#[tokio::test]
async fn a_connection_goes_back_if_the_local_server_is_down_and_nothing_is_offered_until_it_is_up()
{
    let site = Site::new();
    let front = Front::new(&site).await;
    let to = format!("unix:{}", site.path("app.sock").display());
    let worker = worker(&site, &[&front], &to, 2).await;
    let tunnel = front.tunnel().await;
    let (told, other) = (tunnel.offer().await, tunnel.offer().await);
    let mut stream = told.give(FACTS);
    assert_eq!(stream.reset().await, Some(Reason::CANCEL));
    assert_eq!(other.withdrawn().await, Reason::CANCEL);
    // The one that took the place of the first.
    assert_eq!(tunnel.offer().await.withdrawn().await, Reason::CANCEL);
    worker.said(DOWN, 1).await;
    worker.ended("backend_refused", 1).await;
    let (_, _server) = echo_server(&site);
    worker.said("the local server answers again", 1).await;
    echo(&mut tunnel.offer().await.tunnelled(FACTS).await, b"hello").await;
}

const DOWN: &str = "the local server does not answer; offering nothing until it does";

#[tokio::test]
async fn a_connection_goes_back_in_time_if_the_local_server_is_silent() {
    let site = Site::new();
    let front = Front::new(&site).await;
    // An address that swallows packets: connects neither succeed nor fail.
    let silent = silent_address().await;
    let worker = worker(&site, &[&front], &silent.address, 1).await;
    let tunnel = front.tunnel().await;
    let began = std::time::Instant::now();
    let mut stream = tunnel.offer().await.give(FACTS);
    assert_eq!(stream.reset().await, Some(Reason::CANCEL));
    assert!(began.elapsed() < std::time::Duration::from_secs(2));
    worker.ended("backend_timeout", 1).await;
}

/// A listener whose queue is full: the kernel drops what comes.
pub(super) struct Silent {
    pub(super) address: String,
    _listener: socket2::Socket,
    _queued: Vec<socket2::Socket>,
}

pub(super) async fn silent_address() -> Silent {
    use socket2::{Domain, SockAddr, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&SockAddr::from(any)).expect("a port");
    listener.listen(0).expect("listening");
    let address = listener.local_addr().expect("bound");
    let mut queued = Vec::new();
    for _ in 0..3 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.set_nonblocking(true).expect("an open socket");
        let _ = client.connect(&address);
        queued.push(client);
    }
    let address = address.as_socket().expect("IPv4");
    Silent {
        address: format!("tcp:{address}"),
        _listener: listener,
        _queued: queued,
    }
}

#[tokio::test]
async fn a_worker_at_its_limit_gives_connections_back() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let backend = Backend::unix(&site.path("app.sock"));
    let config = join(&[&front], &backend.address(), 2);
    site.client("worker").write(site.directory.path(), "worker");
    let config = format!("{config}\n[limits]\nconnections = 1\n");
    let worker = Vestibule::start_whole(std::sync::Arc::clone(&site.directory), &config).await;
    let tunnel = front.tunnel().await;
    let (stream, server) = tokio::join!(
        async { tunnel.offer().await.tunnelled(FACTS).await },
        async { backend.accept().await.expect("a connection") }
    );
    let mut second = tunnel.offer().await.give(FACTS);
    assert_eq!(second.reset().await, Some(Reason::CANCEL));
    assert_eq!(tunnel.offer().await.withdrawn().await, Reason::CANCEL);
    worker.ended("over_limit", 1).await;
    drop(stream);
    drop(server);
    worker.ended("client_reset", 1).await;
    // There is room again, and it offers itself after a pause.
    let (_stream, server): (_, Socket) = tokio::join!(
        async { tunnel.offer().await.tunnelled(FACTS).await },
        async { backend.accept().await.expect("a connection") }
    );
    drop(server);
}

/// A listener beside the join, and the admin API, work as ever.
#[tokio::test]
async fn a_join_works_beside_a_listener() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let tables = join(&[&front], &to, 2);
    let (_, tables) = tables.split_once("[[join]]").expect("a table");
    site.client("worker").write(site.directory.path(), "worker");
    let config = format!(
        "{RUNTIME}[[join]]{tables}[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [[backend]]\nname = \"app\"\nto = \"{to}\"\n"
    );
    let worker = Vestibule::start_whole(std::sync::Arc::clone(&site.directory), &config).await;
    // Two worker threads share the two offers.
    let (one, two) = (front.tunnel().await, front.tunnel().await);
    echo(&mut one.offer().await.tunnelled(FACTS).await, b"one").await;
    echo(&mut two.offer().await.tunnelled(FACTS).await, b"two").await;
    let client = tokio::net::TcpStream::connect(worker.address("plain")).await;
    let mut client = client.expect("a connection");
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    client.write_all(b"three").await.expect("open");
    let mut word = [0; 5];
    client.read_exact(&mut word).await.expect("an echo");
    let joined = worker.log();
    let joined = joined.iter().filter(|it| message(it) == "joined the front");
    assert_eq!(joined.count(), 1, "the threads say it once");
}
