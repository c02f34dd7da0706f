use std::future::poll_fn;
use std::task::Poll;

use hyper::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::super::budget::MOST_IN_ALL;
use super::super::*;
use super::*;
use crate::wire::Peer;

/// What a peer does not do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mute {
    Nothing,
    /// Answer.
    Ping,
    /// Heed changes, after the first ones.
    Settings,
    /// Carry more than 16 MiB in a second. The way to it is short.
    Speed,
}

/// A tunnel over a way that takes 25 ms of virtual time in each direction.
struct Site {
    budget: Arc<WindowBudget>,
    originated: Originated,
    openings: mpsc::Receiver<Opening>,
    tasks: JoinSet<()>,
}

impl Site {
    async fn new() -> Self {
        Self::with(Mute::Nothing).await
    }

    async fn with(mute: Mute) -> Self {
        let mut tasks = JoinSet::new();
        let (client, near) = duplex(64 * 1024);
        let (far, server) = duplex(64 * 1024);
        let ((from_client, to_client), (from_server, to_server)) = (split(near), split(far));
        let (up, down) = match mute {
            Mute::Settings => (Mute::Nothing, mute),
            Mute::Speed => (mute, mute),
            _ => (mute, Mute::Nothing),
        };
        delay(&mut tasks, from_client, to_server, up);
        delay(&mut tasks, from_server, to_client, down);
        let budget = Arc::new(WindowBudget::default());
        let (opened, openings) = mpsc::channel(100);
        let windows = Arc::clone(&budget);
        tasks.spawn(async move {
            let settings = TunnelSettings {
                alpn: "h2".into(),
                streams: 100,
                workers: false,
            };
            let mut carried = Carried::begin(server, &settings).await.expect("HTTP/2");
            carried.grow_within(&windows);
            while let Ok(Some(Opened::Client(mut opening))) = carried.next().await {
                opening.stream.welcome();
                opened.send(opening).await.expect("the test runs");
            }
        });
        let (originated, mut driver) = Originated::begin(client, 100).await.expect("SETTINGS");
        driver.grow_within(&budget);
        tasks.spawn(async move {
            let _ = driver.await;
        });
        Self {
            budget,
            originated,
            openings,
            tasks,
        }
    }

    /// Both ends of a new stream.
    async fn open(&mut self) -> (TunnelStream, TunnelStream) {
        let answer = self.originated.open("db:5432", HeaderMap::new()).await;
        let near = answer.expect("200").into_stream();
        let far = self.openings.recv().await.expect("it is open").stream;
        (near, far)
    }

    /// Sends without an end.
    fn pour(&mut self, mut stream: TunnelStream) {
        self.tasks.spawn(async move {
            let piece = vec![7; 64 * 1024];
            while stream.write_all(&piece).await.is_ok() {}
        });
    }

    async fn given_back(&self) {
        let mut looks = 0;
        while self.budget.taken() > 0 {
            sleep(EVERY).await;
            looks += 1;
            assert!(looks < 1000, "{} bytes", self.budget.taken());
        }
    }
}

/// Forwards frames after a time.
fn delay(
    tasks: &mut JoinSet<()>,
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mute: Mute,
) {
    let (queue, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(100_000);
    tasks.spawn(async move {
        let mut settings = 0;
        let mut preface = vec![0; if mute == Mute::Ping { 24 } else { 0 }];
        from.read_exact(&mut preface).await.expect("HTTP/2");
        let mut bytes = preface;
        loop {
            let when = match mute {
                Mute::Speed => Instant::now(),
                _ => Instant::now() + Duration::from_millis(25),
            };
            if queue.send((when, bytes)).await.is_err() {
                return;
            }
            bytes = vec![0; 16 * 1024];
            if matches!(mute, Mute::Nothing | Mute::Speed) {
                let Ok(count @ 1..) = from.read(&mut bytes).await else {
                    return;
                };
                bytes.truncate(count);
                continue;
            }
            bytes.truncate(9);
            if from.read_exact(&mut bytes).await.is_err() {
                return;
            }
            let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
            bytes.resize(9 + length, 0);
            from.read_exact(&mut bytes[9..]).await.expect("a frame");
            let is_settings = bytes[3] == 4 && bytes[4] == 0;
            settings += usize::from(is_settings);
            let is_dropped = match mute {
                Mute::Ping => bytes[3] == 6 && bytes[4] == 1,
                _ => is_settings && settings > 1,
            };
            if is_dropped {
                bytes.clear();
            }
        }
    });
    tasks.spawn(async move {
        while let Some((when, bytes)) = due.recv().await {
            sleep_until(when).await;
            if mute == Mute::Speed {
                sleep(Duration::from_millis(1)).await;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}

/// Reads so much. Returns the time that it took.
async fn read(stream: &mut TunnelStream, mut bytes: usize) -> Duration {
    let began = Instant::now();
    let mut piece = vec![0; 64 * 1024];
    while bytes > 0 {
        let count = bytes.min(piece.len());
        bytes -= stream.read(&mut piece[..count]).await.expect("open");
    }
    began.elapsed()
}

/// Takes what arrives in a second and reads nothing of it. Returns how much the stream holds.
async fn absorb(stream: &mut TunnelStream) -> usize {
    let taking = poll_fn(|cx| {
        stream.poll_absorb(cx);
        Poll::<()>::Pending
    });
    let _ = timeout(Duration::from_secs(1), taking).await;
    stream.held()
}

const MIB: usize = 1024 * 1024;
/// With a window of 192 KiB, this needs 200 round trips of 50 ms.
const MUCH: usize = 40 * MIB;

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_read_is_faster_than_the_window_at_rest_in_each_direction() {
    for uploads in [true, false] {
        let mut site = Site::new().await;
        let (near, far) = site.open().await;
        let (from, mut to) = if uploads { (near, far) } else { (far, near) };
        site.pour(from);
        let took = read(&mut to, MUCH).await;
        assert!(took < Duration::from_secs(5), "{took:?}, {uploads}");
        let taken = site.budget.taken();
        assert!(taken > MIB && taken < 4 * MIB, "{taken}, {uploads}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_wait_on_a_short_way_do_not_make_windows_grow() {
    let mut site = Site::with(Mute::Speed).await;
    let (near, mut far) = site.open().await;
    site.pour(near);
    let took = read(&mut far, MUCH).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(site.budget.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_rests_gives_its_part_of_the_budget_back() {
    let mut site = Site::new().await;
    let (mut near, mut far) = site.open().await;
    let (_, took) = tokio::join!(
        async { near.write_all(&vec![7; MUCH]).await.expect("open") },
        read(&mut far, MUCH)
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(site.budget.taken() > 0);
    site.given_back().await;
    // It grows again.
    site.pour(near);
    read(&mut far, MUCH).await;
    assert!(site.budget.taken() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stalls_takes_the_window_of_all_back_and_delays_no_other() {
    let mut site = Site::new().await;
    let (near, mut far) = site.open().await;
    let (other, mut end) = site.open().await;
    site.pour(near);
    read(&mut far, MUCH).await;
    let most = MOST_OF_A_STREAM as usize;
    let held = absorb(&mut far).await;
    assert!(held > 192 * 1024 && held <= most, "{held}");
    // The tunnel does not rest.
    site.pour(other);
    read(&mut end, MUCH).await;
    // Until all of it is read, the tunnel's window covers it.
    assert!(site.budget.taken() >= held - 192 * 1024);
    for _ in 0..98 {
        let (near, mut far) = site.open().await;
        site.pour(near);
        let held = absorb(&mut far).await;
        assert_eq!(held, 192 * 1024);
        site.tasks.spawn(async move {
            std::future::pending::<()>().await;
            drop(far);
        });
    }
    read(&mut end, MUCH / 4).await;
    assert!(far.held() == held, "{}", far.held());
}

#[tokio::test(start_paused = true)]
async fn what_a_stalled_stream_holds_leaves_the_budget_when_it_is_read_or_dropped() {
    for reads in [true, false] {
        let mut site = Site::new().await;
        let (near, mut far) = site.open().await;
        site.pour(near);
        read(&mut far, MUCH).await;
        let held = absorb(&mut far).await;
        sleep(REST * 5).await;
        assert!(site.budget.taken() > 0);
        if reads {
            read(&mut far, held).await;
        } else {
            drop(far);
        }
        site.given_back().await;
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_come_later_shrink_the_windows_of_all() {
    let mut site = Site::new().await;
    let (near, mut far) = site.open().await;
    site.pour(near);
    read(&mut far, MUCH).await;
    assert!(site.budget.taken() > 0);
    let mut held = Vec::new();
    for _ in 0..99 {
        held.push(site.open().await);
    }
    let most = MOST_OF_A_TUNNEL as usize;
    assert!(site.budget.taken() <= most, "{}", site.budget.taken());
    // A hundred streams have their windows at rest.
    site.given_back().await;
    read(&mut far, MUCH / 4).await;
    assert_eq!(site.budget.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn little_memory_and_a_budget_that_others_have_keep_windows_small() {
    for is_tight in [true, false] {
        let mut site = Site::new().await;
        let mut others = Grant::new(Arc::clone(&site.budget));
        if is_tight {
            site.budget.tighten(true);
        } else {
            assert!(others.raise(MOST_IN_ALL));
        }
        let (near, mut far) = site.open().await;
        site.pour(near);
        let took = read(&mut far, MUCH / 4).await;
        assert!(took > Duration::from_secs(2), "{took:?}");
        assert_eq!(site.budget.taken(), others.bytes());
        site.budget.tighten(false);
        others.give_back();
        read(&mut far, MUCH).await;
        assert!(site.budget.taken() > 0);
        site.budget.tighten(true);
        site.given_back().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_keeps_its_streams() {
    for mute in [Mute::Ping, Mute::Settings] {
        let mut site = Site::with(mute).await;
        let (near, mut far) = site.open().await;
        site.pour(near);
        read(&mut far, MUCH).await;
        // What the peer was told, it may use at any time.
        assert_eq!(site.budget.taken() > 0, mute == Mute::Settings);
        let held = absorb(&mut far).await;
        assert!(held <= 192 * 1024, "{held}");
        read(&mut far, held + MUCH / 4).await;
    }
}

#[test]
fn a_budget_has_no_more_than_it_has() {
    let budget = Arc::new(WindowBudget::default());
    let (mut one, mut two) = (Grant::new(Arc::clone(&budget)), Grant::new(budget.clone()));
    assert!(one.raise(MOST_IN_ALL - 1));
    assert!(one.raise(5), "it has that already");
    assert!(!two.raise(2));
    assert!(two.raise(1));
    one.give_back();
    assert!(two.raise(2));
    drop((one, two));
    assert_eq!(budget.taken(), 0);
}
