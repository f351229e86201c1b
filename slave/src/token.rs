//! Connection tokens: what a client gets for its JWT and shows when it opens a socket.
//!
//! A token is a short-lived JWT of our own (HS256 with the cluster's secret), so that any slave honours any slave's
//! token and nothing is stored. One that is too long for a URL, or that must be good for one socket only, is a short
//! reference instead, to a grant that the slave which issued it keeps.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use wellhead_proto::{
    app::Apps,
    ids::NodeId,
    jwt::{BadToken, CONNECTION_TOKEN_TYP, Claims, Grant},
    query::Bearer,
};

use crate::settings::Tokens as Settings;

/// The longest token that travels whole, in bytes: it stands in a URL.
const MAX_WHOLE: usize = 2_048;
/// Grants that are kept for references. Each took a valid JWT to make, and lives no longer than a token.
const MAX_KEPT: usize = 100_000;
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
    kept: Mutex<HashMap<u128, Kept>>,
}

struct Kept {
    bearer: Bearer,
    until: f64,
}

/// What a token turned out to be.
#[derive(Debug, Eq, PartialEq)]
pub enum Redeemed {
    /// This lets someone in.
    Bearer(Bearer),
    /// A reference: the slave that issued it must be asked.
    Elsewhere(NodeId),
}

#[derive(Deserialize, Serialize)]
struct Body {
    gusher: Grant,
    cluster: String,
    jti: String,
    exp: f64,
}

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
        Self {
            settings,
            node,
            cluster,
            header,
            sign: EncodingKey::from_secret(secret),
            verify: DecodingKey::from_secret(secret),
            validation,
            kept: Mutex::default(),
        }
    }

    /// A token for a client's JWT. It never outlives the JWT.
    ///
    /// # Errors
    ///
    /// The JWT is refused, or there is no room for another reference.
    pub fn issue(&self, jwt: &str, apps: &Apps, now: Duration) -> Result<String, NotIssued> {
        let now = now.as_secs_f64();
        let claims = apps.verify(jwt, now)?;
        let exp = (now + self.settings.ttl.0.as_secs_f64()).min(claims.expires_at().unwrap_or(f64::MAX));
        let grant = Grant { remotes: None, ..claims.gusher };
        let id = random();
        if self.settings.one_time {
            return self.keep(id, bearer(grant), exp, now);
        }
        let body = Body { gusher: grant, cluster: self.cluster.clone(), jti: format!("{id:032x}"), exp };
        let token = encode(&self.header, &body, &self.sign).expect("HMAC signs anything that is JSON");
        if token.len() <= MAX_WHOLE { Ok(token) } else { self.keep(id, bearer(body.gusher), exp, now) }
    }

    /// What `token` stands for: one of ours, or a client's JWT where those are accepted.
    ///
    /// # Errors
    ///
    /// Unknown, forged, expired or used.
    pub fn redeem(&self, token: &str, apps: &Apps, now: Duration) -> Result<Redeemed, BadToken> {
        if let Some((node, _)) = reference(token)? {
            return match node == self.node {
                true => self.redeem_own(token, now).map(Redeemed::Bearer),
                false => Ok(Redeemed::Elsewhere(node)),
            };
        }
        let now = now.as_secs_f64();
        let header = decode_header(token).map_err(|_| BadToken::Malformed)?;
        if header.typ.as_deref() != Some(CONNECTION_TOKEN_TYP) {
            return match self.settings.accept_jwt {
                true => apps.verify(token, now).map(|Claims { gusher, .. }| Redeemed::Bearer(bearer(gusher))),
                false => Err(BadToken::WrongKind),
            };
        }
        let body: Body = decode(token, &self.verify, &self.validation).map_err(|_| BadToken::Signature)?.claims;
        if body.cluster != self.cluster || self.settings.one_time {
            return Err(BadToken::WrongKind);
        }
        if body.exp <= now {
            return Err(BadToken::Expired);
        }
        Ok(Redeemed::Bearer(bearer(body.gusher)))
    }

    /// What a reference stands for that this slave issued. A one-time token is used up by it.
    ///
    /// # Errors
    ///
    /// No reference of ours, expired or used.
    pub fn redeem_own(&self, token: &str, now: Duration) -> Result<Bearer, BadToken> {
        let Some((_, id)) = reference(token)? else { return Err(BadToken::WrongKind) };
        let mut kept = self.kept();
        let Kept { bearer, until } = kept.get(&id).ok_or(BadToken::Used)?;
        let (bearer, live) = (bearer.clone(), *until > now.as_secs_f64());
        if self.settings.one_time || !live {
            kept.remove(&id);
        }
        if live { Ok(bearer) } else { Err(BadToken::Expired) }
    }

    fn keep(&self, id: u128, bearer: Bearer, until: f64, now: f64) -> Result<String, NotIssued> {
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, kept| kept.until > now);
            if kept.len() >= MAX_KEPT {
                return Err(NotIssued::Full);
            }
        }
        kept.insert(id, Kept { bearer, until });
        Ok(format!("{REFERENCE}{}.{id:032x}", self.node))
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<u128, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forget references whose time is over.
    pub fn sweep(&self, now: Duration) {
        self.kept().retain(|_, kept| kept.until > now.as_secs_f64());
    }
}

/// The issuer and the number of a reference; `None` for any other token.
fn reference(token: &str) -> Result<Option<(NodeId, u128)>, BadToken> {
    let Some(reference) = token.strip_prefix(REFERENCE) else { return Ok(None) };
    let (node, id) = reference.split_once('.').ok_or(BadToken::Malformed)?;
    let node = node.parse::<u32>().ok().and_then(|node| NodeId::try_from(node).ok()).ok_or(BadToken::Malformed)?;
    if id.len() != 32 {
        return Err(BadToken::Malformed);
    }
    u128::from_str_radix(id, 16).map(|id| Some((node, id))).map_err(|_| BadToken::Malformed)
}

fn bearer(Grant { user, channels, app, .. }: Grant) -> Bearer {
    Bearer { user, app, channels }
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has randomness");
    u128::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{
        jwt::{Key, Keyring},
        origin::Origins,
        units::Span,
    };

    use super::*;

    const SECRET: &[u8] = b"a secret of thirty-two bytes !!!";
    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn apps() -> Apps {
        let keys = Keyring::new(vec![Key::from_secret(SECRET).unwrap()], false);
        Apps::new(keys, HashMap::new(), true, Origins::any())
    }

    fn jwt(channels: &[&str], exp: Option<u64>) -> String {
        let gusher = serde_json::json!({"user_id": "ann", "app_key": "app", "channels": channels});
        let claims = serde_json::json!({"gusher": gusher, "exp": exp});
        encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET)).unwrap()
    }

    fn tokens(settings: Settings) -> Tokens {
        Tokens::new(settings, NodeId::from_random(7), "wellhead".to_owned(), b"cluster secret")
    }

    fn let_in(redeemed: Result<Redeemed, BadToken>) -> Bearer {
        match redeemed {
            Ok(Redeemed::Bearer(bearer)) => bearer,
            other => panic!("{other:?}"),
        }
    }

    fn after(seconds: u64) -> Duration {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn any_slave_of_the_cluster_honours_a_token_within_its_time() {
        let token = tokens(Settings::default()).issue(&jwt(&["a*"], None), &apps(), NOW).unwrap();
        let other = Tokens::new(Settings::default(), NodeId::from_random(8), "wellhead".into(), b"cluster secret");
        for _ in 0..2 {
            let grant = let_in(other.redeem(&token, &apps(), after(59)));
            assert_eq!((grant.user.as_str(), grant.app.as_str(), grant.channels.len()), ("ann", "app", 1));
        }
        assert_eq!(other.redeem(&token, &apps(), after(60)), Err(BadToken::Expired));
        let stranger = Tokens::new(Settings::default(), NodeId::from_random(8), "other".into(), b"cluster secret");
        assert_eq!(stranger.redeem(&token, &apps(), NOW), Err(BadToken::WrongKind));
        let forged = Tokens::new(Settings::default(), NodeId::from_random(8), "wellhead".into(), b"another secret");
        assert_eq!(forged.redeem(&token, &apps(), NOW), Err(BadToken::Signature));
    }

    #[test]
    fn a_token_never_outlives_its_jwt_and_is_no_jwt_itself() {
        let tokens = tokens(Settings::default());
        let token = tokens.issue(&jwt(&[], Some(NOW.as_secs() + 10)), &apps(), NOW).unwrap();
        assert!(tokens.redeem(&token, &apps(), after(9)).is_ok());
        assert_eq!(tokens.redeem(&token, &apps(), after(10)), Err(BadToken::Expired));
        assert_eq!(tokens.issue(&token, &apps(), NOW), Err(NotIssued::Refused(BadToken::WrongKind)));
        assert_eq!(apps().verify(&token, NOW.as_secs_f64()).unwrap_err(), BadToken::WrongKind);
    }

    #[test]
    fn a_one_time_token_is_good_once() {
        let tokens = tokens(Settings { one_time: true, accept_jwt: false, ..Settings::default() });
        let token = tokens.issue(&jwt(&["a"], None), &apps(), NOW).unwrap();
        assert!(tokens.redeem(&token, &apps(), NOW).is_ok());
        assert_eq!(tokens.redeem(&token, &apps(), NOW), Err(BadToken::Used));
        let late = tokens.issue(&jwt(&["a"], None), &apps(), NOW).unwrap();
        assert_eq!(tokens.redeem(&late, &apps(), after(60)), Err(BadToken::Expired));
        assert_eq!(tokens.redeem(&jwt(&["a"], None), &apps(), NOW), Err(BadToken::WrongKind));
        tokens.issue(&jwt(&["a"], None), &apps(), NOW).unwrap();
        tokens.sweep(after(61));
        assert!(tokens.kept().is_empty());
    }

    #[test]
    fn a_token_too_long_for_a_url_is_a_reference_that_can_be_used_again() {
        let tokens = tokens(Settings { ttl: Span::seconds(5), ..Settings::default() });
        let many: Vec<_> = (0..300).map(|n| format!("channel-{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let token = tokens.issue(&jwt(&many, None), &apps(), NOW).unwrap();
        assert!(token.len() < 50, "{token}");
        for _ in 0..2 {
            assert_eq!(let_in(tokens.redeem(&token, &apps(), after(4))).channels.len(), 300);
        }
        assert_eq!(tokens.redeem(&token, &apps(), after(5)), Err(BadToken::Expired));
        let other = NodeId::from_random(8);
        assert_eq!(
            tokens.redeem("r.8.00000000000000000000000000000000", &apps(), NOW),
            Ok(Redeemed::Elsewhere(other)),
            "its issuer must be asked"
        );
        for rubbish in ["r.", "r.7.", "r.7.zz", "r.9999999.00000000000000000000000000000000", "", "x", "a.b.c"] {
            assert!(tokens.redeem(rubbish, &apps(), NOW).is_err(), "{rubbish}");
        }
    }

    #[test]
    fn a_jwt_opens_a_socket_only_where_that_is_allowed() {
        assert!(tokens(Settings::default()).redeem(&jwt(&["a"], None), &apps(), NOW).is_ok());
        let strict = tokens(Settings { accept_jwt: false, ..Settings::default() });
        assert_eq!(strict.redeem(&jwt(&["a"], None), &apps(), NOW), Err(BadToken::WrongKind));
    }
}
