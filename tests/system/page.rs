//! The web page in Chromium: signing in, each screen, what it does live, what it does without.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::harness::{
    Browser, Child, Fleet, Http, HttpAnswer, Signal, eventually, flaky, keys, kill,
};
use tokio::net::TcpStream;

use crate::http::{counted, fleet};
use crate::roles::free_port;

/// What would run if any of it became markup. No `;`, which the worker takes for the end of a command.
pub(crate) const MARKUP: &str =
    "<script>window.owned=1</script><img src=x onerror=window.owned=1><b>bold</b>&lt\"'";

/// A browser, and a fleet whose page it has open.
pub(crate) struct Page {
    pub(crate) fleet: Fleet,
    pub(crate) browser: Browser,
    pub(crate) http: Http,
}

impl Page {
    /// Signed in by a link. None where there is no browser.
    pub(crate) async fn open(souls: &[(&str, &str)]) -> Option<Self> {
        let browser = Browser::start().await?;
        let (fleet, http) = fleet(souls).await;
        let page = Self { fleet, browser, http };
        page.browser.goto(&page.link(&[]).await).await;
        Some(page)
    }

    /// A link that signs in.
    pub(crate) async fn link(&self, more: &[&str]) -> String {
        let args = ["ui", "--no-open"].iter().chain(more);
        self.fleet.cli(args).await.ok().stdout.trim().to_owned()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http.address)
    }

    pub(crate) async fn goto(&self, path: &str) {
        self.browser.goto(&self.url(path)).await;
    }

    /// Sends a message by the form of the page that is open.
    pub(crate) async fn say(&self, text: &str) {
        self.browser.fill("#text", text).await;
        self.browser.click("#send button").await;
    }
}

/// A form as a browser would send it.
pub(crate) async fn form(
    http: &Http,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> HttpAnswer {
    let mut text = format!(
        "POST {path} HTTP/1.1\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n",
        body.len()
    );
    if !headers.iter().any(|(name, _)| *name == "host") {
        text.push_str(&format!("host: {}\r\n", http.address));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    http.raw(format!("{text}\r\n{body}").as_bytes()).await
}

pub(crate) async fn ask(http: &Http, path: &str, headers: &[(&str, &str)]) -> HttpAnswer {
    http.with(None).ask("GET", path, headers, &Value::Null).await
}

pub(crate) fn path_of(link: &str) -> &str {
    link.strip_prefix("http://")
        .and_then(|rest| rest.find('/').map(|at| &rest[at..]))
        .expect("a path")
}

#[tokio::test]
async fn a_link_signs_in_once_and_a_session_has_the_rights_of_its_token() {
    let (fleet, http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let own = format!("http://{}", http.address);
    // Without a session there is nothing to see.
    for path in ["/", "/agents/a", "/agents/a/logs", "/messages/a/b/c", "/attention", "/system"] {
        let asked = ask(&http, path, &[]).await.is(303);
        let to = asked.header("location").expect("a place");
        assert!(to.starts_with("/sign-in"), "{to}");
    }
    assert_eq!(ask(&http, "/live?at=/", &[]).await.status, 401);
    let policy = ask(&http, "/sign-in", &[]).await.is(200);
    let policy = policy.header("content-security-policy").expect("one").to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    // The fleet's token opens no page as a header: a page is opened by a session.
    assert_eq!(http.get("/").await.status, 303);

    let _token = fleet.cli(["token", "create", "viewer", "--scope", "read"]).await.ok();
    let _token =
        fleet.cli(["token", "create", "only-b", "--scope", "send", "--agent", "b"]).await.ok();
    let link = async |more: &[&str]| {
        let args = ["ui", "--no-open"].iter().chain(more);
        fleet.cli(args).await.ok().stdout.trim().to_owned()
    };
    let signed_in = async |link: &str| {
        let answer = ask(&http, path_of(link), &[]).await.is(303);
        assert_eq!(answer.header("location"), Some("/"));
        let cookie = answer.header("set-cookie").expect("a session").to_owned();
        for part in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        cookie.split(';').next().expect("a pair").to_owned()
    };
    let first = link(&[]).await;
    let looked = http.with(None).ask("HEAD", path_of(&first), &[], &Value::Null).await;
    assert_eq!((looked.status, looked.header("set-cookie")), (405, None), "a look uses nothing up");
    let operator = signed_in(&first).await;
    let again = ask(&http, path_of(&first), &[]).await.is(401);
    assert!(again.body.contains("it was used before"), "{again:?}");
    assert_eq!(again.header("set-cookie"), None);
    let made_up = format!("/sign-in/{}", "0".repeat(64));
    assert_eq!(ask(&http, &made_up, &[]).await.status, 401);
    let unknown = fleet.cli(["ui", "--no-open", "--token", "nobody"]).await.exit(3);
    unknown.says("there is no token nobody");

    // What is offered is what may be done, and what is done is checked again.
    let page = ask(&http, "/agents/a?conversation=", &[("cookie", &operator)]).await.is(200);
    assert!(page.body.contains("/agents/a/restart"), "{}", page.body);
    let form_of = |page: &HttpAnswer| {
        let (_, rest) = page.body.split_once("name=\"form\" value=\"").expect("a form");
        rest.split('"').next().expect("a value").to_owned()
    };
    let operators = form_of(&page);
    let viewer = signed_in(&link(&["--token", "viewer"]).await).await;
    let page = ask(&http, "/agents/a?conversation=", &[("cookie", &viewer)]).await.is(200);
    assert!(!page.body.contains("/agents/a/restart") && !page.body.contains("id=\"text\""));
    let viewers = form_of(&page);
    let post = async |cookie: &str, form_: &str, origin: &str, path: &str| {
        let headers = [("cookie", cookie), ("origin", origin)];
        form(&http, path, &headers, &format!("form={form_}&text=hi")).await.status
    };
    let (stop, send) = ("/agents/a/stop", "/agents/a/messages");
    assert_eq!(post(&viewer, &viewers, &own, stop).await, 403);
    assert_eq!(post(&viewer, &viewers, &own, send).await, 403);
    assert_eq!(post(&operator, &viewers, &own, stop).await, 403, "a form of another session");
    assert_eq!(post(&operator, "", &own, stop).await, 403, "no form of ours");
    assert_eq!(post(&operator, &operators, "http://evil.example", stop).await, 403);
    assert_eq!(post(&operator, &operators, "null", stop).await, 403);
    assert_eq!(post("", &operators, &own, stop).await, 303, "nobody");
    let host = [("cookie", operator.as_str()), ("host", "evil.example")];
    assert_eq!(form(&http, stop, &host, "").await.status, 421);
    assert_eq!(ask(&http, "/", &host).await.status, 421);
    assert_eq!(fleet.row("a").await["state"], "running", "nothing was done");

    // A token for one agent.
    let only = signed_in(&link(&["--token", "only-b"]).await).await;
    let page = ask(&http, "/", &[("cookie", &only)]).await.is(200);
    assert!(page.body.contains("/agents/b") && !page.body.contains("/agents/a\""));
    for path in ["/agents/a", "/agents/a/logs", "/system", "/live?at=/agents/a"] {
        let refused = ask(&http, path, &[("cookie", &only)]).await.is(403);
        assert!(refused.body.contains("token only-b is good for b only"), "{refused:?}");
    }
    // A session ends with its token, and cannot be made up.
    let _revoked = fleet.cli(["token", "revoke", "viewer"]).await.ok();
    eventually("the session of a revoked token ends", async || {
        match ask(&http, "/", &[("cookie", &viewer)]).await.status {
            303 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    let longer = operator.replacen(".1", ".9", 1);
    assert_ne!(longer, operator);
    assert_eq!(ask(&http, "/", &[("cookie", &longer)]).await.status, 303);

    // By the form.
    let token = http.token.clone().expect("a token");
    let body = format!("token={token}&then=%2F%2Fevil.example");
    let entered = form(&http, "/sign-in", &[("origin", &own)], &body).await.is(303);
    assert_eq!(entered.header("location"), Some("/"));
    assert!(entered.header("set-cookie").is_some());
    let wrong = form(&http, "/sign-in", &[("origin", &own)], "token=mozart_x_y").await.is(401);
    assert!(wrong.body.contains("the token is refused"), "{wrong:?}");
    assert_eq!(form(&http, "/sign-in", &[], &body).await.status, 403, "from no page");
    let out = form(
        &http,
        "/sign-out",
        &[("origin", &own), ("cookie", &operator)],
        &format!("form={operators}"),
    )
    .await
    .is(303);
    assert!(out.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")), "{out:?}");
}

#[tokio::test]
async fn a_chat_is_streamed_and_what_is_typed_stays() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let browser = &page.browser;
    browser.until(".sentence", |text| text.starts_with("1 agent: 1 idle.")).await;
    browser.click("#agent-a a").await;
    browser.fill("#text", "count 40 0.1").await;
    browser.press(keys::ENTER).await;
    let whole = counted(40);
    // Pieces appear, in order, before there is an answer.
    let seen = browser.until(".answer", |text| text.contains("3 ")).await;
    assert!(whole.starts_with(seen.trim_end()) && seen.trim_end() != whole.trim_end(), "{seen}");
    let focus = browser.run("return document.activeElement.id", json!([])).await;
    assert_eq!(focus, "text");
    // The next message is typed meanwhile, and sent: it waits for its turn.
    browser.fill("#text", "say second").await;
    browser.until(".answer", |text| text.contains("12 ")).await;
    let typed = browser.run("return document.getElementById('text').value", json!([])).await;
    assert_eq!(typed, "say second", "what is typed stays");
    browser.press_shifted(keys::ENTER).await;
    browser.fill("#text", "line").await;
    browser.press(keys::ENTER).await;
    let path = browser.url().await;
    assert!(path.contains("?conversation="), "{path}");
    browser.until(".answer", |text| text.trim_end() == whole.trim_end()).await;
    browser.until("article:nth-child(2)", |text| text.contains("completed")).await;
    // One conversation, two messages, each once.
    let listed = page.fleet.json(["journal", "ls", "--agent", "a"]).await;
    let texts: Vec<_> =
        listed.as_array().expect("rows").iter().map(|row| &row["message"]).collect();
    assert_eq!(texts, ["count 40 0.1", "say second\nline"]);
    assert_eq!(listed[0]["conversationId"], listed[1]["conversationId"]);
    let _picture = browser.picture("chat").await;

    // A message that is cancelled by its button.
    page.say("sleep 60").await;
    browser.until("article:nth-child(3)", |text| text.contains("acknowledged")).await;
    browser.click("article:nth-child(3) .action button").await;
    browser.until("#main", |text| text.contains("cancelled")).await;
    assert_eq!(browser.complaints().await, [""; 0]);

    // One that is refused: why is said beside the form, and what was typed stays.
    page.say(" ").await;
    browser.until("#send [role=alert]", |text| text.contains("it has no text")).await;
    let typed = browser.run("return document.getElementById('text').value", json!([])).await;
    assert_eq!(typed, " ");
    page.say("say third").await;
    browser.until("article:nth-child(4)", |text| text.contains("completed")).await;
    let told = browser.run("return document.querySelector('#send [role=alert]')", json!([])).await;
    assert_eq!(told, Value::Null);
}

#[tokio::test]
async fn an_agent_is_killed_and_seen_to_come_back() {
    let soul = flaky("RESTART always backoff=6s..8s");
    let Some(page) = Page::open(&[("a", &soul), ("b", &flaky(""))]).await else { return };
    let browser = &page.browser;
    browser.until("#agent-a", |text| text.contains("idle")).await;
    kill(page.fleet.worker("a"), Signal::KILL);
    browser.until("#agent-a", |text| text.contains("error") && text.contains("signal 9")).await;
    browser.until(".sentence", |text| text.contains("1 idle, 1 in error")).await;
    let _picture = browser.picture("fleet-error").await;
    browser.until("#agent-a", |text| text.contains("idle")).await;
    browser.until(".sentence", |text| text.contains("2 idle")).await;
    // Its timeline has both incarnations.
    page.goto("/agents/a/timeline").await;
    browser.until("#incarnation", |text| text == "2").await;
    browser
        .until(".timeline", |text| {
            text.contains("incarnation 1 was killed by signal 9")
                && text.contains("incarnation 2 is receiving messages")
        })
        .await;
    // By a button, with its command beside it.
    browser.click(".actions summary").await;
    browser.until(".actions", |text| text.contains("mozart stop a")).await;
    browser.click(".actions form[action='/agents/a/stop'] button").await;
    browser.until(".done", |text| text == "Stop requested.").await;
    browser.until("#agent-state", |text| text == "stopped").await;
    page.fleet.wait_state("a", "stopped").await;
}

/// Another process that serves the page of a fleet, at an address.
pub(crate) async fn api(fleet: &Fleet, address: &str) -> Child {
    let api = fleet.spawn_cli(["api", "--listen", address]);
    let http = Http { address: address.to_owned(), token: None };
    eventually("the API serves", async || match TcpStream::connect(address).await {
        Ok(_) if http.get("/api/v1/health").await.status == 204 => Ok(()),
        Ok(_) => Err("it does not reach the broker yet".to_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    api
}

#[tokio::test]
async fn the_process_is_killed_and_nothing_is_lost_or_doubled() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let browser = &page.browser;
    let address = format!("127.0.0.1:{}", free_port());
    let base = format!("http://{address}");
    let first = api(&page.fleet, &address).await;
    browser.goto(&page.link(&["--url", &base]).await).await;
    browser.goto(&format!("{base}/agents/a")).await;
    page.say("count 120 0.1").await;
    let whole = counted(120);
    let is_part = |text: &str| whole.starts_with(text.trim_end());
    browser.until(".answer", |text| text.contains("10 ")).await;
    first.signal(Signal::KILL);
    let _killed = first.output().await;
    browser.until("#live", |text| text.contains("Stale")).await;
    browser.until("#since", |text| text.starts_with("Last update ")).await;
    let before = browser.text(".answer").await.expect("it is still there");
    assert!(is_part(&before), "{before}");
    let _picture = browser.picture("stale").await;
    let second = api(&page.fleet, &address).await;
    browser.until("#live", |text| text == "Live.").await;
    // At every moment it is the beginning of the answer, and in the end all of it.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let text = browser.text(".answer").await.unwrap_or_default();
        assert!(is_part(&text), "{text}");
        if text.trim_end() == whole.trim_end() {
            break;
        }
        assert!(Instant::now() < until, "{text}");
    }
    browser.until("article", |text| text.contains("completed")).await;
    assert_eq!(browser.all("article").await.len(), 1, "one message");
    // While it is down, a message is not sent, which is said; then it is, once.
    second.signal(Signal::KILL);
    let _killed = second.output().await;
    page.say("say later").await;
    browser.until("#send [role=alert]", |text| text.contains("Not sent")).await;
    let typed = browser.run("return document.getElementById('text').value", json!([])).await;
    assert_eq!(typed, "say later");
    let _third = api(&page.fleet, &address).await;
    browser.until("#live", |text| text == "Live.").await;
    browser.click("#send button").await;
    browser.until("article:nth-child(2)", |text| text.contains("completed")).await;
    let listed = page.fleet.json(["journal", "ls", "--agent", "a"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
}

#[tokio::test]
async fn a_page_that_is_cut_again_and_again_goes_on_at_any_process() {
    let (fleet, own) = fleet(&[("a", &flaky(""))]).await;
    let address = format!("127.0.0.1:{}", free_port());
    let _another = api(&fleet, &address).await;
    let another = Http { address, token: None };
    let link = fleet.cli(["ui", "--no-open"]).await.ok().stdout.trim().to_owned();
    let session = ask(&own, path_of(&link), &[]).await.is(303);
    let cookie = session.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    let cookie = cookie.expect("a session").to_owned();
    // Long enough for many cuts, also where a page takes half a second.
    let whole = counted(600);
    let id = fleet.send("a", "count 600 0.02").await;
    let value = |page: &HttpAnswer, before: &str, after: &str| {
        let (_, rest) = page.body.split_once(before).unwrap_or_else(|| panic!("{page:?}"));
        rest.split(after).next().expect("a value").to_owned()
    };
    // The path that names no conversation leads to one that does: a stream is of one.
    let led = ask(&own, "/agents/a?done=restart", &[("cookie", &cookie)]).await.is(303);
    let path = format!("/agents/a?conversation={id}");
    assert_eq!(led.header("location"), Some(format!("{path}&done=restart").as_str()));
    let none = ask(&own, "/live?at=/agents/a", &[("cookie", &cookie)]).await.is(400);
    assert!(none.body.contains("names no conversation"), "{none:?}");
    let page = ask(&own, &path, &[("cookie", &cookie)]).await.is(200);
    let mut known = value(&page, "data-known=\"", "\"");
    let mut text = match page.body.contains("data-seq=") {
        true => {
            let shown = value(&page, "data-seq=\"", "</div>");
            shown.split_once('>').expect("a text").1.to_owned()
        }
        false => String::new(),
    };
    let (mut cuts, mut ended) = (0, false);
    while !ended {
        // The session holds at both, and what one of them said is known to the other.
        let http = if cuts % 2 == 0 { another.clone() } else { own.with(None) };
        let headers = [("cookie", cookie.as_str()), ("last-event-id", known.as_str())];
        let at = format!("/live?at={path}");
        let mut stream = http.events("GET", &at, &headers, &Value::Null).await;
        for _event in 0..=cuts % 5 {
            let event = stream.next().await.expect("it goes on");
            known.clone_from(&event.id);
            match event.data["html"].as_str() {
                None => {
                    assert_eq!(event.data["message"], id.as_str());
                    text.push_str(event.data["text"].as_str().expect("a piece"));
                    assert!(whole.starts_with(&text), "{text}");
                }
                Some(html) if html.contains("completed") => {
                    assert!(html.contains(whole.trim_end()), "{html}");
                    ended = true;
                    break;
                }
                Some(html) => assert!(!html.contains("1 2 3 "), "the pieces come alone: {html}"),
            }
        }
        cuts += 1;
        assert!(cuts < 500, "{text}");
    }
    assert!(cuts > 20 && whole.starts_with(&text) && text.len() > 100, "{cuts} cuts: {text}");
    // Whoever knows the last screen is sent nothing but that the process is alive; the agent is idle a moment after its answer.
    let mut screens = 0;
    loop {
        let headers = [("cookie", cookie.as_str()), ("last-event-id", known.as_str())];
        let at = format!("/live?at={path}");
        let mut stream = own.with(None).events("GET", &at, &headers, &Value::Null).await;
        match tokio::time::timeout(Duration::from_secs(3), stream.next()).await {
            Ok(event) => known = event.expect("it goes on").id,
            Err(_) => break,
        }
        screens += 1;
        assert!(screens < 4, "nothing happens");
    }
}
