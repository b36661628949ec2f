//! What templates use of Python beyond what minijinja and its helpers have, or have otherwise.

use std::fmt::Write;

use minijinja::value::{from_args, Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// What str.isspace says of a character.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

pub fn rstrip(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// The characters that strip takes away: those of `chars`, or blanks.
fn matcher(chars: Option<&str>) -> impl Fn(char) -> bool + '_ {
    move |c| chars.map_or_else(|| is_space(c), |chars| chars.contains(c))
}

fn operation(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.into())
}

/// The filter `trim`.
pub fn trim(text: &Value, chars: Option<&str>) -> Value {
    let text = text.to_str().unwrap_or_else(|| text.to_string().into());
    Value::from(text.trim_matches(matcher(chars)))
}

/// Arguments given by place or by name; None counts as not given.
fn arguments<const N: usize>(
    args: &[Value],
    names: [&str; N],
) -> Result<[Option<Value>; N], Error> {
    let (placed, named) = match args.split_last() {
        Some((last, placed)) if last.is_kwargs() => (placed, Kwargs::try_from(last.clone())?),
        _ => (args, Kwargs::try_from(Value::UNDEFINED)?),
    };
    if placed.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut out = [const { None }; N];
    for (index, name) in names.iter().enumerate() {
        let given: Option<Value> = named.get(name)?;
        out[index] = placed.get(index).cloned().or(given).filter(|value| !value.is_none());
    }
    named.assert_all_used()?;
    Ok(out)
}

fn split(text: &str, separator: Option<&str>, max: i64, from_right: bool) -> Result<Value, Error> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let Some(separator) = separator else { return Ok(split_blanks(text, max, from_right)) };
    if separator.is_empty() {
        return Err(operation("empty separator"));
    }
    let limit = max.saturating_add(1);
    if !from_right {
        return Ok(text.splitn(limit, separator).map(Value::from).collect());
    }
    let mut pieces: Vec<Value> = text.rsplitn(limit, separator).map(Value::from).collect();
    pieces.reverse();
    Ok(Value::from(pieces))
}

fn split_blanks(text: &str, max: usize, from_right: bool) -> Value {
    let mut pieces = Vec::new();
    let mut rest = if from_right { rstrip(text) } else { text.trim_start_matches(is_space) };
    while !rest.is_empty() {
        let end = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = end.filter(|_| pieces.len() < max) else {
            // What is left over keeps the blanks inside, not those at its outer end.
            let kept = if from_right { rest.trim_start_matches(is_space) } else { rest };
            pieces.push(Value::from(if pieces.len() < max { strip(kept) } else { kept }));
            break;
        };
        let blank = rest[at..].chars().next().map_or(1, char::len_utf8);
        if from_right {
            pieces.push(Value::from(&rest[at + blank..]));
            rest = rstrip(&rest[..at]);
        } else {
            pieces.push(Value::from(&rest[..at]));
            rest = rest[at..].trim_start_matches(is_space);
        }
    }
    if from_right {
        pieces.reverse();
    }
    Value::from(pieces)
}

fn splitlines(text: &str, keep_ends: bool) -> Value {
    let ends =
        |c: char| matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        let width = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(Value::from(&rest[..if keep_ends { at + width } else { at }]));
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    Value::from(lines)
}

fn partition(text: &str, separator: &str, from_right: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(operation("empty separator"));
    }
    let found = if from_right { text.rfind(separator) } else { text.find(separator) };
    let parts = match found {
        Some(at) => [&text[..at], separator, &text[at + separator.len()..]],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(parts.map(Value::from).to_vec()))
}

/// ljust, rjust and center.
fn justify(text: &str, method: &str, width: usize, fill: Option<&str>) -> Result<Value, Error> {
    const WIDTH_MAX: usize = 10_000;
    if width > WIDTH_MAX {
        return Err(operation(format!("{method}: more than {WIDTH_MAX} characters")));
    }
    let fill = fill.unwrap_or(" ");
    let missing = width.saturating_sub(text.chars().count());
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(Value::from(format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left))))
}

fn zfill(text: &str, width: usize) -> Result<Value, Error> {
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => text.split_at(text.len() - digits.len()),
        None => ("", text),
    };
    let padded = justify(digits, "rjust", width.saturating_sub(sign.len()), Some("0"))?;
    Ok(Value::from(format!("{sign}{padded}")))
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let result = (|| match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let matches = matcher(chars);
            Ok(Some(Value::from(match method {
                "strip" => text.trim_matches(matches),
                "lstrip" => text.trim_start_matches(matches),
                _ => text.trim_end_matches(matches),
            })))
        }
        "split" | "rsplit" => {
            let [separator, max] = arguments(args, ["sep", "maxsplit"])?;
            let max = max.map_or(Ok(-1), i64::try_from)?;
            let separator = separator.as_ref().and_then(Value::as_str);
            split(text, separator, max, method == "rsplit").map(Some)
        }
        "splitlines" => {
            let [keep] = arguments(args, ["keepends"])?;
            Ok(Some(splitlines(text, keep.is_some_and(|keep| keep.is_true()))))
        }
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            let rest = match method {
                "removeprefix" => text.strip_prefix(affix),
                _ => text.strip_suffix(affix),
            };
            Ok(Some(Value::from(rest.unwrap_or(text))))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            partition(text, separator, method == "rpartition").map(Some)
        }
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let at = if method == "index" { text.find(what) } else { text.rfind(what) };
            let at = at.ok_or_else(|| operation("substring not found"))?;
            Ok(Some(Value::from(text[..at].chars().count())))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            justify(text, method, width, fill).map(Some)
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            zfill(text, width).map(Some)
        }
        "casefold" => Ok(Some(Value::from(text.to_lowercase()))),
        "isdecimal" | "isdigit" => {
            let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
            if digits || text.is_ascii() {
                Ok(Some(Value::from(digits)))
            } else {
                Ok(None)
            }
        }
        _ => Ok(None),
    })();
    result.transpose()
}

fn copy(value: &Value) -> Option<Value> {
    match value.kind() {
        ValueKind::Map => {
            let pairs = value.as_object()?.try_iter_pairs()?;
            Some(Value::from_pairs(pairs))
        }
        ValueKind::Seq => Some(value.try_iter().ok()?.collect()),
        _ => None,
    }
}

/// Methods of Python's types. Changing a list or a dict is refused as transformers' sandbox does.
pub fn method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        if let Some(result) = string_method(text, method, args) {
            return result;
        }
    }
    match (value.kind(), method) {
        (ValueKind::Map | ValueKind::Seq, "copy") if args.is_empty() => {
            copy(value).ok_or_else(|| Error::from(ErrorKind::UnknownMethod))
        }
        (ValueKind::Seq, "index") => {
            let (what,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == *what);
            at.map(Value::from).ok_or_else(|| operation("value is not in list"))
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// repr of a float: the shortest digits that read back, an exponent where Python has one.
pub fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// The filter `indent`.
pub fn indent(text: &str, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    const WIDTH_MAX: i64 = 1000;
    let [width, first, blank] = arguments(&args.into_values(), ["width", "first", "blank"])?;
    let indent = match width.as_ref().map(|width| (width.as_str(), width)) {
        None => "    ".to_string(),
        Some((Some(text), _)) => text.to_string(),
        Some((None, width)) => {
            " ".repeat(i64::try_from(width.clone())?.clamp(0, WIDTH_MAX) as usize)
        }
    };
    let blank = blank.is_some_and(|blank| blank.is_true());
    let mut out = String::new();
    // Python adds a newline before it splits, so that a last one makes an empty line.
    for (index, line) in splitlines(&format!("{text}\n"), false).try_iter()?.enumerate() {
        let line = line.as_str().unwrap_or_default();
        let wanted = match index {
            0 => first.as_ref().is_some_and(|first| first.is_true()),
            _ => blank || !line.is_empty(),
        };
        if index > 0 {
            out.push('\n');
        }
        if wanted {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

/// str() of a value: that of minijinja but for floats.
pub fn text(value: &Value) -> Value {
    match value.kind() {
        ValueKind::String => value.clone(),
        ValueKind::Number if !value.is_integer() => {
            Value::from(float_text(f64::try_from(value.clone()).unwrap_or(f64::NAN)))
        }
        _ => Value::from(value.to_string()),
    }
}

/// The test `iterable`: None is not.
pub fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

struct JsonStyle {
    ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort: bool,
}

/// How deep a value may be; Python's limit is about ten times as high.
const JSON_DEPTH_MAX: usize = 128;

impl JsonStyle {
    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ascii && c as u32 >= 0x7f && c != '\x7f') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            for _ in 0..depth {
                out.push_str(indent);
            }
        }
    }

    fn key(&self, key: &Value, out: &mut String) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.text(key.as_str().unwrap_or_default(), out),
            ValueKind::Bool | ValueKind::Number | ValueKind::None => {
                out.push('"');
                self.value(key, JSON_DEPTH_MAX, out)?;
                out.push('"');
            }
            kind => return Err(operation(format!("a key of JSON may not be of type {kind}"))),
        }
        Ok(())
    }

    fn map(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
        let mut pairs: Vec<(Value, Value)> = pairs.into_iter().flatten().collect();
        if self.sort {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        out.push('{');
        for (index, (key, item)) in pairs.iter().enumerate() {
            if index > 0 {
                out.push_str(&self.item);
            }
            self.line(depth + 1, out);
            self.key(key, out)?;
            out.push_str(&self.key);
            self.value(item, depth + 1, out)?;
        }
        if !pairs.is_empty() {
            self.line(depth, out);
        }
        out.push('}');
        Ok(())
    }

    fn list(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        out.push('[');
        let mut any = false;
        for item in value.try_iter()?.checked() {
            if any {
                out.push_str(&self.item);
            }
            any = true;
            self.line(depth + 1, out);
            self.value(&item?, depth + 1, out)?;
        }
        if any {
            self.line(depth, out);
        }
        out.push(']');
        Ok(())
    }

    fn value(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => {
                let _ = write!(out, "{value}");
            }
            ValueKind::Number => {
                out.push_str(&float_text(f64::try_from(value.clone()).unwrap_or(f64::NAN)));
            }
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            _ if depth >= JSON_DEPTH_MAX => return Err(operation("JSON is nested too deeply")),
            ValueKind::Map => self.map(value, depth, out)?,
            ValueKind::Seq => self.list(value, depth, out)?,
            kind => return Err(operation(format!("a value of type {kind} has no JSON"))),
        }
        Ok(())
    }
}

/// The filter `tojson` as transformers has it: json.dumps with ensure_ascii off.
pub fn tojson(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [ascii, indent, separators, sort] =
        arguments(&args.into_values(), ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_string(),
            None => " ".repeat(i64::try_from(indent)?.clamp(0, 64) as usize),
        }),
        None => None,
    };
    let mut style = JsonStyle {
        ascii: ascii.is_some_and(|ascii| ascii.is_true()),
        item: if indent.is_some() { "," } else { ", " }.into(),
        key: ": ".into(),
        indent,
        sort: sort.is_some_and(|sort| sort.is_true()),
    };
    if let Some(separators) = separators {
        style.item = separators.get_item_by_index(0)?.to_string();
        style.key = separators.get_item_by_index(1)?.to_string();
    }
    let mut out = String::new();
    style.value(value, 0, &mut out)?;
    Ok(Value::from(out))
}

struct Date {
    year: i64,
    month: usize,
    day: i64,
    weekday: usize, // from Sunday
    yearday: i64,   // from 1
}

/// Days since 1970 to a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible
/// low-level date algorithms").
fn date(days: i64) -> Date {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let month = month as usize;
    let yearday = BEFORE[month - 1] + day + i64::from(leap && month > 2);
    Date { year, month, day, weekday: (days + 4).rem_euclid(7) as usize, yearday }
}

/// datetime.strftime in the C locale, in UTC. An unknown directive stays as it is, as in glibc.
pub fn strftime(now_s: i64, format: &str) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] =
        ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    // 0000 to 9999, which is what Python can name.
    let now_s = now_s.clamp(-62_135_596_800, 253_402_300_799);
    let date = date(now_s.div_euclid(86_400));
    let second = now_s.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let (month, day) = (MONTHS[date.month - 1], DAYS[date.weekday]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let bare = directive == Some('-');
        if bare {
            directive = chars.next();
        }
        let Some(directive) = directive else {
            out.push('%');
            break;
        };
        let number = |value: i64, width: usize| match bare {
            true => format!("{value}"),
            false => format!("{value:0width$}"),
        };
        out += &match directive {
            'Y' => format!("{}", date.year),
            'y' => number(date.year % 100, 2),
            'm' => number(date.month as i64, 2),
            'd' => number(date.day, 2),
            'e' if bare => format!("{}", date.day),
            'e' => format!("{:2}", date.day),
            'H' => number(hour, 2),
            'I' => number(hour12, 2),
            'M' => number(minute, 2),
            'S' => number(second, 2),
            'f' => "000000".into(),
            'j' => number(date.yearday, 3),
            'w' => format!("{}", date.weekday),
            'u' => format!("{}", (date.weekday + 6) % 7 + 1),
            'B' => month.into(),
            'b' | 'h' => month[..3].into(),
            'A' => day.into(),
            'a' => day[..3].into(),
            'p' => if hour < 12 { "AM" } else { "PM" }.into(),
            'F' | 'D' | 'T' | 'R' | 'c' | 'x' | 'X' => strftime(now_s, composed(directive)),
            's' => format!("{now_s}"),
            'z' | 'Z' => String::new(),
            'n' => "\n".into(),
            't' => "\t".into(),
            '%' => "%".into(),
            other if bare => format!("%-{other}"),
            other => format!("%{other}"),
        };
    }
    out
}

fn composed(directive: char) -> &'static str {
    match directive {
        'F' => "%Y-%m-%d",
        'D' | 'x' => "%m/%d/%y",
        'T' | 'X' => "%H:%M:%S",
        'R' => "%H:%M",
        _ => "%a %b %e %H:%M:%S %Y",
    }
}
