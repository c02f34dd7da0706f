//! A level-triggered epoll.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Longer than anything here takes: a proxy that is silent for this time has lost something.
const SILENCE: Duration = Duration::from_secs(5);

/// The events to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Bytes to read, or the end.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
    /// Neither; the end is reported all the same.
    Nothing,
}

/// A descriptor that is ready.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    /// The number that it was registered with.
    pub(crate) token: u64,
    /// There are bytes to read, an end or an error.
    pub(crate) read: bool,
    /// There is room to write.
    pub(crate) write: bool,
}

/// A set of descriptors. A closed descriptor is removed automatically.
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

    /// Changes the events of a descriptor.
    pub(crate) fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            fd,
            EventData::new_u64(token),
            interest.flags(),
        )?)
    }

    /// Removes a descriptor before it is closed.
    pub(crate) fn remove(&self, fd: impl AsFd) -> Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until a descriptor is ready.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Ready>) -> Result<()> {
        self.wait_at_most(SILENCE, ready)?;
        if ready.is_empty() {
            bail!("nothing has moved for {} s", SILENCE.as_secs());
        }
        Ok(())
    }

    /// Waits until a descriptor is ready, at most for `time`.
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
            // Copied, because the kernel's struct is packed.
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
            Self::Nothing => EventFlags::empty(),
        }
    }
}
