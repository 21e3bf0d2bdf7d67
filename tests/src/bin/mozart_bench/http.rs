//! What HTTP adds: the same chats by the client that the command line uses, and through `mozart api`, in one run.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use broker::ConnectOptions;
use bytes::Bytes;
use common::message::Envelope;
use futures_util::TryFutureExt as _;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::request::Builder;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mozart_client::answer::Answer;
use mozart_client::stream::{Item, Stream};
use mozart_client::watch::Watch;
use mozart_client::{Client, agents, send};
use serde_json::json;
use system_tests::harness::free_port;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::drive::{Load, Side, drive, drive_metered, warm_up};
use crate::figure::{Goal, Pairs, Report};
use crate::fleet::Fleet;
use crate::memory::kilobytes;
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process::{self, Owned};
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::worker::{self, CHUNKS};

const AGENTS: usize = 20;
const IN_FLIGHT: usize = 64;
const STREAMS: usize = 1000;
const STORE: Duration = Duration::from_secs(30);

/// What is wanted of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Its events as they come, 50 of them.
    Stream,
    /// Its final state.
    Answer,
}

/// When the first events came, in nanoseconds after the message was sent.
type Firsts = RefCell<Histogram<u64>>;

fn firsts() -> Result<Firsts> {
    Ok(RefCell::new(Histogram::new_with_bounds(1, 60_000_000_000, 3)?))
}

fn note(firsts: &Firsts, sent: Instant) -> Result<()> {
    firsts.borrow_mut().saturating_record(u64::try_from(sent.elapsed().as_nanos())?);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 ns")]
fn middle(firsts: &Firsts) -> f64 {
    let middle = firsts.borrow().value_at_quantile(0.5) as f64 / 1000.0;
    firsts.borrow_mut().reset();
    middle
}

fn said(wanted: Wanted, text: &str) -> String {
    match wanted {
        Wanted::Stream => format!("{CHUNKS}{}", &text[CHUNKS.len()..]),
        Wanted::Answer => text.to_owned(),
    }
}

/// As `mozart chat` and `mozart ask` do, on a connection that is there.
struct Direct<'a> {
    client: &'a Client,
    ours: &'a Ours,
    wanted: Wanted,
    firsts: Firsts,
}

impl Direct<'_> {
    async fn stream(&self, envelope: &Envelope, begun: Instant) -> Result<()> {
        let broker = &self.client.broker;
        let mut watch = Watch::open(broker, &envelope.key()).await?;
        send::store(broker, envelope, false, STORE).await?;
        let mut stream = Stream::new(true, 0);
        let mut is_first = true;
        loop {
            let items = watch.items(&mut stream).await?;
            if std::mem::take(&mut is_first) {
                note(&self.firsts, begun)?;
            }
            match items.last() {
                Some(Item::Done { .. }) => return Ok(()),
                Some(_) => {}
                None => return fail("a stream ended without an end"),
            }
        }
    }
}

impl Side for Direct<'_> {
    async fn chat(&self, agent: usize, text: &str) -> Result<()> {
        let begun = Instant::now();
        let envelope = self.ours.envelope(agent, &said(self.wanted, text))?;
        agents::require(self.client, &envelope.agent).await?;
        if self.wanted == Wanted::Stream {
            return self.stream(&envelope, begun).await;
        }
        let broker = &self.client.broker;
        let mut answer = Answer::listen(broker, &envelope.key()).await?;
        send::store(broker, &envelope, false, STORE).await?;
        answer.final_().await;
        Ok(())
    }
}

/// Through the API, on connections that are kept.
struct Door<'a> {
    address: SocketAddr,
    /// One for each agent: a token may make 1,000 requests a second.
    tokens: &'a [String],
    agents: &'a [common::AgentName],
    wanted: Wanted,
    firsts: Firsts,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
    connections: RefCell<JoinSet<()>>,
}

impl Door<'_> {
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>> {
        if let Some(idle) = self.idle.borrow_mut().pop() {
            return Ok(idle);
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        self.connections.borrow_mut().spawn(connection.unwrap_or_else(drop));
        Ok(sender)
    }

    fn request(&self, agent: usize, request: Builder, accept: &str) -> Builder {
        request
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {}", self.tokens[agent]))
            .header("content-type", "application/json")
            .header("accept", accept)
    }

    /// Reads an answer to its end.
    async fn read(&self, response: Response<Incoming>, begun: Instant) -> Result<()> {
        let mut body = response.into_body();
        let (mut is_first, mut last) = (self.wanted == Wanted::Stream, Vec::new());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            // The stream begins with a comment.
            if is_first && memchr::memmem::find(&data, b"data:").is_some() {
                is_first = false;
                note(&self.firsts, begun)?;
            }
            last.clear();
            last.extend_from_slice(&data);
        }
        let end: &[u8] = match self.wanted {
            Wanted::Stream => b"\"type\":\"done\"",
            Wanted::Answer => b"\"completed\"",
        };
        if memchr::memmem::find(&last, end).is_some() {
            return Ok(());
        }
        fail(format!("an answer ended with {}", String::from_utf8_lossy(&last)))
    }
}

/// Sends a request that makes a message.
async fn sent(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>> {
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    if response.status() == StatusCode::CREATED {
        return Ok(response);
    }
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    fail(format!("{status}: {}", String::from_utf8_lossy(&body)))
}

impl Side for Door<'_> {
    async fn chat(&self, agent: usize, text: &str) -> Result<()> {
        let begun = Instant::now();
        let mut connection = self.connection().await?;
        let body =
            json!({ "agent": self.agents[agent], "message": said(self.wanted, text) }).to_string();
        let (path, accept) = match self.wanted {
            Wanted::Stream => ("/api/v1/messages", "text/event-stream"),
            Wanted::Answer => ("/api/v1/messages?wait=30s", "application/json"),
        };
        let request = self.request(agent, Request::post(path), accept);
        let response = sent(&mut connection, request.body(Full::new(body.into()))?).await?;
        self.read(response, begun).await?;
        self.idle.borrow_mut().push(connection);
        Ok(())
    }
}

/// A process of the API, and a token for each agent.
async fn api(rig: &Rig, fleet: &Fleet) -> Result<(Owned, SocketAddr, Vec<String>)> {
    let mut tokens = Vec::new();
    for agent in &fleet.agents {
        let mut create = fleet.command();
        create.args(["token", "create", &format!("of-{agent}"), "--scope", "send"]);
        tokens.push(fleet.run(&mut create).await?.trim().to_owned());
    }
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let mut serve = fleet.command();
    serve.args(["api", "--listen", &address.to_string()]).env(crate::cpu::MARK, rig.folder.path());
    serve.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let serving = Owned::start(&mut serve)?;
    process::until("the API", Duration::from_secs(20), async || {
        Ok(TcpStream::connect(address).await.ok())
    })
    .await?;
    Ok((serving, address, tokens))
}

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Lazy).await?;
    let (streamers, ours) = rig.ours(AGENTS, &worker::soul(None, "")?).await?;
    let options = ConnectOptions { ..Rig::connect(&streamers.url, &streamers.namespace) };
    let client = Client::new(broker::Broker::connect(&options).await?);
    let (serving, address, tokens) = api(&rig, &streamers).await?;
    let direct = |wanted| -> Result<Direct<'_>> {
        Ok(Direct { client: &client, ours: &ours, wanted, firsts: firsts()? })
    };
    let door = |wanted| -> Result<Door<'_>> {
        Ok(Door {
            address,
            tokens: &tokens,
            agents: &streamers.agents,
            wanted,
            firsts: firsts()?,
            idle: RefCell::default(),
            connections: RefCell::default(),
        })
    };
    streams(plan, report, &direct(Wanted::Stream)?, &door(Wanted::Stream)?).await?;
    let (direct, door) = (direct(Wanted::Answer)?, door(Wanted::Answer)?);
    let load = Load { agents: AGENTS, in_flight: IN_FLIGHT, window: plan.window };
    warm_up(&direct, AGENTS).await?;
    warm_up(&door, AGENTS).await?;
    let meter = crate::cpu::Meter::new(rig.folder.path())?;
    let (mut rates, mut costs) = (Pairs::default(), Pairs::default());
    for _ in 0..plan.pairs {
        let (through, cost) = drive_metered(&door, load, &meter).await?;
        let (plain, usual) = drive_metered(&direct, load, &meter).await?;
        rates.push(through.rate, plain.rate);
        costs.push(cost, usual);
    }
    let name = format!("HTTP, {AGENTS} agents, {IN_FLIGHT} in flight, lazy: without");
    report.add(rates.figure(24, &name, "chats/s", Goal::AtLeast(0.9)))?;
    let name = "  the same, CPU time a chat, of all processes";
    report.add(costs.figure(24, name, "us", Goal::None))?;
    let mut stop = streamers.command();
    // What is sent from now on stays open: this one takes no more.
    streamers.run(stop.args(["stop", streamers.agents[0].as_str()])).await?;
    let mut idle = streamers.command();
    idle.args(["wait", streamers.agents[0].as_str(), "--for", "stopped"]);
    streamers.run(&mut idle).await?;
    many(report, &door, &serving).await
}

/// What open streams cost a process, on which nothing comes.
async fn many(report: &mut Report, door: &Door<'_>, serving: &Owned) -> Result<()> {
    let status = format!("/proc/{}/status", serving.id());
    let memory = || kilobytes(status.as_ref(), "VmRSS:").ok_or("no memory in /proc");
    let before = memory()?;
    let body = json!({ "agent": door.agents[0], "message": "later" }).to_string();
    let request = door.request(0, Request::post("/api/v1/messages"), "application/json");
    let request = request.body(Full::new(body.into()))?;
    let response = sent(&mut door.connection().await?, request).await?;
    let Some(place) = response.headers().get("location").cloned() else {
        return fail("a message without a place");
    };
    let events = format!("{}/events", place.to_str()?);
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let request = door.request(0, Request::get(&events), "text/event-stream");
        let mut connection = door.connection().await?;
        connection.ready().await?;
        let response = connection.send_request(request.body(Full::default())?).await?;
        if response.status() != StatusCode::OK {
            return fail(format!("stream {}: {}", open.len(), response.status()));
        }
        open.push((connection, response));
    }
    let after = memory()?;
    let name = format!("{STREAMS} open streams, resident memory of the API's process: with none");
    let mut pair = Pairs::default();
    pair.push(after / 1024.0, before / 1024.0);
    report.add(pair.figure(24, &name, "MiB", Goal::None))
}

/// One stream at a time.
async fn streams(
    plan: &Plan,
    report: &mut Report,
    direct: &Direct<'_>,
    door: &Door<'_>,
) -> Result<()> {
    let load = Load { agents: 1, in_flight: 1, window: plan.window };
    warm_up(direct, 1).await?;
    warm_up(door, 1).await?;
    let (mut first, mut whole) = (Pairs::default(), Pairs::default());
    let (_, _) = (middle(&direct.firsts), middle(&door.firsts));
    for _ in 0..plan.pairs {
        let (through, plain) = (drive(door, load).await?, drive(direct, load).await?);
        whole.push(through.micros(0.5), plain.micros(0.5));
        first.push(middle(&door.firsts), middle(&direct.firsts));
    }
    let name = "HTTP, a stream of 50 events, lazy, p50 of the first: without";
    report.add(first.figure(24, name, "us", Goal::AtMost(1.3)))?;
    let name = "  the same, p50 of the whole";
    report.add(whole.figure(24, name, "us", Goal::AtMost(1.3)))
}
