//! Finds the known word that a mistyped word probably stands for ("did you mean").

/// Longer words are not compared. No known word has more bytes.
const MAX_BYTES: usize = 24;

/// Returns the known word that differs from `typed` by the fewest typing errors. Leading dashes, the case of letters,
/// `_` for `-` and text after `=` are ignored. The shorter of the two words sets the limit: no error below 3 bytes, one
/// below 8 bytes, else two; here the leading dashes of the known word count. Never returns `typed` itself. `None` where
/// no word is similar enough.
pub fn suggestion<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let normalized = |word: &str| word.trim_start_matches('-').to_ascii_lowercase().replace('_', "-");
    let whole = typed.split('=').next().unwrap_or_default();
    let typed = normalized(whole);
    let compare = |word: &'a str| {
        let allowed = match typed.len().min(word.len()) {
            0..3 => 0,
            3..8 => 1,
            _ => 2,
        };
        let distance = distance(typed.as_bytes(), normalized(word).as_bytes());
        (distance <= allowed).then_some((distance, word))
    };
    let found = known.filter(|word| (1..=MAX_BYTES).contains(&typed.len()) && *word != whole).filter_map(compare);
    found.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// Edit distance: the smallest number of bytes to insert, delete, replace, or swap with the next one (optimal string
/// alignment).
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut table = vec![vec![0; other.len() + 1]; one.len() + 1];
    for a in 0..=one.len() {
        for b in 0..=other.len() {
            if a == 0 || b == 0 {
                table[a][b] = a + b;
                continue;
            }
            let replaced = table[a - 1][b - 1] + usize::from(one[a - 1] != other[b - 1]);
            let mut shortest = replaced.min(table[a - 1][b] + 1).min(table[a][b - 1] + 1);
            if a > 1 && b > 1 && one[a - 1] == other[b - 2] && one[a - 2] == other[b - 1] {
                shortest = shortest.min(table[a - 2][b - 2] + 1);
            }
            table[a][b] = shortest;
        }
    }
    table[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors() {
        let known = [
            "--host",
            "--port",
            "--open",
            "--max-size",
            "--timezone",
            "--database",
            "--help",
            "--flush",
            "token",
            "check",
        ];
        let check = |typed, expect| assert_eq!(suggestion(typed, known.into_iter()), expect, "{typed}");
        check("--prot", Some("--port"));
        check("-port", Some("--port"));
        check("port", Some("--port"));
        check("--Port", Some("--port"));
        check("--ports=80", Some("--port"));
        check("--max_size", Some("--max-size"));
        // Too different, or correct.
        for typed in ["--hello", "--force", "--fresh", "broken", "token", "check"] {
            check(typed, None);
        }
        check("--maxsize=1M", Some("--max-size"));
        check("--time-zone", Some("--timezone"));
        check("--databsae", Some("--database"));
        check("chekc", Some("check"));
        check("--token", Some("token"));
        check("--pr", None);
        check("-p", None);
        check("--", None);
        check("", None);
        check("surplus", None);
        check("ü", None);
        check(&"x".repeat(100_000), None);
    }

    #[test]
    fn edit_distances() {
        let check = |one: &str, other: &str, expect| {
            assert_eq!(distance(one.as_bytes(), other.as_bytes()), expect, "{one} {other}");
            assert_eq!(distance(other.as_bytes(), one.as_bytes()), expect, "{other} {one}");
        };
        check("", "", 0);
        check("port", "port", 0);
        check("prot", "port", 1);
        check("pot", "port", 1);
        check("post", "port", 1);
        check("", "port", 4);
        check("host", "port", 2);
    }
}
