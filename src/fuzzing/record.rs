//! The record layer and rustls: the same bytes, the same plaintext or the same refusal.
//!
//! ```text
//! program ─► client's records ──┬─► Records ─► backend          the same bytes, the same end
//!            (sealed by Half)   └─► rustls's server
//!            rustls's client  ◄──── Records ◄─      backend     the bytes that it said
//! ```

mod half;
mod ours;
mod pipe;
mod program;
mod reference;
mod session;
mod told;
mod wire;
mod world;

use tokio::runtime::{Builder, Runtime};

use self::program::Program;
use self::world::World;

/// Does to a connection what the input says, see [`program`].
///
/// # Panics
///
/// The record layer and rustls disagree where they should not: what is intended is said in
/// [`reference`]. Or what the record layer sends is not what it should.
pub fn record(data: &[u8]) {
    RUNTIME.with(|runtime| {
        // For timers, which never fire here.
        let _context = runtime.enter();
        let mut program = Program(data);
        let setup = program.setup();
        // Shown only when a test fails.
        #[cfg(test)]
        println!("{setup:?}");
        let mut world = World::new(&setup);
        for operation in program.take(MOST_OPERATIONS) {
            #[cfg(test)]
            println!("{operation:?}");
            world.perform(&operation);
        }
        world.close();
    });
}

/// More show nothing that these do not.
const MOST_OPERATIONS: usize = 128;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without descriptors");
}
