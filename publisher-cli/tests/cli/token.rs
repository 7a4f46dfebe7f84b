//! `sluice token`: what it makes it can explain, and what is wrong with a token is said.

use crate::command::{sluice, sluice_with_input};
use std::path::PathBuf;

fn key(directory: &tempfile::TempDir, name: &str, secret: &str) -> String {
    let file: PathBuf = directory.path().join(name);
    std::fs::write(&file, secret).expect("written");
    file.display().to_string()
}

#[tokio::test]
async fn what_is_minted_is_explained() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = key(&directory, "hs.key", "a secret of thirty-two bytes, or so\n");
    let minted = sluice(&[
        "token",
        "mint",
        "--secret-file",
        &secret,
        "--iss",
        "https://id.example.com",
        "--aud",
        "sluice",
        "--sub",
        "ann",
        "--subscribe",
        "orders.*",
        "--subscribe",
        "mine.{sub}",
        "--publish",
        "orders.eu",
        "--join",
        "news",
        "--kid",
        "k1",
        "--ttl",
        "90m",
    ])
    .await;
    assert_eq!(minted.code, Some(0), "{}", minted.stderr);
    let token = minted.stdout.trim();
    let explained = sluice_with_input(&["token", "explain", "-", "--secret-file", &secret], token).await;
    assert_eq!(explained.code, Some(0), "{}", explained.stderr);
    for line in [
        "signed with  HS256, key k1",
        "signature    good",
        "issuer       https://id.example.com",
        "audience     sluice",
        "subject      ann",
        "subscribes   orders.*, mine.ann",
        "publishes    orders.eu",
        "joins        news",
        "admin        no",
    ] {
        assert!(explained.stdout.lines().any(|shown| shown == line), "{line}\n{}", explained.stdout);
    }
    assert!(explained.stdout.contains("(in 89m)") || explained.stdout.contains("(in 90m)"), "{}", explained.stdout);

    let other = key(&directory, "other.key", "another secret of thirty-two bytes");
    let wrong = sluice(&["token", "explain", token, "--secret-file", &other]).await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("not of that key"), "{}", wrong.stderr);
    let unverified = sluice(&["token", "explain", token]).await;
    assert!(unverified.code == Some(0) && unverified.stdout.contains("not verified"), "{}", unverified.stdout);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = key(&directory, "hs.key", "a secret of thirty-two bytes, or so");
    let expired = sluice(&["token", "mint", "--secret-file", &secret, "--ttl", "0s"]).await;
    let explained = sluice(&["token", "explain", expired.stdout.trim()]).await;
    assert!(explained.code == Some(1) && explained.stderr.contains("it has expired"), "{}", explained.stderr);
    for garbage in ["", "x", "a.b.c"] {
        let explained = sluice(&["token", "explain", garbage]).await;
        assert!(explained.code == Some(1) && explained.stderr.contains("no token"), "{garbage}: {}", explained.stderr);
    }
    for (args, said) in [
        (&["--secret-file", "/nowhere"][..], "/nowhere"),
        (&["--secret-file", &secret, "--alg", "ES256"], "--private-key"),
        (&["--private-key", &secret], "--alg"),
        (&["--private-key", &secret, "--alg", "ES256"], "no private key"),
        (&["--secret-file", &secret, "--subscribe", "mine.{sub}"], "sub"),
        (&["--secret-file", &secret, "--join", "a.*"], "join"),
    ] {
        let minted = sluice(&[&["token", "mint"], args].concat()).await;
        assert!(minted.code == Some(1) && minted.stdout.is_empty(), "{args:?}: {}", minted.stdout);
        assert!(minted.stderr.contains(said), "{args:?}: {}", minted.stderr);
    }
    assert_eq!(sluice(&["token", "mint"]).await.code, Some(2));
    assert_eq!(sluice(&["token", "mint", "--secret-file", &secret, "--publish", "a b"]).await.code, Some(2));
}
