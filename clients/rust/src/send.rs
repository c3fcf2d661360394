use std::time::SystemTime;

use uuid::Uuid;

use crate::Options;
use crate::client::{Broker, Client, host_name, resource, timed};
use crate::protocol::v2::settings::PubSub;
use crate::protocol::v2::{
    ClientType, Code, Encoding, Message, MessageType, Permission, Publishing, SendMessageRequest, Settings,
    SystemProperties,
};
use crate::session::Session;
use crate::status::{Refused, check};

/// Spreads the messages over the brokers of the topic. On the broker each goes to a queue of the broker's choice.
pub async fn send(options: &Options) -> anyhow::Result<()> {
    let mut brokers = Client::new()?.brokers(&options.endpoints, &options.topic, Permission::Write).await?;
    let publishing = Publishing { topics: resource(&options.topic).into_iter().collect(), ..Default::default() };
    let settings = Settings {
        client_type: Some(ClientType::Producer.into()),
        pub_sub: Some(PubSub::Publishing(publishing)),
        ..Default::default()
    };
    let session = Session::join(&brokers, settings).await?;
    let sent = send_all(&mut brokers, options).await;
    session.leave().await;
    sent
}

async fn send_all(brokers: &mut [Broker], options: &Options) -> anyhow::Result<()> {
    for number in 0..options.count {
        let message = new_message(&options.topic, number);
        brokers.rotate_left(1);
        send_one(brokers, &message).await?;
        println!("{}", show(&message));
    }
    Ok(())
}

/// Returns when a broker has the message on its disk. One that is down, or takes no writes because it is about to
/// leave the cluster, is passed over. A send that broke off may have been stored, so the message can come twice then:
/// consumers tell by its id.
async fn send_one(brokers: &mut [Broker], message: &Message) -> anyhow::Result<()> {
    let mut failure = None;
    for broker in brokers {
        match send_to(broker, message.clone()).await {
            Err(error) if is_elsewhere_possible(&error) => failure = Some(error),
            done => return done,
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn send_to(broker: &mut Broker, message: Message) -> anyhow::Result<()> {
    let request = SendMessageRequest { messages: vec![message] };
    let answer = broker.stub.send_message(timed(request)).await?.into_inner();
    check(answer.status)?;
    for entry in answer.entries {
        check(entry.status)?; // one for each message of the request
    }
    Ok(())
}

fn is_elsewhere_possible(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>().is_some_and(|refused| refused.code == Code::Forbidden);
    let unavailable =
        error.downcast_ref::<tonic::Status>().is_some_and(|status| status.code() == tonic::Code::Unavailable);
    refused || unavailable
}

fn new_message(topic: &str, number: usize) -> Message {
    let properties = [("language", "Rust".to_owned()), ("number", number.to_string())];
    Message {
        topic: resource(topic),
        body: format!("Hello ✓ number {number} from Rust").into_bytes(),
        user_properties: properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        system_properties: Some(SystemProperties {
            message_id: format!("01{:X}", Uuid::new_v4().simple()), // the sender's to choose; it has to be unique
            tag: Some("greeting".to_owned()),                       // consumers can ask for messages by their tag
            keys: vec!["Rust".to_owned(), format!("Rust-{number}")], // by them it can be looked up
            message_type: MessageType::Normal.into(),
            body_encoding: Encoding::Identity.into(),
            born_timestamp: Some(SystemTime::now().into()),
            born_host: host_name(),
            ..Default::default()
        }),
    }
}

/// One line of a message.
pub fn show(message: &Message) -> String {
    let system = message.system_properties.clone().unwrap_or_default();
    let mut properties: Vec<_> =
        message.user_properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    properties.sort();
    let body = String::from_utf8_lossy(&message.body);
    [system.message_id.as_str(), system.tag(), &system.keys.join(","), &properties.join(","), &body].join("\t")
}
