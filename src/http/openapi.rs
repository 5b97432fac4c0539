//! `/openapi.json`, written from the route table and the shapes while it is being sent.

use std::io;

use super::JSON;
use super::gate::STATUSES;
use super::gate::access::changes_something;
use super::json::{Field, Out, SCALARS, SHAPES};
use super::params::{Kind, Param, Place, TIMES};
use super::route::Route;
use crate::config;

/// What a problem says in its head.
const HEADERS: [(u16, &str, &str); 3] =
    [(401, "WWW-Authenticate", "string"), (405, "Allow", "string"), (429, "Retry-After", "integer")];

const SECURITY: &str = "What `net-pulse token` prints on the machine itself. Changes need it, and with --private reading \
                        does too; root and the user of the service need none on the machine's own loopback, in HTTP/1.1 \
                        and through no proxy.";

/// Every problem has the shape `Problem`, except 422.
const PROBLEMS: [(u16, &str); 19] = [
    (400, "What was sent cannot be done; the answer says why"),
    (401, "The access token is missing or wrong"),
    (403, "A page of another origin may not change anything here"),
    (404, "There is no such thing"),
    (405, "The path has other methods"),
    (408, "The request did not come in time"),
    (409, "A flag or the environment owns the setting, or what is there stands in the way"),
    (413, "The body is larger than anything asked for here"),
    (414, "The target is too long"),
    (417, "Expect is not taken here"),
    (421, "The Host is no name of this machine"),
    (422, "Parameters or body do not validate: all faults at once"),
    (429, "Too many wrong tokens came from this address"),
    (431, "The headers are too long"),
    (500, "The program is at fault"),
    (502, "The program gave no answer"),
    (503, "It cannot be done at the moment"),
    (504, "The program gave no answer in time"),
    (507, "There is no room for it"),
];

pub fn document(out: Out, routes: &[Route]) -> io::Result<()> {
    write!(
        out,
        r#"{{"openapi":"3.1.0","info":{{"title":"Net-Pulse","version":"{}","description":{},"license":{{"name":"MIT","identifier":"MIT"}}}},"paths":{{"#,
        env!("CARGO_PKG_VERSION"),
        quoted(env!("CARGO_PKG_DESCRIPTION")),
    )?;
    let mut paths: Vec<&str> = routes.iter().map(|route| route.path).collect();
    paths.dedup();
    for (at, path) in paths.iter().enumerate() {
        write!(out, "{}{}:{{", comma(at), quoted(path))?;
        for (at, route) in routes.iter().filter(|route| route.path == *path).enumerate() {
            write!(out, "{}", comma(at))?;
            operation(out, route)?;
        }
        out.write_all(b"}")?;
    }
    out.write_all(br#"},"components":{"schemas":{"#)?;
    shapes(out)?;
    out.write_all(br#"},"responses":{"#)?;
    refusals(out)?;
    write!(
        out,
        r#"}},"securitySchemes":{{"bearer":{{"type":"http","scheme":"bearer","description":{}}}}}}}}}"#,
        quoted(SECURITY)
    )
}

fn shapes(out: Out) -> io::Result<()> {
    for (at, shape) in SHAPES.iter().enumerate() {
        write!(
            out,
            r#"{}"{}":{{"type":"object","description":{},"properties":{{"#,
            comma(at),
            shape.name,
            quoted(shape.doc.trim())
        )?;
        let mut required = Vec::new();
        for (at, Field { name, mut kind, doc, optional }) in shape.fields().enumerate() {
            if optional {
                kind = inside(&kind, "Option").unwrap_or(&kind).to_string();
            } else {
                required.push(quoted(name));
            }
            write!(out, r#"{}"{name}":"#, comma(at))?;
            schema(out, &kind, doc)?;
        }
        write!(out, r#"}},"required":[{}]}}"#, required.join(","))?;
    }
    Ok(())
}

fn refusals(out: Out) -> io::Result<()> {
    for (at, (status, doc)) in PROBLEMS.iter().enumerate() {
        let shape = if *status == 422 { "Problems" } else { "Problem" };
        let header = HEADERS.iter().find(|(known, ..)| known == status);
        let headers = header.map_or(String::new(), |(_, name, kind)| {
            format!(r#""headers":{{"{name}":{{"required":true,"schema":{{"type":"{kind}"}}}}}},"#)
        });
        write!(out, r#"{}"{status}":{{"description":{},{headers}"content":"#, comma(at), quoted(doc))?;
        write!(out, r##"{{"{JSON}":{{"schema":{{"$ref":"#/components/schemas/{shape}"}}}}}}}}"##)?;
    }
    Ok(())
}

fn operation(out: Out, route: &Route) -> io::Result<()> {
    let method = route.method.to_ascii_lowercase();
    let id: String = route.path.chars().map(|each| if each.is_ascii_alphanumeric() { each } else { '_' }).collect();
    write!(out, r#""{method}":{{"operationId":"{method}{id}","summary":{}"#, quoted(route.summary))?;

    let security = if changes_something(route.method) { r#"{"bearer":[]}"# } else { r#"{},{"bearer":[]}"# };
    write!(out, r#","security":[{security}]"#)?;
    parameters(out, route)?;
    answers(out, route)
}

fn parameters(out: Out, route: &Route) -> io::Result<()> {
    let taken = route.params.iter().filter(|param| param.place != Place::Elsewhere);
    let (in_body, elsewhere): (Vec<&Param>, Vec<&Param>) = taken.partition(|param| param.place.in_body());
    if !elsewhere.is_empty() {
        out.write_all(br#","parameters":["#)?;
        for (at, param) in elsewhere.iter().enumerate() {
            let required = param.place == Place::Path;
            write!(
                out,
                r#"{}{{"name":"{}","in":"{}","required":{required},"description":{},"schema":{}}}"#,
                comma(at),
                param.name,
                param.place.name(),
                quoted(param.doc),
                given(param),
            )?;
        }
        out.write_all(b"]")?;
    }
    if !in_body.is_empty() {
        let members: Vec<String> =
            in_body.iter().map(|param| format!(r#""{}":{}"#, param.name, given(param))).collect();
        let needed = in_body.iter().filter(|param| !param.place.may_lack());
        let names: Vec<String> = needed.map(|param| quoted(param.name)).collect();
        // Where anything may be left out, a slip of the pen would go unnoticed.
        let others = if names.is_empty() { r#","additionalProperties":false"# } else { "" };
        write!(
            out,
            r#","requestBody":{{"required":true,"content":{{"{JSON}":{{"schema":{{"type":"object","properties":{{{}}},"required":[{}]{others}}}}}}}}}"#,
            members.join(","),
            names.join(","),
        )?;
    }
    Ok(())
}

fn answers(out: Out, route: &Route) -> io::Result<()> {
    out.write_all(br#","responses":{"200":{"description":"As asked","content":{"#)?;
    let (media, shapes): (Vec<&str>, Vec<&str>) = route.answers.iter().partition(|answer| answer.contains('/'));
    if !shapes.is_empty() {
        write!(out, r#""{JSON}":{{"schema":"#)?;
        one_of(out, &shapes)?;
        out.write_all(b"}")?;
    }
    for (at, media) in media.iter().enumerate() {
        let kind = if *media == JSON { "object" } else { "string" };
        write!(out, r#"{}"{media}":{{"schema":{{"type":"{kind}"}}}}"#, comma(at + shapes.len()))?;
    }
    out.write_all(b"}}")?;
    for status in problems(route) {
        if (route.path, status) == ("/health", 503) {
            // The one answer that is no problem and no 200.
            write!(out, r#","503":{{"description":"It does not do its work","content":{{"{JSON}":{{"schema":"#)?;
            one_of(out, &["Health", "Problem"])?;
            out.write_all(b"}}}")?;
            continue;
        }
        write!(out, r##","{status}":{{"$ref":"#/components/responses/{status}"}}"##)?;
    }
    out.write_all(b"}}")
}

/// What can go wrong with a route, from what it takes and what its row says.
pub fn problems(route: &Route) -> Vec<u16> {
    let has = |place| route.params.iter().any(|param| param.place == place);
    let mut problems = route.problems.to_vec();
    problems.extend([401, 405, 429, 500]);
    // The gate refuses before it knows a route, but for one thing.
    let changes = changes_something(route.method);
    problems.extend(STATUSES.into_iter().filter(|status| *status != 403 || changes));
    problems.extend(has(Place::Path).then_some(404));
    let in_body = route.params.iter().any(|param| param.place.in_body());
    problems.extend((in_body || has(Place::Query)).then_some(422));
    problems.sort();
    problems.dedup();
    problems
}

fn comma(at: usize) -> &'static str {
    if at == 0 { "" } else { "," }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// The schema of a parameter.
fn given(param: &Param) -> String {
    let schema = bare(param);
    match param.place {
        Place::PartOrNull => format!(r#"{{"description":{},"anyOf":[{schema},{{"type":"null"}}]}}"#, quoted(param.doc)),
        _ => schema,
    }
}

fn bare(param: &Param) -> String {
    match param.kind {
        Kind::Integer { low, high, default } => {
            let default = default.map_or(String::new(), |default| format!(r#","default":{default}"#));
            format!(r#"{{"type":"integer","minimum":{low},"maximum":{high}{default}}}"#)
        }
        Kind::Decimal { low, high } => decimals(low, high),
        Kind::Word(words) => {
            let default = words.first().map_or(String::new(), |word| quoted(word));
            format!(r#"{{"type":"string","enum":[{}],"default":{default}}}"#, list(words))
        }
        Kind::Time => {
            const YEARS: &str = r#""pattern":"^(19[7-9]|[2-9][0-9]{2})[0-9]-""#;
            format!(
                r#"{{"description":"RFC 3339 with Z or an offset, a local date-time without one, a date, Unix seconds, or from 100000000000 on Unix milliseconds","anyOf":[{{"type":"string","format":"date-time",{YEARS}}},{{"type":"string","format":"date",{YEARS}}},{{"type":"integer","minimum":{},"maximum":{}}}]}}"#,
                TIMES.0,
                TIMES.1 * 1000 + 999
            )
        }
        Kind::Text if param.place == Place::Path => r#"{"type":"string","minLength":1}"#.to_string(),
        Kind::Text => r#"{"type":"string"}"#.to_string(),
        Kind::Line { most } => format!(r#"{{"type":"string","maxLength":{most},"pattern":"{LINE}"}}"#),
        Kind::Texts { most: None } => r#"{"type":"array","items":{"type":"string"}}"#.to_string(),
        Kind::Texts { most: Some(most) } => {
            format!(r#"{{"type":"array","items":{{"type":"string"}},"maxItems":{most}}}"#)
        }
        Kind::Words(words) => format!(r#"{{"type":"array","items":{{"type":"string","enum":[{}]}}}}"#, list(words)),
        Kind::Switch => r#"{"type":"boolean"}"#.to_string(),
        Kind::Setting(setting) => match setting.kind {
            config::Kind::Integer(low, high) => format!(r#"{{"type":"integer","minimum":{low},"maximum":{high}}}"#),
            config::Kind::Decimal(low, high) => decimals(low, high),
            config::Kind::Word(words) => format!(r#"{{"type":"string","enum":[{}]}}"#, list(words)),
            config::Kind::Switch => r#"{"type":"boolean"}"#.to_string(),
            config::Kind::List => {
                r#"{"type":"array","items":{"type":"string","pattern":"^[^,]*[^, ][^,]*$"}}"#.to_string()
            }
            _ => format!(r#"{{"type":"string","pattern":"{LINE}"}}"#),
        },
    }
}

fn decimals(low: f64, high: f64) -> String {
    let [low, high] = [low, high].map(config::decimal);
    format!(r#"{{"type":"number","minimum":{low},"maximum":{high}}}"#)
}

/// Without control characters, as `params` has it.
const LINE: &str = r"^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

fn list(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(",")
}

/// `X` of `Wrapper<X>`.
fn inside<'a>(kind: &'a str, wrapper: &str) -> Option<&'a str> {
    kind.strip_prefix(wrapper)?.strip_prefix('<')?.strip_suffix('>')
}

fn one_of(out: Out, shapes: &[&str]) -> io::Result<()> {
    if let [only] = shapes {
        return schema(out, only, None);
    }
    out.write_all(br#"{"anyOf":["#)?;
    for (at, shape) in shapes.iter().enumerate() {
        out.write_all(comma(at).as_bytes())?;
        schema(out, shape, None)?;
    }
    out.write_all(b"]}")
}

/// The schema of a Rust type of `json`, as its declaration spells it.
fn schema(out: Out, kind: &str, doc: Option<&str>) -> io::Result<()> {
    out.write_all(b"{")?;
    if let Some(doc) = doc {
        write!(out, r#""description":{},"#, quoted(doc))?;
    }
    if let Some(inner) = inside(kind, "Option") {
        out.write_all(br#""anyOf":["#)?;
        schema(out, inner, None)?;
        out.write_all(br#",{"type":"null"}]"#)?;
    } else if let Some(inner) = inside(kind, "Vec") {
        out.write_all(br#""type":"array","items":"#)?;
        schema(out, inner, None)?;
    } else if let Some(inner) = inside(kind, "ByName").or_else(|| inside(kind, "Ordered")) {
        out.write_all(br#""type":"object","additionalProperties":"#)?;
        schema(out, inner, None)?;
    } else if let Some((_, scalar)) = SCALARS.iter().find(|(name, _)| *name == kind) {
        out.write_all(scalar.trim_start_matches('{').trim_end_matches('}').as_bytes())?;
    } else {
        write!(out, r##""$ref":"#/components/schemas/{kind}""##)?;
    }
    out.write_all(b"}")
}
