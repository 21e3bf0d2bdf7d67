//! What a role tells of itself beside its log: numbers, at an address of their own, and traces.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, ConnectOptions};
use clap::Args;
use common::api::ApiError;
use common::failure;
use common::trace::Share;
use metrics::{Fleet, Metrics};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use traces::Settings;

/// The port, where none is given.
const PORT: u16 = 4142;
/// How long one attempt to reach the broker may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Where numbers are told.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct MetricsArgs {
    /// Serve metrics for Prometheus at http://ADDRESS/metrics, to whoever can reach that address; `off` serves none [default port: 4142]
    #[arg(long, env = "MOZART_METRICS", value_name = "ADDRESS[:PORT]|off", default_value = "off")]
    pub(crate) metrics: At,
}

/// An address, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct At(Option<SocketAddr>);

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "off" {
            return Ok(Self(None));
        }
        match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
            (Ok(address), _) => Ok(Self(Some(address))),
            (Err(_), Ok(ip)) => Ok(Self(Some(SocketAddr::new(ip, PORT)))),
            (Err(_), Err(_)) => {
                Err("expected an IP address, with or without a port, or `off`".to_owned())
            }
        }
    }
}

impl MetricsArgs {
    /// As words of a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let address = self.metrics.0.iter();
        address.flat_map(|address| ["--metrics".to_owned(), address.to_string()]).collect()
    }

    /// Whether an address is given here, and not by the environment: that, the one that runs has, too.
    pub(crate) fn is_given(&self) -> bool {
        self.metrics.0.is_some() && std::env::var_os("MOZART_METRICS").is_none()
    }
}

/// What is told, and where.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    metrics: Option<Arc<Metrics>>,
    listener: Option<TcpListener>,
    traces: Option<Settings>,
}

impl Numbers {
    /// Opens the listener, if one is wanted, and looks where traces are to go. `role`: what this process was started as.
    ///
    /// # Errors
    /// When the address cannot be used, or a variable about traces.
    pub(crate) async fn open(args: &MetricsArgs, role: &'static str) -> Result<Self, ApiError> {
        let traces = traces::settings(|name| std::env::var(name).ok()).map_err(|cause| {
            let try_ = "unset OTEL_EXPORTER_OTLP_ENDPOINT to export no traces";
            failure::error(failure::USAGE, "cannot export traces", cause, try_)
        })?;
        let Some(address) = args.metrics.0 else {
            return Ok(Self { traces, ..Self::default() });
        };
        let listener = metrics::bind(address).await.map_err(|error| {
            let what = format!("cannot serve metrics at {address}");
            let try_ = "another address in --metrics (MOZART_METRICS), or `off`";
            failure::error(failure::FAILED, what, error, try_)
        })?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!("metrics are at http://{address}/metrics");
        }
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), role));
        Ok(Self { metrics: Some(metrics), listener: Some(listener), traces })
    }

    /// Those of a supervisor.
    pub(crate) fn fleet(&self) -> Option<Fleet> {
        self.metrics.as_ref().map(|metrics| metrics.fleet())
    }

    /// Those of a node.
    pub(crate) fn node(&self) -> Option<metrics::Node> {
        self.metrics.as_ref().map(|metrics| metrics.node())
    }

    /// Those of the API.
    pub(crate) fn http(&self) -> Option<metrics::Http> {
        self.metrics.as_ref().map(|metrics| metrics.http())
    }

    /// The traces that are recorded; none where none is exported.
    pub(crate) fn share(&self) -> Option<Share> {
        self.traces.map(|traces| traces.share)
    }

    /// A node exports nothing: it tells its shims which traces are recorded. Nor does the API.
    pub(crate) fn without_traces(mut self) -> Self {
        self.traces = None;
        self
    }

    /// Serves the numbers, and exports traces, until `stop`. Neither ends anything else.
    pub(crate) async fn keep(self, connect: ConnectOptions, stop: CancellationToken) {
        let Self { metrics, listener, traces } = self;
        let mut parts = JoinSet::new();
        if let Some(settings) = traces {
            let counts = metrics.as_ref().map(|metrics| metrics.spans()).unwrap_or_default();
            let stop = stop.clone();
            parts.spawn(async move {
                // A connection of its own: what is read for traces holds up nothing else.
                let connecting = broker::once_there("the export of traces", || {
                    let name = format!("{}, traces", connect.name);
                    let connect = ConnectOptions { timeout: CONNECT, name, ..connect.clone() };
                    async move { Broker::connect(&connect).await }
                });
                let exported = match stop.run_until_cancelled(connecting).await {
                    Some(Ok(broker)) => traces::run(broker, settings, counts, stop.clone()).await,
                    Some(Err(error)) => Err(error.to_string()),
                    None => Ok(()),
                };
                if let Err(error) = exported {
                    tracing::error!("traces are not exported any more: {error}");
                }
            });
        }
        if let Some((metrics, listener)) = metrics.zip(listener) {
            parts.spawn(metrics::serve(listener, metrics, stop.clone()));
        }
        stop.cancelled().await;
        while parts.join_next().await.is_some() {}
    }

    /// The same for as long as something serves.
    pub(crate) async fn during<T>(
        self,
        connect: &ConnectOptions,
        serving: impl Future<Output = T>,
    ) -> T {
        let stop = CancellationToken::new();
        let keeping = self.keep(connect.clone(), stop.clone());
        let serving = async {
            let served = serving.await;
            stop.cancel();
            served
        };
        let ((), served) = tokio::join!(keeping, serving);
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_usual_port_and_off_is_none() {
        let at = |text: &str| text.parse::<At>().map(|at| at.0.map(|address| address.to_string()));
        assert_eq!(at("off"), Ok(None));
        assert_eq!(at(""), Ok(None), "as an empty variable in a compose file");
        assert_eq!(at("127.0.0.1"), Ok(Some("127.0.0.1:4142".to_owned())));
        assert_eq!(at("0.0.0.0:9000"), Ok(Some("0.0.0.0:9000".to_owned())));
        assert_eq!(at("[::1]:9000"), Ok(Some("[::1]:9000".to_owned())));
        for bad in ["localhost:9000", "9000", "on", ":9000"] {
            assert!(at(bad).is_err(), "{bad}");
        }
        let args = MetricsArgs { metrics: "127.0.0.1".parse().expect("valid") };
        assert_eq!(args.words(), ["--metrics", "127.0.0.1:4142"]);
        assert!(MetricsArgs::default().words().is_empty());
    }
}
