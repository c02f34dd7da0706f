//! Bulk that costs the backend almost nothing: the same pages are sent again and again, and bytes are
//! discarded without a copy.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::pattern::{PERIOD, Pattern};

/// Repetitions of the pattern in the file: about a megabyte, which stays in the cache.
const REPETITIONS: usize = 16;
/// Bytes that are sent or discarded at a time: more than a socket holds.
const MOST: usize = 1024 * 1024;
/// The first bytes of each part of this length are read and compared; the others are discarded.
const PART: u64 = 16 * 1024 * 1024;
const SAMPLE: u64 = 64 * 1024;

/// The pattern as a file in memory.
pub(crate) struct Pages {
    file: File,
    length: u64,
}

impl Pages {
    /// Writes the file.
    pub(crate) fn new(pattern: &Pattern) -> Result<Self> {
        let mut file: File = memfd_create("pages", MemfdFlags::CLOEXEC)?.into();
        for _ in 0..REPETITIONS {
            file.write_all(pattern.piece(0, PERIOD))?;
        }
        Ok(Self {
            file,
            length: (PERIOD * REPETITIONS) as u64,
        })
    }

    /// Sends what follows after `sent` bytes of the stream, as much as the socket accepts.
    pub(crate) fn send(&self, socket: impl AsFd, sent: u64) -> Result<usize, Errno> {
        let mut offset = sent % self.length;
        let most = MOST.min((self.length - offset) as usize);
        sendfile(socket, &self.file, Some(&mut offset), most)
    }
}

/// A way to discard bytes.
pub(crate) enum Drain {
    /// Of Unix sockets: through a pipe to /dev/null.
    Pipe {
        into: OwnedFd,
        out_of: OwnedFd,
        null: File,
    },
    /// Of TCP, which discards by itself: as many bytes as would fit here.
    Truncate(Vec<u8>),
}

impl Drain {
    /// For connections over TCP.
    pub(crate) fn for_tcp() -> Self {
        Self::Truncate(vec![0; MOST])
    }

    /// For Unix sockets.
    pub(crate) fn for_unix() -> Result<Self> {
        let (out_of, into) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setpipe_size(&into, MOST).context("the size of a pipe")?;
        let null = File::options().write(true).open("/dev/null")?;
        Ok(Self::Pipe { into, out_of, null })
    }

    /// Discards what the socket has, at most `most` bytes. 0 is the end.
    pub(crate) fn discard(&mut self, socket: impl AsFd, most: usize) -> Result<usize, Errno> {
        let most = most.min(MOST);
        let (into, out_of, null) = match self {
            Self::Truncate(scratch) => {
                let (_, count) = recv(socket, &mut scratch[..most], RecvFlags::TRUNC)?;
                return Ok(count);
            }
            Self::Pipe { into, out_of, null } => (into, out_of, null),
        };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let count = splice(socket, None, &*into, None, most, flags)?;
        let mut left = count;
        while left > 0 {
            left -= splice(&*out_of, None, &*null, None, left, SpliceFlags::MOVE)?;
        }
        Ok(count)
    }
}

/// What happens to the bytes at a position of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// This many are compared with the pattern.
    Compared(usize),
    /// This many are discarded.
    Discarded(usize),
}

/// What happens to the bytes after `received` of them.
pub(crate) fn fate(received: u64) -> Fate {
    match received % PART {
        at if at < SAMPLE => Fate::Compared((SAMPLE - at) as usize),
        at => Fate::Discarded((PART - at) as usize),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn pages_are_the_pattern_across_their_end() {
        let pattern = Pattern::new();
        let pages = Pages::new(&pattern).expect("a file");
        let (sender, mut receiver) = UnixStream::pair().expect("sockets");
        sender.set_nonblocking(true).expect("a flag");
        let mut sent = pages.length - 10_000;
        for _ in 0..2 {
            let count = pages.send(&sender, sent).expect("room");
            let mut bytes = vec![0; count];
            receiver.read_exact(&mut bytes).expect("the bytes");
            assert!(bytes.chunks(PERIOD).fold(true, |is_right, chunk| {
                let at = chunk.as_ptr() as usize - bytes.as_ptr() as usize;
                is_right && pattern.matches(sent + at as u64, chunk)
            }));
            sent += count as u64;
        }
        assert!(sent > pages.length);
    }

    #[test]
    fn a_drain_discards_what_is_there_and_sees_the_end() {
        let (sender, receiver) = UnixStream::pair().expect("sockets");
        receiver.set_nonblocking(true).expect("a flag");
        discard_all(Drain::for_unix().expect("a pipe"), sender, &receiver);

        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let sender = TcpStream::connect(address).expect("a connection");
        let (receiver, _) = listener.accept().expect("a connection");
        receiver.set_nonblocking(true).expect("a flag");
        discard_all(Drain::for_tcp(), sender, &receiver);
    }

    fn discard_all(mut drain: Drain, mut sender: impl Write, receiver: impl AsFd) {
        assert_eq!(drain.discard(&receiver, 100), Err(Errno::AGAIN));
        sender.write_all(&[0; 150]).expect("room");
        let mut next = || loop {
            match drain.discard(&receiver, 100) {
                // It is on its way.
                Err(Errno::AGAIN) => std::thread::yield_now(),
                result => return result,
            }
        };
        assert_eq!(next(), Ok(100));
        assert_eq!(next(), Ok(50));
        drop(sender);
        assert_eq!(next(), Ok(0));
    }

    #[test]
    fn the_beginning_of_each_part_is_compared() {
        assert_eq!(fate(0), Fate::Compared(SAMPLE as usize));
        assert_eq!(fate(SAMPLE - 1), Fate::Compared(1));
        assert_eq!(fate(SAMPLE), Fate::Discarded((PART - SAMPLE) as usize));
        assert_eq!(fate(PART - 1), Fate::Discarded(1));
        assert_eq!(fate(PART), Fate::Compared(SAMPLE as usize));
    }
}
