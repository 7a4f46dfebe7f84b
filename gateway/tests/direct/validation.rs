//! What the function refuses.

use crate::server::{Redis, command};

#[tokio::test]
async fn what_a_gateway_would_refuse_is_refused_and_writes_nothing() {
    let redis = Redis::with_library().await;
    let long = |length| "x".repeat(length);
    let (long_name, long_key) = (format!("sluice:{}", long(201)), long(129));
    let (long_type, long_data) = (long(201), long(65537));
    for (name, arguments, told) in [
        ("sluice:", vec!["", "x"], "1 to 200 bytes"),
        (&long_name, vec!["", "x"], "has 201"),
        ("sluice:a b", vec!["", "x"], "visible ASCII"),
        ("sluice:a{b}", vec!["", "x"], "visible ASCII"),
        ("sluice:a\\b", vec!["", "x"], "visible ASCII"),
        ("sluice:a^b", vec!["", "x"], "visible ASCII"),
        ("sluice:a*", vec!["", "x"], "visible ASCII"),
        ("sluice:é", vec!["", "x"], "visible ASCII"),
        ("sluice:$", vec!["", "x"], "reserved"),
        ("sluice:$allx", vec!["", "x"], "reserved"),
        ("sluice:$user.", vec!["", "x"], "reserved"),
        ("sluice:$control", vec!["", "x"], "reserved"),
        ("other:news", vec!["", "x"], "known prefix"),
        ("sluice:news", vec!["a\nb", "x"], "no CR, LF or NUL"),
        ("sluice:news", vec!["a\rb", "x"], "no CR, LF or NUL"),
        ("sluice:news", vec!["a\0b", "x"], "no CR, LF or NUL"),
        ("sluice:news", vec![&long_type, "x"], "has 201"),
        ("sluice:news", vec!["", &long_data], "has 65537"),
        ("sluice:news", vec!["", "x", ""], "1 to 128 bytes"),
        ("sluice:news", vec!["", "x", &long_key], "1 to 128 bytes"),
        ("sluice:news", vec!["", "x", "k", "other:"], "known prefix"),
        ("sluice:news", vec!["x"], "use FCALL"),
        ("sluice:news", vec!["", "x", "k", "sluice:", "more"], "use FCALL"),
    ] {
        let error = redis.fcall(name, &arguments).await.expect_err(name).to_string();
        assert!(error.contains(told), "{name:?} {arguments:?}: {error}");
    }
    assert_eq!(redis.keys().await, [""; 0]);
}

#[tokio::test]
async fn what_a_gateway_would_take_is_taken() {
    let redis = Redis::with_library().await;
    let (name, key) = (format!("sluice:{}", "x".repeat(200)), "k".repeat(128));
    let (kind, data) = ("é".repeat(100), "x".repeat(65536));
    redis.fcall(&name, &[&kind, &data, &key]).await.expect("taken");
    for name in ["sluice:https://a/b?c#d%25", "sluice:$all", "sluice:$conn.a1", "sluice:[x]()~!"] {
        redis.fcall(name, &["", "a\0b\r\n", "clé"]).await.expect(name);
    }
}

#[tokio::test]
async fn data_is_utf8_exactly() {
    let redis = Redis::with_library().await;
    let mut samples: Vec<Vec<u8>> = ["", "aé€😀", "\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}"]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    for bad in [
        &b"\x80"[..],
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xc3\xc3\xa9\xa9",
        b"\xe2\xc3\xa9\x82\xac",
        b"ok\xff",
    ] {
        samples.push(bad.to_vec());
    }
    // Any two bytes after a lead byte, and any string of pieces.
    let pieces: [&[u8]; 8] = [b"a", b"\x80", b"\xbf", b"\xc3", b"\xe2", b"\xed", b"\xf0\x9f", b"\xf4"];
    for n in 0..2000 {
        let mut rest = n * 7919;
        let mut sample = Vec::new();
        for _ in 0..5 {
            sample.extend_from_slice(pieces[rest % 8]);
            rest /= 8;
        }
        samples.push(sample);
    }
    let mut refused = 0;
    for sample in samples {
        let mut call = command(&["FCALL", "sluice_publish", "1", "sluice:news", ""]);
        let taken = call.arg(&sample[..]).query_async::<String>(&mut redis.connection.clone()).await;
        assert_eq!(taken.is_ok(), std::str::from_utf8(&sample).is_ok(), "{sample:x?}: {taken:?}");
        refused += usize::from(taken.is_err());
    }
    assert!(refused > 1000);
}
