//! What is issued and what is made of it, with a time that the test says.

use wellhead_proto::{
    jwt::{Key, Keyring},
    origin::Origins,
    units::{Size, Span},
};

use super::*;

const SECRET: &[u8] = b"a secret of thirty-two bytes !!!";
const NOW: Duration = Duration::from_secs(1_700_000_000);

fn app() -> AppId {
    "app".parse().unwrap()
}

fn apps() -> Tenants {
    let keys = Keyring::new(vec![Key::from_secret(SECRET).unwrap()], false);
    Tenants::new(keys, [], true, Origins::any())
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
        let grant = let_in(other.redeem(&token, &app(), &apps(), after(59)));
        assert_eq!((grant.user.as_str(), grant.app.as_str(), grant.channels.len()), ("ann", "app", 1));
    }
    assert_eq!(other.redeem(&token, &app(), &apps(), after(60)), Err(BadToken::Expired));
    let stranger = Tokens::new(Settings::default(), NodeId::from_random(8), "other".into(), b"cluster secret");
    assert_eq!(stranger.redeem(&token, &app(), &apps(), NOW), Err(BadToken::WrongKind));
    let forged = Tokens::new(Settings::default(), NodeId::from_random(8), "wellhead".into(), b"another secret");
    assert_eq!(forged.redeem(&token, &app(), &apps(), NOW), Err(BadToken::Signature));
}

#[test]
fn a_token_lives_by_the_clock_of_its_issuer() {
    let token = tokens(Settings::default()).issue(&jwt(&["a"], None), &apps(), NOW).unwrap();
    for ahead in [60, -60, 0, 1] {
        let ahead_of = move |node| if node == NodeId::from_random(7) { ahead * 1_000 } else { 0 };
        let other = Tokens::new(Settings::default(), NodeId::from_random(8), "wellhead".into(), b"cluster secret");
        let other = other.with_clocks(Box::new(ahead_of));
        // what the other's clock shows that many seconds after the token was issued
        let shows = |after: i64| Duration::from_secs(NOW.as_secs().saturating_add_signed(after + ahead));
        for after in [0, 59] {
            assert!(other.redeem(&token, &app(), &apps(), shows(after)).is_ok(), "{ahead}, {after}");
        }
        assert_eq!(other.redeem(&token, &app(), &apps(), shows(60)), Err(BadToken::Expired), "{ahead}");
    }
    // whatever was heard of a node of its own number
    let issuer = tokens(Settings::default()).with_clocks(Box::new(|_| 60_000));
    assert_eq!(issuer.redeem(&token, &app(), &apps(), after(60)), Err(BadToken::Expired));
}

#[test]
fn a_token_never_outlives_its_jwt_and_is_no_jwt_itself() {
    let tokens = tokens(Settings::default());
    let token = tokens.issue(&jwt(&[], Some(NOW.as_secs() + 10)), &apps(), NOW).unwrap();
    assert!(tokens.redeem(&token, &app(), &apps(), after(9)).is_ok());
    assert_eq!(tokens.redeem(&token, &app(), &apps(), after(10)), Err(BadToken::Expired));
    assert_eq!(tokens.issue(&token, &apps(), NOW), Err(NotIssued::Refused(BadToken::WrongKind)));
    assert_eq!(apps().verify(&token, NOW.as_secs_f64()).unwrap_err(), BadToken::WrongKind);
}

#[test]
fn a_one_time_token_is_good_once() {
    let tokens = tokens(Settings { one_time: true, accept_jwt: false, ..Settings::default() });
    let token = tokens.issue(&jwt(&["a"], None), &apps(), NOW).unwrap();
    let elsewhere = "other".parse().unwrap();
    assert!(
        tokens.redeem(&token, &elsewhere, &apps(), NOW).is_ok(),
        "its bearer will be told that this is the wrong app"
    );
    assert!(tokens.redeem(&token, &app(), &apps(), NOW).is_ok(), "and that spent nothing");
    assert_eq!(tokens.redeem(&token, &app(), &apps(), NOW), Err(BadToken::Used));
    let late = tokens.issue(&jwt(&["a"], None), &apps(), NOW).unwrap();
    assert_eq!(tokens.redeem(&late, &app(), &apps(), after(60)), Err(BadToken::Expired));
    assert_eq!(tokens.redeem(&jwt(&["a"], None), &app(), &apps(), NOW), Err(BadToken::WrongKind));
    tokens.issue(&jwt(&["a"], None), &apps(), NOW).unwrap();
    tokens.sweep(after(61));
    let expired = tokens.issue(&jwt(&["a"], None), &apps(), NOW).unwrap();
    assert_eq!(tokens.redeem_own(&expired, &app(), after(61)), Err(BadToken::Expired));
}

#[test]
fn a_token_too_long_for_a_url_is_a_reference_that_can_be_used_again() {
    let tokens = tokens(Settings { ttl: Span::seconds(5), ..Settings::default() });
    let many: Vec<_> = (0..300).map(|n| format!("channel-{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let token = tokens.issue(&jwt(&many, None), &apps(), NOW).unwrap();
    assert!(token.len() < 100, "{token}");
    for _ in 0..2 {
        assert_eq!(let_in(tokens.redeem(&token, &app(), &apps(), after(4))).channels.len(), 300);
    }
    assert_eq!(tokens.redeem(&token, &app(), &apps(), after(5)), Err(BadToken::Expired));
    let other = Tokens::new(tokens.settings, NodeId::from_random(8), "wellhead".into(), b"cluster secret");
    assert_eq!(
        other.redeem(&token, &app(), &apps(), NOW),
        Ok(Redeemed::Elsewhere(NodeId::from_random(7))),
        "its issuer must be asked"
    );
    let zeros = "0".repeat(32);
    let unsigned = format!("r.7.{zeros}");
    let no_node = format!("r.9999999.1.{zeros}.{zeros}");
    for rubbish in ["r.", "r.7.", "r.7.zz", "r.7.1.2.3", "r....", &unsigned, &no_node, "", "x", "a.b.c"] {
        assert!(tokens.redeem(rubbish, &app(), &apps(), NOW).is_err(), "{rubbish}");
    }
}

/// Two slaves that issue references only.
fn two() -> (Tokens, Tokens) {
    let settings = Settings { one_time: true, accept_jwt: false, ..Settings::default() };
    let of = |node| Tokens::new(settings, NodeId::from_random(node), "wellhead".to_owned(), b"cluster secret");
    (of(7), of(8))
}

#[test]
fn a_forged_reference_is_refused_where_it_is_shown() {
    let (issuer, other) = two();
    let token = issuer.issue(&jwt(&["a"], None), &apps(), NOW).unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let until = (parts[2].parse::<u64>().unwrap() + 1).to_string();
    let flipped = |hex: &str| format!("{}{}", if hex.starts_with('0') { '1' } else { '0' }, &hex[1..]);
    let forged = |at: usize, part: &str| {
        let mut parts = parts.clone();
        parts[at] = part;
        parts.join(".")
    };
    for token in [
        forged(1, "8"),
        forged(1, "9"),
        forged(2, &until),
        forged(3, &flipped(parts[3])),
        forged(4, &flipped(parts[4])),
        forged(4, &"0".repeat(32)),
    ] {
        for tokens in [&issuer, &other] {
            assert_eq!(tokens.redeem(&token, &app(), &apps(), NOW), Err(BadToken::Signature), "{token}");
            assert_eq!(tokens.redeem_own(&token, &app(), NOW), Err(BadToken::Signature), "{token}");
        }
    }
    for token in
        [forged(4, &parts[4][..31]), format!("{token}0"), format!("{token}.0"), forged(3, "+1"), forged(2, "x")]
    {
        assert_eq!(other.redeem(&token, &app(), &apps(), NOW), Err(BadToken::Malformed), "{token}");
    }
    let stranger = Tokens::new(issuer.settings, NodeId::from_random(8), "wellhead".into(), b"another secret");
    assert_eq!(stranger.redeem(&token, &app(), &apps(), NOW), Err(BadToken::Signature));
    assert_eq!(other.redeem_own(&token, &app(), NOW), Err(BadToken::Used), "asked for what another issued");
    assert!(issuer.redeem(&token, &app(), &apps(), NOW).is_ok(), "and nothing of that used it up");
}

#[test]
fn a_reference_that_stands_for_nothing_is_asked_for_once() {
    let (issuer, other) = two();
    let tokens: Vec<_> = (0..3).map(|_| issuer.issue(&jwt(&["a"], None), &apps(), NOW).unwrap()).collect();
    let elsewhere = Ok(Redeemed::Elsewhere(NodeId::from_random(7)));
    for token in &tokens {
        assert_eq!(other.redeem(token, &app(), &apps(), NOW), elsewhere);
    }
    // one stood for nothing, one was used up by it, one was not answered for
    other.redeemed_elsewhere(&tokens[0], false);
    other.redeemed_elsewhere(&tokens[1], true);
    assert_eq!(other.redeem(&tokens[0], &app(), &apps(), NOW), Err(BadToken::Used));
    assert_eq!(other.redeem(&tokens[1], &app(), &apps(), NOW), Err(BadToken::Used));
    assert_eq!(other.redeem(&tokens[2], &app(), &apps(), NOW), elsewhere);
    // long after its time nobody asks any more, whatever the clocks say
    assert_eq!(other.redeem(&tokens[2], &app(), &apps(), after(119)), elsewhere);
    assert_eq!(other.redeem(&tokens[2], &app(), &apps(), after(120)), Err(BadToken::Expired));
    // what is remembered is bounded
    for _ in 0..2 * SPENT.get() {
        let id = random();
        locked(&other.spent).put(id, ());
    }
    assert_eq!(locked(&other.spent).len(), SPENT.get());
    // one that may be used again is asked for again
    let reusable = Settings { one_time: false, ..issuer.settings };
    let reusable = Tokens::new(reusable, NodeId::from_random(8), "wellhead".into(), b"cluster secret");
    reusable.redeemed_elsewhere(&tokens[2], true);
    assert_eq!(reusable.redeem(&tokens[2], &app(), &apps(), NOW), elsewhere);
}

#[test]
fn references_of_a_large_jwt_cost_one_copy_of_it() {
    let tokens = tokens(Settings { reference_memory: Size::kib(512), ..Settings::default() });
    let names: Vec<_> = (0..3_000).map(|n| format!("ch-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let large = jwt(&names, None);
    assert!(large.len() > 32 << 10, "{}", large.len());
    let issued: Vec<_> = (0..200).map(|_| tokens.issue(&large, &apps(), NOW).unwrap()).collect();
    assert!(issued.iter().all(|token| token.starts_with("r.")));
    // of one user the last ones are good
    let good = issued.iter().filter(|token| tokens.redeem(token, &app(), &apps(), NOW).is_ok()).count();
    assert_eq!(good, Settings::default().references_per_user);
    assert!(issued[200 - good..].iter().all(|token| tokens.redeem(token, &app(), &apps(), NOW).is_ok()));
}

#[test]
fn a_full_memory_is_said() {
    let tokens =
        tokens(Settings { one_time: true, accept_jwt: false, reference_memory: Size::kib(1), ..Settings::default() });
    assert!(tokens.issue(&jwt(&["a"], None), &apps(), NOW).is_ok());
    let gusher = serde_json::json!({"user_id": "bob", "app_key": "app", "channels": ["b"]});
    let claims = serde_json::json!({ "gusher": gusher });
    let other = encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET)).unwrap();
    assert_eq!(tokens.issue(&other, &apps(), NOW), Err(NotIssued::Full));
    assert!(tokens.issue(&other, &apps(), after(60)).is_ok(), "when the time of the others is over");
}

#[test]
fn a_jwt_opens_a_socket_only_where_that_is_allowed() {
    assert!(tokens(Settings::default()).redeem(&jwt(&["a"], None), &app(), &apps(), NOW).is_ok());
    let strict = tokens(Settings { accept_jwt: false, ..Settings::default() });
    assert_eq!(strict.redeem(&jwt(&["a"], None), &app(), &apps(), NOW), Err(BadToken::WrongKind));
}
