//! The stream that keeps a page up to date: whenever the screen is another one than the reader knows, it is sent whole; the answer that is
//! being written comes in pieces. The id of an event names both, so that a reader that comes back, to whichever process, has no gap and
//! nothing twice.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::response::sse::Event;
use broker::{Attempt as _, JournalFollower, LogFollower};
use common::api::ApiError;
use common::message::MessageKey;
use futures_util::future::Shared;
use futures_util::stream;
use mozart_client::feed::Records;
use mozart_client::stream::{Item, Stream as Reader};

use ring::digest;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::Visit;
use super::layout;
use super::parts::Context;
use super::screen::{Loaded, Rhythm, Screen};
use super::shared::{Answer, Reading};
use crate::Api;
use crate::following::Following;
use crate::problem::Problem;
use crate::sse::{self, Over};

/// Where the stream is.
pub(super) const PATH: &str = "/live";
/// A screen is read again so long after something has happened, and no more often.
const PAUSE: Duration = Duration::from_millis(200);
/// So long after something has happened, more may: figures follow what they count.
const LIVELY: Duration = Duration::from_secs(6);
/// How often a screen is read again on which nothing is expected to change.
const SETTLED: Duration = Duration::from_secs(60);
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
    screen: Screen,
    control: Records,
    journal: Option<JournalFollower>,
    logs: Option<LogFollower>,
}

impl Triggers {
    async fn open(api: &Api, screen: &Screen) -> Result<Self, ApiError> {
        const WHAT: &str = "cannot follow the fleet";
        let broker = &api.client.broker;
        let control = api.feed.records();
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
        Ok(Self { screen: screen.clone(), control, journal, logs })
    }

    /// Waits until something has happened. Cancel safe.
    async fn next(&mut self) -> Result<(), ApiError> {
        const WHAT: &str = "cannot follow the fleet any more";
        let screen = &self.screen;
        let journal = async {
            match &mut self.journal {
                Some(journal) => {
                    while !screen.shows(&journal.next().await?) {}
                    Ok(())
                }
                None => pending().await,
            }
        };
        let logs = async {
            match &mut self.logs {
                Some(logs) => logs.next().await.map(|_| ()),
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.control.next(screen.agent()) => Ok(()),
            happened = journal => happened.attempt(WHAT),
            happened = logs => happened.attempt(WHAT),
        }
    }
}

/// When a screen is read again: after each thing that happened, from time to time although nothing is known to have happened, and never too
/// often. Pure: the time is an argument.
#[derive(Debug)]
struct Schedule {
    rhythm: Rhythm,
    /// When it is read again.
    next: Instant,
    /// When the last read began.
    began: Option<Instant>,
    /// When something last happened: what was read before does not have it.
    happened: Instant,
}

impl Schedule {
    /// Read at once: whoever comes may know something old.
    fn new(rhythm: Rhythm, now: Instant) -> Self {
        Self { rhythm, next: now, began: None, happened: now }
    }

    /// A read begins; it is to be of the time that is returned, or later.
    fn begin(&mut self, now: Instant) -> Instant {
        let is_lively = now.saturating_duration_since(self.happened) < LIVELY;
        let every = if is_lively { self.rhythm.after } else { self.rhythm.every };
        // Where nothing has happened, one that another page began half the time between two reads ago is as good.
        let idle = now.checked_sub(every / 2).unwrap_or(now);
        let since = self.began.map_or(now, |began| idle.max(began).max(self.happened).min(now));
        // What happens while it is read may be missing in it: then it is read again sooner.
        (self.began, self.next) = (Some(now), now + every);
        since
    }

    /// Nothing is expected to happen any more.
    fn settle(&mut self) {
        self.rhythm = Rhythm { every: SETTLED, after: SETTLED, ..self.rhythm };
        self.next = self.next.max(self.began.map_or(self.next, |began| began + SETTLED));
    }

    fn happened(&mut self, now: Instant) {
        self.happened = now;
        let soonest = self.began.map_or(now, |began| began + self.rhythm.least);
        self.next = self.next.min((now + PAUSE).max(soonest));
    }
}

type Read = (Following, Reader, Result<Vec<Item>, ApiError>);

/// One page that is kept up to date.
struct Live {
    api: Api,
    visit: Visit,
    path: String,
    screen: Screen,
    known: Position,
    triggers: Triggers,
    schedule: Schedule,
    loading: Option<Shared<Reading<Answer>>>,
    /// The answer that is read, and its message.
    reading: Option<(MessageKey, Reading<Result<Read, ApiError>>)>,
    /// Why the screen could not be read the last time; none if it could, or was not read yet.
    unread: Option<ApiError>,
    /// Whether it was read at all, well or not.
    is_read: bool,
    alive: Instant,
    /// When the session ends.
    until: Instant,
    /// The token does not hold any more, or the process is to stop.
    over: Pin<Box<dyn Future<Output = Over> + Send>>,
    has_ended: bool,
    ready: VecDeque<Event>,
}

/// The next pieces of an answer.
fn read(mut watch: Following, mut reader: Reader) -> Reading<Result<Read, ApiError>> {
    Box::pin(async move {
        let items = watch.items(&mut reader).await;
        Ok((watch, reader, items))
    })
}

/// The pieces of an answer from the start, or after what is known.
fn begin(api: Api, key: MessageKey, seq: u64) -> Reading<Result<Read, ApiError>> {
    Box::pin(async move {
        let mut watch = api.watch(&key).await?;
        watch.look().await?;
        read(watch, Reader::new(true, seq)).await
    })
}

impl Live {
    /// A read of the screen, of what it is at a time or later: shared with all pages that show the same.
    fn load(&self, since: Instant, now: Instant) -> Shared<Reading<Answer>> {
        let (screen, caller) = (self.screen.clone(), self.visit.caller.clone());
        self.api.reads.0.join(screen.read_by(&caller), since, now, || {
            Box::pin(async move {
                let loaded = screen.load(&caller, true).await;
                loaded.map(Arc::new).map_err(|problem| problem.error().clone())
            })
        })
    }

    async fn next(mut self) -> Result<Option<(Event, Self)>, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some((event, self)));
            }
            if self.has_ended {
                return Ok(None);
            }
            let now = Instant::now();
            if self.loading.is_none() && now >= self.schedule.next {
                let since = self.schedule.begin(now);
                self.loading = Some(self.load(since, now));
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
                        Ok(loaded) => {
                            self.show(&loaded);
                            self.say(None);
                        }
                        Err(error) => self.say(Some(error)),
                    }
                }
                read = read => {
                    let (watch, reader, items) = read?;
                    self.pieces(watch, reader, items?);
                }
                happened = self.triggers.next() => {
                    happened?;
                    self.schedule.happened(Instant::now());
                }
                () = sleep_until(self.schedule.next), if !is_loading => {}
                () = sleep_until(self.alive) => {
                    self.alive = Instant::now() + ALIVE;
                    self.tell();
                }
                () = sleep_until(self.until) => self.end("The session has ended."),
                over = &mut self.over => match over {
                    // The reader comes back, to another process.
                    Over::Stops => self.has_ended = true,
                    Over::Refused => self.end("The token of the session was revoked, or has expired."),
                },
            }
        }
    }

    /// The reader is signed out: what it has stays, and nothing more comes.
    fn end(&mut self, why: &str) {
        self.has_ended = true;
        self.push("over", &json!({ "why": why }));
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
                let reading = begin(Api::clone(&self.api), open.key.clone(), seq);
                self.reading = Some((open.key.clone(), reading));
            }
        } else {
            (self.known.answer, self.reading) = (None, None);
        }
        if loaded.is_settled() {
            self.schedule.settle();
        }
        if is_new {
            let data = json!({ "html": html, "title": loaded.title() });
            self.push("screen", &data);
        }
    }

    /// Remembers whether the screen could be read, and says so if that is news.
    fn say(&mut self, unread: Option<ApiError>) {
        let is_news = !self.is_read || self.unread != unread;
        (self.is_read, self.unread) = (true, unread);
        if is_news {
            self.tell();
        }
    }

    /// Says that the process is alive, and what is wrong with what the reader sees: that stays as it is.
    fn tell(&mut self) {
        let data = match (&self.unread, self.is_read) {
            (Some(ApiError { what, cause, try_, .. }), _) => {
                json!({ "unread": { "what": what, "cause": cause, "try": try_ } })
            }
            (None, true) => json!({ "unread": null }),
            (None, false) => json!({}),
        };
        self.ready.push_back(Event::default().event("alive").data(data.to_string()));
    }

    /// Sends the pieces of an answer. Once it is final, the screen has all of it.
    fn pieces(&mut self, watch: Following, reader: Reader, items: Vec<Item>) {
        let Some((key, _)) = self.reading.take() else { return };
        let has_ended =
            items.is_empty() || items.iter().any(|item| matches!(item, Item::Done { .. }));
        if has_ended {
            self.schedule.happened(Instant::now());
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
    if let Screen::Entry(agent) = &screen {
        let what = format!("the page of {agent} names no conversation");
        return Err(Problem::usage(what, "there may be several", "reload the page"));
    }
    let open = sse::open(&api, &visit.caller)?;
    let triggers = Triggers::open(&api, &screen).await?;
    let now = Instant::now();
    let over = Box::pin(sse::over(&api, &visit.caller));
    let live = Live {
        schedule: Schedule::new(screen.rhythm(), now),
        until: now + visit.until.since(mozart_client::now()),
        over,
        api,
        visit,
        path: at,
        screen,
        known: known.unwrap_or(Position { screen: String::new(), answer: None }),
        triggers,
        loading: None,
        reading: None,
        unread: None,
        is_read: false,
        alive: now,
        has_ended: false,
        ready: [Event::default().retry(sse::RETRY).comment("mozart")].into(),
    };
    Ok(sse::sent(open, stream::try_unfold(live, Live::next)))
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
    fn a_screen_is_read_when_something_happened_and_not_too_often() {
        let ms = Duration::from_millis;
        let rhythm = Rhythm { every: ms(10_000), after: ms(2_000), least: ms(1_000) };
        let start = Instant::now() + ms(60_000);
        let at = |millis| start + ms(millis);
        let mut schedule = Schedule::new(rhythm, at(0));
        assert_eq!(schedule.next, at(0), "at once");
        assert_eq!(
            schedule.begin(at(0)),
            at(0),
            "what was read before may be older than what is known"
        );
        assert_eq!(schedule.next, at(2_000), "one has just come");
        // What happens is shown soon, and a flood of it is not read each time.
        schedule.happened(at(100));
        assert_eq!(schedule.next, at(1_000));
        assert_eq!(schedule.begin(at(1_000)), at(100), "of when it happened, or later");
        schedule.happened(at(5_000));
        assert_eq!(schedule.next, at(3_000), "it is due already");
        assert_eq!(schedule.begin(at(5_200)), at(5_000));
        assert_eq!(schedule.next, at(7_200), "what it counts may follow");
        assert_eq!(schedule.begin(at(7_200)), at(6_200));
        assert_eq!(schedule.begin(at(12_000)), at(7_200), "no older than what was shown");
        assert_eq!(schedule.next, at(22_000), "nothing happens");
        assert_eq!(schedule.begin(at(22_000)), at(17_000), "another page's read will do");
    }

    #[test]
    fn screens_are_told_apart() {
        assert_eq!(mark("a"), mark("a"));
        assert_ne!(mark("a"), mark("b"));
        assert_eq!(mark("").len(), 24);
    }
}
