//! The vectors of pusher.md §1.2, each trap, and that nothing but the very request that was signed passes.

use std::collections::BTreeMap;

use hmac::{Hmac, Mac};
use proptest::prelude::*;
use sha2::Sha256;

use super::*;
use crate::dialect::pusher::apps::tests::{app, tenants};

const NOW: u64 = 1_700_000_000;
const BODY: &str = r#"{"name":"ping","channels":["room-1"],"data":"{\"n\":1}"}"#;
const AUTH: &str = "auth_key=wh-key&auth_timestamp=1700000000&auth_version=1.0";

fn check(method: &str, path: &str, query: &str, body: &[u8], now: u64) -> Result<(), String> {
    let headers = BTreeMap::new();
    let call = ApiCall {
        route_id: 0,
        method,
        path,
        segments: vec![],
        query,
        headers: &headers,
        body: body.to_vec().into(),
        now: Duration::from_secs(now),
        tenants: &tenants([app()]),
    };
    let params = SignedParams::of(query);
    let judged = verify(&app(), &call, path, &params);
    judged.and_then(|()| check_body(&params, body)).map_err(|why| {
        assert!(matches!(why, Refusal::Coded { code: 401, .. }), "{why:?}");
        why.to_string()
    })
}

fn get(query: &str) -> Result<(), String> {
    check("GET", "/apps/42/channels", query, b"", NOW)
}

/// A signer of its own: a sorted map and a string.
fn signature(method: &str, path: &str, params: &[(String, String)]) -> String {
    let mut params: Vec<_> = params.iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    params.sort_by_key(|(name, _)| name.clone());
    let query: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"wh-secret").unwrap();
    mac.update(format!("{method}\n{path}\n{}", query.join("&")).as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `query` with the parameters of a signature behind it.
pub fn signed(method: &str, path: &str, query: &str, body: &[u8], now: Duration) -> String {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut whole = format!("auth_key=wh-key&auth_timestamp={}&auth_version=1.0", now.as_secs());
    if !query.is_empty() {
        whole = format!("{query}&{whole}");
    }
    if !body.is_empty() {
        whole += &format!("&body_md5={}", hex(&Md5::digest(body)));
    }
    let pairs: Vec<_> = whole.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| (decode(name), decode(value))).collect();
    format!("{whole}&auth_signature={}", signature(method, path, &pairs))
}

#[test]
fn the_vectors_verify_wherever_the_signature_stands() {
    let md5 = "bc64f26d03a39099a29c030bc0dbaf83";
    let signature = "73e731afe4a1777f9b22d338629912e59cfb548095b89ef6751a2dacd7097f8b";
    for query in [
        format!("{AUTH}&body_md5={md5}&auth_signature={signature}"),
        format!("auth_signature={signature}&body_md5={md5}&{AUTH}"),
        format!("Body_MD5={md5}&&AUTH_signature={signature}&{}", AUTH.to_uppercase().replace("WH-KEY", "wh-key")),
        format!("body%5Fmd5={md5}&auth_signature={signature}&{}", AUTH.replace("1.0", "1%2E0")),
    ] {
        assert_eq!(check("POST", "/apps/42/events", &query, BODY.as_bytes(), NOW), Ok(()), "{query}");
    }
    let node = "837b4bd4c48b1a98c33c798b3ac4364e57278891c7a97e72b81237d6ce73f829";
    let more = "filter_by_prefix=presence-&info=user_count";
    assert_eq!(get(&format!("{AUTH}&{more}&auth_signature={node}")), Ok(()));
    // Python signs the digest of a body that is not there
    let python = "9d8b8e0bb0aa3d8fb09b3c4613cd29ee71c03fea5211a25f816e7a605575d68a";
    let nothing = "d41d8cd98f00b204e9800998ecf8427e";
    assert_eq!(get(&format!("auth_signature={python}&{AUTH}&body_md5={nothing}&{more}")), Ok(()));
}

#[test]
fn escaped_and_bare_values_are_the_same_and_a_plus_is_a_plus() {
    let params = |info: &str| {
        let params = format!("{AUTH}&info={info}&x=a+b");
        params.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(a, b)| (a.into(), b.into())).collect()
    };
    let bare: Vec<(String, String)> = params("user_count,subscription_count");
    let signature = signature("GET", "/apps/42/channels", &bare);
    for info in
        ["user_count,subscription_count", "user_count%2Csubscription_count", "user_count%2csubscription%5fcount"]
    {
        for x in ["a+b", "a%2Bb"] {
            assert_eq!(get(&format!("{AUTH}&info={info}&x={x}&auth_signature={signature}")), Ok(()), "{info} {x}");
        }
    }
    for x in ["a%20b", "a%252Bb"] {
        let query = format!("{AUTH}&info=user_count,subscription_count&x={x}&auth_signature={signature}");
        assert!(get(&query).unwrap_err().starts_with("Invalid signature"), "{x}");
    }
}

#[test]
fn a_path_may_be_signed_before_or_after_it_was_escaped() {
    let params: Vec<(String, String)> =
        AUTH.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(a, b)| (a.into(), b.into())).collect();
    let (sent, meant) = ("/apps/42/channels/presence-%C3%A4%20b/users", "/apps/42/channels/presence-ä b/users");
    for signed in [sent, meant] {
        let query = format!("{AUTH}&auth_signature={}", signature("GET", signed, &params));
        assert_eq!(check("GET", sent, &query, b"", NOW), Ok(()), "{signed}");
    }
    // decoded once, not twice
    let query = format!("{AUTH}&auth_signature={}", signature("GET", "/apps/42/channels/a", &params));
    assert!(check("GET", "/apps/42/channels/%2561", &query, b"", NOW).is_err());
}

#[test]
fn what_is_missing_or_wrong_is_said_in_words_that_help() {
    let path = "/apps/42/events";
    let signed = format!("{AUTH}&auth_signature=00");
    // what is signed of a body is judged once the head has proved to come from the app
    let sign = |md5: &str| {
        let query = format!("{AUTH}{md5}");
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        format!("{query}&auth_signature={}", signature("POST", path, &pairs))
    };
    for (query, body, now, words) in [
        ("", "", NOW, "Parameter auth_key is missing"),
        ("auth_key=other&auth_version=1.0", "", NOW, "Unknown auth_key"),
        ("auth_key=WH-KEY", "", NOW, "Unknown auth_key"),
        ("auth_key=wh-key", "", NOW, "Parameter auth_version is missing"),
        ("auth_key=wh-key&auth_version=1.1", "", NOW, "Version not supported"),
        ("auth_key=wh-key&auth_version=1.0", "", NOW, "Parameter auth_timestamp is missing"),
        ("auth_key=wh-key&auth_version=1.0&auth_timestamp=now", "", NOW, "Timestamp invalid"),
        ("auth_key=wh-key&auth_version=1.0&auth_timestamp=-1", "", NOW, "Timestamp invalid"),
        (AUTH, "", NOW, "Parameter auth_signature is missing"),
        (&sign(""), "{}", NOW, "Parameter body_md5 is missing"),
        (&sign("&body_md5=d41d8cd98f00b204e9800998ecf8427e"), "{}", NOW, "Invalid body_md5"),
        (&sign("&body_md5="), "", NOW, "Invalid body_md5"),
        (
            &signed,
            "",
            NOW + 601,
            "Timestamp expired: Given timestamp (2023-11-14T22:13:20Z) not within 600s of server time (2023-11-14T22:23:21Z)",
        ),
        (&signed, "", NOW - 601, "Timestamp expired"),
        (&signed.replace("1700000000", "18446744073709551615"), "", NOW, "Timestamp expired"),
        (&signed, "", NOW + 600, "Invalid signature"),
        (&signed, "", NOW - 600, "Invalid signature"),
    ] {
        let why = check("POST", path, query, body.as_bytes(), now).unwrap_err();
        assert!(why.starts_with(words), "{query}: {why}");
    }
}

#[test]
fn a_bad_signature_is_told_what_should_have_been_signed_but_never_the_signature() {
    let why = get(&format!("info=%22%25&{AUTH}&auth_signature=beef")).unwrap_err();
    let words = "Invalid signature: you should have sent HmacSHA256Hex(\"GET\\n/apps/42/channels\\n\
                 auth_key=wh-key&auth_timestamp=1700000000&auth_version=1.0&info=\\\"%\", your_secret_key), \
                 but you sent \"beef\"";
    assert_eq!(why, words);
}

#[test]
fn parameters_that_belong_to_no_signature_are_named() {
    let params =
        SignedParams::of("auth_key=a&info=x&auth_signature=b&Body_md5=c&with%20=&auth_timestamp=&auth_version=");
    assert_eq!(params.extraneous(), ["info", "with "]);
}

proptest! {
    #[test]
    fn what_a_signer_of_its_own_signs_verifies_and_any_changed_byte_refuses(
        extra in prop::collection::vec(("[a-zA-Z_.\\[\\]]{1,6}", "\\PC{0,8}"), 0..4),
        body in prop::collection::vec(any::<u8>(), 0..40),
        place in any::<prop::sample::Index>(),
        change in 1u8..=255,
    ) {
        // names that differ: of equal ones, the order is the sender's
        let mut params: Vec<(String, String)> = extra
            .into_iter()
            .enumerate()
            .map(|(number, (name, value))| (format!("{name}{number}"), value))
            .collect();
        params.push(("auth_key".to_owned(), "wh-key".to_owned()));
        params.push(("auth_timestamp".to_owned(), NOW.to_string()));
        params.push(("auth_version".to_owned(), "1.0".to_owned()));
        if !body.is_empty() {
            params.push(("body_md5".to_owned(), hex(&Md5::digest(&body))));
        }
        params.push(("auth_signature".to_owned(), signature("POST", "/apps/42/events", &params)));
        let escape = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let query = |params: &[(String, String)]| {
            let pairs: Vec<_> = params.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
            pairs.join("&")
        };
        let sent = query(&params);
        prop_assert_eq!(check("POST", "/apps/42/events", &sent, &body, NOW), Ok(()));

        for method in ["GET", "PUT", "post"] {
            prop_assert!(check(method, "/apps/42/events", &sent, &body, NOW).is_err());
        }
        for path in ["/apps/42/batch_events", "/apps/43/events", "/apps/42/events/"] {
            prop_assert!(check("POST", path, &sent, &body, NOW).is_err());
        }
        if !body.is_empty() {
            let mut other = body.clone();
            other[place.index(body.len())] ^= change;
            prop_assert!(check("POST", "/apps/42/events", &sent, &other, NOW).is_err());
        }
        for changed in 0..params.len() {
            let mut other = params.clone();
            let value = &mut other[changed].1;
            let mut characters: Vec<char> = value.chars().collect();
            characters.insert(place.index(characters.len() + 1), char::from(b'a' + change % 26));
            *value = characters.into_iter().collect();
            prop_assert!(check("POST", "/apps/42/events", &query(&other), &body, NOW).is_err(), "{other:?}");
            other.remove(changed);
            prop_assert!(check("POST", "/apps/42/events", &query(&other), &body, NOW).is_err(), "{other:?}");
            other.push(("one_more".to_owned(), String::new()));
            prop_assert!(check("POST", "/apps/42/events", &query(&other), &body, NOW).is_err(), "{other:?}");
        }
    }

    #[test]
    fn no_query_makes_it_panic(query in "(auth_key=wh-key&)?(auth_[a-z]{3,9}=[0-9.%&+]{0,30}|\\PC|[%&=]){0,8}", body in any::<Vec<u8>>()) {
        prop_assert!(check("POST", "/apps/42/events", &query, &body, NOW).is_err());
    }
}
