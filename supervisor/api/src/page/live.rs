//! The stream that keeps a page up to date: whenever the screen is another one than the reader knows, it is sent whole; the answer that is
//! being written comes in pieces. The id of an event names both, so that a reader that comes back, to whichever process, has no gap and
//! nothing twice.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::response::sse::Event;
use broker::{Attempt as _, Broker, ControlFollower, ControlItem, JournalFollower, LogFollower};
use common::api::ApiError;
use common::message::MessageKey;
use futures_util::stream;
use mozart_client::stream::{Item, Stream as Reader};
use mozart_client::watch::Watch;
use ring::digest;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::Visit;
use super::agent::Tab;
use super::layout;
use super::parts::Context;
use super::screen::{Loaded, Screen};
use crate::Api;
use crate::problem::Problem;
use crate::sse;

/// Where the stream is.
pub(super) const PATH: &str = "/live";
/// A screen is read again so long after something has happened, and no more often.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is read again although nothing is known to have happened: figures have no events.
const EVERY: Duration = Duration::from_secs(2);
/// The same, for screens that are kept up to date by events, or cost more.
const RARELY: Duration = Duration::from_secs(10);
/// How often the reader is told that nothing has happened.
const ALIVE: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
pub(super) struct At {
    /// The path of the page.
    at: String,
    /// What its reader knows, if it does not come back.
    known: Option<String>,
}

/// What a reader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    /// Of the screen, without the answer that is being written.
    screen: String,
    /// Up to which event of which message.
    answer: Option<(u64, String)>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.screen)?;
        match &self.answer {
            Some((seq, message)) => write!(f, "~{seq}~{message}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Position {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected the id of an event";
        let mut parts = text.splitn(3, '~');
        let screen = parts.next().unwrap_or_default().to_owned();
        let answer = match (parts.next(), parts.next()) {
            (Some(seq), Some(message)) => {
                Some((seq.parse().map_err(|_| EXPECTED)?, message.to_owned()))
            }
            (None, _) => None,
            (Some(_), None) => return Err(EXPECTED),
        };
        Ok(Self { screen, answer })
    }
}

/// What tells two screens apart.
fn mark(markup: &str) -> String {
    let hash = digest::digest(&digest::SHA256, markup.as_bytes());
    hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// What names an answer.
fn name(key: &MessageKey) -> String {
    format!("{}/{}/{}", key.agent, key.sender, key.message_id)
}

/// What somebody knows who has just loaded a page.
pub(super) fn position(context: &Context<'_>, loaded: &Loaded) -> String {
    let live = Context { is_live: true, ..*context };
    let screen = mark(&layout::main_of(&live, loaded));
    let answer = loaded.open().map(|open| (open.seq, name(&open.key)));
    Position { screen, answer }.to_string()
}

/// What may change a screen.
struct Triggers {
    control: ControlFollower,
    journal: Option<JournalFollower>,
    logs: Option<LogFollower>,
}

impl Triggers {
    async fn open(broker: &Broker, screen: &Screen) -> Result<Self, ApiError> {
        const WHAT: &str = "cannot follow the fleet";
        let from = broker.control_last_seq().await.attempt(WHAT)? + 1;
        let control = broker.follow_control(from, screen.agent()).await.attempt(WHAT)?;
        let journal = match screen.agent() {
            Some(agent) => Some(broker.follow_journal(Some(agent)).await.attempt(WHAT)?),
            None => None,
        };
        let logs = match screen.agent().filter(|_| screen.has_log()) {
            Some(agent) => {
                let agents = std::slice::from_ref(agent);
                Some(broker.follow_logs(agents).await.attempt(WHAT)?)
            }
            None => None,
        };
        Ok(Self { control, journal, logs })
    }

    /// Waits until something has happened. Cancel safe.
    async fn next(&mut self) -> Result<(), ApiError> {
        const WHAT: &str = "cannot follow the fleet any more";
        let journal = async {
            match &mut self.journal {
                Some(journal) => journal.next().await.map(|_| ()),
                None => pending().await,
            }
        };
        let logs = async {
            match &mut self.logs {
                Some(logs) => logs.next().await.map(|_| ()),
                None => pending().await,
            }
        };
        let control = async {
            while self.control.next().await? == ControlItem::CaughtUp {}
            Ok(())
        };
        tokio::select! {
            happened = control => happened.attempt(WHAT),
            happened = journal => happened.attempt(WHAT),
            happened = logs => happened.attempt(WHAT),
        }
    }
}

type Loading = Pin<Box<dyn Future<Output = Result<Loaded, Problem>> + Send>>;
type Read = (Watch, Reader, Result<Vec<Item>, ApiError>);
type Reading = Pin<Box<dyn Future<Output = Result<Read, ApiError>> + Send>>;

/// One page that is kept up to date.
struct Live {
    visit: Visit,
    path: String,
    screen: Screen,
    known: Position,
    triggers: Triggers,
    /// When the screen is read again.
    next: Instant,
    loading: Option<Loading>,
    /// The answer that is read, and its message.
    reading: Option<(MessageKey, Reading)>,
    alive: Instant,
    ready: VecDeque<Event>,
}

/// The next pieces of an answer.
fn read(mut watch: Watch, mut reader: Reader) -> Reading {
    Box::pin(async move {
        let items = watch.items(&mut reader).await;
        Ok((watch, reader, items))
    })
}

/// The pieces of an answer from the start, or after what is known.
fn begin(broker: Broker, key: MessageKey, seq: u64) -> Reading {
    Box::pin(async move {
        let mut watch = Watch::open(&broker, &key).await?;
        watch.look().await?;
        read(watch, Reader::new(true, seq)).await
    })
}

impl Live {
    fn load(&self) -> Loading {
        let (screen, caller) = (self.screen.clone(), self.visit.caller.clone());
        Box::pin(async move { screen.load(&caller, true).await })
    }

    fn every(&self) -> Duration {
        match self.screen {
            Screen::Fleet { .. } | Screen::Agent { tab: Tab::Chat { .. } | Tab::Queue, .. } => {
                EVERY
            }
            Screen::Agent { tab: Tab::Timeline | Tab::Logs | Tab::Config, .. }
            | Screen::Message(_)
            | Screen::Attention
            | Screen::System => RARELY,
        }
    }

    async fn next(mut self) -> Result<Option<(Event, Self)>, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some((event, self)));
            }
            if self.loading.is_none() && Instant::now() >= self.next {
                self.loading = Some(self.load());
                // What happens while it is read may be missing in it: then it is read again sooner.
                self.next = Instant::now() + self.every();
            }
            let is_loading = self.loading.is_some();
            let loaded = async {
                match &mut self.loading {
                    Some(loading) => loading.await,
                    None => pending().await,
                }
            };
            let read = async {
                match &mut self.reading {
                    Some((_, reading)) => reading.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                loaded = loaded => {
                    self.loading = None;
                    match loaded {
                        Ok(loaded) => self.show(&loaded),
                        Err(problem) => self.say(&problem),
                    }
                }
                read = read => {
                    let (watch, reader, items) = read?;
                    self.pieces(watch, reader, items?);
                }
                happened = self.triggers.next() => {
                    happened?;
                    self.next = self.next.min(Instant::now() + PAUSE);
                }
                () = sleep_until(self.next), if !is_loading => {}
                () = sleep_until(self.alive) => {
                    self.alive = Instant::now() + ALIVE;
                    self.ready.push_back(Event::default().event("alive").data("-"));
                }
            }
        }
    }

    /// Sends the screen, if it is another one than the reader knows.
    fn show(&mut self, loaded: &Loaded) {
        let context = Context { visit: &self.visit, path: &self.path, is_live: true };
        let html = layout::main_of(&context, loaded);
        let screen = mark(&html);
        let open = loaded.open();
        let is_new = screen != self.known.screen;
        self.known.screen = screen;
        if let Some(open) = open {
            let message = name(&open.key);
            let seq = match &self.known.answer {
                Some((seq, known)) if *known == message => *seq,
                Some(_) | None => 0,
            };
            self.known.answer = Some((seq, message));
            if self.reading.as_ref().is_none_or(|(key, _)| *key != open.key) {
                let broker = self.visit.caller.client.broker.clone();
                let reading = begin(broker, open.key.clone(), seq);
                self.reading = Some((open.key.clone(), reading));
            }
        } else {
            (self.known.answer, self.reading) = (None, None);
        }
        if is_new {
            let data = json!({ "html": html, "title": loaded.title() });
            self.push("screen", &data);
        }
    }

    /// Says why there is no screen, until there is one again.
    fn say(&mut self, problem: &Problem) {
        let error = problem.error();
        let screen = mark(&format!("{}\n{}", error.what, error.cause));
        if screen != self.known.screen {
            self.known.screen = screen;
            let html = layout::trouble(error).into_string();
            self.push("screen", &json!({ "html": html, "title": "Error" }));
        }
    }

    /// Sends the pieces of an answer. Once it is final, the screen has all of it.
    fn pieces(&mut self, watch: Watch, reader: Reader, items: Vec<Item>) {
        let Some((key, _)) = self.reading.take() else { return };
        let has_ended =
            items.is_empty() || items.iter().any(|item| matches!(item, Item::Done { .. }));
        if has_ended {
            self.next = Instant::now();
            return;
        }
        for item in items {
            let seq = item.seq();
            let id = key.message_id.as_str();
            let data = match item {
                Item::Text { text, .. } => {
                    let text = common::words::shown(&text);
                    json!({ "message": id, "seq": seq, "text": text })
                }
                Item::Reset { .. } => json!({ "message": id, "seq": seq, "reset": true }),
                Item::Event { .. } | Item::Error { .. } | Item::Done { .. } => continue,
            };
            self.known.answer = Some((seq, name(&key)));
            self.push("answer", &data);
        }
        self.reading = Some((key, read(watch, reader)));
    }

    fn push(&mut self, kind: &str, data: &serde_json::Value) {
        // In JSON, a newline is escaped: no text can end the field.
        let event = Event::default().event(kind).id(self.known.to_string());
        self.ready.push_back(event.data(data.to_string()));
    }
}

/// Follows a screen.
pub(super) async fn follow(
    State(api): State<Api>,
    visit: Visit,
    headers: HeaderMap,
    Query(At { at, known }): Query<At>,
) -> Result<Response, Problem> {
    let what = || format!("{at:?} is no page");
    let uri: Uri = at.parse().map_err(|cause| Problem::usage(what(), cause, "/"))?;
    let screen = Screen::of(&uri)?;
    if let Some(agent) = screen.agent() {
        visit.caller.reach(agent)?;
    }
    let known = sse::known::<Position>(&headers, known.as_deref())?;
    let open = sse::open(&api, &visit.caller)?;
    let triggers = Triggers::open(&visit.caller.client.broker, &screen).await?;
    let now = Instant::now();
    let caller = visit.caller.clone();
    let live = Live {
        visit,
        path: at,
        screen,
        known: known.unwrap_or(Position { screen: String::new(), answer: None }),
        triggers,
        next: now,
        loading: None,
        reading: None,
        alive: now,
        ready: VecDeque::new(),
    };
    Ok(sse::respond(&api, &caller, open, stream::try_unfold(live, Live::next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let screen = || "0a1b".to_owned();
        for position in [
            Position { screen: screen(), answer: None },
            Position { screen: screen(), answer: Some((7, "a/ana/m1".to_owned())) },
        ] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for bad in ["a~", "a~x~m", "a~1"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn screens_are_told_apart() {
        assert_eq!(mark("a"), mark("a"));
        assert_ne!(mark("a"), mark("b"));
        assert_eq!(mark("").len(), 24);
    }
}
