//! The socket file: who may have it, how it is taken over from a master that died, and who may speak on it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use tokio::net;

/// What the system takes as the path of a socket, without the zero at its end.
const MAX_PATH: usize = 107;

/// Why there is no local bus.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// What was named cannot be the path of a socket.
    #[error("{} is not the path of a socket: {why}; several machines need a NATS server (cluster.bus)", .path.display())]
    NoPath {
        /// What was named.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another master is there.
    #[error("another master owns {}; several masters need a NATS server (cluster.bus)", .path.display())]
    Owned {
        /// The socket.
        path: PathBuf,
    },
    /// The system does not let us.
    #[error("cannot open the local bus at {}: {error}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// The socket file of a master that runs; gone with it.
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    /// Which file it was: another may stand there by now.
    inode: (u64, u64),
    /// Held as long as the socket is ours; the system lets go of it however we end.
    _lock: File,
}

/// Can `path` be a socket?
///
/// # Errors
///
/// It cannot.
pub fn check(path: &Path) -> Result<(), SocketError> {
    let no = |why| Err(SocketError::NoPath { path: path.to_owned(), why });
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() || path.file_name().is_none() || bytes.ends_with(b"/") {
        return no("it names no file");
    }
    if bytes.windows(3).any(|three| three == b"://") {
        return no("it is an address");
    }
    if bytes.contains(&0) {
        return no("it holds a zero byte");
    }
    if bytes.len() > MAX_PATH {
        return no("it has more than 107 bytes, and the system takes no more");
    }
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => no("there is something else"),
        _ => Ok(()),
    }
}

/// Listen on `path`: in a folder that is ours alone if it has to be made, with a file that only we may open.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    check(path)?;
    let owned = || SocketError::Owned { path: path.to_owned() };
    let io = |error| SocketError::Io { path: path.to_owned(), error };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    }
    // two masters that start at once would both find a stale file, and the later would remove the socket of the earlier
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock_path).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(owned()),
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    match UnixStream::connect(path) {
        // one that does not know of the lock
        Ok(_) => return Err(owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io)?,
        Err(error) => return Err(io(error)),
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io)?;
    listener.set_nonblocking(true).map_err(io)?;
    let metadata = fs::symlink_metadata(path).map_err(io)?;
    let inode = (metadata.dev(), metadata.ino());
    Ok((listener, SocketFile { path: path.to_owned(), inode, _lock: lock }))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // the lock file stays: whoever waited for it could hold a file that nobody else can see
        if fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Is the other side ourselves, or root?
pub(super) fn is_one_of_us(stream: &net::UnixStream) -> io::Result<bool> {
    let peer = stream.peer_cred()?.uid();
    Ok(peer == 0 || peer == our_uid()?)
}

/// The user of this process. The standard library does not say; the credentials of a socket pair, which has this process at
/// both ends, do.
fn our_uid() -> io::Result<u32> {
    let (stream, _other) = net::UnixStream::pair()?;
    Ok(stream.peer_cred()?.uid())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    /// A folder of this test, removed at its end.
    struct SocketFolder(PathBuf);

    impl SocketFolder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("wellhead-socket-{}-{name}", std::process::id()));
            Self(path)
        }
    }

    impl Drop for SocketFolder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_we_may_open_the_socket_and_its_folder() {
        let folder = SocketFolder::new("mode");
        let path = folder.0.join("deep/bus.sock");
        let (_listener, file) = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_second_master_is_refused_and_a_dead_one_replaced() {
        let folder = SocketFolder::new("owned");
        let path = folder.0.join("bus.sock");
        let first = bind(&path).unwrap();
        let error = bind(&path).err().expect("it has an owner");
        assert!(matches!(error, SocketError::Owned { .. }) && error.to_string().contains("NATS"), "{error}");

        // as after a SIGKILL: the lock goes, the file stays
        let (listener, file) = first;
        drop(listener);
        let stale = folder.0.join("moved");
        fs::rename(&path, &stale).unwrap();
        drop(file);
        fs::rename(&stale, &path).unwrap();
        let (_listener, file) = bind(&path).unwrap();
        assert!(path.exists());

        // a file that is no longer ours is left alone
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn one_that_listens_without_the_lock_is_an_owner_too() {
        let folder = SocketFolder::new("foreign");
        fs::create_dir_all(&folder.0).unwrap();
        let path = folder.0.join("bus.sock");
        let _foreign = UnixListener::bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketError::Owned { .. })));
        assert!(path.exists());
    }

    #[test]
    fn what_cannot_be_a_socket_is_told() {
        let long = format!("/tmp/{}", "x".repeat(103));
        for path in ["", "/", "run/", "..", "nats://127.0.0.1:4222", "a\0b", &long] {
            let error = bind(Path::new(path)).err().expect("no path of a socket");
            assert!(matches!(error, SocketError::NoPath { .. }) && error.to_string().contains("NATS"), "{error}");
        }
        assert_eq!(long.len(), MAX_PATH + 1);
        let folder = SocketFolder::new("else");
        fs::create_dir_all(&folder.0).unwrap();
        let file = folder.0.join("data");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(bind(&file), Err(SocketError::NoPath { .. })));
        assert!(matches!(bind(&folder.0), Err(SocketError::NoPath { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        assert_eq!(file.file_name(), Some(OsStr::new("data")));
    }

    #[tokio::test]
    async fn we_are_one_of_us() {
        let (one, _other) = net::UnixStream::pair().unwrap();
        assert!(is_one_of_us(&one).unwrap());
    }
}
