//! Whether anything answers, without a connection of a client.

use super::{ActiveBackend, Kind, Park};
use crate::deadline::Deadline;

impl ActiveBackend {
    /// Whether an address accepts a connection, which is closed at once. A backend without addresses answers.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn answers(&self, deadline: Deadline) -> bool {
        match &self.kind {
            Kind::Dialled(pool, _) | Kind::Claimed(pool) => {
                let dialled = pool.dial(None, None, deadline, Park::Refuse);
                dialled.await.is_ok()
            }
            Kind::Hello(_) | Kind::Echo => true,
        }
    }
}
