use anyhow::Context;

use crate::Options;
use crate::client::{channel, resource, timed};
use crate::protocol::admin::admin_client::AdminClient;
use crate::protocol::admin::{CreateGroupRequest, CreateTopicRequest, Outcome};
use crate::protocol::v2::{Code, Status};
use crate::status::check;

const QUEUES: i32 = 4; // on each broker

/// Makes the topic and the group on all brokers. Returns when access points know the topic.
pub async fn create(Options { admin, topic, group, .. }: &Options) -> anyhow::Result<()> {
    let mut stub = AdminClient::new(channel(admin)?);
    let request = CreateTopicRequest { name: resource(topic), queues: QUEUES, ..Default::default() };
    let made = stub.create_topic(timed(request)).await.with_context(|| admin.clone())?.into_inner();
    report(&format!("topic {topic}"), made.status, made.outcomes)?;
    let request = CreateGroupRequest { name: resource(group), settings: None };
    let made = stub.create_group(timed(request)).await.with_context(|| admin.clone())?.into_inner();
    report(&format!("group {group}"), made.status, made.outcomes)
}

/// Passes over what was there before. Each broker has an outcome of its own: one that is down fails alone.
fn report(what: &str, status: Option<Status>, outcomes: Vec<Outcome>) -> anyhow::Result<()> {
    match check(status) {
        Err(there) if there.code == Code::PreconditionFailed => println!("{there}"),
        checked => {
            checked?;
            let brokers = outcomes.len();
            for Outcome { broker, status } in outcomes {
                check(status).context(broker)?;
            }
            println!("{what} created on {brokers} brokers");
        }
    }
    Ok(())
}
