//! A client's presence at brokers: to each of them a telemetry stream with its settings, and heartbeats.

use std::env::consts::OS;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_stream::StreamExt;
use tonic::Streaming;

use crate::client::{Broker, CALL_TIMEOUT, VERSION, host_name, timed};
use crate::protocol::v2::settings::PubSub;
use crate::protocol::v2::telemetry_command::Command;
use crate::protocol::v2::{
    HeartbeatRequest, Language, NotifyClientTerminationRequest, Resource, Settings, TelemetryCommand, Ua,
};
use crate::status::check;

/// As often as the official clients; silence tells servers that a client is gone.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

pub struct Session {
    brokers: Vec<Broker>,
    group: Option<Resource>,
    heartbeats: JoinHandle<()>,
    _streams: Vec<Streaming<TelemetryCommand>>,
}

impl Session {
    /// Returns when every broker has answered the settings.
    pub async fn join(brokers: &[Broker], mut settings: Settings) -> anyhow::Result<Self> {
        settings.request_timeout = Some(CALL_TIMEOUT.try_into()?);
        settings.user_agent = Some(Ua {
            language: Language::Rust.into(),
            version: VERSION.to_owned(),
            platform: OS.to_owned(),
            hostname: host_name(),
        });
        let mut streams = Vec::new();
        for broker in brokers {
            let opened = timeout(CALL_TIMEOUT, introduce(broker.clone(), settings.clone())).await;
            let context = || format!("{} does not take our settings", broker.name);
            streams.push(opened.with_context(context)?.with_context(context)?);
        }
        let group = match settings.pub_sub {
            Some(PubSub::Subscription(subscription)) => subscription.group,
            _ => None,
        };
        let heartbeat =
            HeartbeatRequest { group: group.clone(), client_type: settings.client_type.unwrap_or_default() };
        let heartbeats = tokio::spawn(beat(brokers.to_vec(), heartbeat));
        Ok(Self { brokers: brokers.to_vec(), group, heartbeats, _streams: streams })
    }

    /// Says goodbye, so that what the client holds goes to others at once.
    pub async fn leave(mut self) {
        self.heartbeats.abort();
        for broker in &mut self.brokers {
            let goodbye = NotifyClientTerminationRequest { group: self.group.clone() };
            let _ = broker.stub.notify_client_termination(timed(goodbye)).await;
        }
    }
}

/// Opens the stream, which then stays open: its end tells the broker that the client is gone. A program that lives
/// long opens it again when it breaks, and reads the commands on it: they are for consumers with a listener and for
/// senders of transactions.
async fn introduce(mut broker: Broker, settings: Settings) -> anyhow::Result<Streaming<TelemetryCommand>> {
    let command = TelemetryCommand { status: None, command: Some(Command::Settings(settings)) };
    let commands = tokio_stream::once(command).chain(tokio_stream::pending());
    let mut stream = broker.stub.telemetry(commands).await?.into_inner();
    // Its settings hold what the broker prescribes: batch sizes, waiting times, how long a failed message stays away.
    let answer = stream.message().await?.context("the broker closed the stream")?;
    check(answer.status)?;
    Ok(stream)
}

async fn beat(mut brokers: Vec<Broker>, heartbeat: HeartbeatRequest) {
    let mut ticks = interval(HEARTBEAT_INTERVAL);
    loop {
        ticks.tick().await;
        for broker in &mut brokers {
            // One that fails is made up for by the next.
            let _ = broker.stub.heartbeat(timed(heartbeat.clone())).await;
        }
    }
}
