//! A small client of Kourou in Rust, made from the .proto files: it creates a topic and a group, and sends, receives
//! and acknowledges messages.
//!
//!     cargo build             generates from ../../proto and compiles
//!     cargo run -- create     a topic and a group
//!     cargo run -- send       so many messages
//!     cargo run -- receive    so many messages
//!     cargo run               all three
//!
//! Sent and received messages come out as one line each: id, tag, keys, properties and body.

mod access_point;
mod client;
mod create;
mod protocol;
mod receive;
mod send;
mod session;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use protocol::v2::Endpoints;

/// Without a command: create, send and receive.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Access points, separated by commas
    #[arg(long, global = true, default_value = "127.0.0.1:8081", value_delimiter = ',')]
    #[arg(value_parser = access_point::parse)]
    endpoints: Vec<Endpoints>,
    /// The admin service
    #[arg(long, global = true, default_value = "127.0.0.1:9080")]
    admin: String,
    /// The topic
    #[arg(long, global = true, default_value = "hello")]
    topic: String,
    /// The consumer group
    #[arg(long, global = true, default_value = "readers")]
    group: String,
    /// Messages to send or receive
    #[arg(long, global = true, default_value_t = 10)]
    count: usize,
    /// When receiving, give up after so many seconds without a message
    #[arg(long, global = true, default_value_t = 30)]
    idle_s: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Create the topic and the group
    Create,
    /// Send messages
    Send,
    /// Receive and acknowledge messages
    Receive,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> anyhow::Result<()> {
    match options.command {
        Some(Command::Create) => create::create(options).await,
        Some(Command::Send) => send::send(options).await,
        Some(Command::Receive) => receive::receive(options).await,
        None => {
            create::create(options).await?;
            send::send(options).await?;
            receive::receive(options).await
        }
    }
}
