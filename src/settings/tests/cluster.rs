//! Roles, the bus between them, and what nodes must have in common.

use std::path::PathBuf;

use super::{SettingsFolder, from_file, from_variable, refused};
use crate::settings::{
    BusAddress, load,
    place::SettingsError,
    plan::{Plan, Roles, Topology},
};

/// A file for nodes on NATS, and more of it.
fn on_nats(folder: &SettingsFolder, more: &str) -> String {
    let secret = "s".repeat(32);
    let cluster = format!("[cluster]\nbus = \"nats://127.0.0.1:4222\"\nsecret = \"{secret}\"\n");
    format!("{cluster}[jwt]\npublic_keys = [\"{}\"]\n{more}", folder.key("public.pem"))
}

fn plan(text: &str, roles: Roles) -> Result<Plan, SettingsError> {
    Plan::new(&from_file(text)?, roles)
}

#[test]
fn a_process_opens_what_its_role_needs_and_looks_at_nothing_else() {
    let addresses = |plan: Plan| [plan.master, plan.slave, plan.admin].map(|at| at.map(|at| at.port()));
    assert_eq!(addresses(plan("", Roles::Standalone).unwrap()), [Some(7777), Some(8888), Some(9601)]);
    assert_eq!(addresses(plan("", Roles::Master).unwrap()), [Some(7777), None, Some(9601)]);
    assert_eq!(addresses(plan("", Roles::Slave).unwrap()), [None, Some(8888), Some(9602)]);
    let bad = "listen = \"nonsense\"\nadmin = \"0.0.0.0:99999\"\n";
    assert!(plan(&format!("[slave]\n{bad}"), Roles::Master).is_ok());
    assert!(plan(&format!("[master]\n{bad}"), Roles::Slave).is_ok());
    assert!(plan(&format!("[slave]\n{bad}"), Roles::Slave).is_err());
    assert!(plan("[slave]\nadmin = \"nonsense\"", Roles::Standalone).is_ok(), "standalone ignores it");
    assert_eq!(plan("[slave]\nadmin = \"\"", Roles::Slave).unwrap().admin, None);
    // what is on loopback for one role may be beyond it for the other
    let open = "[slave]\nlisten = \"0.0.0.0:1\"";
    assert!(plan(open, Roles::Master).is_ok() && plan(open, Roles::Slave).is_err());
}

#[test]
fn a_bus_is_local_or_one_or_more_servers() {
    let bus = |text: &str| from_file(&format!("[cluster]\nbus = {text}")).unwrap().settings.cluster.bus;
    let servers = |urls: &[&str]| BusAddress::Nats(urls.iter().map(|&url| url.to_owned()).collect());
    assert_eq!(bus("\"local\""), BusAddress::Local);
    assert_eq!(bus("\"nats://a:1\""), servers(&["nats://a:1"]));
    assert_eq!(bus("\"nats://a:1, tls://b:2\""), servers(&["nats://a:1", "tls://b:2"]));
    assert_eq!(bus("[\"nats://a:1\", \"nats://b:2\"]"), servers(&["nats://a:1", "nats://b:2"]));
    let loaded = from_variable("WELLHEAD_CLUSTER__BUS", "nats://a:1,nats://b:2").unwrap();
    assert_eq!(loaded.settings.cluster.bus, servers(&["nats://a:1", "nats://b:2"]));
    let shown = format!("{:?}", bus("\"nats://ann:hush@a:1\""));
    assert!(shown.contains("nats://a:1") && !shown.contains("hush"), "{shown}");
    let error = refused("[cluster]\nbus = \"redis://ann:hush@a:1\"");
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn nodes_on_nats_share_a_secret_and_keys() {
    let folder = SettingsFolder::new("on-nats");
    for roles in [Roles::Standalone, Roles::Master, Roles::Slave] {
        assert!(matches!(plan(&on_nats(&folder, ""), roles).unwrap().topology, Topology::Nats(_)));
        let keyless = on_nats(&folder, "").replace("public_keys", "require_exp = true #");
        let error = plan(&keyless, roles).err().expect("no keys").to_string();
        assert!(error.contains("jwt.public_keys") && error.contains("wellhead keys generate"), "{error}");
        for (secret, what) in [("", "is empty"), ("short", "shorter than 32")] {
            let text = on_nats(&folder, "").replace(&"s".repeat(32), secret);
            let error = plan(&text, roles).err().expect("no secret").to_string();
            assert!(error.contains("cluster.secret") && error.contains(what) && error.contains("urandom"), "{error}");
        }
    }
}

#[test]
fn there_is_one_way_to_prove_to_nats_who_we_are() {
    let folder = SettingsFolder::new("nats-credentials");
    let secret = folder.write("password", "hush\n").display().to_string();
    let nats = |more: &str| match plan(&on_nats(&folder, more), Roles::Master) {
        Ok(Plan { topology: Topology::Nats(nats), .. }) => Ok(nats),
        Ok(_) => panic!("not on NATS"),
        Err(error) => Err(error.to_string()),
    };
    let from_file = nats(&format!("[nats]\nuser = \"ann\"\npassword_file = \"{secret}\"")).unwrap_or_default();
    assert_eq!((from_file.user.as_deref(), from_file.password.as_deref()), (Some("ann"), Some("hush")));
    let from_file = nats(&format!("[nats]\ntoken_file = \"{secret}\"")).unwrap_or_default();
    assert_eq!(from_file.token.as_deref(), Some("hush"));
    for (more, what) in [
        ("[nats]\nuser = \"ann\"", "password"),
        ("[nats]\nuser = \"ann\"\npassword = \"x\"\ntoken = \"y\"", "exclude"),
        ("[nats]\ncredentials_file = \"missing.creds\"", "nats.credentials_file: cannot read"),
        ("[nats.tls]\nca_file = \"missing.pem\"", "nats.tls.ca_file: cannot read"),
        ("[nats.tls]\ncert_file = \"/\"", "nats.tls.cert_file: cannot read"),
    ] {
        let error = nats(more).err().expect(more);
        assert!(error.contains(what), "{more}\n{error}");
    }
    let half = format!("[nats.tls]\ncert_file = \"{secret}\"");
    assert!(nats(&half).err().expect("no key").contains("key"));
    // the local bus has no use for them, and does not look
    assert!(plan("[nats]\ncredentials_file = \"missing.creds\"", Roles::Master).is_ok());
}

#[test]
fn nats_on_another_machine_is_warned_about_unless_it_is_kept_closed() {
    let folder = SettingsFolder::new("nats-warnings");
    let warned = |bus: &str, more: &str| {
        let text = on_nats(&folder, more).replace("nats://127.0.0.1:4222", bus);
        plan(&text, Roles::Slave).unwrap().warnings.iter().any(|warning| warning.contains("without credentials"))
    };
    assert!(warned("nats://10.0.0.1:4222", ""));
    assert!(warned("nats://127.0.0.1:4222,nats://bus.example:4222", ""));
    assert!(!warned("nats://127.0.0.1:4222", "") && !warned("nats://localhost:4222", ""));
    assert!(!warned("tls://10.0.0.1:4222", "") && !warned("nats://ann:x@10.0.0.1:4222", ""));
    assert!(!warned("nats://10.0.0.1:4222", "[nats]\ntoken = \"x\""));
    assert!(!warned("nats://10.0.0.1:4222", "[nats.tls]\nrequired = true"));
}

#[test]
fn a_socket_is_a_file_on_this_machine() {
    for (socket, what) in
        [("nats://127.0.0.1:4222", "NATS"), ("", "no file"), ("run/", "no file"), (&*"x".repeat(108), "107 bytes")]
    {
        let text = format!("[cluster]\nsocket = \"{socket}\"");
        for roles in [Roles::Master, Roles::Slave] {
            let error = plan(&text, roles).err().expect(socket).to_string();
            assert!(error.starts_with("w.toml:2: cluster.socket: ") && error.contains(what), "{error}");
        }
        assert!(plan(&text, Roles::Standalone).is_ok(), "standalone opens none");
    }
    // of the file's folder, written there or not: master and slave meet wherever they are started
    let folder = SettingsFolder::new("socket");
    for text in ["", "[cluster]\nsocket = \"run/bus.sock\"", "[cluster]\nname = \"a\""] {
        let file = folder.write("w.toml", text);
        let loaded = load::load(Some(&file), &[]).unwrap();
        assert_eq!(PathBuf::from(loaded.settings.cluster.socket), folder.0.join("run/bus.sock"));
    }
    let loaded = load::load(Some(&folder.write("w.toml", "")), &["cluster.socket=here.sock".to_owned()]).unwrap();
    assert_eq!(loaded.settings.cluster.socket, "here.sock");
}
