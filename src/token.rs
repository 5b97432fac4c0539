//! The access token: made once, kept in a file of its own beside the database and nowhere else. It has neither `Debug`
//! nor `Display`, so that no line of the log gets it by accident. It refuses to replace a file that is already there, and
//! to take one that somebody else has put there: in a directory like /tmp anybody could choose the token.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use crate::error::{Error, Result};
use crate::system::beside;

/// Without the letters that are taken for others: it is read from a terminal and typed into a phone. 32 of them, so that
/// each byte of the random source gives five bits without a bias.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 140 bits.
const LENGTH: usize = 28;
/// Somebody may write a token of their own into the file; 22 letters are what 128 bits take in base64. Guessing is
/// not made slower, so that a shorter one would be no secret.
const SHORTEST: usize = 22;
const LONGEST: usize = 256;

pub struct Token(String);

impl Token {
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Beside the database. Appended, so that no database is called the same.
pub fn file(database: &Path) -> PathBuf {
    beside(database, ".token")
}

/// The token of a file that is there, or a new one; and whether it is new.
pub fn read_or_make(path: &Path) -> Result<(Token, bool)> {
    if let Some((token, file)) = look(path)? {
        tighten(path, &file);
        return Ok((token, false));
    }
    make(path).map_err(|cause| blame(path, cause))?;
    // Whoever else makes one at this moment may have been first.
    match read(path)? {
        Some(token) => Ok((token, true)),
        None => Err(Error::system(path.display(), "it was removed while it was being made; try again")),
    }
}

/// `None` when there is no file.
pub fn read(path: &Path) -> Result<Option<Token>> {
    Ok(look(path)?.map(|(token, _)| token))
}

fn look(path: &Path) -> Result<Option<(Token, File)>> {
    let (text, file) = match read_text(path) {
        Ok(found) => found,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(blame(path, cause)),
    };
    let token = text.trim_ascii();
    let sound = (SHORTEST..=LONGEST).contains(&token.len()) && token.iter().copied().all(is_token_letter);
    match std::str::from_utf8(token) {
        Ok(token) if sound => Ok(Some((Token(token.to_string()), file))),
        _ => {
            let what = format!("it holds no token of {SHORTEST} letters or more; remove it, and a new one is made");
            Err(Error::system(path.display(), what))
        }
    }
}

/// Tells one state of the file from another without reading it: its inode, its size, and when it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64, u64, i64, i64);

/// `None` when there is no file, or none that can be looked at.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some(Stamp(found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

/// RFC 6750, 2.1.
fn is_token_letter(letter: u8) -> bool {
    letter.is_ascii_alphanumeric() || b"-._~+/=".contains(&letter)
}

/// A link may lead elsewhere (secrets of containers are such), but the link and the file have to be from whom we trust.
fn read_text(path: &Path) -> io::Result<(Vec<u8>, File)> {
    let owners = [Some(0), Some(geteuid().as_raw()), patron(path)];
    let trusted = |found: &fs::Metadata| match owners.contains(&Some(found.uid())) {
        true => Ok(()),
        false => {
            let whose = format!("it belongs to user {}, who knows what it says", found.uid());
            Err(io::Error::other(format!("{whose}; remove it, and a new one is made")))
        }
    };
    trusted(&fs::symlink_metadata(path)?)?;
    let no_file = || io::Error::other("it is no file; remove it, and a token is made");
    // Opening some devices does things.
    if !fs::metadata(path)?.is_file() {
        return Err(no_file());
    }
    // What it was a moment ago it need not be now, and opening a pipe would wait for whoever writes into it.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(no_file());
    }
    trusted(&found)?;
    let mut text = Vec::new();
    (&file).take(LONGEST as u64 + 2).read_to_end(&mut text)?;
    Ok((text, file))
}

/// Root asks for the token of a service that runs as another user, and has perhaps made it for that one: whoever the
/// directory belongs to. That user can do as they like there anyway.
fn patron(path: &Path) -> Option<u32> {
    geteuid().is_root().then(|| fs::metadata(directory(path)).ok()).flatten().map(|found| found.uid())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What a copy or a restored backup has opened to others.
fn tighten(path: &Path, file: &File) {
    let mode = file.metadata().map_or(0, |found| found.permissions().mode() & 0o777);
    if mode & 0o077 == 0 {
        return;
    }
    let what = if mode & 0o022 == 0 { "read" } else { "read or change" };
    match file.set_permissions(fs::Permissions::from_mode(0o600)) {
        Ok(()) => log::warn!(
            "{}: others could {what} it until now (mode {mode:o}); if somebody may have, remove it and run `net-pulse \
             token`: the old token is worth nothing from then on",
            path.display()
        ),
        Err(cause) => log::warn!("{}: others can {what} it (mode {mode:o}): {cause}", path.display()),
    }
}

/// Whole or not at all: it is written under another name and then linked, which fails where there is a file already.
fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory(path))?;
    let fresh = beside(path, &format!(".{}", std::process::id()));
    // Left by a process that had our number and was killed.
    let _ = fs::remove_file(&fresh);
    let made = write(&fresh, &random()?).and_then(|()| match fs::hard_link(&fresh, path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // FAT and some network file systems have no links.
        Err(_) => fs::rename(&fresh, path),
        Ok(()) => Ok(()),
    });
    let _ = fs::remove_file(&fresh);
    made
}

fn write(path: &Path, token: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // When root asks before the service's own user has ever run, the file has to be that user's, whom the directory
    // belongs to. Anybody else is refused, and has made the file for themselves.
    let owner = fs::metadata(directory(path))?;
    if owner.uid() != file.metadata()?.uid() {
        let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
    }
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()
}

/// A router that starts for the first time has little that is random; every system of theirs seeds this device before
/// it starts services, and `/dev/random` would stop the start for minutes on kernels before 5.6.
fn random() -> io::Result<String> {
    let mut bytes = [0; LENGTH];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let letter = |byte: &u8| LETTERS.get(usize::from(byte & 31)).copied().map_or('0', char::from);
    Ok(bytes.iter().map(letter).collect())
}

fn blame(path: &Path, cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::system(path.display(), "permission denied; ask as root, or as the user that net-pulse runs as")
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
    fn made_once_and_read_ever_after() {
        let dir = Dir::new("once");
        let path = file(&dir.0.join("a/net-pulse.db"));
        let (first, new) = read_or_make(&path).unwrap();
        assert!(new && first.text().len() == LENGTH && first.text().bytes().all(|byte| LETTERS.contains(&byte)));
        assert_eq!((mode(&path), mode(path.parent().unwrap()) & 0o027), (0o600, 0));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", first.text()));
        let (second, new) = read_or_make(&path).unwrap();
        assert!(!new && second.text() == first.text());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
        assert_ne!(random().unwrap(), random().unwrap());
    }

    #[test]
    fn a_file_that_others_could_read_is_closed_to_them() {
        let dir = Dir::new("mode");
        let path = dir.0.join("t");
        fs::write(&path, "0123456789abcdefghjkmn\r\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_or_make(&path).unwrap().0.text(), "0123456789abcdefghjkmn");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_is_no_token_is_named_and_left_alone() {
        let dir = Dir::new("wrong");
        let check = |text: &[u8]| {
            let path = dir.0.join("t");
            fs::write(&path, text).unwrap();
            let error = read_or_make(&path).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{}: it holds no token", path.display())), "{error}");
            assert_eq!(fs::read(&path).unwrap(), text);
        };
        check(b"");
        check(b"\n");
        check(b"0123456789abcdefghjkm\n");
        check(b"0123456789abc efghjkmnpqrst\n");
        check(b"0123456789abcdefghjkmn\0");
        check("0123456789abcdefghjkmnöö".as_bytes());
        check(&[b'a'; LONGEST + 1]);
        check(&[0xff; 30]);
        let error = read_or_make(&dir.0).err().unwrap().to_string();
        assert!(error.ends_with("it is no file; remove it, and a token is made"), "{error}");
        let missing = read_or_make(&dir.0.join("t/deeper")).err().unwrap().to_string();
        assert!(missing.contains("t/deeper: "), "{missing}");
    }
}
