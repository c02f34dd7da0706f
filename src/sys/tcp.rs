//! TCP listeners, one a worker on the same port, and the options that every connection inherits.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tracing::warn;

/// Binds `count` listeners to one address; the kernel spreads the connections over them.
///
/// The first is bound without SO_REUSEPORT, which is set afterwards for the others: otherwise a
/// second Vestibule of the same user would share the port unnoticed instead of failing.
///
/// # Errors
///
/// The name does not resolve, or no address that it resolves to can be bound.
pub(crate) fn bind(
    host: &str,
    port: u16,
    count: usize,
    unacknowledged: Option<Duration>,
) -> io::Result<Vec<TcpListener>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match bind_all(address, count, unacknowledged) {
            Ok(listeners) => return Ok(listeners),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_all(
    address: SocketAddr,
    count: usize,
    unacknowledged: Option<Duration>,
) -> io::Result<Vec<TcpListener>> {
    let first = listener(address, unacknowledged)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    // With port 0 the others follow the first one's choice.
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        let next = listener(address, unacknowledged)?;
        next.set_reuse_port(true)?;
        next.bind(&bound)?;
        sockets.push(next);
    }
    sockets
        .into_iter()
        .map(|socket| {
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// Sets what accepted sockets inherit on Linux, so that it costs no system call a connection.
fn listener(address: SocketAddr, unacknowledged: Option<Duration>) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` serves IPv4 as well, whatever the machine's default is.
        socket.set_only_v6(false)?;
    }
    tune(&SockRef::from(&socket), unacknowledged);
    Ok(socket)
}

/// What every TCP connection has: no delay of small writes, and an end when the peer is silently
/// gone (the leak that peers' users met until both of the latter were on by default).
///
/// None of it is worth a connection. What the kernel refuses is said once and left.
pub(crate) fn tune(socket: &SockRef<'_>, unacknowledged: Option<Duration>) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    // The kernel takes an i32 of milliseconds, 24 days, and refuses what is longer.
    let unacknowledged = unacknowledged.map(|it| it.min(LONGEST_UNACKNOWLEDGED));
    let refused = [
        ("TCP_NODELAY", socket.set_tcp_nodelay(true)),
        ("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive)),
        (
            "TCP_USER_TIMEOUT",
            socket.set_tcp_user_timeout(unacknowledged),
        ),
    ];
    for (option, result) in refused {
        if let Err(error) = result
            && !IS_SAID.swap(true, Ordering::Relaxed)
        {
            warn!(option, %error, "the kernel refuses a socket option; connections go on without it");
        }
    }
}

static IS_SAID: AtomicBool = AtomicBool::new(false);

/// The kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// A dead peer of a quiet connection is noticed about two minutes after it went.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

const LONGEST_UNACKNOWLEDGED: Duration = Duration::from_millis(i32::MAX as u64);

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(30));

    #[test]
    fn accepted_connections_inherit_the_options() {
        let listeners = bind("127.0.0.1", 0, 1, TIMEOUT).expect("a listener");
        let address = listeners[0].local_addr().expect("an address");
        let _client = TcpStream::connect(address).expect("a connection");
        listeners[0]
            .set_nonblocking(false)
            .expect("a blocking listener");
        let (accepted, _) = listeners[0].accept().expect("a connection");
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().expect("an option"));
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_user_timeout().expect("an option"), TIMEOUT);
    }

    #[test]
    fn what_the_kernel_refuses_costs_no_connection() {
        // No option of TCP is one of a Unix socket.
        let (socket, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        tune(&SockRef::from(&socket), TIMEOUT);
        // More milliseconds than the kernel counts.
        let years = Some(Duration::from_secs(100_000_000));
        let listeners = bind("127.0.0.1", 0, 1, years).expect("a listener");
        let set = SockRef::from(&listeners[0]).tcp_user_timeout();
        assert_eq!(set.expect("an option"), Some(LONGEST_UNACKNOWLEDGED));
    }

    #[test]
    fn a_port_is_shared_within_and_never_with_another_instance() {
        let ours = bind("127.0.0.1", 0, 3, TIMEOUT).expect("three listeners");
        let port = ours[0].local_addr().expect("an address").port();
        assert!(
            ours.iter()
                .all(|l| l.local_addr().is_ok_and(|a| a.port() == port))
        );
        let second = bind("127.0.0.1", port, 2, TIMEOUT);
        assert_eq!(
            second.err().map(|e| e.kind()),
            Some(io::ErrorKind::AddrInUse)
        );
    }
}
