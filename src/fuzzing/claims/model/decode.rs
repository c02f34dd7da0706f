//! The steps that an input describes.

use super::{Fate, Model, State, Tunnel, Worker};
use crate::fuzzing::claims::step::{Act, Step, TUNNELS, Wanted};

impl Model {
    pub(in crate::fuzzing::claims) fn decode(&self, kind: u8, detail: u8) -> Option<Step> {
        let detail = usize::from(detail);
        let (low, high) = (detail % 2, detail / 2);
        let tunnel = high % TUNNELS;
        let is_told = |nth: &usize| matches!(self.workers[*nth].state, State::Told(_));
        let step = match kind % 16 {
            0..=2 => Step::Announce {
                backend: low,
                budget: [1_000, 3_000, 10_000][high % 3],
            },
            3..=4 => Step::Ask {
                tunnel: Some(tunnel),
                backend: low,
                wanted: Wanted::Any,
            },
            5..=6 => Step::Ask {
                tunnel: Some(tunnel).filter(|_| kind % 16 == 5),
                backend: low,
                wanted: match high / TUNNELS % (self.clients.len() + 2) {
                    0 if kind % 16 == 6 || detail == 0 => Wanted::Any,
                    0 if low == 1 => Wanted::Malformed,
                    0 => Wanted::Unknown,
                    1 => Wanted::Any,
                    client => Wanted::Client(client - 2),
                },
            },
            7..=9 => Step::Act {
                worker: nth((0..self.workers.len()).filter(is_told), high)?,
                act: match low {
                    0 => Act::Confirm,
                    _ => Act::ConfirmWith(detail as u8),
                },
            },
            10..=11 => Step::Act {
                worker: nth(0..self.workers.len(), high)?,
                act: ACTS[detail % ACTS.len()],
            },
            12 if !self.tunnels[tunnel].is_open => Step::Open { tunnel },
            12 if low == 0 => Step::Freeze { tunnel },
            12 => Step::Die { tunnel },
            13 => Step::Pass {
                time: [50, 500, 1_000, 2_500, 6_000][detail % 5],
            },
            14 => Step::Leave {
                client: nth(0..self.clients.len(), detail)?,
            },
            // After a drain little can happen, so it is rare.
            _ if detail == 255 => Step::Drain,
            _ => Step::TidyUp,
        };
        self.permits(&step).then_some(step)
    }

    /// Whether the step has a subject, and its order is known.
    pub(in crate::fuzzing::claims) fn permits(&self, step: &Step) -> bool {
        let speaks = |tunnel: usize| {
            let Tunnel {
                is_open, frozen_at, ..
            } = self.tunnels[tunnel];
            is_open && frozen_at.is_none()
        };
        match *step {
            Step::Ask { tunnel, .. } => tunnel.is_none_or(speaks) && self.workers.len() < 128,
            Step::Act { worker, .. } => {
                let Worker { tunnel, state, .. } = self.workers[worker];
                tunnel.is_none_or(speaks) && !matches!(state, State::Refused(_) | State::Gone)
            }
            Step::Leave { client } => !matches!(
                self.clients[client].fate,
                Fate::Expired | Fate::Drained | Fate::Left
            ),
            // Which client goes to a frozen worker could not be seen.
            Step::Die { tunnel } => {
                self.tunnels[tunnel].is_open && self.frozen().is_none_or(|frozen| frozen == tunnel)
            }
            Step::Freeze { tunnel } => speaks(tunnel) && self.frozen().is_none(),
            Step::Open { tunnel } => !self.tunnels[tunnel].is_open && !self.is_draining,
            Step::Pass { time } => self.frozen().is_none() || time <= 1_000,
            Step::Announce { .. } => self.clients.len() < 64,
            Step::Drain => !self.is_draining,
            Step::TidyUp => true,
        }
    }
}

fn nth(among: impl Iterator<Item = usize>, nth: usize) -> Option<usize> {
    let among: Vec<usize> = among.collect();
    Some(among[nth.checked_rem(among.len())?])
}

const ACTS: [Act; 6] = [
    Act::Confirm,
    Act::ConfirmWith(40),
    Act::WrongByte,
    Act::EmptyFrame,
    Act::End,
    Act::Reset,
];
