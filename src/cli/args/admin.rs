//! The arguments of the commands that talk to a running Vestibule.

use clap::Args as ArgGroup;
use clap::builder::PossibleValuesParser;
use vestibule::Address;

use super::at_least_one;

#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct Target {
    /// The admin API: unix:/PATH or HOST:PORT. Default: the running Vestibule of this user, whose
    /// socket is in $XDG_RUNTIME_DIR/vestibule or /run/vestibule.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<Address>,
}

#[derive(Debug, ArgGroup)]
#[command(after_help = STATUS_EXAMPLES)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    pub target: Target,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

// Every filter that is given must match. No doc comment: clap would show it as the text of a command.
#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct Filters {
    /// Connections whose route chose this backend.
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,

    /// Clients whose certificate has this name, such as `cn:alice`.
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,

    /// Clients with this IP address.
    #[arg(long, value_name = "IP")]
    pub peer: Option<std::net::IpAddr>,

    /// Connections of this listener.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,

    /// Clients that asked for this server name (SNI).
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,

    /// Streams of the tunnel that the connection with this id carries.
    #[arg(long, value_name = "ID")]
    pub tunnel: Option<String>,

    /// Connections in this state.
    #[arg(long, value_name = "STATE")]
    #[arg(value_parser = PossibleValuesParser::new(["handshaking", "waiting", "relaying", "closing"]))]
    pub state: Option<String>,
}

#[derive(Debug, ArgGroup)]
#[command(after_help = CONNECTIONS_EXAMPLES)]
pub(in crate::cli) struct ConnectionsArgs {
    #[command(flatten)]
    pub target: Target,

    #[command(flatten)]
    pub filters: Filters,

    /// The order; with `-` before it, the largest first, as in `--sort=-bytes`. Default: the oldest
    /// first.
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(["age", "-age", "idle", "-idle", "bytes", "-bytes", "bytes_in", "-bytes_in", "bytes_out", "-bytes_out"]))]
    pub sort: Option<String>,

    /// How many connections to print.
    #[arg(long, value_name = "N", default_value = "100", value_parser = at_least_one::<std::num::NonZeroUsize>)]
    pub limit: std::num::NonZeroUsize,

    /// Print again every SECONDS (default 2) until Ctrl-C, also after a restart of Vestibule. On a
    /// terminal, the table stays in place.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "2", value_parser = at_least_one::<std::num::NonZeroU16>)]
    pub watch: Option<std::num::NonZeroU16>,

    /// Print a JSON array; with --watch, one JSON object on each line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ArgGroup)]
#[command(after_help = KILL_EXAMPLES)]
pub(in crate::cli) struct KillArgs {
    #[command(flatten)]
    pub target: Target,

    /// The connection's UUID.
    #[arg(value_name = "ID", conflicts_with_all = ["backend", "identity", "peer", "listener", "sni", "tunnel", "state"])]
    pub id: Option<String>,

    #[command(flatten)]
    pub filters: Filters,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  vestibule status
  vestibule status --admin 127.0.0.1:9901 --json | jq .limits";

const CONNECTIONS_EXAMPLES: &str = "\
Examples:
  vestibule connections --backend app --state waiting
      Those that wait for a worker
  vestibule connections --sort=-bytes --limit 10
      Those that moved the most bytes
  vestibule connections --identity cn:alice --watch
      The connections of alice, every two seconds";

const KILL_EXAMPLES: &str = "\
Examples:
  vestibule kill 7f8c1a52-5d0e-4c4b-9f57-0f7c7a9f0f11
  vestibule kill --identity cn:alice
      All connections of alice, in one step";
