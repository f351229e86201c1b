//! A real nginx that passes everything on, on a port of its own, with a folder of its own; killed with the test.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{PATIENCE, nats::TestFolder};

pub struct Nginx {
    pub address: SocketAddr,
    process: Child,
    _folder: TestFolder,
}

impl Nginx {
    /// Passes on to `to`; `more` stands beside `proxy_pass`.
    pub fn before(to: SocketAddr, more: &str) -> Self {
        let folder = TestFolder::new();
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let place = folder.0.display();
        let temporary = |kind: &str| format!("{kind}_temp_path {place}/{kind};\n");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temporary).concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
             {temporary}server {{\nlisten {address};\nlocation / {{\nproxy_pass http://{to};\n{more}\n}}\n}}\n}}\n"
        );
        let file = folder.write("nginx.conf", &config);
        // Debian's place is not on everybody's path
        let debian = Path::new("/usr/sbin/nginx");
        let mut process = Command::new(if debian.exists() { debian } else { Path::new("nginx") })
            .args(["-e", "stderr", "-p"])
            .arg(&folder.0)
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed (make tools)");
        let deadline = Instant::now() + PATIENCE;
        // it tells nobody that it listens
        while TcpStream::connect(address).is_err() {
            let ended = process.try_wait().expect("our child");
            assert!(ended.is_none() && Instant::now() < deadline, "nginx does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { address, process, _folder: folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // fails only if it has ended already
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
