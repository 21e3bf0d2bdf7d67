//! FILES: an archive is stored once, read only if it is what its name says, and leaves unless it is stored again.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::HeaderMap;
use broker::{Broker, FilesFault};
use bytes::Bytes;
use common::files::{Files, Sha256};
use serde_json::json;
use sha2::Digest as _;

use crate::support::{Server, soon};

/// Some content of so many bytes, and its name.
fn archive(seed: u64, length: usize) -> (Files, Bytes) {
    let content: Vec<u8> =
        (0..length as u64).map(|n| (n.wrapping_mul(seed + 31) >> 3) as u8).collect();
    let sha256 = Sha256::of(sha2::Sha256::digest(&content).into());
    (Files { sha256, bytes: content.len() as u64 }, content.into())
}

async fn state(server: &Server) -> (u64, u64) {
    let client = server.client().await;
    let answer = client.request("$JS.API.STREAM.INFO.MOZART_test_FILES", "".into()).await;
    let answer = answer.expect("an answer");
    let info: serde_json::Value = serde_json::from_slice(&answer.payload).expect("JSON");
    let number = |name: &str| info["state"][name].as_u64().expect("a number");
    (number("messages"), number("last_seq"))
}

async fn read(broker: &Broker, files: &Files) -> Result<Vec<u8>, FilesFault> {
    broker.read_files(files).await.expect("an answer")
}

/// Replaces a chunk behind everybody's back.
async fn overwrite(server: &Server, broker: &Broker, files: &Files, number: u64, bytes: &[u8]) {
    let subject = broker.subjects().files_chunk(&files.sha256, number);
    let client = server.client().await;
    let stored = client.request_with_headers(subject, HeaderMap::new(), bytes.to_vec().into());
    assert!(!String::from_utf8_lossy(&stored.await.expect("an answer").payload).contains("error"));
}

#[tokio::test]
async fn an_archive_is_stored_once_whoever_stores_it() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let (files, bytes) = archive(1, 600_000);
    assert!(broker.stores_files().await.expect("an answer"));
    assert!(!broker.has_files(&files).await.expect("an answer"));
    assert_eq!(read(&broker, &files).await, Err(FilesFault::Missing));
    // Many at once.
    let stores = (0..4).map(|_| broker.store_files(&files, &bytes));
    let stored = futures_util::future::join_all(stores).await;
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    assert_eq!(state(&server).await.0, 4, "three chunks and a head");
    assert!(!broker.store_files(&files, &bytes).await.expect("stored"), "it is there");
    assert_eq!(state(&server).await.0, 4);
    server.kill_and_revive().await;
    assert!(broker.has_files(&files).await.expect("an answer"));
    assert_eq!(read(&broker, &files).await.as_deref(), Ok(&bytes[..]));
    // What is not what it is called is not stored.
    let (other, _) = archive(2, 600_000);
    broker.store_files(&other, &bytes).await.expect_err("another one");
    assert_eq!(state(&server).await.0, 4);
}

#[tokio::test]
async fn what_is_damaged_is_not_read_and_is_mended_by_the_next_that_stores_it() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (files, bytes) = archive(3, 600_000);
    broker.store_files(&files, &bytes).await.expect("stored");
    let damaged = async |how: &str| match read(&broker, &files).await {
        Err(FilesFault::Damaged(why)) => assert!(why.contains(how), "{why}"),
        other => panic!("{how}: {other:?}"),
    };
    let mut chunk = bytes[..256 << 10].to_vec();
    chunk[7] ^= 1;
    overwrite(&server, &broker, &files, 0, &chunk).await;
    damaged("its SHA-256 is").await;
    overwrite(&server, &broker, &files, 1, b"short").await;
    damaged("chunk 2 of 3 has 5 bytes").await;
    let subject = broker.subjects().files_chunk(&files.sha256, 2);
    let body = json!({ "filter": subject }).to_string();
    let client = server.client().await;
    let purged = client.request("$JS.API.STREAM.PURGE.MOZART_test_FILES", body.into()).await;
    purged.expect("purged");
    assert!(!broker.has_files(&files).await.expect("an answer"));
    damaged("chunk 2 of 3").await;
    // A chunk that nobody asked for is nothing to it.
    overwrite(&server, &broker, &files, 9, b"more").await;
    assert!(broker.store_files(&files, &bytes).await.expect("stored"), "mended");
    assert_eq!(read(&broker, &files).await.as_deref(), Ok(&bytes[..]));
    // A head that lies, or is none.
    let head = broker.subjects().files(&files.sha256);
    for (lie, how) in [
        (r#"{"state":"whole","bytes":18446744073709551615,"chunk":1}"#, "are stored instead of"),
        (r#"{"state":"whole","bytes":600000,"chunk":0}"#, "it cannot have"),
        (r#"{"state":"whole","bytes":600000,"chunk":1}"#, "it cannot have"),
        (r#"{"state":"whole","bytes":600000,"chunk":300000}"#, "chunk 1 of 2 has 262144 bytes"),
    ] {
        server.client().await.request(head.clone(), lie.into()).await.expect("stored");
        damaged(how).await;
    }
    server.client().await.request(head.clone(), "garbage".into()).await.expect("stored");
    assert_eq!(read(&broker, &files).await, Err(FilesFault::Missing));
    broker.store_files(&files, &bytes).await.expect("stored");
    assert_eq!(read(&broker, &files).await.as_deref(), Ok(&bytes[..]));
}

#[tokio::test]
async fn what_nothing_needs_leaves_once_it_is_old() {
    const HOUR: Duration = Duration::from_secs(3600);
    let server = Server::start().await;
    let broker = server.broker().await;
    let (needed, kept) = archive(4, 300_000);
    let (other, bytes) = archive(5, 300_000);
    for (files, bytes) in [(&needed, &kept), (&other, &bytes)] {
        broker.store_files(files, bytes).await.expect("stored");
    }
    // Storing this one was interrupted.
    let (half, _) = archive(6, 300_000);
    overwrite(&server, &broker, &half, 0, b"a part").await;
    let needs: BTreeSet<Sha256> = [needed.sha256.clone()].into();
    assert_eq!(broker.collect_files(&needs, HOUR).await.expect("an answer"), 0, "all are young");
    assert_eq!(state(&server).await.0, 7);
    assert_eq!(broker.collect_files(&needs, Duration::ZERO).await.expect("an answer"), 2);
    assert_eq!(state(&server).await.0, 3);
    assert_eq!(read(&broker, &needed).await.as_deref(), Ok(&kept[..]));
    assert_eq!(read(&broker, &other).await, Err(FilesFault::Missing));
    // It comes back, also where its removal was interrupted.
    let head = broker.subjects().files(&other.sha256);
    let mark = r#"{"state":"leaving"}"#;
    server.client().await.request(head, mark.into()).await.expect("stored");
    assert_eq!(read(&broker, &other).await, Err(FilesFault::Missing));
    assert!(!broker.has_files(&other).await.expect("an answer"));
    assert!(broker.store_files(&other, &bytes).await.expect("stored"));
    assert_eq!(read(&broker, &other).await.as_deref(), Ok(&bytes[..]));
}

/// One stores an archive over and over, another one removes it whenever it can: what was said to be stored is there, until it is removed as
/// a whole.
#[tokio::test]
async fn an_archive_that_is_stored_and_removed_at_once_is_never_half_there() {
    let server = Server::start().await;
    let (one, other) = (server.broker().await, server.broker().await);
    let (files, bytes) = archive(7, 600_000);
    let storing = async {
        for _ in 0..20 {
            soon(one.store_files(&files, &bytes)).await.expect("stored");
            match read(&one, &files).await {
                Ok(read) => assert_eq!(read, bytes),
                Err(fault) => {
                    // Removed while it was being read: then it is missing by now, or was stored again by nobody.
                    assert!(!one.has_files(&files).await.expect("an answer"), "{fault:?}");
                }
            }
        }
    };
    let removing = async {
        loop {
            other.collect_files(&BTreeSet::new(), Duration::ZERO).await.expect("an answer");
        }
    };
    tokio::select! {
        () = storing => {}
        () = removing => {}
    }
    soon(one.store_files(&files, &bytes)).await.expect("stored");
    assert_eq!(read(&one, &files).await.as_deref(), Ok(&bytes[..]));
}
