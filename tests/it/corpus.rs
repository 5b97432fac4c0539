//! Runs the saved inputs of the fuzz corpus through the checks of the fuzz targets, with stable Rust.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
mod checks;

/// The files of a directory of `tests/fuzz`, sorted.
fn files_of(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(dir);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn check_corpus(target: &str, check: fn(&[u8])) {
    let inputs = files_of(&format!("corpus/{target}"));
    assert!(!inputs.is_empty(), "the corpus of {target} is empty");
    for input in inputs {
        let bytes = fs::read(&input).expect("a file");
        assert!(catch_unwind(|| check(&bytes)).is_ok(), "{} fails, see above", input.display());
    }
}

/// Defines a test for each target, and the list of targets.
macro_rules! targets {
    ($($target:ident)*) => {
        const TARGETS: &[&str] = &[$(stringify!($target)),*];
        $(
            #[test]
            fn $target() {
                check_corpus(stringify!($target), checks::$target);
            }
        )*
    };
}

targets! { head netlink pack procfs request unpack zone }

#[test]
fn every_fuzz_target_has_its_test() {
    let targets = files_of("fuzz_targets");
    let targets: BTreeSet<&str> = targets.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(targets, TARGETS.iter().copied().collect());
}
