//! nginx with Nchan, configured here and run for the time of one measurement.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::environment::has;
use crate::child::ServerProcess;

/// Where distributions keep it.
const MODULES: [&str; 3] = [
    "/usr/lib/nginx/modules/ngx_nchan_module.so",
    "/usr/lib64/nginx/modules/ngx_nchan_module.so",
    "/etc/nginx/modules/ngx_nchan_module.so",
];

/// The module, if nginx and it are installed.
pub fn module() -> Option<&'static str> {
    MODULES.into_iter().find(|module| has("nginx") && Path::new(module).exists())
}

/// Start it in a folder of its own.
pub fn start(folder: &Path, cores: &[usize]) -> Result<(ServerProcess, SocketAddr)> {
    let folder = folder.join("nchan");
    fs::create_dir_all(&folder)?;
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let file = folder.join("nginx.conf");
    fs::write(&file, config(module().context("Nchan is installed")?, &folder, address))?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg(folder.join("error.log")).arg("-p").arg(&folder).arg("-c").arg(&file);
    Ok((ServerProcess::start_silent(command, cores, address)?, address))
}

/// One worker; nothing is kept of what was published, as nobody else here keeps it; its own checks stay as they are.
fn config(module: &str, folder: &Path, address: SocketAddr) -> String {
    let temporary = |name: &str| -> PathBuf { folder.join(name) };
    format!(
        "load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {pid};
error_log {log} warn;
events {{ worker_connections 19980; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    tcp_nodelay on;
    client_body_temp_path {body};
    proxy_temp_path {body};
    fastcgi_temp_path {body};
    uwsgi_temp_path {body};
    scgi_temp_path {body};
    nchan_shared_memory_size 512M;
    server {{
        listen {address} backlog=4096;
        location ~ ^/pub/(\\w+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 0;
            client_body_buffer_size 64k;
        }}
        location ~ ^/sub/(\\w+)$ {{
            nchan_subscriber websocket;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
",
        pid = temporary("pid").display(),
        log = temporary("error.log").display(),
        body = temporary("body").display(),
    )
}
