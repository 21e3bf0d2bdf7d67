//! A copied data folder beside the original: each has containers of its own, on one engine.

use system_tests::harness::{Fleet, Runtime, flaky};

use crate::copies::copy;

#[tokio::test]
async fn a_copy_stops_and_takes_over_no_container_of_the_original() {
    let Some(runtime) = Runtime::docker().await else { return };
    let original = runtime.fleet(&[("a", &flaky(""))]).await;
    let container = original.container("a");
    let mut other = Fleet::laid_out(runtime, &[]);
    copy(original.home(), other.home());
    other.cli(["down"]).await.ok().says("nothing is running");
    other.up(&[]).await;
    // Its log still says that the original's runs there.
    let _row = other.wait_incarnation("a", 2).await;
    assert_ne!(other.container("a"), container);
    assert_eq!(original.ask("a", "say one").await, "one");
    // Each is listed as one fleet, on one engine.
    assert_eq!((original.containers().await.len(), other.containers().await.len()), (1, 1));
    let _fixed = other.cli(["doctor", "--fix"]).await;
    // Neither in order, nor after a kill.
    other.kill_up().await;
    let _down = other.cli(["down"]).await.ok();
    assert_eq!(other.containers().await.len(), 0);
    assert_eq!(original.container("a"), container);
    assert_eq!(original.row("a").await["restartCount"], 0);
    assert_eq!(original.ask("a", "say two").await, "two");
}
