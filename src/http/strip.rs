//! Removes from the page's sources what a browser does not need: comments, indentation, spaces beside punctuation, and
//! line breaks, commas and semicolons without a meaning. Writes `let` for `const`, and joins declarations that follow
//! each other. `build.rs` uses it; here it is compiled only for its tests. It is no parser, so it keeps everything that
//! might matter: names, line breaks that may end a statement, string contents, and everything from a possible regular
//! expression to the end of the line.

/// A space beside one of these means nothing in a script, except between two that would become one: `a - -b`.
const SCRIPT_PUNCTUATION: &str = "=,;:?(){}[]<>&|!*%+-/\"`";
const PLUS_MINUS: &str = "+-";
/// Keywords before a value: a slash behind one begins a regular expression.
const BEFORE_VALUE: [&str; 12] =
    ["return", "case", "typeof", "void", "delete", "in", "of", "yield", "await", "throw", "else", "instanceof"];
/// A line break after a character of `NO_BREAK_AFTER`, or before one of `NO_BREAK_BEFORE`, is never needed to end a
/// statement, so it can go.
const NO_BREAK_AFTER: [char; 6] = ['{', '(', '[', ',', ';', ':'];
const NO_BREAK_BEFORE: [char; 9] = ['}', ')', ']', ',', ';', ':', '?', '.', '&'];
/// Style sheets: characters after which and before which a space can go. A space before a colon has a meaning in a
/// selector.
const SHEET_PUNCTUATION: (&str, &str) = ("{};,:", "{};,");

/// `None` when the source cannot be shortened safely.
pub fn strip(name: &str, source: &str) -> Option<String> {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js") => script(source),
        Some("css") => style_sheet(source),
        Some("html") => Some(lines(source).map(|line| format!("{line}\n")).collect()),
        _ => Some(source.to_string()),
    }
}

fn lines(source: &str) -> impl Iterator<Item = &str> {
    source.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// Expects comments on lines of their own and templates within one line; otherwise returns `None`.
fn script(source: &str) -> Option<String> {
    let mut out = String::new();
    let mut previous = String::new();
    for line in lines(source).filter(|line| !line.starts_with("//")) {
        if line.matches('`').count() % 2 == 1 || line.contains("/*") || line.contains("//") {
            return None;
        }
        let mut stripped = String::new();
        strip_line(line, &mut stripped);
        // `const` only helps the reader; `let` is shorter.
        for (long, short) in [("const ", "let "), ("const{", "let{"), ("const[", "let["), ("for(const", "for(let")] {
            if let Some(rest) = stripped.strip_prefix(long) {
                stripped = format!("{short}{rest}");
            }
        }
        if is_declaration(&previous) && is_declaration(&stripped) {
            out.pop();
            out.push(',');
            out.push_str(stripped["let".len()..].trim_start());
            previous = stripped;
            continue;
        }
        if is_redundant(&previous, &stripped) {
            out.pop();
        }
        // Removes the line break after `}`. Where it ended a statement (`a = {}` before `b()`), the result is a syntax
        // error, never other code.
        let follows = previous == "}" && stripped.starts_with(|first: char| first.is_ascii_lowercase());
        if !out.is_empty() && !follows && !out.ends_with(NO_BREAK_AFTER) && !stripped.starts_with(NO_BREAK_BEFORE) {
            out.push('\n');
        }
        out.push_str(&stripped);
        previous = stripped;
    }
    out.push('\n');
    Some(out)
}

/// Whether the line is one declaration and nothing else.
fn is_declaration(line: &str) -> bool {
    let one = line.strip_suffix(';').filter(|it| !it.contains(';') && balanced(it));
    one.is_some_and(|it| ["let ", "let{", "let["].iter().any(|word| it.starts_with(word)))
}

fn balanced(line: &str) -> bool {
    let count = |ch: char| line.matches(ch).count();
    count('(') == count(')') && count('[') == count(']') && count('{') == count('}')
}

/// Whether the line's last character is redundant before the bracket that begins the next line. A comma is redundant,
/// unless it stands for an empty array element. A semicolon is redundant, unless it is a whole statement:
/// `while (more());`
fn is_redundant(line: &str, next: &str) -> bool {
    let Some(stripped) = line.strip_suffix([',', ';']).filter(|stripped| !stripped.is_empty()) else { return false };
    let plain = !["for(", "while(", "if("].iter().any(|head| stripped.contains(head)) && balanced(stripped);
    match line.ends_with(',') {
        true => next.starts_with(['}', ')', ']']) && !stripped.ends_with([',', '[', '(']),
        false => next.starts_with('}') && (!stripped.ends_with(')') || plain),
    }
}

fn strip_line(line: &str, out: &mut String) {
    let mut rest = line;
    while let Some(ch) = rest.chars().next() {
        let word = out.rsplit(|ch: char| !ch.is_alphanumeric() && !"_$".contains(ch)).next().unwrap_or_default();
        let dividing = !word.is_empty() && !BEFORE_VALUE.contains(&word) || out.ends_with([')', ']']);
        let piece_len = match ch {
            '"' | '`' => quoted_len(rest, ch),
            '/' if !dividing => None,
            '\'' | '\\' => None,
            _ => Some(ch.len_utf8()),
        };
        let (piece, after) = rest.split_at(piece_len.unwrap_or(rest.len()));
        let next = after.chars().next().unwrap_or(' ');
        let last = out.chars().next_back().unwrap_or(' ');
        let beside = SCRIPT_PUNCTUATION.contains(last) || SCRIPT_PUNCTUATION.contains(next);
        if piece != " " || !beside || PLUS_MINUS.contains(last) && PLUS_MINUS.contains(next) {
            out.push_str(piece);
        }
        rest = after;
    }
}

/// Length of a quoted text with its quotes; `None` if its end is uncertain, because it contains quotes, escaped or in a
/// template's `${}`.
fn quoted_len(text: &str, quote: char) -> Option<usize> {
    let inner = text[1..].split(quote).next()?;
    let closed = inner.split("${").skip(1).all(|value| value.contains('}'));
    let plain = closed && !inner.ends_with('\\');
    (plain && text.len() > inner.len() + 1).then_some(inner.len() + 2)
}

fn style_sheet(source: &str) -> Option<String> {
    let mut stripped = String::new();
    let mut rest = source;
    while let Some((previous, comment)) = rest.split_once("/*") {
        stripped.push_str(previous);
        rest = comment.split_once("*/")?.1;
    }
    stripped.push_str(rest);
    let line = lines(&stripped).collect::<Vec<_>>().join(" ");
    let has_quoted_syntax = line.split('"').skip(1).step_by(2).any(|text| text.contains(['{', '}', ';']));
    if has_quoted_syntax || line.contains(['\'', '\\']) {
        return None;
    }
    let mut out = String::new();
    for (at, part) in line.split('"').enumerate() {
        if at > 0 {
            out.push('"');
        }
        let mut rest = part.chars().peekable();
        while let Some(ch) = rest.next() {
            let beside = out.ends_with(|last| SHEET_PUNCTUATION.0.contains(last))
                || rest.peek().is_some_and(|it| SHEET_PUNCTUATION.1.contains(*it));
            if at % 2 == 1 || ch != ' ' || !beside {
                out.push(ch);
            }
        }
    }
    Some(out.replace(";}", "}"))
}

#[cfg(test)]
mod tests {
    use super::strip;

    #[test]
    fn scripts() {
        let check = |source, expect| assert_eq!(strip("a.js", source).as_deref(), expect, "{source}");
        check("// why\n\n  const a = { b: [1, 2] };\n", Some("let a={b:[1,2]};\n"));
        check("a = b - -c + +d - e++ + f;", Some("a=b- -c+ +d-e++ +f;\n"));
        check("return x === null ? \" = \" : -y;", Some("return x===null?\" = \":-y;\n"));
        check("f( \"a\" , \"b\" )", Some("f(\"a\",\"b\")\n"));
        check("a = `${b} = ${c}` + d;", Some("a=`${b} = ${c}`+d;\n"));
        check("a = `${b ? ` , ` : c} , ` + d;", Some("a=`${b ? ` , ` : c} , ` + d;\n"));
        check("a = /x , y/.test(b) ;", Some("a=/x , y/.test(b) ;\n"));
        check("return /x , y/.test(b) ;", Some("return/x , y/.test(b) ;\n"));
        check("a = b.typeof_ / c , d", Some("a=b.typeof_/c,d\n"));
        check("a = `} ${`x , y`} ` ;", Some("a=`} ${`x , y`} ` ;\n"));
        check("a = f(/x , y/) ;", Some("a=f(/x , y/) ;\n"));
        check("a = (b + c) / d[1] / 2 == e", Some("a=(b+c)/d[1]/2==e\n"));
        check("a = \"b / c\" + d == 1", Some("a=\"b / c\"+d==1\n"));
        check("a = \"it's , so\" == b", Some("a=\"it's , so\"==b\n"));
        check("a = 'b , c' == d", Some("a='b , c' == d\n"));
        check("a = \"b \\\" , c\" == d", Some("a=\"b \\\" , c\" == d\n"));
        check("let of = 1; for (const [a] of [b]) async () => {}", Some("let of=1;for(const[a]of[b])async()=>{}\n"));
        check("a\n(b)", Some("a\n(b)\n"));
        check("import { a } from \"b\";\nreturn `c`;", Some("import{a}from\"b\";return`c`;\n"));
        check("f(\n  [a,\n  b,],\n);", Some("f([a,b,]);\n"));
        check("[\n  ,\n]", Some("[,]\n"));
        check("{\n  const a = 1;\n}\nif (a) {\n  b();\n}\nb()", Some("{let a=1}if(a){b()}b()\n"));
        check("for (const a of b) c;\nconstant = 1;", Some("for(let a of b)c;constant=1;\n"));
        check("{\nwhile (a());\n}\n(b)", Some("{while(a());}\n(b)\n"));
        check("{\nwhile (a(\n) + b());\n}\n+b", Some("{while(a()+b());}\n+b\n"));
        check("a = b\n  ? c\n  : d\nc", Some("a=b?c:d\nc\n"));
        check("const a = 1;\nlet b;\nconst { c } = () => d;\ne;", Some("let a=1,b,{c}=()=>d;e;\n"));
        check("const a = () => { b();\n};\nlet c = 1; d();\nlet e;", Some("let a=()=>{b();};let c=1;d();let e;\n"));
        check("a(); // b", None);
        check("a = `b\n  c`", None);
        check("a = 1 /* b */", None);
    }

    #[test]
    fn style_sheets() {
        let check = |source, expect| assert_eq!(strip("a.css", source).as_deref(), expect, "{source}");
        check("/* why */\na b, c :focus {\n  margin: 0 -1px;\n  x: y;\n}\n", Some("a b,c :focus{margin:0 -1px;x:y}"));
        check(
            "@media (min-width: 62rem) { a { width: calc(1px + 2px); } }",
            Some("@media (min-width:62rem){a{width:calc(1px + 2px)}}"),
        );
        check(".rx::before { content: \"↓ , \"; }", Some(".rx::before{content:\"↓ , \"}"));
        check(":not([a=b]) :is(c, d) {}", Some(":not([a=b]) :is(c,d){}"));
        check("a { content: \"c;}\" }", None);
        check("a {} /* b", None);
    }

    #[test]
    fn other_files() {
        assert_eq!(strip("a.html", "<p>\n  a  b\n\n</p>").as_deref(), Some("<p>\na  b\n</p>\n"));
        assert_eq!(strip("a.svg", "<a  />\n").as_deref(), Some("<a  />\n"));
    }
}
