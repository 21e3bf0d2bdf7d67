//! Errors as RFC 9457 problem documents, with what the command line says of them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use common::api::ApiError;
use common::failure;
use serde::Serialize;
use utoipa::ToSchema;

/// The media type.
const TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error, as it is answered.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: ApiError,
    /// In how many seconds it is worth another try.
    retry_after: Option<u64>,
    /// The code that OpenAI's API has for it.
    openai: Option<&'static str>,
}

/// The code that OpenAI's API has for an error.
#[derive(Debug, Clone, Copy)]
struct OpenAiCode(&'static str);

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document<'a> {
    /// The kind of error.
    r#type: String,
    /// What did not work, as `what`.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// Why, as `cause`.
    detail: &'a str,
    /// The exit code that the command line has for it.
    code: u8,
    /// What did not work.
    what: &'a str,
    /// Why.
    cause: &'a str,
    /// What to try.
    r#try: &'a str,
}

/// The kind of an error by its code, and the status that it is answered with.
fn kind(code: u8) -> (&'static str, StatusCode) {
    match code {
        failure::USAGE => ("usage", StatusCode::BAD_REQUEST),
        failure::NOT_FOUND => ("not-found", StatusCode::NOT_FOUND),
        failure::CONFLICT => ("conflict", StatusCode::CONFLICT),
        failure::TIMEOUT => ("timeout", StatusCode::GATEWAY_TIMEOUT),
        failure::UNREACHABLE => ("unreachable", StatusCode::SERVICE_UNAVAILABLE),
        failure::DENIED => ("denied", StatusCode::FORBIDDEN),
        failure::LIMIT => ("limit", StatusCode::INSUFFICIENT_STORAGE),
        _ => ("failed", StatusCode::INTERNAL_SERVER_ERROR),
    }
}

impl Problem {
    /// What is wrong with a request.
    pub(crate) fn usage(
        what: impl Into<String>,
        cause: impl std::fmt::Display,
        try_: impl Into<String>,
    ) -> Self {
        failure::error(failure::USAGE, what, cause, try_).into()
    }

    /// What the caller may not do.
    pub(crate) fn denied(
        what: impl Into<String>,
        cause: impl std::fmt::Display,
        try_: impl Into<String>,
    ) -> Self {
        failure::error(failure::DENIED, what, cause, try_).into()
    }

    /// The same error with another status.
    pub(crate) fn with(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same error with the code that OpenAI's API has for it.
    pub(crate) fn coded(mut self, code: &'static str) -> Self {
        self.openai = Some(code);
        self
    }

    /// A limit of the door, and in how many seconds it is worth another try.
    pub(crate) fn limit(
        status: StatusCode,
        what: &str,
        cause: impl std::fmt::Display,
        try_: &str,
        retry_after: Option<u64>,
    ) -> Self {
        let error = failure::error(failure::LIMIT, what, cause, try_);
        Self { status, error, retry_after, openai: None }
    }

    /// The document.
    fn document(&self) -> Document<'_> {
        let ApiError { code, what, cause, try_ } = &self.error;
        Document {
            r#type: format!("urn:mozart:error:{}", kind(*code).0),
            title: what,
            status: self.status.as_u16(),
            detail: cause,
            code: *code,
            what,
            cause,
            r#try: try_,
        }
    }

    /// What did not work, why, and what to try.
    pub(crate) fn error(&self) -> &ApiError {
        &self.error
    }

    /// The whole answer as it is on the wire: for connections that have no request yet. Then they are closed.
    pub(crate) fn raw(&self) -> String {
        let body = serde_json::to_string(&self.document()).unwrap_or_default();
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.status.as_u16(),
            self.status.canonical_reason().unwrap_or_default(),
            body.len()
        )
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let status = kind(error.code).1;
        Self { status, error, retry_after: None, openai: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.document())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, TYPE);
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(code) = self.openai {
            response.extensions_mut().insert(OpenAiCode(code));
        }
        response.extensions_mut().insert(self.error);
        response
    }
}

/// An answer to a client of OpenAI's API: an error is one of that.
pub(crate) fn for_openai(response: Response) -> Response {
    let Some(error) = response.extensions().get::<ApiError>() else { return response };
    let status = response.status();
    let (kind, code) = match status {
        StatusCode::UNAUTHORIZED => ("invalid_request_error", Some("invalid_api_key")),
        StatusCode::TOO_MANY_REQUESTS => ("requests", Some("rate_limit_exceeded")),
        status if status.is_client_error() => ("invalid_request_error", None),
        _ => ("server_error", None),
    };
    let code = response.extensions().get::<OpenAiCode>().map(|code| code.0).or(code);
    let parts = [("", &error.what), ("", &error.cause), ("try ", &error.try_)];
    let said = parts.iter().filter(|(_, part)| !part.is_empty());
    let message =
        said.map(|(before, part)| format!("{before}{part}")).collect::<Vec<_>>().join("; ");
    let body = serde_json::json!({
        "error": { "message": message, "type": kind, "param": null, "code": code }
    });
    let mut answer = (status, Json(body)).into_response();
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_the_command_line_says() {
        let problem = Problem::from(failure::error(failure::CONFLICT, "no", "why", "`this`"));
        assert_eq!(problem.status, StatusCode::CONFLICT);
        assert_eq!(
            serde_json::to_value(problem.document()).expect("plain"),
            serde_json::json!({
                "type": "urn:mozart:error:conflict", "title": "no", "status": 409, "detail": "why",
                "code": 4, "what": "no", "cause": "why", "try": "`this`",
            })
        );
        let raw = problem.raw();
        let (head, body) = raw.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    }
}
