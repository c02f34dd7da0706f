//! Changes the log filter for a limited time.
//!
//! ```text
//! configured ── PUT ──► temporary ── its time is over, DELETE, or the end of the API ──► configured
//!                        └─ PUT: another filter and another time
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::access::Author;
use super::answer::{Answer, Refusal, json};
use crate::log_filter::{self, LogSwitch};
use crate::proxy::START;

/// The log filter of this process. Dropping it restores the configured one.
#[derive(Debug)]
pub(super) struct Log {
    /// `None` if the program around Vestibule has its own log.
    switch: Option<LogSwitch>,
    /// Locked while the filter is changed, so that the two agree.
    present: Mutex<Option<Temporary>>,
    changed: Notify,
}

#[derive(Clone, Debug)]
struct Temporary {
    filter: String,
    until: SystemTime,
    /// The same moment, on a clock that nobody sets.
    deadline: Instant,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    filter: String,
    r#for: String,
}

/// The present filter.
#[derive(Debug, PartialEq, Serialize)]
struct Shown {
    filter: String,
    /// When the configured filter is back; `null` if it is the present one.
    until: Option<String>,
}

impl Log {
    pub(super) fn new(switch: Option<LogSwitch>) -> Self {
        Self {
            switch,
            present: Mutex::default(),
            changed: Notify::default(),
        }
    }

    /// Restores the configured filter when the time of another one is over.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let deadline = self.present().as_ref().map(|it| it.deadline);
            let over = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = over => self.expire(),
            }
        }
    }

    pub(super) fn answer(
        &self,
        method: &Method,
        body: &Bytes,
        author: Author,
    ) -> Result<Answer, Refusal> {
        let Some(switch) = &self.switch else {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "no_log",
                "the program around Vestibule has its own log; change the filter there",
            ));
        };
        match *method {
            Method::PUT => self.change(switch, body, author)?,
            Method::DELETE => self.restore(author),
            _ => {}
        }
        Ok(json(StatusCode::OK, &self.shown(switch)))
    }

    fn shown(&self, switch: &LogSwitch) -> Shown {
        match &*self.present() {
            Some(Temporary { filter, until, .. }) => Shown {
                filter: filter.clone(),
                until: Some(humantime::format_rfc3339_millis(*until).to_string()),
            },
            None => Shown {
                filter: switch.configured().to_owned(),
                until: None,
            },
        }
    }

    fn change(&self, switch: &LogSwitch, body: &Bytes, author: Author) -> Result<(), Refusal> {
        let request: Request = serde_json::from_slice(body).map_err(|error| {
            Refusal::bad(format!(
                "the body: {error}; write JSON such as \
                 {{\"filter\":\"vestibule=debug\",\"for\":\"10m\"}}"
            ))
        })?;
        let time = time(&request.r#for)?;
        let filter = request.filter;
        if filter.len() > LONGEST_FILTER || log_filter::complete(&filter).is_none() {
            return Err(wrong(&filter));
        }
        let mut present = self.present();
        if !switch.change(Some(&filter)) {
            return Err(wrong(&filter));
        }
        let period = humantime::format_duration(time);
        info!(target: START, %author, filter, "log filter changed for {period}");
        *present = Some(Temporary {
            filter,
            until: SystemTime::now() + time,
            deadline: Instant::now() + time,
        });
        drop(present);
        self.changed.notify_one();
        Ok(())
    }

    fn restore(&self, author: Author) {
        let mut present = self.present();
        if present.take().is_some() {
            self.back();
            info!(target: START, %author, "log filter: restored the configured one");
        }
    }

    /// Does nothing if another filter has come meanwhile.
    fn expire(&self) {
        let is_over = |it: &mut Temporary| it.deadline <= Instant::now();
        let mut present = self.present();
        if present.take_if(is_over).is_some() {
            self.back();
            info!(target: START, "log filter: its time is over; restored the configured one");
        }
    }

    fn back(&self) {
        // It fails only if the program has no log any more.
        self.switch.as_ref().map(|it| it.change(None));
    }

    fn present(&self) -> MutexGuard<'_, Option<Temporary>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.present().take().is_some() {
            self.back();
        }
    }
}

fn time(text: &str) -> Result<Duration, Refusal> {
    let parsed = humantime::parse_duration(text).ok();
    let time = parsed.filter(|time| !time.is_zero() && *time <= LONGEST);
    time.ok_or_else(|| {
        Refusal::bad(format!(
            "`for`: expected a time such as \"10m\", at most 24h, found {text:?}"
        ))
    })
}

fn wrong(filter: &str) -> Refusal {
    let start: String = filter.chars().take(80).collect();
    Refusal::bad(format!(
        "`filter`: expected a log filter of at most {LONGEST_FILTER} bytes, such as \"debug\" or \
         \"info,vestibule::gate=debug\"; found {start:?}"
    ))
}

/// A filter that somebody has forgotten must not fill a disk for ever.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const LONGEST_FILTER: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::advance;

    use super::*;

    /// A log, and the filters that it was given. It cannot read `vestibule=trace`.
    fn log() -> (Arc<Log>, Arc<Mutex<Vec<String>>>) {
        let given = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&given);
        let switch = LogSwitch::new("info".into(), move |filter| {
            let filter = filter.unwrap_or("configured");
            seen.lock().expect("no panic").push(filter.to_owned());
            filter != "vestibule=trace"
        });
        (Arc::new(Log::new(Some(switch))), given)
    }

    fn put(log: &Log, filter: &str, time: &str) -> u16 {
        let body = serde_json::json!({"filter": filter, "for": time}).to_string();
        let answer = log.answer(&Method::PUT, &body.into(), Author::User(0));
        let answer = answer.unwrap_or_else(Refusal::into_answer);
        answer.status().as_u16()
    }

    fn shown(log: &Log) -> (String, bool) {
        let Shown { filter, until } = log.shown(log.switch.as_ref().expect("a switch"));
        (filter, until.is_some())
    }

    #[tokio::test(start_paused = true)]
    async fn the_configured_filter_is_back_when_the_time_of_the_last_one_is_over() {
        let (log, given) = log();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&log).keep_time());
        assert_eq!(put(&log, "debug", "10m"), 200);
        advance(Duration::from_secs(540)).await;
        assert_eq!(put(&log, "vestibule=debug", "10m"), 200);
        advance(Duration::from_secs(599)).await;
        assert_eq!(shown(&log), ("vestibule=debug".into(), true));
        advance(Duration::from_secs(1)).await;
        while shown(&log).1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(shown(&log), ("info".into(), false));
        let expected = ["debug", "vestibule=debug", "configured"];
        assert_eq!(*given.lock().expect("no panic"), expected);
    }

    #[tokio::test]
    async fn a_delete_and_the_end_of_the_api_restore_the_configured_filter() {
        let (log, given) = log();
        let delete = || log.answer(&Method::DELETE, &Bytes::new(), Author::User(0));
        assert!(delete().is_ok());
        assert_eq!(put(&log, "debug", "1s"), 200);
        assert!(delete().is_ok());
        assert_eq!(shown(&log), ("info".into(), false));
        assert_eq!(put(&log, "error", "24h"), 200);
        drop(log);
        let expected = ["debug", "configured", "error", "configured"];
        assert_eq!(*given.lock().expect("no panic"), expected);
    }

    #[tokio::test]
    async fn a_wrong_filter_or_time_changes_nothing() {
        let (log, given) = log();
        let long = format!("vestibule={}", "e".repeat(LONGEST_FILTER));
        for (filter, time) in [
            ("loud", "10m"),
            ("vestibule=loud", "10m"),
            (&long, "10m"),
            ("debug", ""),
            ("debug", "10"),
            ("debug", "0s"),
            ("debug", "24h 1s"),
            ("debug", "forever"),
        ] {
            assert_eq!(put(&log, filter, time), 400, "{filter} {time}");
        }
        assert!(given.lock().expect("no panic").is_empty());
        assert_eq!(put(&log, "vestibule=trace", "1s"), 400);
        assert_eq!(shown(&log), ("info".into(), false));
    }

    #[tokio::test]
    async fn without_a_log_of_its_own_it_says_whose_the_log_is() {
        let log = Log::new(None);
        assert_eq!(put(&log, "debug", "10m"), 409);
    }
}
