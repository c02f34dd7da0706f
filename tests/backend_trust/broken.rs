//! Backends that violate TLS: silence, bytes that are not TLS, and ends without `close_notify`.

use crate::*;

#[tokio::test]
async fn a_silent_handshake_has_the_same_time_limit_as_a_dial() {
    for kind in [Kind::Tcp, Kind::Unix] {
        let directory = certificates();
        let backend = listen(kind, &directory).await;
        let timeouts = "[timeouts]\nbackend = \"300ms\"\n";
        let tls = format!("{TLS}{timeouts}");
        let vestibule = start(directory, &backend.address(), &tls).await;
        let door = door(&vestibule);
        let (mut client, silent) = tokio::join!(door.enter(), backend.accept());
        let _silent = silent.expect("a dial");
        assert_eq!(client.read(&mut [0]).await.expect("a close"), 0);
        vestibule.ended("backend_timeout", 1).await;
    }
}

#[tokio::test]
async fn a_backend_that_breaks_the_handshake_counts_as_refusing() {
    /// What the backend does after it has a ClientHello.
    type Break = fn(Socket) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let breaks: [(&str, Break); 4] = [
        (
            "the backend closed during the handshake; check that it speaks TLS from the first byte",
            |mut socket| {
                Box::pin(async move {
                    // Reads first, because a close with unread bytes would be a reset.
                    let _ = socket.read(&mut [0; 4096]).await;
                })
            },
        ),
        ("handshake", |socket| Box::pin(async move { drop(socket) })),
        ("not TLS", |mut socket| {
            Box::pin(async move {
                let _ = socket.write_all(b"220 mail.example ESMTP\r\n").await;
                let _ = socket.read(&mut [0; 1000]).await;
            })
        }),
        ("handshake", |mut socket| {
            Box::pin(async move {
                // A fatal handshake_failure.
                let _ = socket.read(&mut [0; 1000]).await;
                let _ = socket.write_all(&[21, 3, 3, 0, 2, 2, 40]).await;
            })
        }),
    ];
    for (why, break_it) in breaks {
        for kind in [Kind::Tcp, Kind::Unix] {
            let directory = certificates();
            let backend = listen(kind, &directory).await;
            let address = backend.address();
            let config = format!(
                "{IN_THE_CLEAR}[[backend]]\nname = \"app\"\nto = \"{address}\"\npark = false\n{TLS}"
            );
            let vestibule = Vestibule::start_in(directory, &config).await;
            let _serving = backend.serve(break_it);
            for _ in 0..3 {
                assert_eq!(ask(&vestibule).await, "");
            }
            vestibule.ended("backend_refused", 3).await;
            let down = vestibule
                .event(|event| message(event) == "backend address is down")
                .await;
            let error = down["error"].as_str().expect("text");
            assert!(error.contains(why), "{error}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_close_notify_is_not_passed_on_as_complete() {
    for (site, version) in sites().await {
        for (count, door) in site.doors().iter().enumerate() {
            let (mut client, mut server) = site.pair(door).await;
            server.write_all(b"half of ").await.expect("open");
            server.flush().await.expect("open");
            let mut half = [0; 8];
            soon("half", client.read_exact(&mut half))
                .await
                .expect("open");
            let (mut socket, _tls) = server.into_inner();
            socket.shutdown().await.expect("open");
            let mut rest = Vec::new();
            let end = soon("an end", client.read_to_end(&mut rest)).await;
            match door {
                // A Unix socket has no reset: its client can see a truncation only by the length.
                Door::Clear(Front::Unix(_)) => assert_eq!(rest, b""),
                _ => drop(end.expect_err(&format!("{door:?} {version}: a clean end"))),
            }
            site.vestibule.ended("backend_reset", count + 1).await;
        }
        assert_eq!(
            site.vestibule.outcomes().len(),
            1,
            "{:?}",
            site.vestibule.outcomes()
        );
    }
}

#[tokio::test]
async fn a_reset_or_a_truncation_passes_in_both_directions() {
    for relay in RELAYS {
        let directory = certificates();
        let config = server(directory.path(), "api", ALL_VERSIONS);
        let site = Site::start(directory, relay, Kind::Tcp, config, "").await;
        let [tls, _, clear, _] = site.doors();
        for (count, door) in [&tls, &clear].into_iter().enumerate() {
            let (mut client, server) = site.pair(door).await;
            reset(server.into_inner().0);
            let end = soon("an end", client.read(&mut [0])).await;
            end.expect_err("a clean end");
            site.vestibule.ended("backend_reset", count + 1).await;
        }
        let Door::Tls(front) = &tls else {
            panic!("a door with TLS");
        };
        let (client, mut server) = tokio::join!(front.connect(), site.server());
        let (mut socket, _tls) = client.expect("a handshake").into_inner();
        socket.shutdown().await.expect("open");
        let end = soon("an end", server.read(&mut [0])).await;
        let kind = end.expect_err("a clean end").kind();
        assert_eq!(kind, io::ErrorKind::ConnectionReset);
        site.vestibule.ended("client_truncated", 1).await;
    }
}

#[tokio::test]
async fn an_idle_timeout_resets_the_backend_and_closes_a_tls_client_in_order() {
    for relay in RELAYS {
        let directory = certificates();
        let config = server(directory.path(), "api", ALL_VERSIONS);
        let idle = "[timeouts]\nidle = \"200ms\"\n";
        let site = Site::start(directory, relay, Kind::Tcp, config, idle).await;
        for door in site.doors() {
            let (mut client, mut server) = site.pair(&door).await;
            soon("an end", server.read(&mut [0]))
                .await
                .expect_err("no close_notify");
            let end = soon("an end", client.read(&mut [0])).await;
            match door {
                Door::Tls(_) => assert_eq!(end.expect("close_notify"), 0),
                Door::Clear(Front::Tcp(_)) => drop(end.expect_err("a reset")),
                // A Unix socket cannot show this.
                Door::Clear(Front::Unix(_)) => {}
            }
        }
        site.vestibule.ended("idle", 4).await;
    }
}

fn reset(socket: Socket) {
    match socket {
        Socket::Tcp(stream) => stream.set_zero_linger().expect("an open socket"),
        Socket::Unix(_) => panic!("a Unix socket has no reset"),
    }
}
