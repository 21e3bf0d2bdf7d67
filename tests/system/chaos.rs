//! No loss, no double: a minute of chaos, the same one every time.

use std::time::Duration;

use system_tests::chaos::{self, Options};

#[tokio::test(flavor = "multi_thread")]
async fn chaos_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        length: Duration::from_secs(60),
        seed: 1,
        agents: 20,
        rate: 60.0,
        curious: false,
        folder: folder.path().to_owned(),
    };
    let mut told = Vec::new();
    let well = chaos::run(&options, &mut told).await;
    let told = String::from_utf8_lossy(&told);
    match well {
        Ok(true) => println!("{told}"),
        Ok(false) | Err(_) => {
            let kept = folder.keep();
            panic!("{told}\n{well:?}; everything is kept in {}", kept.display());
        }
    }
}
