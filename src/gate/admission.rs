//! Decides in the gate's accept loop who is admitted. A refusal costs a few system calls and no task,
//! so that users who are not allowed cannot keep others out.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tracing::debug;

use super::{Gate, GateSettings};
use crate::limits::Slot;
use crate::rendezvous::wire::GateRefusal;
use crate::sys::process;

/// A client that was admitted and may send its line.
pub(super) struct AdmittedClient {
    pub uid: u32,
    pub slot: Slot,
}

impl Gate {
    /// `Err` is the refusal to send, or `None` if nobody can be told.
    pub(super) fn admit(&self, client: &UnixStream) -> Result<AdmittedClient, Option<GateRefusal>> {
        let peer = client.peer_cred().map_err(|_| None)?;
        if !self.settings.admits(client, &peer) {
            debug!(
                uid = peer.uid(),
                gid = peer.gid(),
                pid = peer.pid(),
                "gate client forbidden"
            );
            return Err(Some(GateRefusal::Forbidden));
        }
        let slot = self
            .state
            .gate_places
            .take()
            .ok_or(Some(GateRefusal::Busy))?;
        let uid = peer.uid();
        Ok(AdmittedClient { uid, slot })
    }
}

impl GateSettings {
    fn admits(&self, client: &UnixStream, peer: &UCred) -> bool {
        let (uid, gid) = (peer.uid(), peer.gid());
        uid == 0
            || uid == rustix::process::geteuid().as_raw()
            || self.allow_uids.contains(&uid)
            || self.allow_gids.contains(&gid)
            || (!self.allow_gids.is_empty() && self.admits_a_group_of(client, peer))
    }

    fn admits_a_group_of(&self, client: &UnixStream, peer: &UCred) -> bool {
        // A process of another PID namespace, as in another container, has no process id here.
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.filter(|pid| *pid != 0);
        match pid.and_then(|pid| process::groups(pid, peer.uid(), peer.gid())) {
            Some(groups) => groups.iter().any(|group| self.allow_gids.contains(group)),
            None => is_kept_by_file(client),
        }
    }
}

/// Whether the file's permissions keep other users out. Then the kernel has checked the groups of this
/// client at its connect, and one of the allowed groups is among them.
fn is_kept_by_file(client: &UnixStream) -> bool {
    let address = client.local_addr().ok();
    let path = address.as_ref().and_then(|it| it.as_pathname());
    let found = path.and_then(|path| fs::symlink_metadata(path).ok());
    found.is_some_and(|found| found.mode() & WRITABLE_BY_OTHERS == 0)
}

/// A connect needs write permission (unix(7)).
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// Clients that were refused. Their sockets stay open for a moment: a client that writes its line into
/// a closed socket would get SIGPIPE and not the answer.
#[derive(Debug, Default)]
pub(super) struct RefusedClients {
    sockets: VecDeque<StdUnixStream>,
    /// How many were added since the last tick.
    fresh: usize,
}

impl RefusedClients {
    /// Sends the refusal and closes the sending side. If there are too many sockets, the oldest is
    /// closed.
    pub(super) fn tell(&mut self, client: UnixStream, refusal: GateRefusal) {
        // Taken off the reactor, because nothing is waited for. Fails when the runtime is shutting
        // down.
        let Ok(mut client) = client.into_std() else {
            return;
        };
        // These are the first bytes on a socket with much more room; if the write fails, the client is
        // gone.
        if client.write_all(refusal.line().as_bytes()).is_err() {
            return;
        }
        let _ = client.shutdown(Shutdown::Write);
        if self.sockets.len() == MOST_REFUSED
            && let Some(oldest) = self.sockets.pop_front()
        {
            close(oldest);
        }
        self.sockets.push_back(client);
        self.fresh = (self.fresh + 1).min(MOST_REFUSED);
    }

    /// Closes the sockets that were here at the last tick.
    pub(super) fn tick(&mut self) {
        let old = self.sockets.len() - self.fresh;
        self.sockets.drain(..old).for_each(close);
        self.fresh = 0;
    }
}

/// Reads what the client has sent before the close: a close with unread bytes would be a reset for the
/// client.
fn close(mut client: StdUnixStream) {
    let _ = client.read(&mut [0; 4096]);
}

const MOST_REFUSED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refused_clients_are_bounded_and_closed_at_the_second_tick() {
        let mut refused = RefusedClients::default();
        let mut clients = Vec::new();
        for _ in 0..MOST_REFUSED + 3 {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            refused.tell(ours, GateRefusal::Forbidden);
            clients.push(theirs.into_std().expect("a socket"));
        }
        assert_eq!(refused.sockets.len(), MOST_REFUSED);
        // The first ones are closed; the others may still send their line.
        for (index, client) in clients.iter_mut().enumerate() {
            let mut answer = [0; 64];
            let read = client.read(&mut answer).expect("an answer");
            assert_eq!(&answer[..read], b"NO forbidden\n");
            assert_eq!(client.read(&mut answer).expect("an end"), 0);
            assert_eq!(client.write(b"CLAIM x\n").is_ok(), index >= 3, "{index}");
        }
        refused.tick();
        assert_eq!(refused.sockets.len(), MOST_REFUSED);
        refused.tick();
        assert_eq!(refused.sockets.len(), 0);
    }
}
