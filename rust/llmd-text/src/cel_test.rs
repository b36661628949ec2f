//! Expected results are those of cel-go with the variable `usage` a google.protobuf.Struct, whose
//! numbers are doubles.

use crate::border::{FAILED, INVALID};
use crate::cel::Answer::{Bool, Double, Int};
use crate::cel::{Answer, CelProgram, Input, Limits};

const PATHS: &[&str] = &[
    "usage.prompt_tokens",
    "usage.completion_tokens",
    "usage.total_tokens",
    "usage.prompt_tokens_details.cached_tokens",
];
const LIMITS: Limits = Limits { source_bytes: 4096, depth: 96, cost: 100_000 };

fn here(value: i64) -> Input {
    Input { value, present: 1 }
}
const ABSENT: Input = Input { value: 0, present: 0 };

fn compile(source: &str) -> Result<CelProgram, String> {
    CelProgram::compile(source, PATHS, &LIMITS).map_err(|failure| {
        assert_eq!(failure.status, INVALID, "{source}");
        failure.text
    })
}

fn evaluate(source: &str, inputs: &[Input]) -> Result<Answer, String> {
    let program = compile(source).unwrap_or_else(|text| panic!("{source}: {text}"));
    program.evaluate(inputs).map_err(|failure| {
        assert_eq!(failure.status, FAILED, "{source}");
        failure.text
    })
}

/// 10 in the prompt, 3 completed, 13 in total, nothing said of the cache.
const USUAL: &[(i64, bool)] = &[(10, true), (3, true), (13, true), (0, false)];

fn usual() -> Vec<Input> {
    USUAL.iter().map(|(value, present)| Input { value: *value, present: *present as u8 }).collect()
}

#[test]
fn values() {
    let cases: &[(&str, Answer)] = &[
        ("usage.prompt_tokens + usage.completion_tokens", Double(13.0)),
        ("usage.prompt_tokens", Double(10.0)),
        ("usage['prompt_tokens']", Double(10.0)),
        ("has(usage.prompt_tokens) ? usage.prompt_tokens : 0", Double(10.0)),
        ("has(usage.other) ? usage.other : 0", Int(0)),
        ("has(usage.prompt_tokens_details) ? 1 : 2", Int(2)),
        ("has(usage.prompt_tokens) && has(usage.completion_tokens)", Bool(true)),
        ("'prompt_tokens' in usage", Bool(true)),
        ("size(usage)", Int(3)),
        ("usage.size()", Int(3)),
        // Comparisons cross types where the type is known only now.
        ("usage.prompt_tokens > 1", Bool(true)),
        ("usage.prompt_tokens == 10", Bool(true)),
        ("usage.prompt_tokens == 10u", Bool(true)),
        ("usage.prompt_tokens != 'ten'", Bool(true)),
        ("usage.prompt_tokens >= usage.completion_tokens", Bool(true)),
        // Arithmetic.
        ("int(usage.prompt_tokens) + 1", Int(11)),
        ("int(usage.prompt_tokens) % int(usage.completion_tokens)", Int(1)),
        ("usage.prompt_tokens / usage.completion_tokens", Double(10.0 / 3.0)),
        ("usage.prompt_tokens * 0.5", Double(5.0)),
        ("-usage.prompt_tokens", Double(-10.0)),
        ("usage.completion_tokens - usage.prompt_tokens", Double(-7.0)),
        ("7 / 2", Int(3)),
        ("-7 / 2", Int(-3)),
        ("-7 % 2", Int(-1)),
        ("1.0 / 0.0", Double(f64::INFINITY)),
        ("9223372036854775807", Int(i64::MAX)),
        ("-9223372036854775808", Int(i64::MIN)),
        ("0x10", Int(16)),
        ("1e3", Double(1000.0)),
        ("0.1 + 0.2", Double(0.1 + 0.2)),
        ("2 + 3 * 4 - 1", Int(13)),
        ("(2 + 3) * 4", Int(20)),
        // Conversions.
        ("int(1.9)", Int(1)),
        ("int(-1.9)", Int(-1)),
        ("int(7u)", Int(7)),
        ("int('42')", Int(42)),
        ("double(3)", Double(3.0)),
        ("int(uint(3.0)) + 1", Int(4)),
        ("double('1.5')", Double(1.5)),
        ("string(usage.prompt_tokens) == '10'", Bool(true)),
        ("type(usage.prompt_tokens) == double", Bool(true)),
        ("type(usage) == map", Bool(true)),
        ("dyn(1) == 1.0", Bool(true)),
        // An error is absorbed where the other side decides.
        ("usage.other > 1 || true", Bool(true)),
        ("true || usage.other > 1", Bool(true)),
        ("usage.other > 1 && false", Bool(false)),
        ("usage.prompt_tokens > 5 ? 1 : usage.other", Int(1)),
        ("!(usage.prompt_tokens > 5)", Bool(false)),
        // Lists, maps, macros.
        ("[usage.prompt_tokens, usage.completion_tokens].exists(n, n > 5)", Bool(true)),
        ("[usage.prompt_tokens, usage.completion_tokens].all(n, n > 5)", Bool(false)),
        ("[1, 2, 3].map(n, n * n)[2]", Int(9)),
        ("[1, 2, 3].filter(n, n > 1).size()", Int(2)),
        ("[1, 2, 3].exists_one(n, n == 2)", Bool(true)),
        ("usage.exists(name, name == 'total_tokens')", Bool(true)),
        ("{'a': 1}.a", Int(1)),
        ("'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", Bool(true)),
        ("size('aäb')", Int(3)),
        ("  1 // and a remark\n + 1", Int(2)),
        ("[1] + [2] == [1, 2]", Bool(true)),
        ("null == null", Bool(true)),
    ];
    for (source, expected) in cases {
        assert_eq!(evaluate(source, &usual()), Ok(*expected), "{source}");
    }
}

#[test]
fn errors_of_an_evaluation() {
    let cases: &[(&str, &str)] = &[
        ("usage.other", "No such key: other"),
        ("usage.other > 1", "No such key"),
        ("usage.prompt_tokens_details.cached_tokens", "No such key: prompt_tokens_details"),
        ("has(usage.prompt_tokens_details.cached_tokens)", "No such key"),
        ("usage.prompt_tokens.deeper", "overload"),
        // Doubles and ints do not mix.
        ("usage.prompt_tokens + 1", ""),
        ("usage.prompt_tokens * 2", ""),
        ("usage.prompt_tokens % 2", ""),
        ("usage.prompt_tokens > 'ten'", ""),
        ("usage.prompt_tokens ? 1 : 2", ""),
        ("usage.prompt_tokens && true", ""),
        ("usage.other > 1 || false", "No such key"),
        ("1 / 0", "by zero"),
        ("1 % 0", "by zero"),
        ("1u / 0u", "by zero"),
        ("9223372036854775807 + 1", "Overflow"),
        ("-9223372036854775808 - 1", "Overflow"),
        ("9223372036854775807 * 2", "Overflow"),
        ("-9223372036854775808 / -1", ""),
        ("-(-9223372036854775808)", ""),
        ("0u - 1u", "Overflow"),
        ("18446744073709551615u + 1u", "Overflow"),
        ("int(1e19)", ""),
        ("int(-1e19)", ""),
        ("int(1.0 / 0.0)", ""),
        ("int(0.0 / 0.0)", ""),
        ("int(18446744073709551615u)", ""),
        ("uint(-1)", ""),
        ("int('ten')", ""),
        ("[1][1]", ""),
        // Only ints, doubles and bools are results.
        ("'text'", "neither int, double nor bool: string"),
        ("1u", "neither int, double nor bool: uint"),
        ("usage", "neither int, double nor bool: map"),
        ("null", "neither int, double nor bool: null"),
    ];
    for (source, part) in cases {
        match evaluate(source, &usual()) {
            Ok(answer) => panic!("{source}: {answer:?}"),
            Err(text) => assert!(text.contains(part), "{source}: {text}"),
        }
    }
}

#[test]
fn what_does_not_compile() {
    let cases: &[(&str, &str)] = &[
        ("", "1:1: "),
        ("1 +", "1:4: "),
        ("usage.", "1:7: "),
        ("(1", "1:3: "),
        ("1 1", "1:3: "),
        ("'open", "1:1: "),
        ("a\n  + usage.prompt_tokens", "1:1: undeclared reference to 'a'"),
        ("1 +\n  other", "2:3: undeclared reference to 'other'"),
        ("prompt_tokens", "undeclared reference to 'prompt_tokens'"),
        ("twice(1)", "undeclared reference to 'twice'"),
        ("usage.twice()", "undeclared reference to 'twice'"),
        ("math.greatest(1, 2)", "undeclared reference to 'math'"),
        ("'a'.matches('a')", "undeclared reference to 'matches'"),
        ("[1].map(n, m)", "undeclared reference to 'm'"),
        ("[1].map(n, n)[0] + n", "undeclared reference to 'n'"),
        ("Usage{prompt: 1}", "undeclared reference to 'Usage'"),
        ("1 + 1.0", "found no matching overload for '_+_' applied to '(int, double)'"),
        ("1 + 'a'", "(int, string)"),
        ("1 + 1u", "(int, uint)"),
        ("1 == 1.0", "(int, double)"),
        ("1 < 1.5", "(int, double)"),
        ("1.5 % 2.0", "'_%_'"),
        ("!1", "'!_'"),
        ("-'a'", "'-_'"),
        ("-1u", ""),
        ("1 && true", "'_&&_'"),
        ("1 ? 2 : 3", "'_?_:_'"),
        ("true ? 1 : 'a'", "'_?_:_'"),
        ("usage + 1", "(map, int)"),
        ("usage > usage", "(map, map)"),
        ("size(1)", "'size'"),
        ("size('a', 'b')", "'size'"),
        ("int(true)", "'int'"),
        ("1.size()", ""),
        ("(1).a", "type 'int' does not support field selection"),
        ("has((1).a)", "type 'int' does not support field selection"),
        ("has(usage)", ""),
        ("1.map(n, n)", ""),
        ("(1).map(n, n)", "cannot be the range"),
        ("{1.5: 1}", "cannot be the key"),
        ("9223372036854775808", ""),
        ("0x", ""),
        ("usage.?prompt_tokens", ""),
        ("usage[?'a']", ""),
        ("@result", ""),
    ];
    for (source, part) in cases {
        match compile(source) {
            Ok(_) => panic!("{source}: compiles"),
            Err(text) => assert!(text.contains(part), "{source}: {text}"),
        }
    }
}

#[test]
fn what_is_there_changes_between_evaluations() {
    let program = compile(
        "has(usage.prompt_tokens_details) ? usage.prompt_tokens_details.cached_tokens : -1.0",
    )
    .unwrap();
    let cases = [(ABSENT, -1.0), (here(0), 0.0), (here(7), 7.0), (ABSENT, -1.0)];
    for (cached, expected) in cases {
        let inputs = [here(10), here(3), here(13), cached];
        assert_eq!(program.evaluate(&inputs).ok(), Some(Double(expected)));
    }
    let nothing = [ABSENT; 4];
    assert_eq!(evaluate("has(usage.prompt_tokens)", &nothing), Ok(Bool(false)));
    assert_eq!(evaluate("size(usage)", &nothing), Ok(Int(0)));
}

#[test]
fn integers_past_two_to_the_53_are_rounded_as_doubles() {
    let inputs = [here((1 << 53) + 1), here(i64::MAX), here(i64::MIN), ABSENT];
    assert_eq!(evaluate("usage.prompt_tokens", &inputs), Ok(Double(9007199254740992.0)));
    assert_eq!(evaluate("int(usage.prompt_tokens)", &inputs), Ok(Int(1 << 53)));
    assert!(evaluate("int(usage.completion_tokens)", &inputs).is_err());
    assert_eq!(evaluate("usage.total_tokens", &inputs), Ok(Double(i64::MIN as f64)));
}

#[test]
fn a_path_may_be_a_plain_name_and_may_be_absent() {
    let program = CelProgram::compile("tokens * 2.0", &["tokens"], &LIMITS).unwrap();
    assert_eq!(program.evaluate(&[here(4)]).ok(), Some(Double(8.0)));
    assert_eq!(program.evaluate(&[ABSENT]).unwrap_err().status, FAILED);
    assert!(CelProgram::compile("1", &[], &LIMITS).unwrap().evaluate(&[]).is_ok());
}

#[test]
fn long_deep_and_costly_expressions_are_refused() {
    let deep = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    let sum = |terms: usize| vec!["1"; terms].join(" + ");
    let ternaries = |count: usize| "true ? 1 : ".repeat(count) + "0";
    let list = |size: usize| format!("[{}]", vec!["1"; size].join(","));
    let loops = |range: &str, depth: usize| {
        let mut step = "1".to_string();
        for level in 0..depth {
            step = format!("{range}.map(n{level}, {step})");
        }
        format!("size({step})")
    };
    let fine = [
        deep(40),
        sum(40),
        ternaries(30),
        list(1000) + ".exists(n, n == 1)",
        loops("[1,2,3,4]", 3),
        "!".repeat(2000) + "true",
    ];
    for source in fine {
        assert!(
            compile(&source)
                .and_then(|program| {
                    program.evaluate(&usual()).map(|_| ()).map_err(|failure| failure.text)
                })
                .is_ok(),
            "{source}: {:?}",
            compile(&source).err()
        );
    }
    let refused = [
        (deep(97), "nested"),
        (deep(2000), "nested"),
        ("[".repeat(2000), "nested"),
        (sum(1000), ""),
        (ternaries(300), ""),
        ("-(".repeat(300) + "1" + &")".repeat(300), "nested"),
        ("usage".to_string() + &".a".repeat(1000), ""),
        ("1".repeat(4097), "has 4097 bytes of at most 4096"),
        (loops(&list(200), 3), "steps of at most 100000"),
        (loops("[1,2,3,4,5,6,7,8]", 12), ""),
        (loops("[1]", 30), ""),
        (
            "['aaaaaaaa'].map(a, a + a + a + a)".to_string()
                + &".map(a, a + a + a + a + a + a + a + a)".repeat(20),
            "",
        ),
    ];
    for (source, part) in refused {
        match compile(&source) {
            Ok(_) => panic!("{source}: compiles"),
            Err(text) => assert!(text.contains(part), "{source}: {text}"),
        }
    }
}

#[test]
fn one_program_serves_many_threads() {
    let program = compile("usage.prompt_tokens + usage.completion_tokens").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let program = &program;
            scope.spawn(move || {
                for round in 0..1000 {
                    let inputs = [here(thread), here(round), ABSENT, ABSENT];
                    let expected = Double((thread + round) as f64);
                    assert_eq!(program.evaluate(&inputs).ok(), Some(expected));
                }
            });
        }
    });
}
