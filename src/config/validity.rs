//! Whether a certificate is valid today, and will be for a while.
//!
//! Expired certificates are served all the same: some clients look away, and nobody is helped by a
//! proxy that does not start. But who runs it is told, and `check` fails.

use std::time::{Duration, SystemTime};

use crate::tls::certs::Certificate;

/// What an operator is to be told of a certificate's dates, in words.
pub(super) enum Validity {
    Good,
    EndsSoon(String),
    /// Not any more, or not yet.
    Invalid(String),
}

pub(super) fn validity(certificate: &Certificate) -> Validity {
    let now = SystemTime::now();
    let validity = certificate.validity();
    let (from, until) = (validity.start(), validity.end());
    let date = |time: &SystemTime| humantime::format_rfc3339_seconds(*time);
    if now > *until {
        Validity::Invalid(format!("the certificate expired on {}", date(until)))
    } else if now < *from {
        Validity::Invalid(format!(
            "the certificate is not valid before {}",
            date(from)
        ))
    } else if now + EXPIRES_SOON > *until {
        Validity::EndsSoon(format!("the certificate expires on {}", date(until)))
    } else {
        Validity::Good
    }
}

/// Time enough to see to it, also over a holiday.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
