//! The arguments of `vestibule log`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use clap::builder::PossibleValuesParser;
use vestibule::Outcome;

use super::peer::Peer;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct LogArgs {
    /// The audit log. Rotated files beside it (PATH.1, PATH.2, …) are read too.
    #[arg(value_name = "PATH", conflicts_with = "config")]
    pub path: Option<PathBuf>,

    /// The configuration file that names the audit log. Without it and without PATH: audit.log in
    /// $XDG_RUNTIME_DIR/vestibule or /run/vestibule.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Only events from this time on: how long ago (30m, 2h, 1day), or a time such as 2026-11-20T20:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<SystemTime>,

    /// Only events before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<SystemTime>,

    /// Only clients whose certificate has this name, such as cn:alice or uri:spiffe://corp/web.
    #[arg(long, value_name = "NAME", value_parser = identity)]
    pub identity: Option<String>,

    /// Only clients with this address, or in this network, such as 192.0.2.0/24.
    #[arg(long, value_name = "ADDRESS")]
    pub peer: Option<Peer>,

    /// Only connections to this backend.
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,

    /// Only connections that ended in this way, such as done or no_route. May be repeated.
    #[arg(long, value_name = "OUTCOME", value_delimiter = ',')]
    #[arg(value_parser = PossibleValuesParser::new(Outcome::ALL.map(Outcome::as_str)))]
    #[arg(hide_possible_values = true)]
    pub outcome: Vec<String>,

    /// Only the connection with this id; its first eight characters are enough.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub id: Option<String>,

    /// Only these events. May be repeated.
    #[arg(long, value_name = "EVENT", value_delimiter = ',')]
    #[arg(value_parser = PossibleValuesParser::new(EVENTS))]
    pub event: Vec<String>,

    /// The number of events to print. Default: all; with --follow, the last 10.
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,

    /// Print the last events, oldest first, and then each new one as it comes.
    #[arg(long, short)]
    pub follow: bool,

    /// Print the lines as they are in the file: one JSON object each.
    #[arg(long)]
    pub json: bool,
}

/// A duration before now, or a time.
fn time(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(SystemTime::now()
            .checked_sub(ago)
            .unwrap_or(SystemTime::UNIX_EPOCH));
    }
    humantime::parse_rfc3339_weak(text)
        .or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .map_err(|_| {
            "expected how long ago, such as 2h, or a time, such as 2026-11-20T20:00:00Z".into()
        })
}

fn identity(text: &str) -> Result<String, String> {
    let kinds = ["uri:", "dns:", "cn:", "ou:", "sha256:"];
    match kinds.iter().any(|kind| text.starts_with(kind)) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "expected a name that begins with {}",
            kinds.join(", ")
        )),
    }
}

fn id(text: &str) -> Result<String, String> {
    let is_id = |c: char| c.is_ascii_hexdigit() || c == '-';
    match (8..=36).contains(&text.len()) && text.chars().all(is_id) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("expected an id, or at least its first eight characters".into()),
    }
}

const EVENTS: [&str; 9] = [
    "open", "close", "refuse", "admin", "reload", "revoke", "start", "stop", "gap",
];

const EXAMPLES: &str = "\
Examples:
  vestibule log -c /etc/vestibule.toml --since 2h --identity cn:alice
      What alice's connections did in the last two hours, newest first
  vestibule log /var/log/vestibule/audit.log --outcome no_route,denied -n 20
      The last 20 clients that no route accepted
  vestibule log -c /etc/vestibule.toml --follow --peer 192.0.2.0/24
      The connections from this network, as they come
  vestibule log -c /etc/vestibule.toml --event close --json | jq .bytes_out";
