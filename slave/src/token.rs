//! Connection tokens: what a client gets for its JWT and shows when it opens a socket.
//!
//! A token is a short-lived JWT of our own (HS256 with the cluster's secret), so that any slave honours any slave's
//! token and nothing is stored. One that is too long for a URL, or that must be good for one socket only, is a short
//! reference instead, to a grant that the slave which issued it keeps. References are signed, too: a forged one costs
//! nobody more than a hash, whichever slave it names.

mod elsewhere;
mod references;
pub mod temporary;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hmac::{Hmac, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use lru::LruCache;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::sync::Semaphore;
use wellhead_proto::{
    ids::{AppId, NodeId},
    jwt::{BadToken, CONNECTION_TOKEN_TYP, Claims, Grant},
    node_request::Bearer,
    tenants::Tenants,
};

use self::references::{NoRoom, References};
use crate::settings::TokenSettings as Settings;

/// The longest token that travels whole, in bytes: it stands in a URL.
const MAX_WHOLE: usize = 2_048;
/// References of other slaves that are known to stand for nothing any more: who shows one again is not worth a question.
const SPENT: NonZeroUsize = NonZeroUsize::new(4_096).expect("some are remembered");
/// Bytes of a reference's signature.
const SIGNATURE: usize = 16;
/// A reference of another slave is not even asked for when its time has been over for so long, in milliseconds. Which
/// clock is right is for its issuer to say.
const LATE: u64 = 60_000;
/// What a reference begins with; no JWT does.
const REFERENCE: &str = "r.";

/// Issues and redeems connection tokens.
pub struct Tokens {
    settings: Settings,
    node: NodeId,
    cluster: String,
    header: Header,
    sign: EncodingKey,
    verify: DecodingKey,
    validation: Validation,
    /// Signs references; has taken in the secret already.
    mac: Hmac<Sha256>,
    references: Mutex<References>,
    spent: Mutex<LruCache<u128, ()>>,
    /// Questions to other slaves that may be under way.
    lookups: Semaphore,
    ahead_of: Box<AheadOf>,
}

/// What a token turned out to be.
#[derive(Debug, Eq, PartialEq)]
pub enum Redeemed {
    /// This lets someone in.
    Bearer(Bearer),
    /// A reference: the slave that issued it must be asked.
    Elsewhere(NodeId),
}

/// `r.<node>.<until>.<id>.<signature>`: what stands between the dots, its signature checked.
struct Reference {
    node: NodeId,
    /// Milliseconds since 1970.
    until: u64,
    id: u128,
}

#[derive(Deserialize, Serialize)]
struct TokenBody {
    #[serde(rename = "gusher")]
    grant: Grant,
    cluster: String,
    jti: String,
    exp: f64,
    /// Who issued it: `exp` is by the clock of that node.
    #[serde(default)]
    node: Option<u32>,
}

/// By how many milliseconds this node's clock is ahead of another's.
pub type AheadOf = dyn Fn(NodeId) -> i64 + Send + Sync;

/// Why no token was issued.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotIssued {
    /// The client's JWT is refused.
    #[error(transparent)]
    Refused(#[from] BadToken),
    /// Too many tokens wait to be used.
    #[error("too many connection tokens are waiting to be used")]
    Full,
}

impl Tokens {
    /// The tokens of `cluster`, signed with `secret`; `node` issues them.
    #[must_use]
    pub fn new(settings: Settings, node: NodeId, cluster: String, secret: &[u8]) -> Self {
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(CONNECTION_TOKEN_TYP.to_owned());
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        // checked below, against the time that we are given
        validation.validate_exp = false;
        let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
        Self {
            references: Mutex::new(References::new(settings.reference_memory.bytes(), settings.references_per_user)),
            spent: Mutex::new(LruCache::new(SPENT)),
            lookups: Semaphore::new(settings.reference_lookups.clamp(1, Semaphore::MAX_PERMITS)),
            mac: mac.chain_update(b"wellhead reference "),
            settings,
            node,
            cluster,
            header,
            sign: EncodingKey::from_secret(secret),
            verify: DecodingKey::from_secret(secret),
            validation,
            ahead_of: Box::new(|_| 0),
        }
    }

    /// The same, allowing for the clocks of others.
    #[must_use]
    pub fn with_clocks(self, ahead_of: Box<AheadOf>) -> Self {
        Self { ahead_of, ..self }
    }

    /// A token for a client's JWT. It never outlives the JWT.
    ///
    /// # Errors
    ///
    /// The JWT is refused, or there is no room for another reference.
    pub fn issue(&self, jwt: &str, tenants: &Tenants, now: Duration) -> Result<String, NotIssued> {
        let now = now.as_secs_f64();
        let claims = tenants.verify(jwt, now)?;
        let exp = (now + self.settings.ttl.0.as_secs_f64()).min(claims.expires_at().unwrap_or(f64::MAX));
        let grant = Grant { remotes: remotes(&claims.grant, tenants), ..claims.grant };
        let id = random();
        if self.settings.one_time {
            return self.keep(id, bearer(grant), exp, now);
        }
        let body = TokenBody {
            grant,
            cluster: self.cluster.clone(),
            jti: format!("{id:032x}"),
            exp,
            node: Some(self.node.into()),
        };
        let token = encode(&self.header, &body, &self.sign).expect("HMAC signs anything that is JSON");
        if token.len() <= MAX_WHOLE { Ok(token) } else { self.keep(id, bearer(body.grant), exp, now) }
    }

    /// What `token` stands for: one of ours, or a client's JWT where those are accepted. Whose app that is, is for the caller
    /// to judge; what is good once is used up only by a bearer of `app`.
    ///
    /// # Errors
    ///
    /// Unknown, forged, expired or used.
    pub fn redeem(&self, token: &str, app: &AppId, tenants: &Tenants, now: Duration) -> Result<Redeemed, BadToken> {
        if let Some(Reference { node, until, id }) = self.reference(token)? {
            return match node == self.node {
                true => self.redeem_own(token, app, now).map(Redeemed::Bearer),
                false if until.saturating_add(LATE) <= millis(now) => Err(BadToken::Expired),
                false if locked(&self.spent).contains(&id) => Err(BadToken::Used),
                false => Ok(Redeemed::Elsewhere(node)),
            };
        }
        let now = now.as_secs_f64();
        let header = decode_header(token).map_err(|_| BadToken::Malformed)?;
        if header.typ.as_deref() != Some(CONNECTION_TOKEN_TYP) {
            return match self.settings.accept_jwt {
                true => tenants.verify(token, now).map(|Claims { grant, .. }| {
                    let remotes = remotes(&grant, tenants);
                    Redeemed::Bearer(bearer(Grant { remotes, ..grant }))
                }),
                false => Err(BadToken::WrongKind),
            };
        }
        let body: TokenBody = decode(token, &self.verify, &self.validation).map_err(|_| BadToken::Signature)?.claims;
        if body.cluster != self.cluster || self.settings.one_time {
            return Err(BadToken::WrongKind);
        }
        let issuer = body.node.and_then(|node| NodeId::try_from(node).ok()).filter(|issuer| *issuer != self.node);
        if body.exp <= now - issuer.map_or(0.0, |issuer| (self.ahead_of)(issuer) as f64 / 1_000.0) {
            return Err(BadToken::Expired);
        }
        Ok(Redeemed::Bearer(bearer(body.grant)))
    }

    /// What a reference stands for that this slave issued. A one-time token is used up by it.
    ///
    /// # Errors
    ///
    /// No reference of ours, expired or used.
    pub fn redeem_own(&self, token: &str, app: &AppId, now: Duration) -> Result<Bearer, BadToken> {
        let Some(Reference { node, id, .. }) = self.reference(token)? else { return Err(BadToken::WrongKind) };
        if node != self.node {
            return Err(BadToken::Used);
        }
        locked(&self.references).redeem(id, self.settings.one_time.then_some(app), millis(now))
    }

    /// Another slave was asked for a reference that [`Tokens::redeem`] let pass; did it stand for something?
    fn redeemed_elsewhere(&self, token: &str, stood: bool) {
        if (!stood || self.settings.one_time)
            && let Ok(Some(Reference { id, .. })) = self.reference(token)
        {
            locked(&self.spent).put(id, ());
        }
    }

    fn keep(&self, id: u128, bearer: Bearer, until: f64, now: f64) -> Result<String, NotIssued> {
        // in time: a lifetime is never negative, and far below what 64 bits hold
        let (until, now) = ((until * 1_000.0) as u64, (now * 1_000.0) as u64);
        locked(&self.references).keep(id, bearer, until, now).map_err(|NoRoom| NotIssued::Full)?;
        let signed = format!("{REFERENCE}{}.{until}.{id:032x}", self.node);
        let signature = self.mac.clone().chain_update(&signed).finalize().into_bytes();
        let signature = u128::from_be_bytes(signature[..SIGNATURE].try_into().expect("a SHA-256 has 32 bytes"));
        Ok(format!("{signed}.{signature:032x}"))
    }

    /// `token` as a reference of this cluster; `None` for any other token.
    fn reference(&self, token: &str) -> Result<Option<Reference>, BadToken> {
        let Some(reference) = token.strip_prefix(REFERENCE) else { return Ok(None) };
        let parts: Vec<_> = reference.splitn(5, '.').collect();
        let [node, until, id, signature] = parts[..] else { return Err(BadToken::Malformed) };
        let node = node.parse::<u32>().ok().and_then(|node| NodeId::try_from(node).ok()).ok_or(BadToken::Malformed)?;
        let until = until.parse().map_err(|_| BadToken::Malformed)?;
        let id = digits(id).ok_or(BadToken::Malformed)?;
        let shown = digits(signature).ok_or(BadToken::Malformed)?;
        let signed = &token[..token.len() - signature.len() - 1];
        let mac = self.mac.clone().chain_update(signed);
        mac.verify_truncated_left(&shown.to_be_bytes()).map_err(|_| BadToken::Signature)?;
        Ok(Some(Reference { node, until, id }))
    }

    /// Forget references whose time is over.
    pub fn sweep(&self, now: Duration) {
        locked(&self.references).sweep(millis(now));
    }
}

/// 32 hexadecimal digits as a number.
fn digits(text: &str) -> Option<u128> {
    let fits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    fits.then(|| u128::from_str_radix(text, 16).ok())?
}

fn millis(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bearer(Grant { user, channels, app, remotes }: Grant) -> Bearer {
    let remotes = remotes.into_iter().flatten().filter_map(|(command, allowed)| allowed.then_some(command)).collect();
    Bearer { user, app, channels, remotes }
}

/// What a JWT allows of remote commands, if somebody takes those of its app.
fn remotes(grant: &Grant, tenants: &Tenants) -> Option<BTreeMap<String, bool>> {
    tenants.app(&grant.app).remote()?;
    let allowed = grant.remotes.iter().flatten().filter(|(_, allowed)| **allowed);
    let allowed: BTreeMap<_, _> = allowed.map(|(command, _)| (command.clone(), true)).collect();
    (!allowed.is_empty()).then_some(allowed)
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has randomness");
    u128::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests;
