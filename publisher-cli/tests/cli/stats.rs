//! Counts, as a table and as they come.

use crate::{
    command::sluice,
    server::{Answer, Server},
};

const CONNECTIONS: &str =
    r#"{"replica":"r1","replicas":3,"connections":{"replica":1,"cluster":9},"channels":{"replica":1}}"#;
const NEWS: &str = r#"{"channel":"news","subscribers":{"replica":1,"cluster":3},"first":null,"last":"1700-12"}"#;

async fn gateway() -> Server {
    Server::start(|_, asked| match asked.target.as_str() {
        "/connections" => Answer::json(200, CONNECTIONS),
        "/channels/news" => Answer::json(200, NEWS),
        "/channels/a%2Fb" => {
            let body = r#"{"channel":"a/b","subscribers":{"replica":0,"cluster":null},"first":null,"last":null}"#;
            Answer::json(200, body)
        }
        _ => Answer::problem(404, "No such thing", "here"),
    })
    .await
}

#[tokio::test]
async fn counts_stand_in_aligned_columns() {
    let server = gateway().await;
    let ended = sluice(&["stats", "--url", &server.url]).await;
    let table = [
        "             replica r1  cluster of 3\n",
        "connections           1             9\n",
        "channels              1             -\n",
    ];
    let table = table.concat();
    assert_eq!((ended.code, ended.stdout), (Some(0), table));
    let ended = sluice(&["stats", "news", "a/b", "--url", &server.url]).await;
    let table = "\
channel  on this replica  in the cluster  first     last
news                   1               3      -  1700-12
a/b                    0               -      -        -
";
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), table));
}

#[tokio::test]
async fn json_is_the_answer_itself() {
    let server = gateway().await;
    let ended = sluice(&["stats", "--json", "--url", &server.url]).await;
    assert_eq!(ended.stdout, format!("{CONNECTIONS}\n"));
    let ended = sluice(&["stats", "--json", "news", "--url", &server.url]).await;
    assert_eq!(ended.stdout, format!("{NEWS}\n"));
}

#[tokio::test]
async fn a_refusal_is_told() {
    let server = gateway().await;
    let ended = sluice(&["stats", "nothing", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert_eq!(ended.stderr, "sluice: No such thing: here (HTTP 404)\n");
}
