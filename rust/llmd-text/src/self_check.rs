//! The texts on which a fast tokenizer has to give the ids of the right one before it is used.
//!
//! They are fixed but for the model's own added tokens: languages, code, emoji, text that NFC
//! changes, random bytes as lossy UTF-8, random characters, long runs, and the tokens in the places
//! where matching goes wrong.

use crate::borders::AddedToken;

const TEXTS: &[&str] = &[
    "",
    " ",
    "\n",
    concat!(
        "The quick brown fox jumps over the lazy dog. It's 12:30, isn't it? They'LL see;",
        " we'd've known.",
    ),
    concat!(
        "  Leading blanks,  double  blanks,\ttabs\t\t and trailing ones   \n\n\n ",
        " next\r\nline\r\rend \u{a0} ",
    ),
    concat!(
        "Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy. Voix ambiguë d’un cœur",
        " qui, au zéphyr.",
    ),
    concat!(
        "Съешь же ещё этих мягких французских булок, да выпей чаю. Ξεσκεπάζω την ψυχοφθόρα",
        " βδελυγμία.",
    ),
    "我能吞下玻璃而不伤身体。敏捷的棕色狐狸跳过了懒狗，2024年12月31日。東京都庁へ行きました。カタカナひらがな。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. 대한민국 2025년.",
    "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت. דג סקרן שט בים מאוכזב ולפתע מצא לו חברה.",
    concat!(
        "नहीं नजर किसी की बुरी नहीं किसी का मुँह काला जो करे सो उपरवाला। ๏",
        " เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    ),
    "Tiếng Việt có dấu: Quốc gia Độc lập, Tự do, Hạnh phúc. Türkiye'de İstanbul ılık.",
    "😀😃👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇩🇪🇫🇷 1️⃣ ☂️ ❤ ⚙️ ∑∫√∞≠ ½ ⅔ Ⅳ ① ﬁ ﬀ ㎏ ㍿ x² H₂O",
    concat!(
        "fn main() {\n    let x: Vec<u32> = (0..10).map(|i| i *",
        " 2).collect();\n\tprintln!(\"{:?}\", x); // ok\n}\n",
    ),
    concat!(
        "def f(a, *, b=None):\n    \"\"\"Doc.\"\"\"\n    return {'a': a, \"b\": [b]} if a !=",
        " b else f'{a!r:>10}'\n\n\n\nclass C: pass\n",
    ),
    concat!(
        "SELECT a.id, COUNT(*) FROM t AS a WHERE a.x >= 1e-7 AND b <> 'it''s' GROUP BY 1; --",
        " done\n",
    ),
    concat!(
        "<html><body class=\"x\">&nbsp;<p>1 &lt; 2</p></body></html>",
        " https://a.b/c?d=e&f=%20#g user@example.org",
    ),
    concat!(
        "{\"a\":[1,2.50,-3e10,null,true],\"b\":\"\\u00e9\\n\"} 0x1F 1_000_000",
        " 3.14159265358979 00012345678901234567890",
    ),
    concat!(
        "e\u{301}a\u{308}o\u{302}\u{323} \u{1100}\u{1161}\u{11a8} \u{212b} \u{2126} \u{0958}",
        " \u{fb1d} a\u{315}\u{300}\u{5ae}b",
    ),
    concat!(
        "zero\u{200b}width\u{200d}join\u{feff}bom \u{202e}rtl\u{202c}",
        " \u{3000}wide\u{2003}em\u{2028}ls\u{2029}ps\u{85}nel\u{1680}",
    ),
    concat!(
        "CamelCaseAndHTTPServer_snake_case-kebab-case ALLCAPS mixedUP iPhone's OpenAI’s I'M",
        " YOU'RE 'tis",
    ),
    concat!(
        "...!!!???---***///\\\\\\___===+++~~~```\"\"\"''' ,;:.-_#'+*~ (a)[b]{c}<d> // /* x",
        " */ /\n/\n//\n",
    ),
    "\u{0}\u{1}\u{7f}\u{80}\u{9f}\u{ad}\u{fffd}\u{fffe}\u{10ffff}\u{e000}",
];

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn random_bytes(random: &mut Random, size: usize) -> String {
    let bytes: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Characters of all planes, blanks and ASCII often among them.
fn random_chars(random: &mut Random, count: usize) -> String {
    const COMMON: &[char] =
        &[' ', ' ', '\n', '\r', '\t', '\'', 's', 't', 'A', 'z', '0', '9', '.', '/', '<', '|', '>'];
    (0..count)
        .map(|_| match random.below(4) {
            0 | 1 => COMMON[random.below(COMMON.len())],
            2 => char::from_u32(random.below(0x3000) as u32).unwrap_or(' '),
            _ => char::from_u32(random.below(0x11_0000) as u32).unwrap_or('\u{fffd}'),
        })
        .collect()
}

fn runs() -> Vec<String> {
    let mut texts = Vec::new();
    for unit in ["a", " ", "\n", "=", "7", "é", "中", "😀", " a", "\n ", "ab", "\r\n", "\u{301}"]
    {
        for count in [2, 3, 17, 300] {
            texts.push(unit.repeat(count));
        }
    }
    texts.push("supercalifragilistic".repeat(200));
    texts
}

/// The text around an added token decides what is matched and what is stripped.
fn around_tokens(added: &[AddedToken]) -> Vec<String> {
    const TOKENS_MAX: usize = 400;
    let stride = added.len().div_ceil(TOKENS_MAX).max(1);
    added
        .iter()
        .step_by(stride)
        .flat_map(|token| {
            let t = &token.content;
            let cut = t.char_indices().last().map_or(0, |(at, _)| at);
            [
                format!("{t}{t} {t}\n{t}a{t} b \n {t}  c{t}"),
                format!("{} {}{t}{}", &t[..cut], t.to_uppercase(), &t[cut..]),
                format!("e\u{301}{t}\u{301}"),
            ]
        })
        .collect()
}

pub fn corpus(added: &[AddedToken]) -> Vec<String> {
    let mut random = Random(20_240_607);
    let mut texts: Vec<String> = TEXTS.iter().map(|text| text.to_string()).collect();
    texts.push(TEXTS.concat());
    texts.push(TEXTS.join(" "));
    texts.extend(runs());
    for _ in 0..40 {
        texts.push(random_bytes(&mut random, 200));
        texts.push(random_chars(&mut random, 300));
    }
    for _ in 0..60 {
        // Stretches of the texts in any order, cut anywhere.
        let mixed: String = (0..6)
            .map(|_| {
                let text = TEXTS[random.below(TEXTS.len())];
                let chars: Vec<char> = text.chars().collect();
                let (a, b) = (random.below(chars.len() + 1), random.below(chars.len() + 1));
                chars[a.min(b)..a.max(b)].iter().collect::<String>()
            })
            .collect();
        texts.push(mixed);
    }
    texts.extend(around_tokens(added));
    texts
}
