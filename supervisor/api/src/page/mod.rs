//! The web page: complete as HTML with every answer, and kept up to date by one stream of events where JavaScript runs. It shows what the rest
//! of the API answers, and keeps nothing but what a browser shows it: a session, which is signed.

mod actions;
mod agent;
mod asked;
mod attention;
mod chat;
mod conversations;
mod fleet;
mod layout;
mod live;
mod message;
mod parts;
mod screen;
mod session;
mod shared;
mod signin;
mod system;
mod tabs;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use common::Timestamp;
use common::api::ApiError;
use mozart_client::now;

pub(crate) use session::Sessions;
pub(crate) use shared::Reads;

use crate::Api;
use crate::caller::Caller;
use crate::gate;
use crate::problem::Problem;
use screen::Screen;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Files of the page: the name, the type, the text.
const ASSETS: [(&str, &str, &str); 3] = [
    ("page.css", "text/css; charset=utf-8", include_str!("../../assets/page.css")),
    ("page.js", "text/javascript; charset=utf-8", include_str!("../../assets/page.js")),
    ("icon.svg", "image/svg+xml", include_str!("../../assets/icon.svg")),
];

/// The pages. They have a gate of their own.
pub(crate) fn router(api: &Api) -> Router<Api> {
    Router::new()
        .route("/", get(show))
        .route("/agents/{agent}", get(show))
        .route("/agents/{agent}/{part}", get(show).post(actions::agent))
        .route("/messages/{message}", get(find))
        .route("/messages/{agent}/{sender}/{message}", get(show))
        .route(
            "/messages/{agent}/{sender}/{message}/{action}",
            get(message::whole).post(actions::message),
        )
        .route("/attention", get(show))
        .route("/system", get(show))
        .route("/nodes/{node}/{action}", post(actions::node))
        .route("/questions/answer", post(actions::answer))
        .route("/live", get(live::follow))
        .route("/sign-in", get(signin::form).post(signin::with_token))
        .route("/sign-in/{link}", get(signin::with_link))
        .route("/sign-out", post(signin::out))
        .route("/assets/{file}", get(asset))
        .layer(middleware::from_fn_with_state(Api::clone(api), gate))
}

/// Whoever looks at a page.
#[derive(Debug, Clone)]
struct Visit {
    caller: Caller,
    /// What the forms of the session carry.
    form: String,
    /// When the session ends.
    until: Timestamp,
}

impl FromRequestParts<Api> for Visit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, Problem> {
        // The gate has put it there.
        parts.extensions.get::<Self>().cloned().ok_or_else(gate::no_token)
    }
}

/// What needs no session.
fn is_open(path: &str) -> bool {
    path == "/sign-in" || path.starts_with("/sign-in/") || path.starts_with("/assets/")
}

async fn gate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let mut visit = None;
    let passed = match gate::door(&api, &request) {
        Ok(()) => enter(&api, &mut request).await,
        Err(problem) => Err(problem),
    };
    let mut response = match passed {
        Ok(found) => {
            let uri = request.uri();
            if found.is_some() || is_open(uri.path()) {
                visit = found;
                next.run(request).await
            } else if uri.path() == live::PATH {
                StatusCode::UNAUTHORIZED.into_response()
            } else {
                Redirect::to(&signin::then(uri)).into_response()
            }
        }
        Err(problem) => problem.into_response(),
    };
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let html = layout::error(visit.as_ref(), &error).into_string();
        response = (response.status(), Html(html)).into_response();
    }
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        // Not `no-referrer`: then the forms of our own pages would come from nowhere.
        ("referrer-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Looks for the session of a request.
async fn enter(api: &Api, request: &mut Request) -> Result<Option<Visit>, Problem> {
    let session = api.sessions.of(&api.keys, request.headers(), now()).await?;
    let Some(session::Session { token, form, until }) = session else { return Ok(None) };
    let visit = Visit { caller: Caller::new(api, token), form, until };
    gate::count(api, &visit.caller)?;
    request.extensions_mut().insert(visit.clone());
    Ok(Some(visit))
}

/// Any of the screens.
async fn show(visit: Visit, uri: Uri) -> Result<Response, Problem> {
    let screen = Screen::of(&uri)?;
    if let Screen::Entry(agent) = &screen {
        visit.caller.reach(agent)?;
        // The path names the conversation from now on: what is seen is what is sent to, whichever others begin meanwhile.
        let path = chat::entry(&visit.caller, agent).await?;
        return Ok(Redirect::to(&layout::still_done(&path, &uri)).into_response());
    }
    let loaded = screen.load(&visit.caller, false).await?;
    Ok(Html(layout::screen(&visit, &uri, &loaded).into_string()).into_response())
}

/// A message by its id alone, or as the API takes it.
async fn find(visit: Visit, Path(message): Path<String>) -> Result<Redirect, Problem> {
    let found = crate::routes::message(&visit.caller, &message).await?;
    Ok(Redirect::to(&parts::message_path(&found.request.value.key())))
}

async fn asset(Path(file): Path<String>) -> Response {
    match ASSETS.iter().find(|(name, ..)| *name == file) {
        Some((_, kind, text)) => {
            let headers = [(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-cache")];
            (headers, *text).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
