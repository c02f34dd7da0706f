//! What the metrics say of worker threads, reloads, and files that expire.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vestibule::{Config, ConfigSource, MetricsFormat, Proxy, Supervisor};

use super::samples::Samples;
use crate::common::pki::{Authority, Subject};
use crate::common::{client, project, soon};
use crate::start;

const ECHO: &str = r#"
[runtime]
workers = 2
[[listener]]
name = "https"
address = "127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
[[backend]]
name = "echo"
to = "echo"
"#;

#[tokio::test]
async fn each_worker_thread_has_a_ratio_of_its_time() {
    let config: Config = ECHO
        .replace("{certs}", &project("certs"))
        .parse()
        .expect("a configuration");
    let proxy = Proxy::builder(config).on_worker_threads().bind().await;
    let proxy = proxy.expect("bound");
    let address = proxy.addresses()["https"].to_string();
    let running = proxy.start();
    let mut client = client::connect(address.trim_start_matches("tcp:")).await;
    let client = client.as_mut().expect("a handshake");
    for _ in 0..100 {
        client.write_all(b"x").await.expect("open");
        soon("an echo", client.read_u8()).await.expect("an echo");
    }
    let samples = Samples::of(&running);
    let workers = samples.values("vestibule_worker_busy_ratio", "worker");
    assert_eq!(workers, BTreeSet::from(["0".into(), "1".into()]));
    let ratios = ["0", "1"]
        .map(|worker| samples.sum(&format!("vestibule_worker_busy_ratio{{worker={worker}}}")));
    let is_a_share = |ratio: &f64| (0.0..=1.0).contains(ratio);
    assert!(ratios.iter().all(is_a_share), "{ratios:?}");
    // One of them has done the handshake.
    assert!(ratios.iter().any(|ratio| *ratio > 0.0), "{ratios:?}");
}

#[tokio::test]
async fn reloads_are_counted_by_result() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("vestibule.toml");
    let good = ECHO.replace("{certs}", &project("certs"));
    std::fs::write(&path, &good).expect("a file");
    let source = ConfigSource::file(&path);
    let config = source.read().expect("a configuration");
    let proxy = Proxy::builder(config).bind().await.expect("bound");
    let supervisor = Supervisor::start(proxy, source);
    let handle = supervisor.handle();
    let steer = async {
        handle.reload().await.expect("the same configuration");
        std::fs::write(&path, "[[listener]]\n").expect("a file");
        handle.reload().await.expect_err("problems");
        let changed = good.replace("workers = 2", "workers = 3");
        std::fs::write(&path, changed).expect("a file");
        handle.reload().await.expect_err("a restart is needed");
        let samples = Samples::read(&handle.metrics(MetricsFormat::Prometheus));
        handle.drain();
        samples
    };
    let (samples, _) = soon("the end", async { tokio::join!(steer, supervisor.run()) }).await;
    // Files that change are reloaded without being asked too.
    assert!(samples.sum("vestibule_reloads_total{result=ok}") >= 1.0);
    assert!(samples.sum("vestibule_reloads_total{result=failed}") >= 2.0);
}

#[tokio::test]
async fn only_the_first_200_certificates_have_a_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::root("servers");
    let mut config = String::from(
        "[[backend]]\nname = \"echo\"\nto = \"echo\"\n[[listener]]\nname = \"https\"\n\
         address = \"127.0.0.1:0\"\n[listener.tls]\ncertificates = [\n",
    );
    for number in 0..203 {
        let host = format!("host-{number:03}.example.com");
        let mut subject = Subject::host(&[&host]);
        // The one of the rest that expires first.
        subject.public = number == 201;
        authority.issue(&subject).write(directory.path(), &host);
        let entry =
            format!("  {{ chain = \"{{dir}}/{host}.pem\", key = \"{{dir}}/{host}-key.pem\" }},\n");
        config.write_str(&entry).expect("a String");
    }
    config.push_str("]\n");
    let running = start(&directory, &config).await;
    let samples = Samples::of(&running);
    let metric = "vestibule_certificate_expiry_timestamp_seconds";
    let names = samples.values(metric, "name");
    assert_eq!(names.len(), 201);
    let has = |name: &str| names.contains(name);
    assert!(has("other") && has("host-199.example.com") && !has("host-200.example.com"));
    let days = |name: &str| {
        let end = samples.sum(&format!("{metric}{{listener=https,name={name}}}"));
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("a clock");
        (end - now.as_secs_f64()) / 86_400.0
    };
    assert!((89.0..=90.0).contains(&days("other")), "{}", days("other"));
    assert!(days("host-000.example.com") > 90.0);
}

#[tokio::test]
async fn a_revocation_list_has_the_time_of_its_next_update() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::root("clients");
    let files = [
        ("ca.pem", authority.pem()),
        ("crl.pem", authority.revocations(&[1])),
    ];
    for (name, pem) in files {
        std::fs::write(directory.path().join(name), pem).expect("a file");
    }
    let clients = "client_auth = \"required\"\nclient_ca = [\"{dir}/ca.pem\"]\n\
         crl = [\"{dir}/crl.pem\"]\n[[backend]]";
    let running = start(&directory, &ECHO.replace("[[backend]]", clients)).await;
    let samples = Samples::of(&running);
    let metric = "vestibule_crl_next_update_timestamp_seconds{listener=https}";
    // 2100-01-01.
    assert_eq!(samples.sum(metric), 4_102_444_800.0);
    let issuers = samples.values("vestibule_crl_next_update_timestamp_seconds", "issuer");
    assert_eq!(issuers.len(), 1);
    assert!(
        issuers.iter().all(|it| it.contains("clients")),
        "{issuers:?}"
    );
}
