//! Keys and secrets in files: such as cannot protect anything are refused, and a byte order mark is no part of them.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;
use crate::signing::SigningKey;

const MARK: &str = "\u{feff}";

/// A key of a master's own, so that no other thing is refused.
fn keyed(folder: &SettingsFolder) -> String {
    format!("[jwt]\npublic_keys = [\"{}\"]\n", folder.key("public.pem"))
}

/// An RSA public key with a modulus of so many bits, in PEM.
fn rsa_of(bits: usize) -> String {
    let modulus = [&[0, 0x80][..], &vec![0xA5; bits / 8 - 1]].concat();
    let integer = |bytes: &[u8]| [&[0x02, 0x82][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let both = [integer(&modulus), vec![0x02, 0x03, 0x01, 0x00, 0x01]].concat();
    let der = [&[0x30, 0x82][..], &(both.len() as u16).to_be_bytes(), &both].concat();
    format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", STANDARD.encode(der))
}

#[test]
fn an_rsa_key_of_a_size_that_verifies_nothing_is_refused_with_its_file() {
    let folder = SettingsFolder::new("rsa-bits");
    for bits in [1_024, 2_040, 16_384] {
        let file = folder.write("keys/rsa.pem", &rsa_of(bits)).display().to_string();
        let error = refused(&format!("[jwt]\npublic_keys = [\"{file}\"]"));
        assert!(error.starts_with("w.toml:2: jwt.public_keys.0: "), "{error}");
        assert!(error.contains(&file) && error.contains(&format!("{bits} bits")), "{error}");
        let error = refused(&format!("[[apps.listed]]\nkey = \"a\"\npublic_keys = [\"{file}\"]"));
        assert!(error.contains("apps.listed.0.public_keys.0: ") && error.contains(&format!("{bits} bits")), "{error}");
    }
    let file = folder.write("keys/rsa.pem", &rsa_of(2_048)).display().to_string();
    assert!(!plan(&format!("[jwt]\npublic_keys = [\"{file}\"]"), Roles::Standalone).development);
}

fn plan(text: &str, roles: Roles) -> Plan {
    Plan::new(&from_file(text).expect(text), roles).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_cluster_secret_that_could_be_guessed_is_refused_on_every_bus() {
    let folder = SettingsFolder::new("cluster-secret");
    let (short, long) = ("s".repeat(31), "s".repeat(32));
    let file = folder.write("short", &format!("{MARK}{short}\n")).display().to_string();
    for bus in ["local", "nats://127.0.0.1:4222"] {
        for roles in [Roles::Standalone, Roles::Master, Roles::Slave] {
            let text = |line: &str| format!("{}[cluster]\nbus = \"{bus}\"\n{line}\n", keyed(&folder));
            for (line, key) in [
                (format!("secret = \"{short}\""), "w.toml:5: cluster.secret: "),
                (format!("secret_file = \"{file}\""), "w.toml:5: cluster.secret_file: "),
            ] {
                let loaded = from_file(&text(&line)).unwrap();
                let error = Plan::new(&loaded, roles).err().expect("it could be guessed").to_string();
                assert!(error.starts_with(key) && error.contains("31 bytes") && error.contains("urandom"), "{error}");
            }
            assert!(plan(&text(&format!("secret = \"{long}\"")), roles).secret.is_some());
        }
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_what_is_read() {
    let folder = SettingsFolder::new("marks");
    let marked = |name: &str, text: &str| folder.write(name, &format!("{MARK}{text}")).display().to_string();
    let secret = "a secret in a file, long enough to use";
    let file = marked("secret", &format!("{secret}\r\n"));
    for section in ["cluster", "jwt"] {
        let plan = plan(&format!("[{section}]\nsecret_file = \"{file}\""), Roles::Standalone);
        let read = if section == "jwt" { plan.jwt_secret } else { plan.secret };
        assert_eq!(read.as_deref(), Some(secret.as_bytes()), "{section}");
    }
    let app = format!("[[apps.listed]]\nkey = \"a\"\nid = \"1\"\nsecret_file = \"{file}\"");
    assert_eq!(pushers(&plan(&app, Roles::Standalone))[0].secret, secret.as_bytes());

    let pair = KeyPair::generate(KeyKind::Rs256).unwrap();
    let public = marked("keys/marked.pem", &pair.public);
    assert!(!plan(&format!("[jwt]\npublic_keys = [\"{public}\"]"), Roles::Standalone).development);
    let private = marked("keys/marked-private.pem", &pair.private);
    assert!(SigningKey::from_pem(&crate::files::read_text(private).unwrap()).is_ok());

    let settings = folder.write("marked.toml", &format!("{MARK}[log]\nlevel = \"warn\"\n"));
    assert_eq!(load::load(Some(&settings), &[]).unwrap().settings.log.level, "warn");
    // nothing but the mark is nothing
    let empty = marked("empty", "\n");
    assert!(refused(&format!("[cluster]\nsecret_file = \"{empty}\"")).contains("is empty"));
    // two bytes a letter, as another system's editor saves it
    let wide = folder.0.join("wide");
    fs::write(&wide, b"\xFF\xFEs\0e\0c\0").unwrap();
    let error = refused(&format!("[cluster]\nsecret_file = \"{}\"", wide.display()));
    assert!(error.contains("cluster.secret_file") && error.contains("not UTF-8"), "{error}");
}

#[test]
fn what_a_library_reads_by_itself_must_not_begin_with_a_byte_order_mark() {
    let folder = SettingsFolder::new("tls-marks");
    let marked = folder.write("marked", &format!("{MARK}-----BEGIN CERTIFICATE-----")).display().to_string();
    let nats = format!(
        "{}[cluster]\nbus = \"nats://127.0.0.1:4222\"\nsecret = \"{}\"\n[nats.tls]\n",
        keyed(&folder),
        "s".repeat(32)
    );
    for lines in [
        format!("ca_file = \"{marked}\""),
        format!("cert_file = \"{marked}\"\nkey_file = \"{}\"", folder.key("private.pem")),
        format!("cert_file = \"{}\"\nkey_file = \"{marked}\"", folder.key("public.pem")),
    ] {
        let error = refused(&format!("{nats}{lines}"));
        assert!(error.contains("nats.tls.") && error.contains("byte order mark") && error.contains("hint"), "{error}");
    }
}

#[test]
fn a_master_without_push_keys_is_warned_about_unless_it_is_for_development() {
    let folder = SettingsFolder::new("keyless");
    let warned = |text: &str, roles| {
        let warnings = plan(text, roles).warnings;
        warnings.iter().any(|warning| warning.contains("passes requests on") && warning.contains("keys push"))
    };
    let keyed = keyed(&folder);
    assert!(warned(&keyed, Roles::Standalone) && warned(&keyed, Roles::Master));
    assert!(!warned(&keyed, Roles::Slave), "it has no master");
    assert!(!warned("", Roles::Standalone), "development mode says so itself");
    let push = format!("[[push_keys]]\nname = \"a\"\nsha256 = \"{}\"\n", "0".repeat(64));
    assert!(!warned(&format!("{keyed}{push}"), Roles::Standalone));
}
