//! Checks whether a certificate is valid today and for some time.
//!
//! A certificate that has expired, or that is not allowed for its purpose, is served all the same: some
//! clients accept it, and a proxy that does not start would help nobody. But the operator gets a
//! warning, and `check` fails.

use std::time::{Duration, SystemTime};

use crate::tls::certs::{Certificate, Role};
use crate::tls::chain;
use crate::tls::revocation::List;
use crate::tls::roots::Roots;
use crate::tls::time::Date;

/// The result of a check, with the message for the operator.
pub(super) enum Validity {
    Good,
    Warning(String),
    /// Peers refuse it: it has expired, is not valid yet, or is not allowed for its purpose.
    Invalid(String),
}

/// Everything that peers will find wrong with a chain.
pub(super) fn of_chain(certificate: &Certificate, role: Role) -> Vec<Validity> {
    let dates = certificate.validity();
    let own = of_dates("the certificate", *dates.start(), *dates.end());
    let behind = chain::behind(certificate.chain()).into_iter().map(of_dated);
    let flaws = chain::flaws(certificate.chain(), role).into_iter();
    let flaws = flaws.map(|flaw| match flaw.is_fatal() {
        true => Validity::Invalid(flaw.to_string()),
        false => Validity::Warning(flaw.to_string()),
    });
    [own].into_iter().chain(behind).chain(flaws).collect()
}

/// Checks the dates of authorities. The verification of other certificates does not check them.
pub(super) fn of_roots(roots: &Roots) -> Vec<Validity> {
    chain::authorities(roots)
        .into_iter()
        .map(of_dated)
        .collect()
}

fn of_dated(it: chain::Dated) -> Validity {
    of_dates(&it.what, it.from, it.until)
}

/// Checks that `what` is valid now, between these two times.
pub(super) fn of_dates(what: &str, from: SystemTime, until: SystemTime) -> Validity {
    let now = SystemTime::now();
    if now > until {
        Validity::Invalid(format!("{what} expired on {}", Date(until)))
    } else if now < from {
        Validity::Invalid(format!("{what} is not valid before {}", Date(from)))
    } else if until.duration_since(now).unwrap_or_default() < soon(from, until) {
        Validity::Warning(format!("{what} expires on {}", Date(until)))
    } else {
        Validity::Good
    }
}

/// Checks a revocation list. A list without a next update does not expire.
pub(super) fn of_list(list: &List) -> Validity {
    let what = format!("the revocation list of {}", list.issuer());
    let until = match list.next_update() {
        Some(until) => until,
        None if list.this_update() > SystemTime::now() => list.this_update(),
        None => return Validity::Good,
    };
    match of_dates(&what, list.this_update(), until) {
        Validity::Warning(_) => {
            Validity::Warning(format!("{what} must be replaced before {}", Date(until)))
        }
        Validity::Invalid(_) if SystemTime::now() > until => Validity::Invalid(format!(
            "{what} is overdue since {}; get the new one",
            Date(until)
        )),
        other => other,
    }
}

/// How long before the end the warning starts: 14 days, enough also during a holiday. For shorter
/// lifetimes a third of the lifetime, because such certificates are renewed after two thirds.
fn soon(from: SystemTime, until: SystemTime) -> Duration {
    let lifetime = until.duration_since(from).unwrap_or_default();
    EXPIRES_SOON.min(lifetime / 3)
}

const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_announced_14_days_or_a_third_of_the_lifetime_before() {
        const HOUR: u64 = 60 * 60;
        const DAYS: u64 = 24 * HOUR;
        for (lifetime, left, is_soon) in [
            (90 * DAYS, 15 * DAYS, false),
            (90 * DAYS, 13 * DAYS, true),
            (24 * HOUR, 9 * HOUR, false),
            (24 * HOUR, 7 * HOUR, true),
            (30 * DAYS, 11 * DAYS, false),
            (30 * DAYS, 9 * DAYS, true),
        ] {
            let until = SystemTime::now() + Duration::from_secs(left);
            let from = until - Duration::from_secs(lifetime);
            let validity = of_dates("it", from, until);
            assert_eq!(
                matches!(validity, Validity::Warning(_)),
                is_soon,
                "{lifetime} {left}"
            );
        }
    }
}
