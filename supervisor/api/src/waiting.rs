//! Waiting for an answer within a request: it counts like a stream while it does, and ends when the token does not hold any more.

use common::api::ApiError;
use common::message::{Final, MessageKey};
use mozart_client::answer::Answer;
use mozart_client::send::Known;
use tokio::time::Instant;

use crate::Api;
use crate::caller::Caller;
use crate::problem::Problem;
use crate::quota::OpenStream;
use crate::sse::{self, Over};

/// A wait for the final state of a message.
#[derive(Debug)]
pub(crate) struct Wait {
    api: Api,
    caller: Caller,
    answer: Answer,
    _open: OpenStream,
}

impl Wait {
    /// Begins to listen, and counts. Opened before the message is sent, nothing is missed, and nothing is stored that may not be waited for.
    ///
    /// # Errors
    /// 429 when the caller has too many requests open; what the broker says.
    pub(crate) async fn open(
        api: &Api,
        caller: &Caller,
        message: &MessageKey,
    ) -> Result<Self, Problem> {
        let open = sse::open(api, caller)?;
        let answer = api.answers.listen(&caller.client.broker, message).await?;
        Ok(Self { api: Api::clone(api), caller: caller.clone(), answer, _open: open })
    }

    /// The final state, if there is one by then. Where the process stops before, what is there then.
    ///
    /// # Errors
    /// 401 once the token does not hold any more; what the broker says.
    pub(crate) async fn answered(
        mut self,
        known: Known,
        deadline: Instant,
    ) -> Result<Option<Final>, Problem> {
        let begun = Instant::now();
        if known == Known::Already
            && let Some(final_) = self.answer.look().await?
        {
            return Ok(Some(final_));
        }
        let heard = tokio::select! {
            final_ = self.answer.final_() => Some(final_),
            () = tokio::time::sleep_until(deadline) => None,
            over = sse::over(&self.api, &self.caller) => match over {
                Over::Stops => None,
                Over::Refused => return Err(over.into()),
            },
        };
        let final_ = match heard {
            Some(final_) => Some(final_),
            // What ended in the last moment has ended.
            None => self.look().await?,
        };
        if let Some(metrics) = self.api.metrics.as_ref().filter(|_| known == Known::New)
            && final_.is_some()
        {
            metrics.ended(begun.elapsed());
        }
        Ok(final_)
    }

    async fn look(&self) -> Result<Option<Final>, ApiError> {
        self.answer.look().await
    }
}
