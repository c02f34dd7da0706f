//! Reads the client's certificate chain from a session that rustls put into a ticket, so that it
//! can be verified before the session is resumed.
//!
//! The format is internal to rustls. If it changes, nothing can be read here: then no client with a
//! certificate resumes a session, and the tests of resumption fail.

use tokio_rustls::rustls::pki_types::CertificateDer;

/// The client's certificate chain, its own first. It is empty if the client had none. `None` means
/// that the session cannot be read.
pub(super) fn client_chain(session: &[u8]) -> Option<Vec<CertificateDer<'_>>> {
    let mut rest = session;
    if has_next(&mut rest)? {
        let _name = vector::<1>(&mut rest)?;
    }
    let _version_and_suite = take(&mut rest, 4)?;
    let _secret = vector::<1>(&mut rest)?;
    let _extended_master_secret = take(&mut rest, 1)?;
    let mut chain = Vec::new();
    if has_next(&mut rest)? {
        let mut certificates = vector::<3>(&mut rest)?;
        while !certificates.is_empty() {
            chain.push(vector::<3>(&mut certificates)?.into());
        }
    }
    Some(chain)
}

/// Whether an optional value follows.
fn has_next(rest: &mut &[u8]) -> Option<bool> {
    Some(take(rest, 1)? == [1])
}

/// A vector with a length of `N` bytes before it (RFC 8446 §3.4).
fn vector<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(rest, N)?;
    let length = length
        .iter()
        .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    take(rest, length)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let taken;
    (taken, *rest) = rest.split_at_checked(count)?;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session with or without a name, and with these certificates.
    fn session(name: &[u8], certificates: &[&[u8]]) -> Vec<u8> {
        let mut session = match name {
            [] => vec![0],
            name => [&[1, name.len() as u8], name].concat(),
        };
        session.extend([3, 4, 0x13, 1, 2, 7, 7, 1]);
        let list: Vec<u8> = (certificates.iter())
            .flat_map(|it| [&[0, 0, it.len() as u8], *it].concat())
            .collect();
        match &*list {
            [] => session.push(0),
            list => session.extend([&[1, 0, 0, list.len() as u8], list].concat()),
        }
        session
    }

    #[test]
    fn the_chain_is_found_after_the_preceding_fields() {
        let own: &[u8] = b"own";
        for (name, certificates) in [
            (&b""[..], &[][..]),
            (b"", &[own]),
            (b"example.com", &[own, b"issuer"]),
        ] {
            let session = [&session(name, certificates)[..], b"and the rest"].concat();
            let chain = client_chain(&session).expect("it is whole");
            assert_eq!(
                chain,
                certificates
                    .iter()
                    .map(|it| CertificateDer::from(*it))
                    .collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_truncated_session_has_no_chain() {
        let session = session(b"example.com", &[b"own", b"issuer"]);
        for length in 0..session.len() {
            assert_eq!(client_chain(&session[..length]), None, "{length}");
        }
    }
}
