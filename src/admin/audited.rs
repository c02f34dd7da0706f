//! Tells observers of a request that may have changed something.

use hyper::StatusCode;
use hyper::http::request::Parts;

use super::access::Author;
use crate::journal::{Event, EventKind, Journal};

/// A request that changes something. Dropping it publishes the request: also if its client leaves before
/// the answer, because the change may happen nevertheless.
pub(super) struct Audited<'a> {
    journal: &'a Journal,
    head: &'a Parts,
    author: Author,
    answered: Option<StatusCode>,
}

impl<'a> Audited<'a> {
    pub(super) fn new(journal: &'a Journal, head: &'a Parts, author: Author) -> Self {
        Self {
            journal,
            head,
            author,
            answered: None,
        }
    }

    pub(super) fn answered(mut self, status: StatusCode) {
        self.answered = Some(status);
    }
}

impl Drop for Audited<'_> {
    fn drop(&mut self) {
        self.journal.publish(Event::now(EventKind::Admin {
            author: self.author.into(),
            action: format!("{} {}", self.head.method, self.head.uri),
            result: self.answered.map(|status| status.as_u16().to_string()),
        }));
    }
}
