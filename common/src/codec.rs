//! The codec of what is transient and ours: a version byte, then bincode, under a size limit.
//!
//! This is the only file that knows bincode (ADR 0003). What is durable or public is JSON and does not pass here.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that this build writes. A change of any encoded type takes the next one.
pub const VERSION: u8 = 1;

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
        "frame of version {found}, this build reads {VERSION}: run the same version everywhere"
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

/// Decodes a value, all of it: trailing bytes are an error.
///
/// # Errors
/// When the bytes are not exactly one value of this version.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != VERSION {
        return Err(CodecError::Version { found: *version });
    }
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

    #[test]
    fn golden_bytes_of_version_1() {
        let bytes = encode(&(300_u32, "ab", Some(1_u8))).expect("small");
        assert_eq!(bytes, [1, 251, 44, 1, 2, b'a', b'b', 1, 1]);
        let back: (u32, String, Option<u8>) = decode(&bytes).expect("what we wrote");
        assert_eq!(back, (300, "ab".into(), Some(1)));
    }

    #[test]
    fn hostile_bytes_are_errors() {
        assert_eq!(decode::<String>(&[]), Err(CodecError::Empty));
        assert_eq!(decode::<String>(&[9, 0]), Err(CodecError::Version { found: 9 }));
        assert_eq!(decode::<u8>(&[1, 7, 7]), Err(CodecError::Trailing(1)));
        // A length of 16 GiB must not be allocated.
        let huge = [1, 253, 0, 0, 0, 0, 4, 0, 0, 0];
        assert!(matches!(decode::<Vec<u8>>(&huge), Err(CodecError::Malformed(_))));
        assert!(encode(&vec![0_u8; LIMIT + 1]).is_err());
    }
}
