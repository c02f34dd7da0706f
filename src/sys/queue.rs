//! How much of its bytes a socket still has to deliver.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{GetSockOpt, SetSockOpt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

use crate::wire::Transmission;

/// The state of a TCP socket's delivery. `None` if the kernel does not report it.
///
/// SIOCOUTQ would report only the number of bytes. It does not distinguish a peer that has vanished
/// from one that does not read.
pub(crate) fn of_tcp(socket: &impl AsFd) -> Option<Transmission> {
    let info = Info(TcpInfo.get(socket).ok()?);
    // A connection that was reset delivers nothing any more, whatever its counters say.
    if info.0[STATE] == TCP_CLOSE {
        return None;
    }
    let unacknowledged = info.word(UNACKED);
    Some(Transmission {
        is_unacknowledged: unacknowledged > 0 || info.word(NOTSENT_BYTES) > 0,
        acknowledged: info.long(BYTES_ACKED),
        // A zero-window probe without an answer counts, too.
        is_due: unacknowledged > 0 || info.0[PROBES] > 0,
        silent_for: Duration::from_millis(info.word(LAST_ACK_RECV).into()),
    })
}

/// How much memory of a Unix socket holds bytes that its peer has not read yet. `None` if the kernel
/// does not report it.
pub(crate) fn unread(socket: &impl AsFd) -> Option<u32> {
    let words = MemInfo.get(socket).ok()?;
    Some(words[WMEM_ALLOC])
}

/// Makes every later peek at a Unix socket start `offset` bytes after the next byte to read. The kernel
/// moves the offset with each read and peek (socket(7)).
pub(crate) fn peek_from(socket: &impl AsFd, offset: i32) -> io::Result<()> {
    Ok(PeekOffset.set(socket, &offset)?)
}

/// The start of `struct tcp_info` (linux/tcp.h). Kernels only append to it; these fields exist since
/// 4.6.
struct Info([u8; INFO]);

impl Info {
    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(std::array::from_fn(|index| self.0[at + index]))
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_ne_bytes(std::array::from_fn(|index| self.0[at + index]))
    }
}

const STATE: usize = 0;
const TCP_CLOSE: u8 = 7;
/// The number of window probes without an answer.
const PROBES: usize = 3;
/// The number of unacknowledged segments, including the FIN.
const UNACKED: usize = 24;
/// In milliseconds.
const LAST_ACK_RECV: usize = 56;
const BYTES_ACKED: usize = 120;
const NOTSENT_BYTES: usize = 144;
const INFO: usize = 148;

/// An index of the `SK_MEMINFO` enum (linux/sock_diag.h).
const WMEM_ALLOC: usize = 2;
const MEM_INFO: usize = 9;

sockopt_impl!(
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u8; INFO]
);

sockopt_impl!(
    PeekOffset,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_PEEK_OFF,
    i32
);

sockopt_impl!(
    MemInfo,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    [u32; MEM_INFO]
);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let ours = TcpStream::connect(address).expect("a connection");
        (ours, listener.accept().expect("a connection").0)
    }

    #[test]
    fn everything_has_arrived_when_the_peer_has_acknowledged_it() {
        let (mut ours, mut theirs) = pair();
        let before = of_tcp(&ours).expect("an answer");
        assert!(!before.is_unacknowledged && !before.is_due);
        ours.write_all(b"words").expect("room");
        theirs.read_exact(&mut [0; 5]).expect("words");
        ours.shutdown(Shutdown::Write).expect("an end");
        assert_eq!(theirs.read(&mut [0; 5]).expect("an end"), 0);
        theirs
            .write_all(b"and an answer, which acknowledges them")
            .expect("room");
        ours.read_exact(&mut [0; 5]).expect("an answer");
        let after = of_tcp(&ours).expect("an answer");
        assert!(!after.is_unacknowledged && !after.is_due);
        assert!(after.acknowledged >= before.acknowledged + 5);
    }

    #[test]
    fn bytes_beyond_the_peers_window_are_unacknowledged_but_not_due() {
        let (mut ours, _theirs) = pair();
        ours.set_nonblocking(true).expect("a socket");
        while ours.write(&[0; 1 << 16]).is_ok() {}
        let is_settled = |it: &Transmission| it.is_unacknowledged && !it.is_due;
        while !of_tcp(&ours).is_some_and(|it| is_settled(&it)) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_connection_that_was_reset_has_nothing_to_deliver() {
        let (mut ours, theirs) = pair();
        ours.set_nonblocking(true).expect("a socket");
        while ours.write(&[0; 1 << 16]).is_ok() {}
        // Closed with unread bytes.
        drop(theirs);
        while of_tcp(&ours).is_some() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_unix_peer_has_read_everything_when_no_memory_is_held() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        assert_eq!(unread(&ours), Some(0));
        ours.write_all(b"words").expect("room");
        assert!(unread(&ours).is_some_and(|unread| unread > 0));
        theirs.read_exact(&mut [0; 5]).expect("words");
        assert_eq!(unread(&ours), Some(0));
    }
}
