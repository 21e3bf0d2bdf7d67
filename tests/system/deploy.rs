//! What `deploy/` offers is taken by the programs that it is for.

use std::fs;
use std::path::Path;
use std::process::Command;

use broker::{Accounts, AuthKey, User};
use system_tests::harness::{Hosts, flaky, nats_server};

use crate::cluster::start;

fn deploy(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test]
async fn nats_server_takes_the_configuration_of_a_cluster() {
    let Some(hosts) = Hosts::new(1, &[("a", &flaky(""))]) else { return };
    start(&hosts, 1).await;
    // Certificates as somebody would make them.
    let folder = hosts.host(0).home().join("nats");
    let conf = deploy("nats-cluster.conf").replace("/etc/nats", &folder.to_string_lossy());
    fs::write(folder.join("theirs.conf"), conf).expect("written");
    fs::write(folder.join("accounts.conf"), deploy("accounts.conf")).expect("written");
    let routes = "routes: [\"tls://routes:r@10.77.0.1:6222\", \"tls://routes:r@10.77.0.2:6222\"]";
    fs::write(folder.join("routes.conf"), routes).expect("written");
    let key = AuthKey::random();
    let checked = Command::new(nats_server())
        .arg("-t")
        .arg("-c")
        .arg(folder.join("theirs.conf"))
        .envs([("NATS_NAME", "n1"), ("NATS_HOST", "10.77.0.1"), ("NATS_PASSWORD", "p")])
        .env("NATS_ROUTES_PASSWORD", "r")
        .envs([("MOZART_AUTH_ISSUER", key.issuer()), ("MOZART_AUTH_XKEY", key.xkey())])
        .env("MOZART_AUTH_NOBODY", key.nobody())
        .output()
        .expect("it is there");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("is valid"), "{said}");
}

#[test]
fn the_accounts_are_those_that_up_writes() {
    let accounts = Accounts {
        fleet: User { name: "mozart".to_owned(), password: "$NATS_PASSWORD".to_owned() },
        system: None,
        issuer: "$MOZART_AUTH_ISSUER".to_owned(),
        xkey: "$MOZART_AUTH_XKEY".to_owned(),
        nobody: "$MOZART_AUTH_NOBODY".to_owned(),
        exports: &[],
        others: "",
        known: &[],
    };
    let file = deploy("accounts.conf");
    let without_comments = file.lines().skip_while(|line| line.starts_with('#'));
    let wanted = accounts.conf();
    assert!(without_comments.eq(wanted.lines()), "deploy/accounts.conf is to be:\n{wanted}");
}

#[test]
fn systemd_takes_the_units() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let units = ["mozart", "mozart-supervisor", "mozart-node", "mozart-api"].map(|unit| {
        // The program is not installed here.
        let unit = format!("{unit}.service");
        let text = deploy(&format!("systemd/{unit}")).replace("/usr/local/bin/mozart", "/bin/true");
        let path = folder.path().join(unit);
        fs::write(&path, text).expect("written");
        path
    });
    match Command::new("systemd-analyze").arg("verify").args(&units).output() {
        Ok(verified) => {
            let said = String::from_utf8_lossy(&verified.stderr);
            let about: Vec<_> = said.lines().filter(|line| line.contains("mozart")).collect();
            assert!(verified.status.success() && about.is_empty(), "{said}");
        }
        Err(error) => eprintln!("SKIPPED, since there is no systemd-analyze: {error}"),
    }
}
