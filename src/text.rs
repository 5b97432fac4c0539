//! Text for people: counts in sentences, and what others have written.

/// So much of what a request, an interface's name or another program says, with nothing in it that moves a terminal's cursor,
/// turns its writing around or begins a line of its own.
pub fn printable(text: &str, most: usize) -> String {
    let plain = |each: char| {
        let turns = matches!(each, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if each.is_control() || turns { '?' } else { each }
    };
    text.chars().take(most).map(plain).collect()
}

/// The word for so many. Units that are symbols (s, min, MB) have no plural.
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
    fn what_others_have_written() {
        let check = |text, expect| assert_eq!(printable(text, 6), expect);
        check("eth0", "eth0");
        check("äöü€", "äöü€");
        check("a\u{1b}[2Jbcd", "a?[2Jb");
        check("a\nb\u{202e}c\u{2066}", "a?b?c?");
        check("", "");
    }

    #[test]
    fn one_and_others() {
        let check = |count, expect| assert_eq!(counted(count, "sample", "samples"), expect);
        check(0, "0 samples");
        check(1, "1 sample");
        check(2, "2 samples");
        check(21, "21 samples");
    }
}
