//! One answer, as it comes, into one inbox.

use std::pin::pin;
use std::time::Duration;

use broker::{Attempt as _, Reply};
use common::api::ApiError;
use mozart_client::now;
use mozart_client::stream::{Item, Stream as Reader};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::voice::{Next, Voice};
use super::words::{self, Refusal};
use crate::following::Following;

/// How often it is said that it goes on: callers give up after a minute of silence.
const ALIVE: Duration = Duration::from_secs(20);
/// After this time nobody is told any more: callers wait ten minutes by default. The message goes on.
const LONGEST: Duration = Duration::from_secs(3_600);
/// The longest piece, in bytes of text.
const PIECE: usize = 16 << 10;
const WHAT: &str = "cannot tell the answer";

/// Tells the rest of an answer, up to its end, or until another process tells it.
pub(super) async fn tell(reply: Reply, watch: Following) {
    let id = reply.state.key.message_id.clone();
    match rest(reply, watch).await {
        Ok(true) => {}
        Ok(false) => tracing::debug!(message = %id, "another process tells the answer"),
        // What was not told is on record: it is taken up again.
        Err(error) => {
            let ApiError { what, cause, .. } = error;
            tracing::warn!(message = %id, "{what}: {cause}; it is tried again");
        }
    }
}

/// False: another process tells it.
async fn rest(mut reply: Reply, mut watch: Following) -> Result<bool, ApiError> {
    if reply.state.over {
        reply.end().await.attempt(WHAT)?;
        return Ok(true);
    }
    let mut reader = Reader::new(true, 0);
    let mut voice = Voice::after(reply.state.sent, &reply.state.digest);
    let mut alive = interval_at(Instant::now() + ALIVE, ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until = Instant::now() + LONGEST.saturating_sub(now().since(reply.state.at));
    loop {
        let next = match heard(&mut reply, &mut watch, &mut reader, (&mut alive, until)).await? {
            Heard::Items(items) => voice.items(&items),
            Heard::Taken => return Ok(false),
            Heard::Late => vec![Next::Fault(500, "an hour has passed; the message goes on".into())],
        };
        for next in next {
            match next {
                Next::Text(text) => {
                    for piece in words::pieces(&text, PIECE) {
                        (reply.state.sent, reply.state.digest) = voice.tell(piece);
                        if !reply.say(words::response(piece)).await.attempt(WHAT)? {
                            return Ok(false);
                        }
                        alive.reset();
                    }
                }
                Next::End => {
                    reply.end().await.attempt(WHAT)?;
                    return Ok(true);
                }
                Next::Fault(code, why) => {
                    let body = Refusal::new(code, why.clone()).body();
                    let is_ours = reply.fail(code, &why, body).await.attempt(WHAT)?;
                    if is_ours {
                        reply.end().await.attempt(WHAT)?;
                    }
                    return Ok(is_ours);
                }
            }
        }
    }
}

/// What comes next of a message.
enum Heard {
    Items(Vec<Item>),
    /// Another process tells it.
    Taken,
    /// It takes too long.
    Late,
}

/// The next items of a message. The caller is told that it goes on when nothing was said for a while, also while items come that say nothing to it.
async fn heard(
    reply: &mut Reply,
    watch: &mut Following,
    reader: &mut Reader,
    (alive, until): (&mut Interval, Instant),
) -> Result<Heard, ApiError> {
    let mut items = pin!(watch.items(reader));
    loop {
        tokio::select! {
            items = &mut items => return items.map(Heard::Items),
            _ = alive.tick() => {
                if !reply.say(words::ack()).await.attempt(WHAT)? {
                    return Ok(Heard::Taken);
                }
            }
            () = tokio::time::sleep_until(until) => return Ok(Heard::Late),
        }
    }
}
