//! Sessions: what a browser shows instead of a token. A session names its token and is signed with a key that all processes of the API derive
//! from the fleet's secret, so that none of them keeps any.

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use broker::{Attempt as _, Broker};
use common::api::ApiError;
use common::tokens::Token;
use common::{SenderName, Timestamp};
use ring::hmac;
use tokio::sync::OnceCell;

use crate::keys::Keys;

/// How long a session lasts, in milliseconds.
const LASTS: u64 = 12 * 3_600_000;

/// A session that holds.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) token: Token,
    /// What its forms carry, so that no other page can send them.
    pub(crate) form: String,
    /// When it ends.
    pub(crate) until: Timestamp,
}

/// What sessions are signed with.
#[derive(Debug)]
struct Signer(hmac::Key);

/// What a cookie says, unless somebody made it up.
#[derive(Debug, PartialEq, Eq)]
struct Claim<'a> {
    name: SenderName,
    until: Timestamp,
    nonce: &'a str,
    /// What stands for the token's hash.
    of: &'a str,
    tag: &'a str,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (text.len().is_multiple_of(2)).then(|| (0..text.len()).step_by(2).map(digit).collect())?
}

impl<'a> Claim<'a> {
    fn read(cookie: &'a str) -> Option<Self> {
        let mut parts = cookie.splitn(5, '.');
        let mut next = || parts.next();
        let (tag, until, nonce, of, name) = (next()?, next()?, next()?, next()?, next()?);
        let until = Timestamp::from_millis(until.parse().ok()?);
        Some(Self { name: SenderName::new(name).ok()?, until, nonce, of, tag })
    }
}

impl Signer {
    fn new(secret: &str) -> Self {
        // Derived: the secret itself has another use.
        let of = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let key = hmac::sign(&of, b"sessions of the page");
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    /// What stands for a token in its sessions: another token of the same name has another one.
    fn of(&self, token: &Token) -> String {
        let whole = hex(hmac::sign(&self.0, format!("token\n{}", token.hash).as_bytes()).as_ref());
        whole.get(..32).unwrap_or(&whole).to_owned()
    }

    fn said(name: &SenderName, of: &str, until: Timestamp, nonce: &str) -> String {
        format!("session\n{name}\n{of}\n{}\n{nonce}", until.as_millis())
    }

    /// The cookie of a new session.
    fn cookie(&self, token: &Token, until: Timestamp, nonce: &str) -> String {
        let of = self.of(token);
        let said = Self::said(&token.name, &of, until, nonce);
        let tag = hmac::sign(&self.0, said.as_bytes());
        format!("{}.{}.{nonce}.{of}.{}", hex(tag.as_ref()), until.as_millis(), token.name)
    }

    /// Whether a claim was signed here, and is not over: all that can be told without asking for the token.
    fn is_ours(&self, claim: &Claim<'_>, now: Timestamp) -> bool {
        let said = Self::said(&claim.name, claim.of, claim.until, claim.nonce);
        let is_signed = unhex(claim.tag)
            .is_some_and(|tag| hmac::verify(&self.0, said.as_bytes(), &tag).is_ok());
        is_signed && claim.until > now
    }

    /// Whether a claim that is ours is of a session that was begun with this token.
    fn is_of(&self, claim: &Claim<'_>, token: &Token) -> bool {
        claim.name == token.name && claim.of == self.of(token)
    }

    /// What the forms of a session carry.
    fn form(&self, tag: &str) -> String {
        hex(hmac::sign(&self.0, format!("form\n{tag}").as_bytes()).as_ref())
    }

    /// The name of the cookie: browsers give cookies to all ports of a host, and fleets must not overwrite each other's.
    fn name(&self) -> String {
        let tag = hex(hmac::sign(&self.0, b"cookie").as_ref());
        format!("mozart-{}", tag.get(..12).unwrap_or(&tag))
    }
}

/// Whether what a form carries is what it must carry. Takes as long for a wrong one as for the right one.
pub(crate) fn is_same(given: &str, expected: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    let expected = hmac::sign(&key, expected.as_bytes());
    hmac::verify(&key, given.as_bytes(), expected.as_ref()).is_ok()
}

/// The sessions of the fleet.
#[derive(Debug)]
pub(crate) struct Sessions {
    broker: Broker,
    signer: OnceCell<Signer>,
}

impl Sessions {
    pub(crate) fn new(broker: Broker) -> Self {
        Self { broker, signer: OnceCell::new() }
    }

    async fn signer(&self) -> Result<&Signer, ApiError> {
        let read = async {
            let secret = self.broker.fleet_secret().await.attempt("cannot check the session")?;
            Ok(Signer::new(&secret))
        };
        self.signer.get_or_try_init(|| read).await
    }

    /// Begins a session; the header that makes the browser keep it.
    pub(crate) async fn begin(
        &self,
        token: &Token,
        now: Timestamp,
        is_encrypted: bool,
    ) -> Result<String, ApiError> {
        let signer = self.signer().await?;
        let nonce = uuid::Uuid::now_v7().simple().to_string();
        let until = ends(token, now);
        let seconds = until.since(now).as_secs().max(1);
        let cookie = signer.cookie(token, until, &nonce);
        Ok(header(&signer.name(), &cookie, seconds, is_encrypted))
    }

    /// Makes the browser forget the session.
    pub(crate) async fn end(&self, is_encrypted: bool) -> Result<String, ApiError> {
        Ok(header(&self.signer().await?.name(), "", 0, is_encrypted))
    }

    /// The session that a request shows; none if it shows none that holds.
    pub(crate) async fn of(
        &self,
        keys: &Keys,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Option<Session>, ApiError> {
        if !headers.contains_key(COOKIE) {
            return Ok(None);
        }
        let signer = self.signer().await?;
        let name = signer.name();
        let Some(claim) = cookie(headers, &name).and_then(Claim::read) else { return Ok(None) };
        // First: what somebody made up costs the broker nothing.
        if !signer.is_ours(&claim, now) {
            return Ok(None);
        }
        let token = keys.of(&claim.name).await?.filter(|token| signer.is_of(&claim, token));
        let (form, until) = (signer.form(claim.tag), claim.until);
        Ok(token.map(|token| Session { token, form, until }))
    }
}

/// When a session ends that begins now: no later than its token.
fn ends(token: &Token, now: Timestamp) -> Timestamp {
    let until = Timestamp::from_millis(now.as_millis().saturating_add(LASTS));
    token.expires.map_or(until, |expires| expires.min(until))
}

fn header(name: &str, value: &str, seconds: u64, is_encrypted: bool) -> String {
    let secure = if is_encrypted { "; Secure" } else { "" };
    // Not `Strict`: whoever follows a link here from a mail, or from the file of `mozart ui`, would seem to be signed out. What changes
    // something is a POST, with which `Lax` sends no cookie from another site; its origin and the value of the form are checked as well.
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}")
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(one, value)| (one == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::users::Scope;

    fn token(name: &str, hash: &str) -> Token {
        Token {
            name: SenderName::new(name).expect("valid"),
            hash: hash.to_owned(),
            scope: Scope::Send,
            agents: Vec::new(),
            expires: None,
            at: Timestamp::from_millis(1),
            by: "t".to_owned(),
        }
    }

    #[test]
    fn a_session_holds_for_its_token_until_its_end_and_cannot_be_made_up() {
        let signer = Signer::new("secret");
        let at = Timestamp::from_millis;
        let shop = token("shop", "aa");
        let cookie = signer.cookie(&shop, at(100), "n1");
        let claim = Claim::read(&cookie).expect("ours");
        assert!(signer.is_ours(&claim, at(99)) && signer.is_of(&claim, &shop));
        assert!(!signer.is_ours(&claim, at(100)), "it is over");
        assert!(!signer.is_of(&claim, &token("shop", "bb")), "another token of that name");
        assert!(!signer.is_of(&claim, &token("ship", "aa")));
        assert!(!Signer::new("other").is_ours(&claim, at(99)), "another fleet");
        // Another name, a longer time, another nonce, another token, another tag. No token need be looked up to tell.
        let another = signer.of(&token("shop", "bb"));
        let (tag, rest) = cookie.split_once('.').expect("parts");
        for made_up in [
            cookie.replace(".shop", ".ship"),
            cookie.replace(".100.", ".900."),
            cookie.replace(".n1.", ".n2."),
            cookie.replace(&signer.of(&shop), &another),
            format!("{}.{rest}", "00".repeat(32)),
            format!(".{rest}"),
            format!("{}.{rest}", &tag[..62]),
            format!("zz.{rest}"),
        ] {
            let claim = Claim::read(&made_up).expect("it has the parts");
            assert!(!signer.is_ours(&claim, at(50)), "{made_up}");
        }
        for none in ["", "a", "a.b.c.d", "a.1.n", "a.1.n.a", "a.1.n.o.a b"] {
            assert_eq!(Claim::read(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_session_ends_with_its_token_at_the_latest() {
        let (now, mut shop) = (Timestamp::from_millis(1_000), token("shop", "aa"));
        assert_eq!(ends(&shop, now), Timestamp::from_millis(1_000 + LASTS));
        shop.expires = Some(Timestamp::from_millis(5_000));
        assert_eq!(ends(&shop, now), Timestamp::from_millis(5_000));
        shop.expires = Some(Timestamp::from_millis(2 * LASTS));
        assert_eq!(ends(&shop, now), Timestamp::from_millis(1_000 + LASTS));
    }

    #[test]
    fn forms_are_of_one_session() {
        let signer = Signer::new("secret");
        assert_ne!(signer.form("aa"), signer.form("ab"));
        assert!(is_same(&signer.form("aa"), &signer.form("aa")));
        assert!(!is_same("", &signer.form("aa")) && !is_same("é", &signer.form("aa")));
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "a=1; mozart-x=v.w=; b=2".parse().expect("valid"));
        assert_eq!(cookie(&headers, "mozart-x"), Some("v.w="));
        assert_eq!(cookie(&headers, "mozart"), None);
        assert!(header("n", "v", 5, true).ends_with("Max-Age=5; Secure"));
    }
}
