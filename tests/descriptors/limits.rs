//! The limit on descriptors together with the limit on connections.

use crate::*;

#[tokio::test]
async fn too_few_descriptors_for_the_configured_limit_are_logged_at_the_start() {
    let claimed = "limits.connections cannot be reached: 50 connections may need 100 file descriptors; raise `ulimit -n` (in systemd, LimitNOFILE=) above that, or lower the limit";
    let built_in = claimed.replace("50", "100");
    for (connections, backend, expected) in [
        (49, GATE, None),
        (50, GATE, Some(claimed)),
        (99, ECHO, None),
        (100, ECHO, Some(&*built_in)),
    ] {
        let log = start(connections, backend).await.log();
        let warning = log.iter().find(|event| event["level"] == "WARN");
        assert_eq!(warning.map(message), expected, "{connections} of {backend}");
    }
}

#[tokio::test]
async fn with_enough_descriptors_the_configured_limit_is_exact() {
    const MOST: usize = DESCRIPTORS / 2;
    let vestibule = start(MOST, ECHO).await;
    let front = Front::Tcp(vestibule.tcp());
    let mut clients = Crowd::of(2 * MOST, &front);
    for _ in 0..MOST {
        clients.served().await;
    }
    vestibule.ended("over_limit", MOST).await;
    clients.leave().await;
    vestibule.ended("done", MOST).await;
    assert_eq!(complaints(&vestibule), 0);
    assert_eq!(vestibule.terminate().await, Some(0));
}

#[tokio::test]
async fn without_free_descriptors_the_configured_limit_is_still_exact() {
    const FLOOD: usize = 1000;
    common::resources::raise_own_limit();
    let (vestibule, free, clients) = at_both_limits().await;
    let front = Front::Tcp(vestibule.tcp());
    for refused in 1..=5 {
        // No descriptor is free to accept it, and it is closed all the same.
        assert!(soon("a close", front.connect()).await.is_err());
        vestibule.ended("over_limit", refused).await;
    }
    // These clients do not queue for it either: one at a time they would take half a minute.
    common::within(Duration::from_secs(10), "a flood turned away", async {
        let turned_away = (0..FLOOD).map(|_| {
            let front = front.clone();
            async move { front.connect().await.is_err() }
        });
        let flood: JoinSet<_> = turned_away.collect();
        assert!(flood.join_all().await.into_iter().all(|it| it));
    })
    .await;
    vestibule.ended("over_limit", 5 + FLOOD).await;
    clients.leave().await;
    vestibule.ended("done", free).await;
    finish(front.connect().await.expect("room")).await;
}

/// A Vestibule with as many connections as its limit allows and without free descriptors, the
/// number of connections, and the clients.
async fn at_both_limits() -> (Vestibule, usize, Crowd) {
    // More connections than descriptors beside the program's own, and fewer than twice as many.
    let free = DESCRIPTORS - used(&start(1, ECHO_AND_GATE).await);
    let vestibule = start(free, ECHO_AND_GATE).await;
    let mut clients = Crowd::of(free, &Front::Tcp(vestibule.tcp()));
    for _ in 0..free {
        clients.served().await;
    }
    // This includes the descriptor in reserve, which the search for the next client may have taken.
    common::until("there is no descriptor left", || {
        used(&vestibule) == DESCRIPTORS
    })
    .await;
    (vestibule, free, clients)
}

/// The gate has accepted a client with the descriptor in reserve. No other client comes for which
/// it would look for a new one.
#[tokio::test]
async fn the_reserved_descriptor_is_refilled_after_a_gate_client_used_it() {
    let (vestibule, free, clients) = at_both_limits().await;
    let with_reserve = null_devices(&vestibule);
    gate::until_in_place(&vestibule.gate()).await;
    common::until("it is there again", || {
        null_devices(&vestibule) == with_reserve
    })
    .await;
    clients.leave().await;
    vestibule.ended("done", free).await;
}
