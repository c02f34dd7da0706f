//! The load on a proxy: TLS clients on one side of it and the backend on the other, in one thread.
//!
//! ```text
//! clients ══ TLS ══► proxy ── unix or tcp ──► backend
//! └────────────────── this program ─────────────────┘
//! ```
//!
//! `load TASK` does one measurement. TASK is a JSON object ([`task::Task`]), and the answer on
//! stdout is one too. Clients and backend share a thread and an epoll, so that no scheduler comes
//! between them. Every byte of payload is compared with the expected one. Every problem (a
//! connection that ends, an unexpected certificate, cipher or byte, five seconds without an event)
//! is an error on stderr with exit code 1, and never a number.

mod backend;
mod buffer;
mod bulk;
mod client;
mod delay;
mod echo;
mod flood;
mod handshakes;
mod idle;
mod meter;
mod mux;
mod pattern;
mod poll;
mod saturated;
mod session;
mod stage;
mod starve;
mod task;
mod tunnel;

use std::process::ExitCode;

use anyhow::{Context, Result};

use task::{Task, Work};

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let argument = std::env::args()
        .nth(1)
        .context("usage: load TASK, a JSON object")?;
    let mut task: Task = serde_json::from_str(&argument).context("the task")?;
    if task.one_way_ms > 0 {
        task.target = delay::forwarder(task.target, task.one_way())?;
    }
    let answer = match task.work {
        _ if task.tunnels > 0 => tunnel::run(&task)?,
        Work::Handshakes => handshakes::run(&task)?,
        Work::Echo => echo::run(&task)?,
        Work::ToClient | Work::FromClient | Work::BothWays => bulk::run(&task)?,
        Work::SaturatedToClient | Work::SaturatedFromClient => saturated::run(&task)?,
        Work::Idle => idle::run(&task)?,
        Work::Starve => starve::run(&task)?,
    };
    println!("{answer}");
    Ok(())
}
