//! epoll, level-triggered: who is ready.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Nothing here takes so long: a proxy that is silent for this time has lost something.
const SILENCE: Duration = Duration::from_secs(5);

/// What to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// That there is something to read, or the end.
    Read,
    /// That there is room to write.
    Write,
    /// Either.
    Both,
}

/// A descriptor that is ready.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    /// The number that it was registered under.
    pub(crate) token: u64,
    /// There is something to read, an end or an error.
    pub(crate) read: bool,
    /// There is room to write.
    pub(crate) write: bool,
}

/// A set of descriptors; one that is closed leaves it by itself.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    /// An empty set.
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(256),
        })
    }

    /// Adds a descriptor.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        Ok(epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(token),
            interest.flags(),
        )?)
    }

    /// Changes what to be told of it.
    pub(crate) fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            fd,
            EventData::new_u64(token),
            interest.flags(),
        )?)
    }

    /// Takes it out before it is closed.
    pub(crate) fn remove(&self, fd: impl AsFd) -> Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until somebody is ready.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Ready>) -> Result<()> {
        self.wait_at_most(SILENCE, ready)?;
        if ready.is_empty() {
            bail!("nothing has moved for {} s", SILENCE.as_secs());
        }
        Ok(())
    }

    /// Waits until somebody is ready, or for so long.
    pub(crate) fn wait_at_most(&mut self, time: Duration, ready: &mut Vec<Ready>) -> Result<()> {
        let timeout = Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        };
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear();
        ready.extend(self.events.iter().map(|event| {
            // By value: the kernel's struct is packed.
            let (flags, data) = (event.flags, event.data);
            let ended = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            Ready {
                token: data.u64(),
                read: ended || flags.contains(EventFlags::IN),
                write: flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::Both => EventFlags::IN | EventFlags::OUT,
        }
    }
}
