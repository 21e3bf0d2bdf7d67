//! What can be asked for, by path.

mod a2a;
mod agents;
mod dead;
mod fleet;
mod fold;
mod mcp;
mod messages;
mod openai;
mod questions;
mod responses;
mod schedules;

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware};
use common::failure;
use mozart_client::stream::Line;
use serde::de::DeserializeOwned;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;
use crate::gate;
use crate::problem::{Document, Problem};

pub(crate) use messages::one as message;

/// Where clients of OpenAI's API look, and expect its errors.
pub(crate) const OPENAI: &str = "/v1/";
/// Where it is told whether we serve.
pub(crate) const HEALTH: &str = "/api/v1/health";
/// Items of a page, unless fewer are asked for, and at most.
const PAGE: usize = 100;
const MOST: usize = 1_000;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mozart",
        description = "Agents, messages, streams of answers, dead letters and the fleet. Every answer is the JSON that the command line prints with `-o json`; errors are problem documents (RFC 9457). Lists are in pages: the header `Link` names the next one.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Document, Line)),
    security(("token" = [])),
    modifiers(&Token)
)]
struct Doc;

struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of `mozart token create`."))
            .build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// All routes, and the document about them.
fn documented() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(health))
        .routes(routes!(openapi))
        .merge(agents::router())
        .merge(messages::router())
        .merge(dead::router())
        .merge(questions::router())
        .merge(fleet::router())
        .merge(openai::router())
        .merge(a2a::router())
        .merge(responses::router())
        .merge(schedules::router())
}

pub(crate) fn router(api: Api) -> Router {
    let (router, _) = documented().split_for_parts();
    router
        .merge(mcp::router(&api))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(Api::clone(&api), gate::gate))
        .merge(crate::page::router(&api))
        .layer(middleware::from_fn_with_state(Api::clone(&api), counted))
        .with_state(api)
}

/// Counts what is answered, whatever it is.
async fn counted(State(api): State<Api>, request: Request, next: middleware::Next) -> Response {
    let begun = std::time::Instant::now();
    let response = next.run(request).await;
    if let Some(metrics) = &api.metrics {
        metrics.answered(response.status().as_u16(), begun.elapsed());
    }
    response
}

/// Tells whether this process reaches the broker; needs no token
#[utoipa::path(get, path = "/api/v1/health", tag = "fleet", security(()),
    responses((status = 204, description = "it does"), (status = 503, description = "it does not", body = Document)))]
async fn health(State(api): State<Api>) -> Result<StatusCode, Problem> {
    if api.client.broker.link().borrow().up {
        return Ok(StatusCode::NO_CONTENT);
    }
    let try_ = "it reconnects by itself; `mozart doctor --only broker`";
    let cause = "the connection is down";
    Err(failure::error(failure::UNREACHABLE, "the broker cannot be reached", cause, try_).into())
}

/// This document
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "fleet",
    responses((status = 200, description = "an OpenAPI 3.1 document", body = Object)))]
async fn openapi(_caller: crate::caller::Caller) -> Json<utoipa::openapi::OpenApi> {
    Json(documented().split_for_parts().1)
}

async fn nowhere(uri: Uri) -> Problem {
    let cause = format!("there is nothing at {:?}", uri.path());
    let try_ = "/api/v1/openapi.json lists what there is";
    failure::error(failure::NOT_FOUND, "no such path", cause, try_).into()
}

async fn not_so(method: axum::http::Method, uri: Uri) -> Problem {
    let cause = format!("{:?} does not take {method}", uri.path());
    Problem::usage("no such method", cause, "/api/v1/openapi.json lists what there is")
        .with(StatusCode::METHOD_NOT_ALLOWED)
}

/// The parameters of a request.
#[derive(Debug)]
struct Params<T>(T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let read: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, api).await;
        let refused = |error: QueryRejection| {
            let try_ = "/api/v1/openapi.json describes them";
            Problem::usage("the parameters are not understood", error.body_text(), try_)
        };
        read.map(|Query(params)| Self(params)).map_err(refused)
    }
}

/// The JSON body of a request; nothing is an empty object.
#[derive(Debug)]
struct Given<T>(T);

impl<T: DeserializeOwned> FromRequest<Api> for Given<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _api: &Api) -> Result<Self, Problem> {
        // A form of another page cannot send it without being asked for first.
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_json = kind.is_some_and(|kind| {
            kind.split(';')
                .next()
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        });
        let has_kind = kind.is_some();
        let bytes = gate::body(request.into_body()).await?;
        if bytes.is_empty() {
            return parse(b"{}");
        }
        if !is_json {
            let cause =
                if has_kind { "its Content-Type is another" } else { "it has no Content-Type" };
            let problem =
                Problem::usage("the body is not JSON", cause, "Content-Type: application/json");
            return Err(problem.with(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        parse(&bytes)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Given<T>, Problem> {
    serde_json::from_slice(bytes).map(Given).map_err(|error| {
        Problem::usage("the body is not understood", error, "/api/v1/openapi.json describes it")
    })
}

/// A name in a path or a parameter.
pub(crate) fn named<T: FromStr<Err: Display>>(text: &str) -> Result<T, Problem> {
    let what = format!("{text:?} is no name");
    text.parse().map_err(|cause| Problem::usage(what, cause, "check the spelling"))
}

/// A time such as `30s`.
fn time(text: &str) -> Result<std::time::Duration, Problem> {
    let what = format!("{text:?} is no time");
    humantime::parse_duration(text)
        .map_err(|cause| Problem::usage(what, cause, "a time such as 30s"))
}

/// How many items a page has.
fn page(limit: Option<usize>) -> usize {
    limit.unwrap_or(PAGE).clamp(1, MOST)
}

/// A page of a list, and where the next one begins.
struct Page<T> {
    items: T,
    /// The parameter that the next page is asked for with; none if this is the last.
    next: Option<(&'static str, String)>,
    uri: Uri,
}

impl<T: serde::Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.items).into_response();
        if let Some((name, value)) = self.next {
            let others = self.uri.query().unwrap_or_default().split('&');
            let others =
                others.filter(|one| !one.is_empty() && one.split('=').next() != Some(name));
            let query: Vec<_> =
                others.map(str::to_owned).chain([format!("{name}={value}")]).collect();
            let link = format!("<{}?{}>; rel=\"next\"", self.uri.path(), query.join("&"));
            if let Ok(link) = HeaderValue::from_str(&link) {
                response.headers_mut().insert(header::LINK, link);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_route_and_what_each_may_answer() {
        let (_, document) = documented().split_for_parts();
        let document = serde_json::to_value(document).expect("plain");
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
        let paths = document["paths"].as_object().expect("paths");
        let has =
            |path: &str, method: &str| paths.get(path).is_some_and(|at| at.get(method).is_some());
        // All that are routed come from the same list; that none is left out of it is seen here.
        let expected = [
            ("/api/v1/health", &["get"][..]),
            ("/api/v1/openapi.json", &["get"]),
            ("/api/v1/agents", &["get", "post"]),
            ("/api/v1/agents/{agent}", &["get", "delete"]),
            ("/api/v1/agents/{agent}/start", &["post"]),
            ("/api/v1/agents/{agent}/stop", &["post"]),
            ("/api/v1/agents/{agent}/restart", &["post"]),
            ("/api/v1/agents/{agent}/replace", &["post"]),
            ("/api/v1/agents/{agent}/rollback", &["post"]),
            ("/api/v1/agents/{agent}/generations", &["get"]),
            ("/api/v1/agents/{agent}/explanation", &["get"]),
            ("/api/v1/messages", &["get", "post"]),
            ("/api/v1/messages/{message}", &["get"]),
            ("/api/v1/messages/{message}/cancel", &["post"]),
            ("/api/v1/messages/{message}/explanation", &["get"]),
            ("/api/v1/messages/{message}/events", &["get"]),
            ("/api/v1/dead", &["get"]),
            ("/api/v1/dead/{message}", &["get", "delete"]),
            ("/api/v1/dead/{message}/redrive", &["post"]),
            ("/api/v1/questions", &["get"]),
            ("/api/v1/questions/{agent}/{message}/{request}/answer", &["post"]),
            ("/api/v1/schedules", &["get"]),
            ("/api/v1/agents/{agent}/schedules/{schedule}/history", &["get"]),
            ("/api/v1/agents/{agent}/schedules/{schedule}/run", &["post"]),
            ("/api/v1/agents/{agent}/schedules/{schedule}/pause", &["post"]),
            ("/api/v1/agents/{agent}/schedules/{schedule}/resume", &["post"]),
            ("/api/v1/fleet", &["get"]),
            ("/api/v1/nodes", &["get"]),
            ("/api/v1/nodes/{node}", &["get"]),
            ("/api/v1/nodes/{node}/drain", &["post"]),
            ("/api/v1/nodes/{node}/undrain", &["post"]),
            ("/api/v1/events", &["get"]),
            ("/v1/models", &["get"]),
            ("/v1/models/{model}", &["get"]),
            ("/v1/chat/completions", &["post"]),
            ("/.well-known/agent-card.json", &["get"]),
            ("/a2a/{agent}/.well-known/agent-card.json", &["get"]),
            ("/a2a/{agent}", &["post"]),
            ("/v1/responses", &["post"]),
            ("/v1/responses/{response}", &["get"]),
            ("/v1/responses/{response}/cancel", &["post"]),
            ("/v1/responses/{response}/input_items", &["get"]),
        ];
        for (path, methods) in expected {
            for method in methods {
                assert!(has(path, method), "{method} {path}");
            }
        }
        assert_eq!(paths.len(), expected.len(), "{:?}", paths.keys());
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().expect("operations") {
                let responses = operation["responses"].as_object().expect("responses");
                assert!(!responses.is_empty(), "{method} {path}");
            }
        }
        assert!(document["components"]["securitySchemes"]["token"].is_object());
    }
}
