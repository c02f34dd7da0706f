//! The commands that talk to a running Vestibule through its admin API.

pub(super) mod client;
mod instances;
mod revoke;
pub(super) mod show;
mod watch;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;
use tokio::time::sleep;
use vestibule::printable;

use self::client::{Api, ApiError, encoded};
pub(super) use self::revoke::revoke;
use super::args::{ConnectionsArgs, Filters, KillArgs, StatusArgs, Target};
use super::run::control;
use super::{Exit, Failure, stderr};

pub(super) fn status(args: &StatusArgs) -> Result<Exit, Failure> {
    control(async {
        let status = api(&args.target).await?.get("/v1/status").await?;
        match args.json {
            true => print(&format!("{status:#}\n")),
            false => print(&show::status(&status)),
        }
    })
}

pub(super) fn connections(args: &ConnectionsArgs) -> Result<Exit, Failure> {
    control(async {
        let api = api(&args.target).await?;
        if let Some(seconds) = args.watch {
            return watch::watch(&api, args, Duration::from_secs(seconds.get().into())).await;
        }
        let List { rows, total } = list(&api, args).await?;
        if (rows.len() as u64) < total {
            let shown = rows.len();
            let said = format!("vestibule: {shown} of {total} connections; --limit N shows more");
            stderr::last_words(&said);
        }
        match args.json {
            true => print(&format!("{:#}\n", Value::Array(rows))),
            false => print(&show::connections(&rows)),
        }
    })
}

/// Connections, and how many there are in all that match.
struct List {
    rows: Vec<Value>,
    total: u64,
}

/// As many connections as the arguments ask for, page by page.
async fn list(api: &Api, args: &ConnectionsArgs) -> Result<List, ApiError> {
    let mut query = args.filters.query();
    if let Some(sort) = &args.sort {
        query.push(format!("sort={sort}"));
    }
    let mut rows: Vec<Value> = Vec::new();
    let limit = args.limit.get();
    let mut after = None;
    loop {
        let mut query = query.clone();
        query.push(format!("limit={}", (limit - rows.len()).min(PAGE)));
        query.extend(after.map(|after| format!("after={after}")));
        let page = api
            .get(&format!("/v1/connections?{}", query.join("&")))
            .await?;
        rows.extend(page["connections"].as_array().cloned().unwrap_or_default());
        after = page["next"].as_str().map(str::to_owned);
        let total = page["total"].as_u64().unwrap_or_default();
        if after.is_none() || rows.len() >= limit {
            // A connection may have ended between two pages.
            let total = match after {
                Some(_) => total.max(rows.len() as u64 + 1),
                None => rows.len() as u64,
            };
            return Ok(List { rows, total });
        }
    }
}

pub(super) fn kill(args: &KillArgs) -> Result<Exit, Failure> {
    let query = args.filters.query();
    let path = match &args.id {
        Some(id) => format!("/v1/connections/{}", encoded(id)),
        None if query.is_empty() => return Err(Failure::usage(anyhow!(NOTHING_TO_KILL))),
        None => format!("/v1/connections?{}", query.join("&")),
    };
    control(async {
        let killed = api(&args.target).await?.delete(&path).await?;
        print(&format!("killed {}\n", killed["killed"]))
    })
}

/// Returns when the process has ended.
pub(super) fn drain(target: &Target) -> Result<Exit, Failure> {
    control(async {
        let api = api(target).await?;
        let mut open = api.post("/v1/drain").await?["open"].clone();
        loop {
            print(&format!("draining: {open} open\n"))?;
            open = loop {
                sleep(POLL).await;
                match api.get("/v1/status").await {
                    Ok(status) if status["connections"]["open"] != open => {
                        break status["connections"]["open"].clone();
                    }
                    Ok(_) => {}
                    Err(ApiError::Gone(..)) => return print("drained\n"),
                    Err(error) => return Err(error.into()),
                }
            };
        }
    })
}

/// Returns when the reload has its result.
pub(super) fn reload(target: &Target) -> Result<Exit, Failure> {
    control(async {
        let api = api(target).await?;
        let request = api.post("/v1/reload").await?["request"].as_u64();
        let last = loop {
            let status = api.get("/v1/status").await?;
            let reloads = &status["reloads"];
            if reloads["answered"].as_u64() >= request {
                break reloads["last"].clone();
            }
            if status["state"] == "draining" {
                return Err(anyhow!("the reload was given up: a drain has begun").into());
            }
            sleep(POLL).await;
        };
        if last["result"] == "ok" {
            return print(&format!(
                "reloaded; connections revoked: {}\n",
                last["revoked"]
            ));
        }
        let problems = last["problems"].as_array().into_iter().flatten();
        let problems: Vec<&str> = problems.filter_map(Value::as_str).collect();
        // Each line begins with its place in the file, as editors expect it.
        stderr::last_words(&printable::lines(&problems.join("\n")));
        Ok(Exit::Usage)
    })
}

pub(super) async fn api(target: &Target) -> Result<Api, Failure> {
    Ok(Api::at(match &target.admin {
        Some(address) => address.clone(),
        None => instances::only().await?,
    }))
}

impl Filters {
    /// The parameters of a query.
    fn query(&self) -> Vec<String> {
        let peer = self.peer.map(|ip| ip.to_string());
        let filters = [
            ("backend", &self.backend),
            ("identity", &self.identity),
            ("peer", &peer),
            ("listener", &self.listener),
            ("sni", &self.sni),
            ("tunnel", &self.tunnel),
            ("state", &self.state),
        ];
        let filters = filters.into_iter();
        let given = filters.filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect()
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        anyhow::Error::from(error).into()
    }
}

fn print(text: &str) -> Result<Exit, Failure> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // It has read as much as it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Clean),
        written => Ok(written
            .context("cannot write to stdout")
            .map(|()| Exit::Clean)?),
    }
}

const NOTHING_TO_KILL: &str =
    "kill needs the ID of a connection, or a filter such as --identity cn:alice";

/// The most that the API puts on a page.
const PAGE: usize = 1000;
const POLL: Duration = Duration::from_millis(200);
