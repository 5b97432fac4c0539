//! `net-pulse token`: the access token alone on standard output, for a person or a script. It never opens the history.

use super::{database, environment};
use crate::config::Config;
use crate::error::Result;
use crate::token;

/// What to print, and what else a person should know.
pub struct Said {
    pub token: String,
    pub note: Option<String>,
}

pub fn run(typed: &[(&'static str, String)]) -> Result<Said> {
    let config = Config::new(typed, environment)?;
    let database = database(&config)?;
    let file = token::file(&database);
    let (token, new) = token::read_or_make(&file)?;
    // Asked by the wrong user or without --database, it would otherwise be handed out as though it opened something.
    let note = (new && !database.exists()).then(|| {
        format!(
            "this token is new: there is no history at {} yet; if net-pulse runs with another one, ask with the same \
             --database, as the same user or as root",
            database.display()
        )
    });
    Ok(Said { token: token.text().to_string(), note })
}
