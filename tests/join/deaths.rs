//! Workers that leave while they are needed: each connection is served, and none twice.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::common::backend::Backend;
use crate::common::bytes::Bytes;
use crate::common::changing::Site;
use crate::common::network_worker::{Answer, Host};
use crate::common::pki::Issued;
use crate::common::soon;
use crate::common::vestibule::Vestibule;
use crate::join::real::{certificate, client, front, worker};

/// They die after they were told and before they have taken, and they drain in the middle. `JOIN_SEED` repeats a run.
#[tokio::test]
async fn three_hundred_connections_at_three_fronts_are_each_served_once() {
    let seed = std::env::var("JOIN_SEED").map_or(11, |it| it.parse().expect("a number"));
    let site = Arc::new(Site::new());
    let certificate = Arc::new(certificate(&site));
    let server = Server {
        words: Arc::default(),
        served: watch::Sender::new(0),
    };
    let backend = Backend::unix(&site.path("app.sock"));
    let to = backend.address();
    let _serving = server.serve(backend);
    let fronts = tokio::join!(
        front(&site, "front0", "127.0.0.1:0"),
        front(&site, "front1", "127.0.0.1:0"),
        front(&site, "front2", "127.0.0.1:0")
    );
    let fronts = Arc::new([fronts.0, fronts.1, fronts.2]);
    let addresses: Vec<String> = fronts.iter().map(Vestibule::tcp).collect();
    let deaths = Arc::new(AtomicUsize::new(0));
    let mut dying = JoinSet::new();
    for index in 0..3 {
        let (site, certificate) = (Arc::clone(&site), Arc::clone(&certificate));
        let (fronts, deaths) = (Arc::clone(&fronts), Arc::clone(&deaths));
        let random = Bytes::seeded(seed + index as u64);
        dying.spawn(async move { die(&fronts[index], &site, &certificate, random, &deaths).await });
    }
    let mut clients = clients(&site, seed);
    let served = async {
        while clients
            .join_next()
            .await
            .transpose()
            .expect("served")
            .is_some()
        {}
    };
    tokio::select! {
        () = churn(&site, &addresses, &to, &server, seed) => {}
        () = served => {}
    }
    assert_eq!(server.words.lock().expect("no panic").len(), 300);
    assert_ne!(
        deaths.load(Ordering::Relaxed),
        0,
        "nobody died, seed {seed}"
    );
}

/// A worker that dies with its tunnel each time when it was told of a connection, and takes none.
async fn die(
    front: &Vestibule,
    site: &Site,
    certificate: &Issued,
    mut random: Bytes,
    deaths: &AtomicUsize,
) {
    loop {
        let host = Host::open(front, site, certificate).await;
        let mut told = JoinSet::new();
        for offer in host.offer("app", random.length(3)).await {
            told.spawn(offer.answer());
        }
        if let Some(Ok(Answer::Ok(..))) = told.join_next().await {
            deaths.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Three hundred clients, forty at a time, each with a word of its own.
fn clients(site: &Arc<Site>, seed: u64) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let at_a_time = Arc::new(Semaphore::new(40));
    for index in 0..300 {
        let (site, at_a_time) = (Arc::clone(site), Arc::clone(&at_a_time));
        clients.spawn(async move {
            let _place = at_a_time.acquire().await.expect("open");
            let mut client = client(&site, &format!("front{}", index % 3)).await;
            let word = format!("word {index}\n");
            client.write_all(word.as_bytes()).await.expect("open");
            client.shutdown().await.expect("open");
            let mut answer = String::new();
            let read = soon("an answer", client.read_to_string(&mut answer)).await;
            read.unwrap_or_else(|error| panic!("{word:?}, seed {seed}: {error}"));
            assert_eq!(answer, format!("once {word}"), "seed {seed}");
        });
    }
    clients
}

/// Answers each client's word, and remembers it.
struct Server {
    words: Arc<Mutex<HashSet<String>>>,
    served: watch::Sender<usize>,
}

impl Server {
    fn serve(&self, backend: Backend) -> JoinSet<()> {
        let (words, served) = (Arc::clone(&self.words), self.served.clone());
        backend.serve(move |socket| {
            let (words, served) = (Arc::clone(&words), served.clone());
            async move {
                let (from, mut to) = tokio::io::split(socket);
                let mut from = BufReader::new(from);
                let mut word = String::new();
                // The connections by which a worker looks whether we are there have none.
                if from.read_line(&mut word).await.unwrap_or(0) == 0 {
                    return;
                }
                let is_first = words.lock().expect("no panic").insert(word.clone());
                let answer = format!("{} {word}", if is_first { "once" } else { "again" });
                to.write_all(answer.as_bytes()).await.expect("open");
                served.send_modify(|it| *it += 1);
                let _ = from.read_to_string(&mut word).await;
                let _ = to.shutdown().await;
            }
        })
    }
}

/// Two workers, one of which drains after every few connections, while another one starts. Each must end with 0:
/// then it has lost nothing.
async fn churn(site: &Site, fronts: &[String], to: &str, server: &Server, seed: u64) {
    let mut random = Bytes::seeded(!seed);
    let mut served = server.served.subscribe();
    let mut workers = Vec::new();
    for number in 0.. {
        let name = format!("worker{number}");
        workers.push(worker(site, &name, fronts, to).await);
        if workers.len() < 3 {
            continue;
        }
        let leaving = workers.swap_remove(random.length(3) - 1);
        let wanted = *served.borrow() + random.length(25);
        if wanted > 290 {
            // The rest is served by those that stay.
            return std::future::pending().await;
        }
        served.wait_for(|it| *it >= wanted).await.expect("a server");
        assert_eq!(leaving.terminate().await, Some(0), "seed {seed}");
    }
}
