//! Hostile tokens and good ones, signed with real keys that are made here.

use std::collections::HashMap;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair,
    },
};
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::{
    origin::Origins,
    tenants::{ListedTenant, Tenants},
};

const NOW: f64 = 1_000_000.0;

/// A key pair, as PEM.
struct Pair {
    public: String,
    private: String,
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<String> =
        STANDARD.encode(der).as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
    let private: Pkcs8V1Der<'_> = pair.as_der().expect("DER");
    Pair { public: pem("PUBLIC KEY", public.as_ref()), private: pem("PRIVATE KEY", private.as_ref()) }
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> Pair {
    let pair = EcdsaKeyPair::generate(algorithm).expect("a key");
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
    let private = pair.to_pkcs8v1().expect("DER");
    Pair { public: pem("PUBLIC KEY", public.as_ref()), private: pem("PRIVATE KEY", private.as_ref()) }
}

fn ed() -> Pair {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
    let private = pair.to_pkcs8v1().expect("DER");
    Pair { public: pem("PUBLIC KEY", public.as_ref()), private: pem("PRIVATE KEY", private.as_ref()) }
}

impl Pair {
    fn signs(&self, algorithm: Algorithm) -> EncodingKey {
        let private = self.private.as_bytes();
        match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(private),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(private),
            _ => EncodingKey::from_rsa_pem(private),
        }
        .expect("our own key")
    }

    /// A token with these claims.
    fn token(&self, algorithm: Algorithm, claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, &self.signs(algorithm)).expect("a token")
    }

    fn token_of(&self, kid: &str, algorithm: Algorithm, claims: &Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
        encode(&header, claims, &self.signs(algorithm)).expect("a token")
    }

    fn key(&self, kid: Option<&str>) -> Key {
        Key::from_pem(kid.map(str::to_owned), self.public.as_bytes(), None).expect("our own key")
    }
}

fn claims(more: &Value) -> Value {
    let mut claims = json!({ "gusher": { "user_id": "ann", "channels": ["news", "a*"], "app_key": "shop" } });
    let map = claims.as_object_mut().expect("an object");
    map.extend(more.as_object().expect("an object").clone());
    claims
}

fn good() -> Value {
    claims(&json!({ "exp": NOW + 60.0 }))
}

fn ring(keys: Vec<Key>) -> Keyring {
    Keyring::new(keys, false)
}

/// `header.payload.signature`, from whatever text.
fn forged(header: &str, payload: &str, signature: &str) -> String {
    format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
}

fn refused(ring: &Keyring, token: &str) -> BadToken {
    ring.verify(token, NOW).expect_err(token)
}

#[test]
fn every_algorithm_that_a_pem_allows_verifies_and_no_other() {
    let (rsa, p256, p384, ed) =
        (rsa(), ec(&ECDSA_P256_SHA256_FIXED_SIGNING), ec(&ECDSA_P384_SHA384_FIXED_SIGNING), ed());
    for (pair, algorithm) in [
        (&rsa, Algorithm::RS256),
        (&rsa, Algorithm::RS384),
        (&rsa, Algorithm::RS512),
        (&p256, Algorithm::ES256),
        (&p384, Algorithm::ES384),
        (&ed, Algorithm::EdDSA),
    ] {
        let token = pair.token(algorithm, &good());
        let read = ring(vec![pair.key(None)]).verify(&token, NOW).expect("a good token");
        assert_eq!((read.grant.user.as_str(), read.grant.app.as_str()), ("ann", "shop"), "{algorithm:?}");
        for other in [&rsa, &p256, &p384, &ed] {
            if !std::ptr::eq(other, pair) {
                assert_eq!(refused(&ring(vec![other.key(None)]), &token), BadToken::Algorithm, "{algorithm:?}");
            }
        }
        // a key that is narrowed to one algorithm takes no other
        let only = Key::from_pem(None, pair.public.as_bytes(), Some(algorithm)).expect("it can");
        assert!(ring(vec![only]).verify(&token, NOW).is_ok());
    }
    let narrowed = Key::from_pem(None, rsa.public.as_bytes(), Some(Algorithm::RS512)).expect("it can");
    assert_eq!(refused(&ring(vec![narrowed]), &rsa.token(Algorithm::RS256, &good())), BadToken::Algorithm);
    let pss = encode(&Header::new(Algorithm::PS256), &good(), &rsa.signs(Algorithm::PS256)).expect("a token");
    assert_eq!(refused(&ring(vec![rsa.key(None)]), &pss), BadToken::Algorithm);
}

#[test]
fn an_algorithm_is_never_taken_from_the_header() {
    let rsa = rsa();
    let ring = ring(vec![rsa.key(None)]);
    let payload = good().to_string();
    for alg in ["none", "None", "NONE", "", "HS257", "foo"] {
        let header = format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#);
        assert_eq!(refused(&ring, &forged(&header, &payload, "")), BadToken::Algorithm, "{alg}");
        assert_eq!(refused(&ring, &forged(&header, &payload, "AAAA")), BadToken::Algorithm, "{alg}");
    }
    // the classic: the public key, known to everybody, as an HMAC secret
    let der = der(&rsa.public);
    for secret in [rsa.public.as_bytes(), rsa.public.trim().as_bytes(), &der] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let key = EncodingKey::from_secret(secret);
            let token = encode(&Header::new(algorithm), &good(), &key).expect("a token");
            assert_eq!(refused(&ring, &token), BadToken::Algorithm);
        }
    }
    // a good signature under another name
    let token = rsa.token(Algorithm::RS256, &good());
    let (_, rest) = token.split_once('.').expect("three parts");
    for alg in ["none", "HS256", "RS512", "ES256"] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#));
        assert!(ring.verify(&format!("{header}.{rest}"), NOW).is_err(), "{alg}");
    }
}

#[test]
fn a_wrong_key_or_a_changed_token_does_not_verify() {
    let (ours, theirs) = (ed(), ed());
    let ring = ring(vec![ours.key(None)]);
    assert_eq!(refused(&ring, &theirs.token(Algorithm::EdDSA, &good())), BadToken::Signature);
    let token = ours.token(Algorithm::EdDSA, &good());
    let parts: Vec<_> = token.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(claims(&json!({ "exp": NOW + 61.0 })).to_string());
    assert_eq!(refused(&ring, &format!("{}.{other}.{}", parts[0], parts[2])), BadToken::Signature);
    assert_eq!(refused(&ring, &format!("{}.{}.", parts[0], parts[1])), BadToken::Signature);
    assert_eq!(refused(&Keyring::default(), &token), BadToken::Algorithm);
    for rubbish in ["a", "..", "a.b.c", "....", "中.文.字", &token[..20], &format!("{token}.x"), &format!(" {token}")]
    {
        assert!(matches!(refused(&ring, rubbish), BadToken::Malformed | BadToken::Signature), "{rubbish}");
    }
    assert_eq!(refused(&ring, ""), BadToken::Missing);
    assert_eq!(refused(&ring, &"x".repeat(MAX_JWT_BYTES + 1)), BadToken::Malformed);
}

#[test]
fn a_token_lives_from_nbf_until_exp_to_the_second() {
    let ed = ed();
    let ring = ring(vec![ed.key(None)]);
    let verify = |more: Value| ring.verify(&ed.token(Algorithm::EdDSA, &claims(&more)), NOW).map(drop);
    assert_eq!(verify(json!({})), Ok(()));
    assert_eq!(verify(json!({ "exp": NOW as u64 + 1 })), Ok(()));
    assert_eq!(verify(json!({ "exp": NOW as u64 })), Err(BadToken::Expired));
    assert_eq!(verify(json!({ "exp": NOW + 0.5 })), Ok(()));
    assert_eq!(verify(json!({ "exp": NOW - 0.5 })), Err(BadToken::Expired));
    assert_eq!(verify(json!({ "exp": 0 })), Err(BadToken::Expired));
    assert_eq!(verify(json!({ "exp": -1 })), Err(BadToken::Expired));
    assert_eq!(verify(json!({ "exp": 1e300 })), Ok(()));
    assert_eq!(verify(json!({ "exp": null })), Ok(()));
    assert_eq!(verify(json!({ "nbf": NOW as u64 })), Ok(()));
    assert_eq!(verify(json!({ "nbf": NOW as u64 + 1 })), Err(BadToken::NotYetValid));
    assert_eq!(verify(json!({ "nbf": NOW + 0.5 })), Err(BadToken::NotYetValid));
    assert_eq!(verify(json!({ "iat": NOW + 100.0, "aud": ["a", "b"], "iss": "i", "sub": "s", "jti": "j" })), Ok(()));
    for any in [json!("1000060"), json!("yesterday"), json!([1]), json!({}), json!(true), json!(null), json!(-1)] {
        let unchecked = json!({ "iat": any, "aud": any, "iss": any, "sub": any, "jti": any });
        assert_eq!(verify(unchecked), Ok(()), "{any}");
    }
    assert_eq!(verify(json!({ "nbf": null })), Ok(()));
    for wrong in [json!("1000060"), json!([1]), json!({}), json!(true)] {
        assert_eq!(verify(json!({ "exp": wrong })), Err(BadToken::Malformed));
        assert_eq!(verify(json!({ "nbf": wrong })), Err(BadToken::Malformed));
    }

    let strict = Keyring::new(vec![ed.key(None)], true);
    let refused = |more| strict.verify(&ed.token(Algorithm::EdDSA, &claims(&more)), NOW).map(drop);
    assert_eq!(refused(json!({})), Err(BadToken::NoExpiry));
    assert_eq!(refused(json!({ "exp": NOW + 1.0 })), Ok(()));
}

#[test]
fn claims_of_the_wrong_type_are_refused() {
    let ed = ed();
    let ring = ring(vec![ed.key(None)]);
    let verify = |gusher: Value| {
        let claims = if gusher.is_null() { json!({}) } else { json!({ "gusher": gusher }) };
        ring.verify(&ed.token(Algorithm::EdDSA, &claims), NOW).map(|claims| claims.grant)
    };
    let long = "x".repeat(1_025);
    for wrong in [
        json!(null),
        json!("text"),
        json!([]),
        json!({}),
        json!({ "user_id": "ann" }),
        json!({ "app_key": "" }),
        json!({ "app_key": 1 }),
        json!({ "app_key": null }),
        json!({ "app_key": "shop", "user_id": 1 }),
        json!({ "app_key": "shop", "channels": "news" }),
        json!({ "app_key": "shop", "channels": [1] }),
        json!({ "app_key": "shop", "channels": { "news": true } }),
        json!({ "app_key": "shop", "remotes": [] }),
        json!({ "app_key": "shop", "remotes": { "x": 1 } }),
        json!({ "app_key": long }),
        json!({ "app_key": "shop", "user_id": long }),
        json!({ "app_key": "shop", "channels": [long] }),
    ] {
        assert_eq!(verify(wrong.clone()).map(drop), Err(BadToken::Malformed), "{wrong}");
    }
    let nulls = json!({ "app_key": "shop", "user_id": null, "channels": null, "remotes": null });
    for bare in [json!({ "app_key": "shop" }), nulls] {
        let bare = verify(bare).expect("null is as good as nothing");
        assert_eq!((bare.user.as_str(), bare.channels.len(), bare.remotes), ("", 0, None));
    }
    let inside = json!({ "app_key": "shop", "channels": ["a", null], "remotes": { "x": null, "y": true } });
    let inside = verify(inside).expect("inside, too");
    assert_eq!(inside.channels, ["a", ""].map(|pattern| pattern.try_into().expect("a pattern")));
    assert_eq!(inside.remotes, Some([("x".to_owned(), false), ("y".to_owned(), true)].into()));
    // valid JSON, but not claims: a payload that is no object
    let text = encode(&Header::new(Algorithm::EdDSA), &"text", &ed.signs(Algorithm::EdDSA)).expect("a token");
    assert_eq!(refused(&ring, &text), BadToken::Malformed);
}

#[test]
fn our_own_connection_token_is_no_jwt_whoever_signed_it() {
    let ed = ed();
    let secret = b"a cluster secret, 32 bytes long.";
    let ring = ring(vec![ed.key(None), Key::from_secret(secret).expect("long enough")]);
    let header = |algorithm| Header { typ: Some(CONNECTION_TOKEN_TYP.to_owned()), ..Header::new(algorithm) };
    let token = encode(&header(Algorithm::HS256), &good(), &EncodingKey::from_secret(secret)).expect("a token");
    assert_eq!(refused(&ring, &token), BadToken::WrongKind);
    let token = encode(&header(Algorithm::EdDSA), &good(), &ed.signs(Algorithm::EdDSA)).expect("a token");
    assert_eq!(refused(&ring, &token), BadToken::WrongKind);
    // and what must be understood but is not
    let header = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::EdDSA) };
    let token = encode(&header, &good(), &ed.signs(Algorithm::EdDSA)).expect("a token");
    assert_eq!(refused(&ring, &token), BadToken::Malformed);
}

#[test]
fn a_kid_picks_its_key_and_without_one_all_are_tried() {
    let (a, b, nameless) = (ed(), ed(), ed());
    let both = ring(vec![a.key(Some("a")), b.key(Some("b"))]);
    let verify = |ring: &Keyring, token: &str| ring.verify(token, NOW).map(drop);
    assert_eq!(verify(&both, &a.token_of("a", Algorithm::EdDSA, &good())), Ok(()));
    assert_eq!(verify(&both, &b.token_of("b", Algorithm::EdDSA, &good())), Ok(()));
    assert_eq!(verify(&both, &b.token_of("a", Algorithm::EdDSA, &good())), Err(BadToken::Signature));
    assert_eq!(verify(&both, &b.token(Algorithm::EdDSA, &good())), Ok(()));
    assert!(verify(&both, &a.token_of("c", Algorithm::EdDSA, &good())).is_err());
    // a key without a name is tried for every token that names no key of ours
    let mixed = ring(vec![a.key(Some("a")), nameless.key(None)]);
    assert_eq!(verify(&mixed, &nameless.token_of("c", Algorithm::EdDSA, &good())), Ok(()));
    assert_eq!(verify(&mixed, &nameless.token_of("a", Algorithm::EdDSA, &good())), Err(BadToken::Signature));
    // keys of several families beside each other
    let p256 = ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let families = ring(vec![a.key(None), p256.key(None), Key::from_secret(&[7; 32]).expect("long enough")]);
    let hmac = encode(&Header::new(Algorithm::HS256), &good(), &EncodingKey::from_secret(&[7; 32])).expect("a token");
    for token in [a.token(Algorithm::EdDSA, &good()), p256.token(Algorithm::ES256, &good()), hmac] {
        assert_eq!(verify(&families, &token), Ok(()));
    }
}

#[test]
fn an_app_with_keys_of_its_own_takes_no_others_and_they_verify_no_other_app() {
    let (house, own) = (ed(), ed());
    let shop = ListedTenant { keys: Some(ring(vec![own.key(None)])), ..ListedTenant::default() };
    let listed = HashMap::from([("shop".parse().expect("a name"), shop)]);
    let apps = |unlisted| Tenants::new(ring(vec![house.key(None)]), listed.clone(), unlisted, Origins::any());
    let token = |pair: &Pair, app: &str| {
        pair.token(Algorithm::EdDSA, &json!({ "gusher": { "app_key": app, "user_id": "ann" } }))
    };
    let verify = |apps: &Tenants, token: &str| apps.verify(token, NOW).map(|claims| claims.grant.app.to_string());
    let any = apps(true);
    assert_eq!(verify(&any, &token(&own, "shop")), Ok("shop".to_owned()));
    assert_eq!(verify(&any, &token(&house, "shop")), Err(BadToken::Signature));
    assert_eq!(verify(&any, &token(&own, "news")), Err(BadToken::Signature));
    assert_eq!(verify(&any, &token(&house, "news")), Ok("news".to_owned()));
    assert_eq!(verify(&apps(false), &token(&house, "news")), Err(BadToken::WrongApp));
    assert_eq!(verify(&apps(false), &token(&own, "shop")), Ok("shop".to_owned()));
    // two apps in one token: which would pick the keys, and which would be believed?
    let payload = r#"{"gusher":{"app_key":"shop","app_key":"news","user_id":"ann"}}"#;
    let unsigned = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#), URL_SAFE_NO_PAD.encode(payload));
    let signature = crypto::sign(unsigned.as_bytes(), &own.signs(Algorithm::EdDSA), Algorithm::EdDSA).expect("signed");
    assert!(verify(&any, &format!("{unsigned}.{signature}")).is_err());
}

/// The public key with a modulus of so many bits: odd, and composite at random, which nobody can tell.
fn rsa_of(bits: usize) -> Vec<u8> {
    let length = |bytes: usize| [&[0x82][..], &(bytes as u16).to_be_bytes()].concat();
    let mut modulus = vec![0xA5; bits.div_ceil(8)];
    modulus[0] = 1 << ((bits - 1) % 8);
    if modulus[0] == 0x80 {
        modulus.insert(0, 0);
    }
    let exponent = [0x02, 0x03, 0x01, 0x00, 0x01];
    let integer = [&[0x02][..], &length(modulus.len()), &modulus].concat();
    [&[0x30][..], &length(integer.len() + exponent.len()), &integer, &exponent].concat()
}

#[test]
fn an_rsa_key_of_a_size_that_nothing_is_verified_with_is_refused() {
    let from = |bits| Key::from_pem(None, pem("RSA PUBLIC KEY", &rsa_of(bits)).as_bytes(), None).map(drop);
    for bits in [1_024, 1_536, 2_040, 2_047, 8_193, 16_384] {
        let refused = from(bits).expect_err("a size that is not verified with");
        assert_eq!(refused, BadKey::RsaBits { bits });
        assert!(refused.to_string().contains(&format!("{bits} bits")), "{refused}");
    }
    for bits in [2_048, 3_072, 4_096, 8_192] {
        assert_eq!(from(bits), Ok(()), "{bits}");
    }
}

#[test]
fn a_public_key_whose_point_is_not_on_its_curve_is_refused() {
    for pair in [ec(&ECDSA_P256_SHA256_FIXED_SIGNING), ec(&ECDSA_P384_SHA384_FIXED_SIGNING)] {
        let mut der = der(&pair.public);
        *der.last_mut().expect("a point") ^= 1;
        assert_eq!(Key::from_pem(None, pem("PUBLIC KEY", &der).as_bytes(), None).map(drop), Err(BadKey::Damaged));
    }
}

#[test]
fn a_key_that_is_no_public_key_is_refused_with_its_reason() {
    let (rsa, ed) = (rsa(), ed());
    let from = |pem: &str, only| Key::from_pem(None, pem.as_bytes(), only).map(drop);
    assert_eq!(from(&rsa.private, None), Err(BadKey::Private));
    assert_eq!(from(&pem("RSA PRIVATE KEY", b"x"), None), Err(BadKey::Private));
    assert_eq!(from(&pem("EC PRIVATE KEY", b"x"), None), Err(BadKey::Private));
    for text in ["", "secret", "{}", "\u{0}"] {
        assert_eq!(from(text, None), Err(BadKey::NotPem), "{text}");
    }
    assert_eq!(Key::from_pem(None, b"\xff\xfe", None).map(drop), Err(BadKey::NotPem));
    assert_eq!(from(&pem("PUBLIC KEY", b"rubbish"), None), Err(BadKey::Kind));
    for hmac in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let wanted = from(&rsa.public, Some(hmac)).expect_err("a PEM is no secret");
        assert!(matches!(wanted, BadKey::Algorithm { .. }), "{wanted}");
        assert!(wanted.to_string().contains("jwt.secret"), "{wanted}");
    }
    assert!(matches!(from(&ed.public, Some(Algorithm::RS256)), Err(BadKey::Algorithm { .. })));
    let (p256, p384) = (ec(&ECDSA_P256_SHA256_FIXED_SIGNING), ec(&ECDSA_P384_SHA384_FIXED_SIGNING));
    assert!(matches!(from(&p256.public, Some(Algorithm::ES384)), Err(BadKey::Algorithm { .. })));
    assert!(matches!(from(&p384.public, Some(Algorithm::ES256)), Err(BadKey::Algorithm { .. })));
    assert_eq!(Key::from_secret(b"short").map(drop), Err(BadKey::ShortSecret { bytes: 5 }));
    assert!(Key::from_secret(&[1; 32]).expect("long enough").is_secret());
    assert!(!rsa.key(None).is_secret());
}
