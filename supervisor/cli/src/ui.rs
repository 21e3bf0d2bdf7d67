//! `mozart ui`: a link that signs a browser in to the page of the API.

use std::io::IsTerminal as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use broker::{Attempt as _, Broker};
use clap::Args;
use common::api::ApiError;
use common::tokens;
use common::{SenderName, failure};
use mozart_client::links;
use runtime::home::{API_TOKEN, Home};
use serde::Serialize;
use tokio::process::Command;

use super::client::Client;
use super::output;
use crate::args::Global;

/// What opens a link on a desktop.
const OPENER: &str = "xdg-open";

/// `mozart ui`.
#[derive(Debug, Args)]
pub struct UiArgs {
    /// The token whose rights the browser gets [default: that of `mozart up` on this machine]
    #[arg(long, value_name = "NAME")]
    token: Option<SenderName>,
    /// Where the API is [default: that of `mozart up` on this machine]
    #[arg(long, value_name = "URL", value_parser = url)]
    url: Option<String>,
    /// Only print the link; it is opened where there is a desktop
    #[arg(long)]
    no_open: bool,
}

fn url(text: &str) -> Result<String, &'static str> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        Some(_) | None => Err("expected http://HOST:PORT or https://HOST"),
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    url: &'a str,
    token: &'a SenderName,
}

/// Prints a link, and opens it where there is a desktop.
///
/// # Errors
/// 3 when there is no such token; 6 when no API is known.
pub(crate) async fn run(global: &Global, args: &UiArgs) -> Result<u8, ApiError> {
    const WHAT: &str = "cannot make a link";
    let home = Home::locate(global.home.as_deref())?;
    let base = match &args.url {
        Some(url) => url.clone(),
        None => home.read_running()?.and_then(|running| running.api).ok_or_else(|| {
            let cause = "nothing that `mozart up` runs here has an API";
            let try_ = "`mozart up`; or --url URL --token NAME for an API elsewhere";
            failure::error(failure::UNREACHABLE, WHAT, cause, try_)
        })?,
    };
    let name = match &args.token {
        Some(name) => name.clone(),
        None => own(&home).ok_or_else(|| {
            let cause = format!("{} holds no token", home.dir.join(API_TOKEN).display());
            failure::error(failure::USAGE, WHAT, cause, "--token NAME; `mozart token ls`")
        })?,
    };
    let client = Client::to_change(global).await?;
    let token = client.broker.token_named(&name).await.attempt(WHAT)?;
    let token = token.filter(|token| !token.has_expired(mozart_client::now()));
    let token = token.ok_or_else(|| {
        let cause = format!("there is no token {name}, or it has expired");
        failure::error(failure::NOT_FOUND, WHAT, cause, "`mozart token ls`")
    })?;
    let secret = links::create(&client.broker, &token).await?;
    let link = format!("{base}/sign-in/{secret}");
    if client.json() {
        return output::json(&Made { url: &link, token: &name }).map(|()| 0);
    }
    output::line(&link)?;
    let minutes = links::USABLE.as_secs() / 60;
    output::note(format!(
        "it signs one browser in as {name}, with scope {}; it works once, within {minutes} minutes",
        token.scope
    ));
    if !args.no_open && std::io::stdout().is_terminal() && has_desktop() {
        open(&home, &link, &client.broker, &secret).await;
    }
    Ok(0)
}

/// The token of the data folder.
fn own(home: &Home) -> Option<SenderName> {
    let text = std::fs::read_to_string(home.dir.join(API_TOKEN)).ok()?;
    tokens::name_in(text.trim())
}

fn has_desktop() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

/// How long a browser may take to start and to follow the link.
const OPENED: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(500);

/// A page that leads to a link. What a program is started with, everybody on this machine can read: so it is started with the path of
/// this file, which only this user can read.
fn page(link: &str) -> String {
    // An address and a secret: nothing in it ends the attribute. It is made sure of nevertheless.
    let link = link.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>Mozart</title>\
         <meta name=\"referrer\" content=\"no-referrer\"><meta http-equiv=\"refresh\" content=\"0;url={link}\">\
         <p><a href=\"{link}\">Sign in</a></p></html>\n"
    )
}

/// Removes such files that a process has left which was killed: their links are of no use any more.
fn tidy(home: &Home) {
    for entry in std::fs::read_dir(&home.dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours =
            name.to_str().is_some_and(|name| name.starts_with("ui-") && name.ends_with(".html"));
        let age = entry.metadata().and_then(|file| file.modified()).map(|at| at.elapsed());
        if is_ours && age.is_ok_and(|age| age.is_ok_and(|age| age > links::USABLE)) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Opens a link, by way of a file that is there until it is used. It is printed already: that it cannot be opened is no error.
async fn open(home: &Home, link: &str, broker: &Broker, secret: &str) {
    tidy(home);
    let name = format!("ui-{}.html", uuid::Uuid::now_v7().simple());
    let file = home.dir.join(&name);
    if home.create().is_err() || home.put(&name, page(link).as_bytes()).is_err() {
        output::note("it cannot be opened by itself: the data folder does not take a file");
        return;
    }
    // A browser that it becomes is left alone.
    let mut command = Command::new(OPENER);
    command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(_opener) = command.spawn() {
        let until = Instant::now() + OPENED;
        while Instant::now() < until && links::is_open(broker, secret).await {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _asked = tokio::signal::ctrl_c() => break,
            }
        }
    }
    drop(std::fs::remove_file(&file));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_leads_to_the_link_and_nowhere_else() {
        let html = page("http://127.0.0.1:4141/sign-in/aa");
        assert!(html.contains("content=\"0;url=http://127.0.0.1:4141/sign-in/aa\""), "{html}");
        let html = page("http://x\"><script>&");
        assert!(!html.contains("<script>") && html.contains("x&quot;>&lt;script>&amp;"), "{html}");
    }

    #[test]
    fn the_address_of_an_api_is_a_url() {
        assert_eq!(url("http://127.0.0.1:4141/"), Ok("http://127.0.0.1:4141".to_owned()));
        assert_eq!(url("https://mozart.example"), Ok("https://mozart.example".to_owned()));
        for bad in ["", "127.0.0.1:4141", "http://", "file:///x"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
