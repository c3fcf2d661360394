//! The API's own status, which every answer has; gRPC's tells of the transport alone.

use std::error::Error;
use std::fmt;

use crate::protocol::v2::{Code, Status};

/// An answer that is not OK.
#[derive(Debug)]
pub struct Refused {
    pub code: Code,
    message: String,
}

impl Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code.as_str_name(), self.code as i32, self.message)
    }
}

/// Lets MULTIPLE_RESULTS pass: the entries differ then, and have statuses of their own.
pub fn check(status: Option<Status>) -> Result<(), Refused> {
    let status = status.unwrap_or_default();
    match status.code() {
        Code::Ok | Code::MultipleResults => Ok(()),
        code => Err(Refused { code, message: status.message }),
    }
}
