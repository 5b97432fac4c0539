//! Checks rules for the source tree: dependencies run from higher to lower layers only, SQL is in one module, system
//! calls are in few. The checks read the source text. A change that needs an exception must add it to the tables here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The table in ARCHITECTURE.md: top-level modules with their layers, 8 at the top. A module may only use modules on
/// lower layers.
fn map() -> BTreeMap<String, usize> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut map = BTreeMap::new();
    for line in text.lines() {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let Some(layer) = cells.next().and_then(|cell| cell.parse().ok()) else { continue };
        for name in cells.next().expect("modules").split('`').skip(1).step_by(2) {
            let name = name.trim_end_matches(".rs").trim_end_matches('/');
            assert_eq!(map.insert(name.to_string(), layer), None, "{name} is twice in the map");
        }
    }
    assert!(map.len() > 20, "{map:?}");
    map
}

/// Exceptions: allowed dependencies within a layer. If there are many, a new layer is needed.
const SAME_LAYER: [(&str, &str); 2] = [
    // All modules of the lowest layer may use the error type.
    ("model", "error"),
    ("thread", "error"),
];

/// Forbidden dependencies although they run to a lower layer.
const FORBIDDEN: [(&str, &str); 5] =
    [("source", "store"), ("store", "source"), ("http", "source"), ("http", "sampler"), ("http", "store")];

/// Text that only these modules may contain.
const RESERVED: [(&str, &[&str]); 6] = [
    ("rusqlite::", &["store"]),
    ("libc::", &["source", "clock", "app", "main", "system"]),
    // http: sockets. app, subcommands, main: signals, limits, the user id. log: sockets, and poll before a write.
    // token: the owner of its file.
    ("nix::", &["source", "clock", "http", "app", "subcommands", "main", "log", "token", "system"]),
    ("tiny_http::", &["http"]),
    ("serde_json::", &["http", "subcommands"]),
    ("std::process::exit", &["main"]),
];

/// Beginnings of SQL statements.
const SQL: [&str; 9] = [
    "SELECT ",
    "INSERT ",
    "UPDATE ",
    "DELETE FROM",
    "CREATE TABLE",
    "DROP TABLE",
    "PRAGMA ",
    "BEGIN IMMEDIATE",
    "ALTER TABLE",
];

pub struct File {
    /// Relative to `src`, for example `source/linux/mod.rs`.
    pub path: String,
    /// The top-level module that contains the file.
    pub module: String,
    /// The text without comments and without the tests at the bottom.
    pub code: String,
}

pub fn files() -> Vec<File> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &src, &mut files);
    assert!(files.len() > 10, "where is the source?");
    files
}

fn collect(top: &Path, dir: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            collect(top, &path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let path = path.strip_prefix(top).expect("below it").to_str().expect("a plain path").to_string();
            let module = path.split(['/', '.']).next().expect("a name").to_string();
            files.push(File { path, module, code: code_of(&text) });
        }
    }
}

fn code_of(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod ").next().expect("a first part");
    code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect::<Vec<_>>().join("\n")
}

/// The top-level modules that a piece of code names in `use` lines, groups and full paths. `main.rs` uses the crate's
/// name instead of `crate`.
fn named_modules(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for start in ["crate::", "net_pulse::"] {
        for rest in after(code, start) {
            match rest.strip_prefix('{') {
                Some(group) => modules.extend(first_names(group)),
                None => modules.extend(word(rest)),
            }
        }
    }
    modules
}

/// The text after each occurrence of `start` at the beginning of a word: `std::os::unix::fs` does not name `nix::`.
fn after<'a>(code: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
    code.match_indices(start)
        .filter(move |(at, _)| !code[..*at].chars().next_back().is_some_and(is_word))
        .map(move |(at, _)| &code[at + start.len()..])
}

/// The first name of each entry of a `{...}` list.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut at_entry = true;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_entry = true,
            _ if at_entry && !letter.is_whitespace() => {
                names.extend(word(&group[at..]));
                at_entry = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    (!word.is_empty()).then_some(word)
}

fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| ["tests", "tests.rs", "testing.rs"].contains(&part))
}

fn violations(files: &[File]) -> Vec<String> {
    let map = map();
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.module != "lib") {
        let Some(here) = map.get(&file.module) else {
            violations.push(format!("{}: '{}' has no layer", file.path, file.module));
            continue;
        };
        // Tests may use everything.
        let dependencies = if is_test_file(&file.path) { BTreeSet::new() } else { named_modules(&file.code) };
        for other in dependencies.iter().filter(|other| **other != file.module) {
            // A name in the crate's root that is no module: a macro or a re-export.
            let Some(there) = map.get(other) else {
                violations.push(format!("{}: names '{other}', which has no layer", file.path));
                continue;
            };
            let dependency = (file.module.as_str(), other.as_str());
            if FORBIDDEN.contains(&dependency) {
                violations.push(format!("{}: {} must not name {other}", file.path, file.module));
            } else if there >= here && !SAME_LAYER.contains(&dependency) {
                violations.push(format!("{}: {} (layer {here}) names {other} (layer {there})", file.path, file.module));
            }
        }
        for (text, modules) in RESERVED {
            if after(&file.code, text).next().is_some() && !modules.contains(&file.module.as_str()) {
                violations.push(format!("{}: '{text}' belongs to {}", file.path, modules.join(", ")));
            }
        }
        if file.module != "store" {
            for start in SQL.iter().filter(|start| file.code.contains(&format!("\"{start}"))) {
                violations.push(format!("{}: SQL outside store: {start}", file.path));
            }
        }
    }
    violations
}

#[test]
fn modules_use_only_lower_layers() {
    assert_eq!(violations(&files()), Vec::<String>::new());
}

#[test]
fn the_table_lists_exactly_the_modules_that_exist() {
    let modules: BTreeSet<String> =
        files().into_iter().map(|file| file.module).filter(|module| module != "lib").collect();
    assert_eq!(map().into_keys().collect::<BTreeSet<String>>(), modules);
}

/// MIPS, PowerPC and ARMv5 have no 64-bit atomics. `SystemTime::now` panics after 2038 on 32-bit musl, and some routers
/// boot with such a date.
#[test]
fn e51_no_types_that_32_bit_routers_lack() {
    for word in ["AtomicU64", "AtomicI64", "SystemTime"] {
        for file in files() {
            assert_eq!(after(&file.code, word).count(), 0, "{word} in {}", file.path);
        }
    }
    assert_eq!(after("use std::sync::atomic::AtomicU64;", "AtomicU64").count(), 1);
}

/// SQLite is built without these features (`.cargo/config.toml`). It accepts them in the definition of a view, a
/// trigger or a default, and fails when they are used.
#[test]
fn sql_uses_no_feature_that_the_built_in_sqlite_lacks() {
    const MISSING: [&str; 7] = ["json", "strftime(", "datetime(", " date(", "julianday(", "unixepoch(", "USING "];
    let mut sources: Vec<(String, String)> = files().into_iter().map(|file| (file.path, file.code)).collect();
    sources.retain(|(path, _)| path.starts_with("store/"));
    for entry in fs::read_dir("src/store/schema").expect("a directory").map(|entry| entry.expect("an entry").path()) {
        sources.push((entry.display().to_string(), fs::read_to_string(&entry).expect("text")));
    }
    assert!(sources.iter().any(|(path, _)| path.ends_with(".sql")));
    for (path, code) in sources {
        for word in MISSING {
            assert!(!code.contains(word), "{path}: {word}; see .cargo/config.toml");
        }
    }
}

/// Checks the checks: each rule must detect a violation.
#[test]
fn each_kind_of_violation_is_detected() {
    let check = |path: &str, text: &str, expect: &[&str]| {
        let module = path.split(['/', '.']).next().expect("a name").to_string();
        let file = File { path: path.to_string(), module, code: code_of(text) };
        let found = violations(&[file]);
        assert_eq!(found.len(), expect.len(), "{text}: {found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.contains(expect), "{found} does not contain {expect}");
        }
    };
    check("live.rs", "use crate::model::Batch;\nuse crate::clock::Zone;", &[]);
    check("clock/zone.rs", "use crate::live::Live;", &["clock (layer 2) names live (layer 4)"]);
    check("live.rs", "use crate::{model::{Batch, Tick}, http::{Context}};", &["live (layer 4) names http (layer 6)"]);
    check("store/mod.rs", "use crate::source;", &["must not name source"]);
    check("source/linux.rs", "fn f() { crate::store::open() }", &["must not name store"]);
    check("http/api.rs", "use crate::sampler::Step;", &["must not name sampler"]);
    check("http/api.rs", "use crate::store::Reader;", &["must not name store"]);
    check("writer.rs", "use crate::sampler::Step;", &["writer (layer 6) names sampler (layer 6)"]);
    check("writer.rs", "// use crate::sampler::Step;", &[]);
    check("writer.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    use crate::sampler::Step;\n}", &[]);
    check("http/api.rs", "let q = \"SELECT 1\";", &["SQL outside store"]);
    check("store/query.rs", "let q = \"SELECT 1\";", &[]);
    check("store/testing.rs", "use crate::http::Context;", &[]);
    check("http/tests/resolutions.rs", "use crate::store::Store; let q = \"SELECT 1\";", &["SQL outside store"]);
    check("live.rs", "use nix::sys::time;", &["'nix::' belongs to source"]);
    check("store/open.rs", "use std::os::unix::fs::OpenOptionsExt;", &[]);
    check("unknown.rs", "", &["has no layer"]);
    check("main.rs", "use net_pulse::app;", &[]);
    check("counter.rs", "use crate::nowhere::X;", &["names 'nowhere'"]);
}

/// `build.rs` joins the scripts of the first view and the texts they use into one file.
#[test]
fn joined_scripts_have_no_name_in_common() {
    let mut names = std::collections::BTreeMap::new();
    for file in ["texts.js", "format.js", "chart.js", "app.js"] {
        let source = std::fs::read_to_string(format!("www/{file}")).expect("a script");
        for line in source.lines() {
            let line = line.strip_prefix("export ").unwrap_or(line);
            let line = line.strip_prefix("async ").unwrap_or(line);
            let named = ["const ", "let ", "function ", "class "].iter().find_map(|word| line.strip_prefix(word));
            let Some(rest) = named else { continue };
            assert!(
                rest.starts_with(char::is_alphabetic) || rest.starts_with('$'),
                "{file}: declare one name per line: {line}"
            );
            let name = rest.split(|sign: char| !sign.is_alphanumeric() && !"_$".contains(sign)).next().expect("a name");
            if let Some(other) = names.insert(name.to_string(), file) {
                panic!("{name} is in {other} and in {file}");
            }
        }
    }
    assert!(names.len() > 40, "{names:?}");
}

/// Plural nouns that follow a number in messages. Symbols of units (s, min) have no plural.
const COUNTED_NOUNS: [&str; 26] = [
    "addresses",
    "attempts",
    "bytes",
    "characters",
    "connections",
    "days",
    "descriptors",
    "events",
    "faults",
    "files",
    "histories",
    "hours",
    "interfaces",
    "lines",
    "links",
    "minutes",
    "records",
    "requests",
    "rows",
    "samples",
    "seconds",
    "texts",
    "ticks",
    "times",
    "tokens",
    "years",
];

/// Texts whose number is never 1.
const NEVER_ONE: [&str; 9] = [
    // Constants of the program.
    "has more than {MAX_TEXT_BYTES} bytes",
    "{} connections, {} requests at a time",
    "{} requests at a time",
    "commas, together at most {} bytes",
    "up to {most} characters",
    "at most {most} texts",
    // Sizes that are always above 1.
    "has {bytes} bytes",
    "needs {bytes} bytes",
    "{bytes} bytes in {seconds} s are more than a link can carry",
];

/// Messages must not contain "1 samples": a number before a noun needs `text::plural`.
#[test]
fn numbers_before_plural_nouns_use_plural() {
    let of = |code: &str| {
        let (path, module) = ("live/mod.rs".to_string(), "live".to_string());
        unchecked_plurals(&[File { path, module, code: code.to_string() }])
    };
    assert_eq!(
        of("log::warn!(\"{unlogged} wrong access tokens; the last\")"),
        ["live/mod.rs: {unlogged} wrong access tokens"]
    );
    assert_eq!(of("\"for {seconds} s\", \"has {bytes} bytes\""), Vec::<String>::new());
    assert_eq!(unchecked_plurals(&files()), Vec::<String>::new());
}

fn unchecked_plurals(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for File { path, code, .. } in files.iter().filter(|file| !file.path.contains("tests")) {
        for (at, _) in code.match_indices('{') {
            let Some((inner, after)) = code[at + 1..].split_once('}') else { continue };
            if !inner.chars().all(|each| each.is_alphanumeric() || "_.:".contains(each)) || !after.starts_with(' ') {
                continue;
            }
            let end = after.find(|each: char| each != ' ' && !each.is_ascii_lowercase()).unwrap_or(after.len());
            let mut words = after[..end].split_whitespace().take(4);
            let exempt = NEVER_ONE.iter().any(|known| {
                known.match_indices('{').any(|(brace, _)| {
                    at.checked_sub(brace)
                        .and_then(|start| code.get(start..))
                        .is_some_and(|code| code.starts_with(known))
                })
            });
            if words.any(|word| COUNTED_NOUNS.contains(&word)) && !exempt {
                found.push(format!("{path}: {{{inner}}}{}", &after[..end]));
            }
        }
    }
    found
}
