//! The inputs that fuzzing has found worth keeping, through the same checks and without nightly Rust.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
mod checks;

fn below(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(dir);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn every_input_of(target: &str, check: fn(&[u8])) {
    let inputs = below(&format!("corpus/{target}"));
    assert!(!inputs.is_empty(), "the corpus of {target} is empty");
    for input in inputs {
        let bytes = fs::read(&input).expect("a file");
        assert!(catch_unwind(|| check(&bytes)).is_ok(), "{} does not pass, see above", input.display());
    }
}

/// A test for each target, and the list of them.
macro_rules! targets {
    ($($target:ident)*) => {
        const TARGETS: &[&str] = &[$(stringify!($target)),*];
        $(
            #[test]
            fn $target() {
                every_input_of(stringify!($target), checks::$target);
            }
        )*
    };
}

targets! { head netlink pack procfs request unpack zone }

#[test]
fn every_fuzz_target_has_its_test() {
    let targets = below("fuzz_targets");
    let targets: BTreeSet<&str> = targets.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(targets, TARGETS.iter().copied().collect());
}
