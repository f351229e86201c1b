//! How a node proves to NATS who it is, and NATS to the node.

use std::{path::Path, process::Command};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};
use wellhead::bus::{
    nats::{NatsSettings, NatsTls},
    pubsub::Subject::Slot,
};

use super::{nats::node, node::PubSubNode};
use crate::support::{
    nats::{NatsServer, TestFolder},
    until,
};

async fn is_let_in(settings: NatsSettings) -> PubSubNode {
    assert_eq!(settings.check(), Ok(()));
    let node = node(settings).up().await.listens(&[Slot(1)]).await;
    node.send(Slot(1), "inside").await;
    node.hears(Slot(1), "inside").await;
    node
}

/// Once the server has refused it (its log says so by `words`), it is still down.
async fn is_refused(server: &NatsServer, words: &str, settings: NatsSettings) {
    let before = server.log().matches(words).count();
    let node = node(settings);
    // twice: it tries again, and is refused again
    until("the server refuses", true, || async { server.log().matches(words).count() >= before + 2 }).await;
    assert!(!*node.pubsub.state().borrow());
    node.takes_nothing().await;
}

#[tokio::test]
async fn by_user_and_password() {
    let server = NatsServer::started("authorization { user: ann, password: \"s3 cret\" }");
    let with = |user: &str, password: &str| NatsSettings {
        user: Some(user.to_owned()),
        password: Some(password.to_owned()),
        ..server.settings()
    };
    is_let_in(with("ann", "s3 cret")).await;
    is_refused(&server, "authentication error", with("ann", "wrong")).await;
    is_refused(&server, "authentication error", server.settings()).await;
    // in the address, as NATS users are used to
    let urls = vec![format!("nats://ann:s3%20cret@{}", server.address)];
    is_let_in(NatsSettings { urls, ..NatsSettings::default() }).await;
}

#[tokio::test]
async fn by_token() {
    let server = NatsServer::started("authorization { token: \"t0ken\" }");
    let with = |token: &str| NatsSettings { token: Some(token.to_owned()), ..server.settings() };
    is_let_in(with("t0ken")).await;
    is_refused(&server, "authentication error", with("wrong")).await;
}

#[tokio::test]
async fn who_may_not_listen_is_not_up() {
    let server = NatsServer::started(
        "authorization { users: [
            { user: all, password: x, permissions: { publish: \"wellhead.wellhead.>\", subscribe: \"wellhead.wellhead.>\" } }
            { user: half, password: x, permissions: { publish: \">\", subscribe: \"wellhead.wellhead.echo.>\" } }
        ] }",
    );
    let with =
        |user: &str| NatsSettings { user: Some(user.to_owned()), password: Some("x".to_owned()), ..server.settings() };
    // one rule is enough
    let all = is_let_in(with("all")).await;
    let half = node(with("half")).up().await;
    half.pubsub.listen(Slot(1));
    half.is(false).await;
    all.send(Slot(1), "for all").await;
    all.hears(Slot(1), "for all").await;
    // half would be up for the moment between its connecting and the server's refusal, if that came later
    let refusals = || server.log().matches("Subscription Violation").count();
    let before = refusals();
    until("it tries again and again", true, || async { refusals() >= before + 3 }).await;
    half.pubsub.unlisten(Slot(1));
    half.is(true).await;
}

/// A JWT as NATS wants it.
fn nats_jwt(signer: &KeyPair, subject: &KeyPair, name: &str, claims: Value) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let claims = part(json!({
        "jti": name, "iat": 1_700_000_000, "iss": signer.public_key(), "sub": subject.public_key(), "name": name,
        "nats": claims,
    }));
    let signed = format!("{head}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()).expect("it has a seed"));
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn by_a_credentials_file_that_may_come_later() {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let operator_jwt = nats_jwt(&operator, &operator, "O", json!({ "type": "operator", "version": 2 }));
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let account_jwt = nats_jwt(&operator, &account, "A", json!({ "type": "account", "version": 2, "limits": limits }));
    let user_jwt = nats_jwt(
        &account,
        &user,
        "U",
        json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} }),
    );
    let server = NatsServer::started(&format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}",
        account.public_key()
    ));
    let file = server.path().join("node.creds");
    let settings = NatsSettings { credentials_file: Some(file.clone()), ..server.settings() };
    let early = node(settings.clone());
    assert!(!*early.pubsub.state().borrow());
    let seed = user.seed().expect("it has a seed");
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    std::fs::write(&file, credentials).unwrap();
    early.is(true).await;
    is_let_in(settings).await;
    is_refused(&server, "authentication error", server.settings()).await;
}

#[tokio::test]
async fn by_a_password_file_that_is_read_anew_for_each_connection() {
    let server = NatsServer::started("authorization { user: \"ann\", password: \"first\" }");
    let file = server.folder.write("password", "wrong\n");
    let settings =
        NatsSettings { user: Some("ann".to_owned()), password_file: Some(file.clone()), ..server.settings() };
    let node = node(settings);
    until("it is refused", true, || async { server.log().contains("authentication error") }).await;
    assert!(!*node.pubsub.state().borrow());
    std::fs::write(&file, "first\n").unwrap();
    node.is(true).await;
}

fn openssl(folder: &Path, arguments: &str) {
    let ran =
        Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl is there");
    assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// An authority `name`, and a certificate `signed` by it.
fn authority(folder: &TestFolder, name: &str, signed: &[&str]) {
    let folder = &folder.0;
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("req -x509 {key} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"));
    for one in signed {
        std::fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost").unwrap();
        openssl(folder, &format!("req {key} -keyout {one}.key -out {one}.csr -subj /CN={one}"));
        openssl(
            folder,
            &format!(
                "x509 -req -in {one}.csr -CA {name}.pem -CAkey {name}.key -CAcreateserial -out {one}.pem -days 2 -extfile ext"
            ),
        );
    }
}

#[tokio::test]
async fn over_tls_with_an_authority_of_our_own() {
    let folder = TestFolder::new();
    authority(&folder, "ca", &["server", "node"]);
    authority(&folder, "other", &["stranger"]);
    let at = |name: &str| folder.0.join(name);
    let tls = |extra: &str| {
        let (cert, key) = (at("server.pem"), at("server.key"));
        format!("tls {{ cert_file: \"{}\", key_file: \"{}\"{extra} }}", cert.display(), key.display())
    };
    let with = |server: &NatsServer, change: &dyn Fn(&mut NatsTls)| {
        let mut tls = NatsTls { required: true, ca_file: Some(at("ca.pem")), ..NatsTls::default() };
        change(&mut tls);
        NatsSettings { tls, ..server.settings() }
    };

    let server = NatsServer::started(&tls(""));
    is_let_in(with(&server, &|_| ())).await;
    // the scheme asks for it, too
    let urls = vec![format!("tls://{}", server.address)];
    is_let_in(NatsSettings { urls, ..with(&server, &|tls| tls.required = false) }).await;
    is_refused(&server, "TLS handshake error", with(&server, &|tls| tls.ca_file = Some(at("other.pem")))).await;

    // both sides show who they are
    let server = NatsServer::started(&tls(&format!(", ca_file: \"{}\", verify: true", at("ca.pem").display())));
    let shows = |name: &'static str| {
        let (cert, key) = (at(&format!("{name}.pem")), at(&format!("{name}.key")));
        move |tls: &mut NatsTls| {
            tls.cert_file = Some(cert.clone());
            tls.key_file = Some(key.clone());
        }
    };
    is_let_in(with(&server, &shows("node"))).await;
    is_refused(&server, "TLS handshake error", with(&server, &shows("stranger"))).await;

    // a server without it is not spoken to
    let plain = NatsServer::started("");
    let ann = node(with(&plain, &|_| ()));
    ann.takes_nothing().await;
    let seen = || plain.log().len();
    until("it tried", true, || async { seen() > 0 }).await;
    assert!(!*ann.pubsub.state().borrow());
}
