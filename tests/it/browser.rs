//! A real browser without a screen, driven over its debugging pipe. Tests that need it skip where there is none.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

/// A browser that is not through by then hangs, and is ended.
const LONGEST: Duration = Duration::from_secs(300);
/// How long a page may take to say something.
const PATIENCE: Duration = Duration::from_secs(120);

/// One window.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    asked: u64,
    session: Option<String>,
    complaints: Vec<String>,
    through: Arc<AtomicBool>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it with a window of `width`; `None`, and a word on why, where there is no Chromium.
    pub fn start(width: u32, scheme: &str) -> Option<Self> {
        let there = Command::new("chromium").arg("--version").output();
        if !there.is_ok_and(|ended| ended.status.success()) {
            println!("skipped: there is no `chromium` (apt-get install chromium)");
            return None;
        }
        let profile = tempfile::tempdir().expect("a folder");
        // Its debugging pipe is on the descriptors 3 and 4.
        let line = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --disable-background-networking --user-data-dir=\"$0\" --remote-debugging-pipe about:blank \
             3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", line])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let through = Arc::new(AtomicBool::new(false));
        watch(child.id(), through.clone());
        let mut browser = Browser {
            child,
            to: to.expect("a pipe"),
            from: BufReader::new(from.expect("a pipe")),
            asked: 0,
            session: None,
            complaints: Vec::new(),
            through,
            _profile: profile,
        };
        browser.open(width, scheme);
        Some(browser)
    }

    fn open(&mut self, width: u32, scheme: &str) {
        let targets = self.call("Target.getTargets", json!({}));
        let page = targets["targetInfos"].as_array().and_then(|all| {
            let page = all.iter().find(|target| target["type"] == "page")?;
            page["targetId"].as_str().map(str::to_owned)
        });
        let attach = json!({"targetId": page.expect("a window"), "flatten": true});
        let attached = self.call("Target.attachToTarget", attach);
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            self.call(domain, json!({}));
        }
        self.look(width, scheme);
    }

    /// From now on the window is so wide, and the visitor likes this colour scheme.
    pub fn look(&mut self, width: u32, scheme: &str) {
        let size =
            json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media);
    }

    /// Goes to a page.
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// What an expression comes to.
    pub fn eval(&mut self, expression: &str) -> Value {
        let ask = json!({"expression": expression, "returnByValue": true, "userGesture": true});
        let mut answer = self.call("Runtime.evaluate", ask);
        answer["result"]["value"].take()
    }

    /// What a promise comes to.
    pub fn resolve(&mut self, promise: &str) -> Value {
        let limit = (2 * PATIENCE).as_millis();
        let in_time = format!(
            "Promise.race([{promise}, new Promise((_, late) => setTimeout(() => late('never resolved'), {limit}))])"
        );
        let ask = json!({"expression": in_time, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", ask);
        let fault = &answer["exceptionDetails"];
        assert!(fault.is_null(), "{promise}: {fault}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true. A page that is just being left has no answer.
    pub fn until(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        while self.eval(expression) != true {
            if Instant::now() > until {
                let text = self.eval("document.body.innerText");
                panic!(
                    "never true: {expression}\n{}",
                    text.as_str().unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Keeps a picture of the whole page.
    pub fn picture(&mut self, file: &Path) {
        let picture = self.call(
            "Page.captureScreenshot",
            json!({"format": "png", "captureBeyondViewport": true}),
        );
        let data = picture["data"].as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD.decode(data);
        std::fs::write(file, bytes.expect("base64")).expect("written");
    }

    /// What the console complained of.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser lives");
        self.to.flush().expect("the browser lives");
        loop {
            let mut bytes = Vec::new();
            self.from
                .read_until(0, &mut bytes)
                .expect("the browser lives");
            assert!(
                !bytes.is_empty(),
                "the browser ended in the middle of {method}"
            );
            bytes.pop();
            let mut heard: Value = serde_json::from_slice(&bytes).expect("JSON");
            if heard["id"] == self.asked {
                return heard["result"].take();
            }
            self.hear(&heard);
        }
    }

    fn hear(&mut self, event: &Value) {
        let bad = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            _ => false,
        };
        if bad {
            self.complaints.push(event["params"].to_string());
        }
    }
}

/// Ends a browser that hangs, so that whoever reads from it goes on.
fn watch(child: u32, through: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let until = Instant::now() + LONGEST;
        while Instant::now() < until {
            if through.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let _ = Command::new("kill")
            .args(["-9", &child.to_string()])
            .status();
    });
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.through.store(true, Ordering::Relaxed);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
