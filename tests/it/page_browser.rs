//! The page in a real browser: it moves by itself, fits a narrow window in the dark, obeys the keyboard, runs
//! nothing that a value says, and the console stays silent.

use std::path::Path;

use serde_json::json;

use crate::browser::Browser;
use crate::serve::{scene, serve};

const EVIL: &str = "<img src=x onerror=document.title='evil'>";

/// What holds of every page: nothing hangs over the edge, everything has a name, one heading is the first.
const WELL_MADE: &str = "document.documentElement.scrollWidth <= innerWidth \
    && document.documentElement.lang === 'en' && document.querySelectorAll('h1').length === 1 \
    && [...document.querySelectorAll('input:not([type=hidden]), select')].every((field) => field.labels.length > 0) \
    && [...document.querySelectorAll('a, button, summary')].every((one) => one.textContent.trim() || one.ariaLabel) \
    && [...document.querySelectorAll('svg')].every((one) => one.role === 'img' && one.ariaLabel || one.ariaHidden === 'true') \
    && document.querySelectorAll('img').length === 0 && document.title !== 'evil'";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_started_watched_and_paused_in_a_browser() {
    let Some(mut browser) = Browser::start(360, "dark") else {
        return;
    };
    let mut scene = scene("page-browser");
    scene.fleet.tells_nobody();
    let (_serving, url) = serve(&scene.fleet);
    browser.go(&url);
    browser.until("document.body.innerText.includes('Nothing runs')");
    let start = reqwest::Client::new()
        .post(format!("{url}/api/v1/runs"))
        .json(&json!({"job": "fares", "run_id": "seen", "params": {"origin": EVIL}}));
    assert_eq!(start.send().await.expect("an answer").status(), 201);
    // Nobody loads the page again.
    browser.until("document.body.innerText.includes('1 run is going')");
    assert_eq!(browser.eval(WELL_MADE), true, "/");
    picture(&mut browser, "runs-360-dark.png");

    browser.go(&format!("{url}/runs/fares/seen"));
    assert_eq!(browser.eval(WELL_MADE), true, "one run");
    browser.eval("document.querySelector('form[action$=\"/pause\"] button').click()");
    browser.until("document.body.innerText.includes('it is paused')");
    browser.eval("document.querySelector('form[action$=\"/resume\"] button').click()");
    browser.until("document.body.innerText.includes('no worker yet')");
    scene.collect();
    scene.load();
    browser.until("document.body.innerText.includes('Every limit was kept.')");
    picture(&mut browser, "run-360-dark.png");
    for path in ["/limits", "/jobs", "/jobs/fares", "/views", "/messages"] {
        browser.go(&format!("{url}{path}"));
        assert_eq!(browser.eval(WELL_MADE), true, "{path}");
    }
    assert!(
        browser.complaints().is_empty(),
        "{:?}",
        browser.complaints()
    );
    // A run that gives a calendar.
    let start = reqwest::Client::new()
        .post(format!("{url}/api/v1/runs"))
        .json(&json!({"job": "fares", "run_id": "good"}));
    assert_eq!(start.send().await.expect("an answer").status(), 201);
    browser.go(&format!("{url}/runs/fares/good"));
    browser.until("document.body.innerText.includes('Every limit was kept.')");
    everybody_can_use_it(&mut browser, &url);
}

/// Every page passes axe, narrow and wide, in the dark and in the light.
fn everybody_can_use_it(browser: &mut Browser, url: &str) {
    let Some(axe) = axe() else { return };
    let calendar = "/views/fares?of=NRT";
    let pages = [
        "/",
        "/runs/fares/seen",
        "/limits",
        "/jobs",
        "/jobs/fares",
        "/views",
        calendar,
        "/messages",
        "/login",
        "/jobs/nothing",
    ];
    for path in pages {
        browser.go(&format!("{url}{path}"));
        browser.eval(&axe);
        // The same page: what differs between the two is style alone.
        for (width, scheme) in [(360, "dark"), (1_280, "light")] {
            browser.look(width, scheme);
            let violations = browser.resolve(RUN_AXE);
            assert_eq!(violations, "[]", "{path}, {width} px, {scheme}");
            if path == "/messages" {
                picture(browser, &format!("messages-{width}-{scheme}.png"));
            }
        }
    }
}

/// Runs all its rules, those of good manners too.
const RUN_AXE: &str = "axe.run().then((found) => JSON.stringify(found.violations.map((one) => \
    [one.id, one.help, one.nodes.map((node) => node.html + ' ' + node.failureSummary)])))";

/// Its script; `None`, and a word on why, where it cannot be had.
fn axe() -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/axe.sh");
    let ended = std::process::Command::new(script)
        .output()
        .expect("a shell");
    if ended.status.code() == Some(77) {
        println!("skipped: axe, {}", String::from_utf8_lossy(&ended.stderr));
        return None;
    }
    assert!(ended.status.success(), "{ended:?}");
    let path = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
    Some(std::fs::read_to_string(path).expect("its script"))
}

/// Pictures are build output, for people.
fn picture(browser: &mut Browser, name: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&folder).expect("made");
    browser.picture(&folder.join(name));
}
