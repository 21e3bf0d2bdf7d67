//! The key with which supervisors answer for logins.

use std::fmt;
use std::sync::Arc;

use nkeys::{KeyPair, KeyPairType, XKey};
use sha2::{Digest as _, Sha256};

/// The seed of a fleet's supervisors: nats-server's configuration names its public part as the issuer of users, and the public part of a second
/// key, derived from it, that questions are sealed for.
#[derive(Clone)]
pub struct AuthKey {
    keys: Arc<Keys>,
}

struct Keys {
    issuer: KeyPair,
    box_: XKey,
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuthKey").field(&self.issuer()).finish()
    }
}

impl AuthKey {
    /// A new key.
    #[must_use]
    pub fn random() -> Self {
        let issuer = KeyPair::new_account();
        let box_ = XKey::new();
        let derived = issuer.seed().ok().and_then(|seed| Self::from_seed(&seed).ok());
        derived.unwrap_or_else(|| Self { keys: Arc::new(Keys { issuer, box_ }) })
    }

    /// The key of a seed: `SA` and what follows.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_seed(seed: &str) -> Result<Self, String> {
        let seed = seed.trim();
        let issuer = KeyPair::from_seed(seed).map_err(|error| error.to_string())?;
        if !matches!(issuer.key_pair_type(), KeyPairType::Account) {
            return Err("it is not the seed of an account".to_owned());
        }
        let (_, raw) = nkeys::decode_seed(seed).map_err(|error| error.to_string())?;
        let derived = Sha256::new().chain_update("mozart callout").chain_update(raw).finalize();
        let box_ = XKey::new_from_raw(derived.into());
        Ok(Self { keys: Arc::new(Keys { issuer, box_ }) })
    }

    /// Its seed: a secret.
    ///
    /// # Errors
    /// Never, for a key that is whole.
    pub fn seed(&self) -> Result<String, String> {
        self.keys.issuer.seed().map_err(|error| error.to_string())
    }

    /// The issuer, as nats-server's `auth_callout { issuer }` has it.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.keys.issuer.public_key()
    }

    /// Whom questions are sealed for, as nats-server's `auth_callout { xkey }` has it.
    #[must_use]
    pub fn xkey(&self) -> String {
        self.keys.box_.public_key()
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.keys.issuer
    }

    /// A user that nobody is: with it in its configuration, nats-server lets whoever connects sign a number that it has never used, and so
    /// users can prove that they have their keys.
    #[must_use]
    pub fn nobody(&self) -> String {
        let seed = self.keys.issuer.seed().unwrap_or_default();
        let derived = Sha256::new().chain_update("mozart nobody").chain_update(seed).finalize();
        let pair = KeyPair::new_from_raw(KeyPairType::User, derived.into());
        pair.map(|pair| pair.public_key()).unwrap_or_default()
    }

    pub(super) fn open(&self, sealed: &[u8], from: &str) -> Result<Vec<u8>, String> {
        let from = XKey::from_public_key(from).map_err(|error| error.to_string())?;
        self.keys.box_.open(sealed, &from).map_err(|error| error.to_string())
    }

    pub(super) fn seal(&self, text: &[u8], to: &str) -> Result<Vec<u8>, String> {
        let to = XKey::from_public_key(to).map_err(|error| error.to_string())?;
        self.keys.box_.seal(text, &to).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_all_in_its_seed() {
        let key = AuthKey::random();
        let again = AuthKey::from_seed(&key.seed().expect("whole")).expect("a seed");
        assert_eq!((key.issuer(), key.xkey()), (again.issuer(), again.xkey()));
        assert!(key.issuer().starts_with('A') && key.xkey().starts_with('X'));
        assert_ne!(key.issuer(), AuthKey::random().issuer());
        let shown = format!("{key:?}");
        assert!(!shown.contains(&key.seed().expect("whole")), "{shown}");
    }

    #[test]
    fn another_kind_of_seed_is_refused() {
        let user = KeyPair::new_user().seed().expect("whole");
        for wrong in ["", "SA", "mozart", user.as_str()] {
            assert!(AuthKey::from_seed(wrong).is_err(), "{wrong}");
        }
    }
}
