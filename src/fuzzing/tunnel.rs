//! Frames of HTTP/2, legal and not, at each side of a tunnel.
//!
//! ```text
//! input ─► Script ─► a peer ══ pipe ══ Carried: streams are echoed, read late, refused, reset …
//!                            or pipe ══ Originated: four streams, each written and read to its end
//! ```

mod script;
mod subject;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex as Turns;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use self::script::Script;
use self::subject::Seen;
use super::pieces;
use crate::deadline::Deadline;
use crate::tunnel::WindowBudget;

/// Plays a peer that the input describes.
///
/// The bits of the first byte select the behaviours below. The rest is bytes in [`pieces`], which follow a valid
/// preface, or frames.
///
/// # Panics
///
/// The tunnel does not keep a promise.
pub fn tunnel(data: &[u8]) {
    let (&behaviour, rest) = data.split_first().unwrap_or((&0, &[]));
    let role = match behaviour & SERVER {
        0 => Role::Client,
        _ => Role::Server,
    };
    let script = match behaviour & FRAMES {
        0 => Script::of_bytes(role, &pieces(rest)),
        _ => Script::of_frames(role, rest),
    };
    RUNTIME.with(|runtime| runtime.block_on(perform(behaviour, role, &script)));
}

/// What the streams of a tunnel have met.
#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    /// Present if windows may grow.
    budget: Option<Arc<WindowBudget>>,
    has_grown: AtomicBool,
}

impl Log {
    fn push(&self, seen: Seen) {
        if self.taken() > 0 {
            self.has_grown.store(true, Ordering::Relaxed);
        }
        self.seen.lock().expect("no panic").push(seen);
    }

    /// The bytes of grown windows.
    fn taken(&self) -> usize {
        self.budget.as_ref().map_or(0, |it| it.taken())
    }
}

/// What the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// The peer is the server, and our client is tested.
const SERVER: u8 = 1;
/// The input describes frames.
const FRAMES: u8 = 2;
/// The peer reads nothing.
const DEAF: u8 = 4;
/// The peer sends its bytes over and over.
const REPEATED: u8 = 8;
/// Our server drains when it has a stream.
const DRAINING: u8 = 16;
/// The peer is silent before it closes, for longer than a heartbeat.
const SILENT: u8 = 32;
/// The windows may grow, and the peer answers each PING and each change of the settings, but late.
const LATE: u8 = 64;

/// Returns whether windows had grown when a stream ended.
async fn perform(behaviour: u8, role: Role, script: &Script) -> bool {
    let (ours, theirs) = duplex(PIPE);
    let log = Arc::new(Log {
        budget: (behaviour & LATE != 0).then(Arc::default),
        ..Log::default()
    });
    let subject = async {
        match role {
            Role::Client => subject::carry(ours, behaviour & DRAINING != 0, &log).await,
            Role::Server => subject::originate(ours, &log).await,
        }
    };
    let meeting = async { tokio::join!(play(behaviour, script, theirs), subject) };
    // The clock moves only while all tasks wait.
    let met = Deadline::after(LIMIT).bound(meeting).await;
    met.expect("a tunnel ends with its peer");
    assert_eq!(log.taken(), 0, "the end of a tunnel gives its windows back");
    for seen in log.seen.lock().expect("no panic").iter() {
        if behaviour & FRAMES != 0 && behaviour & REPEATED == 0 {
            script.check(seen);
        }
    }
    log.has_grown.load(Ordering::Relaxed)
}

/// Sends everything, and leaves.
async fn play(behaviour: u8, script: &Script, pipe: DuplexStream) {
    let is = |bit| behaviour & bit != 0;
    let (mut reading, writing) = split(pipe);
    let writing = Turns::new(writing);
    let write = async {
        let rounds = match is(REPEATED) {
            true => MOST_SENT.checked_div(script.length()).unwrap_or(0),
            false => 1,
        };
        writing.lock().await.write_all(script.preface()).await?;
        if is(LATE) {
            sleep(2 * PATH).await;
        }
        let pieces = std::iter::repeat_n(&script.pieces, rounds).flatten();
        for (number, piece) in pieces.enumerate() {
            writing.lock().await.write_all(piece).await?;
            match is(LATE) && number % FLIGHT == FLIGHT - 1 {
                true => sleep(2 * PATH).await,
                false => yield_now().await,
            }
        }
        writing.lock().await.flush().await
    };
    let read = async {
        if is(LATE) {
            let _ = answer(&mut reading, &writing).await;
        }
        // What the tunnel says is read by its own tests.
        let _ = tokio::io::copy(&mut reading, &mut tokio::io::sink()).await;
    };
    if is(DEAF) {
        // If the tunnel takes no more, it waits for the peer to read.
        let _ = timeout(PATIENCE, write).await;
    } else {
        let _ = timeout(PATIENCE, async { tokio::join!(write, read) }).await;
    }
    if is(SILENT) {
        sleep(SILENCE).await;
    }
}

/// Reads frames, and answers those that need it.
async fn answer(
    reading: &mut ReadHalf<DuplexStream>,
    writing: &Turns<WriteHalf<DuplexStream>>,
) -> io::Result<()> {
    loop {
        let mut head = [0; 9];
        reading.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        reading.read_exact(&mut payload).await?;
        let content = match kind {
            script::SETTINGS => &[][..],
            script::PING => &payload,
            _ => continue,
        };
        if flags & script::ACK == 0 {
            sleep(PATH).await;
            let answer = script::frame(kind, script::ACK, 0, content);
            writing.lock().await.write_all(&answer).await?;
        }
    }
}

/// The capacity of the pipe in each direction.
const PIPE: usize = 16 * 1024;

/// By a peer that sends its bytes over and over.
const MOST_SENT: usize = 1 << 20;

/// In virtual time, as all of these.
const LIMIT: Duration = Duration::from_secs(300);
/// How long the peer tries to send, and listens.
const PATIENCE: Duration = Duration::from_secs(8);
const SILENCE: Duration = Duration::from_secs(30);
/// How many pieces the peer sends before it waits for the answers.
const FLIGHT: usize = 32;
/// How late the peer answers.
const PATH: Duration = Duration::from_millis(10);

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without descriptors");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_when_much_arrives_before_a_late_answer() {
        // A stream that is read, 1.6 MB, and its end.
        let mut input = vec![[0, 0, 4, 7]];
        input.extend([[4, 0, 8, 255]; 100]);
        input.push([4, 0, 0xc8, 1]);
        let script = Script::of_frames(Role::Client, &input.concat());
        let perform = |behaviour| {
            let performed = perform(behaviour | SILENT, Role::Client, &script);
            RUNTIME.with(|runtime| runtime.block_on(performed))
        };
        assert!(perform(FRAMES | LATE));
        assert!(!perform(FRAMES));
    }
}
