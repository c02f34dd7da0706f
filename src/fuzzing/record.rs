//! Compares the record layer with rustls: for the same bytes, the same plaintext or the same refusal.
//!
//! ```text
//! program ─► client's records ──┬─► Records ─► backend           the same bytes, the same end
//!            (RecordCipher)     └─► rustls's server
//!            rustls's client  ◄──── Records ◄─      backend      the bytes that it sent
//! ```

mod cipher;
mod peer_checker;
mod pipe;
mod program;
mod reference;
mod session;
mod tested;
mod wire;
mod world;

use tokio::runtime::{Builder, Runtime};

use self::program::Program;
use self::world::World;

/// Runs the operations of the input on a connection; see [`program`].
///
/// # Panics
///
/// The record layer and rustls disagree, other than intended ([`reference`] lists the intended
/// differences). Or the record layer sends wrong records.
pub fn record(data: &[u8]) {
    RUNTIME.with(|runtime| {
        // Timers need a runtime. They never fire here.
        let _context = runtime.enter();
        let mut program = Program(data);
        let setup = program.setup();
        // Shown only if a test fails.
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

/// Longer programs find nothing that these do not.
const MOST_OPERATIONS: usize = 128;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without descriptors");
}
