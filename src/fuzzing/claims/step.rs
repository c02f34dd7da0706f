//! The steps of a program.

pub(super) const BACKENDS: [&str; 2] = ["a", "b"];
/// Workers of the last tunnel may serve the first backend alone.
pub(super) const TUNNELS: usize = 3;
/// `gate.max_clients`.
pub(super) const PLACES: usize = 5;

/// Clients, workers, tunnels and backends are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A client comes. Times are in milliseconds.
    Announce {
        backend: usize,
        budget: u64,
    },
    Leave {
        client: usize,
    },
    /// A worker comes. Without a tunnel, it is a local one.
    Ask {
        tunnel: Option<usize>,
        backend: usize,
        wanted: Wanted,
    },
    Act {
        worker: usize,
        act: Act,
    },
    /// A tunnel that is there breaks off.
    Die {
        tunnel: usize,
    },
    Open {
        tunnel: usize,
    },
    /// The other end of the tunnel does nothing any more, and its connection stays open.
    Freeze {
        tunnel: usize,
    },
    /// The gate drops local workers that are gone.
    TidyUp,
    Pass {
        time: u64,
    },
    Drain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Any,
    Client(usize),
    Unknown,
    Malformed,
}

/// What a worker does, whether it was told or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The zero byte; a local worker reads its answer.
    Confirm,
    /// The same, with as many bytes of the connection in the same frame.
    ConfirmWith(u8),
    WrongByte,
    EmptyFrame,
    End,
    Reset,
}

/// What a worker sends.
pub(super) fn said(worker: usize, count: u8) -> Vec<u8> {
    vec![worker as u8 | 0x80; count.into()]
}

/// What a client sends.
pub(super) fn asked(client: usize) -> Vec<u8> {
    vec![client as u8 | 0x80; 1 + client % 50]
}
