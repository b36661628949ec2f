//! Chat templates: compiled once, rendered for each request, as transformers does.

use minijinja::machinery::{self, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior};
use serde_json::{Map, Value as Json};

use crate::border::Failure;
use crate::chat_request::{self, ChatRequest};
use crate::content_format;
use crate::python;

const NAME: &str = "chat_template";
/// The named special tokens that transformers hands to templates.
const SPECIAL_TOKENS: &[&str] =
    &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

#[derive(Clone, Copy)]
pub struct Limits {
    pub template_bytes: usize,
    pub steps: u64,
    pub depth: usize,
    pub prompt_bytes: usize,
}

struct Compiled {
    environment: Environment<'static>,
    takes_parts: bool,
}

pub struct ChatTemplate {
    default: Compiled,
    /// For requests with tools, where the model has a template of its own for them.
    with_tools: Option<Compiled>,
    special_tokens: Vec<(&'static str, String)>,
    limits: Limits,
}

impl ChatTemplate {
    /// `config` is the tokenizer_config.json, `template` the chat_template.jinja; either may be
    /// empty. Ok(None) when neither has a template.
    pub fn load(config: &str, template: &str, limits: Limits) -> Result<Option<Self>, Failure> {
        let config: Json = match config {
            "" => Json::Null,
            text => serde_json::from_str(text)
                .map_err(|error| Failure::invalid(format!("tokenizer_config.json: {error}")))?,
        };
        let (default, with_tools) = match template {
            "" => templates_of(&config["chat_template"])?,
            text => (Some(text), None),
        };
        let Some(default) = default else { return Ok(None) };
        let special_tokens = SPECIAL_TOKENS
            .iter()
            .filter_map(|name| {
                let token = &config[*name];
                let text = token.as_str().or(token["content"].as_str())?;
                Some((*name, text.to_string()))
            })
            .collect();
        Ok(Some(ChatTemplate {
            default: compile(default, limits)?,
            with_tools: with_tools.map(|source| compile(source, limits)).transpose()?,
            special_tokens,
            limits,
        }))
    }

    pub fn takes_parts(&self) -> bool {
        self.default.takes_parts
    }

    /// `body` is a request of chat completions, `now_s` the Unix time.
    pub fn render(&self, body: &str, now_s: i64) -> Result<String, Failure> {
        let body = chat_request::parse(body)?;
        let has_tools = body.get("tools").is_some_and(|tools| !tools.is_null());
        let compiled = match &self.with_tools {
            Some(compiled) if has_tools => compiled,
            _ => &self.default,
        };
        let request = ChatRequest::new(body, compiled.takes_parts)?;
        let continued = request.continued.clone();
        let context = self.context(request, now_s);
        let template = compiled.environment.get_template(NAME).map_err(|e| failure(&e))?;
        let prompt = template.render(context).map_err(|error| failure(&error))?;
        if prompt.len() > self.limits.prompt_bytes {
            return Err(Failure::limit(format!(
                "the prompt is longer than {} bytes",
                self.limits.prompt_bytes
            )));
        }
        match continued {
            Some(message) => chat_request::cut_continued(prompt, &message),
            None => Ok(prompt),
        }
    }

    fn context(&self, request: ChatRequest, now_s: i64) -> Value {
        let strftime_now =
            Value::from_function(move |format: &str| python::strftime(now_s, format));
        let mut pairs: Vec<(String, Value)> = vec![("strftime_now".into(), strftime_now)];
        let tokens = self.special_tokens.iter();
        pairs.extend(tokens.map(|(name, text)| (name.to_string(), Value::from(text.as_str()))));
        pairs.extend(request.kwargs.into_iter().map(|(key, value)| (key, to_value(value))));
        let messages: Vec<Value> =
            request.messages.into_iter().map(|message| to_value(Json::Object(message))).collect();
        pairs.push(("messages".into(), Value::from(messages)));
        pairs.push(("tools".into(), to_value(request.tools)));
        pairs.push(("documents".into(), to_value(request.documents)));
        pairs.push(("add_generation_prompt".into(), Value::from(request.add_generation_prompt)));
        Value::from_pairs(pairs)
    }
}

/// The template, or the default one and the one for tools, of `chat_template` in the config.
fn templates_of(value: &Json) -> Result<(Option<&str>, Option<&str>), Failure> {
    match value {
        Json::Null => Ok((None, None)),
        Json::String(text) => Ok((Some(text), None)),
        Json::Array(list) => {
            let named = |name: &str| {
                let entry = list.iter().find(|entry| entry["name"] == name);
                entry.and_then(|entry| entry["template"].as_str())
            };
            match named("default") {
                Some(default) => Ok((Some(default), named("tool_use"))),
                None => Err(Failure::invalid("chat_template has no template named default")),
            }
        }
        _ => Err(Failure::invalid("chat_template is neither a string nor a list")),
    }
}

fn syntax() -> SyntaxConfig {
    let built = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    built.expect("the delimiters are the usual ones")
}

fn compile(source: &str, limits: Limits) -> Result<Compiled, Failure> {
    if source.len() > limits.template_bytes {
        return Err(Failure::limit(format!(
            "the chat template is longer than {} bytes",
            limits.template_bytes
        )));
    }
    let source = without_generation_tags(&source.replace("\r\n", "\n").replace('\r', "\n"));
    let syntax_error = |error: Error| Failure::invalid(format!("chat template: {}", text(&error)));
    check_nesting(&source)?;
    let tree = machinery::parse(&source, NAME, syntax()).map_err(syntax_error)?;
    let takes_parts = content_format::takes_parts(&tree);
    let source = with_checked_loops(&source, &content_format::loop_places(&tree));
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(limits.steps));
    environment.set_recursion_limit(limits.depth);
    environment.set_unknown_method_callback(python::method);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Number if !value.is_integer() => {
            let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
            out.write_str(&python::float_text(number)).map_err(Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("trim", python::trim);
    environment.add_filter("string", python::text);
    environment.add_filter("indent", python::indent);
    environment.add_filter("__iterated", iterated);
    environment.add_test("iterable", python::is_iterable);
    environment.add_function("raise_exception", raise_exception);
    environment.add_template_owned(NAME, source).map_err(syntax_error)?;
    Ok(Compiled { environment, takes_parts })
}

/// The parser takes a level of the stack for each operator of a chain and each `elif`: refuses what
/// could take too many. Templates of models have up to 60 tokens in a tag and 20 `elif`s.
fn check_nesting(source: &str) -> Result<(), Failure> {
    const TAG_TOKENS_MAX: usize = 2000;
    const ELIFS_MAX: usize = 1000;
    let (mut in_tag, mut elifs) = (0, 0);
    for token in machinery::tokenize(source, false, syntax()) {
        // What is no token at all is the parser's to report.
        let Ok((token, _)) = token else { return Ok(()) };
        match token {
            Token::VariableStart | Token::BlockStart => in_tag = 0,
            Token::Ident("elif") => elifs += 1,
            _ => {}
        }
        in_tag += 1;
        if in_tag > TAG_TOKENS_MAX || elifs > ELIFS_MAX {
            return Err(Failure::limit(format!(
                "the chat template has over {TAG_TOKENS_MAX} tokens in a tag or {ELIFS_MAX} elifs"
            )));
        }
    }
    Ok(())
}

fn iterated(value: &Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "None is not iterable"));
    }
    Ok(value.clone())
}

fn raise_exception(_: &State, message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("the template says: {message}")))
}

/// `{% generation %}` marks what a model wrote, for training; here it is a scope and nothing more.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let inner = tag[2..].trim_start_matches(['-', '+']).trim_start();
        let known = [("generation", "with"), ("endgeneration", "endwith")];
        let replaced = known.iter().find_map(|(word, by)| {
            let end = inner.strip_prefix(word)?;
            let closes = end.trim_start().trim_start_matches(['-', '+']).starts_with("%}");
            closes.then_some((end, *by))
        });
        match replaced {
            Some((end, by)) => {
                let marker = &tag[2..3];
                out.push_str(if marker == "-" || marker == "+" { &tag[..3] } else { &tag[..2] });
                out.push(' ');
                out.push_str(by);
                rest = end;
            }
            None => {
                out.push_str(&tag[..2]);
                rest = &tag[2..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// A loop over None is an error in Python and a loop over nothing here: a filter makes the
/// difference, for plain names, which is where it happens.
fn with_checked_loops(source: &str, places: &[(usize, usize)]) -> String {
    let mut out = String::with_capacity(source.len() + places.len() * 16);
    let mut done = 0;
    for &(begin, end) in places {
        if begin < done {
            continue;
        }
        out.push_str(&source[done..begin]);
        out.push_str(&source[begin..end]);
        out.push_str("|__iterated");
        done = end;
    }
    out.push_str(&source[done..]);
    out
}

fn to_value(json: Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(value),
        Json::Number(number) => {
            if let Some(value) = number.as_i64() {
                Value::from(value)
            } else if let Some(value) = number.as_u64() {
                Value::from(value)
            } else {
                Value::from(number.as_f64().unwrap_or(f64::NAN))
            }
        }
        Json::String(text) => Value::from(text),
        Json::Array(list) => Value::from(list.into_iter().map(to_value).collect::<Vec<_>>()),
        Json::Object(map) => map_value(map),
    }
}

fn map_value(map: Map<String, Json>) -> Value {
    Value::from_pairs(map.into_iter().map(|(key, value)| (key, to_value(value))))
}

/// What an error says, with its line.
fn text(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}

fn failure(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::OutOfFuel => Failure::limit("the chat template takes too many steps"),
        _ => Failure::failed(format!("chat template: {}", text(error))),
    }
}
