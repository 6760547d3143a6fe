//! What the ends say of themselves when they meet.

use serde_json::{Value, json};

use super::{MAX_DATA, MAX_FDS, Malformed};

/// What an end says of itself in `VERSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Descriptors that it takes with one message.
    pub max_msg_fds: usize,
    /// Bytes of data that it takes in one message.
    pub max_data_xfer_size: usize,
}

/// What both ends here say.
pub const OWN_LIMITS: Limits = Limits { max_msg_fds: MAX_FDS, max_data_xfer_size: MAX_DATA };

impl Limits {
    /// As the JSON that ends a `VERSION`.
    pub fn encode(&self) -> Vec<u8> {
        let Limits { max_msg_fds, max_data_xfer_size } = *self;
        let capabilities =
            json!({ "max_msg_fds": max_msg_fds, "max_data_xfer_size": max_data_xfer_size, "pgsizes": 4096 });
        let mut bytes = json!({ "capabilities": capabilities }).to_string().into_bytes();
        bytes.push(0);
        bytes
    }

    /// From what follows a [`Version`](super::Version); what is not said has the specification's default, what is not known is skipped.
    /// Limits of the peer that are above our own are cut down to those.
    pub fn decode(bytes: &[u8]) -> Result<Limits, Malformed> {
        let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        if text.is_empty() {
            return Limits::from_json(&json!({}));
        }
        let value: Value = serde_json::from_slice(text)
            .map_err(|error| Malformed::Capabilities { why: error.to_string() })?;
        Limits::from_json(&value)
    }

    fn from_json(value: &Value) -> Result<Limits, Malformed> {
        let object = value.as_object().ok_or(Malformed::Capabilities { why: "another type".to_owned() })?;
        let number = |name: &'static str, default: usize, own: usize| {
            let said = object.get("capabilities").and_then(|capabilities| capabilities.get(name));
            let said = match said {
                None => default as u64,
                Some(said) => {
                    said.as_u64().filter(|&said| said > 0 || name == "max_msg_fds").ok_or_else(|| {
                        Malformed::Capabilities { why: format!("{name} is {said}, not a number above 0") }
                    })?
                }
            };
            Ok(usize::try_from(said).unwrap_or(usize::MAX).min(own))
        };
        Ok(Limits {
            max_msg_fds: number("max_msg_fds", 1, MAX_FDS)?,
            max_data_xfer_size: number("max_data_xfer_size", 1 << 20, MAX_DATA)?,
        })
    }
}
