//! The tools: what they are called, what they take, and how they are called.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use common::api::ApiError;
use common::failure;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, Implementation, JsonObject,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProgressToken,
    ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::{Peer, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::shown::{
    AgentLogs, Agents, AnswerQuestion, Answered, AskAgent, CancelMessage, Cancelled, Explain,
    Explained, ListAgents, ListQuestions, Logs, Message, MessageStatus, Questions,
};
use crate::who::Who;
use crate::{ask, asked, fleet};

const INSTRUCTIONS: &str = "Mozart runs long-lived agents. list_agents shows them, ask_agent sends one a message and waits for the answer. \
A message is stored before it is worked on and is never lost: where there is no answer in time, message_status waits on, also in a later \
session. explain says why an agent or a message is as it is, and what to try. list_questions shows what agents wait for people to answer.";

/// The tools, and who uses them.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Whoever uses them; none: each request says so.
    who: Option<Who>,
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The arguments are wrong.
    Arguments(String),
    /// It did not work.
    Failed(ApiError),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// A name among the arguments.
pub(crate) fn named<T: FromStr<Err: Display>>(text: &str) -> Result<T, Refused> {
    let refused = |cause: T::Err| {
        let what = format!("{text:?} is no name");
        Refused::Failed(failure::error(failure::USAGE, what, cause, "check the spelling"))
    };
    text.parse().map_err(refused)
}

/// The request that a tool is called with.
pub(crate) struct Call {
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    cancelled: CancellationToken,
}

impl Call {
    /// When nobody waits any more.
    pub(crate) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Tells whoever waits how far it is, if they want to know.
    pub(crate) async fn progress(&self, elapsed: Duration, wait: Duration, said: String) {
        let Some(token) = self.token.clone() else { return };
        let mut told = ProgressNotificationParam::new(token, elapsed.as_secs_f64());
        told.total = Some(wait.as_secs_f64());
        told.message = Some(said);
        // Nobody who reads it: then the call is cancelled, which is seen elsewhere.
        let _told = self.peer.notify_progress(told).await;
    }
}

fn tool<In: JsonSchema + 'static, Out: JsonSchema + 'static>(
    name: &'static str,
    description: &'static str,
    annotations: ToolAnnotations,
) -> Tool {
    Tool::new(name, description, JsonObject::new())
        .with_input_schema::<In>()
        .with_output_schema::<Out>()
        .with_annotations(annotations)
}

fn all() -> Vec<Tool> {
    let reads = || ToolAnnotations::new().read_only(true).open_world(false);
    vec![
        tool::<ListAgents, Agents>(
            "list_agents",
            "Lists the agents of the fleet: their states, and how many messages wait for each.",
            reads(),
        ),
        tool::<AskAgent, Message>(
            "ask_agent",
            "Sends a message to an agent and waits for its answer. The message is stored first and goes on when the wait ends: if the state \
             is queued or running, call message_status with its id.",
            ToolAnnotations::new()
                .read_only(false)
                .destructive(false)
                .idempotent(false)
                .open_world(true),
        ),
        tool::<MessageStatus, Message>(
            "message_status",
            "Tells how far a message is, with its answer or the text so far, and waits for the answer if asked to.",
            reads(),
        ),
        tool::<CancelMessage, Cancelled>(
            "cancel_message",
            "Cancels a message that is queued or running: no answer can come any more. One that is over stays as it is.",
            ToolAnnotations::new()
                .read_only(false)
                .destructive(true)
                .idempotent(true)
                .open_world(false),
        ),
        tool::<Explain, Explained>(
            "explain",
            "Explains why an agent or a message is as it is, and what to try.",
            reads(),
        ),
        tool::<AgentLogs, Logs>("agent_logs", "Reads the last log lines of an agent.", reads()),
        tool::<ListQuestions, Questions>(
            "list_questions",
            "Lists the questions that agents ask people and that nobody has answered yet.",
            reads(),
        ),
        tool::<AnswerQuestion, Answered>(
            "answer_question",
            "Answers a question that an agent asks a person; the agent goes on with the answer. The first answer counts: it cannot be changed. \
             Ask the user what to answer.",
            ToolAnnotations::new()
                .read_only(false)
                .destructive(true)
                .idempotent(false)
                .open_world(false),
        ),
    ]
}

impl Tools {
    /// Tools of somebody.
    #[must_use]
    pub fn of(who: Who) -> Self {
        Self { who: Some(who) }
    }

    /// Tools of whoever makes a request over HTTP.
    #[must_use]
    pub fn of_requests() -> Self {
        Self { who: None }
    }

    fn who(&self, context: &RequestContext<RoleServer>) -> Option<Who> {
        let of_request = || {
            let parts = context.extensions.get::<http::request::Parts>()?;
            parts.extensions.get::<Who>().cloned()
        };
        self.who.clone().or_else(of_request)
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("mozart", env!("CARGO_PKG_VERSION"));
        info.instructions = Some(INSTRUCTIONS.to_owned());
        info
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(all()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        all().into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let who = self.who(&context);
        let who = who.ok_or_else(|| ErrorData::internal_error("nobody is known to ask", None))?;
        let call = Call {
            token: context.meta.get_progress_token(),
            peer: context.peer,
            cancelled: context.ct,
        };
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let result = perform(&who, &call, &request.name, arguments).await;
        match result {
            Ok(value) => Ok(CallToolResult::structured(value).into()),
            Err(Refused::Arguments(why)) => Err(ErrorData::invalid_params(why, None)),
            Err(Refused::Failed(error)) => {
                Ok(CallToolResult::structured_error(told(&error)).into())
            }
        }
    }
}

/// An error, for a model to read.
fn told(error: &ApiError) -> Value {
    let ApiError { code, what, cause, try_ } = error;
    json!({ "what": what, "cause": cause, "try": try_, "code": code })
}

async fn perform(who: &Who, call: &Call, name: &str, arguments: Value) -> Result<Value, Refused> {
    match name {
        "list_agents" => shown(fleet::list(who, given(arguments)?).await?),
        "ask_agent" => shown(ask::ask(who, call, given(arguments)?).await?),
        "message_status" => shown(ask::status(who, call, given(arguments)?).await?),
        "cancel_message" => shown(ask::cancel_message(who, given(arguments)?).await?),
        "explain" => shown(fleet::why(who, given(arguments)?).await?),
        "agent_logs" => shown(fleet::logs(who, given(arguments)?).await?),
        "list_questions" => shown(asked::list(who, given(arguments)?).await?),
        "answer_question" => shown(asked::answer(who, given(arguments)?).await?),
        _ => Err(Refused::Arguments(format!("there is no tool {name:?}"))),
    }
}

fn given<T: DeserializeOwned>(arguments: Value) -> Result<T, Refused> {
    serde_json::from_value(arguments).map_err(|error| Refused::Arguments(error.to_string()))
}

fn shown(result: impl Serialize) -> Result<Value, Refused> {
    serde_json::to_value(result)
        .map_err(|error| failure::error(failure::FAILED, "cannot write JSON", error, "").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_strict_schema() {
        for tool in all() {
            let input = &tool.input_schema;
            assert_eq!(input["type"], "object", "{}", tool.name);
            assert_eq!(input["additionalProperties"], false, "{}", tool.name);
            let properties = input["properties"].as_object().expect("properties");
            let described = properties
                .values()
                .all(|one| one["description"].is_string() || one["$ref"].is_string());
            assert!(described && !properties.is_empty(), "{}: {properties:?}", tool.name);
            let output = tool.output_schema.as_ref().expect("a schema");
            assert_eq!(output["type"], "object", "{}", tool.name);
        }
    }
}
