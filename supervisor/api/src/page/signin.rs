//! Signing in: with a link that `mozart ui` made, or with a token.

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use common::security::Refusal;
use common::tokens::Token;
use mozart_client::{links, now};
use serde::Deserialize;

use super::actions::Fields;
use super::{Visit, layout};
use crate::Api;
use crate::gate;
use crate::problem::Problem;

/// The longest form of somebody who shows no token yet, in bytes: nobody's memory is filled by people who are not known.
const FORM: usize = 4 << 10;
/// The longest place to go to afterwards.
const LONGEST: usize = 512;

#[derive(Debug, Deserialize)]
pub(super) struct Then {
    then: Option<String>,
}

/// The path of the form, from which one comes back.
pub(super) fn then(uri: &Uri) -> String {
    let back = uri.path_and_query().map_or("/", |path| path.as_str());
    if back == "/" {
        return "/sign-in".to_owned();
    }
    let encoded: String = back.bytes().map(encoded).collect();
    format!("/sign-in?then={encoded}")
}

fn encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

/// A place of this page; anything else is its beginning.
pub(super) fn local(path: Option<&str>) -> &str {
    let is_local = |path: &&str| {
        path.starts_with('/')
            && !path.starts_with("//")
            && path.len() <= LONGEST
            && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    path.filter(is_local).unwrap_or("/")
}

pub(super) async fn form(Query(Then { then }): Query<Then>) -> Html<String> {
    Html(layout::sign_in(local(then.as_deref()), None).into_string())
}

/// With a token, by the form.
pub(super) async fn with_token(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, Problem> {
    // There is no session yet whose forms could be told apart: what a page of another origin sends, the browser says.
    let is_own = request.headers().contains_key(header::ORIGIN);
    if !is_own {
        let cause = "the request does not say from which page it comes";
        return Err(Problem::denied("nobody is signed in", cause, "use the form at /sign-in"));
    }
    let fields = Fields::read(request, FORM).await?;
    let then = local(fields.get("then")).to_owned();
    match gate::shown(&api, fields.get("token").unwrap_or_default().trim()).await {
        Ok(token) => begun(&api, &token, &then).await,
        Err(problem) => {
            let html = layout::sign_in(&then, Some(problem.error())).into_string();
            Ok((StatusCode::UNAUTHORIZED, Html(html)).into_response())
        }
    }
}

/// With a link, once.
pub(super) async fn with_link(
    State(api): State<Api>,
    method: Method,
    Path(link): Path<String>,
) -> Result<Response, Problem> {
    // What only looks whether there is something, as programs do that show previews of links, does not use it up.
    if method != Method::GET {
        return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response());
    }
    match links::take(&api.client.broker, &link).await? {
        Some(token) => begun(&api, &token, "/").await,
        None => {
            let detail = "a link at the page: it was used before, or is too old";
            api.keys.refused(None, Refusal::Login, detail).await;
            let error = common::failure::error(
                common::failure::DENIED,
                "the link is refused",
                "it was used before, or is older than two minutes",
                "`mozart ui` for another one",
            );
            let html = layout::sign_in("/", Some(&error)).into_string();
            Ok((StatusCode::UNAUTHORIZED, Html(html)).into_response())
        }
    }
}

async fn begun(api: &Api, token: &Token, then: &str) -> Result<Response, Problem> {
    let cookie = api.sessions.begin(token, now(), api.is_encrypted).await?;
    Ok(set(Redirect::to(then).into_response(), &cookie))
}

pub(super) async fn out(
    State(api): State<Api>,
    visit: Visit,
    fields: Fields,
) -> Result<Response, Problem> {
    fields.check(&visit)?;
    let cookie = api.sessions.end(api.is_encrypted).await?;
    Ok(set(Redirect::to("/sign-in").into_response(), &cookie))
}

fn set(mut response: Response, cookie: &str) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_comes_back_to_this_page_alone() {
        for own in ["/", "/agents/a?conversation=c%40d", "/system"] {
            assert_eq!(local(Some(own)), own);
        }
        for other in ["", "//evil.example", "https://evil.example", "/\\evil", "/a b", "/a\nb"] {
            assert_eq!(local(Some(other)), "/", "{other:?}");
        }
        assert_eq!(local(None), "/");
        let uri: Uri = "/agents/a?conversation=c&x=%26".parse().expect("valid");
        assert_eq!(then(&uri), "/sign-in?then=/agents/a%3Fconversation%3Dc%26x%3D%2526");
    }
}
