//! What is read off a template's syntax tree.
//!
//! Whether it goes through the parts of a message's content or takes it as a string: vLLM looks for
//! a loop over `content` of a variable that some loop takes from `messages`, and follows
//! assignments of either; so does this, with the same simplification: scopes are ignored.
//! Source: vLLM renderers/hf.py.

use minijinja::machinery::ast::{Expr, Stmt};

#[derive(Default)]
struct Nodes<'a> {
    sets: Vec<(&'a Expr<'a>, &'a Expr<'a>)>,  // target, value
    loops: Vec<(&'a Expr<'a>, &'a Expr<'a>)>, // target, iterated
}

impl<'a> Nodes<'a> {
    fn collect(&mut self, statements: &'a [Stmt<'a>]) {
        for statement in statements {
            match statement {
                Stmt::Template(node) => self.collect(&node.children),
                Stmt::ForLoop(node) => {
                    self.loops.push((&node.target, &node.iter));
                    self.collect(&node.body);
                    self.collect(&node.else_body);
                }
                Stmt::IfCond(node) => {
                    self.collect(&node.true_body);
                    self.collect(&node.false_body);
                }
                Stmt::WithBlock(node) => self.collect(&node.body),
                Stmt::Set(node) => self.sets.push((&node.target, &node.expr)),
                Stmt::SetBlock(node) => self.collect(&node.body),
                Stmt::AutoEscape(node) => self.collect(&node.body),
                Stmt::FilterBlock(node) => self.collect(&node.body),
                Stmt::Block(node) => self.collect(&node.body),
                Stmt::Macro(node) => self.collect(&node.body),
                Stmt::CallBlock(node) => self.collect(&node.macro_decl.body),
                _ => {}
            }
        }
    }
}

fn name<'a>(expr: &'a Expr<'a>) -> Option<&'a str> {
    match expr {
        Expr::Var(var) => Some(var.id),
        _ => None,
    }
}

/// `expr` is the variable, or its member `key`, or a filter, test or slice of that.
fn reads(expr: &Expr, variable: &str, key: Option<&str>) -> bool {
    match expr {
        Expr::Filter(node) => node.expr.as_ref().is_some_and(|inner| reads(inner, variable, key)),
        Expr::Test(node) => reads(&node.expr, variable, key),
        Expr::Slice(node) => reads(&node.expr, variable, key),
        Expr::Var(node) => key.is_none() && node.id == variable,
        Expr::GetAttr(node) => key == Some(node.name) && name(&node.expr) == Some(variable),
        Expr::GetItem(node) => match &node.subscript_expr {
            Expr::Const(constant) => {
                key.is_some()
                    && constant.value.as_str() == key
                    && name(&node.expr) == Some(variable)
            }
            _ => false,
        },
        _ => false,
    }
}

/// The names that hold `messages`; None where vLLM gives up.
fn holders<'a>(nodes: &Nodes<'a>) -> Option<Vec<&'a str>> {
    let mut names = vec!["messages"];
    let mut next = 0;
    while next < names.len() {
        for (target, value) in &nodes.sets {
            if reads(value, names[next], None) {
                let target = name(target)?;
                if !names.contains(&target) {
                    names.push(target);
                }
            }
        }
        next += 1;
    }
    Some(names)
}

/// The names that loops over one of `lists`, or over `key` of one, give their items.
fn items<'a>(nodes: &Nodes<'a>, lists: &[&str], key: Option<&str>) -> Option<Vec<&'a str>> {
    let mut names = Vec::new();
    for (target, iterated) in &nodes.loops {
        if lists.iter().any(|list| reads(iterated, list, key)) {
            names.push(name(target)?);
            if key.is_some() {
                break;
            }
        }
    }
    Some(names)
}

/// Where in the source the names stand that loops go through: (begin, end), in order.
pub fn loop_places(template: &Stmt) -> Vec<(usize, usize)> {
    let mut nodes = Nodes::default();
    nodes.collect(std::slice::from_ref(template));
    let places = nodes.loops.iter().filter_map(|(_, iterated)| match iterated {
        Expr::Var(node) => {
            Some((node.span().start_offset as usize, node.span().end_offset as usize))
        }
        _ => None,
    });
    let mut places: Vec<(usize, usize)> = places.collect();
    places.sort_unstable();
    places
}

/// True when the template goes through the parts of a content.
pub fn takes_parts(template: &Stmt) -> bool {
    let mut nodes = Nodes::default();
    nodes.collect(std::slice::from_ref(template));
    let found = holders(&nodes)
        .and_then(|lists| items(&nodes, &lists, None))
        .and_then(|messages| items(&nodes, &messages, Some("content")));
    found.is_some_and(|names| !names.is_empty())
}
