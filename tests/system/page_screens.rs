//! The screens of the web page in Chromium, one by one: what they show, for everybody, and as text.

use serde_json::{Value, json};
use system_tests::harness::{eventually, flaky, keys};

use crate::page::{MARKUP, Page};

/// Paths of all screens, with a name for the picture.
async fn screens(page: &Page, message: &str) -> Vec<(&'static str, String)> {
    let row = page.fleet.show(message).await.row;
    let of = format!("/messages/{}/{}/{}", row.agent, row.sender, row.message_id);
    [
        ("fleet", "/".to_owned()),
        ("agent-chat", "/agents/a".to_owned()),
        ("agent-conversations", "/agents/a/conversations".to_owned()),
        ("agent-timeline", "/agents/a/timeline".to_owned()),
        ("agent-queue", "/agents/a/queue".to_owned()),
        ("agent-logs", "/agents/a/logs".to_owned()),
        ("agent-config", "/agents/a/config".to_owned()),
        ("message", of),
        ("attention", "/attention".to_owned()),
        ("system", "/system".to_owned()),
    ]
    .into()
}

/// A fleet with something on every screen: an answer, a queue, a question, a dead letter, a second generation, an agent that was given up;
/// the message that led to a question.
async fn busy() -> Option<(Page, String)> {
    let broken = flaky("RESTART always max=1/10m backoff=100ms..100ms\nENV FLAKY_START=\"exit 3\"");
    let souls = [("a", flaky("ATTEMPTS 1")), ("b", flaky(""))];
    let page = Page::open(&[("a", &souls[0].1), ("b", &souls[1].1)]).await?;
    let fleet = &page.fleet;
    let asking = fleet.send("a", "ask b say hello").await;
    let _detail = fleet.wait_status(&asking, "completed").await;
    let dead = fleet.send("a", "fail no reason").await;
    let _detail = fleet.wait_status(&dead, "failed").await;
    let crash = fleet.send("a", "crash").await;
    let _detail = fleet.wait_status(&crash, "failed").await;
    let _soul = fleet.soul("a", &flaky("ATTEMPTS 1\nENV COLOUR=blue"));
    let _soul = fleet.soul("c", &broken);
    let _applied = fleet.cli(["apply", "."]).await.ok();
    let is = async |agent: &str, field: &str, value: Value| {
        eventually(&format!("{field} of {agent} is {value}"), async || {
            let row = fleet.row(agent).await;
            if row[field] == value { Ok(()) } else { Err(row.to_string()) }
        })
        .await;
    };
    is("a", "runningGeneration", json!(2)).await;
    is("c", "quarantined", json!(true)).await;
    let open = fleet.send("a", "sleep 600").await;
    let _detail = fleet.wait_status(&open, "acknowledged").await;
    is("a", "inflight", json!(1)).await;
    let _waits = fleet.send("b", "question Shall we deploy?").await;
    eventually("b asks", async || {
        let open = fleet.json(["questions"]).await;
        if open.as_array().is_some_and(|open| open.len() == 1) {
            Ok(())
        } else {
            Err(open.to_string())
        }
    })
    .await;
    Some((page, asking))
}

#[tokio::test]
async fn every_screen_is_complete_without_javascript_and_for_everybody_with_it() {
    let Some((page, asking)) = busy().await else { return };
    let axe = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/axe.min.js");
    let axe = std::fs::read_to_string(&axe)
        .unwrap_or_else(|error| panic!("{}: {error}: scripts/setup.sh browser", axe.display()));
    let browser = &page.browser;
    let expected = |name: &str| match name {
        "fleet" => &["3 agents", "quarantined", "mozart ps -a", "answering"][..],
        "agent-chat" => &["sleep 600", "acknowledged", "Conversations", "ask b say hello"],
        "agent-conversations" => &["sleep 600", "ask b say hello", "mozart conversations a"],
        "agent-timeline" => &["soul applied", "is receiving messages", "fail no reason"],
        "agent-queue" => &["sleep 600", "mozart cancel"],
        "agent-logs" => &["mozart logs a --follow"],
        "agent-config" => {
            &["Generation 2: running", "not set", "blue", "mozart rollout undo a --to-generation 1"]
        }
        "message" => {
            &["Received", "Journaled", "Delivered", "Events", "Final", "say hello", "to b", "hello"]
        }
        "attention" => &[
            "1 open question",
            "Shall we deploy?",
            "2 dead letters",
            "no reason",
            "mozart dead redrive",
            "quarantined",
            "mozart start c",
        ],
        "system" => &["connected", "JOURNAL", "Leader", "mozart node drain", "operate"],
        other => panic!("{other}"),
    };
    for (name, path) in screens(&page, &asking).await {
        // As it is answered, with no script.
        browser.cdp("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
        page.goto(&path).await;
        let text = browser.text("main").await.expect("a screen");
        for words in expected(name) {
            assert!(text.contains(words), "{name} without JavaScript lacks {words:?}: {text}");
        }
        let told = browser.text(".live").await.unwrap_or_default();
        assert!(told.contains("reload"), "{name}: {told}");
        browser.cdp("Emulation.setScriptExecutionDisabled", json!({"value": false})).await;

        for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 320), ("dark", 320)] {
            browser.prefer(scheme).await;
            browser.resize(width, 900).await;
            page.goto(&path).await;
            browser.until("#live", |text| text == "Live.").await;
            for words in expected(name) {
                browser.until("main", |text| text.contains(words)).await;
            }
            let wide = browser.run("return document.documentElement.scrollWidth", json!([])).await;
            assert!(
                wide.as_u64().is_some_and(|wide| wide <= width.into()),
                "{name}: {wide} of {width}"
            );
            let _null = browser.run(&axe, json!([])).await;
            let found = browser
                .run_async(
                    "const done = arguments[0]; axe.run().then(r => done(r.passes.length > 10 ? r.violations.map(v => [v.id, v.help, v.nodes.map(n => n.html + n.failureSummary)]) : ['it looked at nothing']), e => done(['axe', String(e)]))",
                    json!([]),
                )
                .await;
            assert_eq!(found, Value::Array(Vec::new()), "{name} in {scheme} at {width}");
            let _picture = browser.picture(&format!("{name}-{scheme}-{width}")).await;
        }
    }
    let complaints = browser.complaints().await;
    assert_eq!(complaints, [""; 0]);
}

#[tokio::test]
async fn a_message_is_sent_without_javascript() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let browser = &page.browser;
    browser.cdp("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    page.goto("/agents/a").await;
    page.say("say plainly").await;
    assert!(browser.url().await.contains("?conversation="), "{}", browser.url().await);
    let message = page.fleet.json(["journal", "ls"]).await[0]["messageId"].clone();
    let _detail = page.fleet.wait_status(message.as_str().expect("an id"), "completed").await;
    browser.click(".live a").await;
    browser.until(".answer", |text| text == "plainly").await;
    browser.click(".actions summary").await;
    browser.click(".actions form[action='/agents/a/restart'] button").await;
    browser.until(".done", |text| text == "Restart requested.").await;
    let _row = page.fleet.wait_incarnation("a", 2).await;
}

#[tokio::test]
async fn what_a_worker_asks_is_answered_with_and_without_javascript() {
    let Some(page) = Page::open(&[("a", &flaky(""))]).await else { return };
    let browser = &page.browser;
    page.goto("/attention").await;
    browser.until("#questions-none", |text| text.contains("No agent waits")).await;
    for (script, answer) in [(true, "go on"), (false, "wait")] {
        browser.cdp("Emulation.setScriptExecutionDisabled", json!({"value": !script})).await;
        let asked = page.fleet.send("a", &format!("question {MARKUP}")).await;
        eventually("a asks", async || {
            let open = page.fleet.json(["questions"]).await;
            if open[0]["messageId"] == asked.as_str() { Ok(()) } else { Err(open.to_string()) }
        })
        .await;
        if !script {
            page.goto("/attention").await;
        }
        browser.until(".sentence", |text| text == "1 open question.").await;
        browser.until("#questions article .text", |text| text == MARKUP).await;
        browser.until("#questions .command", |text| text.starts_with("mozart answer a/")).await;
        browser.fill("#questions textarea", answer).await;
        browser.click("#questions form button").await;
        browser.until(".done", |text| text.contains("the agent goes on")).await;
        let row = page.fleet.wait_status(&asked, "completed").await.row;
        assert_eq!(row.response.as_deref(), Some(answer));
    }
    browser.until(".sentence", |text| text == "Nothing needs attention.").await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_dead_letter_is_sent_again() {
    let Some(page) = Page::open(&[("a", &flaky("ATTEMPTS 1"))]).await else { return };
    let browser = &page.browser;
    page.goto("/attention").await;
    browser.until(".sentence", |text| text == "Nothing needs attention.").await;
    // It crashes in the first incarnation, and not in the next.
    let dead = page.fleet.send("a", "crash until 2; say at last").await;
    let _detail = page.fleet.wait_status(&dead, "failed").await;
    browser.until(".sentence", |text| text == "1 dead letter.").await;
    browser.until("article.card", |text| text.contains("exit code 1")).await;
    let _row = page.fleet.wait_incarnation("a", 2).await;
    browser.click("article.card form[action$='/redrive'] button").await;
    browser.until(".done", |text| text.contains("sent again")).await;
    browser.until("article.card", |text| text.contains("Sent again as")).await;
    browser.click("article.card p a[href^='/messages/']").await;
    browser.until("#status", |text| text == "completed").await;
    browser.until(".answer", |text| text == "at last").await;
    browser.until(".facts", |text| text.contains(&dead)).await;
    page.goto("/attention").await;
    browser.click("article.card form[action$='/drop'] button").await;
    browser.until(".sentence", |text| text == "Nothing needs attention.").await;
    assert_eq!(page.fleet.json(["dead", "ls"]).await, json!([]));
}

#[tokio::test]
async fn the_page_is_used_by_keyboard_alone() {
    let Some(page) = Page::open(&[("a", &flaky("")), ("b", &flaky(""))]).await else { return };
    let browser = &page.browser;
    browser.until("#live", |text| text == "Live.").await;
    // The first stop leads past the navigation.
    browser.press(keys::TAB).await;
    let focus = "return document.activeElement.textContent";
    assert_eq!(browser.run(focus, json!([])).await, "Skip to the content");
    browser.press(keys::ENTER).await;
    assert_eq!(browser.tab_to("#agent-a a").await, 1, "what is next is the first agent");
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.run(outline, json!([])).await, "solid", "the focus is seen");
    browser.press(keys::ENTER).await;
    browser.until("h1", |text| text == "a").await;
    let _presses = browser.tab_to("#text").await;
    browser.press("say by keyboard").await;
    browser.press(keys::ENTER).await;
    browser.until(".answer", |text| text == "by keyboard").await;
    assert_eq!(browser.run("return document.activeElement.id", json!([])).await, "text");
    // An action, folded out and done.
    page.goto("/agents/a/queue").await;
    browser.until("#live", |text| text == "Live.").await;
    let _presses = browser.tab_to(".actions summary").await;
    browser.press(keys::ENTER).await;
    let _presses = browser.tab_to("form[action='/agents/a/restart'] button").await;
    browser.press(keys::ENTER).await;
    browser.until(".done", |text| text == "Restart requested.").await;
    let _row = page.fleet.wait_incarnation("a", 2).await;
    browser.until("#incarnation", |text| text == "2").await;
    let _presses = browser.tab_to("#pause").await;
    browser.press(keys::ENTER).await;
    browser.until("#live", |text| text == "Updates are paused.").await;
    browser.press(keys::ENTER).await;
    browser.until("#live", |text| text == "Live.").await;
    let _presses = browser.tab_to(".who button").await;
    browser.press(keys::ENTER).await;
    browser.until("h1", |text| text == "Mozart").await;
    assert!(browser.url().await.ends_with("/sign-in"));
}

#[tokio::test]
async fn what_others_say_is_text_in_every_field() {
    let marked = |more: &str| flaky(more).replace("do what you are told", MARKUP);
    let soul = marked(&format!("ATTEMPTS 1\nENV MARK=\"{}\"", MARKUP.replace('"', "")));
    let Some(page) = Page::open(&[("a", &soul)]).await else { return };
    let browser = &page.browser;
    // An answer, a reason with a dead letter, a line of the log, an event of the worker, a question in its path.
    for text in
        [MARKUP.to_owned(), format!("fail {MARKUP}"), format!("tool {}", MARKUP.replace(' ', "_"))]
    {
        let id = page.fleet.send("a", &text).await;
        let _detail = page
            .fleet
            .wait_status(&id, if text.starts_with("fail") { "failed" } else { "completed" })
            .await;
    }
    let asked = page.fleet.json(["journal", "ls"]).await[0]["messageId"].clone();
    let asked = asked.as_str().expect("an id").to_owned();
    let _log = page.fleet.cli(["logs", "a"]).await.ok();
    let mut seen = 0;
    for (name, path) in screens(&page, &asked).await {
        page.goto(&path).await;
        browser.until("#live", |text| text == "Live.").await;
        let owned = browser.run("return window.owned ?? null", json!([])).await;
        assert_eq!(owned, Value::Null, "{name}");
        let found = browser.all("main img, main script, main b, main iframe").await;
        assert!(found.is_empty(), "{name}: {found:?}");
        let text =
            browser.run("return document.querySelector('main').textContent", json!([])).await;
        seen += usize::from(text.as_str().is_some_and(|text| text.contains("<img src=x")));
    }
    assert!(seen >= 6, "it is shown on {seen} screens");
    // Streamed, too.
    page.goto("/agents/a?conversation=").await;
    page.say(&format!("{MARKUP} once more")).await;
    browser.until(".answer", |text| text.contains("once more") && text.contains("<script>")).await;
    assert_eq!(browser.run("return window.owned ?? null", json!([])).await, Value::Null);
    assert_eq!(browser.complaints().await, [""; 0]);
}
