//! The codec of what is transient and ours: a version byte, then bincode, under a size limit.
//!
//! This is the only file that knows bincode (ADR 0003). What is durable or public is JSON and does not pass here.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::Frame;

/// The version that this build writes. A change of any encoded type takes the next one.
pub const VERSION: u8 = 3;

/// The version before, which this build reads too: a fleet is not restarted all at once.
pub const BEFORE: u8 = VERSION - 1;

/// The largest body that is read or written, in bytes: the broker's `max_payload`.
pub const LIMIT: usize = 1 << 20;

/// Why bytes could not be written or read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CodecError {
    /// Nothing there.
    #[error("empty frame")]
    Empty,
    /// Written by another version.
    #[error(
        "frame of version {found}, this build reads {BEFORE} and {VERSION}: run adjacent versions"
    )]
    Version {
        /// The frame's version.
        found: u8,
    },
    /// More than [`LIMIT`].
    #[error("frame larger than {LIMIT} bytes")]
    TooLarge,
    /// Not what the type says.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// More bytes than the type takes.
    #[error("{0} bytes after the end of the frame")]
    Trailing(usize),
}

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<LIMIT>,
> = bincode::config::standard().with_limit::<LIMIT>();

/// Encodes a value.
///
/// # Errors
/// When it is larger than [`LIMIT`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut out, CONFIG)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if out.len() > LIMIT { Err(CodecError::TooLarge) } else { Ok(out) }
}

/// Decodes a frame of this version or the one before, all of it: trailing bytes are an error.
///
/// # Errors
/// When the bytes are not exactly one frame.
pub fn decode<T: Frame>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    match *version {
        VERSION => value(body),
        BEFORE => value::<T::Before>(body).map(Into::into),
        found => Err(CodecError::Version { found }),
    }
}

fn value<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    if body.len() > LIMIT {
        return Err(CodecError::TooLarge);
    }
    let (value, read) = bincode::serde::decode_from_slice(body, CONFIG)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match body.len() - read {
        0 => Ok(value),
        more => Err(CodecError::Trailing(more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ShimReport;

    #[test]
    fn golden_bytes_of_the_encoding() {
        let bytes = encode(&(300_u32, "ab", Some(1_u8))).expect("small");
        assert_eq!(bytes, [3, 251, 44, 1, 2, b'a', b'b', 1, 1]);
        let back: (u32, String, Option<u8>) = value(&bytes[1..]).expect("what we wrote");
        assert_eq!(back, (300, "ab".into(), Some(1)));
    }

    #[test]
    fn hostile_bytes_are_errors() {
        assert_eq!(decode::<ShimReport>(&[]), Err(CodecError::Empty));
        for found in [0, 1, 4, 9, 255] {
            assert_eq!(decode::<ShimReport>(&[found, 0]), Err(CodecError::Version { found }));
        }
        for version in [BEFORE, VERSION] {
            assert_eq!(decode::<ShimReport>(&[version, 0, 7]), Err(CodecError::Trailing(1)));
        }
        // A length of 16 GiB must not be allocated.
        let huge = [253, 0, 0, 0, 0, 4, 0, 0, 0];
        assert!(matches!(value::<Vec<u8>>(&huge), Err(CodecError::Malformed(_))));
        assert!(encode(&vec![0_u8; LIMIT + 1]).is_err());
    }
}
