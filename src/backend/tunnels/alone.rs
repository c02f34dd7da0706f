//! A stream in a tunnel of its own, for health checks: each checks the whole way.

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use tokio::io::AsyncWriteExt;

use super::dialling::begin;
use super::passage::Passage;
use super::{Site, Tunnels};
use crate::backend::dial::Reached;
use crate::backend::dial_error::DialError;
use crate::backend::secure::Tls;
use crate::tunnel::OpenError;
use crate::wire::Patience;

impl Tunnels {
    /// Opens a tunnel for one stream, which ends with it, and sends it `greeting`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn alone(
        &self,
        site: &dyn Site,
        tls: &Arc<Tls>,
        greeting: Option<&[u8]>,
    ) -> Result<Reached, DialError> {
        let (originated, mut driver, identity) = begin(&self.shared, site, tls).await?;
        let authority = self.shared.settings.authority.as_str();
        let opened = tokio::select! {
            biased;
            opened = originated.open(authority, HeaderMap::new()) => opened,
            ended = &mut driver => {
                let error = ended.err().map(OpenError::Failed);
                Err(error.unwrap_or(OpenError::Unprocessed))
            }
        };
        let answer = match opened {
            Ok(answer) => answer,
            Err(OpenError::Refused(status, _)) => return Err(self.refused(site, status)),
            Err(error) => return Err(DialError::Lost(error.to_string())),
        };
        // It ends when the stream is dropped, or within the time in which a silent peer is noticed.
        let census = &self.shared.census;
        census.of_checks.spawn(async move {
            let _ = driver.run(&SHORTLY).await;
        });
        let mut passage = Passage::new(answer.into_stream(), None);
        if let Some(greeting) = greeting
            && passage.write_all(greeting).await.is_err()
        {
            return Err(DialError::Reset);
        }
        Ok(Reached {
            stream: passage.into(),
            identity: Some(identity),
        })
    }
}

/// The server has the end of a check. It may have no more time to close than that takes.
const SHORTLY: Patience = Patience {
    half_close: Some(Duration::from_secs(1)),
    unacknowledged: None,
};
