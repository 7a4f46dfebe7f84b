//! What a container is told of its gateway.

use crate::{
    command::sluice,
    server::{Answer, Server},
};

#[tokio::test]
async fn it_is_well_or_the_reasons_stand_on_stderr() {
    let server = Server::start(|_, asked| match asked.target.as_str() {
        "/readyz" => Answer::json(503, r#"{"ready":false,"reasons":["the gateway is draining","and more"]}"#),
        "/livez" => Answer::json(200, r#"{"live":true,"reasons":[]}"#),
        _ => Answer::problem(404, "No such thing", "here"),
    })
    .await;
    let ask = async |path: &str| sluice(&["health", &format!("{}{path}", server.url)]).await;
    let well = ask("/livez").await;
    assert_eq!((well.code, well.stdout.as_str(), well.stderr.as_str()), (Some(0), "", ""));
    let not_ready = ask("/readyz").await;
    assert_eq!(not_ready.code, Some(1));
    assert!(not_ready.stderr.contains("/readyz: the gateway is draining; and more"), "{}", not_ready.stderr);
    let wrong = ask("/nothing").await;
    assert!(wrong.code == Some(1) && wrong.stderr.contains("404"), "{}", wrong.stderr);
}

#[tokio::test]
async fn nobody_there_and_no_address_are_said() {
    let nobody = sluice(&["health", "http://127.0.0.1:1/readyz", "--timeout", "2s"]).await;
    assert!(nobody.code == Some(1) && nobody.stderr.contains("refused"), "{}", nobody.stderr);
    assert_eq!(sluice(&["health", "readyz"]).await.code, Some(2));
}
