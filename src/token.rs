//! The access token: created once and stored only in its own file beside the database. `Token` has neither `Debug` nor
//! `Display`, so that it cannot get into the log by accident. This module keeps an existing file, even an invalid one.
//! It refuses a file of another user: in a directory such as /tmp any user could otherwise choose the token.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use crate::error::{Error, Result};
use crate::system::with_suffix;

/// Characters of a token. Letters that look like others (i, l, o, u) are left out: people read the token from a
/// terminal and type it into a phone. With 32 characters, each random byte gives five unbiased bits.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of a new token: 28 of 5 bits are 140 bits.
const NEW_TOKEN_CHARS: usize = 28;
/// Limits in bytes for a token that the user wrote into the file. The minimum, 22, is the length of 128 bits in base64:
/// net-pulse accepts the right token even after many wrong ones, so a shorter token could be guessed.
const MIN_BYTES: usize = 22;
const MAX_BYTES: usize = 256;

/// A valid access token.
pub struct Token(String);

impl Token {
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Path of the token file: the database path with `.token` appended, so that two databases never share a token file.
pub fn path_for(database: &Path) -> PathBuf {
    with_suffix(database, ".token")
}

/// Reads the token, or creates the file with a new one. The `bool` is `true` for a new token.
pub fn read_or_create(path: &Path) -> Result<(Token, bool)> {
    if let Some((token, file)) = read_with_file(path)? {
        restrict_mode(path, &file);
        return Ok((token, false));
    }
    create(path).map_err(|cause| file_error(path, cause))?;
    // Read the file again: another process may have created it at the same moment.
    match read(path)? {
        Some(token) => Ok((token, true)),
        None => Err(Error::system(path.display(), "another program removed it right after it was created; try again")),
    }
}

/// Reads the token; `None` when there is no file.
pub fn read(path: &Path) -> Result<Option<Token>> {
    Ok(read_with_file(path)?.map(|(token, _)| token))
}

fn read_with_file(path: &Path) -> Result<Option<(Token, File)>> {
    let (text, file) = match read_text(path) {
        Ok(found) => found,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(file_error(path, cause)),
    };
    let token = text.trim_ascii();
    let valid = (MIN_BYTES..=MAX_BYTES).contains(&token.len()) && token.iter().copied().all(is_token_byte);
    match std::str::from_utf8(token) {
        Ok(token) if valid => Ok(Some((Token(token.to_string()), file))),
        _ => {
            let cause =
                format!("it holds no token (minimum length: {MIN_BYTES}); remove it, and net-pulse creates a new one");
            Err(Error::system(path.display(), cause))
        }
    }
}

/// Identifies a state of the file without reading it: inode, size in bytes, and ctime in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64, u64, i64, i64);

/// Stamp of the file as it is now; `None` when there is no file or stat(2) fails.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some(Stamp(found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

/// The characters of `b64token`, RFC 6750, section 2.1.
fn is_token_byte(letter: u8) -> bool {
    letter.is_ascii_alphanumeric() || b"-._~+/=".contains(&letter)
}

/// Reads the file and keeps it open. A symbolic link is followed (containers mount their secrets as links), but the
/// link and the file must both belong to root, to our user or, if we are root, to the owner of the directory.
fn read_text(path: &Path) -> io::Result<(Vec<u8>, File)> {
    let owners = [Some(0), Some(geteuid().as_raw()), directory_owner(path)];
    let trusted = |found: &fs::Metadata| match owners.contains(&Some(found.uid())) {
        true => Ok(()),
        false => {
            let reason = format!("it belongs to user {}, who knows the token", found.uid());
            Err(io::Error::other(format!("{reason}; remove it, and net-pulse creates a new one")))
        }
    };
    trusted(&fs::symlink_metadata(path)?)?;
    let not_regular = || io::Error::other("it is not a regular file; remove it, and net-pulse creates a token");
    // Check before opening: opening some devices has side effects.
    if !fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    // The file may have been replaced since that check. O_NONBLOCK: opening a FIFO would otherwise wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(not_regular());
    }
    trusted(&found)?;
    let mut text = Vec::new();
    (&file).take(MAX_BYTES as u64 + 2).read_to_end(&mut text)?;
    Ok((text, file))
}

/// For root only: the owner of the token's directory. Root reads the token of a service that runs as another user; that
/// user owns the directory and could replace the file anyway.
fn directory_owner(path: &Path) -> Option<u32> {
    geteuid().is_root().then(|| fs::metadata(directory(path)).ok()).flatten().map(|found| found.uid())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes the access that other users have, for example to a copied or restored file, and warns.
fn restrict_mode(path: &Path, file: &File) {
    let mode = file.metadata().map_or(0, |found| found.permissions().mode() & 0o777);
    if mode & 0o077 == 0 {
        return;
    }
    let access = if mode & 0o022 == 0 { "read" } else { "read or change" };
    match file.set_permissions(fs::Permissions::from_mode(0o600)) {
        Ok(()) => log::warn!(
            "{}: other users could {access} it until now (mode {mode:o}); if one of them may know the token, remove \
             the file and run `net-pulse token`: then the old token is no longer valid",
            path.display()
        ),
        Err(cause) => log::warn!(
            "{}: other users can {access} it (mode {mode:o}), and net-pulse cannot change that: {cause}",
            path.display()
        ),
    }
}

/// Creates the file atomically: writes it under a temporary name, then gives it the final name with link(2). That fails
/// where a file exists already; such a file stays. Only rename(2), used where there are no hard links, would replace
/// it.
fn create(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory(path))?;
    let temporary = with_suffix(path, &format!(".{}", std::process::id()));
    // A killed process with the same process ID may have left a temporary file.
    let _ = fs::remove_file(&temporary);
    let created = write(&temporary, &random_token()?).and_then(|()| match fs::hard_link(&temporary, path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // FAT and some network file systems have no hard links.
        Err(_) => fs::rename(&temporary, path),
        Ok(()) => Ok(()),
    });
    let _ = fs::remove_file(&temporary);
    created
}

fn write(path: &Path, token: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Root may run this before the service has ever run as its own user. Give the file to the owner of the directory,
    // who is that user. Only root may do so; for other users fchown fails, and the file stays theirs.
    let owner = fs::metadata(directory(path))?;
    if owner.uid() != file.metadata()?.uid() {
        let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
    }
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()
}

/// Returns a new random token. `/dev/urandom` never blocks, and router systems seed it before they start services. On
/// kernels before 5.6 `/dev/random` could block the first start of a router for minutes.
fn random_token() -> io::Result<String> {
    let mut bytes = [0; NEW_TOKEN_CHARS];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let letter = |byte: &u8| ALPHABET.get(usize::from(byte & 31)).copied().map_or('0', char::from);
    Ok(bytes.iter().map(letter).collect())
}

/// Names the file, and the next step where permission is denied.
fn file_error(path: &Path, cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::system(path.display(), "permission denied; run this as root, or as the user that net-pulse runs as")
        }
        _ => Error::system(path.display(), cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("net-pulse-token-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Dir(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_token_is_created_once_and_then_read() {
        let dir = Dir::new("once");
        let path = path_for(&dir.0.join("a/net-pulse.db"));
        let (first, new) = read_or_create(&path).unwrap();
        assert!(
            new && first.text().len() == NEW_TOKEN_CHARS && first.text().bytes().all(|byte| ALPHABET.contains(&byte))
        );
        assert_eq!((mode(&path), mode(path.parent().unwrap()) & 0o027), (0o600, 0));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", first.text()));
        let (second, new) = read_or_create(&path).unwrap();
        assert!(!new && second.text() == first.text());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
        assert_ne!(random_token().unwrap(), random_token().unwrap());
    }

    #[test]
    fn the_mode_of_a_file_that_others_can_read_is_restricted() {
        let dir = Dir::new("mode");
        let path = dir.0.join("t");
        fs::write(&path, "0123456789abcdefghjkmn\r\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_or_create(&path).unwrap().0.text(), "0123456789abcdefghjkmn");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_file_without_a_valid_token_is_refused_and_left_unchanged() {
        let dir = Dir::new("wrong");
        let check = |text: &[u8]| {
            let path = dir.0.join("t");
            fs::write(&path, text).unwrap();
            let error = read_or_create(&path).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{}: it holds no token", path.display())), "{error}");
            assert_eq!(fs::read(&path).unwrap(), text);
        };
        check(b"");
        check(b"\n");
        check(b"0123456789abcdefghjkm\n");
        check(b"0123456789abc efghjkmnpqrst\n");
        check(b"0123456789abcdefghjkmn\0");
        check("0123456789abcdefghjkmnöö".as_bytes());
        check(&[b'a'; MAX_BYTES + 1]);
        check(&[0xff; 30]);
        let error = read_or_create(&dir.0).err().unwrap().to_string();
        assert!(error.ends_with("it is not a regular file; remove it, and net-pulse creates a token"), "{error}");
        let missing = read_or_create(&dir.0.join("t/deeper")).err().unwrap().to_string();
        assert!(missing.contains("t/deeper: "), "{missing}");
    }
}
