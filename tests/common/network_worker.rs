//! A worker that comes through a tunnel, written from its documentation alone.

use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request};
use serde_json::Value;

use super::changing::Site;
use super::pki::Issued;
use super::soon;
use super::tunnel::{Stream, Tunnel};
use super::vestibule::Vestibule;

/// A host with workers, and its tunnel.
pub struct Host(pub Tunnel);

/// A request without an answer.
pub struct Waiting {
    response: ResponseFuture,
    pub sending: SendStream<Bytes>,
}

#[derive(Debug)]
pub enum Answer {
    /// The facts, and the stream, which is not confirmed yet.
    Ok(Value, Stream),
    /// The status and the reason.
    No(u16, String),
    Reset(Option<Reason>),
}

impl Host {
    pub async fn open(vestibule: &Vestibule, site: &Site, certificate: &Issued) -> Self {
        Self(Tunnel::open(vestibule, site, certificate).await)
    }

    /// Sends a request, whose answer may take any time.
    pub async fn ask(&self, backend: &str, line: &str) -> Waiting {
        let mut headers = HeaderMap::new();
        headers.insert("vestibule", line.parse().expect("a value"));
        self.ask_with(backend, headers, false).await
    }

    pub async fn ask_with(&self, backend: &str, headers: HeaderMap, is_over: bool) -> Waiting {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        let uri = hyper::Uri::builder().authority(backend).build();
        *request.uri_mut() = uri.expect("an authority");
        *request.headers_mut() = headers;
        let mut requests = self.0.requests().await.expect("an open tunnel");
        let asked = requests.send_request(request, is_over);
        let (response, sending) = asked.expect("an open tunnel");
        Waiting { response, sending }
    }

    /// Waits for the next connection, and takes it.
    pub async fn accept(&self, backend: &str) -> (Value, Stream) {
        let (facts, mut stream) = self.ask(backend, "accept").await.granted().await;
        stream.take();
        (facts, stream)
    }

    pub async fn claim(&self, backend: &str, id: &str) -> Answer {
        self.ask(backend, &format!("claim {id}"))
            .await
            .answer()
            .await
    }

    /// Waits until the front has read all requests before.
    pub async fn until_in_place(&self) {
        let unknown = "claim 00000000-0000-4000-8000-000000000000";
        let answer = self.ask("app", unknown).await.answer().await;
        assert!(matches!(answer, Answer::No(..)), "{answer:?}");
    }

    /// Sends this number of requests for a connection, and waits until the front has read them.
    pub async fn offer(&self, backend: &str, count: usize) -> Vec<Waiting> {
        let mut offers = Vec::new();
        for _ in 0..count {
            offers.push(self.ask(backend, "accept").await);
        }
        self.until_in_place().await;
        offers
    }
}

impl Waiting {
    pub async fn answer(self) -> Answer {
        let Self { response, sending } = self;
        let response = match soon("an answer", response).await {
            Ok(response) => response,
            Err(error) => return Answer::Reset(error.reason()),
        };
        let status = response.status().as_u16();
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(value.to_str().expect("ASCII").to_owned())
        };
        if status != 200 {
            return Answer::No(status, header("vestibule-refusal").unwrap_or_default());
        }
        let facts = header("vestibule-facts").map(|it| serde_json::from_str(&it));
        let facts = facts.transpose().expect("JSON").unwrap_or_default();
        let received = response.into_body();
        Answer::Ok(facts, Stream { sending, received })
    }

    pub async fn granted(self) -> (Value, Stream) {
        match self.answer().await {
            Answer::Ok(facts, stream) => (facts, stream),
            other => panic!("{other:?}"),
        }
    }

    pub async fn refused(self) -> (u16, String) {
        match self.answer().await {
            Answer::No(status, reason) => (status, reason),
            other => panic!("{other:?}"),
        }
    }

    /// Gives up before the answer.
    pub fn leave(mut self) {
        self.sending.send_reset(Reason::CANCEL);
    }
}

impl Stream {
    /// Confirms that the connection is served here.
    pub fn take(&mut self) {
        let taken = Bytes::from_static(&[0]);
        self.sending
            .send_data(taken, false)
            .expect("an open stream");
    }

    /// Sends back what comes, until the end.
    pub async fn echo_all(self) {
        let Self {
            mut sending,
            mut received,
        } = self;
        while let Some(frame) = soon("bytes or the end", received.data()).await {
            let frame = frame.expect("bytes");
            let length = frame.len();
            super::tunnel::send(&mut sending, frame)
                .await
                .expect("room");
            let _ = received.flow_control().release_capacity(length);
        }
        sending.send_data(Bytes::new(), true).expect("open");
    }
}
