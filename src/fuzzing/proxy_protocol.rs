//! The PROXY protocol header, in any pieces: its end, its meaning, and the bytes after it.

use crate::facts::Facts;
use crate::proxy_protocol::{LONGEST, Origin, ProxyProtocol, extent, header, parse};

/// Parses a header at the start of the input, while the input grows byte by byte.
///
/// # Panics
///
/// The parser does not keep a promise.
pub fn proxy_protocol(data: &[u8]) {
    let whole = extent(data);
    for length in 0..data.len() {
        match (extent(&data[..length]), &whole) {
            // More bytes are requested only up to the end of the header, or until it is clear that
            // there is none.
            (Ok(None), Ok(Some(end))) => assert!(length < *end, "asked for too much"),
            (Ok(None), Ok(None) | Err(_)) => assert!(length < LONGEST, "asked for too much"),
            (Ok(Some(end)), _) => assert_eq!(whole, Ok(Some(end)), "ends where it ends"),
            (Err(early), _) => assert_eq!(whole, Err(early), "what is wrong stays wrong"),
        }
    }
    let Ok(Some(end)) = whole else {
        return;
    };
    assert!(0 < end && end <= LONGEST.min(data.len()));
    if let Ok(origin) = parse(&data[..end]) {
        again(&origin);
    }
}

/// The addresses of a received header are those of the sent one, if both ends have an IP address.
fn again(origin: &Origin) {
    let Origin::Client {
        source,
        destination,
    } = origin
    else {
        return;
    };
    let mut facts = Facts::new("app");
    (facts.peer, facts.local) = (source.clone(), destination.clone());
    let are_known = [source, destination].into_iter().flatten();
    let are_known = are_known.filter_map(|end| end.ip()).count() == 2;
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let header = header(version, &facts);
        assert_eq!(extent(&header), Ok(Some(header.len())));
        let expected = match are_known {
            true => origin.clone(),
            false => Origin::Socket,
        };
        assert_eq!(parse(&header), Ok(expected));
    }
}
