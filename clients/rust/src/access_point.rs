//! Addresses as people write them and as the protocol has them.

use std::net::IpAddr;

use crate::protocol::v2::{Address, AddressScheme, Endpoints};

/// Reads "host:port".
pub fn parse(text: &str) -> Result<Endpoints, String> {
    let fault = || format!("{text} is not host:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
    let port: u16 = port.parse().map_err(|_| fault())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let scheme = match host.parse() {
        Ok(IpAddr::V4(_)) => AddressScheme::IPv4,
        Ok(IpAddr::V6(_)) => AddressScheme::IPv6,
        Err(_) => AddressScheme::DomainName,
    };
    let address = Address { host: host.to_owned(), port: port.into() };
    Ok(Endpoints { scheme: scheme.into(), addresses: vec![address] })
}

/// The first: where there are several addresses, any of them will do.
pub fn host_port(endpoints: &Endpoints) -> String {
    match endpoints.addresses.first() {
        Some(Address { host, port }) if host.contains(':') => format!("[{host}]:{port}"),
        Some(Address { host, port }) => format!("{host}:{port}"),
        None => String::new(),
    }
}
