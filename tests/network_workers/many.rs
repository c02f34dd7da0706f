//! Many connections, and workers that die at random.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use h2::Reason;
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::common::changing::Site;
use crate::common::network_worker::{Answer, Host, Waiting};
use crate::common::pki::Issued;
use crate::common::soon;
use crate::common::tunnel::Stream;
use crate::common::vestibule::Vestibule;
use crate::{connect, start};

const CONNECTIONS: u64 = 300;
const AT_A_TIME: u64 = 60;
const HOSTS: u64 = 6;
const OFFERS: usize = 4;

#[tokio::test]
async fn three_hundred_connections_are_served_once_each_while_workers_die_at_random() {
    let site = Site::new();
    let vestibule = start(&site, "[timeouts]\nbackend = \"50s\"\n").await;
    let world = Arc::new(World {
        certificate: site.client("worker"),
        vestibule,
        site,
        served: Mutex::default(),
    });
    let mut hosts = JoinSet::new();
    for seed in 1..=HOSTS {
        hosts.spawn(lives(Arc::clone(&world), Random(seed * 0x9e37_79b9)));
    }
    for first in (0..CONNECTIONS).step_by(AT_A_TIME as usize) {
        let mut clients = JoinSet::new();
        for number in first..first + AT_A_TIME {
            let world = Arc::clone(&world);
            clients.spawn(async move { converse(&world.vestibule, number).await });
        }
        clients.join_all().await;
    }
    world.vestibule.ended("done", CONNECTIONS as usize).await;
    hosts.shutdown().await;
    let served = world.served.lock().expect("no panic");
    assert_eq!(served.len(), CONNECTIONS as usize);
    assert!(served.values().all(|times| *times == 1), "{served:?}");
}

struct World {
    vestibule: Vestibule,
    site: Site,
    certificate: Issued,
    /// How often a worker has taken each connection.
    served: Mutex<HashMap<u64, usize>>,
}

/// Sends a number, and must get it back with its complement.
async fn converse(vestibule: &Vestibule, number: u64) {
    let mut client = connect(vestibule).await;
    client.write_u64(number).await.expect("open");
    client.shutdown().await.expect("open");
    let mut answer = Vec::new();
    let read = soon("an answer", client.read_to_end(&mut answer)).await;
    read.expect("a clean end");
    let expected = [number.to_be_bytes(), (!number).to_be_bytes()].concat();
    assert_eq!(answer, expected, "{number}");
}

/// A host that comes again and again, and dies before any of its workers has taken a connection, or serves a few and
/// leaves in order.
async fn lives(world: Arc<World>, mut random: Random) {
    loop {
        let host = Host::open(&world.vestibule, &world.site, &world.certificate).await;
        let mut offers = Vec::new();
        for _ in 0..OFFERS {
            offers.push(host.ask("app", "accept").await);
        }
        match random.below(2) {
            0 => die(host, offers, &mut random).await,
            _ => serve(host, offers, &world, &mut random).await,
        }
    }
}

async fn die(host: Host, mut offers: Vec<Waiting>, random: &mut Random) {
    match random.below(6) {
        // Before anything was told, or at any moment while it is.
        0 => {}
        1 => offers.drain(..).for_each(Waiting::leave),
        2 => tokio::task::yield_now().await,
        step => {
            let Answer::Ok(_, mut stream) = offers.remove(0).answer().await else {
                return;
            };
            match step {
                3 => {}
                4 => stream.sending.send_reset(Reason::CANCEL),
                _ => {
                    let wrong = Bytes::from_static(b"wrong");
                    let _ = stream.sending.send_data(wrong, false);
                    let _ = stream.received.data().await;
                }
            }
        }
    }
    host.0.break_off();
}

async fn serve(host: Host, mut offers: Vec<Waiting>, world: &World, random: &mut Random) {
    for _ in 0..=random.below(8) {
        let (_, mut stream) = offers.remove(0).granted().await;
        offers.push(host.ask("app", "accept").await);
        stream.take();
        reply(stream, world).await;
    }
    // The answers must leave before the tunnel breaks off. Its last offers wait, or were told meanwhile.
    host.until_in_place().await;
}

async fn reply(mut stream: Stream, world: &World) {
    let bytes = stream.rest().await.expect("a number, and the end");
    let number = u64::from_be_bytes(bytes.try_into().expect("a number"));
    *world
        .served
        .lock()
        .expect("no panic")
        .entry(number)
        .or_default() += 1;
    let answer = [number.to_be_bytes(), (!number).to_be_bytes()].concat();
    stream.send(answer.into()).await.expect("room");
    stream.end().expect("open");
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}
