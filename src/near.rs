//! Which word was meant by one that was typed nearly right.

/// No word that is known is longer.
const LONGEST: usize = 24;

/// The known word that is typed like this but for a slip or two, for dashes in front and for the case of letters. Short words
/// are like many others: for these one slip is the most.
pub fn suggestion<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |word: &str| word.trim_start_matches('-').to_ascii_lowercase().replace('_', "-");
    let whole = typed.split('=').next().unwrap_or_default();
    let typed = bare(whole);
    let near = |word: &'a str| {
        let slips = match typed.len().min(word.len()) {
            0..3 => 0,
            3..8 => 1,
            _ => 2,
        };
        let steps = steps(typed.as_bytes(), bare(word).as_bytes());
        (steps <= slips).then_some((steps, word))
    };
    let found = known.filter(|word| (1..=LONGEST).contains(&typed.len()) && *word != whole).filter_map(near);
    found.min_by_key(|(steps, _)| *steps).map(|(_, word)| word)
}

/// How many letters have to be added, left out, replaced, or exchanged with their neighbours.
fn steps(one: &[u8], other: &[u8]) -> usize {
    let mut table = vec![vec![0; other.len() + 1]; one.len() + 1];
    for a in 0..=one.len() {
        for b in 0..=other.len() {
            if a == 0 || b == 0 {
                table[a][b] = a + b;
                continue;
            }
            let replaced = table[a - 1][b - 1] + usize::from(one[a - 1] != other[b - 1]);
            let mut least = replaced.min(table[a - 1][b] + 1).min(table[a][b - 1] + 1);
            if a > 1 && b > 1 && one[a - 1] == other[b - 2] && one[a - 2] == other[b - 1] {
                least = least.min(table[a - 2][b - 2] + 1);
            }
            table[a][b] = least;
        }
    }
    table[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips() {
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
        // Words of their own.
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
    fn steps_between_words() {
        let check = |one: &str, other: &str, expect| {
            assert_eq!(steps(one.as_bytes(), other.as_bytes()), expect, "{one} {other}");
            assert_eq!(steps(other.as_bytes(), one.as_bytes()), expect, "{other} {one}");
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
