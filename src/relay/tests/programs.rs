//! The same steps in the same order for each relay: both sides and the owner must observe the same.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::over::Far;
use super::*;

#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Backend,
}

/// A step in the life of a connection. Each one has all the time that it needs before the next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Say(Side, usize),
    /// The side closes its stream.
    Close(Side),
    /// The side reads nothing until a step other than [`Step::Say`] or [`Step::Close`].
    Stall(Side),
    /// Its socket fails. After a broken pipe it can still be read, after an unexpected end still be
    /// written.
    Fail(Side, ErrorKind),
    /// The client updates its keys before it sends something again.
    ChangeKeys,
    /// A pause of this many seconds.
    Rest(u64),
}

/// Everything that can be observed.
#[derive(Debug, PartialEq)]
struct Report {
    end: End,
    client: Heard,
    backend: Heard,
    /// The counted bytes from the client and to it.
    traffic: (u64, u64),
}

#[derive(PartialEq)]
struct Heard {
    bytes: Vec<u8>,
    /// Whether it saw an orderly end.
    is_all: bool,
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, is_all } = self;
        write!(f, "{} bytes, all: {is_all}", bytes.len())
    }
}

const LIMITS: InactivityTimeouts = InactivityTimeouts {
    idle: Some(Duration::from_secs(600)),
    half_close: Some(Duration::from_secs(60)),
    unacknowledged: None,
};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Backend)];
    let fault = prop_oneof![
        Just(Step::Fail(Side::Client, ErrorKind::UnexpectedEof)),
        Just(Step::Fail(Side::Client, ErrorKind::ConnectionReset)),
        Just(Step::Fail(Side::Backend, ErrorKind::ConnectionReset)),
        Just(Step::Fail(Side::Backend, ErrorKind::BrokenPipe)),
    ];
    let rest = prop_oneof![Just(1), Just(30), Just(59), Just(61), Just(400), Just(601)];
    let step = prop_oneof![
        6 => (side.clone(), 1..60_000_usize).prop_map(|(side, length)| Step::Say(side, length)),
        2 => side.clone().prop_map(Step::Close),
        2 => side.prop_map(Step::Stall),
        1 => fault,
        2 => Just(Step::ChangeKeys),
        2 => rest.prop_map(Step::Rest),
    ];
    vec(step, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_happens_to_a_connection_ends_in_the_same_way_over_each_relay(steps in steps()) {
        let [in_the_clear, others @ ..] = ALL.map(|over| runtime().block_on(run(over, &steps)));
        let heard = &in_the_clear.backend.bytes;
        prop_assert!(bytes(heard.len()) == *heard, "other bytes than were said");
        prop_assert_eq!(in_the_clear.traffic.0, heard.len() as u64);
        for (over, mut report) in ALL.iter().skip(1).zip(others) {
            let to_client = &mut report.traffic.1;
            if *over == Over::Lent && *to_client > in_the_clear.traffic.1 {
                // What a stream keeps counts, also if it is lost with the client.
                prop_assert!(!in_the_clear.client.is_all, "{:?}", over);
                *to_client = in_the_clear.traffic.1;
            }
            prop_assert_eq!(&report, &in_the_clear, "{:?}", over);
        }
    }
}

async fn run(over: Over, steps: &[Step]) -> Report {
    let (client, far) = over.client(ROOM).await;
    let (backend_far, backend) = duplex(ROOM);
    let keys = Arc::new(AtomicBool::new(false));
    let far = Rekeying {
        far,
        due: Arc::clone(&keys),
    };
    let (clients, client_party) = Hands::of(far);
    let (backends, backend_party) = Hands::of(backend_far);
    let mut client = client.with(|inner| Breakable::new(inner, &clients.fault));
    let mut backend = Breakable::new(backend, &backends.fault);
    let traffic = Traffic::default();
    let relay = async {
        let relay = Relay {
            settings: &LIMITS,
            traffic: &traffic,
        };
        let end = client.join(&mut backend, relay).await;
        drop((client, backend));
        end
    };
    let told = (clients.told(), backends.told());
    let script = play(steps, clients, backends, &keys);
    let (end, client, backend, ()) =
        come(async { tokio::join!(relay, client_party, backend_party, script) }).await;
    let [client, backend] = [(client, told.0), (backend, told.1)].map(|((bytes, clean), told)| {
        let is_all = told.load(Ordering::Relaxed);
        (Heard { bytes, is_all }, clean)
    });
    if !over.is_plain() {
        // In plaintext the end of a pipe cannot be told from its loss.
        assert_eq!(client.1, client.0.is_all, "{over:?} {steps:?}");
    }
    let (client, backend) = (client.0, backend.0);
    Report {
        end,
        client,
        backend,
        traffic: (traffic.from_client.get(), traffic.to_client.get()),
    }
}

async fn play(steps: &[Step], clients: Hands, backends: Hands, keys: &AtomicBool) {
    let hands = |side| match side {
        Side::Client => &clients,
        Side::Backend => &backends,
    };
    let resume = async || {
        clients.listens.send_replace(true);
        backends.listens.send_replace(true);
        sleep(SETTLED).await;
    };
    for step in steps {
        match *step {
            Step::Say(side, length) => hands(side).order(Order::Say(length)),
            Step::Close(side) => hands(side).order(Order::Close),
            Step::Stall(side) => drop(hands(side).listens.send_replace(false)),
            Step::Fail(side, kind) => {
                resume().await;
                hands(side).fault.occur(kind);
            }
            Step::ChangeKeys => {
                resume().await;
                keys.store(true, Ordering::Relaxed);
            }
            Step::Rest(seconds) => {
                resume().await;
                sleep(Duration::from_secs(seconds)).await;
            }
        }
        sleep(SETTLED).await;
    }
    resume().await;
    clients.order(Order::Close);
    sleep(SETTLED).await;
    backends.order(Order::Close);
    // Connections that have not ended by now end at their time limits.
    sleep(Duration::from_secs(1_000)).await;
}

/// Paused time advances when nothing else can happen.
const SETTLED: Duration = Duration::from_millis(1);

enum Order {
    Say(usize),
    Close,
}

/// One side of a connection, controlled by a test.
struct Hands {
    orders: mpsc::Sender<Order>,
    listens: watch::Sender<bool>,
    fault: Arc<Fault>,
}

impl Hands {
    /// Also returns a future that runs the side. Its output is everything that the side read, and
    /// whether it saw an end.
    fn of(stream: impl Stream) -> (Self, impl Future<Output = (Vec<u8>, bool)>) {
        // More than a program has steps.
        let (orders, mut ordered) = mpsc::channel(64);
        let (listens, mut may_listen) = watch::channel(true);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let speak = async move {
            let mut said = 0;
            while let Some(order) = ordered.recv().await {
                let done = match order {
                    Order::Say(length) => {
                        let words = &bytes(said + length)[said..];
                        said += length;
                        match writer.write_all(words).await {
                            Ok(()) => writer.flush().await,
                            failed => failed,
                        }
                    }
                    Order::Close => writer.shutdown().await.and(Err(ErrorKind::Other.into())),
                };
                if done.is_err() {
                    break;
                }
            }
        };
        let listen = async move {
            let (mut heard, mut buffer) = (Vec::new(), vec![0; 8 * 1024]);
            loop {
                // The sender may be gone when the side may read to the end.
                let _ = may_listen.wait_for(|may| *may).await;
                let read = tokio::select! {
                    biased;
                    Ok(()) = may_listen.changed() => continue,
                    read = reader.read(&mut buffer) => read,
                };
                match read {
                    Ok(0) => return (heard, true),
                    Ok(length) => heard.extend_from_slice(&buffer[..length]),
                    Err(_) => return (heard, false),
                }
            }
        };
        let hands = Self {
            orders,
            listens,
            fault: Arc::default(),
        };
        (hands, async { tokio::join!(listen, speak).0 })
    }

    fn order(&self, order: Order) {
        // A side that has closed or failed takes no more orders.
        let _ = self.orders.try_send(order);
    }

    fn told(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.fault.was_told_the_end)
    }
}

#[derive(Default)]
struct Fault {
    kind: Mutex<Option<ErrorKind>>,
    reader: Mutex<Option<Waker>>,
    was_told_the_end: Arc<AtomicBool>,
}

impl Fault {
    fn occur(&self, kind: ErrorKind) {
        self.kind.lock().expect("no panic").get_or_insert(kind);
        if let Some(reader) = self.reader.lock().expect("no panic").take() {
            reader.wake();
        }
    }

    fn of_reads(&self) -> Option<ErrorKind> {
        let kind = *self.kind.lock().expect("no panic");
        kind.filter(|kind| *kind != ErrorKind::BrokenPipe)
    }

    fn of_writes(&self) -> Option<ErrorKind> {
        let kind = *self.kind.lock().expect("no panic");
        kind.filter(|kind| *kind != ErrorKind::UnexpectedEof)
    }
}

/// The relay's end of a socket that fails when the test says so.
struct Breakable {
    inner: Box<dyn Stream>,
    fault: Arc<Fault>,
}

impl Breakable {
    fn new(inner: impl Stream + 'static, fault: &Arc<Fault>) -> Self {
        Self {
            inner: Box::new(inner),
            fault: Arc::clone(fault),
        }
    }
}

impl AsyncRead for Breakable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(kind) = self.fault.of_reads() {
            return Poll::Ready(Err(kind.into()));
        }
        *self.fault.reader.lock().expect("no panic") = Some(cx.waker().clone());
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Breakable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.fault.of_writes() {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut self.inner).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.fault.of_writes() {
            return Poll::Ready(Err(kind.into()));
        }
        self.fault.was_told_the_end.store(true, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A client that updates its keys before its next bytes if that is due.
struct Rekeying {
    far: Far,
    due: Arc<AtomicBool>,
}

impl AsyncRead for Rekeying {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_read(cx, buf)
    }
}

impl AsyncWrite for Rekeying {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.due.swap(false, Ordering::Relaxed) {
            self.far.change_keys();
        }
        Pin::new(&mut self.far).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_shutdown(cx)
    }
}
