//! What the log says of a front and of the local server: each change once, from all threads together.

use tracing::{debug, info, warn};

use super::Front;
use crate::active_config::{ActiveFront, Trouble, TroubleKind};
use crate::address::Address;
use crate::join::dial::NoTunnel;

impl Front {
    /// A front that refuses offers does so at once.
    pub(super) fn quiet(&mut self) {
        if !*self.is_down.borrow() && self.outstanding() >= self.offers {
            self.says_joined();
        }
    }

    pub(super) fn front(&self) -> &ActiveFront {
        &self.join.fronts[self.number]
    }

    pub(super) fn address(&self) -> &Address {
        &self.front().address
    }

    pub(super) fn says_joined(&self) {
        let backend = &*self.join.settings.backend;
        self.front().joined(self.thread, |is_news| {
            if is_news {
                info!(front = %self.address(), backend, "joined the front");
            }
        });
    }

    pub(super) fn says_trouble(&self, kind: TroubleKind, what: &str) {
        let backend = &*self.join.settings.backend;
        let trouble = Trouble::new(kind, what);
        self.front().troubled(self.thread, trouble, |is_news| match is_news {
            true => {
                warn!(front = %self.address(), backend, "cannot serve the front: {what}; trying again");
            }
            false => debug!(front = %self.address(), backend, "still: {what}"),
        });
    }

    /// A tunnel was lost. That is no trouble while there is another one: the threads notice one restart at different
    /// times, and the next dial tells whether the front is there.
    pub(super) fn says_lost(&self, what: &str) {
        if self.front().usable.count() == 0 {
            return self.says_trouble(TroubleKind::Away, what);
        }
        let backend = &*self.join.settings.backend;
        debug!(front = %self.address(), backend, "a tunnel is lost: {what}");
    }

    pub(super) fn says_no_tunnel(&mut self, why: &NoTunnel) {
        self.unclear = match why.is_unclear() {
            true => self.unclear + 1,
            false => 0,
        };
        if self.unclear == 1 {
            // The next attempt may get the reason.
            let backend = &*self.join.settings.backend;
            return debug!(front = %self.address(), backend, "no tunnel: {why}");
        }
        self.says_trouble(why.kind(), &why.to_string());
    }

    pub(super) fn says_down(&self) {
        let is_news = self
            .join
            .is_down
            .send_if_modified(|it| !std::mem::replace(it, true));
        if is_news {
            let backend = &*self.join.settings.backend;
            warn!(
                backend,
                "the local server does not answer; offering nothing until it does"
            );
        }
    }

    pub(super) fn says_up(&self) {
        let is_news = self
            .join
            .is_down
            .send_if_modified(|it| std::mem::replace(it, false));
        if is_news {
            let backend = &*self.join.settings.backend;
            info!(backend, "the local server answers again");
        }
    }
}
