//! SCHEDULES: what has become of the occurrences of schedules. Every record is stored by a compare-and-set on the one before it: of two that decide
//! about the same occurrences, one does.

use std::collections::BTreeMap;

use async_nats::StatusCode;
use common::schedule::Occurrences;
use common::{AgentName, ScheduleId};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::api::{Published, Record, header};
use crate::back::BackReader;
use crate::connection::{Broker, queued};
use crate::error::{BrokerError, Result};
use crate::journal::{Stored, encode};
use crate::wire::{CALL, PAUSE, pause};

/// How many schedules are asked for at once: the server answers at most 1024.
const AT_ONCE: usize = 200;

/// The last record of a schedule; none if there is none. An error if it cannot be read.
pub type LastOccurrences = Result<Option<Stored<Occurrences>>>;

impl Broker {
    fn schedules_stream(&self) -> String {
        self.subjects().stream("SCHEDULES")
    }

    /// The last records of schedules, in the order in which they are asked for. A replica may lag: what is decided by one of these is stored by a
    /// compare-and-set, and [`Broker::last_occurrences`] asks the stream's leader.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn schedules_last(
        &self,
        schedules: &[(AgentName, ScheduleId)],
    ) -> Result<Vec<LastOccurrences>> {
        let mut found = Vec::with_capacity(schedules.len());
        for some in schedules.chunks(AT_ONCE) {
            let subjects: Vec<String> =
                some.iter().map(|(agent, id)| self.subjects().schedule(agent, id)).collect();
            let mut records = self.last_of_each(&subjects).await?;
            found.extend(
                subjects
                    .iter()
                    .map(|subject| records.remove(subject).as_ref().map(Stored::parse).transpose()),
            );
        }
        Ok(found)
    }

    async fn last_of_each(&self, subjects: &[String]) -> Result<BTreeMap<String, Record>> {
        let deadline = Instant::now() + CALL;
        let body = serde_json::json!({ "multi_last": subjects, "batch": subjects.len() });
        let body: bytes::Bytes = body.to_string().into();
        'again: loop {
            let epoch = self.wire().up(deadline, CALL).await?;
            let client = &self.wire().client;
            let inbox = client.new_inbox();
            let mut answers = client.subscribe(inbox.clone()).await.map_err(BrokerError::other)?;
            let request = format!("$JS.API.DIRECT.GET.{}", self.schedules_stream());
            queued(client.publish_with_reply(request, inbox, body.clone())).await?;
            let mut found = BTreeMap::new();
            loop {
                let answer = tokio::select! {
                    biased;
                    answer = timeout_at(deadline, answers.next()) => answer,
                    () = self.wire().reconnected(epoch) => continue 'again,
                };
                let answer = answer.map_err(|_| BrokerError::Timeout(CALL))?;
                let answer = answer.ok_or_else(|| BrokerError::other("the client is closed"))?;
                match answer.status.map(|status| (status, status.as_u16())) {
                    None | Some((StatusCode::OK, _)) => {
                        let record = Record::from_direct(answer)?;
                        found.insert(record.subject.clone(), record);
                    }
                    Some((_, 204 | 404)) => return Ok(found),
                    Some((_, 503)) => {
                        pause(deadline, CALL).await?;
                        continue 'again;
                    }
                    Some((status, _)) => {
                        let why = answer.description.as_deref().unwrap_or_default();
                        return Err(BrokerError::Other(format!("{status} {why}")));
                    }
                }
            }
        }
    }

    /// The last record of a schedule, from the stream's leader.
    ///
    /// # Errors
    /// When the broker does not answer, or it cannot be read.
    pub async fn last_occurrences(&self, agent: &AgentName, id: &ScheduleId) -> LastOccurrences {
        let subject = self.subjects().schedule(agent, id);
        let record = self.wire().last(&self.schedules_stream(), &subject).await?;
        record.as_ref().map(Stored::parse).transpose()
    }

    /// Stores what has become of occurrences, if the last record of the schedule is still the one at `last` (0: there is none). The sequence of the
    /// new one; none if there is another one, which its author knows nothing of. Repeating it is harmless.
    ///
    /// # Errors
    /// When the broker does not answer, or has no room.
    pub async fn store_occurrences(
        &self,
        (agent, id): (&AgentName, &ScheduleId),
        record: &Occurrences,
        last: u64,
    ) -> Result<Option<u64>> {
        let headers = || {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert(header::EXPECTED_LAST, last.to_string());
            headers
        };
        let subject = self.subjects().schedule(agent, id);
        let (published, tries) =
            self.wire().publish(subject, headers, encode(record)?, CALL).await?;
        match published {
            Published::Stored(seq) | Published::Duplicate(seq) => return Ok(Some(seq)),
            Published::WrongLast if tries == 1 => {
                // A write that is on its way through a cluster is there in a moment.
                tokio::time::sleep(PAUSE).await;
            }
            Published::WrongLast => {}
        }
        // Ours, if an earlier try stored it and its answer was lost.
        let there = self.last_occurrences(agent, id).await?;
        Ok(there.filter(|there| there.value == *record).map(|there| there.seq))
    }

    /// The last records of a schedule, oldest first.
    ///
    /// # Errors
    /// When the broker does not answer. What cannot be read is left out.
    pub async fn occurrences(
        &self,
        agent: &AgentName,
        id: &ScheduleId,
        limit: u64,
    ) -> Result<Vec<Stored<Occurrences>>> {
        let of = (self.schedules_stream(), self.subjects().schedule(agent, id));
        let reader = BackReader::new(self.wire(), of, self.replicas(), None, limit).await?;
        let mut last = reader.last().await?;
        let mut found = Vec::new();
        while let Some(record) = last.next().await? {
            found.extend(Stored::parse(&record).ok());
        }
        Ok(found)
    }

    /// The schedules that have records.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn known_schedules(&self) -> Result<Vec<(AgentName, ScheduleId)>> {
        let filter = self.subjects().schedule_filter();
        let index = self.wire().index(&self.schedules_stream(), &filter).await?;
        let subjects = index.subjects.keys();
        Ok(subjects.filter_map(|subject| self.subjects().parse_schedule(subject)).collect())
    }

    /// Removes the records of a schedule that nobody has any more.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_schedule(&self, agent: &AgentName, id: &ScheduleId) -> Result<()> {
        let subject = self.subjects().schedule(agent, id);
        self.wire().purge(&self.schedules_stream(), &subject).await.map(drop)
    }
}
