//! Tests of the table: examples, and loom models (`--cfg vestibule_loom`) of every interleaving.

use super::*;

/// A claimer that can be told, or one that is gone.
#[derive(Debug, PartialEq, Eq)]
enum Claimer {
    Alive(u32),
    Gone(u32),
}

use Claimer::{Alive, Gone};

fn rendezvous() -> Rendezvous<Claimer> {
    Rendezvous::confirmed_by(|claimer, _| match claimer {
        Alive(_) => Ok(claimer),
        Gone(_) => Err(claimer),
    })
}

#[cfg(not(vestibule_loom))]
mod examples {
    use std::time::Duration;

    use super::*;

    const BUDGET: Duration = Duration::from_secs(5);

    fn announce(rendezvous: &Rendezvous<Claimer>) -> (Id, Ticket<Claimer>) {
        let facts = Facts::new("app");
        (facts.id, rendezvous.announce(facts))
    }

    fn told(events: &mut mpsc::Receiver<Event>) -> Vec<String> {
        std::iter::from_fn(|| events.try_recv().ok())
            .map(|event| match event {
                Event::Offer(facts) => format!("offer {}", facts.id),
                Event::Gone(id, resolution) => format!("gone {id} {resolution}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn second_claim_of_an_id_gets_its_stream_back() {
        let rendezvous = rendezvous();
        let (id, ticket) = announce(&rendezvous);
        assert_eq!(rendezvous.claim(id, Alive(1)), Ok(()));
        assert_eq!(rendezvous.claim(id, Alive(2)), Err(Unclaimed(Alive(2))));
        assert_eq!(ticket.redeem(BUDGET).await, Ok(Alive(1)));
        assert_eq!(rendezvous.claim(id, Alive(3)), Err(Unclaimed(Alive(3))));
        assert!(rendezvous.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_offer_cannot_be_claimed() {
        let rendezvous = rendezvous();
        let (id, ticket) = announce(&rendezvous);
        assert_eq!(ticket.redeem(BUDGET).await, Err(Unredeemed::Expired));
        assert_eq!(rendezvous.claim(id, Alive(1)), Err(Unclaimed(Alive(1))));
        assert!(rendezvous.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_came_before_the_deadline_is_honoured_after_it() {
        let rendezvous = rendezvous();
        let (id, ticket) = announce(&rendezvous);
        let deadline = Deadline::after(BUDGET);
        assert_eq!(rendezvous.claim(id, Alive(1)), Ok(()));
        tokio::time::advance(2 * BUDGET).await;
        assert_eq!(ticket.redeem(deadline).await, Ok(Alive(1)));
    }

    #[tokio::test]
    async fn a_dropped_ticket_withdraws_its_offer_and_drops_its_claimer() {
        let rendezvous = rendezvous();
        let (id, ticket) = announce(&rendezvous);
        drop(ticket);
        assert_eq!(rendezvous.claim(id, Alive(1)), Err(Unclaimed(Alive(1))));
        let (id, ticket) = announce(&rendezvous);
        assert_eq!(rendezvous.claim(id, Alive(2)), Ok(()));
        drop(ticket);
        assert!(rendezvous.is_empty());
    }

    #[tokio::test]
    async fn a_claimer_that_is_gone_resolves_nothing() {
        let rendezvous = rendezvous();
        let (id, ticket) = announce(&rendezvous);
        assert_eq!(rendezvous.claim(id, Gone(1)), Err(Unclaimed(Gone(1))));
        assert!(matches!(
            rendezvous.accept("app", Gone(2)),
            Accepted::Gone(Gone(2))
        ));
        assert_eq!(rendezvous.claim(id, Alive(3)), Ok(()));
        assert_eq!(ticket.redeem(BUDGET).await, Ok(Alive(3)));
    }

    #[tokio::test]
    async fn waiting_claimers_are_served_in_turn_and_dead_ones_skipped() {
        let rendezvous = rendezvous();
        for claimer in [Gone(1), Alive(2), Gone(3), Alive(4)] {
            assert!(matches!(
                rendezvous.accept("app", claimer),
                Accepted::Queued
            ));
        }
        let (_, first) = announce(&rendezvous);
        let (_, second) = announce(&rendezvous);
        let (id, third) = announce(&rendezvous);
        assert_eq!(second.redeem(BUDGET).await, Ok(Alive(4)));
        assert_eq!(first.redeem(BUDGET).await, Ok(Alive(2)));
        assert_eq!(rendezvous.claim(id, Alive(5)), Ok(()));
        assert_eq!(third.redeem(BUDGET).await, Ok(Alive(5)));
    }

    #[tokio::test]
    async fn waiting_offers_are_taken_oldest_first_by_their_own_backend() {
        let rendezvous = rendezvous();
        let other = rendezvous.announce(Facts::new("other"));
        let (_, first) = announce(&rendezvous);
        let (id, second) = announce(&rendezvous);
        let (_, third) = announce(&rendezvous);
        assert_eq!(rendezvous.claim(id, Alive(2)), Ok(()));
        assert!(matches!(
            rendezvous.accept("app", Alive(1)),
            Accepted::Matched(_)
        ));
        assert!(matches!(
            rendezvous.accept("app", Alive(3)),
            Accepted::Matched(_)
        ));
        assert!(matches!(
            rendezvous.accept("app", Alive(4)),
            Accepted::Queued
        ));
        assert_eq!(first.redeem(BUDGET).await, Ok(Alive(1)));
        assert_eq!(second.redeem(BUDGET).await, Ok(Alive(2)));
        assert_eq!(third.redeem(BUDGET).await, Ok(Alive(3)));
        drop(other);
    }

    #[tokio::test]
    async fn an_offer_that_comes_back_has_its_old_place() {
        let rendezvous = rendezvous();
        let (id, mut first) = announce(&rendezvous);
        let (_, second) = announce(&rendezvous);
        assert_eq!(rendezvous.claim(id, Alive(1)), Ok(()));
        assert_eq!(first.wait().await, Ok(Alive(1)));
        let mut facts = Facts::new("app");
        facts.id = id;
        let again = rendezvous.announce_again(std::sync::Arc::new(facts), first.place());
        assert!(matches!(
            rendezvous.accept("app", Alive(2)),
            Accepted::Matched(_)
        ));
        assert_eq!(again.redeem(BUDGET).await, Ok(Alive(2)));
        drop(second);
    }

    #[tokio::test]
    async fn pruning_takes_the_dead_claimers_alone() {
        let rendezvous = rendezvous();
        for claimer in [Gone(1), Alive(2), Gone(3)] {
            assert!(matches!(
                rendezvous.accept("app", claimer),
                Accepted::Queued
            ));
        }
        rendezvous.prune(|claimer| matches!(claimer, Alive(_)));
        assert_eq!(rendezvous.drain(), [Alive(2)]);
    }

    #[tokio::test]
    async fn a_drain_resolves_waiting_offers_and_refuses_new_ones() {
        let rendezvous = rendezvous();
        let (_, mut events) = rendezvous.watch("app", 8);
        let (claimed_id, claimed) = announce(&rendezvous);
        let (id, mut waiting) = announce(&rendezvous);
        assert_eq!(rendezvous.claim(claimed_id, Alive(1)), Ok(()));
        assert_eq!(rendezvous.drain(), []);
        assert_eq!(waiting.wait().await, Err(Unredeemed::Drained));
        assert_eq!(
            claimed.redeem(BUDGET).await,
            Ok(Alive(1)),
            "claimed before the drain"
        );
        let (_, late) = announce(&rendezvous);
        assert_eq!(late.redeem(BUDGET).await, Err(Unredeemed::Drained));
        assert!(matches!(
            rendezvous.accept("app", Alive(2)),
            Accepted::Drained(Alive(2))
        ));
        assert_eq!(
            told(&mut events).last(),
            Some(&format!("gone {id} drained"))
        );
        assert!(events.is_closed());
    }

    #[tokio::test]
    async fn watchers_see_what_waits_then_every_event_in_order() {
        let rendezvous = rendezvous();
        let (old, _old_ticket) = announce(&rendezvous);
        let (snapshot, mut events) = rendezvous.watch("app", 8);
        assert_eq!(
            snapshot.iter().map(|facts| facts.id).collect::<Vec<_>>(),
            [old]
        );
        let (id, ticket) = announce(&rendezvous);
        assert_eq!(rendezvous.claim(old, Alive(1)), Ok(()));
        assert!(ticket.withdraw(Resolution::Expired).is_none());
        let expected = [
            format!("offer {id}"),
            format!("gone {old} claimed"),
            format!("gone {id} expired"),
        ];
        assert_eq!(told(&mut events), expected);
    }

    #[tokio::test]
    async fn a_watcher_that_falls_behind_is_dropped_and_delays_nobody() {
        let rendezvous = rendezvous();
        let (_, mut slow) = rendezvous.watch("app", 2);
        let (_, mut quick) = rendezvous.watch("app", 16);
        for _ in 0..3 {
            drop(announce(&rendezvous));
        }
        assert_eq!(told(&mut slow).len(), 2);
        assert!(slow.recv().await.is_none());
        assert_eq!(told(&mut quick).len(), 6);
    }

    #[tokio::test]
    async fn one_id_waits_once() {
        let rendezvous = rendezvous();
        let facts = Facts::new("app");
        let first = rendezvous.announce(facts.clone());
        let second = rendezvous.announce(facts.clone());
        assert_eq!(second.redeem(BUDGET).await, Err(Unredeemed::Duplicate));
        assert_eq!(
            rendezvous.claim(facts.id, Alive(1)),
            Ok(()),
            "the first is untouched"
        );
        assert_eq!(first.redeem(BUDGET).await, Ok(Alive(1)));
    }
}

#[cfg(vestibule_loom)]
mod loom_models {
    use loom::future::block_on;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_of_two_claims_exactly_one_has_it() {
        loom::model(|| {
            let rendezvous = rendezvous();
            let facts = Facts::new("app");
            let id = facts.id;
            let mut ticket = rendezvous.announce(facts);
            let claims = [1, 2].map(|name| {
                let rendezvous = rendezvous.clone();
                thread::spawn(move || rendezvous.claim(id, Alive(name)).is_ok().then_some(name))
            });
            let served = block_on(ticket.wait());
            let told: Vec<u32> = claims
                .into_iter()
                .filter_map(|claim| claim.join().expect("no panic"))
                .collect();
            assert_eq!(told.len(), 1);
            assert_eq!(served, Ok(Alive(told[0])));
            assert!(rendezvous.is_empty());
        });
    }

    #[test]
    fn loom_a_claim_and_the_deadline_agree() {
        loom::model(|| {
            let rendezvous = rendezvous();
            let facts = Facts::new("app");
            let id = facts.id;
            let ticket = rendezvous.announce(facts);
            let claim = {
                let rendezvous = rendezvous.clone();
                thread::spawn(move || rendezvous.claim(id, Alive(1)).is_ok())
            };
            let claimed = ticket.withdraw(Resolution::Expired).is_some();
            assert_eq!(claim.join().expect("no panic"), claimed);
            assert!(rendezvous.is_empty());
        });
    }

    #[test]
    fn loom_an_offer_and_a_claimer_meet_in_either_order() {
        loom::model(|| {
            let rendezvous = rendezvous();
            let acceptor = {
                let rendezvous = rendezvous.clone();
                thread::spawn(move || drop(rendezvous.accept("app", Alive(1))))
            };
            let mut ticket = rendezvous.announce(Facts::new("app"));
            assert_eq!(block_on(ticket.wait()), Ok(Alive(1)));
            acceptor.join().expect("no panic");
            assert!(rendezvous.is_empty());
        });
    }

    #[test]
    fn loom_a_drain_leaves_no_ticket_waiting() {
        loom::model(|| {
            let rendezvous = rendezvous();
            let facts = Facts::new("app");
            let id = facts.id;
            let drain = {
                let rendezvous = rendezvous.clone();
                thread::spawn(move || drop(rendezvous.drain()))
            };
            let mut ticket = rendezvous.announce(facts);
            let claimed = rendezvous.claim(id, Alive(1)).is_ok();
            let served = block_on(ticket.wait());
            assert_eq!(served.is_ok(), claimed);
            drain.join().expect("no panic");
            assert!(rendezvous.is_empty());
        });
    }

    #[test]
    fn loom_a_dead_claimer_leaves_the_offer_for_the_next() {
        loom::model(|| {
            let rendezvous = rendezvous();
            let facts = Facts::new("app");
            let id = facts.id;
            let mut ticket = rendezvous.announce(facts);
            let dead = {
                let rendezvous = rendezvous.clone();
                thread::spawn(move || assert!(rendezvous.claim(id, Gone(1)).is_err()))
            };
            assert!(
                rendezvous.claim(id, Alive(2)).is_ok(),
                "never told `unknown` for a dead rival"
            );
            assert_eq!(block_on(ticket.wait()), Ok(Alive(2)));
            dead.join().expect("no panic");
        });
    }
}
