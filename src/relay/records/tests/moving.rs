//! Connections that outlive their process: exported in one, imported in another.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as Channel;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;
use crate::relay::tests::over;
use crate::sys::socket::Socket;
use crate::tls::{Engine, Session, TlsAcceptor};

impl crate::wire::Peer for TcpStream {}

impl Wire for TcpStream {
    fn was_read_out(&self) -> bool {
        false
    }
}

const CONNECTIONS: usize = 100;
const LENGTH: usize = 1 << 20;

/// Some connections have sent this much before the last one is halfway, and wait.
const BEFORE_THE_MOVE: usize = LENGTH / 4 * 3;

#[test]
fn connections_move_to_another_process_in_the_middle_of_their_bytes() {
    for version in [over::Version::Tls13, over::Version::Tls12] {
        runtime().block_on(bounded(move_all(version)));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Moves all connections while each of them is in the middle of its data.
async fn move_all(version: over::Version) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (move_now, moving) = watch::channel(false);
    let halfway = Arc::new(Semaphore::new(0));
    let (mut clients, mut relays, mut backends) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let acceptor = over::acceptor(Engine::Record);
    for number in 0..CONNECTIONS {
        let socket = TcpStream::connect(address).await.expect("a connection");
        let (accepted, _) = listener.accept().await.expect("a connection");
        let (near, far) = UnixStream::pair().expect("a pair");
        clients.spawn(converse(
            version,
            socket,
            number,
            Arc::clone(&halfway),
            moving.clone(),
        ));
        backends.spawn(echo(far));
        relays.spawn(relay(
            acceptor.clone(),
            accepted,
            Socket::Unix(near.into()),
            moving.clone(),
        ));
    }
    let all = halfway.acquire_many(CONNECTIONS as u32).await;
    all.expect("an open semaphore").forget();

    let (ours, theirs) = Channel::pair().expect("a pair");
    let mut other = other_process(theirs);
    move_now.send(true).expect("somebody moves");
    while let Some(relayed) = relays.join_next().await {
        let (client, backend, state) = relayed.expect("a relay");
        let Socket::Unix(backend) = backend else {
            panic!("it was another");
        };
        send(&ours, &client, &backend, &state);
    }
    ours.shutdown(std::net::Shutdown::Write).expect("a channel");

    while let Some(conversed) = clients.join_next().await {
        conversed.expect("every byte, once and in order");
    }
    while let Some(echoed) = backends.join_next().await {
        assert_eq!(echoed.expect("an echo"), LENGTH as u64);
    }
    // The process exits with 0 when all its connections have ended in order.
    assert!(other.wait().expect("a process").success());
}

/// On a machine that needs seconds for this, minutes mean that it hangs.
pub(super) async fn bounded<F: Future>(work: F) -> F::Output {
    let deadline = Deadline::after(Duration::from_secs(120));
    deadline.bound(work).await.expect("it hangs")
}

/// Sends its bytes in pieces of many sizes and reads them back. Updates keys before and after the
/// move.
async fn converse(
    version: over::Version,
    socket: TcpStream,
    number: usize,
    halfway: Arc<Semaphore>,
    mut moving: watch::Receiver<bool>,
) {
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(over::config(version))
        .connect(name, socket)
        .await;
    let mut stream = stream.expect("a handshake");
    let refresh = |stream: &mut tokio_rustls::client::TlsStream<TcpStream>| {
        if version == over::Version::Tls13 {
            stream.get_mut().1.refresh_traffic_keys().expect("TLS 1.3");
        }
    };
    let said = bytes(LENGTH + number);
    let said = &said[number..];
    let (mut sent, mut heard) = (0, 0);
    let mut buffer = vec![0; 20_000];
    let mut turn = number;
    while heard < LENGTH {
        // Some bytes are always in flight, but never so many that nobody reads.
        let most = if *moving.borrow() {
            LENGTH
        } else {
            BEFORE_THE_MOVE
        };
        if sent < most && sent - heard < 100_000 {
            turn += 1;
            let piece = (turn * 7_919 % 40_000).clamp(1, most - sent);
            stream
                .write_all(&said[sent..][..piece])
                .await
                .expect("a relay");
            stream.flush().await.expect("a relay");
            sent += piece;
            if turn.is_multiple_of(5) {
                refresh(&mut stream);
            }
            continue;
        }
        let read = stream.read(&mut buffer).await.expect("a relay");
        assert_ne!(read, 0, "an early end");
        assert!(buffer[..read] == said[heard..][..read], "other bytes");
        if heard < LENGTH / 2 && heard + read >= LENGTH / 2 {
            halfway.add_permits(1);
        }
        heard += read;
        if heard == BEFORE_THE_MOVE {
            moving.wait_for(|now| *now).await.expect("a move");
        }
    }
    stream.shutdown().await.expect("a relay");
    assert_eq!(stream.read(&mut buffer).await.expect("an end in order"), 0);
}

async fn echo(mut stream: UnixStream) -> u64 {
    let (mut reader, mut writer) = stream.split();
    let echoed = tokio::io::copy(&mut reader, &mut writer).await;
    writer.shutdown().await.expect("a relay");
    echoed.expect("a relay")
}

/// The connection after a handshake.
pub(super) async fn accepted(
    acceptor: TlsAcceptor,
    socket: TcpStream,
) -> Joint<Records<TcpStream>> {
    let accepted = acceptor
        .accept(socket, Deadline::after(None), |_| Ok::<_, ()>(None))
        .await;
    let secured = accepted.expect("a handshake");
    let Session::Record(keyed) = secured.session else {
        panic!("it is not for us");
    };
    let records = Records::new(keyed.io, keyed.start);
    Joint::new(records.expect("a suite that is known"))
}

/// Relays until it is time to move.
async fn relay(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    mut backend: Socket,
    mut moving: watch::Receiver<bool>,
) -> (TcpStream, Socket, Exported) {
    let mut stream = accepted(acceptor, socket).await;
    let traffic = Traffic::default();
    let relay = patient(&traffic);
    tokio::select! {
        end = stream.join(&mut backend, relay) => panic!("{end:?}"),
        moved = moving.wait_for(|now| *now) => drop(moved.expect("a move")),
    }
    let (socket, state) = stream.export();
    (socket, backend, state)
}

fn other_process(channel: Channel) -> std::process::Child {
    let name = std::thread::current();
    let name = name.name().expect("tests have names").rsplit_once("::");
    let (module, _) = name.expect("a module");
    Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", "--ignored", "--nocapture"])
        .arg(format!("{module}::the_other_process"))
        .stdin(Stdio::from(OwnedFd::from(channel)))
        .stdout(Stdio::null())
        .spawn()
        .expect("a process")
}

#[test]
#[ignore = "started by the test above, with connections to go on with"]
fn the_other_process() {
    let channel = std::io::stdin().as_fd().try_clone_to_owned();
    let mut channel = Channel::from(channel.expect("a channel"));
    runtime().block_on(async move {
        let mut relays = JoinSet::new();
        while let Some((client, backend, state)) = receive(&mut channel) {
            relays.spawn(async move {
                let client = TcpStream::from_std(client.into()).expect("a socket");
                let backend = UnixStream::from_std(backend.into()).expect("a socket");
                let mut backend = Socket::Unix(backend.into());
                let mut stream = Joint::import(client, state).expect("a state that fits");
                let traffic = Traffic::default();
                stream.join(&mut backend, patient(&traffic)).await
            });
        }
        assert_eq!(relays.len(), CONNECTIONS);
        while let Some(end) = relays.join_next().await {
            assert_eq!(end.expect("a relay"), End::Done);
        }
    });
}

/// Sends the length of the state together with both sockets, and then the state.
fn send(channel: &Channel, client: &TcpStream, backend: &UnixStream, state: &Exported) {
    let state = serde_json::to_vec(state).expect("plain data");
    let sockets = [client.as_fd(), backend.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sockets)));
    let length = (state.len() as u64).to_be_bytes();
    let sent = sendmsg(
        channel,
        &[IoSlice::new(&length)],
        &mut ancillary,
        SendFlags::empty(),
    );
    assert_eq!(sent, Ok(length.len()));
    (&mut &*channel).write_all(&state).expect("a reader");
}

/// Receives what [`send`] has sent; `None` at the end.
fn receive(channel: &mut Channel) -> Option<(OwnedFd, OwnedFd, Exported)> {
    let mut length = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut length)];
    let received = recvmsg(&*channel, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
    if received.expect("a channel").bytes == 0 {
        return None;
    }
    let mut sockets = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect(),
        _ => Vec::new(),
    });
    let (client, backend) = (sockets.next()?, sockets.next()?);
    let mut state = vec![0; u64::from_be_bytes(length) as usize];
    channel.read_exact(&mut state).expect("a state");
    let state = serde_json::from_slice(&state).expect("plain data");
    Some((client, backend, state))
}
