//! Every route of `/api/v1` against a fleet that works.

use futures::StreamExt;
use paceline_loadtest::simulator::{Expected, Fault, FaultRule};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::serve::{scene, serve};

/// The API of one `producer serve`, with a token for each role.
struct Api {
    client: Client,
    url: String,
}

impl Api {
    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let ask = self.client.get(format!("{}/api/v1{path}", self.url));
        let answer = ask.bearer_auth("look").send().await.expect("an answer");
        let status = answer.status();
        (status, answer.json().await.unwrap_or_default())
    }

    /// What is there.
    async fn see(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn post(
        &self,
        path: &str,
        token: &str,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, Value) {
        let ask = self.client.post(format!("{}/api/v1{path}", self.url));
        let answer = ask
            .bearer_auth(token)
            .body(body)
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        if status.is_client_error() {
            let kind = answer.headers()["content-type"]
                .to_str()
                .expect("text")
                .to_owned();
            assert_eq!(kind, "application/problem+json", "{path}");
        }
        (status, answer.json().await.unwrap_or_default())
    }

    async fn start(&self, body: Value) -> (StatusCode, Value) {
        self.post("/runs", "start", body.to_string()).await
    }

    async fn until(&self, run: &str, state: &str) -> Value {
        for _ in 0..1_200 {
            let (_, shown) = self.get(&format!("/runs/fares/{run}")).await;
            if shown["state"] == state {
                return shown;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{run} is not {state}");
    }
}

fn begin(test: &str) -> (Scene, paceline_stack::Process, Api) {
    begin_with(scene(test))
}

fn begin_with(mut scene: Scene) -> (Scene, paceline_stack::Process, Api) {
    scene.fleet.set(
        "PACELINE_API_TOKENS",
        "eye:read:look,hand:run:start,boss:admin:all",
    );
    scene.fleet.tells_nobody();
    let (serving, url) = serve(&scene.fleet);
    let client = Client::new();
    (scene, serving, Api { client, url })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_hears_how_far_a_run_is() {
    let slow = scene("api-progress");
    slow.replace("providers/fare-search.yaml", "rate: 200/s", "rate: 2/s");
    let (mut scene, _serving, api) = begin_with(slow);
    let events = api.client.get(format!("{}/api/v1/events", api.url));
    let events = events.bearer_auth("look").send().await.expect("an answer");
    let mut heard = events.bytes_stream();
    scene.collect();
    scene.load();
    let started = api.start(json!({"job": "fares", "run_id": "a"})).await;
    assert_eq!(started.0, StatusCode::CREATED);
    let mut said = String::new();
    let progressed = loop {
        let more = heard.next().await.expect("a stream").expect("an event");
        said.push_str(&String::from_utf8_lossy(&more));
        let events = said
            .split("\n\n")
            .filter(|event| event.contains("run.progressed"));
        let data = events.filter_map(|event| event.split_once("data: "));
        let mut whole = data.filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok());
        if let Some(event) = whole.next() {
            break event;
        }
    };
    assert_eq!(
        (&progressed["job"], &progressed["run"]),
        (&json!("fares"), &json!("a"))
    );
    assert_eq!(progressed["cells"], 28);
    assert!(progressed["calls"].as_u64() > Some(0), "{progressed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_api_answers() {
    let (mut scene, _serving, api) = begin("api-routes");
    let document = api.see("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let (status, none) = api.get("/views/fares?of=NRT").await;
    assert_eq!(
        (status, &none["status"]),
        (StatusCode::NOT_FOUND, &json!(404))
    );

    let events = api.client.get(format!("{}/api/v1/events", api.url));
    let events = events.bearer_auth("look").send().await.expect("an answer");
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let mut heard = events.bytes_stream();

    assert_eq!(
        api.start(json!({"job": "fares", "run_id": "a"})).await.0,
        StatusCode::CREATED
    );
    let mut said = String::new();
    while !said.contains("run.started") {
        let more = heard.next().await.expect("a stream").expect("an event");
        said.push_str(&String::from_utf8_lossy(&more));
    }
    // Nobody works yet: it can be held, and ended.
    let paused = api.post("/runs/fares/a/pause", "start", "").await;
    assert_eq!(
        (paused.0, &paused.1["state"]),
        (StatusCode::OK, &json!("paused"))
    );
    let resumed = api.post("/runs/a/resume", "start", "").await;
    assert_eq!(
        (resumed.0, &resumed.1["state"]),
        (StatusCode::OK, &json!("queued"))
    );
    let ended = api.post("/runs/fares/a/cancel", "start", "").await;
    assert_eq!(
        (ended.0, &ended.1["state"]),
        (StatusCode::OK, &json!("cancelled"))
    );
    assert_eq!(
        api.post("/runs/fares/a/explode", "start", "").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        api.post("/runs/fares/a/retry", "look", "").await.0,
        StatusCode::FORBIDDEN
    );
    scene.collect();
    scene.load();
    assert_eq!(
        api.post("/runs/fares/a/retry", "start", "").await.0,
        StatusCode::OK
    );
    api.until("a", "completed").await;
    assert_eq!(api.see("/runs/a").await["job"], "fares");

    // The calendar is the provider's truth.
    let choices = api.see("/views/fares").await;
    assert_eq!(
        choices["of"]["value"], "NRT",
        "the only one is shown: {choices}"
    );
    let view = api.see("/views/fares?of=NRT").await;
    assert_eq!(
        (&view["run"], &view["x"]["name"], &view["y"]["name"]),
        (&json!("a"), &json!("depart"), &json!("nights"))
    );
    assert_eq!(view["x"]["values"].as_array().map(Vec::len), Some(2));
    assert_eq!(view["y"]["values"].as_array().map(Vec::len), Some(14));
    let mut cells = view["cells"].as_array().expect("cells").clone();
    for depart in view["x"]["values"].as_array().expect("days") {
        for nights in 1..=14 {
            let day: jiff::civil::Date = depart.as_str().expect("a day").parse().expect("a day");
            let back = day
                .checked_add(jiff::Span::new().days(nights))
                .expect("a day");
            let truth = scene
                .simulator
                .truth("ICN", "NRT", &day.to_string(), &back.to_string());
            let place = cells
                .iter()
                .position(|cell| cell["depart"] == *depart && cell["nights"] == nights);
            let found = place.map(|place| cells.swap_remove(place));
            let Expected::Records(offers) = truth else {
                assert_eq!(found, None);
                continue;
            };
            let prices = offers
                .iter()
                .map(|offer| offer.price.parse::<f64>().expect("a price"));
            let lowest = prices.fold(f64::INFINITY, f64::min);
            let found = found.expect("a fare");
            assert_eq!(found["price"].as_f64(), Some(lowest), "{found}");
            assert!(
                offers
                    .iter()
                    .any(|offer| found["carrier"] == *offer.carrier)
            );
        }
    }
    assert!(cells.is_empty(), "of no cell: {cells:?}");
    let address = format!("{}/api/v1/views/fares?of=NRT", api.url);
    let ask = || api.client.get(&address).bearer_auth("look");
    let first = ask().send().await.expect("an answer");
    let tag = first.headers()["etag"].clone();
    let again = ask()
        .header("if-none-match", tag)
        .send()
        .await
        .expect("an answer");
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(
        api.get("/views/fares?of=XXX").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(api.get("/views/nobody").await.0, StatusCode::NOT_FOUND);

    limits(&api).await;
    let jobs = api.see("/jobs").await;
    let fares = jobs["jobs"]
        .as_array()
        .expect("jobs")
        .iter()
        .find(|job| job["job"] == "fares");
    assert_eq!(
        fares.expect("fares")["view"]["heatmap"]["of"],
        "destination"
    );
    assert_eq!(api.see("/jobs/fares/plan").await["cells"], 28);
    assert_eq!(api.get("/jobs/fairs/plan").await.0, StatusCode::NOT_FOUND);
    let schedules = api.see("/schedules").await;
    let all = schedules["schedules"].as_array().expect("schedules");
    assert!(
        all.iter()
            .any(|one| one["job"] == "fares" && one["next"].is_string()),
        "{schedules}"
    );
}

/// Whoever may change limits does so, and everybody sees it.
async fn limits(api: &Api) {
    let all = api.see("/limits").await;
    let providers = all["providers"].as_array().expect("providers");
    assert!(providers.iter().any(|one| one["provider"] == "fare-search"));
    let second = |shown: &Value| {
        let limits = shown["limits"].as_array().expect("limits").clone();
        limits
            .into_iter()
            .find(|limit| limit["limit"] == "second")
            .expect("the limit")
    };
    assert_eq!(
        second(&api.see("/limits/fare-search").await)["allowed"],
        "200/s"
    );
    let change = |method: reqwest::Method, path: &str, token: &'static str, body: Value| {
        let ask = api
            .client
            .request(method, format!("{}/api/v1/limits/{path}", api.url));
        let ask = ask.bearer_auth(token).body(body.to_string());
        async move { ask.send().await.expect("an answer").status().as_u16() }
    };
    use reqwest::Method;
    let slower = json!({"value": "20/s", "reason": "they asked us to"});
    let path = "fare-search/second";
    assert_eq!(
        change(Method::PUT, path, "start", slower.clone()).await,
        403
    );
    assert_eq!(change(Method::PUT, path, "all", slower.clone()).await, 200);
    let shown = second(&api.see("/limits/fare-search").await);
    assert!(
        shown["set"].as_str().is_some_and(|set| set.contains("20")),
        "{shown}"
    );
    assert_eq!(
        change(Method::PUT, path, "all", json!({"value": "fast"})).await,
        422
    );
    assert_eq!(
        change(Method::PUT, "fare-search/third", "all", slower.clone()).await,
        404
    );
    assert_eq!(
        change(Method::PUT, "nobody/second", "all", slower).await,
        404
    );
    assert_eq!(change(Method::DELETE, path, "all", Value::Null).await, 200);
    assert_eq!(
        second(&api.see("/limits/fare-search").await)["set"],
        Value::Null
    );
    for (time, held) in [("10m", true), ("0s", false)] {
        assert_eq!(
            change(
                Method::POST,
                "fare-search/hold",
                "all",
                json!({"for": time})
            )
            .await,
            200
        );
        let shown = api.see("/limits/fare-search").await;
        assert_eq!(shown["held"].is_object(), held, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_runs_come_in_pages_and_what_is_wrong_is_a_problem() {
    let (mut scene, _serving, api) = begin("api-pages");
    let broken = FaultRule::cells(Fault::Status(400), "NRT");
    scene.simulator.set_faults(vec![broken]);
    scene.collect();
    scene.load();
    for run in ["b1", "b2", "b3"] {
        assert_eq!(
            api.start(json!({"job": "fares", "run_id": run})).await.0,
            StatusCode::CREATED
        );
        api.until(run, "failed").await;
    }
    let mut cells = Vec::new();
    let mut after = String::new();
    loop {
        let page = api
            .see(&format!("/runs/fares/b2/failures?limit=9{after}"))
            .await;
        let rows = page["failures"].as_array().expect("rows");
        assert!(rows.len() <= 9);
        cells.extend(rows.iter().map(|row| row["cell"].as_u64().expect("a cell")));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    cells.sort_unstable();
    assert_eq!(cells, (0..28).collect::<Vec<u64>>());
    let other = api.see("/runs/fares/b2/failures?reason=poison").await;
    assert_eq!(other["failures"], json!([]));

    let first = api.see("/runs?limit=2").await;
    let ids = |page: &Value| {
        let runs = page["runs"].as_array().expect("runs").clone();
        runs.iter()
            .map(|run| run["run"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&first), ["b3", "b2"]);
    let next = first["next"].as_str().expect("more");
    let second = api.see(&format!("/runs?limit=2&after={next}")).await;
    assert_eq!(
        (ids(&second), &second["next"]),
        (vec!["b1".to_owned()], &Value::Null)
    );

    // What is wrong is said in one form, and nobody is told more than they may know.
    let get = |path: &str| {
        let address = format!("{}/api/v1{path}", api.url);
        let client = api.client.clone();
        async move {
            let answer = client
                .get(address)
                .bearer_auth("look")
                .send()
                .await
                .expect("an answer");
            let status = answer.status().as_u16();
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            let problem: Value = answer.json().await.expect("JSON");
            assert_eq!(problem["status"], status, "{problem}");
            assert_ne!(problem["detail"], "", "{problem}");
            status
        }
    };
    for (path, status) in [
        ("/runs/fares/nobody", 404),
        ("/runs/fares/..%2Fx", 400),
        ("/runs/nobody", 404),
        ("/runs/a%20b", 400),
        ("/runs?limit=many", 400),
        ("/runs?after=x", 400),
        ("/runs/fares/b1/failures?after=x", 400),
        ("/hooks/s3", 405),
        ("/nothing", 404),
    ] {
        assert_eq!(get(path).await, status, "{path}");
    }
    let large = "x".repeat(70 << 10);
    assert_eq!(
        api.post("/runs", "start", large).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let other = json!({"job": "fares", "run_id": "b1", "params": {"origin": "PUS"}});
    assert_eq!(api.start(other).await.0, StatusCode::CONFLICT);
    let strange = json!({"job": "fares", "params": {"colour": "red"}});
    let (status, problem) = api.start(strange).await;
    assert!(
        status.is_client_error() && problem["detail"].as_str().expect("text").contains("colour"),
        "{problem}"
    );
}
