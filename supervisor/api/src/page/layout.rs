//! What is around every screen.

use axum::http::Uri;
use common::api::ApiError;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::parts::{Context, command};
use super::screen::Loaded;
use super::{Visit, live};

const SCREENS: [(&str, &str); 3] =
    [("/", "Fleet"), ("/attention", "Attention"), ("/system", "System")];

/// What was done, by the forms that come back.
fn done(uri: &Uri) -> Option<&'static str> {
    let action = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("done="))?;
    Some(match action {
        "start" => "Start requested.",
        "stop" => "Stop requested.",
        "restart" => "Restart requested.",
        "replace" => "Replacement requested.",
        "rollback" => "Rollback requested.",
        "cancel" => "The message is cancelled.",
        "redrive" => "The message was sent again: this is the new one.",
        "drop" => "The dead letter is removed.",
        "answer" => "The answer is stored: the agent goes on.",
        "drain" => "Drain requested.",
        "undrain" => "The node takes agents again.",
        _ => return None,
    })
}

/// Another path of this page, which has a query, that says the same of what was done.
pub(super) fn still_done(path: &str, uri: &Uri) -> String {
    let mut pairs = uri.query().into_iter().flat_map(|query| query.split('&'));
    match pairs.find(|pair| pair.starts_with("done=")).filter(|_| done(uri).is_some()) {
        Some(done) => format!("{path}&{done}"),
        None => path.to_owned(),
    }
}

fn page(title: &str, known: Option<&str>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Mozart" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/page.css";
                script type="module" src="/assets/page.js" {}
            }
            body data-known=[known] { (body) }
        }
    }
}

fn top(visit: &Visit, path: &str) -> Markup {
    let token = &visit.caller.token;
    html! {
        a class="skip" href="#main" { "Skip to the content" }
        header {
            nav aria-label="Screens" {
                @for (to, name) in SCREENS {
                    a href=(to) aria-current=[(to == path).then_some("page")] { (name) }
                }
            }
            form class="who" method="post" action="/sign-out" {
                input type="hidden" name="form" value=(visit.form);
                span { (token.name) " (" (token.scope) ")" }
                button type="submit" { "Sign out" }
            }
        }
    }
}

/// A screen.
pub(super) fn screen(visit: &Visit, uri: &Uri, loaded: &Loaded) -> Markup {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let context = Context { visit, path, is_live: false };
    let known = live::position(&context, loaded);
    let body = html! {
        (top(visit, uri.path()))
        @if let Some(done) = done(uri) { p class="done" role="status" { (done) } }
        p class="live" {
            noscript { "This page does not update itself without JavaScript: " a href=(path) { "reload" } "." }
            span id="live" role="status" {}
            " " span id="since" {}
            " " button type="button" id="pause" hidden { "Pause updates" }
        }
        // What could not be read of the screen, which stays as it was; and what is read out of it.
        p id="unread" class="trouble" role="status" hidden {}
        p id="told" class="hidden" role="status" {}
        main id="main" tabindex="-1" { (loaded.main(&context)) }
        footer { "Every action here is a command: " (command("mozart help")) }
    };
    page(&loaded.title(), Some(&known), &body)
}

/// A page about what went wrong.
pub(super) fn error(visit: Option<&Visit>, error: &ApiError) -> Markup {
    let body = html! {
        @if let Some(visit) = visit { (top(visit, "")) }
        main id="main" tabindex="-1" {
            h1 { (error.what) }
            p { (error.cause) }
            @if !error.try_.is_empty() { p { "Try: " (error.try_) } }
            p { a href="/" { "To the fleet" } }
        }
    };
    page("Error", None, &body)
}

/// The form for a token.
pub(super) fn sign_in(then: &str, refused: Option<&ApiError>) -> Markup {
    let body = html! {
        main id="main" tabindex="-1" class="sign-in" {
            h1 { "Mozart" }
            @if let Some(error) = refused {
                p class="trouble" role="alert" { strong { (error.what) } ": " (error.cause) }
            }
            p { (command("mozart ui")) " prints a link that signs you in. Or use a token:" }
            form method="post" action="/sign-in" {
                input type="hidden" name="then" value=(then);
                label for="token" { "Token" }
                input id="token" name="token" type="password" required autocomplete="current-password" spellcheck="false";
                button type="submit" { "Sign in" }
            }
            p { "Tokens are made by " (command("mozart token create NAME --scope read|send|operate")) "." }
        }
    };
    page("Sign in", None, &body)
}

/// The text of a stream's event: the screen's markup.
pub(super) fn main_of(context: &Context<'_>, loaded: &Loaded) -> String {
    let PreEscaped(markup) = loaded.main(context);
    markup
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_where_one_is_led() {
        let led = |uri: &str| still_done("/agents/a?conversation=c", &uri.parse().expect("a path"));
        assert_eq!(led("/agents/a"), "/agents/a?conversation=c");
        assert_eq!(led("/agents/a?done=stop"), "/agents/a?conversation=c&done=stop");
        assert_eq!(led("/agents/a?x=y&done=%0d%0aevil"), "/agents/a?conversation=c");
    }
}
