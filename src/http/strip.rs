//! What of the page's sources a browser does not need: comments, indentation and spaces beside punctuation. Used by
//! `build.rs`, and compiled here only to be tested. It knows no grammar, so it keeps whatever it is not sure of: names,
//! line breaks that may end a statement, all inside of strings, and from what may be a regular expression to the end of
//! its line.

/// Beside these a space means nothing in a script, unless two signs would become one: `a - -b`.
const SCRIPT: &str = "=,;:?(){}[]<>&|!*%+-/\"`";
const SIGNS: &str = "+-";
/// Words that a value follows: a slash behind them begins a regular expression.
const BEFORE_VALUE: [&str; 12] =
    ["return", "case", "typeof", "void", "delete", "in", "of", "yield", "await", "throw", "else", "instanceof"];
/// After the first and before the second a statement does not end, or has ended already, with or without the line.
const OPEN: [char; 6] = ['{', '(', '[', ',', ';', ':'];
const CLOSE: [char; 9] = ['}', ')', ']', ',', ';', ':', '?', '.', '&'];
/// In a selector a space before a colon means something.
const SHEET: (&str, &str) = ("{};,:", "{};,");

/// `None` when it is written in a way that could not be cut safely.
pub fn strip(name: &str, source: &str) -> Option<String> {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js") => script(source),
        Some("css") => sheet(source),
        Some("html") => Some(lines(source).map(|line| format!("{line}\n")).collect()),
        _ => Some(source.to_string()),
    }
}

fn lines(source: &str) -> impl Iterator<Item = &str> {
    source.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// Comments are whole lines, and no template goes over several.
fn script(source: &str) -> Option<String> {
    let mut out = String::new();
    let mut before = String::new();
    for line in lines(source).filter(|line| !line.starts_with("//")) {
        if line.matches('`').count() % 2 == 1 || line.contains("/*") || line.contains("//") {
            return None;
        }
        let mut bare = String::new();
        statement(line, &mut bare);
        // `const` tells people something. The browser knows who assigns.
        for (long, short) in [("const ", "let "), ("const{", "let{"), ("const[", "let["), ("for(const", "for(let")] {
            if let Some(rest) = bare.strip_prefix(long) {
                bare = format!("{short}{rest}");
            }
        }
        if declares(&before) && declares(&bare) {
            out.pop();
            out.push(',');
            out.push_str(bare["let".len()..].trim_start());
            before = bare;
            continue;
        }
        if needless(&before, &bare) {
            out.pop();
        }
        // What was a statement of its own, and would not be one without a line's end, is an error here, and never
        // something else: `a = {}` before `b()`.
        let follows = before == "}" && bare.starts_with(|first: char| first.is_ascii_lowercase());
        if !out.is_empty() && !follows && !out.ends_with(OPEN) && !bare.starts_with(CLOSE) {
            out.push('\n');
        }
        out.push_str(&bare);
        before = bare;
    }
    out.push('\n');
    Some(out)
}

/// Whether it is one declaration and no more.
fn declares(line: &str) -> bool {
    let one = line.strip_suffix(';').filter(|it| !it.contains(';') && balanced(it));
    one.is_some_and(|it| ["let ", "let{", "let["].iter().any(|word| it.starts_with(word)))
}

fn balanced(line: &str) -> bool {
    let count = |sign: char| line.matches(sign).count();
    count('(') == count(')') && count('[') == count(']') && count('{') == count('}')
}

/// Whether the line's last sign says only what the bracket after it says too. A comma does, unless it stands for an item
/// itself; a semicolon does, unless it is a whole statement: `while (more());`
fn needless(line: &str, next: &str) -> bool {
    let Some(bare) = line.strip_suffix([',', ';']).filter(|bare| !bare.is_empty()) else { return false };
    let plain = !["for(", "while(", "if("].iter().any(|head| bare.contains(head)) && balanced(bare);
    match line.ends_with(',') {
        true => next.starts_with(['}', ')', ']']) && !bare.ends_with([',', '[', '(']),
        false => next.starts_with('}') && (!bare.ends_with(')') || plain),
    }
}

fn statement(line: &str, out: &mut String) {
    let mut rest = line;
    while let Some(each) = rest.chars().next() {
        let word = out.rsplit(|sign: char| !sign.is_alphanumeric() && !"_$".contains(sign)).next().unwrap_or_default();
        let dividing = !word.is_empty() && !BEFORE_VALUE.contains(&word) || out.ends_with([')', ']']);
        let whole = match each {
            '"' | '`' => quoted(rest, each),
            '/' if !dividing => None,
            '\'' | '\\' => None,
            _ => Some(each.len_utf8()),
        };
        let (piece, after) = rest.split_at(whole.unwrap_or(rest.len()));
        let next = after.chars().next().unwrap_or(' ');
        let last = out.chars().next_back().unwrap_or(' ');
        let beside = SCRIPT.contains(last) || SCRIPT.contains(next);
        if piece != " " || !beside || SIGNS.contains(last) && SIGNS.contains(next) {
            out.push_str(piece);
        }
        rest = after;
    }
}

/// The length of what is quoted, if it is plain where that ends: no quotes are in it, escaped or in a template's `${}`.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let inner = text[1..].split(quote).next()?;
    let opened = inner.split("${").skip(1).all(|value| value.contains('}'));
    let plain = opened && !inner.ends_with('\\');
    (plain && text.len() > inner.len() + 1).then_some(inner.len() + 2)
}

fn sheet(source: &str) -> Option<String> {
    let mut bare = String::new();
    let mut rest = source;
    while let Some((before, comment)) = rest.split_once("/*") {
        bare.push_str(before);
        rest = comment.split_once("*/")?.1;
    }
    bare.push_str(rest);
    let line = lines(&bare).collect::<Vec<_>>().join(" ");
    let quoted = line.split('"').skip(1).step_by(2).any(|text| text.contains(['{', '}', ';']));
    if quoted || line.contains(['\'', '\\']) {
        return None;
    }
    let mut out = String::new();
    for (at, part) in line.split('"').enumerate() {
        if at > 0 {
            out.push('"');
        }
        let mut rest = part.chars().peekable();
        while let Some(each) = rest.next() {
            let beside =
                out.ends_with(|last| SHEET.0.contains(last)) || rest.peek().is_some_and(|it| SHEET.1.contains(*it));
            if at % 2 == 1 || each != ' ' || !beside {
                out.push(each);
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
    fn sheets() {
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
    fn the_rest() {
        assert_eq!(strip("a.html", "<p>\n  a  b\n\n</p>").as_deref(), Some("<p>\na  b\n</p>\n"));
        assert_eq!(strip("a.svg", "<a  />\n").as_deref(), Some("<a  />\n"));
    }
}
