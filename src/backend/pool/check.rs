//! One health check of one address.
//!
//! ```text
//! connect ─► PROXY header, TLS ─► send ─► read until `expect` ─► close_notify, FIN ─► the address's own end
//! └─ as a connection does ────┘   └─ only if configured ─────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::tour::{LEADS_BACK, NO_ANSWER};
use super::{Pool, Target};
use crate::backend::dial::{Place, Reached, connect_tcp, connect_unix, introduce};
use crate::backend::dial_error::DialError;
use crate::backend::secure::Tls;
use crate::backend::upstream::{Clear, Upstream};
use crate::backend::whose::Expected;
use crate::deadline::Deadline;

/// The keys of `health` that are about checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckSettings {
    /// The time from one check of an address to the next.
    pub interval: Duration,
    /// What is sent first; may be empty.
    pub send: Vec<u8>,
    /// What the answer must contain; empty if no answer is read.
    pub expect: Vec<u8>,
}

/// Checks the addresses of one backend.
#[derive(Debug)]
pub(crate) struct Checker {
    pub settings: CheckSettings,
    /// The PROXY protocol header of a connection that is Vestibule's own.
    pub greeting: Option<Vec<u8>>,
    /// TLS whose handshakes are all complete ones.
    pub tls: Option<Arc<Tls>>,
}

impl Checker {
    /// Whether a check asks for more than a connection that is established.
    pub(super) fn reads(&self) -> bool {
        !self.settings.expect.is_empty()
    }

    /// How long a check may take. Two checks of an address never overlap.
    fn budget(&self, most: Option<Duration>) -> Duration {
        let interval = self.settings.interval;
        most.map_or(interval, |most| most.min(interval))
    }
}

/// What a check has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Well,
    /// No connection could be established.
    Unreachable(String),
    /// A connection was established, but the answer is wrong or missing.
    Wrong(String),
    /// Nothing about the address: this process lacks descriptors, or the address belongs to somebody
    /// else.
    Nothing,
}

impl Pool {
    /// Checks one socket address, in at most `most` or the interval.
    pub(super) async fn check_one(&self, target: &Arc<Target>, most: Option<Duration>) {
        let (Some(checker), false) = (&self.checker, target.is_disowned()) else {
            return;
        };
        let budget = checker.budget(most);
        let finding = self.probe(checker, target, Deadline::after(budget)).await;
        match &finding {
            Finding::Well => self.answered(target),
            Finding::Unreachable(error) => target.failed(&self.judge, &said(error)),
            Finding::Wrong(_) => self.note_answer(target),
            Finding::Nothing => return,
        }
        if checker.reads() {
            let verdict = match &finding {
                Finding::Unreachable(error) | Finding::Wrong(error) => Err(said(error)),
                Finding::Well | Finding::Nothing => Ok(()),
            };
            self.note_verdict(target, verdict);
        }
    }

    async fn probe(&self, checker: &Checker, target: &Target, deadline: Deadline) -> Finding {
        let reached = match deadline.bound(self.reach(checker, target)).await {
            Ok(Ok(reached)) => reached,
            Ok(Err(error)) => return self.finding(target, error),
            Err(_) => return Finding::Unreachable(NO_ANSWER.into()),
        };
        let Upstream::Clear(mut stream) = reached.stream else {
            unreachable!("the TLS of checks leaves the records to rustls");
        };
        let settings = &checker.settings;
        let answer = match deadline.bound(converse(&mut stream, settings)).await {
            Ok(answer) => answer,
            Err(_) if checker.reads() => Err("`expect` did not come in time".into()),
            Err(_) => Err("it does not read".into()),
        };
        if answer.is_ok() {
            let _ = Deadline::after(PATIENCE).bound(leave(&mut stream)).await;
        }
        match (answer, stream.has_refused_us()) {
            (_, true) => Finding::Unreachable(REFUSED_US.into()),
            (Ok(()), false) => Finding::Well,
            (Err(error), false) => Finding::Wrong(error),
        }
    }

    async fn reach(&self, checker: &Checker, target: &Target) -> Result<Reached, DialError> {
        let greeting = checker.greeting.as_deref();
        if let (Some(tunnels), Some(tls)) = (&self.tunnels, &checker.tls) {
            return Box::pin(tunnels.alone(target, tls, greeting)).await;
        }
        let socket = match &target.place {
            Some(Place::Tcp(address)) => connect_tcp(*address, self.unacknowledged).await?,
            Some(Place::Unix(path)) => connect_unix(path)?,
            None => return Err(DialError::Exhausted),
        };
        let expected = Expected {
            registrant: target.registrant,
            own: &self.own,
        };
        expected.verify(&socket)?;
        introduce(socket, &target.address, checker.tls.as_ref(), greeting).await
    }

    fn finding(&self, target: &Target, error: DialError) -> Finding {
        match error {
            DialError::Exhausted => Finding::Nothing,
            DialError::Foreign(owner) => {
                self.registry.disown(target, owner);
                Finding::Nothing
            }
            // A connection tries again, because the queue may have room in a moment. A program that
            // has a full queue at every check does not accept.
            DialError::Busy => Finding::Unreachable("the queue of its listener is full".into()),
            DialError::Down(error) => Finding::Unreachable(error.to_string()),
            DialError::Untrusted(error) | DialError::Refused(error) | DialError::Lost(error) => {
                Finding::Unreachable(error)
            }
            DialError::Ours => Finding::Unreachable(LEADS_BACK.into()),
            DialError::Reset => Finding::Unreachable(RESET.into()),
        }
    }
}

fn said(error: &str) -> String {
    format!("health check: {error}")
}

/// Sends what is configured, and reads until `expect` has come.
async fn converse(stream: &mut Clear, settings: &CheckSettings) -> Result<(), String> {
    let CheckSettings { send, expect, .. } = settings;
    let failed = |error: std::io::Error| error.to_string();
    if !send.is_empty() {
        stream.write_all(send).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
    }
    if expect.is_empty() {
        return Ok(());
    }
    let (mut seen, mut read) = (Vec::<u8>::new(), 0);
    loop {
        let mut part = [0; 1024];
        let count = match stream.read(&mut part).await.map_err(failed)? {
            0 => return Err("it closed before `expect` came".into()),
            count => count,
        };
        seen.extend(&part[..count]);
        if seen.windows(expect.len()).any(|it| it == expect) {
            return Ok(());
        }
        read += count;
        if read >= MOST_READ {
            return Err(format!("`expect` is not in its first {MOST_READ} bytes"));
        }
        // The end may be the beginning of `expect`.
        let searched = seen.len().saturating_sub(expect.len() - 1);
        seen.drain(..searched);
    }
}

/// Ends the connection as a client does that is done, and waits for the backend's end: a close with
/// unread bytes would be a reset, which servers log. With TLS 1.3, a refusal of our certificate comes
/// here.
async fn leave(stream: &mut Clear) -> std::io::Result<()> {
    stream.shutdown().await?;
    let (mut part, mut read) = ([0; 1024], 0);
    while read < MOST_READ {
        match stream.read(&mut part).await? {
            0 => break,
            count => read += count,
        }
    }
    Ok(())
}

/// The largest answer that is searched for `expect`.
const MOST_READ: usize = 64 * 1024;

/// Most programs close at once when their client has.
const PATIENCE: Duration = Duration::from_millis(250);

const RESET: &str = "it reset the connection before it had read the PROXY protocol header";
const REFUSED_US: &str = "it rejected our client certificate, or requires one";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::pool::Balance;

    #[test]
    fn a_process_without_descriptors_says_nothing_about_an_address() {
        let address = "127.0.0.1:1".parse().expect("an address");
        let health = crate::backend::pool::Health::default();
        let pool = Pool::new(&[address], Balance::RoundRobin, health, None, None);
        let target = Arc::clone(&pool.targets()[0]);
        let finding = pool.finding(&target, DialError::Exhausted);
        assert_eq!(finding, Finding::Nothing);
        let finding = pool.finding(&target, DialError::Busy);
        assert!(matches!(finding, Finding::Unreachable(_)));
    }

    #[test]
    fn a_check_takes_at_most_its_interval() {
        let checker = |interval| Checker {
            settings: CheckSettings {
                interval,
                send: Vec::new(),
                expect: Vec::new(),
            },
            greeting: None,
            tls: None,
        };
        let [second, minute] = [1, 60].map(Duration::from_secs);
        assert_eq!(checker(second).budget(None), second);
        assert_eq!(checker(second).budget(Some(minute)), second);
        assert_eq!(checker(minute).budget(Some(second)), second);
    }
}
