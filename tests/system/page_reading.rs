//! Reading the web page in Chromium: which conversation it is, what stays under the eye and the cursor, what is read out, how much is sent.

use serde_json::{Value, json};
use system_tests::harness::{eventually, flaky};

use crate::page::{Page, ask, path_of};

#[tokio::test]
async fn what_is_seen_is_what_is_sent_to() {
    let Some(page) = Page::open(&[("a", &flaky("")), ("b", &flaky(""))]).await else { return };
    let (fleet, browser) = (&page.fleet, &page.browser);
    let send = async |agent: &str, conversation: &str, text: &str| {
        let sent = ["send", agent, "--conversation", conversation, "--wait", text];
        let _answer = fleet.cli(sent).await.ok();
    };
    send("a", "first", "say one").await;
    page.goto("/agents/a").await;
    let path = browser.url().await;
    assert!(path.ends_with("/agents/a?conversation=first"), "{path}");
    // Another one begins meanwhile: it is listed, and the page stays with the one that it shows.
    send("a", "second", "say two").await;
    browser.until("#conversations", |text| text.contains("say two")).await;
    let log = browser.text("#log").await.expect("it is there");
    assert!(log.contains("say one") && !log.contains("say two"), "{log}");
    page.say("say three").await;
    browser.until("article:nth-child(2)", |text| text.contains("completed")).await;
    assert_eq!(browser.url().await, path);
    let rows = fleet.json(["journal", "ls", "--agent", "a"]).await;
    let rows = rows.as_array().expect("rows");
    let of = |text: &str| rows.iter().find(|row| row["message"] == text).expect("sent");
    assert_eq!(of("say three")["conversationId"], "first");

    // Where there is none yet, a new one is to begin: what others begin is listed beside it.
    page.goto("/agents/b").await;
    let path = browser.url().await;
    assert!(path.ends_with("/agents/b?conversation="), "{path}");
    send("b", "others", "say four").await;
    browser.until("#conversations", |text| text.contains("say four")).await;
    assert_eq!(browser.text("#log").await.as_deref(), Some("No messages yet."));
    page.say("say five").await;
    browser.until("article", |text| text.contains("say five") && text.contains("completed")).await;
    let rows = fleet.json(["journal", "ls", "--agent", "b"]).await;
    assert_ne!(rows[0]["conversationId"], rows[1]["conversationId"], "{rows}");
    // From now on, it is that one.
    assert!(!browser.url().await.ends_with("conversation="), "{}", browser.url().await);
}

#[tokio::test]
async fn focus_and_selection_stay_and_only_what_is_new_is_read_out() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let (fleet, browser) = (&page.fleet, &page.browser);
    for conversation in ["one", "two"] {
        let sent = ["send", "a", "--conversation", conversation, "--wait", "say x"];
        let _answer = fleet.cli(sent).await.ok();
    }
    page.goto("/agents/a?conversation=one").await;
    browser.until("#live", |text| text == "Live.").await;
    // Nothing changes in what is read out, though time passes.
    let watch = "window.changes = 0; new MutationObserver(all => { window.changes += all.length }).observe(document.getElementById('log'), {subtree: true, childList: true, characterData: true, attributes: true})";
    let _null = browser.run(watch, json!([])).await;
    let first = browser.text("#conversation-one").await.expect("it is listed");
    browser.until("#conversation-one", |text| text != first).await;
    browser
        .until("#conversation-one", |text| text.contains(" s ago") || text.contains(" min ago"))
        .await;
    assert_eq!(browser.run("return window.changes", json!([])).await, 0);
    // The focus is on a conversation that moves up in the list, when another message of it comes.
    let hold = "const text = document.querySelector('#log .answer').firstChild; getSelection().setBaseAndExtent(text, 0, text, 1); window.link = document.querySelector('#conversation-one a'); window.link.focus(); window.lost = 0; document.addEventListener('focusout', () => { window.lost += 1 })";
    let _null = browser.run(hold, json!([])).await;
    let sent = ["send", "a", "--conversation", "one", "count 10 0.1"];
    let _sent = fleet.cli(sent).await.ok();
    browser.until("#conversations li:first-child", |text| text.contains("count 10")).await;
    browser.until("article:nth-child(2)", |text| text.contains("completed")).await;
    let kept =
        "return [document.activeElement === window.link, window.lost, getSelection().toString()]";
    assert_eq!(browser.run(kept, json!([])).await, json!([true, 0, "x"]));
    // While it was written, it was not read out; then it is, as a whole.
    browser.until("#told", |text| text.starts_with("a: 1 2 3") && text.contains("10")).await;
    let live =
        "return document.querySelector('article:nth-child(2) .answer').getAttribute('aria-live')";
    assert_eq!(browser.run(live, json!([])).await, "off");

    // After an action the focus stays on its button, and where that is gone, near it.
    page.goto("/agents/a/queue").await;
    browser.until("#live", |text| text == "Live.").await;
    browser.click("#actions summary").await;
    browser.click("form[action='/agents/a/restart'] button").await;
    browser.until(".done", |text| text == "Restart requested.").await;
    let focus = "return document.activeElement.id";
    assert_eq!(browser.run(focus, json!([])).await, "do-agents-a-restart-button");
    let _row = fleet.wait_incarnation("a", 2).await;
    let open = fleet.send("a", "sleep 600").await;
    browser.click(&format!("#open-user-{open} button")).await;
    browser.until("#count", |text| text == "No message is open.").await;
    eventually("the focus is near", async || {
        let focus = browser.run(focus, json!([])).await;
        if focus == "queue" { Ok(()) } else { Err(focus.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_long_answer_is_cut_and_there_in_full() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let (fleet, browser) = (&page.fleet, &page.browser);
    let id = fleet.send("a", "long 300").await;
    let _detail = fleet.wait_status(&id, "completed").await;
    let whole = fleet.show(&id).await.row.response.expect("an answer");
    page.goto("/agents/a").await;
    let shown = browser.until(".answer", |text| text.starts_with("xxx")).await;
    assert!(
        shown.len() < 100 << 10 && whole.len() > 200 << 10,
        "{} of {}",
        shown.len(),
        whole.len()
    );
    browser.until("article", |text| text.contains("KiB more: the whole answer")).await;
    browser.click("article a[href$='/answer']").await;
    let text = browser.run("return document.body.textContent", json!([])).await;
    assert_eq!(text.as_str().map(str::len), Some(whole.len()));
    // As text, whatever it is.
    let cookies = browser.cdp("Network.getCookies", json!({"urls": [page.url("/")]})).await;
    let cookie = &cookies["cookies"][0];
    let cookie = format!(
        "{}={}",
        cookie["name"].as_str().expect("a name"),
        cookie["value"].as_str().expect("a value")
    );
    let path = format!("/messages/a/user/{id}");
    let asked = ask(&page.http, &format!("{path}/answer"), &[("cookie", &cookie)]).await.is(200);
    assert_eq!(asked.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(asked.header("x-content-type-options"), Some("nosniff"));
    let asked = ask(&page.http, &format!("{path}/message"), &[("cookie", &cookie)]).await.is(200);
    assert_eq!(asked.body, "long 300");
    assert_eq!(ask(&page.http, &format!("{path}/odd"), &[("cookie", &cookie)]).await.status, 404);
    // A token of another agent sees neither.
    let create = ["token", "create", "other", "--scope", "read", "--agent", "b"];
    let _token = fleet.cli(create).await.ok();
    let link = page.link(&["--token", "other"]).await;
    let session = ask(&page.http, path_of(&link), &[]).await.is(303);
    let other = session.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    let other = [("cookie", other.expect("a session"))];
    assert_eq!(ask(&page.http, &format!("{path}/answer"), &other).await.status, 403);
    assert_eq!(page.http.with(None).ask("GET", &path, &[], &Value::Null).await.status, 303);
}

#[tokio::test]
async fn all_conversations_of_an_agent_are_listed_page_by_page() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let (fleet, browser) = (&page.fleet, &page.browser);
    for nth in 1..=30 {
        let _id = fleet.send("a", &format!("say number {nth}")).await;
    }
    page.goto("/agents/a/conversations").await;
    browser.until("#conversations", |text| text.contains("say number 30")).await;
    assert_eq!(browser.all("#conversations li").await.len(), 25);
    browser.click("#pages a").await;
    browser.until("#conversations", |text| text.contains("say number 1 ")).await;
    assert_eq!(browser.all("#conversations li").await.len(), 5);
    browser.click("#conversations li:last-child a").await;
    browser.until(".answer", |text| text == "number 1").await;
}
