//! LOGS: what workers write to stderr, and to stdout without it being protocol.

use std::collections::VecDeque;

use common::frame::ask::ShimAsk;
use common::log::LogLine;
use common::{AgentName, Timestamp};

use crate::asked;
use crate::back::BackReader;
use crate::connection::{Broker, queued};
use crate::error::Result;
use crate::follow::{End, Followed, Follower, Source};
use crate::read::Reader;
use crate::wire::CALL;

/// One JSON object a line; a line that cannot be parsed is left out.
pub(crate) fn decode(payload: &[u8], incarnation: u64) -> impl Iterator<Item = LogLine> {
    payload.split(|byte| *byte == b'\n').filter_map(move |line| {
        let mut line: LogLine = serde_json::from_slice(line).ok()?;
        line.incarnation = incarnation;
        Some(line)
    })
}

impl Broker {
    fn logs_stream(&self) -> String {
        self.subjects().stream("LOGS")
    }

    /// Stores log lines; the sizes of the records that hold them. Not awaited by the broker: logs may be lost with the connection.
    ///
    /// # Errors
    /// When the client's queue stays full for 1 s.
    pub async fn publish_logs(
        &self,
        agent: &AgentName,
        incarnation: u64,
        lines: &[LogLine],
    ) -> Result<Vec<usize>> {
        let max = self.max_record();
        let mut payload = Vec::new();
        let mut sizes = Vec::new();
        for line in lines {
            let line = serde_json::to_vec(line).map_err(crate::BrokerError::other)?;
            if !payload.is_empty() && payload.len() + line.len() + 1 > max {
                let full = std::mem::take(&mut payload);
                sizes.push(full.len());
                self.publish_log(agent, incarnation, full).await?;
            }
            payload.extend_from_slice(&line);
            payload.push(b'\n');
        }
        if !payload.is_empty() {
            sizes.push(payload.len());
            self.publish_log(agent, incarnation, payload).await?;
        }
        Ok(sizes)
    }

    /// Removes all but the last `keep` records of an incarnation's log: all agents share one place, and none may push out
    /// another's.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn keep_logs(&self, agent: &AgentName, incarnation: u64, keep: usize) -> Result<()> {
        if let Some(told) = self.asked(|| ShimAsk::TrimLog { keep: keep as u64 }).await? {
            return asked::done(&told);
        }
        let subject = self.subjects().logs(agent, incarnation);
        let mut body = serde_json::json!({ "filter": subject });
        if keep > 0 {
            body["keep"] = keep.into();
        }
        self.wire().purge_as(&self.logs_stream(), &body).await.map(|_| ())
    }

    async fn publish_log(
        &self,
        agent: &AgentName,
        incarnation: u64,
        payload: Vec<u8>,
    ) -> Result<()> {
        self.check_size(payload.len())?;
        let subject = self.subjects().logs(agent, incarnation);
        queued(self.wire().client.publish(subject, payload.into())).await
    }

    /// Stored log lines of an agent, oldest first, at most the last `limit`; of one incarnation or of all.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn logs(
        &self,
        agent: &AgentName,
        incarnation: Option<u64>,
        limit: usize,
    ) -> Result<Vec<LogLine>> {
        /// Records that are read at once. A record has the lines of a moment.
        const PAGE: u64 = 20;
        let of = (self.logs_stream(), self.logs_of(std::slice::from_ref(agent), incarnation));
        let mut reader = BackReader::new(self.wire(), of, self.replicas(), None, PAGE).await?;
        let mut lines = VecDeque::new();
        while lines.len() < limit
            && let Some(record) = reader.next().await?
        {
            let of = self.subjects().parse_logs(&record.subject);
            let Some((_, incarnation)) = of.filter(|(of, _)| of == agent) else { continue };
            let stored: Vec<LogLine> = decode(&record.payload, incarnation).collect();
            let wanted = limit - lines.len();
            stored.into_iter().rev().take(wanted).for_each(|line| lines.push_front(line));
        }
        Ok(lines.into())
    }

    /// Stored log lines of some agents, or of all where none is named, in the order in which they were stored; at most the last `limit`.
    /// Those written before `since` are left out.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn logs_since(
        &self,
        agents: &[AgentName],
        incarnation: Option<u64>,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<(AgentName, LogLine)>> {
        let filter = self.logs_of(agents, incarnation);
        let stream = self.logs_stream();
        let last_seq = self.wire().last_seq(&stream).await?;
        let from = match since {
            // Lines are stored after they were written.
            Some(since) => match self.wire().since(&stream, &filter, since).await? {
                Some(first) => first.seq,
                None => return Ok(Vec::new()),
            },
            None => 1,
        };
        let mut reader = Reader::new(self.wire(), stream, filter, from, last_seq);
        let mut lines = VecDeque::new();
        while let Some(record) = reader.next().await? {
            let of = self.subjects().parse_logs(&record.subject);
            let Some((agent, incarnation)) = of.filter(|(of, _)| is_of(agents, of)) else {
                continue;
            };
            let wanted = |line: &LogLine| since.is_none_or(|since| line.at >= since);
            for line in decode(&record.payload, incarnation).filter(wanted) {
                if lines.len() == limit {
                    lines.pop_front();
                }
                if limit > 0 {
                    lines.push_back((agent.clone(), line));
                }
            }
        }
        Ok(lines.into())
    }

    /// The subjects of agents' logs; those of all where there are several, since a reader has one filter.
    fn logs_of(&self, agents: &[AgentName], incarnation: Option<u64>) -> String {
        match (agents, incarnation) {
            ([agent], Some(incarnation)) => self.subjects().logs(agent, incarnation),
            ([agent], None) => self.subjects().logs_of(agent),
            (_, _) => self.subjects().logs_filter(),
        }
    }

    /// The last line of a worker's own, if the last record of its log has one; its beginning, to be quoted.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn last_line(&self, agent: &AgentName, incarnation: u64) -> Result<Option<String>> {
        /// In characters.
        const QUOTED: usize = 160;
        let subject = self.subjects().logs(agent, incarnation);
        let record = self.wire().last_within(&self.logs_stream(), &subject, CALL).await?;
        let lines = record.iter().flat_map(|record| decode(&record.payload, incarnation));
        let own = lines.filter(|line| line.stream != "shim" && !line.text.trim().is_empty());
        Ok(own.last().map(|line| {
            let text = line.text.trim();
            let shown = text.chars().take(QUOTED).filter(|c| !c.is_control());
            let more = text.chars().nth(QUOTED).map(|_| '…');
            shown.chain(more).collect()
        }))
    }

    /// Follows the logs of some agents, or of all where none is named, from now on, over all incarnations.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn follow_logs(&self, agents: &[AgentName]) -> Result<LogFollower> {
        let stream = self.logs_stream();
        let source = Source {
            from: self.wire().last_seq(&stream).await? + 1,
            end: End::Soft,
            bare: false,
            filter: self.logs_of(agents, None),
            stream,
        };
        let inner = Follower::start(self.wire(), source).await?;
        Ok(LogFollower { inner, broker: self.clone(), agents: agents.to_vec() })
    }
}

/// A run through LOGS.
#[derive(Debug)]
pub struct LogFollower {
    inner: Follower,
    broker: Broker,
    agents: Vec<AgentName>,
}

fn is_of(agents: &[AgentName], agent: &AgentName) -> bool {
    agents.is_empty() || agents.contains(agent)
}

impl LogFollower {
    /// The next lines. Waits for new ones forever. Cancel safe.
    ///
    /// # Errors
    /// When it cannot continue.
    pub async fn next(&mut self) -> Result<Vec<(AgentName, LogLine)>> {
        loop {
            let Followed::Message { message, .. } = self.inner.next().await? else {
                continue;
            };
            let of = self.broker.subjects().parse_logs(&message.subject);
            if let Some((agent, incarnation)) = of.filter(|(of, _)| is_of(&self.agents, of)) {
                let lines = decode(&message.payload, incarnation);
                return Ok(lines.map(|line| (agent.clone(), line)).collect());
            }
        }
    }
}
