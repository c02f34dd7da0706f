//! Benchmarks of the proxy's parts: `cargo bench`.
//!
//! The times depend on the machine and decide nothing. benches/guard has counts that do, and
//! benches/compare compares whole connections with other proxies.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use tokio_rustls::rustls::SupportedCipherSuite;
use tokio_rustls::rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256,
};
use vestibule::bench::{Front, OpenConnections, Rules, Scraped, Sessions};
use vestibule::{Deadline, Endpoint, Facts, Rendezvous};

criterion_group! {
    name = parts;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = records, handshakes, rendezvous, routes, ledger, scrape, facts
}
criterion_main!(parts);

const SUITES: [(&str, SupportedCipherSuite); 4] = [
    ("1.3-AES-128-GCM", TLS13_AES_128_GCM_SHA256),
    ("1.3-ChaCha20", TLS13_CHACHA20_POLY1305_SHA256),
    ("1.2-AES-128-GCM", TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    (
        "1.2-ChaCha20",
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// A record through the whole relay. TLS 1.2 keys last for 2^24 records, several times as many as
/// are measured.
fn records(criterion: &mut Criterion) {
    for direction in ["seal", "open"] {
        let mut group = criterion.benchmark_group(direction);
        for (name, suite) in SUITES {
            for length in [64, 1024, 16 * 1024] {
                group.throughput(Throughput::Bytes(length as u64));
                let id = BenchmarkId::new(name, length);
                match direction {
                    "seal" => seal(&mut group, id, suite, &vec![7; length]),
                    _ => open(&mut group, id, suite, &vec![7; length]),
                }
            }
        }
    }
}

fn seal(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    suite: SupportedCipherSuite,
    message: &[u8],
) {
    let front = Front::new(suite, Sessions::New);
    let mut meeting = front.meet();
    group.bench_function(id, |bencher| bencher.iter(|| meeting.proxy.seal(message)));
}

fn open(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    suite: SupportedCipherSuite,
    message: &[u8],
) {
    let front = Front::new(suite, Sessions::New);
    let mut meeting = front.meet();
    let (client, proxy) = (&mut meeting.client, &mut meeting.proxy);
    group.bench_function(id, |bencher| {
        bencher.iter_batched(
            || client.seal(message),
            |record| proxy.open(&record),
            BatchSize::LargeInput,
        );
    });
}

/// Only the proxy's part.
fn handshakes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake");
    for (version, suite) in [SUITES[0], SUITES[2]] {
        for (kind, sessions) in [("full", Sessions::New), ("resumed", Sessions::Resumed)] {
            let front = Front::new(suite, sessions);
            front.meet();
            group.bench_function(BenchmarkId::new(kind, version), |bencher| {
                bencher.iter_custom(|count| (0..count).map(|_| front.meet().handshake).sum());
            });
        }
    }
}

/// An announcement, its claim, and the hand-over of the claimer's stream.
fn rendezvous(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rendezvous");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    for waiting in [0, 10_000] {
        let table = Rendezvous::new();
        let others: Vec<_> = (0..waiting)
            .map(|_| table.announce(Facts::new("app")))
            .collect();
        group.bench_function(BenchmarkId::new("waiting", waiting), |bencher| {
            bencher.iter_batched(
                || Facts::new("app"),
                |facts| {
                    let id = facts.id;
                    let ticket = table.announce(facts);
                    table.claim(id, ()).expect("it waits");
                    let redeemed = runtime.block_on(ticket.redeem(Deadline::NEVER));
                    redeemed.expect("it was claimed");
                },
                BatchSize::SmallInput,
            );
        });
        drop(others);
    }
}

/// The last of this many rules matches.
fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in [10, 1_000] {
        let rules = Rules::new(count);
        group.bench_function(BenchmarkId::new("rules", count), |bencher| {
            bencher.iter(|| black_box(rules.choose()).len());
        });
    }
}

/// Look-ups among ten thousand open connections.
fn ledger(criterion: &mut Criterion) {
    let connections = OpenConnections::new(10_000);
    let mut group = criterion.benchmark_group("ledger");
    for (name, filter) in connections.one().into_iter().chain(connections.some()) {
        assert_ne!(connections.find(&filter), 0, "{name}");
        let id = BenchmarkId::new("find", name);
        group.bench_function(id, |bencher| {
            bencher.iter(|| connections.find(black_box(&filter)));
        });
    }
    group.bench_function("open and close", |bencher| {
        bencher.iter(|| connections.open_and_close());
    });
}

/// The metrics of a proxy with this many open connections.
fn scrape(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    let mut group = criterion.benchmark_group("scrape");
    for count in [100, 10_000] {
        let proxy = runtime.block_on(Scraped::new(count));
        group.bench_function(BenchmarkId::new("connections", count), |bencher| {
            bencher.iter(|| proxy.scrape());
        });
    }
}

/// The line of facts for a claimer, written and read.
fn facts(criterion: &mut Criterion) {
    let mut facts = Facts::new("app");
    let address = "192.0.2.7:51234".parse().expect("an address");
    facts.listener = Some("https".into());
    facts.peer = Some(Endpoint::Tcp(address));
    facts.local = Some(Endpoint::Unix("/run/front.sock".into()));
    let mut tls = vestibule::TlsFacts::default();
    tls.version = "1.3";
    tls.cipher = Some("TLS13_AES_128_GCM_SHA256");
    tls.group = Some("X25519");
    tls.sni = Some("api.example.com".into());
    facts.tls = Some(tls);
    let line = facts.to_json();

    let mut group = criterion.benchmark_group("facts");
    group.bench_function("write", |bencher| bencher.iter(|| facts.to_json()));
    group.bench_function("read", |bencher| {
        bencher.iter(|| serde_json::from_str::<serde_json::Value>(&line));
    });
}
