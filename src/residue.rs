//! What functions leave on the stack when they have returned.

use std::hint::black_box;

/// Overwrites what functions that were called before have left on this thread's stack: keys in arguments,
/// in return values, and in what was moved, which are copied and not wiped.
///
/// It reaches the frames that were below its caller's, [`DEPTH`] bytes of them. What must be reached must
/// not be inlined into the caller.
#[inline(never)]
pub(crate) fn wipe() {
    let mut room = [0_u8; DEPTH];
    black_box(&mut room);
}

/// A handshake goes less deep; without optimisation its frames are larger. A thread has 2 MiB, unless somebody who
/// embeds us says otherwise.
const DEPTH: usize = match cfg!(debug_assertions) {
    true => 128 * 1024,
    false => 48 * 1024,
};
