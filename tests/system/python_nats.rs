//! Our own Python client against the fleet's NATS server: what it does over HTTP, and what only NATS can break.

use serde_json::json;
use system_tests::harness::{Child, Fleet, Output, Signal, StockClients, flaky, kill};

/// The address of a fleet's NATS server, with all rights.
fn url(fleet: &Fleet) -> String {
    let note = fleet.note().expect("`mozart up` runs");
    note["url"].as_str().expect("it has an address").to_owned()
}

/// The same without a login.
fn plain_url(fleet: &Fleet) -> String {
    let url = url(fleet);
    let host = url.rsplit_once('@').map_or(url.as_str(), |(_, host)| host);
    format!("nats://{}", host.trim_start_matches("nats://"))
}

fn check(programs: &StockClients, fleet: &Fleet, check: &str) -> Child {
    programs.start_with_own("python_check.py", &[check, &url(fleet)])
}

fn is_done(output: Output) {
    let lines = output.ok().json_lines();
    assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{lines:?}");
}

/// The credentials of a new user.
async fn user(fleet: &Fleet, args: &[&str]) -> String {
    let _added = fleet.cli([&["user", "add"], args].concat()).await.ok();
    let creds = fleet.souls().join(format!("{}.creds", args[0]));
    creds.to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn over_nats_the_python_client_does_what_it_does_over_http() {
    let Some(programs) = StockClients::find() else { return };
    let fleet = Fleet::with(&[("a", &flaky("CONCURRENCY 4"))]).await;
    is_done(check(&programs, &fleet, "everything").output().await);
    let home = fleet.home().to_str().expect("UTF-8");
    let said = programs.start_with_own("python_check.py", &["local", home, "nats"]).output().await;
    assert_eq!(said.ok().json()["agents"], json!(["a"]));
}

#[tokio::test]
async fn over_nats_the_python_client_works_on_a_journal_of_several_streams() {
    let Some(programs) = StockClients::find() else { return };
    let mut fleet = Fleet::new(&[("a", &flaky("CONCURRENCY 4"))]);
    fleet.up(&["--journal-shards", "3"]).await;
    let _row = fleet.wait_state("a", "running").await;
    is_done(check(&programs, &fleet, "everything").output().await);
    is_done(check(&programs, &fleet, "once").output().await);
    // They are the messages that the command line shows.
    let shown = fleet.json(["journal", "show", "a/user/once"]).await;
    assert_eq!((&shown["status"], &shown["response"]), (&"completed".into(), &"once".into()));
    let named = fleet.json(["journal", "ls", "--agent", "a", "--conversation", "c1"]).await;
    assert_eq!(named.as_array().map(Vec::len), Some(2), "{named}");
}

#[tokio::test]
async fn over_nats_the_python_client_means_its_own_message_where_another_has_its_id() {
    let Some(programs) = StockClients::find() else { return };
    let fleet = Fleet::with(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let _theirs = fleet.cli(["send", "b", "say theirs", "--id", "same", "--wait"]).await.ok();
    let creds = user(&fleet, &["ana", "--scope", "send"]).await;
    let args = ["namesakes", &plain_url(&fleet), &creds];
    is_done(programs.start_with_own("python_check.py", &args).output().await);
}

#[tokio::test]
async fn over_nats_the_python_client_has_every_event_once_however_often_it_is_cut_off() {
    let Some(programs) = StockClients::find() else { return };
    let fleet = Fleet::with(&[("a", &flaky("CONCURRENCY 4"))]).await;
    is_done(check(&programs, &fleet, "cut").output().await);
}

#[tokio::test]
async fn over_nats_the_python_client_has_every_event_once_when_the_broker_is_killed() {
    let Some(programs) = StockClients::find() else { return };
    let fleet = Fleet::with(&[("a", &flaky("CONCURRENCY 4"))]).await;
    let mut client = check(&programs, &fleet, "killed");
    for _stream in 0..2 {
        let _amid = client.json_until(|line| line["amid"].is_string()).await;
    }
    // `mozart up` starts it again.
    kill(fleet.nats_pid().expect("it runs"), Signal::KILL);
    is_done(client.output().await);
    let messages = fleet.json(["journal", "ls"]).await;
    assert_eq!(messages.as_array().map(Vec::len), Some(2), "{messages}");
}

#[tokio::test]
async fn over_nats_the_python_client_finds_what_has_left_the_journal() {
    let Some(programs) = StockClients::find() else { return };
    let mut fleet = Fleet::new(&[("a", &flaky("")), ("b", &flaky(""))]);
    fleet.up(&["--hot", "0s"]).await;
    let _row = fleet.wait_state("a", "running").await;
    is_done(check(&programs, &fleet, "archived").output().await);
}

#[tokio::test]
async fn over_nats_a_user_of_the_python_client_may_do_what_its_scope_says() {
    let Some(programs) = StockClients::find() else { return };
    let souls = [("a", &flaky("CONCURRENCY 8")[..]), ("b", &flaky(""))];
    let fleet = Fleet::with(&souls).await;
    let _theirs = fleet.cli(["send", "a", "sleep 60", "--id", "theirs"]).await.ok();
    let _done = fleet.cli(["send", "a", "say hi", "--id", "done", "--wait"]).await.ok();
    let creds = user(&fleet, &["ana", "--scope", "send", "--agent", "a"]).await;
    let args = ["user", &plain_url(&fleet), &creds];
    is_done(programs.start_with_own("python_check.py", &args).output().await);

    let creds = user(&fleet, &["rita", "--scope", "read"]).await;
    let args = ["reader", &plain_url(&fleet), &creds];
    let mut reader = programs.start_with_own("python_check.py", &args);
    let _may = reader.json_until(|line| line["may"] == "read").await;
    let _revoked = fleet.cli(["user", "revoke", "rita"]).await.ok();
    is_done(reader.output().await);
}
