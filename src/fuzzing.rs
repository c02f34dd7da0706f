//! The functions that the fuzz targets run, and tests that replay their seeds.
//!
//! A target of fuzz/ passes its input to the function of the same name here. An input that once failed
//! is a file below tests/seeds, and so a test for every toolchain.

#[expect(clippy::disallowed_methods, reason = "each task is awaited or aborted")]
mod claims;
mod config;
mod front;
mod gate_line;
mod proxy_protocol;
mod record;
mod rendezvous;
mod tunnel;

pub use self::claims::claims;
pub use self::config::config;
pub use self::front::front;
pub use self::gate_line::gate_line;
pub use self::proxy_protocol::proxy_protocol;
pub use self::record::record;
pub use self::rendezvous::rendezvous;
pub use self::tunnel::tunnel;

/// Splits an input into the pieces in which it is sent.
///
/// The first byte is the number of pieces before the last one, and the same number of bytes after it
/// are their lengths. So an input that starts with a zero is one piece: all the bytes after it.
fn pieces(data: &[u8]) -> Vec<&[u8]> {
    let Some((&count, rest)) = data.split_first() else {
        return Vec::new();
    };
    let (lengths, mut rest) = rest.split_at(rest.len().min(count.into()));
    let mut pieces = Vec::new();
    for &length in lengths {
        let (piece, behind) = rest.split_at(rest.len().min(length.into()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs every file of `tests/seeds/<target>`, and prints which one failed.
    fn replay(target: &str, run: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/seeds")
            .join(target);
        let mut count = 0;
        for entry in fs::read_dir(&seeds).expect("a folder of seeds") {
            let path = entry.expect("an entry").path();
            let data = fs::read(&path).expect("a seed");
            // Shown only if the test fails: the last one printed is the one that failed.
            println!("{}", path.display());
            run(&data);
            count += 1;
        }
        assert!(count > 0, "no seeds in {}", seeds.display());
    }

    #[test]
    fn the_seeds_of_gate_line_hold() {
        replay("gate_line", super::gate_line);
    }

    #[test]
    fn the_seeds_of_proxy_protocol_hold() {
        replay("proxy_protocol", super::proxy_protocol);
    }

    #[test]
    fn the_seeds_of_rendezvous_hold() {
        replay("rendezvous", super::rendezvous);
    }

    #[test]
    fn the_seeds_of_claims_hold() {
        replay("claims", super::claims);
    }

    #[test]
    fn the_seeds_of_config_hold() {
        replay("config", super::config);
    }

    #[test]
    fn the_seeds_of_front_hold() {
        replay("front", super::front);
    }

    #[test]
    fn the_seeds_of_record_hold() {
        replay("record", super::record);
    }

    #[test]
    fn the_seeds_of_record_hold_in_the_other_role_too() {
        replay("record", |data| {
            let mut data = data.to_vec();
            if let Some(manner) = data.get_mut(1) {
                *manner ^= 32;
            }
            super::record(&data);
        });
    }

    #[test]
    fn the_seeds_of_tunnel_hold() {
        replay("tunnel", super::tunnel);
    }

    #[test]
    fn the_seeds_of_tunnel_hold_at_the_other_side_too() {
        replay("tunnel", |data| {
            let mut data = data.to_vec();
            if let Some(behaviour) = data.first_mut() {
                *behaviour ^= 1;
            }
            super::tunnel(&data);
        });
    }

    #[test]
    fn an_input_is_split_at_its_lengths() {
        for (input, pieces) in [
            (&b""[..], &[][..]),
            (b"\0whole", &[&b"whole"[..]]),
            (b"\x02\x01\x00abc", &[&b"a"[..], b"", b"bc"]),
            (b"\x01\x09abc", &[&b"abc"[..], b""]),
            (b"\x09\x01", &[&b""[..], b""]),
        ] {
            assert_eq!(super::pieces(input), pieces, "{input:?}");
        }
    }
}
