//! The two pipes, shared by the turns.

use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::error::Error;
use crate::turn::{Answered, History};

/// A line as it is written: what it is and of which message comes first, so that the shim can tell of a line that is too long.
fn written(line: &Value) -> String {
    const FIRST: [&str; 2] = ["type", "messageId"];
    let Value::Object(fields) = line else { return line.to_string() };
    let field = |(name, value): (&str, &Value)| format!("{}:{value}", Value::from(name));
    let first = FIRST.iter().filter_map(|name| Some((*name, fields.get(*name)?)));
    let rest = fields.iter().map(|(name, value)| (name.as_str(), value));
    let rest = rest.filter(|(name, _)| !FIRST.contains(name));
    format!("{{{}}}", first.chain(rest).map(field).collect::<Vec<_>>().join(","))
}

/// What the shim replies to a request.
pub(crate) enum Reply {
    Text(String),
    Answered(Answered),
    History(History),
    /// With the result that was stored before, if one was.
    Stored(Option<Value>),
}

pub(crate) type Replied = Result<Reply, Error>;

/// A request without a reply.
struct Waiting {
    message_id: String,
    reply: SyncSender<Replied>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<String, Waiting>,
    /// The open turns, and whether they were cancelled.
    open: HashMap<String, bool>,
    numbers: u64,
}

pub(crate) struct Link {
    output: Mutex<Box<dyn Write + Send>>,
    state: Mutex<State>,
    cancelled: Condvar,
    /// What is done when nobody reads.
    gone: fn(),
}

impl Link {
    pub(crate) fn new(output: impl Write + Send + 'static, gone: fn()) -> Arc<Self> {
        let output = Mutex::new(Box::new(output) as _);
        Arc::new(Self { output, state: Mutex::default(), cancelled: Condvar::new(), gone })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line. Those of several threads do not mix.
    pub(crate) fn send(&self, line: &Value) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let written = output.write_all(format!("{}\n", written(line)).as_bytes());
        if written.and_then(|()| output.flush()).is_err() {
            (self.gone)();
        }
    }

    pub(crate) fn open(&self, message_id: &str) {
        self.state().open.insert(message_id.to_owned(), false);
    }

    /// A turn is over: nobody waits for its replies.
    pub(crate) fn close(&self, message_id: &str) {
        let mut state = self.state();
        state.open.remove(message_id);
        state.waiting.retain(|_, waiting| waiting.message_id != message_id);
    }

    pub(crate) fn is_cancelled(&self, message_id: &str) -> bool {
        self.state().open.get(message_id).copied().unwrap_or(true)
    }

    /// A turn is to end: its requests have no replies.
    pub(crate) fn cancel(&self, message_id: &str) {
        let mut state = self.state();
        if let Some(cancelled) = state.open.get_mut(message_id) {
            *cancelled = true;
            state.waiting.retain(|_, waiting| waiting.message_id != message_id);
            self.cancelled.notify_all();
        }
    }

    /// All turns are to end.
    pub(crate) fn cancel_all(&self) {
        let mut state = self.state();
        state.open.values_mut().for_each(|cancelled| *cancelled = true);
        state.waiting.clear();
        self.cancelled.notify_all();
    }

    /// Waits for that long, or until the turn is to end. Whether it is.
    pub(crate) fn sleep(&self, message_id: &str, duration: Duration) -> bool {
        let goes_on = |state: &mut State| state.open.get(message_id) == Some(&false);
        let slept = self.cancelled.wait_timeout_while(self.state(), duration, goes_on);
        let (mut state, _) = slept.unwrap_or_else(PoisonError::into_inner);
        !goes_on(&mut state)
    }

    /// A number that no other request of this process has.
    pub(crate) fn number(&self) -> u64 {
        let mut state = self.state();
        state.numbers += 1;
        state.numbers
    }

    /// Sends a request, and waits for its reply.
    pub(crate) fn request(
        &self,
        message_id: &str,
        id: String,
        line: &Value,
    ) -> Result<Reply, Error> {
        let waits = self.wait(message_id, id)?;
        self.send(line);
        // Its sender is dropped when the turn is cancelled.
        waits.recv().map_err(|_| Error::cancelled())?
    }

    fn wait(&self, message_id: &str, id: String) -> Result<Receiver<Replied>, Error> {
        let mut state = self.state();
        if state.open.get(message_id).copied().unwrap_or(true) {
            return Err(Error::cancelled());
        }
        if state.waiting.contains_key(&id) {
            return Err(Error::new(format!("{id} is waited for already: use another key")));
        }
        let (reply, waits) = sync_channel(1);
        state.waiting.insert(id, Waiting { message_id: message_id.to_owned(), reply });
        Ok(waits)
    }

    /// The reply to a request, if one waits for it.
    pub(crate) fn reply(&self, id: &str, replied: Replied) {
        let waiting = self.state().waiting.remove(id);
        if let Some(Waiting { reply, .. }) = waiting {
            // There is room for one, and there is one.
            let _gone = reply.try_send(replied);
        }
    }

    /// The same. The value of a SECRET in its name is masked: then it is the only one of its kind that the turn waits for.
    pub(crate) fn reply_of(&self, message_id: &str, kind: &str, id: &str, replied: Replied) {
        let other = {
            let state = self.state();
            let is_it = |(of, it): &(&String, &Waiting)| {
                it.message_id == message_id && of.starts_with(kind)
            };
            let mut waiting = state.waiting.iter().filter(is_it).map(|(of, _)| of);
            match (state.waiting.contains_key(id), waiting.next(), waiting.next()) {
                (false, Some(only), None) => Some(only.clone()),
                _ => None,
            }
        };
        self.reply(other.as_deref().unwrap_or(id), replied);
    }
}
