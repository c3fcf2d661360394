//! What build.rs generated, under shorter names.

#![allow(clippy::all, dead_code)]

tonic::include_proto!("protocol");

pub use apache::rocketmq::v2;
pub use kourou::admin::v1 as admin;
