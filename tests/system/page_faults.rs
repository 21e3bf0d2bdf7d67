//! The web page in Chromium while something is away, and at the end of a session: what is on the screen stays, and what is wrong is said.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::harness::{Browser, Http, Signal, eventually, flaky, kill};
use tokio::process::Command;

use crate::http::fleet;
use crate::page::{Page, api, ask, path_of};
use crate::roles::free_port;

const TYPED: &str = "return document.getElementById('text').value";

async fn typed(browser: &Browser) -> Value {
    browser.run(TYPED, json!([])).await
}

#[tokio::test]
async fn a_page_whose_supervisors_are_away_keeps_what_it_shows() {
    let Some(mut page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let address = format!("127.0.0.1:{}", free_port());
    let base = format!("http://{address}");
    let _api = api(&page.fleet, &address).await;
    let link = page.link(&["--url", &base]).await;
    let second = page.link(&["--url", &base]).await;
    page.browser.goto(&link).await;
    page.browser.until("#agent-a", |text| text.contains("idle")).await;
    page.browser.until("#live", |text| text == "Live.").await;
    // A session for what is asked without a browser.
    let http = Http { address: address.clone(), token: None };
    let session = ask(&http, path_of(&second), &[]).await.is(303);
    let cookie = session.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    let cookie = cookie.expect("a session").to_owned();

    page.fleet.kill_up().await;
    let browser = &page.browser;
    browser.until("#unread", |text| text.contains("no supervisor answers")).await;
    browser.until("#live", |text| text.contains("Stale: this screen cannot be read now.")).await;
    let row = browser.text("#agent-a").await.expect("it is still there");
    assert!(row.contains("idle"), "{row}");
    // A page that is opened now says what is not known, and does not take it for nothing.
    let attention = ask(&http, "/attention", &[("cookie", &cookie)]).await.is(200);
    for words in ["agents in trouble: not known", "lost nodes: not known", "There are none."] {
        assert!(attention.body.contains(words), "{words}: {}", attention.body);
    }
    assert!(!attention.body.contains("Nothing needs"), "{}", attention.body);
    // Messages go on, and the facts of the agent are marked as what was last known.
    browser.goto(&format!("{base}/agents/a")).await;
    browser.until("#facts", |text| text.contains("Its state is not known.")).await;
    page.say("count 20 0.1").await;
    browser.fill("#text", "typed meanwhile").await;
    browser.until("article", |text| text.contains("completed")).await;
    assert_eq!(typed(browser).await, "typed meanwhile");
    browser.until("#facts-trouble", |text| text.contains("no supervisor answers")).await;

    page.fleet.up(&[]).await;
    let browser = &page.browser;
    browser.until("#agent-state", |text| text == "idle").await;
    assert_eq!(browser.all("#facts-trouble").await.len(), 0);
    assert_eq!(typed(browser).await, "typed meanwhile");
    browser.until("article .answer", |text| text.contains("20")).await;
}

#[tokio::test]
async fn a_page_whose_broker_is_away_keeps_what_it_shows() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let browser = &page.browser;
    page.goto("/agents/a").await;
    page.say("say kept").await;
    browser.until("article", |text| text.contains("completed")).await;
    browser.fill("#text", "typed before").await;
    browser.until("#live", |text| text == "Live.").await;
    let nats = page.fleet.nats_pid().expect("it runs");
    kill(nats, Signal::STOP);
    browser.until("#live", |text| text.contains("Stale")).await;
    browser.until(".answer", |text| text == "kept").await;
    assert_eq!(typed(browser).await, "typed before");
    // What somebody made up is refused without asking the broker.
    let cookies = browser.cdp("Network.getCookies", json!({"urls": [page.url("/")]})).await;
    let cookie = cookies["cookies"][0].clone();
    let (name, value) = (cookie["name"].as_str(), cookie["value"].as_str());
    let (name, value) = (name.expect("a name"), value.expect("a value"));
    let (_, rest) = value.split_once('.').expect("parts");
    let made_up = format!("{name}={}.{rest}", "00".repeat(32));
    let begun = Instant::now();
    let asked = ask(&page.http, "/", &[("cookie", &made_up)]).await.is(303);
    assert!(asked.header("location").is_some_and(|to| to.starts_with("/sign-in")), "{asked:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    kill(nats, Signal::CONT);
    browser.until("#live", |text| text == "Live.").await;
    assert_eq!(typed(browser).await, "typed before");
    browser.click("#send button").await;
    browser.until("article:nth-child(2)", |text| text.contains("completed")).await;
}

#[tokio::test]
async fn a_session_that_ends_ends_its_streams_and_leaves_what_was_typed() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let browser = &page.browser;
    let create = ["token", "create", "short", "--scope", "send", "--expires", "20s"];
    let _token = page.fleet.cli(create).await.ok();
    let link = page.link(&["--token", "short"]).await;
    let second = page.link(&["--token", "short"]).await;
    browser.cdp("Network.clearBrowserCookies", json!({})).await;
    browser.goto(&link).await;
    page.goto("/agents/a").await;
    page.say("say kept").await;
    browser.until("article", |text| text.contains("completed")).await;
    browser.fill("#text", "typed").await;
    browser.until("#live", |text| text == "Live.").await;
    // A stream without a browser: it is told, and ends.
    let session = ask(&page.http, path_of(&second), &[]).await.is(303);
    let cookie = session.header("set-cookie").expect("a session").to_owned();
    let seconds = cookie.split("Max-Age=").nth(1).and_then(|rest| rest.split(';').next());
    let seconds: u64 = seconds.expect("an end").parse().expect("a number");
    assert!(seconds <= 20, "no longer than its token: {cookie}");
    let cookie = cookie.split(';').next().expect("a pair");
    let headers = [("cookie", cookie)];
    let http = page.http.with(None);
    let mut stream = http.events("GET", "/live?at=/", &headers, &Value::Null).await;
    let mut last = String::new();
    while let Some(event) = stream.next().await {
        last = event.data["why"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!(last, "The session has ended.");

    browser.until("#live", |text| text.starts_with("Signed out.")).await;
    assert_eq!(typed(browser).await, "typed");
    browser.until(".answer", |text| text == "kept").await;
    let to =
        browser.run("return document.querySelector('#live a').getAttribute('href')", json!([]));
    assert!(to.await.as_str().is_some_and(|to| to.starts_with("/sign-in?then=")));
    assert_eq!(ask(&page.http, "/live?at=/", &headers).await.status, 401);
}

#[tokio::test]
async fn a_tab_hears_that_another_one_was_signed_out() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let browser = &page.browser;
    page.goto("/agents/a").await;
    browser.fill("#text", "typed").await;
    browser.until("#live", |text| text == "Live.").await;
    // As the other tab: the cookie is gone, and it says so. What only claims it is looked into.
    let claim = "new BroadcastChannel('mozart').postMessage('out')";
    let _null = browser.run(claim, json!([])).await;
    browser.cdp("Network.clearBrowserCookies", json!({})).await;
    let _null = browser.run(claim, json!([])).await;
    browser.until("#live", |text| text.starts_with("Signed out.")).await;
    assert_eq!(typed(browser).await, "typed");
}

#[tokio::test]
async fn whoever_comes_from_another_site_is_still_signed_in() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let browser = &page.browser;
    browser.until(".sentence", |text| text.starts_with("1 agent")).await;
    // To a browser, another name is another site, as a mail or a file is.
    let other = page.http.address.replace("127.0.0.1", "localhost");
    browser.goto(&format!("http://{other}/sign-in")).await;
    browser.until("h1", |text| text == "Mozart").await;
    let _null = browser.run("location.href = arguments[0]", json!([page.url("/")])).await;
    browser.until(".sentence", |text| text.starts_with("1 agent")).await;
    // And a link there works, though its answer leads on.
    browser.cdp("Network.clearBrowserCookies", json!({})).await;
    browser.goto(&format!("http://{other}/sign-in")).await;
    let link = page.link(&[]).await;
    let _null = browser.run("location.href = arguments[0]", json!([link])).await;
    browser.until(".sentence", |text| text.starts_with("1 agent")).await;
    // A form of another site has no session.
    browser.goto(&format!("http://{other}/sign-in")).await;
    eventually("nothing was done", async || match page.fleet.row("a").await["state"].as_str() {
        Some("running") => Ok(()),
        state => Err(format!("{state:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_link_is_opened_without_being_anybodys_argument() {
    let (fleet, http) = fleet(&[("a", &flaky(""))]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    // What opens links: it keeps what it was started with, and what is there.
    let opener = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nprintf %s \"$*\" >args\nstat -c %a \"$1\" >mode\ncp \"$1\" page.part && mv page.part page\n";
    std::fs::write(path("xdg-open"), opener).expect("written");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path("xdg-open"), executable).expect("ours");
    // It is opened only where there is a terminal and a desktop.
    let inner = fleet.command(["ui"]);
    let inner = inner.as_std();
    let terminal =
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = Command::new("python3");
    command.args(["-c", terminal]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let programs = std::env::var("PATH").expect("one");
    command.env("PATH", format!("{}:{programs}", folder.path().display())).env("DISPLAY", ":0");
    let none = std::process::Stdio::null;
    command.stdin(none()).stdout(none()).stderr(none()).kill_on_drop(true);
    let mut opening = command.spawn().expect("it starts");
    let page = eventually("it is opened", async || {
        std::fs::read_to_string(path("page")).map_err(|error| error.to_string())
    })
    .await;
    let read = |name: &str| std::fs::read_to_string(path(name)).expect("it is there");
    assert_eq!(read("mode").trim(), "600", "nobody else reads it");
    let args = read("args");
    assert!(args.ends_with(".html") && !args.contains("sign-in"), "{args}");
    let (_, rest) = page.split_once("0;url=").expect("a place");
    let link = rest.split('"').next().expect("an end");
    let session = ask(&http, path_of(link), &[]).await.is(303);
    assert!(session.header("set-cookie").is_some(), "{session:?}");
    // Once it is used, it is gone.
    let ended = tokio::time::timeout(Duration::from_secs(20), opening.wait()).await;
    assert!(ended.expect("in time").expect("a status").success());
    assert!(!std::path::Path::new(&args).exists(), "{args}");
}
