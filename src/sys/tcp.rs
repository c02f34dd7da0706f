//! TCP listeners, one for each worker on the same port, and the options that their connections inherit.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, io};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tracing::warn;

/// Why nothing was bound, and the address that could not be bound.
#[derive(Debug)]
pub(crate) struct Unbound {
    /// `None` if the host has no address.
    pub address: Option<SocketAddr>,
    pub error: io::Error,
}

/// An address with its listeners.
type Sockets = (SocketAddr, Vec<TcpListener>);

/// Binds `count` listeners to each address of the host, all on the same port, IPv4 first. The kernel
/// spreads connections over the listeners of an address.
///
/// The first listener is bound without SO_REUSEPORT, and the option is set afterwards for the others.
/// Otherwise a second Vestibule of the same user would share the port unnoticed, instead of failing.
///
/// # Errors
///
/// The name does not resolve, or one of its addresses cannot be bound. An address that this machine
/// does not have is left out if the host has another one.
pub(crate) fn bind(
    host: &str,
    port: u16,
    count: usize,
    unacknowledged: Option<Duration>,
) -> Result<Vec<Sockets>, Unbound> {
    let addresses = addresses(host, port).map_err(|error| Unbound {
        address: None,
        error,
    })?;
    let mut attempts = 1..=ATTEMPTS;
    loop {
        let bound = bind_each(&addresses, count, unacknowledged);
        match bound {
            // The port that the system chose for one address may be in use at another.
            Err(Unbound { error, .. })
                if port == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && attempts.next().is_some() => {}
            bound => return bound,
        }
    }
}

/// All addresses of a host, IPv4 first. Resolves names.
pub(crate) fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = match host {
        // Both families, whatever /etc/hosts says (RFC 6761 §6.3): clients try either.
        "localhost" => vec![
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv6Addr::LOCALHOST, port).into(),
        ],
        host => (host, port).to_socket_addrs()?.collect(),
    };
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Whether a host is this machine.
#[derive(Debug)]
pub(crate) enum Whereabouts {
    Here,
    Elsewhere,
    Unknown(io::Error),
}

/// Whether this machine can listen on an address of the host. Resolves names.
pub(crate) fn whereabouts(host: &str) -> Whereabouts {
    let addresses = match addresses(host, 0) {
        Ok(addresses) => addresses,
        Err(error) => return Whereabouts::Unknown(error),
    };
    let is_elsewhere = |address: &SocketAddr| {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None);
        let bound = socket.and_then(|socket| socket.bind(&(*address).into()));
        bound.is_err_and(|error| is_not_here(&error))
    };
    match addresses.iter().all(is_elsewhere) {
        true => Whereabouts::Elsewhere,
        false => Whereabouts::Here,
    }
}

/// The message for a name without an address.
pub(crate) fn unknown_name(host: &str) -> String {
    format!(
        "the name {host:?} has no address; correct it, add it to /etc/hosts or the DNS, or give an \
         IP address"
    )
}

fn bind_each(
    addresses: &[SocketAddr],
    count: usize,
    unacknowledged: Option<Duration>,
) -> Result<Vec<Sockets>, Unbound> {
    let mut all: Vec<Sockets> = Vec::new();
    let mut last = Unbound {
        address: None,
        error: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
    };
    for address in addresses {
        let mut address = *address;
        if let Some((first, _)) = all.first() {
            address.set_port(first.port());
        }
        match bind_all(address, count, unacknowledged) {
            Ok(bound) => all.push(bound),
            Err(error) => {
                let is_elsewhere = is_not_here(&error);
                last = Unbound {
                    address: Some(address),
                    error,
                };
                if !is_elsewhere {
                    return Err(last);
                }
            }
        }
    }
    match all.is_empty() {
        true => Err(last),
        false => Ok(all),
    }
}

/// Whether this machine does not have the address, or its address family.
fn is_not_here(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind_all(
    address: SocketAddr,
    count: usize,
    unacknowledged: Option<Duration>,
) -> io::Result<Sockets> {
    let first = listener(address, unacknowledged)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    // With port 0, the other listeners use the port of the first one.
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        let next = listener(address, unacknowledged)?;
        next.set_reuse_port(true)?;
        next.bind(&bound)?;
        sockets.push(next);
    }
    let listening = sockets.into_iter().map(|socket| {
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    });
    let listening: io::Result<_> = listening.collect();
    let bound = bound.as_socket().unwrap_or(address);
    Ok((bound, listening?))
}

/// Makes a listener with the options that accepted sockets inherit on Linux, so that they cost no
/// system call for each connection.
fn listener(address: SocketAddr, unacknowledged: Option<Duration>) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` serves IPv4 as well, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    tune(&SockRef::from(&socket), unacknowledged);
    Ok(socket)
}

/// Sets the options of every TCP connection: no delay of small writes, and keepalive, which ends a
/// quiet connection whose peer has vanished.
///
/// While bytes are in transit, the relay checks their acknowledgements itself
/// (src/relay/idle_timer.rs): TCP_USER_TIMEOUT would also cut a peer that is alive and does not read.
///
/// Connections work without these options. If the kernel refuses one, this logs it once and continues.
pub(crate) fn tune(socket: &SockRef<'_>, unacknowledged: Option<Duration>) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
    let keepalive = match unacknowledged {
        Some(limit) => keepalive
            .with_interval((limit / KEEPALIVE_PROBES).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL))
            .with_retries(KEEPALIVE_PROBES),
        None => keepalive.with_interval(KEEPALIVE_INTERVAL),
    };
    let refused = [
        ("TCP_NODELAY", socket.set_tcp_nodelay(true)),
        ("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive)),
    ];
    for (option, result) in refused {
        if let Err(error) = result
            && !IS_SAID.swap(true, Ordering::Relaxed)
        {
            warn!(option, %error, "the kernel refused a socket option; connections work without it");
        }
    }
}

static IS_SAID: AtomicBool = AtomicBool::new(false);

/// The first port that needs no privilege.
pub(crate) fn first_unprivileged() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let port = text.ok().and_then(|it| it.trim().parse().ok());
    port.unwrap_or(1024)
}

/// Whether this process may bind the port, as far as privileges are concerned.
pub(crate) fn may_bind(port: u16) -> bool {
    port == 0 || port >= first_unprivileged() || {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        // If the capabilities cannot be read, the bind will show it.
        line.and_then(|it| u64::from_str_radix(it.trim(), 16).ok())
            .is_none_or(|effective| effective & CAP_NET_BIND_SERVICE != 0)
    }
}

/// From capabilities(7).
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;

/// Attempts to find a port that is free at all addresses of a name.
const ATTEMPTS: usize = 16;

/// The kernel lowers this to net.core.somaxconn.
pub(crate) const BACKLOG: i32 = 4096;

/// A vanished peer of a quiet connection is noticed after a minute plus `unacknowledged`.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_PROBES: u32 = 3;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The kernel's bounds: whole seconds, at most 32,767 (tcp(7)).
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(32_767);

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(30));

    #[test]
    fn accepted_connections_inherit_the_options() {
        let (address, listeners) = one("127.0.0.1", 0, 1).expect("a listener");
        let _client = TcpStream::connect(address).expect("a connection");
        listeners[0]
            .set_nonblocking(false)
            .expect("a blocking listener");
        let (accepted, _) = listeners[0].accept().expect("a connection");
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().expect("an option"));
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_user_timeout().expect("an option"), None);
        let interval = Duration::from_secs(10);
        assert_eq!(
            accepted.tcp_keepalive_interval().expect("an option"),
            interval
        );
        assert_eq!(accepted.tcp_keepalive_retries().expect("an option"), 3);
    }

    #[test]
    fn a_refused_socket_option_costs_no_connection() {
        // A Unix socket has no TCP options.
        let (socket, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        tune(&SockRef::from(&socket), TIMEOUT);
        // More seconds than the kernel accepts.
        let years = Some(Duration::from_secs(100_000_000));
        let bound = bind("127.0.0.1", 0, 1, years).expect("a listener");
        let set = SockRef::from(&bound[0].1[0]).tcp_keepalive_interval();
        assert_eq!(set.expect("an option"), LONGEST_INTERVAL);
    }

    #[test]
    fn a_port_is_shared_within_and_never_with_another_instance() {
        let (address, ours) = one("127.0.0.1", 0, 3).expect("three listeners");
        let port = address.port();
        assert!(
            ours.iter()
                .all(|l| l.local_addr().is_ok_and(|a| a.port() == port))
        );
        let second = one("127.0.0.1", port, 2).expect_err("taken");
        assert_eq!(second.error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(second.address, Some(address));
    }

    #[test]
    fn localhost_is_both_families_on_one_port() {
        let bound = bind("localhost", 0, 2, TIMEOUT).expect("listeners");
        let [(four, fours), (six, sixes)] = &bound[..] else {
            panic!("two addresses, not {bound:?}");
        };
        assert!(four.is_ipv4() && six.is_ipv6(), "{four} {six}");
        assert_eq!(four.port(), six.port());
        assert_eq!((fours.len(), sixes.len()), (2, 2));
        for address in [four, six] {
            TcpStream::connect(address).expect("a connection");
        }
        // Another instance cannot have the name if one of its addresses is in use.
        let second = bind("localhost", six.port(), 1, TIMEOUT).expect_err("taken");
        assert_eq!(second.error.kind(), io::ErrorKind::AddrInUse);
    }

    fn one(host: &str, port: u16, count: usize) -> Result<Sockets, Unbound> {
        bind(host, port, count, TIMEOUT).map(|mut bound| bound.remove(0))
    }
}
