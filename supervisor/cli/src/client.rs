//! The command line's connection, and how its results are shown.

use std::ops::Deref;
use std::time::Duration;

use broker::{Attempt as _, Broker, ConnectOptions};
use common::api::ApiError;
use common::{AgentName, failure};
use mozart_client::agents;

pub(crate) use mozart_client::{now, unexpected};

use crate::args::{Global, Output};
use crate::{connect, output};

/// How long a client waits for its first connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(3);

/// A client's connection.
#[derive(Debug, Clone)]
pub struct Client {
    inner: mozart_client::Client,
    pub(crate) output: Output,
    /// That the broker's data was removed while it runs, if that was asked and is so: what is not found may have been there.
    pub(crate) removed: Option<ApiError>,
}

impl Deref for Client {
    type Target = mozart_client::Client;

    fn deref(&self) -> &mozart_client::Client {
        &self.inner
    }
}

impl Client {
    /// Over a connection that is there.
    pub(crate) fn over(broker: Broker, output: Output) -> Self {
        Self { inner: mozart_client::Client::new(broker), output, removed: None }
    }

    /// Connects.
    ///
    /// # Errors
    /// When the broker cannot be reached, refuses us, or lacks what is needed.
    pub(crate) async fn connect(global: &Global) -> Result<Self, ApiError> {
        let options = connect::options(global, "mozart-cli", CONNECT)?;
        let connected = Self::connect_to(&options, global.output).await;
        connected.map_err(|error| connect::explain_own(global, error, &options.url))
    }

    /// Connects to a broker that is known.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub(crate) async fn connect_to(
        options: &ConnectOptions,
        output: Output,
    ) -> Result<Self, ApiError> {
        let broker = Broker::connect(options).await.attempt("cannot use the broker")?;
        Ok(Self::over(broker, output))
    }

    /// Connects to read what is stored, and warns where that may not be all that was.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub(crate) async fn to_read(global: &Global) -> Result<Self, ApiError> {
        let mut client = Self::connect(global).await?;
        client.removed = mozart_client::removed(&client.broker).await;
        if let Some(ApiError { cause, try_, .. }) = &client.removed {
            output::note(format!("warning: {cause}: what is shown may be incomplete; try: {try_}"));
        }
        Ok(client)
    }

    /// Connects to change something that is stored.
    ///
    /// # Errors
    /// As [`Client::connect`] and [`Client::lasts`].
    pub(crate) async fn to_change(global: &Global) -> Result<Self, ApiError> {
        let client = Self::connect(global).await?;
        client.lasts().await.map(|()| client)
    }

    /// Whether results are for programs.
    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }
}

/// What was not found may have been removed with the broker's data: then nobody can tell.
pub(crate) async fn doubted(global: &Global, error: ApiError) -> ApiError {
    let Ok(client) = Client::connect(global).await else { return error };
    match mozart_client::removed(&client.broker).await {
        Some(removed) => {
            let what = format!("{}, as far as the broker still knows", error.what);
            failure::error(removed.code, what, removed.cause, removed.try_)
        }
        None => error,
    }
}

/// Warns if there is no such agent, which may be why a list is empty.
///
/// # Errors
/// When the broker does not answer.
pub(crate) async fn doubt(client: &Client, agent: &AgentName) -> Result<(), ApiError> {
    if !agents::exists(&client.broker, agent).await? {
        let ApiError { what, cause, .. } = agents::meant(client, agent).await;
        output::note(format!("warning: {what}: {cause}"));
    }
    Ok(())
}
