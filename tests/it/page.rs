//! The page of `producer serve`, as a browser asks for it: who is let in, what is shown of a run from its start
//! to its end, and that nothing which a provider or a file says is taken for HTML.

use harness::Fleet;
use paceline_stack::Process;
use reqwest::header::{HeaderMap, LOCATION, SET_COOKIE};
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::json;

use crate::scene::Scene;
use crate::serve::{scene, serve};

/// What no page may ever hold as it stands.
const EVIL: &str = "<img src=x onerror=alert(1)>\"'";

/// A browser without a screen, and the one who sits before it.
struct Visitor {
    client: Client,
    url: String,
    cookie: Option<String>,
}

impl Visitor {
    fn new(url: &str) -> Self {
        let client = Client::builder().redirect(redirect::Policy::none()).build();
        Visitor {
            client: client.expect("a client"),
            url: url.to_owned(),
            cookie: None,
        }
    }

    async fn get(&self, path: &str) -> Response {
        let mut ask = self.client.get(format!("{}{path}", self.url));
        if let Some(cookie) = &self.cookie {
            ask = ask.header("cookie", cookie);
        }
        ask.send().await.expect("an answer")
    }

    /// A page, which is harmless in itself.
    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_hardened(answer.headers());
        let text = answer.text().await.expect("text");
        assert_harmless(&text);
        text
    }

    /// A form sent by the page at `origin`.
    async fn post(&self, path: &str, origin: Option<&str>, body: &str) -> Response {
        let mut ask = self
            .client
            .post(format!("{}{path}", self.url))
            .body(body.to_owned());
        if let Some(origin) = origin {
            ask = ask.header("origin", origin);
        }
        if let Some(cookie) = &self.cookie {
            ask = ask.header("cookie", cookie);
        }
        ask.send().await.expect("an answer")
    }

    /// A form of our own page.
    async fn press(&self, path: &str) -> Response {
        self.post(path, Some(&self.url), "").await
    }

    async fn log_in(url: &str, token: &str) -> Self {
        let mut visitor = Self::new(url);
        let entered = visitor
            .post("/login", Some(url), &format!("token={token}&to=%2F"))
            .await;
        assert_eq!(entered.status(), StatusCode::SEE_OTHER);
        let cookie = entered.headers()[SET_COOKIE].to_str().expect("text");
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
            "{cookie}"
        );
        assert!(!cookie.contains(token), "not as it was typed: {cookie}");
        visitor.cookie = cookie.split(';').next().map(str::to_owned);
        visitor
    }

    /// Looks at a page until it says `wanted`.
    async fn until(&self, path: &str, wanted: &str) -> String {
        for _ in 0..600 {
            let text = self.page(path).await;
            if text.contains(wanted) {
                return text;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{path} never says {wanted:?}: {}", self.page(path).await);
    }
}

fn assert_hardened(headers: &HeaderMap) {
    let policy = headers["content-security-policy"].to_str().expect("text");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("script-src 'self'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cache-control"], "no-store");
}

/// Nothing inline, nothing from elsewhere.
fn assert_harmless(text: &str) {
    let lower = text.to_lowercase();
    for bad in [
        "<style",
        " style=",
        "javascript:",
        "<img",
        "<iframe",
        "src=\"http",
        "href=\"http",
        "src=\"//",
        "href=\"//",
    ] {
        assert!(!lower.contains(bad), "{bad} in {text}");
    }
    for script in lower.split("<script").skip(1) {
        assert!(script.starts_with(" src=\"/assets/"), "{script}");
    }
    let handler = lower.split('<').skip(1).find(|tag| {
        let inside = tag.split('>').next().unwrap_or_default();
        // Values in quotes are no attributes.
        let outside: String = inside.split('"').step_by(2).collect();
        outside
            .split_whitespace()
            .any(|word| word.starts_with("on") && word.ends_with('='))
    });
    assert_eq!(handler, None);
}

fn served(test: &str) -> (Scene, Process, String) {
    let mut scene = scene(test);
    scene.fleet.set(
        "PACELINE_API_TOKENS",
        "eye:read:look,hand:run:start,boss:admin:rule",
    );
    scene.fleet.tells_nobody();
    let (process, url) = serve(&scene.fleet);
    (scene, process, url)
}

async fn start(url: &str, run: &str, origin: &str) {
    let body = json!({"job": "fares", "run_id": run, "params": {"origin": origin}});
    let ask = Client::new()
        .post(format!("{url}/api/v1/runs"))
        .bearer_auth("start")
        .json(&body);
    assert_eq!(ask.send().await.expect("an answer").status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_in_and_who_may_change_things() {
    let (scene, _serving, url) = served("page-login");
    let nobody = Visitor::new(&url);
    let sent = nobody.get("/?job=fares").await;
    assert_eq!(sent.status(), StatusCode::SEE_OTHER);
    assert_eq!(sent.headers()[LOCATION], "/login?to=%2F%3Fjob%3Dfares");
    assert_harmless(&nobody.page("/login?to=%2F").await);
    let token = "token=look&to=%2F";
    for origin in [None, Some("http://evil.example"), Some("null")] {
        let refused = nobody.post("/login", origin, token).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{origin:?}");
    }
    let wrong = nobody.post("/login", Some(&url), "token=guess").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(wrong.headers().get(SET_COOKIE).is_none());
    assert_eq!(
        nobody.press("/runs/fares/r1/pause").await.status(),
        StatusCode::UNAUTHORIZED
    );

    start(&url, "r1", "ICN").await;
    let reader = Visitor::log_in(&url, "look").await;
    reader.until("/", "no worker yet").await;
    let shown = reader.page("/runs/fares/r1").await;
    assert!(
        !shown.contains("<form method=\"post\" action=\"/runs"),
        "no buttons for a reader: {shown}"
    );
    assert_eq!(
        reader.press("/runs/fares/r1/pause").await.status(),
        StatusCode::FORBIDDEN
    );
    // The cookie serves the API too, with the same care.
    assert_eq!(reader.get("/api/v1/runs").await.status(), StatusCode::OK);
    let hand = Visitor::log_in(&url, "start").await;
    for path in ["/runs/fares/r1/pause", "/api/v1/runs/fares/r1/pause"] {
        for origin in [None, Some("http://evil.example")] {
            let refused = hand.post(path, origin, "").await;
            assert_eq!(
                refused.status(),
                StatusCode::FORBIDDEN,
                "{path} from {origin:?}"
            );
        }
    }
    assert_eq!(
        hand.press("/runs/fares/r1/pause").await.status(),
        StatusCode::SEE_OTHER
    );
    hand.until("/runs/fares/r1", "it is paused").await;
    assert_eq!(
        hand.press("/runs/fares/r1/resume").await.status(),
        StatusCode::SEE_OTHER
    );
    hand.until("/runs/fares/r1", "no worker yet").await;
    assert_eq!(
        hand.press("/runs/fares/r1/cancel").await.status(),
        StatusCode::SEE_OTHER
    );
    hand.until("/", "\u{25a0} cancelled").await;
    for path in [
        "/runs/fares/..%2f..",
        "/runs/Fares/r1",
        "/runs/fares/%3Cb%3E",
    ] {
        assert_eq!(
            hand.get(path).await.status(),
            StatusCode::BAD_REQUEST,
            "{path}"
        );
    }
    assert_eq!(
        hand.get("/runs/fares/never").await.status(),
        StatusCode::NOT_FOUND
    );
    let left = hand.press("/logout").await;
    assert!(
        left.headers()[SET_COOKIE]
            .to_str()
            .expect("text")
            .contains("Max-Age=0")
    );
    drop(scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_shown_from_its_start_to_its_end() {
    let (mut scene, _serving, url) = served("page-run");
    let visitor = Visitor::log_in(&url, "start").await;
    assert!(visitor.page("/").await.contains("Nothing runs"));
    start(&url, "good", "ICN").await;
    visitor.until("/", "1 run is going").await;
    scene.collect();
    scene.load();
    visitor
        .until("/runs/fares/good", "Every limit was kept.")
        .await;
    let ended = visitor.page("/runs/fares/good").await;
    assert!(
        ended.contains("completed") && ended.contains("100.00 %"),
        "{ended}"
    );
    let manifest = visitor.get("/runs/fares/good/file/manifest.json").await;
    let manifest: serde_json::Value = manifest.json().await.expect("JSON");
    assert_eq!(manifest["cells"], 28);

    the_calendar_is_shown(&scene, &visitor).await;
    the_job_is_shown(&scene, &visitor).await;

    // What the provider refuses, under a name that is HTML.
    scene
        .simulator
        .set_faults(vec![paceline_loadtest::simulator::FaultRule::cells(
            paceline_loadtest::simulator::Fault::Status(400),
            "NRT",
        )]);
    start(&url, "bad", EVIL).await;
    let bad = visitor.until("/runs/fares/bad", "Failures by reason").await;
    assert!(bad.contains("&#60;img src=x onerror"), "{bad}");
    visitor.until("/", "/runs/fares/bad").await;
    assert!(
        visitor
            .page("/?job=%3Cimg%20src%3Dx%3E")
            .await
            .contains("&#60;img")
    );

    let first = visitor.page("/").await.len();
    let mut whole = first;
    for asset in ["page.css", "page.js", "icon.svg"] {
        let answer = visitor.get(&format!("/assets/{asset}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        whole += answer.bytes().await.expect("a body").len();
    }
    assert!(whole < 100_000, "the first view has {whole} bytes");
}

/// The map of what is live: its best cell is the set's, and a cell tells its records and where it stood.
async fn the_calendar_is_shown(scene: &Scene, visitor: &Visitor) {
    let mut connection = scene.fleet.redis().await;
    let mut range = redis::cmd("ZRANGE");
    range.arg("fares:NRT").arg(0).arg(0).arg("WITHSCORES");
    let best: Vec<(String, f64)> = range.query_async(&mut connection).await.expect("a set");
    let (member, price) = best.first().expect("a member");
    let (depart, nights) = member.split_once('/').expect("two values");
    visitor.until("/", "1</span></h2>").await; // The list of ended runs has it.
    let map = visitor.page("/views/fares").await;
    assert!(
        map.contains(&format!("Cheapest: {price}</b>")) && map.contains(depart),
        "{map}"
    );
    let at = format!("/views/fares?of=NRT&x={depart}&y={nights}");
    let cell = visitor.page(&at).await;
    for wanted in ["<th>carrier</th>", "The last good runs", "/runs/fares/good"] {
        assert!(cell.contains(wanted), "{wanted} in {cell}");
    }
    assert!(visitor.page("/views").await.contains("/views/fares"));
    let odd = "/views/fares?of=%3Cimg%20src%3Dx%3E&x=%3Cb%3E&y=1";
    assert!(visitor.page(odd).await.contains("&#60;img"));
}

/// A job with its next start, its cost and its last result; a run of it begins by a form.
async fn the_job_is_shown(scene: &Scene, visitor: &Visitor) {
    let jobs = visitor.page("/jobs").await;
    for wanted in ["/jobs/fares", "0 3 * * * Asia/Seoul", "/runs/fares/good"] {
        assert!(jobs.contains(wanted), "{wanted} in {jobs}");
    }
    let job = visitor.page("/jobs/fares").await;
    assert!(
        job.contains("28 cells") && job.contains("Start a run"),
        "{job}"
    );
    let started = visitor
        .post(
            "/jobs/fares/start",
            Some(&visitor.url),
            "run=by-page&date=&param.origin=PUS",
        )
        .await;
    assert_eq!(started.status(), StatusCode::SEE_OTHER);
    assert_eq!(started.headers()[LOCATION], "/runs/fares/by-page?did=start");
    visitor.until("/runs/fares/by-page", "completed").await;
    let bad = visitor
        .post("/jobs/fares/start", Some(&visitor.url), "run=..%2Fx")
        .await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
    scene
        .fleet
        .spec
        .write("jobs/broken.yaml", "job: broken\nnonsense: [\n")
        .expect("written");
    visitor.until("/jobs", "! A file is wrong").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_and_dead_letters_are_shown_and_settled() {
    let (mut scene, _serving, url) = served("page-messages");
    let queue = paceline_protocol::topology::Topology::new(scene.fleet.name.clone()).requests();
    let request = json!({"job": EVIL, "run_id": "r1"}).to_string();
    // Who is let in finds the queues declared.
    let hand = Visitor::log_in(&url, "start").await;
    crate::serve::publish(&scene.fleet, &queue, request.as_bytes()).await;
    let shown = hand.until("/messages", "there is no job").await;
    assert!(shown.contains("&#60;img src=x onerror"), "{shown}");
    assert!(
        !shown.contains("Drop it for good"),
        "not for this role: {shown}"
    );
    let boss = Visitor::log_in(&url, "rule").await;
    let again = one_letter(&boss, "again").await;
    assert_eq!(hand.press(&again).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        boss.press(&again).await.headers()[LOCATION],
        "/messages?did=again"
    );
    // It is as bad as it was, and comes back.
    boss.until("/messages", "there is no job").await;
    let drop_it = one_letter(&boss, "drop").await;
    let dropped = boss.press(&drop_it).await;
    assert_eq!(dropped.headers()[LOCATION], "/messages?did=drop");
    assert!(boss.page("/messages").await.contains("There are none."));
    let gone = boss.press(&drop_it).await;
    assert_eq!(gone.headers()[LOCATION], "/messages?did=gone");

    scene.collect();
    scene.load();
    start(&url, "told", "ICN").await;
    // Nobody listens there, so it is tried again; the address stays in the environment.
    let told = boss.until("/messages", "it cannot be reached").await;
    assert!(
        told.contains("${RUN_WEBHOOK_URL}") && !told.contains("127.0.0.1"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_shown_and_changed_with_a_reason() {
    let (scene, _serving, url) = served("page-limits");
    let hand = Visitor::log_in(&url, "start").await;
    let shown = hand.page("/limits").await;
    for wanted in [
        "fare-search",
        "<b>second</b>",
        "200/s",
        "<b>day</b>",
        "25,000/day",
        "<b>in-flight</b>",
    ] {
        assert!(shown.contains(wanted), "{wanted} in {shown}");
    }
    assert!(
        !shown.contains("Set for the whole fleet"),
        "not for this role"
    );
    let change = "limit=second&value=20%2Fs&reason=%3Cb%3Easked";
    let refused = hand.post("/limits/fare-search", Some(&url), change).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let boss = Visitor::log_in(&url, "rule").await;
    for bad in [
        "limit=second&value=20%2Fs",
        "limit=none&value=1&reason=x",
        "limit=second&value=fast&reason=x",
    ] {
        let refused = boss.post("/limits/fare-search", Some(&url), bad).await;
        assert!(
            refused.status().is_client_error(),
            "{bad}: {}",
            refused.status()
        );
    }
    let set = boss.post("/limits/fare-search", Some(&url), change).await;
    assert_eq!(set.headers()[LOCATION], "/limits?did=set");
    let shown = boss.page("/limits").await;
    assert!(
        shown.contains("20/s <span class=\"tag\">set</span>"),
        "{shown}"
    );
    let hold = "hold=10m&reason=%3Cb%3Edeploy";
    let held = boss.post("/limits/fare-search", Some(&url), hold).await;
    assert_eq!(held.headers()[LOCATION], "/limits?did=hold");
    let shown = boss.page("/limits").await;
    assert!(
        shown.contains("Held") && shown.contains("&#60;b&#62;deploy"),
        "{shown}"
    );
    let reset = "limit=second&value=&reason=over";
    let reset = boss.post("/limits/fare-search", Some(&url), reset).await;
    assert_eq!(reset.headers()[LOCATION], "/limits?did=reset");
    drop(scene);
}

/// The address of the button of the only letter.
async fn one_letter(visitor: &Visitor, fate: &str) -> String {
    let page = visitor.page("/messages").await;
    let end = format!("/{fate}\"");
    let form = page
        .split("action=\"")
        .find(|form| form.contains(&end))
        .expect("a button");
    let (path, _) = form.split_once('"').expect("an address");
    path.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_the_page_is_shown_on_this_machine_alone() {
    let fleet = Fleet::new("page-local").expect("a fleet");
    let (_serving, url) = serve(&fleet);
    let visitor = Visitor::new(&url);
    assert!(visitor.page("/").await.contains("Nothing runs"));
    let elsewhere = visitor.client.get(&url).header("host", "evil.example");
    let elsewhere = elsewhere.send().await.expect("an answer");
    assert_eq!(elsewhere.status(), StatusCode::FORBIDDEN);
}
