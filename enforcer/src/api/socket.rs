//! Making the Unix socket.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_fd, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, chown};
use tokio::net::UnixListener;

use super::{Access, Error};

/// Makes the socket of the API: 0600, or 0660 with the group of the readers.
///
/// The socket of a dead instance is replaced; a live one is left alone. To be called inside a tokio runtime.
pub fn bind(path: &Path, access: &Access) -> Result<UnixListener, Error> {
    let failed = |operation: &'static str| {
        move |source: io::Error| Error::Bind { operation, path: path.to_owned(), source }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
    }
    make_room(path)?;
    let listener = listen_on(path).map_err(|errno| match errno {
        // Somebody was quicker than we since `make_room`.
        nix::errno::Errno::EADDRINUSE => Error::InUse { socket: path.to_owned() },
        errno => failed("bind")(errno.into()),
    })?;
    if let Some(group) = access.readers {
        // The group first: until the mode follows, nobody new can connect.
        chown(path, None, Some(Gid::from_raw(group)))
            .map_err(|errno| failed("give to the group")(errno.into()))?;
        let mode = std::fs::Permissions::from_mode(0o660);
        std::fs::set_permissions(path, mode).map_err(failed("set the mode of"))?;
    }
    listener.set_nonblocking(true).map_err(failed("set up"))?;
    UnixListener::from_std(listener).map_err(failed("set up"))
}

/// Removes the socket of a dead instance.
fn make_room(path: &Path) -> Result<(), Error> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Bind { operation: "look at", path: path.to_owned(), source }),
    };
    if !found.file_type().is_socket() {
        return Err(Error::NotASocket { socket: path.to_owned() });
    }
    match StdStream::connect(path) {
        // Nobody has it open any more: connections to it can only fail.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Error::Permission { socket: path.to_owned() });
        }
        // It answers, or its queue is full, which only a live one's can be.
        _ => return Err(Error::InUse { socket: path.to_owned() }),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Bind { operation: "remove the dead socket", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// The mode is set on the socket before it has a name: Linux gives the file the mode of the socket's inode, so there
/// is no moment in which others could connect, whatever the umask.
fn listen_on(path: &Path) -> nix::Result<StdListener> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind_fd(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(StdListener::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access { owner: nix::unistd::Uid::effective().as_raw(), readers: None }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/enforcer.sock");
        let first = bind(&path, &access()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = bind(&path, &access()).unwrap_err();
        assert!(error.to_string().starts_with("socket in use: another enforcer answers on "), "{error}");
        drop(first);
        assert!(path.exists(), "a dead instance leaves its socket behind");
        bind(&path, &access()).unwrap();
    }

    #[tokio::test]
    async fn a_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enforcer.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, &access()), Err(Error::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn readers_get_their_group_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enforcer.sock");
        let group = nix::unistd::Gid::effective().as_raw();
        let _listener = bind(&path, &Access { readers: Some(group), ..access() }).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    }
}
