//! Overwrites secrets that functions have left on the stack.

use std::hint::black_box;

/// Overwrites what earlier function calls have left on this thread's stack: keys in arguments, in
/// return values, and in moved values. A move copies and does not wipe.
///
/// It overwrites [`DEPTH`] bytes below the caller's frame. A function whose frame must be
/// overwritten must not be inlined into the caller.
#[inline(never)]
pub(crate) fn wipe() {
    let mut room = [0_u8; DEPTH];
    black_box(&mut room);
}

/// The frames of a handshake are smaller than this; without optimization they are larger. A thread
/// has 2 MiB, unless an embedding program sets another size.
const DEPTH: usize = match cfg!(debug_assertions) {
    true => 128 * 1024,
    false => 48 * 1024,
};
