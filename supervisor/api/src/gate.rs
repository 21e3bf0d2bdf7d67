//! What every request passes before it is looked at: the names under which we are reached, the token, and how often it comes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use common::security::Refusal;
use common::tokens::Token;

use crate::Api;
use crate::caller::Caller;
use crate::keys::Wrong;
use crate::problem::Problem;

/// The longest body, in bytes: a message of 1 MiB whose characters are escaped.
pub(crate) const BODY: usize = 8 << 20;
/// How long a request may take to come in.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// Without a token.
pub(crate) fn no_token() -> Problem {
    Problem::denied(
        "no token is shown",
        "the request has no header `Authorization: Bearer TOKEN`",
        "`mozart token create NAME --scope send`",
    )
    .with(StatusCode::UNAUTHORIZED)
}

/// Lets a request in, or says why not.
pub(crate) async fn gate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let is_openai = request.uri().path().starts_with(crate::routes::OPENAI);
    let passed = pass(&api, &mut request).await;
    let mut response = match passed {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if is_openai {
        response = crate::problem::for_openai(response);
    }
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What everybody's requests must be.
///
/// # Errors
/// 421 and 403 for another host and for a page of another origin; 413 when it says that it is too long.
pub(crate) fn door(api: &Api, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = is_known_host(headers, authority, &api.hosts)?;
    is_known_origin(headers, host, &api.origins)?;
    match length(headers).filter(|bytes| *bytes > BODY as u64) {
        Some(bytes) => Err(too_long(format!("it has {bytes} bytes"))),
        None => Ok(()),
    }
}

/// Counts a request of a caller.
///
/// # Errors
/// 429 when it has made more than it may.
pub(crate) fn count(api: &Api, caller: &Caller) -> Result<(), Problem> {
    api.quotas.request(caller.name(), Instant::now()).map_err(|wait| {
        Problem::limit(
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests",
            format!("token {} has made more than it may in so short a time", caller.name()),
            "wait as long as Retry-After says",
            Some(wait.as_secs() + 1),
        )
    })
}

async fn pass(api: &Api, request: &mut Request) -> Result<(), Problem> {
    door(api, request)?;
    let headers = request.headers();
    // Whether we are here is no secret.
    if request.uri().path() == crate::routes::HEALTH {
        return Ok(());
    }
    let caller = caller(api, headers).await?;
    count(api, &caller)?;
    request.extensions_mut().insert(caller);
    Ok(())
}

/// That a body is too long.
pub(crate) fn too_long(cause: String) -> Problem {
    Problem::limit(
        StatusCode::PAYLOAD_TOO_LARGE,
        "the request is too large",
        format!("{cause}, at most {BODY} fit"),
        "send a reference to the data instead",
        None,
    )
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn caller(api: &Api, headers: &HeaderMap) -> Result<Caller, Problem> {
    let value = headers.get(header::AUTHORIZATION).ok_or_else(no_token)?;
    let (scheme, text) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(no_token)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(no_token());
    }
    Ok(Caller::new(api, shown(api, text.trim()).await?))
}

/// The token of a text.
///
/// # Errors
/// 401 when there is none, which is put on record.
pub(crate) async fn shown(api: &Api, text: &str) -> Result<Token, Problem> {
    let wrong = match api.keys.token(text).await? {
        Ok(token) => return Ok(token),
        Err(wrong) => wrong,
    };
    let (cause, try_) = match wrong {
        Wrong::Unknown => ("there is no such token, or it was revoked", "`mozart token ls`"),
        Wrong::Expired => ("it has expired", "`mozart token create`"),
    };
    api.keys
        .refused(
            common::tokens::name_in(text),
            Refusal::Login,
            &format!("a token at the API: {cause}"),
        )
        .await;
    Err(Problem::denied("the token is refused", cause, try_).with(StatusCode::UNAUTHORIZED))
}

/// A page of another host that this host's resolver was made to name as ours must not reach us through a browser here: we are reached by
/// address, as `localhost`, or under the names that were given.
fn is_known_host<'a>(
    headers: &'a HeaderMap,
    authority: Option<&'a str>,
    known: &[String],
) -> Result<&'a str, Problem> {
    let host = match headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => authority,
    };
    let host = host.unwrap_or_default();
    let name = without_port(host);
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if is_address
        || name.eq_ignore_ascii_case("localhost")
        || known.iter().any(|one| one.eq_ignore_ascii_case(name))
    {
        return Ok(host);
    }
    Err(Problem::denied(
        "the host is not known",
        format!("the request is for {name:?}"),
        "an address, `localhost`, or start the API with --host NAME",
    )
    .with(StatusCode::MISDIRECTED_REQUEST))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        Some(_) | None => host,
    }
}

/// A page of another origin does not use us, unless it is known.
fn is_known_origin(headers: &HeaderMap, host: &str, known: &[String]) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if own.is_some_and(|own| own.eq_ignore_ascii_case(host))
        || known.iter().any(|one| one == origin)
    {
        return Ok(());
    }
    Err(Problem::denied(
        "the origin is not allowed",
        format!("the request comes from a page of {origin:?}"),
        "start the API with --origin ORIGIN",
    ))
}

/// The body of a request.
///
/// # Errors
/// 413 when it is too long, 408 when it takes too long.
pub(crate) async fn body(body: axum::body::Body) -> Result<axum::body::Bytes, Problem> {
    body_of(body, BODY).await
}

/// The same, of so many bytes at most.
///
/// # Errors
/// As [`body`].
pub(crate) async fn body_of(
    body: axum::body::Body,
    most: usize,
) -> Result<axum::body::Bytes, Problem> {
    let read = tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, most)).await;
    match read {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.to_string().contains("length limit") => {
            Err(too_long("it has more bytes than it may".to_owned()))
        }
        Ok(Err(error)) => Err(Problem::usage("the request cannot be read", error, "send it again")),
        Err(_) => Err(slow("its body did not come within a minute")),
    }
}

/// That a request takes too long.
pub(crate) fn slow(cause: &str) -> Problem {
    let (what, try_) = ("the request takes too long", "send it again, faster");
    Problem::limit(StatusCode::REQUEST_TIMEOUT, what, cause, try_, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: header::HeaderName = name.parse().expect("valid");
            headers.insert(name, value.parse().expect("valid"));
        }
        headers
    }

    #[test]
    fn only_known_names_are_ours() {
        let known = ["api.example.com".to_owned()];
        let is_known =
            |host: &str| is_known_host(&headers(&[("host", host)]), None, &known).is_ok();
        for ours in [
            "127.0.0.1:4141",
            "localhost",
            "LOCALHOST:1",
            "[::1]:4141",
            "::1",
            "10.0.0.1",
            "api.example.com:443",
        ] {
            assert!(is_known(ours), "{ours}");
        }
        for others in [
            "",
            "evil.example",
            "127.0.0.1.evil.example:4141",
            "localhost.evil",
            "api.example.com.evil:443",
            "localhost:x",
        ] {
            assert!(!is_known(others), "{others}");
        }
        assert!(is_known_host(&HeaderMap::new(), None, &known).is_err());
    }

    #[test]
    fn pages_of_others_are_refused() {
        let known = ["https://app.example.com".to_owned()];
        let is_known = |origin: &str| {
            is_known_origin(&headers(&[("origin", origin)]), "127.0.0.1:4141", &known).is_ok()
        };
        assert!(is_known("http://127.0.0.1:4141") && is_known("https://app.example.com"));
        for others in [
            "null",
            "http://127.0.0.1:8080",
            "https://evil.example",
            "http://app.example.com",
            "127.0.0.1:4141",
        ] {
            assert!(!is_known(others), "{others}");
        }
        assert!(is_known_origin(&HeaderMap::new(), "127.0.0.1:4141", &known).is_ok(), "no page");
    }
}
