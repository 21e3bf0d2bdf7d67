//! Hears of ends, reads what happened, and exports it: a bounded number at once, and nobody waits for it.

use std::pin::Pin;
use std::time::Duration;

use broker::{Broker, BrokerError};
use common::Timestamp;
use common::message::{Final, MessageKey};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use metrics::{Dropped, Spans};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio_util::sync::CancellationToken;

use super::marks::{self, Ended};
use super::settings::Settings;
use super::story;

/// One of those who export gets each end.
const GROUP: &str = "traces";
/// Messages that are read at once. What ends beyond is dropped: reading must not take the broker from those who work.
const READING: usize = 64;
/// How long reading one may take.
const READ: Duration = Duration::from_secs(5);
/// The most records of events that are read of one message.
const RECORDS: usize = 200;
/// So many spans are exported at once,
const BATCH: usize = 512;
/// or what there is after so long.
const SOON: Duration = Duration::from_secs(1);
/// Spans that wait while others are exported. Beyond, messages are dropped.
const WAITING: usize = 8 * BATCH;
/// How long the last export may take, at the end.
const LAST: Duration = Duration::from_secs(3);
/// How long what is being read at the end may take.
const REST: Duration = Duration::from_secs(1);

/// What became of reading a message: its spans, or that it cannot be read.
type Read = Option<Vec<SpanData>>;

type Exporting = Pin<Box<dyn Future<Output = (SpanExporter, OTelSdkResult)> + Send>>;

/// Makes the exporter. Its addresses, headers and timeouts are those of OpenTelemetry's environment variables.
fn exporter() -> Result<SpanExporter, String> {
    let exporter = SpanExporter::builder().with_http().build();
    let mut exporter = exporter.map_err(|error| error.to_string())?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("mozart");
    }
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// What is under way.
struct Export {
    broker: Broker,
    settings: Settings,
    counts: Spans,
    reading: FuturesUnordered<BoxFuture<'static, Read>>,
    waiting: Vec<SpanData>,
    /// The messages whose spans wait.
    messages: u64,
    /// None while it exports.
    idle: Option<SpanExporter>,
    exporting: Option<Exporting>,
    /// How many spans, and messages, are being exported.
    under_way: (usize, u64),
    /// Whether the last export failed: said once.
    fails: bool,
}

/// Exports until `stop`.
///
/// # Errors
/// When the settings of the exporter cannot be used, or the client is closed.
pub async fn run(
    broker: Broker,
    settings: Settings,
    counts: Spans,
    stop: CancellationToken,
) -> Result<(), String> {
    let idle = Some(exporter()?);
    let ends = broker.subjects().done_all();
    let mut ends = broker.subscribe(ends, Some(GROUP)).await.map_err(|error| error.to_string())?;
    let mut export = Export {
        broker,
        settings,
        counts,
        reading: FuturesUnordered::new(),
        waiting: Vec::new(),
        messages: 0,
        idle,
        exporting: None,
        under_way: (0, 0),
        fails: false,
    };
    let mut tick = tokio::time::interval(SOON);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            end = ends.next() => match end {
                Some(end) => export.hear(&end.subject, &end.payload),
                None => return Err("the connection is closed".to_owned()),
            },
            Some(read) = export.reading.next(), if !export.reading.is_empty() => export.take(read),
            (exporter, result) = next(&mut export.exporting) => export.exported(exporter, &result),
            _ = tick.tick() => export.send(),
        }
        if export.waiting.len() >= BATCH {
            export.send();
        }
    }
    export.last().await;
    Ok(())
}

async fn next(exporting: &mut Option<Exporting>) -> (SpanExporter, OTelSdkResult) {
    match exporting {
        Some(exporting) => exporting.await,
        None => std::future::pending().await,
    }
}

impl Export {
    /// A message has ended.
    fn hear(&mut self, subject: &str, payload: &[u8]) {
        let Some(done) = self.broker.subjects().parse_done(subject) else { return };
        if self.reading.len() >= READING || self.waiting.len() >= WAITING {
            return self.counts.dropped(Dropped::Busy, 1);
        }
        let Ok(final_) = serde_json::from_slice::<Final>(payload) else {
            return self.counts.dropped(Dropped::Unreadable, 1);
        };
        let ended = Ended::new(&final_, self.broker.now());
        let (broker, settings) = (self.broker.clone(), self.settings);
        self.reading.push(Box::pin(async move {
            let reading = read(&broker, &done.key, ended, settings);
            match tokio::time::timeout(READ, reading).await {
                Ok(Ok(spans)) => Some(spans),
                Ok(Err(error)) => {
                    let id = &done.key.message_id;
                    tracing::debug!("message {id} cannot be read for its trace: {error}");
                    None
                }
                Err(_) => None,
            }
        }));
    }

    fn take(&mut self, read: Read) {
        match read {
            Some(spans) if spans.is_empty() => {}
            Some(spans) => {
                self.waiting.extend(spans);
                self.messages += 1;
            }
            None => self.counts.dropped(Dropped::Unreadable, 1),
        }
    }

    /// Exports what waits, unless something is being exported.
    fn send(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(exporter) = self.idle.take() else { return };
        let spans = std::mem::take(&mut self.waiting);
        self.under_way = (spans.len(), std::mem::take(&mut self.messages));
        self.exporting = Some(Box::pin(async move {
            let result = exporter.export(spans).await;
            (exporter, result)
        }));
    }

    fn exported(&mut self, exporter: SpanExporter, result: &OTelSdkResult) {
        (self.idle, self.exporting) = (Some(exporter), None);
        let (spans, messages) = std::mem::take(&mut self.under_way);
        match result {
            Ok(()) => {
                self.counts.exported(spans);
                if std::mem::take(&mut self.fails) {
                    tracing::info!("traces are exported again");
                }
            }
            Err(error) => {
                self.counts.dropped(Dropped::Refused, messages);
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!(
                        "traces cannot be exported, and are dropped until they can: {error}"
                    );
                }
            }
        }
    }

    /// What has ended just now is still exported, if that does not take long.
    async fn last(&mut self) {
        let rest = async {
            while let Some(read) = self.reading.next().await {
                self.take(read);
            }
        };
        let _in_time = tokio::time::timeout(REST, rest).await.is_ok();
        let sending = async {
            for _ in 0..2 {
                self.send();
                if self.exporting.is_some() {
                    let (exporter, result) = next(&mut self.exporting).await;
                    self.exported(exporter, &result);
                }
            }
        };
        let _in_time = tokio::time::timeout(LAST, sending).await.is_ok();
    }
}

/// The spans of a message.
async fn read(
    broker: &Broker,
    key: &MessageKey,
    mut ended: Ended,
    settings: Settings,
) -> Result<Vec<SpanData>, BrokerError> {
    // One that was forgotten meanwhile has no trace.
    let Some(request) = broker.request_of(key).await? else { return Ok(Vec::new()) };
    let (stored, mut envelope): (Timestamp, _) = (request.at, request.value);
    envelope.message.clear();
    let is_recorded = common::trace::of(&envelope, settings.share).sampled;
    if is_recorded && !ended.is_whole() {
        let tail = std::mem::take(&mut ended.marks);
        for batch in broker.first_events(key, RECORDS).await? {
            marks::add(&mut ended.marks, &batch.events);
        }
        let last = ended.marks.iter().map(|mark| mark.seq).max().unwrap_or(0);
        ended.marks.extend(tail.into_iter().filter(|mark| mark.seq > last));
        ended.marks.sort_by_key(|mark| mark.seq);
        ended.marks.dedup_by_key(|mark| mark.seq);
    }
    let namespace = broker.subjects().namespace();
    Ok(story::spans(namespace, &envelope, stored, &ended, settings.share))
}
