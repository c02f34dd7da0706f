//! Conditions that would keep a start from binding an address: those that were found, and host names
//! that still have to be resolved.

use std::sync::OnceLock;

use super::lines::Place;
use super::parts::Parts;
use super::problem::Problem;
use crate::sys::tcp::{self, Whereabouts};

/// The conditions that were found while the text was read, and hosts that are resolved only on request:
/// a slow name server must not delay a start or a reload.
#[derive(Clone, Debug, Default)]
pub(super) struct Unready {
    pub found: Vec<Problem>,
    pub hosts: Vec<Host>,
    /// The parts of the text.
    pub parts: Parts,
    asked: OnceLock<Vec<Problem>>,
}

/// The host of a listener, with its place in the text.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub host: String,
    pub place: Place,
}

impl Unready {
    pub(super) fn all(&self) -> &[Problem] {
        self.asked.get_or_init(|| {
            let mut all = self.found.clone();
            all.extend(self.hosts.iter().filter_map(Host::problem));
            all.sort_by_key(|problem| (problem.line, problem.column));
            self.parts.attribute(&mut all);
            all
        })
    }
}

impl Host {
    fn problem(&self) -> Option<Problem> {
        let host = &self.host;
        let message = match tcp::whereabouts(host) {
            Whereabouts::Here => return None,
            Whereabouts::Elsewhere => format!(
                "`listener.address`: this machine does not have the address {host}; use one that \
                 `ip addr` shows, or 0.0.0.0 or [::] for all"
            ),
            Whereabouts::Unknown(error) => {
                format!("`listener.address`: {error}: {}", tcp::unknown_name(host))
            }
        };
        Some(Problem::at(self.place, &message))
    }
}
