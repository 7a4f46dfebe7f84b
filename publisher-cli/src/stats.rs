//! `sluice stats`: the gateway's counts as an aligned table, or its answers as they are.

use crate::{
    args::StatsArgs,
    exit::Failure,
    gateway::{Gateway, RequestError},
    output::Output,
};
use reqwest::Method;
use serde::Deserialize;
use std::time::Duration;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A count of this replica and of all; `None` while the broker, which knows of the others, is away.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Count {
    replica: Option<u64>,
    cluster: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Connections {
    replica: String,
    replicas: Option<u64>,
    connections: Count,
    channels: Count,
}

#[derive(Debug, Deserialize)]
struct ChannelStats {
    channel: String,
    subscribers: Count,
    first: Option<String>,
    last: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub async fn run(args: StatsArgs) -> Result<(), Failure> {
    let gateway = Gateway::new(&args.gateway).map_err(Failure::Failed)?;
    let printed = print(&gateway, &args).await.map_err(|error| Failure::Failed(error.to_string()))?;
    Output::new().write(printed.as_bytes()).await
}

async fn print(gateway: &Gateway, args: &StatsArgs) -> Result<String, RequestError> {
    let mut answers = Vec::new();
    if args.channels.is_empty() {
        answers.push(get(gateway, &["connections"]).await?);
    }
    for channel in &args.channels {
        answers.push(get(gateway, &["channels", channel.as_str()]).await?);
    }
    if args.json {
        return Ok(answers.iter().map(|answer| format!("{}\n", answer.trim_ascii())).collect());
    }
    let unreadable = |error: serde_json::Error| gateway.not_a_gateway(&error.to_string());
    let mut rows = Vec::new();
    if args.channels.is_empty() {
        let Connections { replica, replicas, connections, channels } =
            serde_json::from_str(&answers[0]).map_err(unreadable)?;
        rows.push(["".into(), format!("replica {replica}"), format!("cluster of {}", shown(replicas))].to_vec());
        rows.push(["connections".into(), shown(connections.replica), shown(connections.cluster)].to_vec());
        rows.push(["channels".into(), shown(channels.replica), shown(channels.cluster)].to_vec());
    } else {
        rows.push(["channel", "on this replica", "in the cluster", "first", "last"].map(String::from).to_vec());
        for answer in &answers {
            let ChannelStats { channel, subscribers, first, last } =
                serde_json::from_str(answer).map_err(unreadable)?;
            let position = |position: Option<String>| position.unwrap_or_else(|| "-".into());
            let counts = [shown(subscribers.replica), shown(subscribers.cluster)];
            rows.push([vec![channel], counts.to_vec(), vec![position(first), position(last)]].concat());
        }
    }
    Ok(aligned(&rows))
}

async fn get(gateway: &Gateway, segments: &[&str]) -> Result<String, RequestError> {
    let request = gateway.request(Method::GET, gateway.url(segments)?).timeout(REQUEST_TIMEOUT);
    let body = gateway.body(gateway.send(request).await?).await?;
    String::from_utf8(body).map_err(|error| gateway.not_a_gateway(&error.to_string()))
}

fn shown(count: Option<u64>) -> String {
    count.map_or_else(|| "-".into(), |count| count.to_string())
}

/// Rows with their columns under each other: the first to the left, as it names the row, the others to the right.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width_of).collect();
    let mut table = String::new();
    for row in rows {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => table.push_str(&format!("{cell:<width$}")),
                _ => table.push_str(&format!("  {cell:>width$}")),
            }
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [["", "here"], ["connections", "12"], ["channels", "3"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(aligned(&rows), "             here\nconnections    12\nchannels        3\n");
    }
}
