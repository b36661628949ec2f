use crate::borders::{AddedToken, Borders, PIECE_MIN};
use serde_json::json;

fn token(content: &str) -> AddedToken {
    AddedToken {
        content: content.into(),
        lstrip: false,
        rstrip: false,
        single_word: false,
        normalized: false,
    }
}

fn pieces(borders: &Borders, text: &str) -> Vec<String> {
    let (mut out, mut begin) = (Vec::new(), 0);
    borders.cut(text, |end| {
        out.push(text[begin..end].to_string());
        begin = end;
    });
    out
}

fn gpt2() -> serde_json::Value {
    json!({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}})
}

#[test]
fn a_text_is_cut_after_tokens_but_not_into_small_pieces() {
    let borders = Borders::new(&json!({}), &[token("<|end|>")]);
    let turn = format!("{}<|end|>", "x".repeat(PIECE_MIN));
    assert_eq!(
        pieces(&borders, &format!("{turn}a<|end|>{turn}b")),
        [turn.clone(), format!("a<|end|>{turn}"), "b".into()]
    );
    assert!(pieces(&borders, "").is_empty());
}

#[test]
fn blanks_that_a_token_takes_in_stay_with_it() {
    let borders = Borders::new(&json!({}), &[AddedToken { rstrip: true, ..token("<|end|>") }]);
    let turn = format!("{}<|end|> \n", "x".repeat(PIECE_MIN));
    assert_eq!(pieces(&borders, &format!("{turn}b")), [turn, "b".into()]);
}

#[test]
fn what_looks_around_turns_cutting_off() {
    let any = |json, tokens: &[AddedToken]| Borders::new(&json, tokens).any();
    let end = token("<|end|>");
    assert!(any(json!({}), &[end.clone()]));
    assert!(!any(json!({}), &[AddedToken { single_word: true, ..end.clone() }]));
    let first = json!({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}});
    assert!(!any(first, &[end]));
    assert!(any(gpt2(), &[]));
    let normalized = |text| AddedToken { normalized: true, ..token(text) };
    assert!(any(gpt2(), &[normalized("a b")]));
    assert!(!any(gpt2(), &[normalized("a b"), normalized("字。")]));
    let unknown = json!({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a b"},
                                           "behavior": "Isolated", "invert": false}});
    assert!(!any(unknown, &[]));
}

#[test]
fn long_stretches_are_cut_before_a_blank_after_a_letter() {
    let borders = Borders::new(&gpt2(), &[]);
    let text = "word, ".repeat(300) + &"more words ".repeat(300);
    let pieces = pieces(&borders, &text);
    assert_eq!(pieces.concat(), text);
    assert!(pieces.len() > 1);
    for pair in pieces.windows(2) {
        assert!(pair[0].ends_with(|c: char| c.is_ascii_alphabetic()) && pair[1].starts_with(' '));
    }
}

#[test]
fn text_without_blanks_is_cut_before_its_punctuation() {
    let text = "我能吞下玻璃而不伤身体，敏捷的棕色狐狸跳过了懒狗。".repeat(100);
    let pieces = pieces(&Borders::new(&gpt2(), &[]), &text);
    assert_eq!(pieces.concat(), text);
    assert!(pieces.len() > 1);
    for piece in &pieces[1..] {
        assert!(piece.starts_with(['，', '。']));
    }
}
