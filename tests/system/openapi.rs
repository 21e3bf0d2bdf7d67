//! The document about the API is true: what every path answers is as it says.

use system_tests::harness::{StockClients, flaky};

use crate::http::fleet;

#[tokio::test]
async fn what_every_path_answers_is_as_the_document_says() {
    let Some(programs) = StockClients::find() else { return };
    let more = "CONCURRENCY 8\nATTEMPTS 1\nENV GREETING=hello\nKEEP history=30d\nSCHEDULE \"0 9 1 1 *\" TZ Europe/Berlin say happy new year";
    let (_fleet, http) = fleet(&[("a", &flaky(more))]).await;
    let url = format!("http://{}", http.address);
    let token = http.token.as_deref().expect("a token");
    let checked = programs.start("openapi_check.py", &[&url, token]).output().await.ok();
    assert_eq!(checked.json()["done"], true, "{checked}");
}
