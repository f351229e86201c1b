//! Secrets are never shown, neither by settings that are right nor by the errors of those that are wrong.

use super::*;

/// Planted wherever somebody could put a secret. It ends as base64 may, holds what a list and an address are made of, and
/// every part of it is looked for.
const PLANTED: &str = "hush-Hush://HUSH@hushed, expected hush=";

fn shows(text: &str) -> bool {
    text.to_lowercase().contains("hush")
}

/// What settings say of themselves, or the error that they make.
fn said(loaded: Result<Loaded, SettingsError>) -> String {
    match loaded.and_then(|loaded| Plan::new(&loaded, Roles::Master).map(|plan| (loaded, plan))) {
        Ok((loaded, plan)) => {
            let settings = &loaded.settings;
            format!("{settings:?}{}{:?}{:?}", toml::to_string(settings).unwrap(), plan.tenants, plan.warnings)
        }
        Err(error) => format!("{error}{error:?}"),
    }
}

/// Keys whose values may be secrets, or hold them.
const HOLD_SECRETS: [&str; 15] = [
    "cluster.secret",
    "cluster.secret_file",
    "cluster.bus",
    "jwt.secret",
    "jwt.secret_file",
    "nats.password",
    "nats.password_file",
    "nats.token",
    "nats.token_file",
    "nats.credentials_file",
    "nats.tls.cert_file",
    "nats.tls.key_file",
    "apps.listed",
    "push_keys",
    "nats.tls.ca_file",
];

/// How they may be written, right and wrong; the second is plain enough to get through.
fn ways() -> Vec<String> {
    [
        "{p}",
        "[{p}",
        "[\"{p}\"",
        "[\"{p}\"]",
        "[{ key = \"a\", secret = \"{p}\" }]",
        "[{ key = \"a\", id = \"1\", secret_file = \"{p}\" }]",
        "[{ key = \"a\", id = \"1\", secret = [\"{p}\"] }]",
        "[{\"key\":\"a\",\"id\":\"1\",\"sercet\":\"{p}\"}]",
        "[{\"name\":\"a\",\"sha256\":\"{p}\"}]",
        "[{ name = \"a\", sha256 = \"{p}\", rights = \"{p}\" }]",
        "a:{p}",
        "nats://ann:{p}@127.0.0.1:4222",
        "nats://127.0.0.1:{p}",
        "nats://nats.example/?token={p}",
        "ann:{p}@nats://127.0.0.1",
    ]
    .iter()
    .flat_map(|topology| [PLANTED, "hushhush"].map(|planted| topology.replace("{p}", planted)))
    .collect()
}

#[test]
fn no_way_in_shows_a_secret() {
    let mut refused = 0;
    for key in HOLD_SECRETS {
        for topology in ways() {
            // with all else that its error could be about
            let base = format!("[cluster]\nbus = \"nats://127.0.0.1:1\"\nsecret = \"{}\"\n", "x".repeat(32));
            let base = if key.starts_with("cluster") { String::new() } else { base };
            let name = match key {
                "push_keys" => "WELLHEAD_PUSH_KEYS".to_owned(),
                key => format!("WELLHEAD_{}", key.to_uppercase().replace('.', "__")),
            };
            let (section, field) = key.rsplit_once('.').unwrap_or(("", key));
            let section = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
            let quoted = toml::Value::String(topology.clone());
            // what is put into the file may stand there bare, in quotes, and where a section is meant
            let in_file = [
                format!("{section}{field} = {topology}"),
                format!("{section}{field} = {quoted}"),
                format!("{section}{field} = [{quoted}]"),
                format!("{section}{field} = {{ {field} = {quoted} }}"),
                format!("{} = {quoted}", key.split('.').next().unwrap_or(key)),
            ];
            let mut ways_in = vec![
                layers("w.toml", &base, &[(name.clone(), topology.clone())], &[]),
                layers("w.toml", &base, &[], &[format!("{key}={topology}")]),
                layers("w.toml", &base, &[], &[format!("{key} {topology}")]),
                layers("w.toml", &base, &[], &[format!("{key}:{topology}")]),
                layers("w.toml", &base, &[], std::slice::from_ref(&topology)),
                layers("w.toml", &base, &[(name.replace("__", "_"), topology.clone())], &[]),
            ];
            ways_in.extend(in_file.iter().map(|text| from_file(&format!("{text}\n{base}"))));
            for (number, loaded) in ways_in.into_iter().enumerate() {
                refused += usize::from(loaded.is_err());
                let said = said(loaded);
                assert!(!shows(&said), "{key}, way {number}: {topology}\n{said}");
            }
        }
    }
    assert!(refused > 500, "{refused}: these are wrong, most of them");
}

#[test]
fn numbers_that_were_meant_as_secrets_are_not_shown() {
    for key in HOLD_SECRETS {
        let (section, field) = key.rsplit_once('.').unwrap_or(("", key));
        let section = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        for value in ["123454321", "[123454321]", "12345.4321", "{ a = 123454321 }"] {
            let said = said(from_file(&format!("{section}{field} = {value}")));
            assert!(!said.contains("12345"), "{key} = {value}\n{said}");
        }
    }
    // out of its range, a number says what is wrong
    assert!(refused("[limits]\nsubscriptions = -1").contains("-1"));
}

#[test]
fn what_the_files_of_secrets_hold_is_not_shown() {
    let folder = SettingsFolder::new("planted");
    let short = folder.write("short", "hush\n").display().to_string();
    let binary = folder.0.join("binary");
    fs::write(&binary, b"hush\xFF").unwrap();
    let binary = binary.display().to_string();
    let app = [("WELLHEAD_APP_KEY", "demo"), ("WELLHEAD_APP_ID", "1")];
    for file in [&short, &binary, &PLANTED.to_owned(), &"-----BEGIN PRIVATE KEY-----\nhush".to_owned()] {
        for name in [
            "WELLHEAD_CLUSTER__SECRET_FILE",
            "WELLHEAD_JWT__SECRET_FILE",
            "WELLHEAD_NATS__PASSWORD_FILE",
            "WELLHEAD_NATS__TOKEN_FILE",
            "WELLHEAD_NATS__CREDENTIALS_FILE",
            "WELLHEAD_NATS__TLS__KEY_FILE",
            "WELLHEAD_APP_SECRET_FILE",
            "WELLHEAD_JWT__PUBLIC_KEYS",
        ] {
            // whoever names a file wrongly where public keys are meant, and not the key itself, hears which
            if name.ends_with("PUBLIC_KEYS") && !file.contains("-----") {
                continue;
            }
            let bus = ("WELLHEAD_CLUSTER__BUS", "nats://127.0.0.1:1");
            let mut variables = vec![(name, file.as_str())];
            match name {
                "WELLHEAD_APP_SECRET_FILE" => variables.extend(app),
                name if name.contains("NATS") => variables.push(bus),
                _ => {}
            }
            let variables: Vec<_> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let said = said(layers("w.toml", "", &variables, &[]));
            assert!(!shows(&said), "{name}={file}\n{said}");
        }
    }
}
