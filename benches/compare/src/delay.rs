//! A longer way to the proxy: a forwarder that holds every byte for a fixed time, in each direction.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Bytes of a read.
const PIECE: usize = 256 * 1024;
/// Pieces on their way, which is more than any window.
const PIECES: usize = 4096;

/// Listens on a port of its own, and forwards to `target` until the program ends. Returns its address.
pub(crate) fn forwarder(target: SocketAddr, one_way: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let Ok(proxy) = TcpStream::connect(target) else {
                return;
            };
            for socket in [&client, &proxy] {
                // Otherwise small frames would wait for an acknowledgement, which is no part of the way.
                let _without = socket.set_nodelay(true);
            }
            let (Ok(up), Ok(down)) = (client.try_clone(), proxy.try_clone()) else {
                return;
            };
            carry(up, proxy, one_way);
            carry(down, client, one_way);
        }
    });
    Ok(address)
}

/// One direction: a thread that reads, and one that writes when the time has come.
fn carry(mut from: TcpStream, mut to: TcpStream, one_way: Duration) {
    let (queue, due) = mpsc::sync_channel::<(Instant, Vec<u8>)>(PIECES);
    thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        while let Ok(count) = from.read(&mut piece) {
            let when = Instant::now() + one_way;
            if queue.send((when, piece[..count].to_vec())).is_err() || count == 0 {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (when, piece) in due {
            #[expect(
                clippy::disallowed_methods,
                reason = "the delay is what this thread is for"
            )]
            thread::sleep(when.saturating_duration_since(Instant::now()));
            if piece.is_empty() || to.write_all(&piece).is_err() {
                // If this fails, the connection is gone.
                let _gone = to.shutdown(Shutdown::Write);
                return;
            }
        }
    });
}
