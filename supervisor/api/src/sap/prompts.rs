//! Prompts: stored, acknowledged, and answered in the inbox of whoever asks.

use std::sync::Arc;
use std::time::Duration;

use broker::{Asked, Attempt as _, FromWhom, ReplyState};
use common::api::ApiError;
use common::message::{Envelope, MAX_TEXT};
use common::subject::{SAP_SERVICE, is_inbox};
use common::users::{Scope, User};
use common::{AgentName, SenderName};
use mozart_client::cancel::cancel;
use mozart_client::now;
use mozart_client::send::{self, Draft, Known};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::words::{self, Refusal};
use super::{Host, agent, closed, telling};
use crate::Door;

/// Answers that one process has under way at a time.
pub(super) const MOST: usize = 1_024;
/// And those of one sender: others are answered as well.
pub(super) const SHARE: u32 = 256;
const _: () = assert!((SHARE as usize) < MOST);
/// How long storing may take.
const STORE: Duration = Duration::from_secs(30);
/// The namespace of the ids of messages that are sent with a key: the same key of the same sender is always the same message.
const KEYED: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_5e64_9264_7361_706b_6579);
/// The longest key.
const KEY: usize = 255;
/// By way of what a message is cancelled whose prompt is refused.
const DOOR: &str = "sap";

/// Takes prompts, each as a task of its own.
pub(super) async fn take(host: &Arc<Host>) -> Result<(), ApiError> {
    let broker = &host.api.client.broker;
    let asking = broker.asked_at(vec![broker.subjects().sap_prompts()], SAP_SERVICE).await;
    let mut asking = asking.attempt("cannot take prompts")?;
    let mut open = JoinSet::new();
    loop {
        let asked = tokio::select! {
            asked = asking.next() => asked.ok_or_else(closed)?,
            Some(_) = open.join_next() => continue,
        };
        // Without an inbox there is nobody to tell that it is refused.
        let Some(inbox) = asked.reply.clone() else { continue };
        if open.len() >= MOST {
            let why = "this process answers as many prompts as it may; try again later";
            host.refuse(&inbox, &Refusal::later(why)).await;
            continue;
        }
        let host = Arc::clone(host);
        open.spawn(async move {
            if let Err(refusal) = answer(&host, &asked, &inbox).await {
                host.refuse(&inbox, &refusal).await;
            }
        });
    }
}

/// Whoever prompts, and what they may prompt.
struct Sender {
    name: SenderName,
    scope: Scope,
    /// The only agents; none is all.
    agents: Vec<AgentName>,
}

/// Who prompts, as the server says. Admins are in the fleet's own account, where it says nothing, and may do everything: they are told by their inbox.
async fn sender(host: &Host, asked: &Asked, inbox: &str) -> Result<Sender, Refusal> {
    let broker = &host.api.client.broker;
    match &asked.by {
        FromWhom::Fleet => {
            let named = match broker.subjects().parse_user_inbox(inbox) {
                Some(name) => broker.user_named(&name).await.attempt("who asks")?,
                None => None,
            };
            let admin = named.filter(|user| user.scope == Scope::Admin);
            let name = admin.map_or_else(|| host.api.client.sender(), |user| user.name);
            Ok(Sender { name, scope: Scope::Operate, agents: Vec::new() })
        }
        FromWhom::User(name) => {
            let user = broker.user_named(name).await.attempt("who asks")?;
            let Some(User { name, scope, agents, .. }) = user else {
                return Err(Refusal::new(401, format!("there is no user {name} any more")));
            };
            if scope < Scope::Send {
                let why = format!("user {name} has scope {scope}, and prompting needs send");
                return Err(Refusal::new(403, why));
            }
            Ok(Sender { name, scope, agents })
        }
        FromWhom::Others => Err(Refusal::new(401, "only users of this fleet may prompt")),
    }
}

/// What is to be sent, and whether it may have been sent before.
async fn envelope(host: &Host, asked: &Asked, by: Sender) -> Result<(Envelope, bool), Refusal> {
    let broker = &host.api.client.broker;
    let name = broker.subjects().parse_sap_prompt(&asked.subject).unwrap_or_default();
    let agent = agent(name)?;
    let Sender { name: sender, scope, agents } = by;
    if !agents.is_empty() && !agents.contains(&agent) {
        return Err(Refusal::new(403, format!("user {sender} may not send to {agent}")));
    }
    let prompt = words::prompt(&asked.payload)?;
    if prompt.text.len() > MAX_TEXT {
        return Err(Refusal::new(400, format!("the prompt has more than {MAX_TEXT} bytes")));
    }
    let conversation = prompt.conversation.map(|name| name.parse()).transpose();
    let conversation = conversation
        .map_err(|error: common::id::InvalidId| Refusal::new(400, error.to_string()))?;
    let id = match &asked.key {
        None => None,
        Some(key) if (1..=KEY).contains(&key.len()) => {
            let name = format!("{sender}\n{agent}\n{key}");
            Some(Uuid::new_v5(&KEYED, name.as_bytes()).into())
        }
        Some(_) => {
            return Err(Refusal::new(400, format!("Nats-Msg-Id: expected 1 to {KEY} bytes")));
        }
    };
    let client = host.api.client.on_behalf(scope, sender.clone());
    mozart_client::agents::require(&client, &agent).await?;
    let is_named = id.is_some();
    let draft = Draft {
        agent,
        sender,
        text: prompt.text,
        conversation,
        id,
        deadline: None,
        traceparent: asked.traceparent.as_deref().and_then(|text| text.parse().ok()),
        deliver_at: None,
    };
    Ok((draft.envelope(), is_named))
}

/// Stores a prompt, acknowledges it, and tells the answer.
async fn answer(host: &Arc<Host>, asked: &Asked, inbox: &str) -> Result<(), Refusal> {
    if !is_inbox(inbox) {
        return Err(Refusal::new(400, "no answer can go to that reply subject"));
    }
    let by = sender(host, asked, inbox).await?;
    let many = |open| Refusal::later(format!("{} has {open} prompts open here", by.name));
    let _counted = host.prompts.open(&by.name, None).map_err(many)?;
    let (envelope, is_named) = envelope(host, asked, by).await?;
    let taken = || Refusal::new(409, "another answer goes to that reply subject");
    let Some(_open) = host.open(inbox) else { return Err(taken()) };
    let broker = &host.api.client.broker;
    // What is refused is not stored: at another process, too, an answer may go there.
    if broker.is_reply_open(inbox).await.attempt("cannot answer")? {
        return Err(taken());
    }
    let mut watch = host.api.watch(&envelope.key()).await?;
    let known = send::store(broker, &envelope, is_named, STORE).await?;
    host.api.accepted(Door::Sap, Some(&known));
    let begun = async {
        watch.stored(known).await?;
        let state = ReplyState::new(&host.run, envelope.key(), now());
        // Acknowledged is what is stored, and on record as to be answered here.
        let begun = broker.begin_reply(inbox, state, words::ack()).await;
        begun.attempt("cannot answer")?.ok_or_else(taken)
    };
    match begun.await {
        Ok(reply) => telling::tell(reply, watch).await,
        Err(refusal) => return Err(take_back(host, &envelope, known, refusal).await),
    }
    Ok(())
}

/// Takes back a message whose prompt is refused after all: nobody is to work at what its sender takes for refused. The refusal says so where that
/// does not work, and where the message had been sent before.
async fn take_back(host: &Host, envelope: &Envelope, known: Known, refusal: Refusal) -> Refusal {
    let client = &host.api.client;
    let is_cancelled = known == Known::New
        && match client.broker.request_of(&envelope.key()).await {
            Ok(Some(stored)) => cancel(client, stored, DOOR).await.is_ok(),
            Ok(None) | Err(_) => false,
        };
    match is_cancelled {
        true => refusal,
        false => refusal.stored(&envelope.message_id),
    }
}
