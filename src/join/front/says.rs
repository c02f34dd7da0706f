//! What the log says of a front and of the local server: each change once, from all threads together.

use tracing::{debug, info, warn};

use super::Front;
use crate::address::Address;

impl Front {
    pub(super) fn address(&self) -> &Address {
        &self.join.fronts[self.number].address
    }

    pub(super) fn says_joined(&self) {
        let backend = &*self.join.settings.backend;
        self.join.fronts[self.number].say(Ok(()), |is_news| {
            if is_news {
                info!(front = %self.address(), backend, "joined the front");
            }
        });
    }

    pub(super) fn says_trouble(&self, what: &str) {
        let backend = &*self.join.settings.backend;
        self.join.fronts[self.number].say(Err(what), |is_news| match is_news {
            true => {
                warn!(front = %self.address(), backend, "cannot serve the front: {what}; trying again");
            }
            false => debug!(front = %self.address(), backend, "still: {what}"),
        });
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
