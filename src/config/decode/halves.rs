//! Settings of which each one needs the other: workers over the network need a listener and a backend.

use std::cell::RefCell;

use crate::config::table::Table;

/// The places in the text of `workers` of listeners, and of `workers` of backends.
#[derive(Debug, Default)]
pub(super) struct Workers {
    of_listeners: RefCell<Vec<usize>>,
    of_backends: RefCell<Vec<usize>>,
}

impl Workers {
    /// A listener takes workers.
    pub(super) fn come_to_listener(&self, place: Option<usize>) {
        self.of_listeners.borrow_mut().extend(place);
    }

    /// Workers may serve a backend.
    pub(super) fn serve_backend(&self, place: Option<usize>) {
        self.of_backends.borrow_mut().extend(place);
    }

    /// Warns about one half without the other.
    pub(super) fn warn_if_half(&self, root: &Table<'_>) {
        let (listeners, backends) = (self.of_listeners.borrow(), self.of_backends.borrow());
        if listeners.is_empty() {
            for place in backends.iter() {
                root.warn_at(
                    *place,
                    "`backend.workers` has no effect: no worker can come through a network until `[listener.tunnel]` of a \
                     listener has `workers = true`"
                        .into(),
                );
            }
        }
        if backends.is_empty() {
            for place in listeners.iter() {
                root.warn_at(
                    *place,
                    "`listener.tunnel.workers`: every worker is refused until a backend with `to = \"gate\"` has \
                     `workers` with a name in the worker's certificate"
                        .into(),
                );
            }
        }
    }
}
