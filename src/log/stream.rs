//! Standard error: written to as far as there is room, and never waited for. A pipe that is not read would otherwise stop
//! sampling, saving and ending. O_NONBLOCK would be the usual way, but it belongs to the open file, which is shared with
//! the shell or supervisor that started this, and would make their writes fail. So it asks before each write. A file on a
//! disk that hangs always says that there is room.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

use super::Line;

/// What a pipe that is writable takes at once: POSIX promises 512 bytes, Linux a page.
const PIPE_BUF: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// What standard error has not taken.
#[derive(Default)]
pub struct Losses {
    lines: u32,
    /// It took the beginning of a line and not its end.
    cut: bool,
}

/// journald takes the level from the beginning of a line.
pub fn text(line: &Line, journal: bool) -> String {
    let Line { word, text, .. } = line;
    match journal {
        true => format!("<{}>{word}{text}\n", line.severity()),
        false => format!("{word}{text}\n"),
    }
}

pub fn is_file(stream: &impl AsFd) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(stream.as_fd()).is_ok_and(|found| [SFlag::S_IFREG, SFlag::S_IFBLK].contains(&kind(found.st_mode)))
}

/// systemd tells by device and inode what leads to its journal. Children inherit what it told, and their standard error may
/// lead elsewhere.
pub fn is_journal(told: Option<&str>, stream: &impl AsFd) -> bool {
    let is = |told| fstat(stream.as_fd()).is_ok_and(|found| format!("{}:{}", found.st_dev, found.st_ino) == told);
    told.is_some_and(is)
}

impl Losses {
    pub fn write(&mut self, to: &mut (impl Write + AsFd), line: &Line, journal: bool) {
        if self.lines > 0 {
            let end = if self.cut { "\n" } else { "" };
            let lost = format!("{end}{}", text(&Line::of_losses(self.lines, "standard error was full"), journal));
            if write(to, lost.as_bytes(), 0).is_err() {
                self.lines = self.lines.saturating_add(1);
                return;
            }
            *self = Losses::default();
        }
        if let Err(begun) = write(to, text(line, journal).as_bytes(), 0) {
            *self = Losses { lines: 1, cut: begun };
        }
    }
}

/// All of it, in pieces for which there is room: a pipe that is writable takes PIPE_BUF bytes at once. The error says
/// whether a part is written.
pub fn write(to: &mut (impl Write + AsFd), text: &[u8], wait_ms: u16) -> Result<(), bool> {
    let mut rest = text;
    while !rest.is_empty() {
        let mut asked = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
        let there = poll(&mut asked, PollTimeout::from(wait_ms));
        if matches!(there, Ok(0)) {
            return Err(rest.len() < text.len());
        }
        match to.write(&rest[..rest.len().min(PIPE_BUF)]) {
            Ok(written) if written > 0 => rest = &rest[written..],
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            // It is gone for good: nowhere left to complain to.
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

    /// Not inherited by what other tests start: it would never be at its end. (`io::pipe` takes Rust 1.87.)
    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        (reader.into(), writer.into())
    }

    fn info(text: &str) -> Line {
        Line::new(Level::Info, "", text)
    }

    #[test]
    fn a_full_pipe_costs_lines_and_no_time() {
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
    fn what_is_a_file() {
        let (reader, writer) = pipe();
        assert!(!is_file(&reader) && !is_file(&writer));
        assert!(is_file(&File::open(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_file(&File::open("/dev/null").unwrap()));
    }

    #[test]
    fn what_leads_to_the_journal() {
        let (one, other) = UnixStream::pair().unwrap();
        let told =
            |stream: &UnixStream| fstat(stream.as_fd()).map(|it| format!("{}:{}", it.st_dev, it.st_ino)).unwrap();
        assert!(is_journal(Some(&told(&one)), &one));
        assert!(!is_journal(Some(&told(&other)), &one));
        for told in [None, Some(""), Some("9"), Some(":"), Some("a:b")] {
            assert!(!is_journal(told, &one), "{told:?}");
        }
    }

    #[test]
    fn a_line_larger_than_the_pipe_is_cut_and_ended() {
        let (mut reader, mut writer) = pipe();
        let mut losses = Losses::default();
        losses.write(&mut writer, &info(&"x".repeat(1 << 20)), false);
        assert!(losses.cut && losses.lines == 1);
        losses.write(&mut writer, &info("unheard"), false);
        assert!(losses.cut && losses.lines == 2);
        reader.read_exact(&mut vec![0; 2 * PIPE_BUF]).unwrap();
        losses.write(&mut writer, &info("heard"), false);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.trim_start_matches('x'), "\nwarning: 2 lines were lost: standard error was full\nheard\n");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_loss_to_tell_of() {
        let (reader, mut writer) = pipe();
        drop(reader);
        let mut losses = Losses::default();
        losses.write(&mut writer, &info("nobody"), false);
        assert_eq!(losses.lines, 0);
    }
}
