//! `vestibule top`: a running Vestibule on the whole terminal, live.
//!
//! ```text
//! keys ────► keys::action ──► State::act ──► requests ──► admin API
//!                                ▲                          │
//!                             State::received ◄─────────────┘     view::draw(&State)
//! ```

mod action;
mod filter;
mod history;
mod keys;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use ratatui::layout::Rect;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use vestibule::Address;

use self::session::{Killed, Polled, Session, first, kill, poll};
use self::state::{Request, State};
use self::view::theme::Theme;
use super::admin;
use super::args::Target;
use super::run::control;
use super::signals::End;
use super::{Exit, Failure};

/// Returns when the user quits, or on a signal. The terminal is then as it was before.
pub(super) fn top(target: &Target) -> Result<Exit, Failure> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|it| it.is_empty() || it == "dumb");
    if is_dumb || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!(NO_TERMINAL)));
    }
    control(async {
        let address = admin::api(target).await?.address().clone();
        let mut state = State::new(address.to_string());
        let mut session = Session::new(address.clone());
        // Before the screen is taken: if nobody is there, that is an error like any other.
        let (first, history) = first(&mut session, &state.query()).await?;
        state.remember(&history);
        state.received(Ok(first));
        let end = End::new().context("cannot listen for signals")?;
        let hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
        // It also restores the terminal on a panic.
        let terminal = ratatui::try_init();
        let done = match terminal {
            Ok(terminal) => {
                Top::new(terminal, state, session, address)
                    .run(end, hangup)
                    .await
            }
            Err(error) => Err(error),
        };
        ratatui::restore();
        done.context("cannot use the terminal")?;
        Ok(Exit::Clean)
    })
}

struct Top {
    terminal: DefaultTerminal,
    theme: Theme,
    state: State,
    address: Address,
    started: Instant,
    ticks: Interval,
    /// Not here while it asks.
    session: Option<Session>,
    work: JoinSet<Done>,
}

/// What a request has brought.
enum Done {
    Polled(Session, Result<Polled, String>),
    Killed(String, Killed),
}

impl Top {
    fn new(terminal: DefaultTerminal, state: State, session: Session, address: Address) -> Self {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            terminal,
            theme: Theme::of_environment(),
            state,
            address,
            started: Instant::now(),
            ticks,
            session: Some(session),
            work: JoinSet::new(),
        }
    }

    async fn run(mut self, mut end: End, mut hangup: Signal) -> io::Result<()> {
        let mut events = read_events();
        loop {
            self.draw()?;
            tokio::select! {
                _ = end.asked() => return Ok(()),
                _ = hangup.recv() => return Ok(()),
                event = events.recv() => match event {
                    Some(event) => if self.heard(event?) == Some(Request::Quit) {
                        return Ok(());
                    },
                    None => return Ok(()),
                },
                // A panic has given the terminal back already.
                Some(done) = self.work.join_next() => self.finish(done.map_err(io::Error::other)?),
                _ = self.ticks.tick() => if !self.state.is_paused {
                    self.ask();
                },
            }
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        self.state.tick(self.started.elapsed());
        let (state, theme) = (&mut self.state, self.theme);
        self.terminal.draw(|frame| {
            let area: Rect = frame.area();
            let (height, lines) = view::extent(area, state, theme);
            state.fit(height, lines);
            view::draw(frame, state, theme);
        })?;
        Ok(())
    }

    /// Returns what is left to do for the caller.
    fn heard(&mut self, event: Event) -> Option<Request> {
        let Event::Key(key) = event else {
            // A new size: the next picture has it.
            return None;
        };
        let action = keys::action(&self.state.mode, key)?;
        match self.state.act(action)? {
            Request::Refresh => self.ticks.reset_immediately(),
            Request::Kill(id) => self.kill(id),
            Request::Quit => return Some(Request::Quit),
        }
        None
    }

    /// Asks for the next answers, unless those before are still on their way.
    fn ask(&mut self) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        let query = self.state.query();
        self.work.spawn(async move {
            let polled = poll(&mut session, &query).await;
            Done::Polled(session, polled.map_err(|error| error.to_string()))
        });
    }

    fn kill(&mut self, id: String) {
        let address = self.address.clone();
        self.work.spawn(async move {
            let killed = kill(address, &id).await;
            Done::Killed(id, killed)
        });
    }

    fn finish(&mut self, done: Done) {
        self.state.tick(self.started.elapsed());
        match done {
            Done::Polled(session, polled) => {
                self.session = Some(session);
                self.state.received(polled);
            }
            Done::Killed(id, killed) => {
                self.state.killed(&id, killed);
                self.ticks.reset_immediately();
            }
        }
    }
}

/// Reads events on a thread of its own, which ends with the process. If nobody takes them, it waits, and
/// the terminal keeps what is typed.
fn read_events() -> mpsc::Receiver<io::Result<Event>> {
    let (sender, events) = mpsc::channel(64);
    thread::spawn(move || {
        loop {
            let event = event::read();
            let is_last = event.is_err();
            if sender.blocking_send(event).is_err() || is_last {
                return;
            }
        }
    });
    events
}

const EVERY: Duration = Duration::from_secs(1);
const NO_TERMINAL: &str = "top needs a terminal; for scripts there are `vestibule status --json` and \
 `vestibule connections --watch`";
