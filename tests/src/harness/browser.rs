//! Chromium without a window, driven over the WebDriver protocol by Debian's chromedriver.
//!
//! The protocol is spoken here, in a few lines: a library for it switches on features of crates that the binaries under test use too, and they
//! would no longer be those that are shipped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::http::Http;
use super::ports::free_port;
use super::proc::{self, Process, Signal};
use super::wait::{Until, eventually};

/// The key under which an element is named, as the protocol says.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Marks what is started for a browser: with the folder of its profile.
const MARK: &str = "MOZART_TEST_BROWSER";

/// Keys that are no characters, as the protocol names them.
pub mod keys {
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
    /// Shift, until the end of what is typed.
    pub const SHIFT: &str = "\u{e008}";
}

/// A browser. Ended when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: tokio::process::Child,
    profile: TempDir,
    http: Http,
    session: String,
}

/// The driver's end does not end the browser.
impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.driver.start_kill();
        let profile = self.profile.path().to_string_lossy();
        let is_ours = |process: &Process| {
            process.var(MARK) == profile || process.args.iter().any(|arg| arg.contains(&*profile))
        };
        // One that is just being started is found the next time.
        loop {
            let left: Vec<u32> = proc::all().filter(is_ours).map(|process| process.pid).collect();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(|pid| proc::kill(pid, Signal::KILL));
        }
    }
}

/// An element of a page.
#[derive(Debug, Clone)]
pub struct Element(String);

impl Browser {
    /// A browser. None where none is installed, which is said; in CI, that is a failure.
    ///
    /// # Panics
    /// When it does not start; when it is missing and `CI` is `true`.
    #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
    pub async fn start() -> Option<Self> {
        let is_there = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        };
        if let Some(missing) = ["chromium", "chromedriver"].into_iter().find(|one| !is_there(one)) {
            let missing = format!("there is no {missing} here; try: scripts/setup.sh browser");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            eprintln!("SKIPPED, since it needs a browser: {missing}");
            return None;
        }
        let profile = tempfile::Builder::new().prefix("mozart-browser-").tempdir();
        let profile = profile.expect("a temporary folder");
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .env(MARK, profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it is there");
        let http = Http { address: format!("127.0.0.1:{port}"), token: None };
        let mut browser = Self { driver, profile, http, session: String::new() };
        eventually("chromedriver listens", async || {
            match tokio::net::TcpStream::connect(&browser.http.address).await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        let args = [
            "--headless=new".to_owned(),
            // The tests may run as root, in a container with a small /dev/shm.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--no-first-run".to_owned(),
            "--window-size=1280,900".to_owned(),
            format!("--user-data-dir={}", browser.profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let begun = browser.command("POST", "/session", &wanted).await;
        browser.session = begun["sessionId"].as_str().expect("an id").to_owned();
        Some(browser)
    }

    /// Any command of the protocol; its value, or what the driver says instead.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let answer = self.http.ask_open(method, path, body).await;
        let status = answer.status;
        let value = answer.json()["value"].clone();
        if status == 200 { Ok(value) } else { Err(value) }
    }

    async fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.command("POST", &format!("/session/{}{path}", self.session), &body).await
    }

    async fn get(&self, path: &str) -> Value {
        self.command("GET", &format!("/session/{}{path}", self.session), &Value::Null).await
    }

    /// A command of the browser's own protocol.
    pub async fn cdp(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// Opens a page.
    pub async fn goto(&self, url: &str) {
        let _null = self.post("/url", json!({"url": url})).await;
    }

    /// Where it is.
    pub async fn url(&self) -> String {
        self.get("/url").await.as_str().expect("text").to_owned()
    }

    /// Its title.
    pub async fn title(&self) -> String {
        self.get("/title").await.as_str().expect("text").to_owned()
    }

    /// Runs a function's body in the page; what it returns.
    pub async fn run(&self, script: &str, args: Value) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": args})).await
    }

    /// Runs a function's body in the page whose last argument is called with the result.
    pub async fn run_async(&self, script: &str, args: Value) -> Value {
        self.post("/execute/async", json!({"script": script, "args": args})).await
    }

    /// The elements that a selector finds.
    pub async fn all(&self, selector: &str) -> Vec<Element> {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.post("/elements", wanted).await;
        let found = found.as_array().cloned().unwrap_or_default();
        let id = |element: &Value| element[ELEMENT].as_str().map(|id| Element(id.to_owned()));
        found.iter().filter_map(id).collect()
    }

    /// The first element that a selector finds, once there is one.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn find(&self, selector: &str) -> Element {
        eventually(&format!("there is {selector}"), async || {
            self.all(selector).await.into_iter().next().ok_or_else(|| "nothing".to_owned())
        })
        .await
    }

    /// The text of the first element that a selector finds; none if there is none, or it was replaced meanwhile.
    pub async fn text(&self, selector: &str) -> Option<String> {
        let element = self.all(selector).await.into_iter().next()?;
        let path = format!("/session/{}/element/{}/text", self.session, element.0);
        let text = self.ask("GET", &path, &Value::Null).await.ok()?;
        text.as_str().map(str::to_owned)
    }

    /// Waits until the text of an element is as wanted.
    ///
    /// # Panics
    /// When it is not in time.
    pub async fn until(&self, selector: &str, is_it: impl Fn(&str) -> bool) -> String {
        eventually(&format!("{selector} is as wanted"), async || {
            let text = self.text(selector).await;
            let seen: Until<String> = match text {
                Some(text) if is_it(&text) => Ok(text),
                seen => Err(format!("{seen:?}")),
            };
            seen
        })
        .await
    }

    /// Clicks on the first element that a selector finds.
    pub async fn click(&self, selector: &str) {
        let Element(id) = self.find(selector).await;
        let _null = self.post(&format!("/element/{id}/click"), json!({})).await;
    }

    /// Types into the first element that a selector finds.
    pub async fn fill(&self, selector: &str, text: &str) {
        let Element(id) = self.find(selector).await;
        let _null = self.post(&format!("/element/{id}/value"), json!({"text": text})).await;
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            let key = key.to_string();
            [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
        });
        let strokes: Vec<Value> = strokes.collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        let _null = self.post("/actions", json!({"actions": [keyboard]})).await;
    }

    /// Presses a key while shift is held.
    pub async fn press_shifted(&self, key: &str) {
        let strokes = json!([
            {"type": "keyDown", "value": keys::SHIFT}, {"type": "keyDown", "value": key},
            {"type": "keyUp", "value": key}, {"type": "keyUp", "value": keys::SHIFT},
        ]);
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        let _null = self.post("/actions", json!({"actions": [keyboard]})).await;
    }

    /// Presses Tab until the focus is on an element that a selector finds; how often that was.
    ///
    /// # Panics
    /// When it is not reached.
    pub async fn tab_to(&self, selector: &str) -> usize {
        let is_there = "return document.activeElement?.matches(arguments[0]) ?? false";
        for presses in 0..200 {
            if self.run(is_there, json!([selector])).await == true {
                return presses;
            }
            self.press(keys::TAB).await;
        }
        panic!("{selector} is not reached by Tab");
    }

    /// Makes the page so wide and high.
    pub async fn resize(&self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let _null = self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// What the reader prefers: `dark` or `light`.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        let _null = self.cdp("Emulation.setEmulatedMedia", features).await;
    }

    /// What the page wrote to its console as warnings and errors since it was last asked.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let lines = log.as_array().cloned().unwrap_or_default();
        lines.iter().filter_map(|line| line["message"].as_str().map(str::to_owned)).collect()
    }

    /// Keeps a picture of the page as `target/page/NAME.png`.
    ///
    /// # Panics
    /// When the file system does not allow it.
    pub async fn picture(&self, name: &str) -> PathBuf {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/page");
        let path = target.join(format!("{name}.png"));
        self.picture_as(&path).await;
        path
    }

    /// Keeps a picture of the page.
    ///
    /// # Panics
    /// When the file system does not allow it.
    pub async fn picture_as(&self, path: &Path) {
        let picture = self.get("/screenshot").await;
        let picture = base64::engine::general_purpose::STANDARD
            .decode(picture.as_str().expect("text"))
            .expect("base64");
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is ours");
        std::fs::write(path, picture).expect("written");
    }

    /// Ends the browser; the driver ends with it.
    pub async fn quit(self) {
        let path = format!("/session/{}", self.session);
        let _ended = tokio::time::timeout(
            Duration::from_secs(10),
            self.command("DELETE", &path, &Value::Null),
        )
        .await;
    }
}
