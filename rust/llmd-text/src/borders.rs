//! Where a text may be cut so that the ids of the pieces are the ids of the whole.
//!
//! Two kinds of place are safe:
//!
//! 1. The end of an added token that is matched in the raw text. The tokenizer takes such tokens
//!    out first, from left to right without overlap, and treats each stretch between them on its
//!    own, so neither side sees the other.
//! 2. Between two characters where every pattern known here splits whatever is around them, and
//!    starts again without a look back: between an ASCII letter and a space or a newline after it,
//!    between a Chinese character or kana and a comma or full stop of theirs, and, with the
//!    patterns that take a run of newlines as one piece, between a newline and what cannot continue
//!    that run. NFC neither composes nor reorders across these places.
//!
//! What could spoil a kind (tokens that take in the blanks beside them, tokens that hold such a
//! place inside) turns it off. A place depends on the text before it alone, so texts with the same
//! beginning are cut alike in it.

use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, Input, MatchKind, StartKind};
use serde_json::Value;

/// Pieces shorter than this are joined with what follows them.
pub const PIECE_MIN: usize = 256;
/// Where no token ends for so long, the other kind of place is looked for.
const PIECE_TARGET: usize = 2048;

/// Patterns after which a run of newlines is one piece, so that its end is a safe place. All of
/// them, and GPT-2's, split after a letter that a blank follows.
const NEWLINE_PATTERNS: &[&str] = &[
    // Llama 3, and cl100k as GPT-4 has it
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    // Qwen 2 to 3
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    // Mistral's tekken
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    // o200k, as GPT-4o and gpt-oss have it
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:",
        r"'s|'t|'re|'ve|'m|'ll|'d)?",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i",
        r":'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
        r"|\s+(?!\S)|\s+",
    ),
    // DeepSeek V3: three patterns one after the other
    r"\p{N}{1,3}",
    "[一-龥\u{3040}-ゟ゠-ヿ]+",
    concat!(
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+",
        "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+",
        "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedToken {
    pub content: String,
    pub lstrip: bool,
    pub rstrip: bool,
    pub single_word: bool,
    pub normalized: bool,
}

pub struct Borders {
    tokens: Option<AhoCorasick>,
    takes_right: Vec<bool>, // by pattern: the token takes in the blanks after it
    places: Places,
}

/// Which places of the second kind are safe.
#[derive(Clone, Copy, Default)]
struct Places {
    after_letter: bool,
    after_ideograph: bool,
    after_newline: bool,
}

impl Borders {
    /// `json` is the tokenizer.json, `added` its tokens and those of tokenizer_config.json.
    pub fn new(json: &Value, added: &[AddedToken]) -> Self {
        let none = Borders { tokens: None, takes_right: Vec::new(), places: Places::default() };
        if added.iter().any(|token| token.single_word) || looks_at_the_beginning(json) {
            return none;
        }
        let raw: Vec<&AddedToken> =
            added.iter().filter(|token| !token.normalized && !token.content.is_empty()).collect();
        let takes_right = raw.iter().any(|token| token.rstrip);
        // A token that begins inside the blanks which the one before it takes in is not handled.
        if takes_right && added.iter().any(|t| t.content.starts_with(char::is_whitespace)) {
            return none;
        }
        // Fastest, and small enough for the thousand tokens that models have at most.
        let kind = (raw.len() <= 4096).then_some(AhoCorasickKind::DFA);
        let tokens = AhoCorasick::builder()
            .kind(kind)
            .match_kind(MatchKind::LeftmostLongest)
            .start_kind(StartKind::Unanchored)
            .build(raw.iter().map(|token| token.content.as_bytes()));
        let Ok(tokens) = tokens else { return none };
        Borders {
            tokens: if raw.is_empty() { None } else { Some(tokens) },
            takes_right: raw.iter().map(|token| token.rstrip).collect(),
            places: Places::new(json, added),
        }
    }

    pub fn any(&self) -> bool {
        self.tokens.is_some() || self.places.any()
    }

    /// Hands the ends of the pieces of `text` to `sink`, the end of the text last. All pieces but
    /// the last have at least PIECE_MIN bytes; the empty text has none.
    pub fn cut(&self, text: &str, mut sink: impl FnMut(usize)) {
        let mut begin = 0;
        let mut cut = |end: usize, begin: &mut usize| {
            sink(end);
            *begin = end;
        };
        if let Some(tokens) = &self.tokens {
            let input = Input::new(text).anchored(Anchored::No);
            for found in tokens.find_iter(input) {
                let mut end = found.end();
                if self.takes_right[found.pattern().as_usize()] {
                    end = text.len() - text[end..].trim_start().len();
                }
                if end < begin + PIECE_MIN {
                    continue;
                }
                while let Some(place) = self.place(text, begin, found.start()) {
                    cut(place, &mut begin);
                }
                if end >= begin + PIECE_MIN {
                    cut(end, &mut begin);
                }
            }
        }
        while let Some(place) = self.place(text, begin, text.len()) {
            cut(place, &mut begin);
        }
        if begin < text.len() {
            cut(text.len(), &mut begin);
        }
    }

    /// The first safe place of the second kind, PIECE_TARGET or more after `begin`, before `end`.
    fn place(&self, text: &str, begin: usize, end: usize) -> Option<usize> {
        if !self.places.any() {
            return None;
        }
        let bytes = text.as_bytes();
        (begin + PIECE_TARGET..end).find(|&at| self.places.has(bytes, at))
    }
}

impl Places {
    fn new(json: &Value, added: &[AddedToken]) -> Self {
        let (known, newline) = known_patterns(&json["pre_tokenizer"]);
        if !known || !keeps_places(&json["normalizer"]) {
            return Places::default();
        }
        let holds = |left: fn(u8) -> bool, right: fn(u8) -> bool| {
            added.iter().any(|token| {
                token.content.as_bytes().windows(2).any(|pair| left(pair[0]) && right(pair[1]))
            })
        };
        let in_letter = holds(|b| b.is_ascii_alphabetic(), |b| b == b' ' || b == b'\n');
        let in_newline = holds(|b| b == b'\n', |_| true);
        let in_ideograph = added.iter().any(|token| token.content.contains(['。', '、', '，']));
        let takes_right = added.iter().any(|token| token.rstrip);
        let takes_left = added.iter().any(|token| token.lstrip);
        Places {
            after_letter: !in_letter && !takes_right,
            after_ideograph: !in_ideograph,
            after_newline: newline && !in_newline && !takes_left,
        }
    }

    fn any(&self) -> bool {
        self.after_letter || self.after_ideograph || self.after_newline
    }

    /// True when `bytes` may be cut at `at`, which is neither their begin nor their end.
    fn has(&self, bytes: &[u8], at: usize) -> bool {
        match (bytes[at - 1], bytes[at]) {
            (left, b' ' | b'\n') if left.is_ascii_alphabetic() => self.after_letter,
            (b'\n', _) => self.after_newline && ends_newlines(&bytes[at..]),
            (0x80..=0xbf, 0xe3 | 0xef) => {
                self.after_ideograph
                    && at >= 3
                    && is_ideograph(&bytes[at - 3..at])
                    && ["。", "、", "，"]
                        .iter()
                        .any(|mark| bytes[at..].starts_with(mark.as_bytes()))
            }
            _ => false,
        }
    }
}

/// A Chinese character of the common ones, U+5000 to U+8FFF, or hiragana, U+3041 to U+3096.
fn is_ideograph(bytes: &[u8]) -> bool {
    matches!(bytes, [0xe5..=0xe8, ..] | [0xe3, 0x81, 0x81..=0xbf] | [0xe3, 0x82, 0x80..=0x96])
}

/// True when no known pattern can take the first character of `bytes` into a piece that ends in a
/// newline: it is neither a blank nor a slash.
fn ends_newlines(bytes: &[u8]) -> bool {
    match bytes[0] {
        first if first.is_ascii() => first.is_ascii_graphic() && first != b'/',
        // No blanks among these: Latin to Arabic, kana, CJK, Hangul, and all beyond 16 bits.
        0xc3..=0xdf | 0xe4..=0xed | 0xf0..=0xf4 => true,
        0xe3 => bytes.get(1).is_some_and(|&second| second >= 0x81),
        _ => false,
    }
}

/// True when the tokenizer treats the beginning of a text unlike the beginning of a stretch.
fn looks_at_the_beginning(json: &Value) -> bool {
    match json {
        Value::Object(map) => {
            map.get("prepend_scheme").is_some_and(|scheme| scheme == "first")
                || map.iter().any(|(key, value)| key != "vocab" && looks_at_the_beginning(value))
        }
        Value::Array(list) => list
            .iter()
            .any(|value| (value.is_object() || value.is_array()) && looks_at_the_beginning(value)),
        _ => false,
    }
}

/// (all patterns are known, they take runs of newlines whole)
fn known_patterns(pre_tokenizer: &Value) -> (bool, bool) {
    let steps = match pre_tokenizer["type"].as_str() {
        Some("Sequence") => pre_tokenizer["pretokenizers"].as_array().map_or(&[][..], |s| &s[..]),
        Some(_) => std::slice::from_ref(pre_tokenizer),
        None => &[],
    };
    let (mut known, mut newline, mut patterns) = (true, true, 0);
    for step in steps {
        match step["type"].as_str() {
            Some("ByteLevel") => {
                known &= step["add_prefix_space"] == false;
                if step["use_regex"] != false {
                    // GPT-2's pattern
                    patterns += 1;
                    newline = false;
                }
            }
            Some("Split") => {
                patterns += 1;
                known &= step["behavior"] == "Isolated"
                    && step["invert"] == false
                    && step["pattern"]["Regex"]
                        .as_str()
                        .is_some_and(|pattern| NEWLINE_PATTERNS.contains(&pattern));
            }
            Some("Digits") => {}
            _ => known = false,
        }
    }
    // The pieces of a number alone do not split after a letter.
    let words = steps.iter().any(|step| {
        step["type"] == "ByteLevel" && step["use_regex"] != false
            || step["pattern"]["Regex"].as_str().is_some_and(|text| text.contains(r"\s+(?!\S)"))
    });
    (known && patterns > 0 && words, newline)
}

/// True for normalizers that leave the places and what is around them alone.
fn keeps_places(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        None => normalizer.is_null(),
        Some("NFC") => true,
        Some("Sequence") => {
            normalizer["normalizers"].as_array().is_some_and(|steps| steps.iter().all(keeps_places))
        }
        Some(_) => false,
    }
}
