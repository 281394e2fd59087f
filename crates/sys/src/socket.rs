//! Unix sockets that carry descriptors, and sockets bound to paths of any length.
//!
//! Descriptors travel by SCM_RIGHTS on the first byte of a write, and arrive close-on-exec. A path
//! too long for `sockaddr_un` (unix(7): 108 bytes) is reached through its directory's descriptor.
//!
//! Invariant: no call raises SIGPIPE, and no descriptor that arrived is ever lost: they all go to
//! the caller's vector, also when the read then fails to parse.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Most descriptors that one message may carry: SCM_MAX_FD of the kernel.
pub const FDS_PER_MESSAGE_MAX: usize = 253;

/// Longest path put into an address directly; `sun_path` has 108 bytes with its final zero.
const PATH_BYTES_MAX: usize = 107;

/// Control space for [`FDS_PER_MESSAGE_MAX`] descriptors: 4 bytes each and one header.
const CONTROL_BYTES: usize = FDS_PER_MESSAGE_MAX * 4 + 64;

/// Sends `bytes` with `fds` on its first byte. Returns how many bytes went; the descriptors went
/// with the first of them, so a caller that continues a short write passes none.
///
/// # Errors
/// As sendmsg(2); `InvalidInput` for more than [`FDS_PER_MESSAGE_MAX`] descriptors.
pub fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if fds.len() > FDS_PER_MESSAGE_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let slices = [IoSlice::new(bytes)];
    Ok(rustix::net::sendmsg(socket, &slices, &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives into `bytes`, appending the descriptors that came along to `fds`. 0 is the end of the
/// stream.
///
/// # Errors
/// As recvmsg(2).
pub fn recv_with_fds(
    socket: impl AsFd,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(bytes)];
    let received =
        rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(received.bytes)
}

/// A listening socket at `path` with exactly `mode`, from the first instant of its life.
///
/// # Errors
/// As bind(2), among them `AddrInUse` for a path that exists.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // unix_bind() of the kernel makes the file with the socket inode's own mode, so that no umask
    // games and no later chmod are needed.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    let (_directory, short) = shorten(path)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&short)?)?;
    rustix::net::listen(&socket, 64)?;
    Ok(UnixListener::from(socket))
}

/// A stream connected to the socket at `path`.
///
/// # Errors
/// As connect(2): `ConnectionRefused` when nobody listens any more, `NotFound` without a file.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_directory, short) = shorten(path)?;
    UnixStream::connect(short)
}

/// The same without ever waiting, here or in later calls: `WouldBlock` when the listener leaves as
/// many others waiting as it may.
///
/// # Errors
/// As [`connect`].
pub fn connect_now(path: &Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let (_directory, short) = shorten(path)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(&short)?)?;
    Ok(UnixStream::from(socket))
}

/// The process at the other end of a connected Unix socket, as it was when it listened or made the
/// pair; `None` for one in a PID namespace that we do not see.
///
/// # Errors
/// As getsockopt(2).
pub fn peer_process(socket: impl AsFd) -> io::Result<Option<rustix::process::Pid>> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: unix(7): SO_PEERCRED stores one ucred, for which `peer` and `length` have room.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rustix::process::Pid::from_raw(peer.pid))
}

/// `path`, or a way to it that fits into an address and lasts as long as the returned descriptor.
fn shorten(path: &Path) -> io::Result<(Option<OwnedFd>, PathBuf)> {
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return Ok((None, path.to_owned()));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((Some(directory), short))
}

/// How many bytes (with the kernel's own overhead) a peer on this host has not read yet; zero on
/// other kinds of sockets than Unix ones, where it could not be told.
///
/// # Errors
/// `EBADF` and its like for what is no socket.
pub fn unread_by_peer(socket: impl AsFd) -> io::Result<usize> {
    let socket = socket.as_fd();
    if rustix::net::sockopt::socket_domain(socket)? != rustix::net::AddressFamily::UNIX {
        return Ok(0);
    }
    let mut count: libc::c_int = 0;
    // SAFETY: unix(7): SIOCOUTQ (TIOCOUTQ) stores one int, and `count` is one that we may write.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_the_peer_has_not_read_is_counted() {
        use std::io::{Read as _, Write as _};
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
        ours.write_all(b"hello").unwrap();
        assert!(unread_by_peer(&ours).unwrap() > 0);
        theirs.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
    }

    #[test]
    fn descriptors_arrive_with_the_bytes_and_close_on_exec() {
        let (left, right) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let fds = [file.as_fd(), left.as_fd()];
        assert_eq!(send_with_fds(&left, b"hello", &fds).unwrap(), 5);
        let (mut bytes, mut got) = ([0; 16], Vec::new());
        assert_eq!(recv_with_fds(&right, &mut bytes, &mut got).unwrap(), 5);
        assert_eq!(got.len(), 2);
        let flags = rustix::io::fcntl_getfd(&got[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_path_too_long_for_an_address_still_works_and_has_its_mode() {
        let root = std::env::temp_dir().join(format!("tug-socket-{}", std::process::id()));
        let deep = root.join("d".repeat(60)).join("e".repeat(60));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("monitor.sock");
        let _listener = listen(&path, 0o600).unwrap();
        connect(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(mode, 0o600);
    }
}
