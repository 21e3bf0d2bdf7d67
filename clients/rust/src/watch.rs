//! Reading a message's stream: its events, its final state and what becomes of its agent, into a [`Stream`].

use std::sync::Arc;
use std::time::Duration;

use broker::{Attempt as _, Broker, EventBatch, EventFollower, StoredEvents};
use common::api::ApiError;
use common::control::ControlEvent;
use common::failure;
use common::message::{Final, MessageKey};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::feed::{Changes, Feed};
use crate::stream::{Item, Next, Stream};

/// After this long without events, whoever waits may want to know why.
pub const QUIET: Duration = Duration::from_secs(5);

/// Everything that a stream is read from.
#[derive(Debug)]
pub struct Watch {
    broker: Broker,
    key: MessageKey,
    answer: Answer,
    events: EventFollower,
    control: Changes,
    /// The final state that was there before.
    early: Option<Final>,
    /// What is stored, while it is being read in parts.
    reading: Option<StoredEvents>,
}

impl Watch {
    /// Opens the sources. Opened before the message is sent, nothing is missed.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn open(broker: &Broker, key: &MessageKey) -> Result<Self, ApiError> {
        Self::open_with(broker, key, None).await
    }

    /// The same in a process that has many open, with what they share.
    ///
    /// # Errors
    /// As [`Watch::open`].
    pub async fn open_with(
        broker: &Broker,
        key: &MessageKey,
        feed: Option<&Feed>,
    ) -> Result<Self, ApiError> {
        let what = || format!("cannot follow message {}", key.message_id);
        let control = Changes::of(broker, &key.agent, feed);
        let events = broker.follow_events(key);
        let (answer, events, control) = tokio::join!(Answer::listen(broker, key), events, control);
        Ok(Self {
            broker: broker.clone(),
            key: key.clone(),
            answer: answer?,
            events: events.attempt(what())?,
            control: control.attempt(what())?,
            early: None,
            reading: None,
        })
    }

    /// Checks whether the message was final before the sources were open: no source reports that.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn look(&mut self) -> Result<(), ApiError> {
        self.early = self.answer.look().await?;
        Ok(())
    }

    /// Reads until the stream ends, showing each item as it comes.
    ///
    /// # Errors
    /// 5 when the deadline passes first; what the broker says; what `show` says.
    pub async fn read(
        &mut self,
        stream: &mut Stream,
        follow: bool,
        deadline: Option<Instant>,
        mut show: impl FnMut(&Item) -> Result<(), ApiError>,
        mut quiet: impl AsyncFnMut(),
    ) -> Result<(), ApiError> {
        let mut out = Vec::new();
        let silence = tokio::time::sleep(QUIET);
        tokio::pin!(silence);
        let mut next = match self.early.take() {
            Some(final_) => stream.finally(final_, &mut out),
            None => Next::Wait,
        };
        loop {
            if next == Next::Read {
                next = self.stored(stream, &mut out).await?;
            }
            let spoken = !out.is_empty();
            for item in out.drain(..) {
                show(&item)?;
            }
            if next == Next::End {
                return Ok(());
            }
            if spoken {
                silence.as_mut().reset(Instant::now() + QUIET);
            }
            next = tokio::select! {
                biased;
                () = expired(deadline) => {
                    // What ended in the last moment has ended.
                    match self.answer.look().await? {
                        Some(final_) => stream.finally(final_, &mut out),
                        // The attempt goes on: only the reader ends.
                        None => return Err(self.late(stream)),
                    }
                }
                heard = self.hear() => self.take(heard?, stream, follow, &mut out).await?,
                () = &mut silence => {
                    quiet().await;
                    silence.as_mut().reset(Instant::now() + Duration::from_secs(86_400));
                    Next::Wait
                }
            };
        }
    }

    /// The next items of a stream that follows the message through its attempts; none once the last one was given. To be called again and again,
    /// from the start of the stream on; not cancel safe. What is stored comes in parts: a long answer is not held as a whole.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn items(&mut self, stream: &mut Stream) -> Result<Vec<Item>, ApiError> {
        let mut out = Vec::new();
        if stream.has_ended() {
            return Ok(out);
        }
        let mut next = match self.early.take() {
            Some(final_) => stream.finally(final_, &mut out),
            None => Next::Wait,
        };
        loop {
            if next == Next::Read {
                self.reading = Some(self.broker.read_events(&self.key));
            }
            if let Some(reading) = &mut self.reading {
                next = match reading
                    .next()
                    .await
                    .attempt(format!("cannot continue to follow message {}", self.key.message_id))?
                {
                    Some(batch) => stream.stored_part(batch, &mut out),
                    None => {
                        self.reading = None;
                        stream.stored_end(&mut out)
                    }
                };
            }
            if !out.is_empty() || next == Next::End {
                return Ok(out);
            }
            if self.reading.is_some() {
                continue;
            }
            let heard = self.hear().await?;
            next = self.take(heard, stream, true, &mut out).await?;
        }
    }

    /// What comes next from one of the sources. Cancel safe.
    async fn hear(&mut self) -> Result<Heard, ApiError> {
        Ok(tokio::select! {
            biased;
            batch = self.events.next() => Heard::Events(batch.attempt(self.what())?),
            change = self.control.next() => Heard::Control(change.attempt(self.what())?),
            final_ = self.answer.final_() => Heard::Final(Box::new(final_)),
        })
    }

    async fn take(
        &mut self,
        heard: Heard,
        stream: &mut Stream,
        follow: bool,
        out: &mut Vec<Item>,
    ) -> Result<Next, ApiError> {
        match heard {
            Heard::Events(batch) => Ok(stream.live(batch, out)),
            Heard::Control(change) => self.control(&change, stream, follow, out).await,
            Heard::Final(final_) => Ok(stream.finally(*final_, out)),
        }
    }

    fn what(&self) -> String {
        format!("cannot continue to follow message {}", self.key.message_id)
    }

    fn late(&self, stream: &Stream) -> ApiError {
        let id = &self.key.message_id;
        let what = format!("no answer to {id} in time");
        let cause = format!("it is stored and {}", stream.status().as_str());
        let try_ = format!("`mozart attach {id} --from {}`, `mozart explain {id}`", stream.last());
        failure::error(failure::TIMEOUT, what, cause, try_)
    }

    async fn stored(&mut self, stream: &mut Stream, out: &mut Vec<Item>) -> Result<Next, ApiError> {
        let stored = self.broker.events(&self.key).await;
        Ok(stream.stored(stored.attempt(self.what())?, out))
    }

    /// A change of the agent can end the stream; an answer that was given before takes precedence.
    async fn control(
        &mut self,
        change: &ControlEvent,
        stream: &mut Stream,
        follow: bool,
        out: &mut Vec<Item>,
    ) -> Result<Next, ApiError> {
        let Some(end) = end(change, follow) else {
            return Ok(Next::Wait);
        };
        if let Some(final_) = self.answer.look().await? {
            return Ok(stream.finally(final_, out));
        }
        // The incarnation's last words are stored before its exit is.
        if self.stored(stream, out).await? == Next::End {
            return Ok(Next::End);
        }
        Ok(match end {
            End::Close(how) => stream.close(&format!("{} was {how}", self.key.agent), out),
            End::Exited { incarnation, how } => stream.exited(incarnation, &how, out),
        })
    }
}

/// What a source says.
enum Heard {
    Events(EventBatch),
    Control(Arc<ControlEvent>),
    Final(Box<Final>),
}

/// What a record does to the readers of an agent's streams.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// They are disconnected.
    Close(&'static str),
    /// Those who read from this incarnation have heard all of it.
    Exited { incarnation: u64, how: String },
}

/// Whether a record concerns the readers of its agent's streams, whatever they want.
pub(crate) fn ends_streams(event: &ControlEvent) -> bool {
    end(event, false).is_some()
}

fn end(event: &ControlEvent, follow: bool) -> Option<End> {
    match event {
        ControlEvent::AgentStopped { .. } => Some(End::Close("stopped")),
        ControlEvent::AgentRemoved { .. } => Some(End::Close("removed")),
        ControlEvent::AgentRestarted { .. } if !follow => Some(End::Close("restarted")),
        ControlEvent::IncarnationExited { incarnation, exit, .. } => {
            Some(End::Exited { incarnation: *incarnation, how: exit.words() })
        }
        ControlEvent::AgentRestarted { .. }
        | ControlEvent::AgentApplied { .. }
        | ControlEvent::AgentStarted { .. }
        | ControlEvent::AgentReplaced { .. }
        | ControlEvent::MessagesForgotten { .. }
        | ControlEvent::FleetRestored { .. }
        | ControlEvent::LeaderElected { .. }
        | ControlEvent::NodeSeen { .. }
        | ControlEvent::NodeDraining { .. }
        | ControlEvent::NodeLost { .. }
        | ControlEvent::NodeDrained { .. }
        | ControlEvent::NodeUndrained { .. }
        | ControlEvent::NodeRemoved { .. }
        | ControlEvent::AgentMoved { .. }
        | ControlEvent::SchedulePaused { .. }
        | ControlEvent::ScheduleResumed { .. }
        | ControlEvent::SanctumMoved { .. }
        | ControlEvent::SanctumNotMoved { .. }
        | ControlEvent::SanctumKept { .. }
        | ControlEvent::IncarnationAllocated { .. }
        | ControlEvent::IncarnationReturned { .. }
        | ControlEvent::IncarnationReady { .. }
        | ControlEvent::IncarnationBegun { .. }
        | ControlEvent::StartFailed { .. }
        | ControlEvent::IncarnationDrained { .. }
        | ControlEvent::IncarnationHung { .. }
        | ControlEvent::IncarnationStable { .. }
        | ControlEvent::TimerFired { .. }
        | ControlEvent::Unknown => None,
    }
}

async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::AgentName;
    use common::shim::Exit;

    #[test]
    fn a_stop_ends_every_stream_and_a_restart_those_that_do_not_follow() {
        let agent = AgentName::new("a").expect("valid");
        let stopped = ControlEvent::AgentStopped { agent: agent.clone() };
        assert_eq!(end(&stopped, true), Some(End::Close("stopped")));
        let restarted = ControlEvent::AgentRestarted { agent: agent.clone() };
        assert_eq!(end(&restarted, false), Some(End::Close("restarted")));
        assert_eq!(end(&restarted, true), None);
        let replaced = ControlEvent::AgentReplaced { agent: agent.clone() };
        assert_eq!(end(&replaced, false), None);
        let exit = Exit { code: Some(1), ..Exit::default() };
        let exited = ControlEvent::IncarnationExited { agent, incarnation: 3, exit, clean: true };
        let how = "exit code 1".to_owned();
        assert_eq!(end(&exited, true), Some(End::Exited { incarnation: 3, how }));
    }
}
