//! Files that are replaced during traffic, half written, swapped or corrected: each change is
//! noticed, and no incomplete file is loaded.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::changing::{ECHO, Site, config, echo, open, refusals, refused, reloaded, shown};
use common::pki::{Subject, replace};
use common::soon;
use common::vestibule::Vestibule;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

/// Clients that connect one after the other all the time, and count failures.
struct Load {
    stop: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(address: String, config: Arc<ClientConfig>) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            came: Arc::default(),
            clients: JoinSet::new(),
        };
        for _ in 0..4 {
            let (stop, came) = (Arc::clone(&load.stop), Arc::clone(&load.came));
            let (address, config) = (address.clone(), Arc::clone(&config));
            load.clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let socket = TcpStream::connect(&address).await.expect("a listener");
                    let name = "localhost".try_into().expect("a name");
                    let connector = TlsConnector::from(Arc::clone(&config));
                    let client = connector.connect(name, socket).await;
                    let mut client = client.expect("a handshake");
                    echo(&mut client).await.expect("an echo");
                    client.shutdown().await.expect("an end");
                    came.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    /// Waits until this many more clients have connected.
    async fn for_more(&self, count: usize) {
        let until = self.came.load(Ordering::Relaxed) + count;
        soon("more clients", async {
            while self.came.load(Ordering::Relaxed) < until {
                assert!(!self.clients.is_empty(), "a client has failed");
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(client) = soon("a client's end", self.clients.join_next()).await {
            client.expect("no client fails");
        }
    }
}

#[tokio::test]
async fn a_hundred_reloads_fail_no_handshake_and_leave_the_memory_as_it_was() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let load = Load::start(vestibule.tcp(), site.config(None));
    let mut memory = 0;
    for round in 1..=110 {
        site.server(&["localhost"]);
        vestibule.signal(Signal::HUP);
        reloaded(&vestibule, round).await;
        load.for_more(5).await;
        if round == 10 {
            memory = vestibule.memory();
        }
    }
    load.end().await;
    let now = vestibule.memory();
    assert!(
        now < memory + memory / 4 + 4 * MIB,
        "{memory} and then {now}"
    );
    assert_eq!(vestibule.outcomes().keys().collect::<Vec<_>>(), ["done"]);
}

const MIB: usize = 1024 * 1024;

/// As a script does it: one file after the other.
#[tokio::test]
async fn a_certificate_and_its_key_may_be_replaced_one_after_the_other() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let client = site.config(None);
    let load = Load::start(vestibule.tcp(), Arc::clone(&client));
    for _ in 0..3 {
        let issued = site.authority.issue(&Subject::host(&["localhost"]));
        replace(&site.path("server.pem"), &issued.chain);
        tokio::time::sleep(Duration::from_millis(50)).await;
        replace(&site.path("server-key.pem"), &issued.key);
        soon("the new certificate", async {
            loop {
                if shown(&vestibule, &site).await == issued.der {
                    return;
                }
            }
        })
        .await;
    }
    load.end().await;
}

/// Written in place, in two halves: the first half is not a certificate.
#[tokio::test]
async fn a_half_written_file_is_not_loaded() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let client = site.config(None);
    let load = Load::start(vestibule.tcp(), Arc::clone(&client));
    let issued = site.authority.issue(&Subject::host(&["localhost"]));
    let (half, _) = issued.chain.split_at(issued.chain.len() / 2);
    std::fs::write(site.path("server.pem"), half).expect("a file");
    refused(&vestibule).await;
    load.for_more(20).await;
    std::fs::write(site.path("server.pem"), &issued.chain).expect("a file");
    std::fs::write(site.path("server-key.pem"), &issued.key).expect("a file");
    reloaded(&vestibule, 1).await;
    load.for_more(20).await;
    load.end().await;
}

/// Nobody writes into the FIFO. A reader that waits for its first byte would handle nothing else.
#[tokio::test]
async fn a_certificate_that_becomes_a_fifo_is_refused_and_blocks_no_signal() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let (chain, away) = (site.path("server.pem"), site.path("server-away.pem"));
    std::fs::copy(&chain, &away).expect("a copy");
    let fifo = site.path("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    std::fs::rename(&fifo, &chain).expect("a FIFO in its place");
    vestibule.signal(Signal::HUP);
    let said = refused(&vestibule).await;
    let why = format!("cannot read {}: it is not a regular file", chain.display());
    assert!(said.contains(&why), "{said}");
    open(&vestibule, &site.config(None)).await;
    std::fs::rename(&away, &chain).expect("the file again");
    vestibule.signal(Signal::HUP);
    reloaded(&vestibule, 1).await;
    assert_eq!(vestibule.terminate().await, Some(0));
}

/// A Kubernetes volume: the files are links into `..data`, which is itself a link that gets
/// replaced.
#[tokio::test]
async fn a_volume_whose_link_is_swapped_is_noticed() {
    let site = Site::new();
    let volume = site.path("volume");
    let version = |name: &str| {
        let directory = volume.join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let issued = site.authority.issue(&Subject::host(&["localhost"]));
        issued.write(&directory, "server");
        issued
    };
    let swap = |name: &str| {
        let beside = volume.join("..data_tmp");
        std::os::unix::fs::symlink(name, &beside).expect("a link");
        std::fs::rename(&beside, volume.join("..data")).expect("a swap");
    };
    version("..2026_1");
    swap("..2026_1");
    for file in ["server.pem", "server-key.pem"] {
        let target = Path::new("..data").join(file);
        std::os::unix::fs::symlink(target, volume.join(file)).expect("a link");
    }
    let text = config(ECHO).replace("{dir}/server", "{dir}/volume/server");
    let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &text).await;
    let client = site.config(None);
    open(&vestibule, &client).await;
    for (round, name) in ["..2026_2", "..2026_3"].into_iter().enumerate() {
        let issued = version(name);
        swap(name);
        reloaded(&vestibule, round + 1).await;
        assert!(
            shown(&vestibule, &site).await == issued.der,
            "round {round}"
        );
    }
}

/// The working directory has files with the same names, written by somebody else.
#[tokio::test]
async fn files_that_are_moved_away_are_not_read_from_the_working_directory() {
    let (site, elsewhere) = (Site::new(), Site::new());
    let vestibule = start_in(&site, &elsewhere).await;
    let names = ["ca.pem", "server.pem", "server-key.pem"];
    for name in names {
        std::fs::rename(site.path(name), site.path(&format!("old-{name}"))).expect("a file");
    }
    let said = refused(&vestibule).await;
    let beside = site.path("ca.pem").display().to_string();
    assert!(said.contains(&beside), "{said}");
    open(&vestibule, &site.config(None)).await;
    for name in names {
        std::fs::rename(site.path(&format!("old-{name}")), site.path(name)).expect("a file");
    }
    reloaded(&vestibule, 1).await;
}

#[tokio::test]
async fn files_read_from_the_working_directory_are_read_from_there_after_a_reload() {
    let (site, elsewhere) = (Site::new(), Site::new());
    for file in ["ca.pem", "server.pem", "server-key.pem"] {
        std::fs::remove_file(site.path(file)).expect("a file");
    }
    let vestibule = start_in(&site, &elsewhere).await;
    site.server(&["localhost"]);
    elsewhere.server(&["localhost", "changed.example"]);
    reloaded(&vestibule, 1).await;
    open(&vestibule, &elsewhere.config(None)).await;
}

/// Starts with relative file names, in another working directory.
async fn start_in(site: &Site, elsewhere: &Site) -> Vestibule {
    let revoked = "crl = \"{dir}/revoked.pem\"\n";
    let text = config(ECHO).replace(revoked, "").replace("{dir}/", "");
    let directory = Arc::clone(&site.directory);
    let vestibule = Vestibule::spawn(directory, &text, |mut command| {
        command.current_dir(elsewhere.directory.path());
        command
    });
    vestibule.until_started().await;
    vestibule
}

/// The configuration arrives first, and the file that it names later.
#[tokio::test]
async fn a_missing_file_of_a_refused_configuration_is_loaded_once_it_appears() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    site.configure(&config(ECHO).replace("revoked.pem", "late.pem"));
    let said = refused(&vestibule).await;
    assert!(said.contains("late.pem"), "{said}");
    replace(&site.path("late.pem"), &site.authority.revocations(&[]));
    reloaded(&vestibule, 1).await;
}

#[tokio::test]
async fn a_refused_configuration_is_retried_when_one_of_its_or_the_previous_files_changes() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let other = |path: &str| replace(&site.path(path), &site.authority.revocations(&[7]));
    other("other.pem");
    let unbindable = "[[listener]]\nname = \"more\"\naddress = \"tcp:203.0.113.1:1\"\n";
    for (round, mistake) in ["conections = 5\n", unbindable].into_iter().enumerate() {
        let tries = 1 + 3 * round;
        let text = config(&format!("{ECHO}{mistake}"));
        site.configure(&text.replace("revoked.pem", "other.pem"));
        refusals(&vestibule, tries).await;
        other("other.pem");
        refusals(&vestibule, tries + 1).await;
        other("revoked.pem");
        refusals(&vestibule, tries + 2).await;
    }
    site.configure(&config(ECHO));
    reloaded(&vestibule, 1).await;
}
