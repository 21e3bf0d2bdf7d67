//! The archive of the files that an agent runs with: what names it, and how large it may be.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::InvalidId;

/// The largest archive, in bytes.
pub const MAX_BYTES: u64 = 64 << 20;

/// The most files and links of one archive.
pub const MAX_FILES: usize = 10_000;

/// A SHA-256 in lower-case hex: safe in a subject and as a file's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(Box<str>);

impl Sha256 {
    /// Checks a text.
    ///
    /// # Errors
    /// When it is not 64 lower-case hexadecimal digits.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
        let text = text.as_ref();
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(is_digit) {
            return Ok(Self(text.into()));
        }
        let value = text.chars().take(80).collect();
        Err(InvalidId { what: "SHA-256", value, expected: "64 of 0-9 and a-f" })
    }

    /// As hex, of the digest's bytes.
    #[must_use]
    pub fn of(digest: [u8; 32]) -> Self {
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

impl FromStr for Sha256 {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

impl TryFrom<String> for Sha256 {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

impl From<Sha256> for String {
    fn from(hash: Sha256) -> Self {
        hash.0.into()
    }
}

/// An archive, by its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Files {
    /// Of the whole archive.
    pub sha256: Sha256,
    /// How long it is.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_digest_is_one() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(Sha256::new(&good).expect("valid").short(), "0123456789ab");
        assert_eq!(Sha256::of([0xab; 32]).as_str(), "ab".repeat(32));
        let bad = ["", "..", &good[1..], &good.to_uppercase(), &format!("{good}0")];
        for bad in bad
            .into_iter()
            .chain(["../../../../../../../../../../../../../../../../etc/passwd-0123456"])
        {
            assert!(Sha256::new(bad).is_err(), "{bad}");
            let json = format!(r#"{{"sha256":{bad:?},"bytes":1}}"#);
            assert!(serde_json::from_str::<Files>(&json).is_err(), "{bad}");
        }
    }
}
