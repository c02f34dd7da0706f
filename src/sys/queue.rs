//! What a socket has still to deliver of the bytes that it was given.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{GetSockOpt, SetSockOpt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

use crate::wire::Transmission;

/// What a TCP socket has still to deliver; `None` where the kernel does not say.
///
/// SIOCOUTQ would tell the first of it, and not what tells a peer that is gone from one that does not
/// read.
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
        // A question whether there is room, which the peer has not answered, is a probe.
        is_due: unacknowledged > 0 || info.0[PROBES] > 0,
        silent_for: Duration::from_millis(info.word(LAST_ACK_RECV).into()),
    })
}

/// How much memory of a socket its peer has not read yet, if that is a Unix socket; `None` where the
/// kernel does not say.
pub(crate) fn unread(socket: &impl AsFd) -> Option<u32> {
    let words = MemInfo.get(socket).ok()?;
    Some(words[WMEM_ALLOC])
}

/// Lets every later peek at a Unix socket begin so many bytes behind what would be read next. It is
/// kept so when bytes are read or peeked at (socket(7)).
pub(crate) fn peek_from(socket: &impl AsFd, offset: i32) -> io::Result<()> {
    Ok(PeekOffset.set(socket, &offset)?)
}

/// The start of `struct tcp_info` (linux/tcp.h). Kernels only ever append to it: 4.6 and later have
/// these fields.
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
/// Window probes without an answer.
const PROBES: usize = 3;
/// Segments, an end included.
const UNACKED: usize = 24;
/// Milliseconds.
const LAST_ACK_RECV: usize = 56;
const BYTES_ACKED: usize = 120;
const NOTSENT_BYTES: usize = 144;
const INFO: usize = 148;

/// Of `enum` SK_MEMINFO (linux/sock_diag.h).
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
    fn all_has_arrived_when_the_peer_has_acknowledged_it() {
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
    fn what_a_peer_has_no_room_for_has_not_arrived_and_the_peer_owes_nothing() {
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
        // Closed over what it has not read.
        drop(theirs);
        while of_tcp(&ours).is_some() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_unix_peer_has_read_what_no_memory_is_held_for() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        assert_eq!(unread(&ours), Some(0));
        ours.write_all(b"words").expect("room");
        assert!(unread(&ours).is_some_and(|unread| unread > 0));
        theirs.read_exact(&mut [0; 5]).expect("words");
        assert_eq!(unread(&ours), Some(0));
    }
}
