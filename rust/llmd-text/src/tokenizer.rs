//! Tokenizers: `fastokens` where it gives the ids of Hugging Face `tokenizers`, else the latter.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::str::FromStr;

use serde_json::{json, Map, Value};

use crate::border::Failure;
use crate::borders::{AddedToken, Borders};
use crate::self_check;

enum Engine {
    Fast(Box<fastokens::Tokenizer>),
    Plain(Box<tokenizers::Tokenizer>),
}

pub struct Tokenizer {
    engine: Engine,
    borders: Borders,
    reason: String,
    vocab_size: u32,
    /// What the post-processor puts around a text; None where it does more than that.
    around: Option<(Vec<u32>, Vec<u32>)>,
}

impl Engine {
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, String> {
        match self {
            Engine::Fast(engine) => engine
                .encode_with_special_tokens(text, add_special)
                .map_err(|error| error.to_string()),
            Engine::Plain(engine) => engine
                .encode_fast(text, add_special)
                .map(|encoding| encoding.get_ids().to_vec())
                .map_err(|error| error.to_string()),
        }
    }
}

impl Tokenizer {
    /// `config` is the tokenizer_config.json or empty. With `fast` the self-check decides.
    pub fn load(json: &str, config: &str, fast: bool) -> Result<Self, Failure> {
        let mut json: Value = serde_json::from_str(json)
            .map_err(|error| Failure::invalid(format!("tokenizer.json: {error}")))?;
        if !json.is_object() {
            return Err(Failure::invalid("tokenizer.json is not an object"));
        }
        // The engine tokenises without either, whatever the file says.
        json["truncation"] = Value::Null;
        json["padding"] = Value::Null;
        add_tokens_of_config(&mut json, config)?;
        let added = added_tokens(&json);
        let borders = Borders::new(&json, &added);
        let text = json.to_string();
        let plain = tokenizers::Tokenizer::from_str(&text)
            .map_err(|error| Failure::invalid(format!("tokenizer.json: {error}")))?;
        drop(text);
        let vocab_size = vocab_size(&plain);
        let plain = Engine::Plain(Box::new(plain));
        let (engine, reason) = if fast {
            choose(json, plain, &added)
        } else {
            (plain, "tokenizers, as was asked for".to_string())
        };
        let around = around(&engine).map_err(Failure::failed)?;
        Ok(Tokenizer { engine, borders, reason, vocab_size, around })
    }

    pub fn is_fast(&self) -> bool {
        matches!(self.engine, Engine::Fast(_))
    }

    /// Why the engine is the one it is.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// One past the largest id.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// The ids before and after a text with special tokens; None when they depend on the text.
    pub fn around(&self) -> Option<&(Vec<u32>, Vec<u32>)> {
        self.around.as_ref()
    }

    pub fn borders(&self) -> &Borders {
        &self.borders
    }

    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Failure> {
        self.engine.encode(text, add_special).map_err(Failure::failed)
    }
}

/// The fast engine, when it loads and passes the self-check; else `plain`, and why.
fn choose(json: Value, plain: Engine, added: &[AddedToken]) -> (Engine, String) {
    let loaded = catch_unwind(AssertUnwindSafe(|| fastokens::Tokenizer::from_json(json)));
    let fast = match loaded {
        Ok(Ok(engine)) => Engine::Fast(Box::new(engine)),
        Ok(Err(error)) => return (plain, format!("tokenizers: fastokens refused it: {error}")),
        Err(_) => return (plain, "tokenizers: fastokens panicked while loading".to_string()),
    };
    let texts = self_check::corpus(added);
    for text in &texts {
        for add_special in [false, true] {
            let got = catch_unwind(AssertUnwindSafe(|| fast.encode(text, add_special)));
            let wanted = plain.encode(text, add_special);
            let same = match (&got, &wanted) {
                (Ok(Ok(got)), Ok(wanted)) => got == wanted,
                (Ok(Err(_)), Err(_)) => true,
                _ => false,
            };
            if !same {
                let shown: String = text.chars().take(40).collect();
                return (plain, format!("tokenizers: fastokens has other ids for {shown:?}"));
            }
        }
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    let reason = format!("fastokens: equal ids in {} texts, {} KB", texts.len(), bytes / 1024);
    (fast, reason)
}

/// The ids before and after any text, found by looking at a few.
fn around(engine: &Engine) -> Result<Option<(Vec<u32>, Vec<u32>)>, String> {
    let mut found = None;
    for text in ["a", "one two", "7\n", ""] {
        let bare = engine.encode(text, false)?;
        let whole = engine.encode(text, true)?;
        let split = match &found {
            None => {
                let extra = whole.len().saturating_sub(bare.len());
                (0..=extra).find(|&at| whole[at..].starts_with(&bare))
            }
            Some((before, _)) => Some(Vec::len(before)),
        };
        let Some(split) = split else { return Ok(None) };
        if whole.len() < split + bare.len() || whole[split..split + bare.len()] != bare[..] {
            return Ok(None);
        }
        let here = (whole[..split].to_vec(), whole[split + bare.len()..].to_vec());
        if found.as_ref().is_some_and(|found| *found != here) {
            return Ok(None);
        }
        found = Some(here);
    }
    Ok(found)
}

fn vocab_size(plain: &tokenizers::Tokenizer) -> u32 {
    plain.get_vocab(true).values().max().map_or(0, |id| id + 1)
}

fn flag(token: &Value, name: &str) -> bool {
    token[name].as_bool().unwrap_or(false)
}

fn added_tokens(json: &Value) -> Vec<AddedToken> {
    let tokens = json["added_tokens"].as_array().map_or(&[][..], |list| &list[..]);
    tokens
        .iter()
        .filter_map(|token| {
            Some(AddedToken {
                content: token["content"].as_str()?.to_string(),
                lstrip: flag(token, "lstrip"),
                rstrip: flag(token, "rstrip"),
                single_word: flag(token, "single_word"),
                normalized: flag(token, "normalized"),
            })
        })
        .collect()
}

/// Tokens that only tokenizer_config.json has (`added_tokens_decoder`) are the model's too, and its
/// flags of a token go before those of tokenizer.json, as in transformers.
fn add_tokens_of_config(json: &mut Value, config: &str) -> Result<(), Failure> {
    if config.is_empty() {
        return Ok(());
    }
    let config: Value = serde_json::from_str(config)
        .map_err(|error| Failure::invalid(format!("tokenizer_config.json: {error}")))?;
    let Some(more) = config["added_tokens_decoder"].as_object() else { return Ok(()) };
    if !json["added_tokens"].is_array() {
        json["added_tokens"] = json!([]);
    }
    let tokens = json["added_tokens"].as_array_mut().unwrap();
    let mut more: Vec<(u64, &Map<String, Value>)> = more
        .iter()
        .filter_map(|(id, token)| Some((id.parse().ok()?, token.as_object()?)))
        .collect();
    more.sort_by_key(|(id, _)| *id);
    for (id, token) in more {
        let Some(content) = token.get("content").and_then(Value::as_str) else { continue };
        let wanted = json!({
            "id": id,
            "content": content,
            "single_word": token.get("single_word").and_then(Value::as_bool).unwrap_or(false),
            "lstrip": token.get("lstrip").and_then(Value::as_bool).unwrap_or(false),
            "rstrip": token.get("rstrip").and_then(Value::as_bool).unwrap_or(false),
            "normalized": token.get("normalized").and_then(Value::as_bool).unwrap_or(false),
            "special": token.get("special").and_then(Value::as_bool).unwrap_or(false),
        });
        match tokens.iter_mut().find(|token| token["content"] == content) {
            Some(token) => *token = wanted,
            None => tokens.push(wanted),
        }
    }
    tokens.sort_by_key(|token| token["id"].as_u64());
    Ok(())
}
