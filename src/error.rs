//! The error type of the whole program: a kind, the cause as a value, and text before and after it. Code that knows the
//! path or the query adds it as context. The error becomes text only when it is printed.

use std::fmt;
use std::sync::Arc;

/// Kind of an error. Callers treat each kind differently: `main` derives the exit code from it, `http` the status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line or a setting is wrong.
    Usage,
    /// A call to the operating system failed. Also for errors that no other kind describes.
    System,
    /// This source of counters does not work on this system; another source may.
    Unsupported,
    /// One attempt failed; the next may succeed.
    Transient,
    /// Another net-pulse process uses the database.
    Taken,
    /// The database is locked. As with `Full`, `Io` and `ReadOnly`, nothing is lost: the caller keeps its data and
    /// tries again.
    Busy,
    /// The disk is full.
    Full,
    /// Reading or writing the database failed.
    Io,
    /// The database cannot be written.
    ReadOnly,
    /// The database is damaged, or another program has overwritten it while it was open.
    Corrupt,
    /// The file at the database path is not a database of net-pulse, another program has changed it, or something else
    /// has the name of a file that net-pulse needs. Net-pulse leaves the file unchanged.
    Foreign,
    /// A newer version of net-pulse wrote the database.
    Newer,
}

/// An error of net-pulse. It has only two machine words, because every `Result` contains one; the rest is boxed.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: ErrorKind,
    parts: Box<Parts>,
}

/// The error is printed as `before`, `cause`, `after`.
#[derive(Clone, Debug)]
struct Parts {
    before: String,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    after: String,
}

/// The cause of an error: another error, or text.
type Cause = Box<dyn std::error::Error + Send + Sync>;

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `message`: lower case, no full stop; it names the thing and the next step.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, parts: Box::new(Parts { before: message.into(), cause: None, after: String::new() }) }
    }

    /// An error whose text is that of its cause.
    pub fn caused(kind: ErrorKind, cause: impl Into<Cause>) -> Error {
        let cause = Some(Arc::from(cause.into()));
        Error { kind, parts: Box::new(Parts { before: String::new(), cause, after: String::new() }) }
    }

    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Usage, message)
    }

    /// `what: cause`, of kind `System`. `what` is the path, address or action that failed.
    pub fn system(what: impl fmt::Display, cause: impl Into<Cause>) -> Error {
        Error::caused(ErrorKind::System, cause).context(what)
    }

    /// Appends `; hint`: the next step for the user.
    pub fn with_hint(self, hint: impl fmt::Display) -> Error {
        self.wrap("", format_args!("; {hint}"))
    }

    /// Prepends `what: `.
    pub fn context(self, what: impl fmt::Display) -> Error {
        self.wrap(format_args!("{what}: "), "")
    }

    /// Adds text before and after.
    pub fn wrap(mut self, before: impl fmt::Display, after: impl fmt::Display) -> Error {
        let parts = &mut *self.parts;
        parts.before = format!("{before}{}", parts.before);
        parts.after = format!("{}{after}", parts.after);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { before, cause, after } = &*self.parts;
        out.write_str(before)?;
        cause.as_ref().map_or(Ok(()), |cause| cause.fmt(out))?;
        out.write_str(after)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.parts.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;
    use std::io;

    #[test]
    fn the_cause_stays_a_value_that_can_be_downcast() {
        let cause = || io::Error::from_raw_os_error(28);
        let error = Error::system("/a/b", cause()).context("cannot save").with_hint("make room").clone();
        assert_eq!(error.to_string(), format!("cannot save: /a/b: {}; make room", cause()));
        let kept = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(kept.and_then(io::Error::raw_os_error), Some(28));
        let outer = Error::caused(ErrorKind::Foreign, error.clone()).wrap("this (", "); that");
        assert_eq!(outer.to_string(), format!("this ({error}); that"));
        let inner = outer.source().and_then(|cause| cause.source());
        assert!(inner.is_some_and(|cause| cause.is::<io::Error>()));
    }

    #[test]
    fn an_error_without_a_cause_is_its_message() {
        let error = Error::usage("wrong").context("--port").with_hint("try 80");
        assert_eq!((error.to_string().as_str(), error.source().is_none()), ("--port: wrong; try 80", true));
    }

    #[test]
    fn a_result_is_no_larger_than_two_words() {
        assert!(size_of::<Result<()>>() <= 2 * size_of::<usize>());
    }
}
