//! Counts in sentences: 1 sample, 2 samples. Units that are symbols (s, min, MB) have no plural.

/// The word for so many.
pub fn plural(count: u64, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// `1 sample`, `2 samples`
pub fn counted(count: u64, one: &'static str, many: &'static str) -> String {
    format!("{count} {}", plural(count, one, many))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_others() {
        let check = |count, expect| assert_eq!(counted(count, "sample", "samples"), expect);
        check(0, "0 samples");
        check(1, "1 sample");
        check(2, "2 samples");
        check(21, "21 samples");
    }
}
