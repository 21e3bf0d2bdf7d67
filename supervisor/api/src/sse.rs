//! Streams of server-sent events that can be resumed: the id of an event is its position, and a reader that comes back with it, to whichever
//! process, goes on with the next one.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use broker::{Attempt as _, ControlFollower, ControlItem};
use common::api::ApiError;
use common::control::ControlRecord;
use common::failure;
use common::message::MessageKey;
use futures_util::{Stream, StreamExt as _, stream};
use mozart_client::stream::{Item, Line, Stream as Reader};

use crate::Api;
use crate::caller::Caller;
use crate::following::Following;
use crate::openai::Pieces;
use crate::problem::Problem;
use crate::quota::OpenStream;
use crate::responses::{self, Telling};

/// How often a stream says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often it is looked whether the token still holds.
const LOOK: Duration = Duration::from_secs(5);
/// How long a reader waits before it comes back, in words of the stream.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// The name of the header in which readers say what they know.
pub(crate) const LAST: &str = "last-event-id";

/// A place in the stream of a message. Some items share the number of the event before them: they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    seq: u64,
    /// The incarnation, where it began an attempt anew that another one had begun: the numbers come again.
    of: Option<u64>,
    nth: u64,
}

impl Place {
    /// Whether it comes after one that is known. What another incarnation says always does: the reader is told to forget.
    fn is_after(self, known: Self) -> bool {
        self.of != known.of || (self.seq, self.nth) > (known.seq, known.nth)
    }
}

/// What a reader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// All up to a place.
    UpTo(Place),
    /// All of it.
    Done,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seq)?;
        if let Some(of) = self.of {
            write!(f, "@{of}")?;
        }
        match self.nth {
            0 => Ok(()),
            nth => write!(f, ".{nth}"),
        }
    }
}

impl FromStr for Known {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected the id of an event, such as 12";
        let (seq, nth) = text.split_once('.').unwrap_or((text, "0"));
        let (seq, of) = match seq.split_once('@') {
            Some((seq, of)) => (seq, Some(of.parse().map_err(|_| EXPECTED)?)),
            None => (seq, None),
        };
        let seq = seq.parse().map_err(|_| EXPECTED)?;
        if nth == "done" {
            return Ok(Self::Done);
        }
        Ok(Self::UpTo(Place { seq, of, nth: nth.parse().map_err(|_| EXPECTED)? }))
    }
}

/// What a reader says that it knows: by the header that browsers send when they come back, else by the parameter.
///
/// # Errors
/// 400 when it is no position.
pub(crate) fn known<T: FromStr<Err: fmt::Display>>(
    headers: &HeaderMap,
    from: Option<&str>,
) -> Result<Option<T>, Problem> {
    let header = headers.get(LAST).map(|value| value.to_str().unwrap_or("?"));
    let Some(text) = header.filter(|text| !text.is_empty()).or(from) else { return Ok(None) };
    let what = format!("there is no position {text:?}");
    text.parse()
        .map(Some)
        .map_err(|cause| Problem::usage(what, cause, "leave it out to begin at the start"))
}

/// Gives items their ids, and leaves out those that the reader knows.
#[derive(Debug)]
struct Numbers {
    known: Place,
    last: Place,
}

impl Numbers {
    fn new(known: Place) -> Self {
        Self { known, last: Place { nth: 0, ..known } }
    }

    /// The id of the next item; none if the reader knows it.
    fn id(&mut self, item: &Item) -> Option<String> {
        let seq = item.seq();
        if let Item::Done { .. } = item {
            return Some(format!("{seq}.done"));
        }
        let of = match item {
            Item::Reset { incarnation, .. } => *incarnation,
            Item::Text { .. } | Item::Event { .. } | Item::Error { .. } | Item::Done { .. } => {
                self.last.of
            }
        };
        let is_same = (seq, of) == (self.last.seq, self.last.of);
        let nth = if is_same { self.last.nth + 1 } else { 0 };
        self.last = Place { seq, of, nth };
        // Who knows nothing gets everything.
        let is_given = self.known == Place::default() || self.last.is_after(self.known);
        is_given.then(|| self.last.to_string())
    }
}

/// Whether a request wants a stream.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepts.is_some_and(|accepts| accepts.contains("text/event-stream"))
}

/// Counts a request of a caller that stays open: a stream, or a wait for an answer.
///
/// # Errors
/// 429 when it has as many as it may.
pub(crate) fn open(api: &Api, caller: &Caller) -> Result<OpenStream, Problem> {
    api.quotas.streams.open(caller.name(), api.metrics.as_ref()).map_err(|open| {
        Problem::limit(
            StatusCode::TOO_MANY_REQUESTS,
            "too many open requests",
            format!("token {} has {open} streams and waits open at this process", caller.name()),
            "close some; or another token, or another process of `mozart api`",
            Some(1),
        )
    })
}

/// Nothing follows: a reader that comes back after the end is told not to come again.
pub(crate) fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// What has been read of a message, and is not sent yet.
struct Reading {
    watch: Following,
    reader: Reader,
    numbers: Numbers,
    key: MessageKey,
    ready: VecDeque<Event>,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Event, Self)>, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some((event, self)));
            }
            let items = self.watch.items(&mut self.reader).await?;
            if items.is_empty() {
                return Ok(None);
            }
            for item in &items {
                let Some(id) = self.numbers.id(item) else { continue };
                let line = Line { item, message_id: &self.key.message_id };
                let data = serde_json::to_string(&line).map_err(|error| {
                    failure::error(failure::FAILED, "cannot write JSON", error, "")
                })?;
                // In JSON, a newline is escaped: no text can end the field.
                self.ready.push_back(Event::default().id(id).data(data));
            }
        }
    }
}

/// The events of a message after what the reader knows.
pub(crate) fn of_message(
    api: &Api,
    caller: &Caller,
    open: OpenStream,
    watch: Following,
    key: MessageKey,
    known: Place,
) -> Response {
    let reading = Reading {
        watch,
        reader: Reader::after(true, known.seq, known.of),
        numbers: Numbers::new(known),
        key,
        ready: VecDeque::new(),
    };
    respond(api, caller, open, stream::try_unfold(reading, Reading::next))
}

/// What the items of a message are to a client of OpenAI's API.
type Told = Box<dyn FnMut(&Item) -> Vec<Event> + Send>;

/// What has been read of an answer, and is not sent yet.
struct Answering {
    watch: Following,
    reader: Reader,
    told: Told,
    ready: VecDeque<Event>,
    over: Pin<Box<dyn Future<Output = Over> + Send>>,
}

impl Answering {
    async fn next(mut self) -> Result<Option<(Event, Self)>, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some((event, self)));
            }
            let items = tokio::select! {
                items = self.watch.items(&mut self.reader) => items?,
                // It breaks off: clients of this API take an end for the end of the answer.
                over = &mut self.over => return Err(over.into()),
            };
            if items.is_empty() {
                return Ok(None);
            }
            self.ready.extend(items.iter().flat_map(|item| (self.told)(item)));
        }
    }
}

/// A completion of OpenAI's API, as it comes.
pub(crate) fn of_completion(
    api: &Api,
    caller: &Caller,
    open: OpenStream,
    watch: Following,
    mut pieces: Pieces,
) -> Response {
    let event = |data: String| Event::default().data(data);
    let told = move |item: &Item| pieces.item(item).into_iter().map(event).collect();
    of_answer(api, caller, open, watch, Box::new(told), Vec::new())
}

/// A response of OpenAI's API, as it comes.
pub(crate) fn of_response(
    api: &Api,
    caller: &Caller,
    open: OpenStream,
    watch: Following,
    mut telling: Telling,
) -> Response {
    let event =
        |told: responses::Told| Event::default().event(told.kind).data(told.data.to_string());
    let first = telling.begin().into_iter().map(event).collect();
    let told = move |item: &Item| telling.item(item).into_iter().map(event).collect();
    of_answer(api, caller, open, watch, Box::new(told), first)
}

fn of_answer(
    api: &Api,
    caller: &Caller,
    open: OpenStream,
    watch: Following,
    told: Told,
    first: Vec<Event>,
) -> Response {
    let over = Box::pin(over(api, caller));
    let (reader, ready) = (Reader::new(true, 0), first.into());
    let begun = Answering { watch, reader, told, ready, over };
    sent(open, stream::try_unfold(begun, Answering::next))
}

/// A record of the control log with its number.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Numbered<'a> {
    pub(crate) seq: u64,
    #[serde(flatten)]
    pub(crate) record: &'a ControlRecord,
}

/// The records of the control log as they come.
pub(crate) fn of_control(
    api: &Api,
    caller: &Caller,
    open: OpenStream,
    log: ControlFollower,
) -> Response {
    let next = |mut log: ControlFollower| async move {
        loop {
            let item = log.next().await.attempt("cannot follow the control log")?;
            let ControlItem::Record { seq, record, .. } = item else { continue };
            let data = serde_json::to_string(&Numbered { seq, record: &record })
                .map_err(|error| failure::error(failure::FAILED, "cannot write JSON", error, ""))?;
            return Ok(Some((Event::default().id(seq.to_string()).data(data), log)));
        }
    };
    respond(api, caller, open, stream::try_unfold(log, next))
}

/// Sends events until there are no more, the token does not hold any more, or this process is to stop.
pub(crate) fn respond(
    api: &Api,
    caller: &Caller,
    open: OpenStream,
    events: impl Stream<Item = Result<Event, ApiError>> + Send + 'static,
) -> Response {
    let first = stream::once(async { Ok(Event::default().retry(RETRY).comment("mozart")) });
    sent(open, first.chain(events).take_until(Box::pin(over(api, caller))))
}

/// Why a request that stays open is over, whatever is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// This process is to stop.
    Stops,
    /// The token does not hold any more.
    Refused,
}

impl From<Over> for ApiError {
    fn from(over: Over) -> Self {
        let what = "the request is cut";
        match over {
            Over::Stops => {
                let try_ = "the same again, here or at another process of `mozart api`";
                failure::error(failure::UNREACHABLE, what, "the process stops", try_)
            }
            Over::Refused => {
                let cause = "the token was revoked, or has expired";
                failure::error(failure::DENIED, what, cause, "`mozart token ls`")
            }
        }
    }
}

impl From<Over> for Problem {
    fn from(over: Over) -> Self {
        let problem = Self::from(ApiError::from(over));
        match over {
            Over::Stops => problem,
            Over::Refused => problem.with(StatusCode::UNAUTHORIZED),
        }
    }
}

/// When a request that stays open is over. Whatever waits for long, waits for this, too.
pub(crate) fn over(api: &Api, caller: &Caller) -> impl Future<Output = Over> + Send + use<> {
    let (api, token) = (api.clone(), caller.token.clone());
    async move {
        loop {
            tokio::select! {
                () = api.stop.cancelled() => return Over::Stops,
                () = tokio::time::sleep(LOOK) => {}
            }
            if !api.keys.holds(&token).await {
                return Over::Refused;
            }
        }
    }
}

/// Sends events; the stream counts for as long as there is somebody who reads it.
pub(crate) fn sent(
    open: OpenStream,
    events: impl Stream<Item = Result<Event, ApiError>> + Send + 'static,
) -> Response {
    let events = events.inspect(move |_| {
        let _counted = &open;
    });
    let alive = KeepAlive::new().interval(HEARTBEAT).text("alive");
    let mut response = Sse::new(events).keep_alive(alive).into_response();
    // Proxies are not to hold it back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::message::Status;

    fn text(seq: u64) -> Item {
        Item::Text { text: "a".to_owned(), seq, attempt: 1 }
    }

    fn error(seq: u64) -> Item {
        Item::Error { error: "no".to_owned(), seq, attempt: 1 }
    }

    fn done(seq: u64) -> Item {
        let (response, reason) = (None, None);
        Item::Done { status: Status::Failed, response, reason, seq, attempt: 1 }
    }

    fn ids(known: &str, items: &[Item]) -> Vec<Option<String>> {
        let Ok(Known::UpTo(known)) = known.parse() else { panic!("a place: {known}") };
        let mut numbers = Numbers::new(known);
        items.iter().map(|item| numbers.id(item)).collect()
    }

    #[test]
    fn every_item_has_an_id_of_its_own_and_is_resumed_after_each() {
        let some = |text: &str| Some(text.to_owned());
        let all = [text(3), text(4), error(4), done(4)];
        assert_eq!(ids("0", &all), [some("3"), some("4"), some("4.1"), some("4.done")]);
        // The stored events up to 4 are known, and are not items of the second reader.
        assert_eq!(ids("4", &all[2..]), [some("4.1"), some("4.done")]);
        assert_eq!(ids("4.1", &all[2..]), [None, some("4.done")]);
        // One that was cancelled before anything happened.
        assert_eq!(ids("0", &[error(0), done(0)]), [some("0.1"), some("0.done")]);
        assert_eq!(ids("0.1", &[error(0), done(0)]), [None, some("0.done")]);
        assert_eq!("4.done".parse(), Ok(Known::Done));
    }

    #[test]
    fn what_another_incarnation_says_has_other_ids_than_what_it_takes_back() {
        let some = |text: &str| Some(text.to_owned());
        let reset = |seq, attempt, incarnation| Item::Reset { seq, attempt, incarnation };
        let all = [text(3), text(4), reset(0, 1, Some(7)), text(3), error(3)];
        assert_eq!(ids("0", &all), [some("3"), some("4"), some("0@7"), some("3@7"), some("3@7.1")]);
        // Cut after the fourth: of what was taken back, the reader gives nothing.
        assert_eq!(ids("4", &all[2..]), [some("0@7"), some("3@7"), some("3@7.1")]);
        assert_eq!(ids("3@7", &all[4..]), [some("3@7.1")]);
        assert_eq!(ids("3@7.1", &all[4..]), [None]);
        // Another attempt has numbers of its own.
        let next = [reset(1_000_000, 2, None), text(1_000_003)];
        assert_eq!(ids("3@7", &next), [some("1000000"), some("1000003")]);
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for bad in [
            "@1",
            "1@",
            "1@x",
            "1@2@3",
            "",
            "x",
            "-1",
            "1.",
            "1.x",
            ".done",
            "1.2.3",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<Known>().is_err(), "{bad:?}");
        }
    }
}
