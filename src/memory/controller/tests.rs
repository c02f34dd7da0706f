//! The controller with a clock, a meter and connections of the test.

use super::*;

const MIB: u64 = 1024 * 1024;
const MAX: u64 = 100 * MIB;
const BASE: u64 = 20 * MIB;
const SECOND: Duration = Duration::from_secs(1);

fn controller() -> Controller {
    Controller::new(MAX, BASE)
}

/// A process whose closed connections give their memory back after some time.
struct World {
    controller: Controller,
    now: Instant,
    /// Bytes that no close gives back.
    fixed: u64,
    open: usize,
    /// Bytes of each connection.
    each: u64,
    /// Bytes that each takes in addition while it closes.
    closing: u64,
    /// When how many bytes come back.
    returning: Vec<(Instant, u64)>,
    shed: usize,
    remarks: Vec<Remark>,
}

impl World {
    fn new(open: usize, each: u64) -> Self {
        Self {
            controller: controller(),
            now: Instant::now(),
            fixed: BASE,
            open,
            each,
            closing: 0,
            returning: Vec::new(),
            shed: 0,
            remarks: Vec::new(),
        }
    }

    fn used(&self) -> u64 {
        let returning = self.returning.iter().filter(|(at, _)| *at > self.now);
        let returning: u64 = returning.map(|(_, bytes)| bytes).sum();
        self.fixed + self.open as u64 * self.each + returning
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let used = self.used();
            let decision = self.controller.step(self.now, used, self.open);
            let closed = decision.shed.min(self.open);
            self.open -= closed;
            self.shed += closed;
            let back = (
                self.now + SECOND,
                closed as u64 * (self.each + self.closing),
            );
            self.returning.push(back);
            self.remarks.extend(decision.remark);
            self.now += decision.next;
        }
    }
}

#[test]
fn the_levels_begin_at_80_90_and_95_percent_and_end_lower() {
    use Pressure::{High, None, Refusing, Shedding};
    let mut controller = controller();
    for (percent, pressure) in [
        (79, None),
        (80, High),
        (75, High),
        (74, None),
        (79, None),
        (89, High),
        (90, Refusing),
        (94, Refusing),
        (89, High),
        (95, Shedding),
        (90, Shedding),
        (89, High),
        (94, Refusing),
        (200, Shedding),
        (10, None),
    ] {
        let decision = controller.step(Instant::now(), percent * MIB, 10);
        assert_eq!(decision.pressure, pressure, "{percent} %");
        let admits_none = decision.most_pending == Some(0);
        assert_eq!(admits_none, percent >= 90, "{percent} %");
    }
}

#[test]
fn connections_without_a_backend_fit_into_what_is_left() {
    let mut controller = controller();
    let decision = controller.step(Instant::now(), 60 * MIB, 10);
    assert_eq!(decision.most_pending, Some(35 * MIB / PENDING_AT_MOST));
    let mut large = Controller::new(1 << 40, BASE);
    assert_eq!(large.step(Instant::now(), MIB, 10).most_pending, None);
}

#[test]
fn samples_are_the_more_frequent_the_less_is_left() {
    let next = |room| until_next(room).as_millis();
    let all = [0, 10 * MIB, 100 * MIB, 1 << 30, u64::MAX].map(next);
    assert_eq!(all, [5, 10, 102, 1000, 1000]);
}

#[test]
fn each_level_is_logged_at_most_once_a_minute_however_often_it_is_crossed() {
    let (mut controller, start) = (controller(), Instant::now());
    let mut remarks = Vec::new();
    for second in 0..60 {
        let now = start + second * SECOND;
        for percent in [85, 92, 70] {
            remarks.extend(controller.step(now, percent * MIB, 10).remark);
        }
    }
    let once = [
        Remark::Rose(Pressure::High),
        Remark::Rose(Pressure::Refusing),
        Remark::Fell,
    ];
    assert_eq!(remarks, once);
    let again = controller.step(start + MINUTE, 85 * MIB, 10).remark;
    assert_eq!(again, Some(Remark::Rose(Pressure::High)));
}

#[test]
fn connections_are_closed_until_there_is_room_and_not_many_more() {
    // 96 MiB: 6 MiB and a little are too much.
    let mut world = World::new(7_600, 10 * 1024);
    world.fixed += 2 * MIB;
    let needed = (world.used() - 90 * MIB).div_ceil(world.each) as usize;
    world.run(60 * SECOND);
    assert!(world.used() < 90 * MIB, "{}", world.used() / MIB);
    assert!(
        (needed..needed * 3 / 2).contains(&world.shed),
        "{} of {needed}",
        world.shed
    );
    assert_eq!(world.remarks, [Remark::Rose(Pressure::Shedding)]);
}

#[test]
fn memory_that_closing_takes_for_a_moment_closes_no_more_connections() {
    let mut world = World::new(7_600, 10 * 1024);
    world.closing = 10 * 1024;
    world.fixed += 2 * MIB;
    let needed = (world.used() - 90 * MIB).div_ceil(world.each) as usize;
    world.run(60 * SECOND);
    assert!(world.used() < 90 * MIB, "{}", world.used() / MIB);
    assert!(world.shed < needed * 3 / 2, "{} of {needed}", world.shed);
}

#[test]
fn small_connections_are_closed_in_several_batches_until_there_is_room() {
    // Half of the memory is that of a few connections that are not idle.
    let mut world = World::new(9_000, 4 * 1024);
    world.fixed = MAX * 96 / 100 - world.open as u64 * world.each;
    world.run(60 * SECOND);
    assert!(world.used() < 90 * MIB, "{}", world.used() / MIB);
    assert!(world.shed < 2_500, "{}", world.shed);
}

#[test]
fn it_stops_if_closing_connections_frees_nothing() {
    let mut world = World::new(9_000, 0);
    world.fixed = MAX * 97 / 100;
    world.run(30 * SECOND);
    let first = world.shed;
    assert!((1..3_000).contains(&first), "{first}");
    assert_eq!(
        world.remarks,
        [Remark::Rose(Pressure::Shedding), Remark::Useless]
    );
    assert_eq!(world.controller.pressure, Pressure::Shedding);
    // One more batch a minute shows whether that has changed.
    world.run(60 * SECOND);
    assert!(world.shed > first);
    assert!(world.shed - first <= first / 2, "{}", world.shed - first);
}

#[test]
fn a_flood_that_comes_on_top_does_not_wait_for_the_last_batch() {
    let (mut controller, now) = (controller(), Instant::now());
    let first = controller.step(now, 96 * MIB, 1000).shed;
    let soon = now + Duration::from_millis(5);
    assert_eq!(controller.step(soon, 97 * MIB, 1000).shed, 0);
    let closing = first as u64 * CLOSING;
    let second = controller.step(soon, 99 * MIB + closing, 1000).shed;
    // In proportion: 6 MiB were too much, and 3 MiB have come.
    assert!(first > 0 && (first / 3..first).contains(&second));
}

#[test]
fn at_least_one_and_at_most_all_connections_are_closed() {
    // All of it was used before the first connection.
    for (open, shed) in [(0, 1), (1, 1), (50, 50)] {
        let mut controller = Controller::new(MAX, MAX);
        let decision = controller.step(Instant::now(), MAX, open);
        assert_eq!(decision.shed, shed);
    }
}
