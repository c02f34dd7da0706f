//! The promises of a pool, with sockets that answer, refuse, are full or stay silent.

mod choice;
mod health;
mod names;
mod orders;
mod parking;

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use socket2::{Domain, Type};
use tempfile::TempDir;
use tokio::time::Instant;

use super::target::RETRY_AFTER;
use super::*;
use crate::backend::dial::Place;

/// The uid that owns the listeners of the tests.
fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

const HEALTH: Health = Health { fall: 3, rise: 2 };
const BUDGET: Duration = Duration::from_secs(5);

/// Unix sockets in a directory of their own. The kernel completes connects before an accept, so a
/// listener needs no task.
struct Site {
    directory: TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An address at which nobody listens yet.
    fn address(&self, name: &str) -> Address {
        Address::Unix(self.path(name))
    }

    fn addresses<const N: usize>(&self, names: [&str; N]) -> [Address; N] {
        names.map(|name| self.address(name))
    }

    fn listen(&self, name: &str) -> UnixListener {
        UnixListener::bind(self.path(name)).expect("a listener")
    }

    fn close(&self, name: &str, listener: UnixListener) {
        drop(listener);
        std::fs::remove_file(self.path(name)).expect("a socket");
    }

    /// The host name of the address that a connection went to.
    fn name_of(&self, lease: &Lease) -> String {
        let Address::Unix(path) = &lease.target.address else {
            panic!("a Unix address");
        };
        let name = path.strip_prefix(self.directory.path()).expect("in here");
        name.display().to_string()
    }

    /// A listener whose queue is full, and the connection that fills it.
    fn full(&self, name: &str) -> (UnixListener, UnixStream) {
        let path = self.path(name);
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        let address = SocketAddrUnix::new(&path).expect("an address");
        rustix::net::bind(&socket, &address).expect("a path");
        rustix::net::listen(&socket, 0).expect("a listener");
        let queued = UnixStream::connect(&path).expect("room for one");
        (socket.into(), queued)
    }
}

/// A TCP listener whose queue is full, with the connection that fills it. The kernel drops further
/// connects without an answer, like a host that is gone.
fn silent() -> (Address, TcpListener, std::net::TcpStream) {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a port");
    socket.listen(0).expect("a listener");
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().expect("an address");
    let queued = std::net::TcpStream::connect(address).expect("room for one");
    (address.into(), listener, queued)
}

fn pool(addresses: &[Address], balance: Balance) -> Pool {
    Pool::new(addresses, balance, HEALTH, None, None)
}

async fn dial_or_refuse(pool: &Pool) -> Result<Lease, Unserved> {
    let deadline = Deadline::after(BUDGET);
    let dialled = pool.dial(None, None, deadline, Park::Refuse).await?;
    Ok(dialled.lease)
}

async fn dial_for(pool: &Pool, source: &str) -> Lease {
    let source = Some(source.parse().expect("an IP address"));
    let dialled = pool.dial(source, None, Deadline::after(BUDGET), Park::Refuse);
    dialled.await.expect("an address that answers").lease
}

/// Opens this many connections one after the other, and keeps them open.
async fn dial_times(pool: &Pool, place: &Site, times: usize) -> (Vec<String>, Vec<Lease>) {
    let mut leases = Vec::new();
    for _ in 0..times {
        leases.push(dial_or_refuse(pool).await.expect("an address that answers"));
    }
    let names = leases.iter().map(|lease| place.name_of(lease)).collect();
    (names, leases)
}

/// The timer counts milliseconds, and rounds up.
fn assert_after(start: Instant, expected: Duration) {
    let late = start
        .elapsed()
        .checked_sub(expected)
        .expect("not too early");
    assert!(late < Duration::from_millis(3), "{late:?} late");
}
