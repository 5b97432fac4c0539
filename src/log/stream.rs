//! Writes lines to standard error without blocking: a full pipe that nothing reads would otherwise stop sampling,
//! saving and the shutdown. O_NONBLOCK is not used, because it applies to the open file description. The shell or
//! supervisor that started net-pulse shares that description, and its writes would fail too. Instead this module calls
//! poll(2) before each write. For a regular file poll always reports room, even when its disk hangs. So the log
//! thread writes to files.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

use super::Line;

/// Bytes that a pipe accepts without blocking when poll(2) reports it writable: PIPE_BUF, which is 4096 on Linux, and
/// at least 512 by POSIX.
const PIPE_BUF: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Lines that standard error did not accept, and that no warning has reported yet.
#[derive(Default)]
pub struct Losses {
    lines: u32,
    /// The newest line in the stream is incomplete: only its beginning was written.
    cut: bool,
}

/// Formats a line for standard error. journald reads the level from a prefix such as `<6>` (sd-daemon(3)).
pub fn format_line(line: &Line, journal: bool) -> String {
    let Line { prefix, text, .. } = line;
    match journal {
        true => format!("<{}>{prefix}{text}\n", line.severity()),
        false => format!("{prefix}{text}\n"),
    }
}

/// Whether the stream is a regular file or a block device, for which poll(2) does not tell whether a write would block.
pub fn is_file(stream: &impl AsFd) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(stream.as_fd()).is_ok_and(|found| [SFlag::S_IFREG, SFlag::S_IFBLK].contains(&kind(found.st_mode)))
}

/// Whether the stream leads to systemd's journal. `journal_stream` is the variable JOURNAL_STREAM: device and inode of
/// the journal's socket, `device:inode` (systemd.exec(5)). They are compared with those of the stream, because child
/// processes inherit the variable even where their standard error leads elsewhere.
pub fn is_journal(journal_stream: Option<&str>, stream: &impl AsFd) -> bool {
    let matches = |text| fstat(stream.as_fd()).is_ok_and(|found| format!("{}:{}", found.st_dev, found.st_ino) == text);
    journal_stream.is_some_and(matches)
}

impl Losses {
    /// Writes a line where there is room, after the warning about lines lost before it; else counts it as lost.
    pub fn write(&mut self, to: &mut (impl Write + AsFd), line: &Line, journal: bool) {
        if self.lines > 0 {
            let line_end = if self.cut { "\n" } else { "" };
            let lost =
                format!("{line_end}{}", format_line(&Line::lost(self.lines, "standard error was full"), journal));
            if write(to, lost.as_bytes(), 0).is_err() {
                self.lines = self.lines.saturating_add(1);
                return;
            }
            *self = Losses::default();
        }
        if let Err(partly_written) = write(to, format_line(line, journal).as_bytes(), 0) {
            *self = Losses { lines: 1, cut: partly_written };
        }
    }
}

/// Writes the text in pieces of at most `PIPE_BUF` bytes, waiting at most `wait_ms` for room before each piece. The
/// error is `true` when a part was written. A closed stream counts as success.
pub fn write(to: &mut (impl Write + AsFd), text: &[u8], wait_ms: u16) -> Result<(), bool> {
    let mut rest = text;
    while !rest.is_empty() {
        let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
        let ready = poll(&mut fds, PollTimeout::from(wait_ms));
        if matches!(ready, Ok(0)) {
            return Err(rest.len() < text.len());
        }
        match to.write(&rest[..rest.len().min(PIPE_BUF)]) {
            Ok(written) if written > 0 => rest = &rest[written..],
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            // The stream is closed for good, and there is no other place to report that.
            _ => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use log::Level;
    use nix::fcntl::OFlag;

    use super::*;

    /// Close-on-exec: child processes of other tests would otherwise keep the pipe open, and reading would never end.
    /// (`io::pipe` needs Rust 1.87.)
    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        (reader.into(), writer.into())
    }

    fn info(text: &str) -> Line {
        Line::new(Level::Info, "", text)
    }

    #[test]
    fn a_full_pipe_loses_lines_and_never_blocks() {
        let (mut reader, mut writer) = pipe();
        let mut losses = Losses::default();
        let long = info(&"x".repeat(1000));
        for _ in 0..200 {
            losses.write(&mut writer, &long, false);
        }
        assert!(losses.lines > 100 && losses.lines < 200, "{}", losses.lines);
        let lost = losses.lines;
        let mut bytes = vec![0; 1001 * (200 - lost as usize)];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 200 - lost as usize, "whole lines");
        losses.write(&mut writer, &info("again"), true);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("<4>warning: {lost} lines were lost: standard error was full\n<6>again\n"));
    }

    #[test]
    fn files_are_distinguished_from_pipes_and_character_devices() {
        let (reader, writer) = pipe();
        assert!(!is_file(&reader) && !is_file(&writer));
        assert!(is_file(&File::open(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_file(&File::open("/dev/null").unwrap()));
    }

    #[test]
    fn the_journal_is_found_by_device_and_inode() {
        let (one, other) = UnixStream::pair().unwrap();
        let device_and_inode =
            |stream: &UnixStream| fstat(stream.as_fd()).map(|it| format!("{}:{}", it.st_dev, it.st_ino)).unwrap();
        assert!(is_journal(Some(&device_and_inode(&one)), &one));
        assert!(!is_journal(Some(&device_and_inode(&other)), &one));
        for text in [None, Some(""), Some("9"), Some(":"), Some("a:b")] {
            assert!(!is_journal(text, &one), "{text:?}");
        }
    }

    #[test]
    fn a_line_larger_than_the_pipe_is_cut_and_gets_its_line_end_later() {
        let (mut reader, mut writer) = pipe();
        let mut losses = Losses::default();
        losses.write(&mut writer, &info(&"x".repeat(1 << 20)), false);
        assert!(losses.cut && losses.lines == 1);
        losses.write(&mut writer, &info("lost"), false);
        assert!(losses.cut && losses.lines == 2);
        reader.read_exact(&mut vec![0; 2 * PIPE_BUF]).unwrap();
        losses.write(&mut writer, &info("written"), false);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.trim_start_matches('x'), "\nwarning: 2 lines were lost: standard error was full\nwritten\n");
    }

    #[test]
    fn lines_for_a_closed_pipe_do_not_count_as_lost() {
        let (reader, mut writer) = pipe();
        drop(reader);
        let mut losses = Losses::default();
        losses.write(&mut writer, &info("unread"), false);
        assert_eq!(losses.lines, 0);
    }
}
