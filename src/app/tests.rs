//! A whole process, from its settings to its end.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

async fn get(address: SocketAddr, path: &str) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[actix_rt::test]
async fn a_process_starts_on_any_port_and_leaves_none_behind() {
    let mut settings = Settings::default();
    for listen in [&mut settings.master.listen, &mut settings.slave.listen, &mut settings.master.admin] {
        *listen = "127.0.0.1:0".to_owned();
    }
    let running = start(settings).await.unwrap();
    let ListenAddresses { master, slave, admin } = running.addresses;
    let (master, slave, admin) = (master.unwrap(), slave.unwrap(), admin.unwrap());
    let all = [master, slave, admin];
    for address in all {
        assert!(get(address, "/readyz").await.ends_with("\r\n\r\nready"));
    }
    assert!(get(master, "/try").await.contains("<!doctype html>"));
    assert!(get(slave, "/try").await.starts_with("HTTP/1.1 404 "));
    assert!(get(slave, "/metrics").await.starts_with("HTTP/1.1 404 "));
    assert!(get(admin, "/metrics").await.contains("wellhead_build_info"));
    running.stop(Then::End).await;
    for address in all {
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[actix_rt::test]
async fn one_address_serves_both_roles_and_is_free_at_the_end() {
    let mut settings = Settings::default();
    for listen in [&mut settings.standalone.listen, &mut settings.master.admin] {
        *listen = "127.0.0.1:0".to_owned();
    }
    let mut process = NodeProcess::new(settings.into(), Roles::Standalone).unwrap();
    let running = process.bind().await.unwrap().serve().await.unwrap();
    let ListenAddresses { master, slave, admin } = running.addresses;
    assert_eq!(master, slave);
    running.stop(Then::Again).await;
    let running = process.bind().await.unwrap().serve().await.unwrap();
    assert_eq!(running.addresses.slave, slave, "the next node of the process takes the same");
    let (both, admin) = (master.unwrap(), admin.unwrap());
    assert!(get(both, "/readyz").await.ends_with("\r\n\r\nready"));
    assert!(get(both, "/try").await.contains("<!doctype html>"));
    assert!(
        get(both, "/api/ping").await.starts_with("HTTP/1.1 200 ")
            && get(both, "/gcs/ping").await.starts_with("HTTP/1.1 200 ")
    );
    assert!(get(both, "/metrics").await.starts_with("HTTP/1.1 404 "));
    assert!(get(admin, "/metrics").await.contains("role=\"standalone\""));
    running.stop(Then::End).await;
    for address in [both, admin] {
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[test]
fn at_one_address_there_is_room_for_as_many_sockets_as_at_two() {
    let loaded = Settings::default().into();
    let [one, two] = [true, false].map(|one_port| Capacity::new(&loaded, Roles::Standalone, one_port).unwrap());
    assert_eq!(one.sockets, two.sockets);
    assert_eq!(one.clients, two.clients + two.master_http, "no descriptor is kept for a listener that is not there");
    assert!(one.clients - one.sockets >= two.master_http, "sockets leave backends their places");
}

#[test]
fn more_sockets_than_file_descriptors_are_a_bad_setting() {
    let mut settings = Settings::default();
    settings.slave.max_connections = 1 << 40;
    let error = Capacity::new(&settings.into(), Roles::Slave, false).unwrap_err();
    assert!(error.is::<SettingsError>() && error.to_string().contains("file descriptors"), "{error}");
}
