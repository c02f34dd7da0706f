//! A worker at the other end of a tunnel, as a claimer: it waits, is promised a connection, and takes it.
//!
//! ```text
//! NetworkWorker ─ tell ─► Promise ─ until_taken ─► its stream
//!       └───────── Told ─► the task of the stream: asks the worker, and sends what it has taken
//! ```

use std::fmt::Write as _;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::facts::Facts;
use crate::id::Id;
use crate::identity::Identity;
use crate::limits::Slot;
use crate::tunnel::TunnelStream;

/// Who is at the other end of a tunnel.
#[derive(Debug)]
pub(crate) struct WorkerHost {
    /// The connection that carries the tunnel.
    pub tunnel: Id,
    pub listener: Arc<str>,
    pub identity: Option<Arc<Identity>>,
}

/// A worker's stream that waits for a connection. If it is dropped, its task is told that no connection comes.
#[derive(Debug)]
pub(crate) struct NetworkWorker {
    pub host: Arc<WorkerHost>,
    pub backend: Box<str>,
    pub told: oneshot::Sender<Told>,
    /// Its place among the gate's clients.
    pub _slot: Slot,
}

/// What the task of a worker's stream is told.
#[derive(Debug)]
pub(crate) struct Told {
    /// The facts of its connection, as one line of JSON in ASCII.
    pub facts: String,
    /// Closed if the worker must not take the connection any more.
    pub taken: oneshot::Sender<Box<TunnelStream>>,
}

/// A worker that was told, and has not taken the connection yet. If it is dropped, the worker cannot take it any
/// more.
#[derive(Debug)]
pub(crate) struct Promise {
    tunnel: Id,
    taken: oneshot::Receiver<Box<TunnelStream>>,
}

impl NetworkWorker {
    /// Tells the worker that it has the connection, or returns the worker if it is gone.
    pub(super) fn tell(self: Box<Self>, facts: &Facts) -> Result<Promise, Box<Self>> {
        if self.told.is_closed() {
            return Err(self);
        }
        let Self { host, told, .. } = *self;
        let (taken, promise) = oneshot::channel();
        let facts = field(facts);
        let tunnel = host.tunnel;
        // If the task has ended just now, it drops `taken`, and the worker is gone for whoever waits for it.
        let _ = told.send(Told { facts, taken });
        Ok(Promise {
            tunnel,
            taken: promise,
        })
    }
}

impl Promise {
    /// The connection that carries the worker's tunnel.
    pub(super) fn tunnel(&self) -> Id {
        self.tunnel
    }

    /// Waits until the worker takes the connection. `None`: it has left, and has taken nothing.
    ///
    /// No byte of the connection is sent to the worker before.
    pub(super) async fn until_taken(self) -> Option<Box<TunnelStream>> {
        self.taken.await.ok()
    }
}

/// The facts as a field of HTTP. A worker refuses fields that are too long, and each of the workers would get the
/// connection and refuse it, before all others. So the names of a very long identity are left out.
fn field(facts: &Facts) -> String {
    let whole = in_ascii(&facts.to_json());
    match &facts.identity {
        Some(identity) if whole.len() > MOST_FACTS => {
            let mut shorter = facts.clone();
            shorter.identity = Some(Arc::new(Identity {
                sha256: identity.sha256.clone(),
                ..Identity::default()
            }));
            in_ascii(&shorter.to_json())
        }
        _ => whole,
    }
}

/// The same JSON, in which other characters than ASCII are escaped: the values of fields of HTTP are ASCII (RFC 9110
/// §5.5).
fn in_ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            ' '..='~' => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text
}

/// Less than the 16 KiB for all fields of an answer that HTTP/2 programs take, and that `vestibule join` takes.
const MOST_FACTS: usize = 12 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_an_identity_are_left_out_if_no_worker_would_take_them() {
        let mut facts = Facts::new("app");
        let identity = |names: usize| Identity {
            dns: vec!["\u{e9}".repeat(100); names],
            cn: Some("web".into()),
            sha256: "ab".repeat(32),
            ..Identity::default()
        };
        let mut told = |names| {
            facts.identity = Some(identity(names).into());
            let field = field(&facts);
            assert!(field.len() <= MOST_FACTS, "{}", field.len());
            let told: serde_json::Value = serde_json::from_str(&field).expect("JSON");
            told["identity"].clone()
        };
        assert_eq!(told(10)["dns"].as_array().map(Vec::len), Some(10));
        for names in [20, 1000] {
            let told = told(names);
            assert_eq!(told["sha256"], "ab".repeat(32));
            assert_eq!(told["dns"], serde_json::json!([]));
            assert_eq!(told["cn"], serde_json::Value::Null);
        }
    }

    #[test]
    fn facts_are_the_same_json_in_ascii() {
        let mut facts = Facts::new("app");
        facts.listener = Some("é\u{7f}\n\"😀".into());
        let ascii = in_ascii(&facts.to_json());
        assert!(
            ascii.bytes().all(|it| (b' '..=b'~').contains(&it)),
            "{ascii}"
        );
        let [json, ascii] = [&facts.to_json(), &ascii]
            .map(|it| serde_json::from_str::<serde_json::Value>(it).expect("JSON"));
        assert_eq!(json, ascii);
    }
}
