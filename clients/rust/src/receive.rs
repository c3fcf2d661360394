use std::cmp::min;
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use flate2::read::GzDecoder;

use crate::Options;
use crate::client::{Broker, Client, resource, timed, timed_with};
use crate::protocol::v2::receive_message_response::Content;
use crate::protocol::v2::settings::PubSub;
use crate::protocol::v2::{
    AckMessageEntry, AckMessageRequest, ClientType, Code, Encoding, FilterExpression, FilterType, Message,
    MessageQueue, Permission, ReceiveMessageRequest, Settings, Subscription, SubscriptionEntry,
};
use crate::send::show;
use crate::session::Session;
use crate::status::check;

/// How long a broker may wait for messages before it answers that there are none.
const POLL: Duration = Duration::from_secs(5);
/// What is not acknowledged by then comes again, to whichever member of the group asks.
const INVISIBLE: Duration = Duration::from_secs(30);
const BATCH_SIZE: usize = 32;
const ANY_QUEUE: i32 = -1; // of the broker that is asked

/// Asks the brokers of the topic in turn, until enough messages came.
pub async fn receive(options: &Options) -> anyhow::Result<()> {
    let mut brokers = Client::new()?.brokers(&options.endpoints, &options.topic, Permission::Read).await?;
    let all = SubscriptionEntry { topic: resource(&options.topic), expression: Some(everything()) };
    let subscription = Subscription { group: resource(&options.group), subscriptions: vec![all], ..Default::default() };
    let settings = Settings {
        client_type: Some(ClientType::SimpleConsumer.into()),
        pub_sub: Some(PubSub::Subscription(subscription)),
        ..Default::default()
    };
    let session = Session::join(&brokers, settings).await?;
    let received = receive_all(&mut brokers, options).await;
    session.leave().await;
    received
}

/// Or tags, as in "paid || shipped".
fn everything() -> FilterExpression {
    FilterExpression { r#type: FilterType::Tag.into(), expression: "*".to_owned() }
}

async fn receive_all(brokers: &mut [Broker], options: &Options) -> anyhow::Result<()> {
    let idle = Duration::from_secs(options.idle_s);
    let mut latest = Instant::now();
    let mut received = 0;
    while received < options.count {
        brokers.rotate_left(1);
        let broker = &mut brokers[0];
        let messages = poll(broker, options, min(BATCH_SIZE, options.count - received), min(POLL, idle)).await?;
        for message in &messages {
            println!("{}", show(message));
        }
        received += messages.len();
        if !messages.is_empty() {
            // Only now that they are dealt with: if we end before, they come again.
            acknowledge(broker, options, messages).await?;
            latest = Instant::now();
        } else if latest.elapsed() >= idle {
            bail!("{received} of {} messages came, and then none for {} s", options.count, options.idle_s);
        }
    }
    Ok(())
}

/// One long poll. That there are no messages is no error.
async fn poll(broker: &mut Broker, options: &Options, most: usize, wait: Duration) -> anyhow::Result<Vec<Message>> {
    let queue = MessageQueue { topic: resource(&options.topic), id: ANY_QUEUE, ..Default::default() };
    let request = ReceiveMessageRequest {
        group: resource(&options.group),
        message_queue: Some(queue),
        filter_expression: Some(everything()),
        batch_size: most.try_into()?,
        invisible_duration: Some(INVISIBLE.try_into()?),
        long_polling_timeout: Some(wait.try_into()?),
        ..Default::default()
    };
    let mut parts = broker.stub.receive_message(timed_with(request, wait)).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(part) = parts.message().await? {
        match part.content {
            Some(Content::Message(message)) => messages.push(unpacked(message)?),
            Some(Content::Status(status)) if status.code() != Code::MessageNotFound => check(Some(status))?,
            _ => {} // that there was nothing, or the time of delivery
        }
    }
    Ok(messages)
}

/// With the body as its sender wrote it: some clients pack large ones.
fn unpacked(mut message: Message) -> anyhow::Result<Message> {
    if message.system_properties.as_ref().is_some_and(|system| system.body_encoding() == Encoding::Gzip) {
        let mut body = Vec::new();
        GzDecoder::new(message.body.as_slice()).read_to_end(&mut body)?;
        message.body = body;
    }
    Ok(message)
}

/// Returns when the broker has it on its disk: the messages will not come again.
async fn acknowledge(broker: &mut Broker, options: &Options, messages: Vec<Message>) -> anyhow::Result<()> {
    let system = messages.into_iter().filter_map(|message| message.system_properties);
    let entries = system.map(|system| AckMessageEntry {
        receipt_handle: system.receipt_handle().to_owned(),
        message_id: system.message_id,
        lite_topic: None,
    });
    let request = AckMessageRequest {
        group: resource(&options.group),
        topic: resource(&options.topic),
        entries: entries.collect(),
    };
    let answer = broker.stub.ack_message(timed(request)).await?.into_inner();
    check(answer.status)?;
    for entry in answer.entries {
        check(entry.status).context(entry.message_id)?;
    }
    Ok(())
}
