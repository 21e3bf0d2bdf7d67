//! Prompts: stored, acknowledged, and answered in the inbox of whoever asks.

use std::sync::Arc;
use std::time::Duration;

use broker::{Asked, Attempt as _, FromWhom, ReplyState};
use common::api::ApiError;
use common::message::{Envelope, MAX_TEXT};
use common::subject::{SAP_SERVICE, is_inbox};
use common::users::{Scope, User};
use common::{AgentName, SenderName};
use mozart_client::now;
use mozart_client::send::{self, Draft, Known};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::words::{self, Refusal};
use super::{Host, agent, closed, telling};

/// Answers that one process has under way at a time.
pub(super) const MOST: usize = 1_024;
/// How long storing may take.
const STORE: Duration = Duration::from_secs(30);
/// The namespace of the ids of messages that are sent with a key: the same key of the same sender is always the same message.
const KEYED: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_5e64_9264_7361_706b_6579);
/// The longest key.
const KEY: usize = 255;

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

/// Who prompts, as the server says.
async fn sender(host: &Host, asked: &Asked) -> Result<Sender, Refusal> {
    match &asked.by {
        FromWhom::Fleet => {
            let name = host.api.client.sender();
            Ok(Sender { name, scope: Scope::Operate, agents: Vec::new() })
        }
        FromWhom::User(name) => {
            let user = host.api.client.broker.user_named(name).await.attempt("who asks")?;
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
async fn envelope(host: &Host, asked: &Asked) -> Result<(Envelope, bool), Refusal> {
    let broker = &host.api.client.broker;
    let name = broker.subjects().parse_sap_prompt(&asked.subject).unwrap_or_default();
    let agent = agent(name)?;
    let Sender { name: sender, scope, agents } = sender(host, asked).await?;
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
    };
    Ok((draft.envelope(), is_named))
}

/// Stores a prompt, acknowledges it, and tells the answer.
async fn answer(host: &Arc<Host>, asked: &Asked, inbox: &str) -> Result<(), Refusal> {
    if !is_inbox(inbox) {
        return Err(Refusal::new(400, "no answer can go to that reply subject"));
    }
    let (envelope, is_named) = envelope(host, asked).await?;
    let many = || Refusal::later(format!("{} has too many prompts open", envelope.sender));
    let _counted = host.api.quotas.stream(&envelope.sender, None).map_err(|_| many())?;
    let taken = || Refusal::new(409, "another answer goes to that reply subject");
    let Some(_open) = host.open(inbox) else { return Err(taken()) };
    let (broker, key) = (&host.api.client.broker, envelope.key());
    let mut watch = host.api.watch(&key).await?;
    if send::store(broker, &envelope, is_named, STORE).await? == Known::Already {
        watch.look().await?;
    }
    let state = ReplyState::new(&host.run, key, now());
    // Acknowledged is what is stored, and on record as to be answered here.
    let begun = broker.begin_reply(inbox, state, words::ack()).await;
    let reply = begun.attempt("cannot answer")?.ok_or_else(taken)?;
    telling::tell(reply, watch).await;
    Ok(())
}
