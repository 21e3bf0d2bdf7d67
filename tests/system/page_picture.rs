//! The picture of the web page in the README: `make screenshot`.

use serde_json::json;
use system_tests::harness::flaky;

use crate::page::Page;

#[tokio::test]
async fn the_fleet_is_pictured() {
    let quick = flaky("RESTART always max=2/10m backoff=100ms..100ms");
    let broken = flaky("RESTART always max=1/10m backoff=100ms..100ms\nENV FLAKY_START=\"exit 3\"");
    let souls = ["archivist", "researcher", "reviewer", "scribe", "translator"];
    let souls: Vec<(&str, &str)> = souls.iter().map(|name| (*name, quick.as_str())).collect();
    let Some(page) = Page::open(&souls).await else { return };
    let (fleet, browser) = (&page.fleet, &page.browser);
    let _soul = fleet.soul("importer", &broken);
    let _applied = fleet.cli(["apply", "."]).await.ok();
    let _stopped = fleet.cli(["stop", "archivist"]).await.ok();
    let _row = fleet.wait_state("archivist", "stopped").await;
    for _waiting in 0..3 {
        let _open = fleet.send("researcher", "sleep 600").await;
    }
    let _open = fleet.send("translator", "sleep 600").await;
    browser.resize(1100, 760).await;
    browser.prefer("light").await;
    page.goto("/").await;
    browser.until("#live", |text| text == "Live.").await;
    browser
        .until(".sentence", |text| {
            text.starts_with("6 agents: 2 idle, 2 answering, 1 quarantined, 1 stopped.")
        })
        .await;
    browser.until("#agent-researcher", |text| text.contains("answering 1 message")).await;
    let _null = browser.run("document.activeElement.blur(); scrollTo(0, 0)", json!([])).await;
    let picture = browser.picture("page").await;
    assert!(std::fs::metadata(picture).is_ok_and(|file| file.len() > 10_000));
}
