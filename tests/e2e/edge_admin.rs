//! The admin port's door: operators and their tools, no web page, and nobody from elsewhere.

use sluice_tests::{curl::Curl, gateway::Gateway};

const PATHS: [(&str, &str, u16); 5] = [
    ("GET", "/metrics", 200),
    ("GET", "/livez", 200),
    ("GET", "/readyz", 200),
    ("GET", "/config", 200),
    ("GET", "/x", 404),
];

#[tokio::test]
async fn what_a_page_asks_for_is_refused_whatever_it_is() {
    let gateway = Gateway::start("").await;
    let pages: [&[(&str, &str)]; 7] = [
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        // Even its own: there is no page of ours.
        &[("origin", "http://127.0.0.1:8081")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
    ];
    for headers in pages {
        for (method, path, _) in PATHS.into_iter().chain([("POST", "/drain", 202), ("OPTIONS", "/drain", 405)]) {
            let answer = gateway.admin.send(method, path, headers, "").await;
            let problem = answer.problem(403);
            assert!(problem["detail"].to_string().contains("web pages"), "{method} {path} {headers:?}: {problem}");
            assert_eq!(answer.header("access-control-allow-origin"), "", "no page may read even that");
        }
    }
    assert_eq!(gateway.ready().await, Some(200), "nothing was drained");
    // A person who types the address into a browser.
    for (method, path, status) in PATHS {
        assert_eq!(gateway.admin.send(method, path, &[("sec-fetch-site", "none")], "").await.status, status, "{path}");
    }
}

#[tokio::test]
async fn curl_and_scrapers_are_served() {
    let gateway = Gateway::start("").await;
    let url = |path: &str| format!("http://{}{path}", gateway.admin_address);
    let metrics = Curl::run(&[&url("/metrics")]).await;
    assert!(metrics.stdout().contains("\nsse_connections_active 0\n"), "{}", metrics.stdout());
    assert!(Curl::run(&[&url("/readyz")]).await.stdout().contains("\"ready\":true"));
    // As Prometheus asks.
    let headers = [
        ("user-agent", "Prometheus/3.5.0"),
        ("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
        ("accept-encoding", "gzip"),
        ("x-prometheus-scrape-timeout-seconds", "10"),
    ];
    let scraped = gateway.admin.send("GET", "/metrics", &headers, "").await;
    assert_eq!((scraped.status, scraped.header("content-encoding")), (200, ""));
    assert!(scraped.text().contains("# TYPE sse_connections_active gauge\n"));
    let drained = Curl::run(&["-X", "POST", "-o", "/dev/null", "-w", "%{response_code}", &url("/drain")]).await;
    assert_eq!(drained.stdout(), "202");
}

#[tokio::test]
async fn only_networks_that_are_named_are_answered() {
    let gateway = Gateway::start("admin_allow = [\"192.0.2.0/24\", \"127.0.0.1\"]\n").await;
    for (method, path, status) in PATHS {
        assert_eq!(gateway.admin.send(method, path, &[], "").await.status, status, "{path}");
    }
    gateway.admin.send("GET", "/metrics", &[("origin", "https://evil.example")], "").await.problem(403);

    let gateway = Gateway::spawn(sluice_tests::gateway::Options {
        config: "admin_allow = [\"192.0.2.0/24\", \"::1\"]\n".to_owned(),
        ..Default::default()
    });
    let serves = async || gateway.http.try_send("GET", "/connections", &[], "").await.ok();
    sluice_tests::wait::until("it serves", serves).await;
    for (method, path, _) in PATHS.into_iter().chain([("POST", "/drain", 202)]) {
        // Nor does it matter what a stranger says of itself.
        let answer = gateway.admin.send(method, path, &[("x-forwarded-for", "192.0.2.7")], "").await;
        assert!(answer.problem(403)["detail"].to_string().contains("admin_allow"), "{path}");
    }
    gateway.http.post("/channels/a/events", "x").await;
    assert_eq!(gateway.http.get("/channels/a").await.status, 200, "the public port is another matter");
}
