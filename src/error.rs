//! The one error. It keeps its cause as a value, is given context where the path or the query is known, and becomes text
//! where it is printed.

use std::fmt;
use std::sync::Arc;

/// What a caller may want to tell apart. The exit code and the status code are made of it in `main` and `http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The user typed something that cannot be.
    Usage,
    /// The operating system refused.
    System,
    /// The source of counters cannot be used at all here; another may.
    Unsupported,
    /// One attempt failed; the next may not.
    Transient,
    /// Another instance of this program has the database.
    Taken,
    /// The database, and nothing was lost: the caller keeps what it has and tries again.
    Busy,
    Full,
    Io,
    ReadOnly,
    /// The database file is not one, or is damaged.
    Corrupt,
    /// What is in the database's place is not one of ours: it is left alone.
    Foreign,
    /// The database was written by a newer version.
    Newer,
}

/// Small, because it is part of every result.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: ErrorKind,
    parts: Box<Parts>,
}

/// What is printed, in this order.
#[derive(Clone, Debug)]
struct Parts {
    before: String,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    after: String,
}

/// What an error can be made of: another one, or text.
type Cause = Box<dyn std::error::Error + Send + Sync>;

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `message`: lower case, no full stop, names the thing and the next step.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, parts: Box::new(Parts { before: message.into(), cause: None, after: String::new() }) }
    }

    pub fn caused(kind: ErrorKind, cause: impl Into<Cause>) -> Error {
        let cause = Some(Arc::from(cause.into()));
        Error { kind, parts: Box::new(Parts { before: String::new(), cause, after: String::new() }) }
    }

    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Usage, message)
    }

    pub fn system(what: impl fmt::Display, cause: impl Into<Cause>) -> Error {
        Error::caused(ErrorKind::System, cause).context(what)
    }

    /// What to do about it.
    pub fn next(self, what: impl fmt::Display) -> Error {
        self.within("", format_args!("; {what}"))
    }

    pub fn context(self, what: impl fmt::Display) -> Error {
        self.within(format_args!("{what}: "), "")
    }

    pub fn within(mut self, before: impl fmt::Display, after: impl fmt::Display) -> Error {
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
    fn a_cause_is_a_value_until_it_is_printed() {
        let cause = || io::Error::from_raw_os_error(28);
        let error = Error::system("/a/b", cause()).context("cannot save").next("make room").clone();
        assert_eq!(error.to_string(), format!("cannot save: /a/b: {}; make room", cause()));
        let kept = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(kept.and_then(io::Error::raw_os_error), Some(28));
        let outer = Error::caused(ErrorKind::Foreign, error.clone()).within("this (", "); that");
        assert_eq!(outer.to_string(), format!("this ({error}); that"));
        let inner = outer.source().and_then(|cause| cause.source());
        assert!(inner.is_some_and(|cause| cause.is::<io::Error>()));
    }

    #[test]
    fn without_a_cause_there_is_the_message_alone() {
        let error = Error::usage("wrong").context("--port").next("try 80");
        assert_eq!((error.to_string().as_str(), error.source().is_none()), ("--port: wrong; try 80", true));
    }

    #[test]
    fn a_result_is_no_larger_than_two_words() {
        assert!(size_of::<Result<()>>() <= 2 * size_of::<usize>());
    }
}
