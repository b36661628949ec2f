//! What cel-go's type checker refuses before anything is evaluated, and a bound on the cost.
//!
//! Types are inferred from literals, operators and the standard functions; what comes out of an
//! object or a list is of any type, and then the evaluation decides. So all that cel-go accepts is
//! accepted, apart from regular expressions and times, and nearly all that it refuses is refused.

use std::collections::HashMap;

use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};
use cel::{IdedExpr, Program};

use crate::cel::Limits;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Null,
    List,
    Map,
    TypeOf,
}

use Kind::*;

const NUMBERS: &[Kind] = &[Int, Uint, Double];
const ORDERED: &[Kind] = &[Bool, Int, Uint, Double, Text, Bytes];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Any => "dyn",
            Bool => "bool",
            Int => "int",
            Uint => "uint",
            Double => "double",
            Text => "string",
            Bytes => "bytes",
            Null => "null",
            List => "list",
            Map => "map",
            TypeOf => "type",
        }
    }

    fn may_be(self, wanted: &[Kind]) -> bool {
        self == Any || wanted.contains(&self)
    }

    /// The type of a value that is either this or `other`; None when that cannot be.
    fn join(self, other: Kind) -> Option<Kind> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Any, _) | (_, Any) => Some(Any),
            _ => None,
        }
    }
}

/// Functions that are called by name: accepted types of their one argument, and the result.
const CONVERSIONS: &[(&str, &[Kind], Kind)] = &[
    ("bool", &[Bool, Text], Bool),
    ("bytes", &[Bytes, Text], Bytes),
    ("double", &[Double, Int, Uint, Text], Double),
    ("int", &[Int, Uint, Double, Text], Int),
    ("size", &[Text, Bytes, List, Map], Int),
    ("string", &[Text, Bool, Int, Uint, Double, Bytes], Text),
    ("uint", &[Uint, Int, Double, Text], Uint),
];
const TYPE_NAMES: &[&str] =
    &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
const STRING_TESTS: &[&str] = &["contains", "startsWith", "endsWith"];

/// What is known of a subexpression. `count` bounds the elements that a loop over its value meets,
/// `inner` what one of them is made of, `size` all the elements and characters in it, `cost` the
/// steps that lead to it; all saturate.
#[derive(Clone, Copy)]
struct Fact {
    kind: Kind,
    count: usize,
    inner: usize,
    size: usize,
    cost: usize,
}

const SCALAR: usize = 1;
/// Characters of the longest number in text.
const NUMBER_TEXT: usize = 32;

struct Checker<'a> {
    program: &'a Program,
    scope: HashMap<&'a str, Fact>,
    depth_left: usize,
    // A loop is looked at twice, loops in loops more often: the check is bounded as well.
    visits_left: usize,
}

/// Refuses brackets that are nested deeper than a parser's stack should have to bear. Quotes do not
/// matter: a bracket inside of a literal may count.
pub fn check_nesting(source: &str, depth_max: usize) -> Result<(), String> {
    let (mut depth, mut deepest) = (0usize, 0usize);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        deepest = deepest.max(depth);
    }
    if deepest > depth_max {
        return Err(format!("brackets are nested {deepest} deep, of at most {depth_max}"));
    }
    Ok(())
}

/// `variables` are the names that the expression may use, and how many fields each has if it is an
/// object; `size` bounds each of them.
pub fn check(
    program: &Program,
    variables: &[(&str, Option<usize>)],
    size: usize,
    limits: &Limits,
) -> Result<(), String> {
    let scope = variables
        .iter()
        .map(|(name, fields)| {
            let kind = if fields.is_some() { Map } else { Double };
            (*name, Fact { kind, count: fields.unwrap_or(0), inner: size, size, cost: 1 })
        })
        .collect();
    let mut checker =
        Checker { program, scope, depth_left: limits.depth, visits_left: limits.cost };
    let fact = checker.expr(program.expression())?;
    if fact.cost > limits.cost {
        return Err(format!(
            "an evaluation could take {} steps of at most {}",
            fact.cost, limits.cost
        ));
    }
    Ok(())
}

fn sum(facts: &[Fact], of: impl Fn(&Fact) -> usize) -> usize {
    facts.iter().map(of).fold(0, usize::saturating_add)
}

fn most(facts: &[Fact], of: impl Fn(&Fact) -> usize) -> usize {
    facts.iter().map(of).max().unwrap_or(0)
}

type Checked = Result<Fact, String>;

impl<'a> Checker<'a> {
    fn error(&self, at: &IdedExpr, what: String) -> String {
        let source = &self.program.source_info().source;
        let Some((start, _)) = self.program.source_info().offset_for(at.id) else { return what };
        let before: String = source.chars().take(start as usize).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{line}:{column}: {what}")
    }

    fn no_overload(&self, at: &IdedExpr, name: &str, facts: &[Fact]) -> String {
        let types: Vec<_> = facts.iter().map(|fact| fact.kind.name()).collect();
        let types = types.join(", ");
        self.error(at, format!("found no matching overload for '{name}' applied to '({types})'"))
    }

    fn expr(&mut self, at: &'a IdedExpr) -> Checked {
        if self.depth_left == 0 {
            return Err(self.error(at, "operators are nested too deep".into()));
        }
        if self.visits_left == 0 {
            return Err(self.error(at, "loops are nested too deep".into()));
        }
        self.depth_left -= 1;
        self.visits_left -= 1;
        let checked = match &at.expr {
            Expr::Literal(value) => Ok(literal(value)),
            Expr::Ident(name) => self.ident(at, name),
            Expr::Select(select) => self.select(at, select),
            Expr::Call(call) => self.call(at, call),
            Expr::List(list) => {
                let facts = self.all(&list.elements);
                facts.map(|facts| self.gathered(List, &facts))
            }
            Expr::Map(map) => self.map(&map.entries),
            Expr::Comprehension(comprehension) => self.comprehension(at, comprehension),
            Expr::Struct(object) => {
                Err(self.error(at, format!("undeclared reference to '{}'", object.type_name)))
            }
            Expr::Unspecified => Err(self.error(at, "an expression is missing".into())),
        };
        self.depth_left += 1;
        checked
    }

    fn all(&mut self, exprs: impl IntoIterator<Item = &'a IdedExpr>) -> Result<Vec<Fact>, String> {
        exprs.into_iter().map(|expr| self.expr(expr)).collect()
    }

    fn gathered(&self, kind: Kind, parts: &[Fact]) -> Fact {
        let size = sum(parts, |fact| fact.size).saturating_add(SCALAR);
        let cost = sum(parts, |fact| fact.cost).saturating_add(size);
        let inner = most(parts, |fact| fact.size);
        Fact { kind, count: parts.len(), inner, size, cost }
    }

    fn ident(&self, at: &IdedExpr, name: &str) -> Checked {
        if let Some(fact) = self.scope.get(name) {
            return Ok(*fact);
        }
        if TYPE_NAMES.contains(&name) {
            return Ok(scalar(TypeOf));
        }
        Err(self.error(at, format!("undeclared reference to '{name}'")))
    }

    fn select(&mut self, at: &IdedExpr, select: &'a SelectExpr) -> Checked {
        let operand = self.expr(&select.operand)?;
        if !operand.kind.may_be(&[Map]) {
            let kind = operand.kind.name();
            return Err(self.error(at, format!("type '{kind}' does not support field selection")));
        }
        let kind = if select.test { Bool } else { Any };
        let cost = operand.cost.saturating_add(1);
        let size = operand.inner;
        Ok(Fact { kind, count: size, inner: size, size, cost })
    }

    fn map(&mut self, entries: &'a [cel::common::ast::IdedEntryExpr]) -> Checked {
        let mut facts = Vec::new();
        for entry in entries {
            match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    let key = self.expr(&entry.key)?;
                    if !key.kind.may_be(&[Bool, Int, Uint, Text]) {
                        return Err(self.error(
                            &entry.key,
                            format!("type '{}' cannot be the key of a map", key.kind.name()),
                        ));
                    }
                    facts.push(key);
                    facts.push(self.expr(&entry.value)?);
                }
                EntryExpr::StructField(_) => return Err("a field outside of an object".into()),
            }
        }
        Ok(self.gathered(Map, &facts))
    }

    fn call(&mut self, at: &IdedExpr, call: &'a CallExpr) -> Checked {
        let facts = self.all(call.target.as_deref().into_iter().chain(&call.args))?;
        let kinds: Vec<Kind> = facts.iter().map(|fact| fact.kind).collect();
        let name = call.func_name.as_str();
        let found = match call.target {
            Some(_) => method(name, &kinds),
            None => function(name, &kinds),
        };
        let kind = match found {
            Overload::Is(kind) => kind,
            Overload::None => return Err(self.no_overload(at, name, &facts)),
            Overload::Unknown => {
                return Err(self.error(at, format!("undeclared reference to '{name}'")))
            }
        };
        // A result is made of what went in; a number turned into text is longer than it was.
        let size = sum(&facts, |fact| fact.size).saturating_add(NUMBER_TEXT);
        let size = if kind.may_be(&[Text, Bytes, List, Map]) { size } else { SCALAR };
        let count = if kind == List { sum(&facts, |fact| fact.count) } else { size };
        let inner = if kind == List { most(&facts, |fact| fact.inner) } else { size };
        let inside = sum(&facts, |fact| fact.cost);
        let touched = sum(&facts, |fact| fact.size);
        let cost = inside.saturating_add(touched).saturating_add(1);
        Ok(Fact { kind, count, inner, size, cost })
    }

    /// The macros' loops: `step` runs once for each element, and what it gathers grows by what one
    /// step makes of an empty start.
    fn comprehension(&mut self, at: &'a IdedExpr, loops: &'a ComprehensionExpr) -> Checked {
        let range = self.expr(&loops.iter_range)?;
        if !range.kind.may_be(&[List, Map]) {
            let kind = range.kind.name();
            return Err(self.error(
                &loops.iter_range,
                format!("type '{kind}' cannot be the range of a macro"),
            ));
        }
        let start = self.expr(&loops.accu_init)?;
        let inner = range.inner;
        let element = Fact { kind: Any, count: inner, inner, size: inner, cost: 1 };
        let hidden = [
            Some((loops.iter_var.as_str(), element)),
            loops.iter_var2.as_deref().map(|name| (name, element)),
            Some((loops.accu_var.as_str(), start)),
        ];
        let outer = self.scope.clone();
        self.scope.extend(hidden.into_iter().flatten());
        let first = self.expr(&loops.loop_step)?;
        let grows = first.kind.may_be(&[List, Map, Text, Bytes]);
        let gathered = if grows { start.grown(first, range.count) } else { scalar(first.kind) };
        self.scope.insert(loops.accu_var.as_str(), gathered);
        let rest = self.all([&loops.loop_cond, &loops.loop_step])?;
        let result = self.expr(&loops.result)?;
        self.scope = outer;
        if !rest[0].kind.may_be(&[Bool]) {
            return Err(self.no_overload(at, "loop", &rest[..1]));
        }
        let once = sum(&rest, |fact| fact.cost).saturating_add(1);
        let cost = sum(&[range, start, result], |fact| fact.cost)
            .saturating_add(once.saturating_mul(range.count));
        Ok(Fact { kind: result.kind, cost, ..gathered })
    }
}

impl Fact {
    /// After `rounds`, each of which adds what `first` is.
    fn grown(self, first: Fact, rounds: usize) -> Fact {
        Fact {
            kind: first.kind,
            count: self.count.saturating_add(first.count.saturating_mul(rounds)),
            inner: first.inner,
            size: self.size.saturating_add(first.size.saturating_mul(rounds)),
            cost: 1,
        }
    }
}

fn scalar(kind: Kind) -> Fact {
    Fact { kind, count: 0, inner: 0, size: SCALAR, cost: 1 }
}

fn literal(value: &LiteralValue) -> Fact {
    match value {
        LiteralValue::Boolean(_) => scalar(Bool),
        LiteralValue::Int(_) => scalar(Int),
        LiteralValue::UInt(_) => scalar(Uint),
        LiteralValue::Double(_) => scalar(Double),
        LiteralValue::Null => scalar(Null),
        LiteralValue::String(text) => Fact { size: SCALAR + text.inner().len(), ..scalar(Text) },
        LiteralValue::Bytes(bytes) => Fact { size: SCALAR + bytes.inner().len(), ..scalar(Bytes) },
    }
}

enum Overload {
    Is(Kind),
    None,
    Unknown,
}

fn when(fits: bool, kind: Kind) -> Overload {
    if fits {
        Overload::Is(kind)
    } else {
        Overload::None
    }
}

/// Both of one type out of `wanted`.
fn same(a: Kind, b: Kind, wanted: &[Kind]) -> Option<Kind> {
    a.join(b).filter(|_| a.may_be(wanted) && b.may_be(wanted))
}

fn function(name: &str, kinds: &[Kind]) -> Overload {
    let binary = |wanted: &[Kind]| match same(kinds[0], kinds[1], wanted) {
        // An operand that is known settles the result: nothing mixes types.
        Some(_) => Overload::Is(if kinds[0] == Any { kinds[1] } else { kinds[0] }),
        None => Overload::None,
    };
    match (name, kinds) {
        (op::CONDITIONAL, [condition, a, b]) => match a.join(*b) {
            Some(kind) => when(condition.may_be(&[Bool]), kind),
            None => Overload::None,
        },
        (op::LOGICAL_AND | op::LOGICAL_OR, [..]) => {
            when(kinds.iter().all(|kind| kind.may_be(&[Bool])), Bool)
        }
        (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, [a]) => when(a.may_be(&[Bool]), Bool),
        (op::NEGATE, [a]) => when(a.may_be(&[Int, Double]), *a),
        (op::EQUALS | op::NOT_EQUALS, [a, b]) => when(a.join(*b).is_some(), Bool),
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b]) => {
            when(same(*a, *b, ORDERED).is_some(), Bool)
        }
        (op::ADD, [_, _]) => binary(&[Int, Uint, Double, Text, Bytes, List]),
        (op::SUBSTRACT | op::MULTIPLY | op::DIVIDE, [_, _]) => binary(NUMBERS),
        (op::MODULO, [_, _]) => binary(&[Int, Uint]),
        (op::INDEX, [container, _]) => when(container.may_be(&[List, Map]), Any),
        (op::IN, [_, container]) => when(container.may_be(&[List, Map]), Bool),
        ("dyn", [_]) => Overload::Is(Any),
        ("type", [_]) => Overload::Is(TypeOf),
        _ => match CONVERSIONS.iter().find(|(known, _, _)| *known == name) {
            Some((_, from, to)) => when(kinds.len() == 1 && kinds[0].may_be(from), *to),
            None if matches!(name, "dyn" | "type") => Overload::None,
            None => Overload::Unknown,
        },
    }
}

fn method(name: &str, kinds: &[Kind]) -> Overload {
    match (name, kinds) {
        ("size", [a]) => when(a.may_be(&[Text, Bytes, List, Map]), Int),
        ("size", _) => Overload::None,
        _ if STRING_TESTS.contains(&name) => {
            when(kinds.len() == 2 && kinds.iter().all(|kind| kind.may_be(&[Text])), Bool)
        }
        _ => Overload::Unknown,
    }
}
