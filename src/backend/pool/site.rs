//! An address as its tunnels know it.
//!
//! A tunnel may be dialled for longer than any connection waits for it. If such a dial fails, that counts when the next
//! connection looks for an address: otherwise a silent address would delay each of them.

use super::judge::Judge;
use super::target::Target;
use crate::address::Address;
use crate::backend::dial::Place;
use crate::backend::tunnels::Site;

impl Site for Target {
    fn address(&self) -> &Address {
        &self.address
    }

    fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    fn is_in_service(&self) -> bool {
        self.is_in_service()
    }

    fn fails_unseen(&self, error: String) {
        self.fails_unseen(error);
    }
}

impl Target {
    /// Counts a failure that no connection has seen.
    pub(super) fn judge_unseen(&self, judge: &Judge) {
        if self.is_well() {
            return;
        }
        let unseen = self.state().unseen.take();
        if let Some(error) = unseen {
            self.failed(judge, &error);
        }
    }
}
