//! What vLLM's OpenAI server and transformers do to a chat request before the template sees it.
//!
//! Sources: vLLM renderers/chat_utils (content parts, tool calls), entrypoints/openai
//! chat_completion/protocol.py (fields, their order and defaults), transformers
//! utils/chat_template_utils.py (missing values, names of the reasoning, the message to continue).

use serde_json::{Map, Value};

use crate::border::Failure;

/// Stands at the end of the message to continue while the template renders.
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
/// A line that changes with each request of one client and that vLLM takes out of system texts.
const BILLING_HEADER: &str = "x-anthropic-billing-header";

const MEDIA_TYPES: &[&str] = &[
    "image_url",
    "input_image",
    "image_pil",
    "image_embeds",
    "audio_url",
    "input_audio",
    "audio_embeds",
    "video_url",
    "video_embeds",
    "prompt_embeds",
];

/// What the template gets besides the special tokens.
pub struct ChatRequest {
    pub messages: Vec<Map<String, Value>>,
    pub tools: Value,
    pub documents: Value,
    pub add_generation_prompt: bool,
    pub kwargs: Map<String, Value>,
    /// The text of the last message when it is to be continued.
    pub continued: Option<String>,
}

fn invalid<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::invalid(text))
}

/// A member of `map`; null is as good as none.
fn take(map: &mut Map<String, Value>, key: &str) -> Option<Value> {
    map.get_mut(key).map(Value::take).filter(|value| !value.is_null())
}

fn flag(body: &Map<String, Value>, key: &str, default: bool) -> Result<bool, Failure> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => invalid(format!("{key} is not a boolean")),
    }
}

/// The members of `map` named in `keys`, in that order; a null stays.
fn pick(mut map: Map<String, Value>, keys: &[&str]) -> Map<String, Value> {
    keys.iter()
        .filter_map(|key| map.get_mut(*key).map(|value| (key.to_string(), value.take())))
        .collect()
}

pub fn parse(body: &str) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_str(body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => invalid("the request is not a JSON object"),
        Err(error) => invalid(format!("the request is not JSON: {error}")),
    }
}

impl ChatRequest {
    /// `parts`: the template goes through the parts of a content.
    pub fn new(mut body: Map<String, Value>, parts: bool) -> Result<Self, Failure> {
        if take(&mut body, "chat_template").is_some() {
            return Err(Failure::unsupported("the request brings its own chat template"));
        }
        let add_generation_prompt = flag(&body, "add_generation_prompt", true)?;
        let continues = flag(&body, "continue_final_message", false)?;
        if add_generation_prompt && continues {
            return invalid("continue_final_message and add_generation_prompt exclude each other");
        }
        let kwargs = kwargs(&mut body)?;
        let tools = tools(take(&mut body, "tools"))?;
        let documents = take(&mut body, "documents").unwrap_or(Value::Null);
        let Some(Value::Array(list)) = take(&mut body, "messages") else {
            return invalid("messages is not an array");
        };
        if list.is_empty() {
            return invalid("messages is empty");
        }
        let mut messages = Vec::with_capacity(list.len());
        for value in list {
            messages.push(message(value, parts)?);
        }
        let continued = if continues { Some(mark_continued(&mut messages)?) } else { None };
        Ok(ChatRequest { messages, tools, documents, add_generation_prompt, kwargs, continued })
    }
}

fn kwargs(body: &mut Map<String, Value>) -> Result<Map<String, Value>, Failure> {
    let mut kwargs = match take(body, "chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => return invalid("chat_template_kwargs is not an object"),
    };
    for name in ["chat_template", "tokenize"] {
        if kwargs.contains_key(name) {
            return invalid(format!("chat_template_kwargs may not have {name}"));
        }
    }
    if let Some(effort) = take(body, "reasoning_effort") {
        if !kwargs.contains_key("enable_thinking") {
            kwargs.insert("enable_thinking".into(), Value::Bool(effort != "none"));
        }
        kwargs.insert("reasoning_effort".into(), effort);
    }
    Ok(kwargs)
}

/// Tools as vLLM's models print them: known fields, in their order, with their defaults.
fn tools(tools: Option<Value>) -> Result<Value, Failure> {
    let Some(tools) = tools else { return Ok(Value::Null) };
    let Value::Array(list) = tools else { return invalid("tools is not an array") };
    let mut out = Vec::with_capacity(list.len());
    for tool in list {
        let Value::Object(mut tool) = tool else { return invalid("a tool is not an object") };
        let Some(Value::Object(mut function)) = take(&mut tool, "function") else {
            return invalid("a tool has no function");
        };
        let mut known = Map::new();
        for key in ["name", "description", "parameters"] {
            known.insert(key.into(), take(&mut function, key).unwrap_or(Value::Null));
        }
        let defer = take(&mut tool, "defer_loading");
        for (key, value) in [
            ("strict", take(&mut function, "strict")),
            ("defer_loading", take(&mut function, "defer_loading").or(defer.clone())),
        ] {
            if let Some(value) = value {
                known.insert(key.into(), value);
            }
        }
        let mut whole = Map::new();
        whole.insert("type".into(), take(&mut tool, "type").unwrap_or("function".into()));
        whole.insert("function".into(), Value::Object(known));
        if let Some(value) = defer {
            whole.insert("defer_loading".into(), value);
        }
        out.push(Value::Object(whole));
    }
    Ok(Value::Array(out))
}

fn message(value: Value, parts: bool) -> Result<Map<String, Value>, Failure> {
    let Value::Object(mut raw) = value else { return invalid("a message is not an object") };
    let Some(Value::String(role)) = take(&mut raw, "role") else {
        return invalid("a message has no role");
    };
    let old_name = take(&mut raw, "reasoning_content");
    let reasoning = take(&mut raw, "reasoning").or(old_name);
    let mut content = content(take(&mut raw, "content"), parts, role == "system")?;
    let mut out = Map::new();
    let is_assistant = role == "assistant";
    if let Some(reasoning) = reasoning.as_ref().filter(|_| is_assistant) {
        out.insert("thinking".into(), reasoning.clone());
    }
    if role == "tool" {
        content = flatten_tool_content(content);
    }
    out.insert("role".into(), Value::String(role.clone()));
    out.insert("content".into(), content);
    if is_assistant {
        if let Some(calls) = tool_calls(take(&mut raw, "tool_calls"))? {
            out.insert("tool_calls".into(), calls);
        }
        if let Some(reasoning) = reasoning {
            out.insert("reasoning".into(), reasoning.clone());
            out.insert("reasoning_content".into(), reasoning);
        }
    } else if role == "tool" {
        if let Some(id) = take(&mut raw, "tool_call_id") {
            out.insert("tool_call_id".into(), id);
        }
    }
    for key in ["name", "task"] {
        if let Some(value @ Value::String(_)) = take(&mut raw, key) {
            out.insert(key.into(), value);
        }
    }
    if role == "developer" {
        if let Some(tools) = take(&mut raw, "tools") {
            out.insert("tools".into(), developer_tools(tools));
        }
    }
    Ok(out)
}

fn developer_tools(tools: Value) -> Value {
    let Value::Array(list) = tools else { return tools };
    list.into_iter()
        .map(|tool| {
            let Value::Object(mut tool) = tool else { return tool };
            if let Some(Value::Object(function)) = take(&mut tool, "function") {
                let keys = ["name", "description", "parameters", "strict"];
                tool.insert("function".into(), Value::Object(pick(function, &keys)));
            }
            Value::Object(pick(tool, &["function", "type"]))
        })
        .collect()
}

/// A content as the template takes it: a string, or a list of parts.
fn content(content: Option<Value>, parts: bool, is_system: bool) -> Result<Value, Failure> {
    let list = match content {
        None => Vec::new(),
        Some(text @ Value::String(_)) => vec![text],
        Some(Value::Array(list)) => list,
        Some(_) => return invalid("the content of a message is neither a string nor an array"),
    };
    let mut out = Vec::new();
    for value in list {
        match part(value)? {
            Part::Text(mut text) => {
                if is_system && text.starts_with(BILLING_HEADER) {
                    text = text.split_once('\n').map_or(String::new(), |(_, rest)| rest.into());
                    if text.is_empty() {
                        continue;
                    }
                }
                if parts {
                    let mut part = Map::new();
                    part.insert("type".into(), "text".into());
                    part.insert("text".into(), Value::String(text));
                    out.push(Value::Object(part));
                } else if !text.is_empty() {
                    out.push(Value::String(text));
                }
            }
            Part::Tool(name) if parts => {
                let mut part = Map::new();
                part.insert("type".into(), "tool_reference".into());
                part.insert("name".into(), Value::String(name));
                out.push(Value::Object(part));
            }
            Part::Tool(name) => out.push(Value::String(name)),
            Part::Nothing => {}
        }
    }
    if parts {
        return Ok(Value::Array(out));
    }
    Ok(Value::String(join(out)))
}

fn join(mut texts: Vec<Value>) -> String {
    if let [Value::String(only)] = &mut texts[..] {
        return std::mem::take(only);
    }
    let texts: Vec<&str> = texts.iter().filter_map(Value::as_str).collect();
    texts.join("\n")
}

enum Part {
    Text(String),
    Tool(String),
    Nothing,
}

fn part(value: Value) -> Result<Part, Failure> {
    let mut part = match value {
        Value::String(text) => return Ok(Part::Text(text)),
        Value::Object(part) => part,
        _ => return invalid("a part of a content is neither a string nor an object"),
    };
    let kind = match part.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        _ if MEDIA_TYPES.iter().any(|key| part.contains_key(*key)) => "image_url".to_string(),
        _ => return invalid("a part of a content has no type"),
    };
    let key = match kind.as_str() {
        "text" | "input_text" | "output_text" => "text",
        "refusal" => "refusal",
        "thinking" => "thinking",
        "tool_reference" => "name",
        media if MEDIA_TYPES.contains(&media) => {
            return Err(Failure::unsupported(format!("a part of a content is of type {media}")));
        }
        other => return invalid(format!("a part of a content is of the unknown type {other}")),
    };
    match take(&mut part, key) {
        Some(Value::String(name)) if key == "name" => Ok(Part::Tool(name)),
        Some(Value::String(text)) => Ok(Part::Text(text)),
        Some(_) => invalid(format!("{key} of a part of a content is not a string")),
        None => Ok(Part::Nothing),
    }
}

/// Most templates take the content of a tool's message as a string only.
fn flatten_tool_content(content: Value) -> Value {
    let Value::Array(list) = content else { return content };
    if list.iter().any(|part| part["type"] != "text") {
        return Value::Array(list);
    }
    let texts: Vec<&str> = list.iter().filter_map(|part| part["text"].as_str()).collect();
    Value::String(texts.join("\n"))
}

fn tool_calls(calls: Option<Value>) -> Result<Option<Value>, Failure> {
    let Some(calls) = calls else { return Ok(None) };
    let Value::Array(list) = calls else { return invalid("tool_calls is not an array") };
    if list.is_empty() {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(list.len());
    for call in list {
        let Value::Object(mut call) = call else {
            return invalid("a tool call is not an object");
        };
        let of_function = call.get("type").is_none_or(|kind| kind == "function");
        let Some(Value::Object(mut function)) = take(&mut call, "function") else {
            return invalid("a tool call is not of a function");
        };
        if !of_function {
            return invalid("a tool call is not of a function");
        }
        let arguments = arguments(take(&mut function, "arguments"));
        function.insert("arguments".into(), arguments);
        call.insert("function".into(), Value::Object(pick(function, &["arguments", "name"])));
        out.push(Value::Object(pick(call, &["id", "function", "type"])));
    }
    Ok(Some(Value::Array(out)))
}

/// Templates want an object; what is none, or no JSON, counts as an empty one.
fn arguments(arguments: Option<Value>) -> Value {
    let parsed = match arguments {
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::Null),
        Some(value) => value,
        None => Value::Null,
    };
    if parsed.is_object() {
        parsed
    } else {
        Value::Object(Map::new())
    }
}

/// Puts the tag at the end of the last message and returns the message's text.
fn mark_continued(messages: &mut [Map<String, Value>]) -> Result<String, Failure> {
    let last = messages.last_mut().and_then(|message| message.get_mut("content"));
    let text = match last {
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(parts)) => parts.iter_mut().rev().find_map(|part| match part {
            Value::Object(part) => match part.get_mut("text") {
                Some(Value::String(text)) => Some(text),
                _ => None,
            },
            _ => None,
        }),
        _ => None,
    };
    let Some(text) = text else { return invalid("the final message has no text to continue") };
    let whole = text.clone();
    text.push_str(CONTINUE_TAG);
    Ok(whole)
}

/// Cuts a prompt off where the message to continue ends.
pub fn cut_continued(mut prompt: String, message: &str) -> Result<String, Failure> {
    let tag = CONTINUE_TAG.trim_end();
    let Some(at) = prompt.rfind(tag).filter(|_| prompt.contains(crate::python::strip(message)))
    else {
        return Err(Failure::failed(
            "the template drops the final message that is to be continued",
        ));
    };
    let kept = if prompt[at..].starts_with(CONTINUE_TAG) {
        at
    } else {
        crate::python::rstrip(&prompt[..at]).len()
    };
    prompt.truncate(kept);
    Ok(prompt)
}
