//! What `docs/` gives to operators, put to the programs that it is for, where they are installed.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use aws_lc_rs::digest::{SHA256, digest};

use crate::support::{
    backend::Backend,
    client::{Client, ReceivedEvent},
    http::Http,
    keys::{now, signer},
    pusher::{DEMO, PusherClient, PusherMessage},
    server::{Server, Setup},
    until,
    websocket::WebSocket,
};

/// A program, from where Debian puts it or from the path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    let found = folders.map(|folder: PathBuf| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

fn documented(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The units, with the program that they start where it is here.
#[test]
fn systemd_has_nothing_against_the_units() {
    let Some(analyze) = program("systemd-analyze") else { return };
    let setup = Setup::keyed();
    let mut units = Vec::new();
    for name in ["wellhead", "wellhead-master", "wellhead-slave"] {
        for kind in ["service", "socket"] {
            let unit = documented(&format!("systemd/{name}.{kind}"));
            if kind == "service" {
                assert!(unit.contains("\nLimitNOFILE="), "{name}");
                assert!(unit.contains(" -c /etc/wellhead/config.toml\n"), "{name}");
            }
            let path = setup.folder().join(format!("{name}.{kind}"));
            fs::write(&path, unit.replace("/usr/local/bin/wellhead", env!("CARGO_BIN_EXE_wellhead"))).expect("ours");
            units.push(path);
        }
    }
    let verified = Command::new(analyze).args(["verify", "--man=no"]).args(&units).output().expect("it runs");
    let said = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("wellhead")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");
}

/// The sockets are told apart by their addresses, so they must be those of the settings.
#[test]
fn socket_units_listen_where_the_settings_say() {
    let settings = documented("../config.toml");
    for (unit, listeners) in [
        ("wellhead", &[("slave", "listen"), ("master", "listen"), ("master", "admin")][..]),
        ("wellhead-master", &[("master", "listen"), ("master", "admin")]),
        ("wellhead-slave", &[("slave", "listen"), ("slave", "admin")]),
    ] {
        let text = documented(&format!("systemd/{unit}.socket"));
        let listens: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
        let settings: toml::Table = settings.parse().expect("TOML");
        let wanted: Vec<_> =
            listeners.iter().map(|(role, key)| settings[*role][*key].as_str().expect("text")).collect();
        assert_eq!(listens, wanted, "{unit}");
    }
}

/// nginx with the documented settings in front of a server; ended when dropped.
struct ExampleNginx(Child);

impl ExampleNginx {
    /// Start it with what `settings` makes of a port that is free, in `folder`, and wait until it listens there.
    async fn start(program: &Path, folder: &Path, settings: impl FnOnce(u16) -> String) -> (Self, SocketAddr) {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = free.local_addr().expect("bound");
        drop(free);
        let file = folder.join("nginx.conf");
        fs::write(&file, nginx_around(folder, &settings(address.port()))).expect("the folder is ours");
        let mut command = Command::new(program);
        command.arg("-e").arg(folder.join("nginx.log")).arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let nginx = Self(command.stderr(Stdio::null()).spawn().expect("it runs"));
        until("nginx listens", true, || async { tokio::net::TcpStream::connect(address).await.is_ok() }).await;
        (nginx, address)
    }
}

impl Drop for ExampleNginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The documented file for this server: on a port of its own, without TLS, its logs in `folder`.
fn nginx_settings(server: &Server, folder: &Path, port: u16) -> String {
    let mut text = documented("nginx/wellhead.conf");
    for (documented, here) in [
        ("server 127.0.0.1:8888;", format!("server {};", server.slave())),
        ("server 127.0.0.1:7777;", format!("server {};", server.master())),
        ("listen 443 ssl;", format!("listen 127.0.0.1:{port};")),
        ("    ssl_certificate /etc/ssl/wellhead/fullchain.pem;\n", String::new()),
        ("    ssl_certificate_key /etc/ssl/wellhead/privkey.pem;\n", String::new()),
        ("/var/log/nginx", folder.display().to_string()),
    ] {
        assert!(text.contains(documented), "{documented:?} in docs/nginx/wellhead.conf");
        text = text.replace(documented, &here);
    }
    text
}

/// What stands around servers in a file of nginx, with everything that it writes in `folder`.
fn nginx_around(folder: &Path, servers: &str) -> String {
    let here = folder.display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {here}/{kind};\n"));
    format!(
        "daemon off;\nmaster_process off;\npid {here}/nginx.pid;\nerror_log {here}/nginx.log;\nevents {{}}\nhttp {{\n{}{servers}}}\n",
        temporary.concat()
    )
}

const KEY: &str = "the push key of this test";

#[tokio::test]
async fn behind_the_documented_nginx_every_path_works_and_no_token_is_logged() {
    let Some(nginx) = program("nginx") else { return };
    let hash: String = digest(&SHA256, KEY.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let setup = || {
        Setup::keyed().toml(&format!(
            "[[push_keys]]\nname = \"backend\"\nsha256 = \"{hash}\"\n\
             [[apps.listed]]\nkey = \"shop\"\nid = \"1\"\nsecret = \"a secret of this test\"\n"
        ))
    };
    every_path_works_behind(&nginx, setup()).await;
    every_path_works_behind(&nginx, setup().set("standalone.listen", "127.0.0.1:0")).await;
}

async fn every_path_works_behind(nginx: &Path, setup: Setup) {
    let folder = setup.folder().to_owned();
    let server = setup.start().await;
    let settings = |port| nginx_settings(&server, &folder, port);
    let (_nginx, address) = ExampleNginx::start(nginx, &folder, settings).await;

    let jwt = signer().jwt("demo", "ann", &["*"]);
    for door in ["/gcs/auth", "/v1/auth"] {
        let reply = match door {
            "/v1/auth" => Http::to(address).await.json("POST", door, &format!(r#"{{"jwt":"{jwt}"}}"#)).await,
            _ => Http::to(address).await.form(door, &[("jwt", &jwt)]).await,
        };
        assert_eq!(reply.status, 200, "{door}: {reply:?}");
    }
    for path in [format!("/gcs/ws/demo?token={jwt}"), format!("/v1/apps/demo/ws?token={jwt}")] {
        let mut client = Client { socket: WebSocket::open(address, &path, &[]).await.expect("101") };
        assert_eq!(client.subscribe("news").await, "gusher.subscribe_succeeded");
    }
    let mut pusher = WebSocket::open(address, "/app/shop?protocol=7", &[]).await.expect("101");
    assert!(pusher.text().await.contains("connection_established"));
    // as large as limits.body lets them be
    let big = "x".repeat(9 << 20);
    Backend::of(address).await.with_key(KEY).push("demo", "news", "e", &big).await;
    // the master asks who it is, so they have come to the right one
    for path in ["/api/demo/online?key=secret-in-the-query", "/v1/stats", "/apps/1/channels?auth_key=shop"] {
        assert_eq!(Http::to(address).await.get(path).await.status, 401, "{path}");
    }
    assert_eq!(Http::to(address).await.get("/metrics").await.status, 404, "nothing else is passed on");
    let logged = || async { fs::read_to_string(folder.join("wellhead.log")).unwrap_or_default() };
    until("the last request is logged", true, || async { logged().await.contains("/metrics") }).await;
    let logged = logged().await;
    assert!(logged.contains("\"POST /v1/auth HTTP/1.1\" 200"), "{logged}");
    assert!(!logged.contains("eyJ") && !logged.contains("secret-in"), "{logged}");
}

/// The `location` of docs/pusher.md that passes everything on to the one address of both roles.
#[tokio::test]
async fn one_location_of_nginx_is_enough_for_one_port() {
    let Some(nginx) = program("nginx") else { return };
    let text = documented("pusher.md");
    let (_, location) = text.split_once("```nginx\n").expect("a block for nginx");
    let (location, _) = location.split_once("```").expect("its end");
    let setup = Setup::keyed().toml(&DEMO.listed("")).set("standalone.listen", "127.0.0.1:0");
    let folder = setup.folder().to_owned();
    let server = setup.start().await;
    assert!(location.contains("http://127.0.0.1:8080;"), "{location}");
    let location = location.replace("http://127.0.0.1:8080;", &format!("http://{};", server.master()));
    let settings = |port| format!("access_log off;\nserver {{\nlisten 127.0.0.1:{port};\n{location}}}\n");
    let (_nginx, address) = ExampleNginx::start(&nginx, &folder, settings).await;

    let jwt = signer().jwt("demo", "ann", &["*"]);
    assert_eq!(Http::to(address).await.form("/gcs/auth", &[("jwt", &jwt)]).await.status, 200);
    let mut ann = Client::connect(address, "demo", &jwt).await.subscribed("news").await;
    let mut eve = PusherClient::connect(address, DEMO).await.subscribed("news").await;
    let body = r#"{"name":"hello","channel":"news","data":"1"}"#;
    let query = DEMO.signed("POST", "/apps/17/events", &[], body, now());
    assert_eq!(Http::to(address).await.json("POST", &format!("/apps/17/events?{query}"), body).await.is(), (200, "{}"));
    assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "hello", "1"));
    assert_eq!(eve.next().await, PusherMessage::event("news", "hello", "1"));
    // as large as limits.body lets them be, but not for nothing
    let large = Http::to(address).await.form("/api/push/demo/news/e", &[("data", &"x".repeat(9 << 20))]).await;
    assert_eq!(large.status, 401);
    assert_eq!(Http::to(address).await.get("/v1/stats").await.status, 401);
}
