//! A connection with its client and its backend, and rustls for comparison.

use super::cipher::Version;
use super::peer_checker::{End, PeerChecker};
use super::pipe::Pipe;
use super::program::{Operation, Setup};
use super::reference::{Reference, Verdict};
use super::session::Session;
use super::tested::{Ended, TestedStream};
use super::wire::{Wire, pattern};
use crate::relay;

pub(super) struct World {
    prompt: bool,
    most: usize,
    is_limited: bool,
    version: Version,
    wire: Wire,
    reference: Reference,
    peer: PeerChecker,
    ours: TestedStream,
    client: Pipe,
    backend: Pipe,
    /// The bytes that the backend received.
    plaintext: Vec<u8>,
    /// How many bytes the backend has sent. `most` limits it.
    said: usize,
    client_has_ended: bool,
    backend_has_ended: bool,
    client_is_slow: bool,
    backend_is_slow: bool,
    /// Whether the backend ever was slow.
    backend_was_slow: bool,
    /// The numbers of requested and answered KeyUpdates at the last comparison.
    asked: usize,
    answered: usize,
}

impl World {
    pub(super) fn new(setup: &Setup) -> Self {
        let session = Session::new(setup.suite, setup.role);
        let (version, message) = (session.version, session.message.clone());
        let (upwards, downwards) = (|| session.upwards(), || session.downwards());
        let wire = Wire::new(version, upwards(), message, setup.most());
        let (mirrored, answers, read) = (upwards(), downwards(), downwards());
        let (client, backend) = (Pipe::new(setup.grain), Pipe::new(setup.grain));
        let ours = TestedStream::new(
            setup,
            (client.clone(), backend.clone()),
            (session.extracted, session.secrets),
        );
        Self {
            prompt: setup.prompt,
            most: setup.most(),
            is_limited: setup.limit.is_some(),
            version,
            wire,
            reference: Reference::new(version, session.role, session.reference, mirrored, answers),
            peer: PeerChecker::new(version, session.peer, read, setup.limit),
            ours,
            client,
            backend,
            plaintext: Vec::new(),
            said: 0,
            client_has_ended: false,
            backend_has_ended: false,
            client_is_slow: false,
            backend_is_slow: false,
            backend_was_slow: false,
            asked: 0,
            answered: 0,
        }
    }

    pub(super) fn perform(&mut self, operation: &Operation) {
        self.apply(operation);
        if self.prompt {
            self.deliver(usize::MAX);
        }
        self.settle();
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Seal(sealed) => self.wire.seal(sealed),
            Operation::Message { bytes, most } => self.wire.message(bytes, *most),
            Operation::Again(times) => {
                for _ in 0..*times {
                    match self.wire.repeated() {
                        Some(operation) => self.perform(&operation),
                        None => break,
                    }
                }
            }
            Operation::Rekey => self.wire.rekey(),
            Operation::Skip(count) => self.wire.skip(*count),
            Operation::Replay => self.wire.replay(),
            Operation::Plain { kind, length } => self.wire.plain(*kind, *length),
            Operation::Flip { place, change } => self.wire.flip(*place, *change),
            Operation::Cut(count) => self.wire.cut(*count),
            Operation::Header { place, value } => self.wire.set_header(*place, *value),
            Operation::Deliver(most) => self.deliver(*most),
            Operation::End => {
                self.client_has_ended = true;
                self.client.end();
            }
            Operation::Say(length) => self.say(*length),
            Operation::BackendEnds => {
                self.backend_has_ended = true;
                self.backend.end();
            }
            Operation::ClientTakes(room) => {
                self.client_is_slow = *room != usize::MAX;
                self.client.make_room(*room);
            }
            Operation::BackendTakes(room) => {
                self.backend_is_slow = *room != usize::MAX;
                self.backend_was_slow |= self.backend_is_slow;
                self.backend.make_room(*room);
            }
            Operation::Move => self.ours.move_process(),
        }
    }

    fn deliver(&mut self, most: usize) {
        if self.client_has_ended {
            return;
        }
        let bytes = self.wire.deliver(most);
        self.reference.receive(&bytes);
        let left = self.ours.begin(&bytes);
        self.client.say(left);
    }

    fn say(&mut self, length: usize) {
        if !self.backend_has_ended && self.said + length <= self.most {
            self.backend.say(&pattern(self.said, length));
            self.said += length;
        }
    }

    /// Runs everything that can make progress, and checks the result.
    fn settle(&mut self) {
        self.ours.run();
        self.peer.receive(&self.client.take_written());
        self.plaintext.extend(self.backend.take_written());
        assert!(self.peer.received_payload <= self.said);
        if self.ours.has_begun() && !self.client_is_slow && !self.backend_is_slow {
            self.compare();
        }
    }

    /// Compares with rustls. All bytes that were sent have arrived.
    fn compare(&mut self) {
        let (theirs, verdict) = (&self.reference.plaintext, self.reference.verdict);
        if verdict == Verdict::Unknown {
            let goes_on = self.ours.ended.is_none() && self.ours.hear.is_none();
            assert!(!goes_on || self.plaintext.starts_with(theirs));
            return;
        }
        let is_same = theirs.starts_with(&self.plaintext);
        assert!(is_same, "other bytes than rustls's");
        match (self.ours.ended, self.ours.hear) {
            (None, Some(enough)) => {
                assert!(verdict == Verdict::Open && !self.client_has_ended);
                assert!(theirs.len() < enough, "enough was read");
            }
            (Some(Ended::NothingRead), _) => self.compare_nothing_read(),
            (Some(Ended::Joined(relay::End::KeysSpent)), _) => {
                assert!(self.version == Version::Tls12 && self.peer.is_nearly_spent());
            }
            (Some(Ended::Joined(end)), _) => self.compare_joined(Some(end)),
            (None, None) => self.compare_joined(None),
        }
    }

    /// No backend existed to receive the bytes.
    fn compare_nothing_read(&self) {
        assert!(self.plaintext.is_empty());
        assert!(match self.reference.verdict {
            Verdict::Open => self.client_has_ended,
            Verdict::Closed => self.reference.plaintext.is_empty(),
            Verdict::Refused(_) | Verdict::Unknown => true,
        });
    }

    fn compare_joined(&mut self, end: Option<relay::End>) {
        let expected = match self.reference.verdict {
            Verdict::Refused(_) => Some(relay::End::ClientReset),
            Verdict::Open if self.client_has_ended => Some(relay::End::ClientTruncated),
            Verdict::Closed if self.backend_has_ended => Some(relay::End::Done),
            Verdict::Open | Verdict::Closed | Verdict::Unknown => None,
        };
        assert_eq!(end, expected, "{:?}", self.reference.verdict);
        let (ours, theirs) = (self.plaintext.len(), self.reference.plaintext.len());
        if matches!(end, None | Some(relay::End::Done)) {
            assert_eq!(ours, theirs);
            self.compare_answers();
        } else {
            assert!(
                ours == theirs || self.backend_was_slow,
                "{ours} of {theirs}"
            );
        }
    }

    fn compare_answers(&mut self) {
        let client_has_closed = self.reference.verdict == Verdict::Closed;
        assert_eq!(self.backend.is_shut(), client_has_closed);
        assert_eq!(self.client.is_shut(), self.backend_has_ended);
        assert!(self.peer.is_between_records());
        assert_eq!(self.peer.received_payload, self.said);
        let traffic = &self.ours.traffic;
        assert_eq!(traffic.from_client.get(), self.plaintext.len() as u64);
        assert_eq!(traffic.to_client.get(), self.said as u64);
        let last = self.backend_has_ended.then_some(End::Closed);
        assert_eq!(self.peer.end, last);
        if last.is_none() {
            assert_eq!(self.peer.declined, self.reference.declined);
            let (asked, answers) = (self.reference.asked, self.peer.answers);
            // One answer is enough for all requests before it is sent (RFC 8446 §4.6.3).
            assert!(asked == self.asked || answers > self.answered);
            assert!(answers <= asked || self.is_limited);
            (self.asked, self.answered) = (asked, answers);
        }
    }

    /// Delivers everything, and then closes.
    pub(super) fn close(mut self) {
        self.client_is_slow = false;
        self.client.make_room(usize::MAX);
        self.backend_is_slow = false;
        self.backend.make_room(usize::MAX);
        self.deliver(usize::MAX);
        self.settle();
        // In this case, nothing more was read.
        let was_spent = self.ours.ended == Some(Ended::Joined(relay::End::KeysSpent));
        self.ours.close();
        self.peer.receive(&self.client.take_written());
        assert!(self.peer.is_between_records());
        // The client may have been slow to accept the end before it was refused.
        let was_closed = self.backend_has_ended && self.peer.end == Some(End::Closed);
        let end = match self.reference.verdict {
            Verdict::Unknown => return,
            Verdict::Refused(alert) if !was_closed && !was_spent => alert.map(End::Fatal),
            _ => Some(End::Closed),
        };
        assert_eq!(self.peer.end, end, "{:?}", self.reference.verdict);
    }
}
