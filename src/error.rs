//! The one error. It is given context where the path or the query is known, and printed once, at the top.

use std::fmt;

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

#[derive(Clone, Debug)]
pub struct Error {
    pub kind: ErrorKind,
    message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `message`: lower case, no full stop, names the thing and the next step.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Usage, message)
    }

    pub fn system(what: impl fmt::Display, cause: impl fmt::Display) -> Error {
        Error::new(ErrorKind::System, format!("{what}: {cause}"))
    }

    /// What to do about it.
    pub fn next(mut self, what: impl fmt::Display) -> Error {
        self.message = format!("{}; {what}", self.message);
        self
    }

    pub fn context(mut self, what: impl fmt::Display) -> Error {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
