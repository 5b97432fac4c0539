//! The tree's own rules: arrows run down the floors, SQL stays in one room, the operating system in few. Read from
//! the source text, so that a change that breaks a rule has to say so here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The map of ARCHITECTURE.md: rooms with their floors, 8 at the top. A room may use rooms on floors below its own, and no
/// others.
fn map() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("the map");
    let mut map = BTreeMap::new();
    for line in text.lines() {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let Some(floor) = cells.next().and_then(|cell| cell.parse().ok()) else { continue };
        for name in cells.next().expect("rooms").split('`').skip(1).step_by(2) {
            let name = name.trim_end_matches(".rs").trim_end_matches('/');
            assert_eq!(map.insert(name.to_string(), floor), None, "{name} is twice in the map");
        }
    }
    assert!(map.len() > 20, "{map:?}");
    map
}

/// Arrows within a floor. Each has its reason; more of them would be a floor of their own.
const NEIGHBOURS: [(&str, &str); 2] = [
    // The lowest floor is what everybody agrees on, and what can go wrong with it.
    ("model", "error"),
    ("thread", "error"),
];

/// Arrows that run down and are forbidden all the same.
const FORBIDDEN: [(&str, &str); 5] =
    [("source", "store"), ("store", "source"), ("http", "source"), ("http", "sampler"), ("http", "store")];

/// A word that may stand in the code of these rooms only.
const RESERVED: [(&str, &[&str]); 6] = [
    ("rusqlite::", &["store"]),
    ("libc::", &["source", "clock", "app", "main", "system"]),
    // The front door owns its sockets; signals are awaited where the threads are made.
    // Commands ask as whom they run, as the wiring does.
    // The log asks whether there is room before it writes, the token whose its file is.
    ("nix::", &["source", "clock", "http", "app", "commands", "main", "log", "token", "system"]),
    ("tiny_http::", &["http"]),
    ("serde_json::", &["http", "commands"]),
    ("std::process::exit", &["main"]),
];

/// What begins a statement of SQL in a string.
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
    /// As in `source/linux.rs`.
    pub path: String,
    pub room: String,
    /// Comments and the tests at the bottom left out.
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
            let room = path.split(['/', '.']).next().expect("a name").to_string();
            files.push(File { path, room, code: code_of(&text) });
        }
    }
}

fn code_of(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod ").next().expect("a first part");
    code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect::<Vec<_>>().join("\n")
}

/// The rooms that a piece of code names, in `use` lines and in full paths, grouped or not. The binary calls the library
/// by the crate's name.
fn named(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for start in ["crate::", "net_pulse::"] {
        for rest in after(code, start) {
            match rest.strip_prefix('{') {
                Some(group) => rooms.extend(first_names(group)),
                None => rooms.extend(word(rest)),
            }
        }
    }
    rooms
}

/// What follows each place where `start` stands as a word of its own: `std::os::unix::fs` does not name `nix::`.
fn after<'a>(code: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let within = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
    code.match_indices(start)
        .filter(move |(at, _)| !code[..*at].chars().next_back().is_some_and(within))
        .map(move |(at, _)| &code[at + start.len()..])
}

/// The first name of each entry of a `{...}` list.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut fresh = true;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if fresh && !letter.is_whitespace() => {
                names.extend(word(&group[at..]));
                fresh = false;
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

fn is_of_tests(path: &str) -> bool {
    path.split('/').any(|part| ["tests", "tests.rs", "testing.rs"].contains(&part))
}

fn faults(files: &[File]) -> Vec<String> {
    let map = map();
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.room != "lib") {
        let Some(here) = map.get(&file.room) else {
            faults.push(format!("{}: '{}' stands on no floor", file.path, file.room));
            continue;
        };
        // Tests look from above.
        let arrows = if is_of_tests(&file.path) { BTreeSet::new() } else { named(&file.code) };
        for other in arrows.iter().filter(|other| **other != file.room) {
            // Names of the crate's root that are no rooms: macros and re-exports.
            let Some(there) = map.get(other) else {
                faults.push(format!("{}: names '{other}', which stands on no floor", file.path));
                continue;
            };
            let arrow = (file.room.as_str(), other.as_str());
            if FORBIDDEN.contains(&arrow) {
                faults.push(format!("{}: {} must not name {other}", file.path, file.room));
            } else if there >= here && !NEIGHBOURS.contains(&arrow) {
                faults.push(format!("{}: {} (floor {here}) names {other} (floor {there})", file.path, file.room));
            }
        }
        for (text, rooms) in RESERVED {
            if after(&file.code, text).next().is_some() && !rooms.contains(&file.room.as_str()) {
                faults.push(format!("{}: '{text}' belongs to {}", file.path, rooms.join(", ")));
            }
        }
        if file.room != "store" {
            for start in SQL.iter().filter(|start| file.code.contains(&format!("\"{start}"))) {
                faults.push(format!("{}: SQL outside store: {start}", file.path));
            }
        }
    }
    faults
}

#[test]
fn arrows_run_down_and_rooms_keep_to_themselves() {
    assert_eq!(faults(&files()), Vec::<String>::new());
}

#[test]
fn the_map_has_no_room_that_is_not_there() {
    let rooms: BTreeSet<String> = files().into_iter().map(|file| file.room).filter(|room| room != "lib").collect();
    assert_eq!(map().into_keys().collect::<BTreeSet<String>>(), rooms);
}

/// MIPS, PowerPC and ARMv5 have no 64-bit atomics; on 32-bit musl `SystemTime::now` panics past 2038, and routers do start
/// there.
#[test]
fn e51_nothing_that_a_32_bit_router_lacks() {
    for word in ["AtomicU64", "AtomicI64", "SystemTime"] {
        for file in files() {
            assert_eq!(after(&file.code, word).count(), 0, "{word} in {}", file.path);
        }
    }
    assert_eq!(after("use std::sync::atomic::AtomicU64;", "AtomicU64").count(), 1);
}

/// SQLite is built without these (`.cargo/config.toml`): it takes them in the definition of a view, a trigger or a default, and
/// fails when they are used.
#[test]
fn no_sql_asks_for_what_the_built_in_sqlite_lacks() {
    const LACKING: [&str; 7] = ["json", "strftime(", "datetime(", " date(", "julianday(", "unixepoch(", "USING "];
    let mut sources: Vec<(String, String)> = files().into_iter().map(|file| (file.path, file.code)).collect();
    sources.retain(|(path, _)| path.starts_with("store/"));
    for entry in fs::read_dir("src/store/schema").expect("a directory").map(|entry| entry.expect("an entry").path()) {
        sources.push((entry.display().to_string(), fs::read_to_string(&entry).expect("text")));
    }
    assert!(sources.iter().any(|(path, _)| path.ends_with(".sql")));
    for (path, code) in sources {
        for word in LACKING {
            assert!(!code.contains(word), "{path}: {word}; see .cargo/config.toml");
        }
    }
}

/// A table of rules that no text can break would be no check.
#[test]
fn each_kind_of_fault_is_seen() {
    let check = |path: &str, text: &str, expect: &[&str]| {
        let room = path.split(['/', '.']).next().expect("a name").to_string();
        let file = File { path: path.to_string(), room, code: code_of(text) };
        let found = faults(&[file]);
        assert_eq!(found.len(), expect.len(), "{text}: {found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.contains(expect), "{found} does not say {expect}");
        }
    };
    check("live.rs", "use crate::model::Batch;\nuse crate::clock::Zone;", &[]);
    check("clock/zone.rs", "use crate::live::Live;", &["clock (floor 2) names live (floor 4)"]);
    check("live.rs", "use crate::{model::{Batch, Tick}, http::{Context}};", &["live (floor 4) names http (floor 6)"]);
    check("store/mod.rs", "use crate::source;", &["must not name source"]);
    check("source/linux.rs", "fn f() { crate::store::open() }", &["must not name store"]);
    check("http/api.rs", "use crate::sampler::Step;", &["must not name sampler"]);
    check("http/api.rs", "use crate::store::Reader;", &["must not name store"]);
    check("writer.rs", "use crate::sampler::Step;", &["writer (floor 6) names sampler (floor 6)"]);
    check("writer.rs", "// use crate::sampler::Step;", &[]);
    check("writer.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    use crate::sampler::Step;\n}", &[]);
    check("http/api.rs", "let q = \"SELECT 1\";", &["SQL outside store"]);
    check("store/query.rs", "let q = \"SELECT 1\";", &[]);
    check("store/testing.rs", "use crate::http::Context;", &[]);
    check("http/tests/levels.rs", "use crate::store::Store; let q = \"SELECT 1\";", &["SQL outside store"]);
    check("live.rs", "use nix::sys::time;", &["'nix::' belongs to source"]);
    check("store/open.rs", "use std::os::unix::fs::OpenOptionsExt;", &[]);
    check("cellar.rs", "", &["stands on no floor"]);
    check("main.rs", "use net_pulse::app;", &[]);
    check("counter.rs", "use crate::nowhere::X;", &["names 'nowhere'"]);
}

/// `build.rs` joins the scripts of the first view into one, with what they take of the texts.
#[test]
fn scripts_that_are_joined_have_no_name_in_common() {
    let mut names = std::collections::BTreeMap::new();
    for file in ["texts.js", "format.js", "chart.js", "app.js"] {
        let source = std::fs::read_to_string(format!("www/{file}")).expect("a script");
        for line in source.lines() {
            let line = line.strip_prefix("export ").unwrap_or(line);
            let line = line.strip_prefix("async ").unwrap_or(line);
            let named = ["const ", "let ", "function ", "class "].iter().find_map(|word| line.strip_prefix(word));
            let Some(rest) = named else { continue };
            assert!(rest.starts_with(char::is_alphabetic) || rest.starts_with('$'), "{file}: one name, please: {line}");
            let name = rest.split(|sign: char| !sign.is_alphanumeric() && !"_$".contains(sign)).next().expect("a name");
            if let Some(other) = names.insert(name.to_string(), file) {
                panic!("{name} is in {other} and in {file}");
            }
        }
    }
    assert!(names.len() > 40, "{names:?}");
}

/// What is counted in sentences. Symbols of units (s, min) have no plural.
const COUNTED: [&str; 26] = [
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

/// Sentences with a number that cannot be one.
const NEVER_ONE: [&str; 8] = [
    // Constants of the program.
    "has more than {LONGEST_TEXT} bytes",
    "{} connections, {} requests at a time",
    "{} requests at a time",
    "commas, {} bytes in all",
    "up to {most} characters",
    "at most {most} texts",
    // More than a page, and more than a link carries.
    "has {bytes} bytes",
    "{bytes} bytes in {seconds} s are more than a link can carry",
];

/// "1 samples": such a sentence takes `plural`.
#[test]
fn no_number_stands_before_a_plural_as_it_comes() {
    let of = |code: &str| {
        let (path, room) = ("live/mod.rs".to_string(), "live".to_string());
        as_they_come(&[File { path, room, code: code.to_string() }])
    };
    assert_eq!(
        of("log::warn!(\"{unsaid} wrong access tokens; the last\")"),
        ["live/mod.rs: {unsaid} wrong access tokens"]
    );
    assert_eq!(of("\"for {seconds} s\", \"has {bytes} bytes\""), Vec::<String>::new());
    assert_eq!(as_they_come(&files()), Vec::<String>::new());
}

fn as_they_come(files: &[File]) -> Vec<String> {
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
            if words.any(|word| COUNTED.contains(&word)) && !exempt {
                found.push(format!("{path}: {{{inner}}}{}", &after[..end]));
            }
        }
    }
    found
}
