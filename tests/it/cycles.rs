//! Checks that source files have no dependency cycles, so that they can be read one after the other. Dependencies are
//! read from `use` lines; those between a directory's `mod.rs` and the files below it are not counted.

use std::collections::{BTreeMap, BTreeSet};

use crate::layers::{File, files};

type Modules = BTreeMap<String, BTreeSet<String>>;

/// The module of a file: `http::gate` for `http/gate/mod.rs`.
fn module(path: &str) -> String {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    path.replace('/', "::")
}

/// The paths of a `use` line, with groups expanded.
fn paths(line: &str) -> Vec<String> {
    let Some((before, group)) = line.split_once('{') else { return vec![line.trim().to_string()] };
    let (group, after) = split_group(group);
    let mut all: Vec<String> = entries(group).iter().flat_map(|entry| paths(&format!("{before}{entry}"))).collect();
    all.extend(Some(after.trim_matches([',', ' '])).filter(|after| !after.is_empty()).map(str::to_string));
    all
}

/// The text before and after the brace that closes a group.
fn split_group(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => return (&text[..at], &text[at + 1..]),
            '}' => depth -= 1,
            _ => {}
        }
    }
    (text, "")
}

/// The entries of a group, separated by commas outside nested groups.
fn entries(group: &str) -> Vec<&str> {
    let (mut all, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    all.push(group[start..].trim());
    all.retain(|entry| !entry.is_empty());
    all
}

/// The path from the crate's root; `None` for a path into another crate.
fn absolute(path: &str, module: &str) -> Option<String> {
    let mut here: Vec<&str> = module.split("::").collect();
    let mut rest = path;
    if let Some(path) = rest.strip_prefix("crate::") {
        return Some(path.to_string());
    }
    rest = rest.strip_prefix("self::").unwrap_or(rest);
    while let Some(path) = rest.strip_prefix("super::") {
        here.pop();
        rest = path;
    }
    (rest != path).then(|| here.iter().copied().chain([rest]).collect::<Vec<_>>().join("::"))
}

/// The modules that each module uses.
fn dependencies(files: &[File]) -> Modules {
    let known: BTreeSet<String> = files.iter().map(|file| module(&file.path)).collect();
    let mut dependencies = Modules::new();
    for file in files {
        let here = module(&file.path);
        let code = file.code.replace('\n', " ");
        let lines = code.split(';').filter_map(|line| Some(line.rsplit_once("use ")?.1));
        for path in lines.flat_map(paths).filter_map(|path| absolute(&path, &here)) {
            let names: Vec<&str> = path.split("::").collect();
            let prefixes = (1..=names.len()).rev().map(|count| names[..count].join("::"));
            let Some(there) = prefixes.into_iter().find(|prefix| known.contains(prefix)) else { continue };
            let is_nested = |one: &str, other: &str| one == other || one.starts_with(&format!("{other}::"));
            if !is_nested(&here, &there) && !is_nested(&there, &here) {
                dependencies.entry(here.clone()).or_default().insert(there);
            }
        }
    }
    dependencies
}

/// The first cycle found, if any.
fn cycle(dependencies: &Modules) -> Option<Vec<String>> {
    fn walk(
        at: &str,
        dependencies: &Modules,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|known| known == at) {
            return Some(path[start..].to_vec());
        }
        if done.contains(at) {
            return None;
        }
        path.push(at.to_string());
        let found = dependencies.get(at).into_iter().flatten().find_map(|next| walk(next, dependencies, path, done));
        path.pop();
        done.insert(at.to_string());
        found
    }
    let mut done = BTreeSet::new();
    dependencies.keys().find_map(|start| walk(start, dependencies, &mut Vec::new(), &mut done))
}

#[test]
fn no_dependency_cycles() {
    let dependencies = dependencies(&files());
    assert!(dependencies.values().map(BTreeSet::len).sum::<usize>() > 150, "{dependencies:?}");
    assert_eq!(cycle(&dependencies), None);
}

#[test]
fn a_cycle_is_detected() {
    let file = |path: &str, code: &str| File {
        path: path.to_string(),
        module: path.split(['/', '.']).next().expect("a name").to_string(),
        code: code.to_string(),
    };
    let check = |files: &[File], expect: Option<&[&str]>| {
        let found = cycle(&dependencies(files));
        assert_eq!(found, expect.map(|names| names.iter().map(|name| name.to_string()).collect::<Vec<_>>()));
    };
    let root = || file("store/mod.rs", "mod open;\npub use open::open;\nuse crate::model::Tick;");
    check(&[root(), file("store/open.rs", "use super::Store;"), file("model.rs", "")], None);
    let open = || file("store/open.rs", "use super::{Store, copy::{self, clear}};");
    check(&[root(), open(), file("store/copy.rs", "use crate::error::Error;")], None);
    check(
        &[
            root(),
            open(),
            file("store/copy.rs", "use super::database_path::DatabaseFile;"),
            file("store/database_path.rs", "use super::open::{A,\n B};"),
        ],
        Some(&["store::copy", "store::database_path", "store::open"]),
    );
}
