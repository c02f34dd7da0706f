//! What a user can ask for, and the words for it.

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Page {
    Connections,
    Backends,
    Certificates,
    Limits,
    Outcomes,
}

impl Page {
    pub(super) const ALL: [Self; 5] = [
        Self::Connections,
        Self::Backends,
        Self::Certificates,
        Self::Limits,
        Self::Outcomes,
    ];

    pub(super) fn after(self, steps: usize) -> Self {
        let at = Self::ALL.iter().position(|it| *it == self).unwrap_or(0);
        Self::ALL[(at + steps) % Self::ALL.len()]
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SortKey {
    Age,
    Idle,
    Bytes,
    BytesIn,
    BytesOut,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sort {
    pub key: SortKey,
    pub order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    Rising,
    Falling,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

/// What a user asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Quit,
    /// Goes back one step: takes the filter away, or else ends.
    Leave,
    /// Closes what is open.
    Cancel,
    Help,
    Details,
    Kill,
    Yes,
    Pause,
    Move(Move),
    Sort(SortKey),
    NextSort,
    Reverse,
    NextPage,
    PreviousPage,
    EditFilter,
    Type(char),
    Erase,
    EraseAll,
    Apply,
}

impl Sort {
    /// As the API writes it.
    pub(super) fn word(self) -> String {
        let name = match self.key {
            SortKey::Age => "age",
            SortKey::Idle => "idle",
            SortKey::Bytes => "bytes",
            SortKey::BytesIn => "bytes_in",
            SortKey::BytesOut => "bytes_out",
        };
        match self.order {
            Order::Rising => name.into(),
            Order::Falling => format!("-{name}"),
        }
    }
}

impl SortKey {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Age => Self::Idle,
            Self::Idle => Self::Bytes,
            Self::Bytes => Self::BytesIn,
            Self::BytesIn => Self::BytesOut,
            Self::BytesOut => Self::Age,
        }
    }
}

/// The place after a step.
pub(super) fn stepped(from: usize, step: Move, height: usize, last: usize) -> usize {
    match step {
        Move::Up => from.saturating_sub(1),
        Move::Down => from.saturating_add(1).min(last),
        Move::PageUp => from.saturating_sub(height),
        Move::PageDown => from.saturating_add(height).min(last),
        Move::First => 0,
        Move::Last => last,
    }
}
