//! `net-pulse token`: prints only the access token on standard output, for a person or a script. It never opens the
//! database.

use super::{database_path, environment};
use crate::config::Config;
use crate::error::Result;
use crate::token;

/// The token for standard output, and a note for standard error.
pub struct TokenOutput {
    pub token: String,
    pub note: Option<String>,
}

/// Reads the token for these settings, or creates it.
pub fn run(flags: &[(&'static str, String)]) -> Result<TokenOutput> {
    let config = Config::new(flags, environment)?;
    let database = database_path(&config)?;
    let file = token::path_for(&database);
    let (token, new) = token::read_or_create(&file)?;
    // A user who leaves out --database, or is not the user of the daemon, may create a token that gives no access.
    // The note warns of that.
    let note = (new && !database.exists()).then(|| {
        format!(
            "this token is new: there is no database at {} yet; if net-pulse uses another database, run this again \
             with the same --database, as the same user or as root",
            database.display()
        )
    });
    Ok(TokenOutput { token: token.text().to_string(), note })
}
