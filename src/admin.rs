//! The admin API: HTTP/1.1 over a Unix socket or TCP, for operators and their tools.
//!
//! ```text
//! accept ─► who is it? ─► a place ─► request ─► route ─► Host, write header ─► SupervisorHandle, ledger
//! ```
//!
//! It runs on the control thread: no request is served on a worker.

mod access;
mod address;
mod addresses;
mod answer;
mod audited;
mod body;
mod connections;
mod dashboard;
mod events;
mod history;
mod log;
mod query;
mod revocations;
mod routes;
mod sockets;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod workers;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::{Bytes, Incoming};
use hyper::header::ACCEPT;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{Instrument, debug_span, info, warn};

use self::access::Author;
use self::answer::{Answer, Refusal, of_bytes, of_type};
use self::audited::Audited;
use self::events::Events;
use self::history::History;
use self::routes::{Access, Route};
use self::sockets::{Client, Listener, busy, foreign, refuse};
use self::stream::{Progress, Stay};
use crate::config::WritesOverTcp;
use crate::deadline::Deadline;
use crate::ledger::Ledger;
use crate::limits::{Gauge, Slot};
use crate::metrics::MetricsFormat;
use crate::proxy::AdminListener;
use crate::supervisor::SupervisorHandle;
use crate::sys::descriptors::is_exhausted;

impl AdminListener {
    /// Serves the admin API until the future is dropped, which closes the sockets and removes their
    /// files. `/v1/openapi.json` describes what it answers.
    ///
    /// At most 64 clients are served at a time. A client has ten seconds for each request, and a
    /// connection lasts a minute at most.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts requests in progress. What they have requested, happens.
    pub fn serve(self, handle: SupervisorHandle) -> impl Future<Output = Infallible> + Send {
        self.announce();
        async move {
            let Self {
                sockets,
                writes_over_tcp,
                file: _file,
                log,
                ..
            } = self;
            let (events, hub) = events::hub(&handle.state().journal);
            let log = Arc::new(log::Log::new(log));
            let server = Arc::new(Server {
                events,
                history: History::default(),
                handle,
                writes_over_tcp,
                log: Arc::clone(&log),
                started: SystemTime::now(),
                places: Gauge::new(Some(sockets::MOST_CLIENTS)),
            });
            // Dropping it aborts the tasks.
            let mut tasks = JoinSet::new();
            tasks.spawn(hub.run());
            tasks.spawn(Arc::clone(&server).keep_history());
            tasks.spawn(log.keep_time());
            for socket in sockets {
                match Listener::new(socket) {
                    Ok(listener) => drop(tasks.spawn(Arc::clone(&server).accept(listener))),
                    Err(error) => warn!(%error, "cannot serve the admin API"),
                }
            }
            while tasks.join_next().await.is_some() {}
            pending().await
        }
    }
}

/// A client that is served.
struct Guest {
    author: Author,
    stay: Stay,
    #[expect(dead_code, reason = "held for its Drop, never read")]
    place: Slot,
}

struct Server {
    events: Events,
    history: History,
    handle: SupervisorHandle,
    writes_over_tcp: WritesOverTcp,
    log: Arc<log::Log>,
    started: SystemTime,
    places: Gauge,
}

impl Server {
    async fn keep_history(self: Arc<Self>) {
        self.history.keep(Arc::clone(self.handle.state())).await;
    }

    async fn accept(self: Arc<Self>, listener: Listener) {
        let mut clients = JoinSet::new();
        let reserve = &self.handle.state().reserve;
        let mut stay = Stay::Allowed;
        loop {
            let accepted = tokio::select! {
                Some(_) = clients.join_next() => {
                    reserve.refill();
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let accepted = accepted.map(|client| (client, std::mem::take(&mut stay)));
            let admitted =
                accepted.and_then(|(client, stay)| self.admit(client, stay, &mut clients));
            let Err(error) = admitted else { continue };
            // Without free descriptors, the reserve admits one client.
            if !is_exhausted(&error) {
                warn!(%error, "the admin API cannot accept a client; trying again");
            } else if reserve.spend() {
                stay = Stay::OneAnswer;
                continue;
            }
            sleep(BACK_OFF).await;
            reserve.refill();
        }
    }

    /// Serves the client, or refuses it.
    fn admit(
        self: &Arc<Self>,
        client: Client,
        stay: Stay,
        clients: &mut JoinSet<()>,
    ) -> io::Result<()> {
        let guest = |author, place| Guest {
            author,
            stay,
            place,
        };
        let place = self.places.take();
        match (client, place) {
            (Client::Unix(client), place) => {
                let author = client.peer_cred().ok().and_then(|it| Author::admitted(&it));
                match (author, place) {
                    (Some(author), Some(place)) => {
                        self.spawn(client, guest(author, place), clients);
                    }
                    (Some(_), None) => refuse(client.into_std()?, &busy()),
                    (None, _) => refuse(client.into_std()?, &foreign()),
                }
            }
            (Client::Tcp(client, peer), Some(place)) => {
                let author = Author::Address(peer);
                self.spawn(client, guest(author, place), clients);
            }
            (Client::Tcp(client, _), None) => refuse(client.into_std()?, &busy()),
        }
        Ok(())
    }

    fn spawn<IO>(self: &Arc<Self>, io: IO, guest: Guest, clients: &mut JoinSet<()>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let span = debug_span!("admin", author = %guest.author);
        let talk = Arc::clone(self).talk(io, guest);
        clients.spawn(talk.instrument(span));
    }

    /// Answers the requests of one client. hyper bounds the time of a head, which includes the time
    /// between two requests.
    async fn talk<IO>(self: Arc<Self>, io: IO, guest: Guest)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (author, stay) = (guest.author, guest.stay);
        let progress = Arc::new(Progress::of(stay));
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&progress));
            let answer = self.answer(request, author);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST)
                .max_buf_size(LONGEST_HEAD)
                .keep_alive(stay == Stay::Allowed)
                .serve_connection(TokioIo::new(io), service)
        );
        let talk = async {
            // The client is at fault in every error, and hyper has told it where that is possible.
            let answered = Deadline::after(LONGEST).bound(connection.as_mut()).await;
            if answered.is_err() {
                connection.as_mut().graceful_shutdown();
                let rest = match progress.is_stream() {
                    true => Deadline::NEVER,
                    false => Deadline::after(REQUEST),
                };
                let _ = rest.bound(connection).await;
            }
        };
        tokio::select! {
            () = talk => {}
            () = progress.is_cut() => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>, author: Author) -> Answer {
        let (head, body) = request.into_parts();
        let answer = async {
            author.check_host(&head)?;
            let (route, access, segment) = routes::find(&head.method, head.uri.path())?;
            if access == Access::Write {
                author.check_write(&head, self.writes_over_tcp)?;
            }
            let body = body::read(body).await?;
            let journal = &self.handle.state().journal;
            let is_write = access == Access::Write;
            let audited = is_write.then(|| Audited::new(journal, &head, author));
            let answer = self.serve_route(route, &head, segment, &body, author);
            let answer = answer.await.unwrap_or_else(Refusal::into_answer);
            if let Some(audited) = audited {
                audited.answered(answer.status());
            }
            Ok(answer)
        };
        answer.await.unwrap_or_else(Refusal::into_answer)
    }

    async fn serve_route(
        &self,
        route: Route,
        head: &Parts,
        segment: &str,
        body: &Bytes,
        author: Author,
    ) -> Result<Answer, Refusal> {
        let (query, state) = (head.uri.query(), self.handle.state());
        let is_delete = head.method == Method::DELETE;
        let ok = StatusCode::OK;
        match route {
            Route::Health => Ok(answer::json(ok, &json!({"status": "ok"}))),
            Route::Readiness => self.ready(),
            Route::Metrics => Ok(self.metrics(head)),
            Route::Dashboard => Ok(dashboard::page(head)),
            Route::Events => self.events(head),
            Route::History => Ok(answer::json(ok, &self.history.samples())),
            Route::Status => {
                let writes = author.writes(self.writes_over_tcp);
                let status = status::Status::of(&self.handle, self.started, writes);
                Ok(answer::json(ok, &status))
            }
            Route::Backends => {
                let backends = status::backends(state);
                Ok(answer::json(ok, &json!({ "backends": backends })))
            }
            Route::Address => addresses::set(&self.handle, segment, body, author),
            Route::Connections if is_delete => {
                said(author, connections::kill(&state.ledger, query))
            }
            Route::Connections => connections::list(&state.ledger, query),
            Route::Connection if is_delete => {
                said(author, connections::kill_one(&state.ledger, segment))
            }
            Route::Connection => connections::one(&state.ledger, segment),
            Route::Revocations if head.method == Method::POST => {
                revocations::revoke(&self.handle, body, author).await
            }
            Route::Revocations => Ok(revocations::list(&self.handle)),
            Route::Revocation => revocations::remove(&self.handle, segment, author).await,
            Route::Log => self.log.answer(&head.method, body, author),
            Route::Drain => Ok(self.drain(author, &state.ledger)),
            Route::Reload => self.reload(author),
            Route::Description => Ok(of_bytes(ok, Bytes::from_static(OPENAPI.as_bytes()))),
        }
    }

    fn events(&self, head: &Parts) -> Result<Answer, Refusal> {
        let query = head.uri.query();
        match head.extensions.get() {
            Some(progress) if head.method == Method::GET => {
                self.events.open(query, progress).map(answer::of_events)
            }
            _ => {
                events::check(query)?;
                Ok(of_type("text/event-stream", StatusCode::OK, Bytes::new()))
            }
        }
    }

    fn metrics(&self, head: &Parts) -> Answer {
        let accept = head.headers.get(ACCEPT).and_then(|it| it.to_str().ok());
        let format = MetricsFormat::for_accept(accept.unwrap_or_default());
        let text = self.handle.metrics(format).into();
        of_type(format.content_type(), StatusCode::OK, text)
    }

    fn ready(&self) -> Result<Answer, Refusal> {
        match self.handle.is_draining() {
            false => Ok(answer::json(StatusCode::OK, &json!({"status": "ready"}))),
            true => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "draining: no new connections are accepted",
            )),
        }
    }

    fn drain(&self, author: Author, ledger: &Ledger) -> Answer {
        info!(%author, "drain requested through the admin API");
        self.handle.drain();
        let open = ledger.open_connections();
        answer::json(
            StatusCode::ACCEPTED,
            &json!({"state": "draining", "open": open}),
        )
    }

    fn reload(&self, author: Author) -> Result<Answer, Refusal> {
        if self.handle.is_draining() {
            let message = "no reload during a drain";
            return Err(Refusal::new(StatusCode::CONFLICT, "draining", message));
        }
        info!(%author, "reload requested through the admin API");
        let number = self.handle.queue_reload();
        Ok(answer::json(
            StatusCode::ACCEPTED,
            &json!({ "request": number }),
        ))
    }
}

/// Logs that connections were ended, and by whom.
fn said(author: Author, killed: Result<(Answer, usize), Refusal>) -> Result<Answer, Refusal> {
    let (answer, killed) = killed?;
    info!(%author, killed, "connections ended through the admin API");
    Ok(answer)
}

/// The description of the API. A test compares it with the routes.
const OPENAPI: &str = include_str!("admin/openapi.json");

/// The time for a head, for a body, and between two requests.
const REQUEST: Duration = Duration::from_secs(10);
/// A client that does not read its answer keeps its place no longer than this.
const LONGEST: Duration = Duration::from_secs(60);
const LONGEST_HEAD: usize = 16 * 1024;
const BACK_OFF: Duration = Duration::from_millis(50);
