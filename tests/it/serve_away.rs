//! `producer serve` while a server is away: the page says so and shows what it saw last, the API answers what it can and
//! else a problem with status 503, it is not ready, and all of it comes back by itself.

use std::time::{Duration, Instant};

use harness::{Fault, Proxy};
use paceline_stack::Process;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::scene::RUN;
use crate::serve::{LIMIT, runs, scene};

/// What a browser and a program see of one `serve`.
struct Seen {
    client: Client,
    url: String,
}

impl Seen {
    fn of(serving: &Process) -> Self {
        let address = harness::fleet::metrics_address(serving, LIMIT).expect("it listens");
        Seen {
            client: Client::new(),
            url: format!("http://{address}"),
        }
    }

    async fn page(&self, path: &str) -> String {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.expect("text")
    }

    async fn api(&self, path: &str) -> (StatusCode, Value) {
        let answer = self
            .client
            .get(format!("{}/api/v1{path}", self.url))
            .send()
            .await;
        told(answer.expect("an answer")).await
    }

    async fn start(&self, run: &str) -> (StatusCode, Value) {
        let ask = self.client.post(format!("{}/api/v1/runs", self.url));
        let body = json!({ "job": "fares", "run_id": run }).to_string();
        told(ask.body(body).send().await.expect("an answer")).await
    }

    async fn ready(&self) -> StatusCode {
        let answer = self.client.get(format!("{}/readyz", self.url)).send().await;
        answer.expect("an answer").status()
    }

    async fn until_ready(&self, expected: StatusCode) {
        let until = Instant::now() + LIMIT;
        while self.ready().await != expected {
            assert!(Instant::now() < until, "/readyz is never {expected}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn until(&self, what: &str, path: &str, holds: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + LIMIT;
        loop {
            let text = self.page(path).await;
            if holds(&text) {
                return text;
            }
            assert!(Instant::now() < until, "{path} is never {what}: {text}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// An answer; every error is a problem as RFC 9457 has it, without a password.
async fn told(answer: reqwest::Response) -> (StatusCode, Value) {
    let status = answer.status();
    let kind = answer.headers()["content-type"]
        .to_str()
        .expect("text")
        .to_owned();
    let body: Value = answer.json().await.expect("JSON");
    if !status.is_success() {
        assert_eq!(kind, "application/problem+json");
        assert_eq!(body["status"], status.as_u16());
        assert!(!body["detail"].as_str().unwrap_or_default().is_empty());
    }
    (status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_keeps_what_it_saw_and_the_api_says_503_until_redis_is_back() {
    let mut scene = scene("serve-redis");
    scene.fleet.tells_nobody();
    scene.collect();
    scene.load();
    scene.enqueue();
    scene.ends_with(0).await;
    let (proxy, through) = Proxy::before(scene.fleet.value("REDIS_URL"))
        .await
        .expect("a proxy");
    let serving = scene.fleet.start_with(
        &[("REDIS_URL", &through)],
        "producer",
        &["serve", "--listen", "127.0.0.1:0"],
    );
    let serving = serving.expect("it starts");
    let seen = Seen::of(&serving);
    let is_away = |text: &str| text.contains("A server is away");
    let shown = |text: &str| text.contains(RUN) && !is_away(text);
    seen.until("shown", "/", shown).await;
    assert_eq!(seen.api("/limits").await.0, StatusCode::OK);

    proxy.set(Fault::Reset);
    let page = seen.until("said to be away", "/", is_away).await;
    assert!(page.contains(RUN), "what was seen stays: {page}");
    for path in ["/limits", "/jobs", "/views", &format!("/runs/fares/{RUN}")] {
        assert!(is_away(&seen.page(path).await), "{path}");
    }
    // The calendar is made of the parts instead of the sets.
    let calendar = seen.page("/views/fares?of=NRT").await;
    assert!(
        is_away(&calendar) && calendar.contains("Cheapest"),
        "{calendar}"
    );
    // What lies in the spec folder and in S3 is there as ever.
    for path in ["/jobs", "/schedules", "/runs", "/views/fares?of=NRT"] {
        assert_eq!(seen.api(path).await.0, StatusCode::OK, "{path}");
    }
    let (status, run) = seen.api(&format!("/runs/fares/{RUN}")).await;
    assert_eq!(
        (status, &run["state"]),
        (StatusCode::OK, &json!("completed"))
    );
    assert_eq!(seen.api("/limits").await.0, StatusCode::SERVICE_UNAVAILABLE);
    // A start that is refused has not begun.
    assert_eq!(
        seen.start("second").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let alive = seen.client.get(format!("{}/healthz", seen.url));
    let alive = alive.send().await.expect("an answer");
    assert_eq!(alive.status(), StatusCode::OK);

    proxy.set(Fault::None);
    seen.until("shown again", "/", shown).await;
    let until = Instant::now() + LIMIT;
    while seen.api("/limits").await.0 != StatusCode::OK {
        assert!(Instant::now() < until, "the limits do not come back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        runs(&scene.fleet, "fares").len(),
        1,
        "the refused one began"
    );
    let (status, started) = seen.start("third").await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    let until = Instant::now() + LIMIT;
    while seen.api("/runs/fares/third").await.1["state"] != "completed" {
        assert!(Instant::now() < until, "the run does not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    seen.until_ready(StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_readyz_say_that_rabbitmq_is_away() {
    let scene = scene("serve-broker");
    let (proxy, through) = Proxy::before(scene.fleet.value("AMQP_URL"))
        .await
        .expect("a proxy");
    let serving = scene.fleet.start_with(
        &[
            ("AMQP_URL", through.as_str()),
            ("RUN_WEBHOOK_URL", "http://127.0.0.1:9/nobody"),
        ],
        "producer",
        &["serve", "--listen", "127.0.0.1:0"],
    );
    let serving = serving.expect("it starts");
    let seen = Seen::of(&serving);
    seen.until_ready(StatusCode::OK).await;
    proxy.set(Fault::Reset);
    seen.until_ready(StatusCode::SERVICE_UNAVAILABLE).await;
    let said = |text: &str| text.contains("RabbitMQ does not answer");
    let page = seen.until("said to be away", "/", said).await;
    assert!(!page.contains("guest:guest"), "{page}");
    proxy.set(Fault::None);
    seen.until_ready(StatusCode::OK).await;
    seen.until("shown again", "/", |text: &str| !said(text))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_not_ready_while_a_server_is_away() {
    let scene = scene("worker-away");
    for (role, variable) in [("collect", "REDIS_URL"), ("load", "AMQP_URL")] {
        let (proxy, through) = Proxy::before(scene.fleet.value(variable))
            .await
            .expect("a proxy");
        let env = [(variable, through.as_str())];
        let listening = [role, "--listen", "127.0.0.1:0"];
        let worker = scene.fleet.start_with(&env, "worker", &listening);
        let worker = worker.expect("it starts");
        let seen = Seen::of(&worker);
        seen.until_ready(StatusCode::OK).await;
        proxy.set(Fault::Reset);
        seen.until_ready(StatusCode::SERVICE_UNAVAILABLE).await;
        proxy.set(Fault::None);
        seen.until_ready(StatusCode::OK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loader_that_alone_cannot_reach_a_server_leaves_its_receipts_to_the_others() {
    let mut scene = scene("loader-away");
    scene.fleet.tells_nobody();
    let (proxy, through) = Proxy::before(scene.fleet.value("REDIS_URL"))
        .await
        .expect("a proxy");
    let env = [("REDIS_URL", through.as_str())];
    let listening = ["load", "--listen", "127.0.0.1:0"];
    let cut_off = scene.fleet.start_with(&env, "worker", &listening);
    let cut_off = cut_off.expect("it starts");
    let seen = Seen::of(&cut_off);
    seen.until_ready(StatusCode::OK).await;
    proxy.set(Fault::Reset);
    scene.collect();
    scene.enqueue();
    seen.until_ready(StatusCode::SERVICE_UNAVAILABLE).await;
    scene.load();
    scene.ends_with(0).await;
}
