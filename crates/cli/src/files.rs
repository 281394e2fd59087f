//! Files of the user's that are replaced as a whole.
//!
//! The bytes go to a temporary file beside the path, which is renamed onto it once it is whole, so that
//! a reader sees the old file or the new one. A rename takes the place of whatever is there, so it is
//! done onto a regular file or onto nothing: root's `-o /dev/null` must not cost the machine its
//! device.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::create::{files::reason, mounts::clean};

const TEMPORARY: &str = ".tug-tmp-";
/// As many as the kernel follows in one path.
const LINKS_MAX: usize = 40;
/// Temporary files that others, killed on the way, may have left under our process's number.
const LEFT_MAX: usize = 100;

/// A file on its way to its path. Dropped before [`Whole::place`], it leaves what is there alone.
#[derive(Debug)]
pub struct Whole {
    pub file: fs::File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Whole {
    /// # Errors
    /// The kernel's, and for a path where something else than a regular file is.
    pub fn beside(path: &Path, mode: u32) -> io::Result<Whole> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        check_regular(path)?;
        for left in 0..LEFT_MAX {
            let own = format!("{TEMPORARY}{}-{left}-{name}", std::process::id());
            let temporary = path.with_file_name(own);
            let mut options = fs::OpenOptions::new();
            match options.write(true).create_new(true).mode(mode).open(&temporary) {
                Ok(file) => return Ok(Whole { file, temporary, path: path.to_owned() }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// The kernel's, and when by now something else than a regular file is there.
    pub fn place(self) -> io::Result<()> {
        self.file.sync_all()?;
        check_regular(&self.path)?;
        fs::rename(&self.temporary, &self.path)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        // Placed, it is not there any more; else the first failure is the one to tell.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn check_regular(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(io::Error::other("not a regular file")),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a whole file. A symbolic link stays, and what it leads to is replaced.
///
/// # Errors
/// As those of [`Whole`]; the old file is as it was.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut whole = Whole::beside(&followed(path)?, mode)?;
    io::Write::write_all(&mut whole.file, bytes)?;
    whole.place()
}

/// What a path leads to when it is a symbolic link, even where nothing is there yet.
///
/// # Errors
/// For links in a circle.
pub fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            // No link, or nothing that could be one: whoever opens it gets the kernel's reason.
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::LOOP.into())
}

/// Refuses what is no place for an archive or a report, before anything is asked.
///
/// # Errors
/// In the words of Docker's client.
///
/// Source: moby/sys 0.1 `atomicwriter`, which docker/cli 28.2 and buildx write such files by.
pub fn check_output(path: &str) -> Result<(), String> {
    if let Some((directory, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        let directory = clean(Path::new(directory));
        let refused =
            |why: &str| Err(format!("invalid output path: stat {}: {why}", directory.display()));
        match fs::metadata(&directory) {
            Ok(found) if !found.is_dir() => return refused("not a directory"),
            Ok(_) => {}
            Err(error) => return refused(&reason(&error)),
        }
    }
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(format!("failed to stat output path: lstat {path}: {}", reason(&error)));
        }
    };
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link directly",
        kind if kind.is_fifo() => "a named pipe (FIFO)",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() => "a character device file",
        _ => "a block device file",
    };
    Err(format!("cannot write to {what}"))
}

/// Takes away what an earlier run wrote, so that nothing stale is read after a failure. Devices and
/// the like stay, and are written into.
///
/// # Errors
/// The kernel's, and for a directory.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() || found.is_symlink() => fs::remove_file(path),
        Ok(found) if found.is_dir() => Err(Errno::ISDIR.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether something is a device, which unpacking must not put a file in the place of.
pub fn is_device(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| {
        let kind = found.file_type();
        kind.is_char_device() || kind.is_block_device()
    })
}

/// Whether a file is what [`replace`] left when it was killed.
pub fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let dir = std::env::temp_dir().join(format!("tug-files-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (file, link) = (dir.join("file"), dir.join("link"));
        replace(&file, b"one", 0o600).unwrap();
        symlink("file", &link).unwrap();
        replace(&link, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        fs::remove_dir_all(&dir).unwrap();
        assert!(is_temporary(Path::new("/a/.tug-tmp-1-config.json")));
    }
    fn fifo(path: &Path) {
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::RUSR, 0).unwrap();
    }

    /// Neither a fifo (which needs no root) nor a socket nor a directory may be lost to a rename, not
    /// even at the end of a link.
    #[test]
    fn only_regular_files_are_replaced() {
        let dir = std::env::temp_dir().join(format!("tug-special-{}", std::process::id()));
        fs::create_dir_all(dir.join("dir")).unwrap();
        let at = |name: &str| dir.join(name);
        fifo(&at("fifo"));
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        symlink("fifo", at("link")).unwrap();
        symlink("absent", at("dangling")).unwrap();
        symlink("circle", at("circle")).unwrap();
        for name in ["fifo", "socket", "dir", "link"] {
            let error = replace(&at(name), b"x", 0o600).unwrap_err();
            assert_eq!(error.to_string(), "not a regular file", "{name}");
        }
        assert!(replace(&at("circle"), b"x", 0o600).is_err());
        replace(&at("dangling"), b"x", 0o600).unwrap();
        assert!(at("dangling").is_symlink() && at("absent").is_file());
        // What comes to stand there in between is safe as well.
        let late = Whole::beside(&at("late"), 0o600).unwrap();
        fifo(&at("late"));
        assert!(late.place().is_err());
        assert!(fs::metadata(at("late")).unwrap().file_type().is_fifo());
        assert!(fs::metadata(at("fifo")).unwrap().file_type().is_fifo());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 8, "no temporary file is left");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_place_for_an_archive_is_a_regular_file_or_nothing() {
        let dir = std::env::temp_dir().join(format!("tug-output-{}", std::process::id()));
        fs::create_dir_all(dir.join("dir")).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        symlink("file", dir.join("link")).unwrap();
        fifo(&dir.join("fifo"));
        let check = |name: &str| check_output(&format!("{}/{name}", dir.display()));
        assert_eq!((check("file"), check("new"), check_output("new")), (Ok(()), Ok(()), Ok(())));
        for (name, words) in [
            ("dir", "cannot write to a directory"),
            ("link", "cannot write to a symbolic link directly"),
            ("fifo", "cannot write to a named pipe (FIFO)"),
        ] {
            assert_eq!(check(name).unwrap_err(), words);
        }
        assert_eq!(
            check_output("/dev/full").unwrap_err(),
            "cannot write to a character device file"
        );
        let shown = dir.display();
        let refused = format!("invalid output path: stat {shown}/file: not a directory");
        assert_eq!(check("file/x").unwrap_err(), refused);
        let refused = format!("invalid output path: stat {shown}/no: no such file or directory");
        assert_eq!(check("no/x").unwrap_err(), refused);
        remove_stale(&dir.join("fifo")).unwrap();
        remove_stale(&dir.join("link")).unwrap();
        remove_stale(&dir.join("absent")).unwrap();
        assert!(dir.join("fifo").exists() && dir.join("file").exists());
        assert!(!dir.join("link").is_symlink());
        assert!(remove_stale(&dir.join("dir")).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
