//! The tokens of nats-server's authorization: JSON claims, signed by an nkey.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{AuthKey, Rights};
use crate::error::{BrokerError, Result};

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

/// Reads the claims of a token. Who signed it is not looked at: it came from a server, over the supervisors' own account.
pub(super) fn read<T: DeserializeOwned>(token: &[u8]) -> std::result::Result<T, String> {
    let mut parts = token.split(|byte| *byte == b'.');
    let claims = parts.nth(1).ok_or("it is not a token")?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|error| error.to_string())?;
    serde_json::from_slice(&claims).map_err(|error| error.to_string())
}

/// Reads a signature, in either alphabet: clients differ, and nats-server takes both.
pub(super) fn decode(signature: &str) -> std::result::Result<Vec<u8>, String> {
    let signature = signature.trim_end_matches('=').replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(signature).map_err(|error| error.to_string())
}

/// What a user may do, for the connection that a server calls `id`.
pub(super) fn user(key: &AuthKey, name: &str, id: &str, rights: &Rights) -> Result<String> {
    let claims = json!({
        "name": name,
        "aud": rights.account,
        "sub": id,
        "nats": {
            "type": "user",
            "version": 2,
            "pub": { "allow": rights.publish },
            "sub": { "allow": rights.subscribe },
            "subs": -1,
            "data": -1,
            "payload": -1,
        },
    });
    sign(key, claims)
}

/// The answer to a server: a user's token, or why there is none.
pub(super) fn response(
    key: &AuthKey,
    id: &str,
    server: &str,
    user: std::result::Result<String, &str>,
) -> Result<String> {
    let (field, text) = match &user {
        Ok(token) => ("jwt", token.as_str()),
        Err(why) => ("error", *why),
    };
    let claims = json!({
        "aud": server,
        "sub": id,
        "nats": { "type": "authorization_response", "version": 2, field: text },
    });
    sign(key, claims)
}

fn sign(key: &AuthKey, claims: Value) -> Result<String> {
    sign_with(key.pair(), claims)
}

/// A token signed by any key.
pub(super) fn sign_with(pair: &KeyPair, mut claims: Value) -> Result<String> {
    // Servers read it and do not compare it: nothing here expires.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    claims["iat"] = now.as_secs().into();
    claims["iss"] = pair.public_key().into();
    claims["jti"] = uuid::Uuid::now_v7().simple().to_string().into();
    let claims = serde_json::to_vec(&claims).map_err(BrokerError::other)?;
    let body = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
    let signature = pair.sign(body.as_bytes()).map_err(BrokerError::other)?;
    Ok(format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
