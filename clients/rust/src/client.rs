//! Calls in the name of one client.

use std::collections::BTreeMap;
use std::process;
use std::time::Duration;

use anyhow::{Context, bail};
use gethostname::gethostname;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

use crate::access_point::host_port;
use crate::protocol::v2::messaging_service_client::MessagingServiceClient;
use crate::protocol::v2::{Endpoints, MessageQueue, Permission, QueryRouteRequest, Resource};
use crate::status::check;

pub const VERSION: &str = "1.0.0";
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// gRPC's own limit is 4 MiB, and so is a body's: a message is larger than its body.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// What servers take for one client: an id that goes with every call, over whatever connections.
#[derive(Clone)]
pub struct Client {
    id: MetadataValue<tonic::metadata::Ascii>,
}

pub type Stub = MessagingServiceClient<InterceptedService<Channel, Client>>;

/// One that has the topic.
#[derive(Clone)]
pub struct Broker {
    pub name: String,
    pub stub: Stub,
}

impl Client {
    pub fn new() -> anyhow::Result<Self> {
        let id = format!("{}@{}@{}", host_name(), process::id(), Uuid::new_v4().simple());
        Ok(Self { id: id.parse()? })
    }

    /// Connects with the first call, and again after the connection broke.
    fn stub(&self, address: &str) -> anyhow::Result<Stub> {
        let stub = MessagingServiceClient::with_interceptor(channel(address)?, self.clone());
        Ok(stub.max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The brokers whose queues of the topic may be used that way. A program that lives long asks again every 30 s:
    /// brokers come and go.
    pub async fn brokers(
        &self,
        access_points: &[Endpoints],
        topic: &str,
        way: Permission,
    ) -> anyhow::Result<Vec<Broker>> {
        let mut addresses = BTreeMap::new();
        for queue in self.route(access_points, topic).await? {
            let allowed = queue.permission() == way || queue.permission() == Permission::ReadWrite;
            if let Some(broker) = queue.broker
                && allowed
            {
                addresses.insert(broker.name, host_port(&broker.endpoints.unwrap_or_default()));
            }
        }
        if addresses.is_empty() {
            bail!("no broker of topic {topic} has the permission {} at present", way.as_str_name());
        }
        let broker = |(name, address): (String, String)| Ok(Broker { name, stub: self.stub(&address)? });
        addresses.into_iter().map(broker).collect()
    }

    /// The queues of a topic. Asks one access point after the other until one answers.
    async fn route(&self, access_points: &[Endpoints], topic: &str) -> anyhow::Result<Vec<MessageQueue>> {
        let mut failures = Vec::new();
        for endpoints in access_points {
            // The endpoints say by which way we came: the brokers' addresses in the answer are those for the same way.
            let request = QueryRouteRequest { topic: resource(topic), endpoints: Some(endpoints.clone()) };
            let address = host_port(endpoints);
            match self.stub(&address)?.query_route(timed(request)).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    check(answer.status)?;
                    return Ok(answer.message_queues);
                }
                Err(error) => failures.push(format!("{address}: {error}")),
            }
        }
        bail!(failures.join("\n"))
    }
}

/// Puts the headers on every call.
impl Interceptor for Client {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert("x-mq-client-id", self.id.clone());
        headers.insert("x-mq-language", MetadataValue::from_static("RUST"));
        headers.insert("x-mq-client-version", MetadataValue::from_static(VERSION));
        headers.insert("x-mq-protocol", MetadataValue::from_static("v2"));
        Ok(request)
    }
}

pub fn channel(address: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).with_context(|| address.to_owned())?;
    Ok(endpoint.connect_lazy())
}

/// A plain call with its deadline.
pub fn timed<T>(message: T) -> Request<T> {
    timed_with(message, Duration::ZERO)
}

/// A call that the server may hold for so long before it answers.
pub fn timed_with<T>(message: T, wait: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(wait + CALL_TIMEOUT);
    request
}

pub fn resource(name: &str) -> Option<Resource> {
    Some(Resource { name: name.to_owned(), ..Default::default() })
}

pub fn host_name() -> String {
    gethostname().to_string_lossy().into_owned()
}
