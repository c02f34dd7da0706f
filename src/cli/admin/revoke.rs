//! `vestibule revoke`: revokes an identity, lists the revocations, or removes one.

use serde_json::{Value, json};
use vestibule::printable;

use super::client::encoded;
use super::{api, print};
use crate::cli::args::RevokeArgs;
use crate::cli::run::control;
use crate::cli::{Exit, Failure, stderr};

pub(in crate::cli) fn revoke(args: &RevokeArgs) -> Result<Exit, Failure> {
    control(async {
        let api = api(&args.target).await?;
        let (answer, text): (Value, String) = match (&args.identity, &args.remove) {
            (Some(identity), _) => {
                let body = json!({ "identity": identity });
                let made = api.post_json("/v1/revocations", &body).await?;
                if made["stored"] == false {
                    stderr::last_words(&UNSTORED);
                }
                let text = revoked(&made);
                (made, text)
            }
            (None, Some(id)) => {
                let path = format!("/v1/revocations/{}", encoded(id));
                let removed = api.delete(&path).await?;
                let text = format!("removed {}", word(&removed, "identity"));
                (removed, printable::line(&text) + "\n")
            }
            (None, None) => {
                let rows = api.get("/v1/revocations").await?["revocations"].take();
                let text = table(rows.as_array().map_or(&[], Vec::as_slice));
                (rows, text)
            }
        };
        match args.json {
            true => print(&format!("{answer:#}\n")),
            false => print(&text),
        }
    })
}

fn revoked(made: &Value) -> String {
    let (identity, id) = (word(made, "identity"), word(made, "id"));
    let line = format!(
        "revoked {identity} ({id}); connections ended: {}",
        made["ended"]
    );
    printable::line(&line) + "\n"
}

fn table(rows: &[Value]) -> String {
    let line = |row: &Value| {
        let columns = ["id", "created", "identity"].map(|key| word(row, key));
        printable::line(&columns.join("  ")) + "\n"
    };
    match rows {
        [] => "no identity is revoked\n".into(),
        rows => rows.iter().map(line).collect(),
    }
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

const UNSTORED: &str = "vestibule: the revocation ends with the running process, which has no runtime directory \
     that lasts; set `runtime.directory`";
