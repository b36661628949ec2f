//! Expressions in the Common Expression Language over a few numbers.
//!
//! The crate `cel` parses and evaluates. It knows types only while it evaluates, so `cel_check`
//! refuses at once what cel-go's type checker would, and bounds what an evaluation can cost.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cel::common::types::{CelDouble, CelMap, CelMapKey};
use cel::common::value::Val;
use cel::{Context, Env, Program, Value};

use crate::border::{call, elements, text, Failure, Message, Slice};
use crate::cel_check;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Limits {
    pub source_bytes: usize,
    pub depth: usize,
    pub cost: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Input {
    pub value: i64,
    pub present: u8,
}

#[repr(C)]
pub struct CelValue {
    kind: i32,
    integer: i64,
    number: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Int(i64),
    Double(f64),
    Bool(bool),
}

/// A field of the inputs: a number, or an object of fields.
enum Field {
    Leaf(usize),
    Object(Vec<(String, Field)>),
}

impl Field {
    fn insert(&mut self, names: &[&str], input: usize) {
        let Field::Object(fields) = self else { panic!("a path is the beginning of another") };
        let (name, rest) = names.split_first().expect("a path has a name");
        let place = fields.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            fields.push((name.to_string(), Field::Object(Vec::new())));
            fields.len() - 1
        });
        if rest.is_empty() {
            let empty = matches!(&fields[place].1, Field::Object(inner) if inner.is_empty());
            assert!(empty, "a path is there twice or is the beginning of another");
            fields[place].1 = Field::Leaf(input);
        } else {
            fields[place].1.insert(rest, input);
        }
    }

    /// How many fields an object can have.
    fn count(&self) -> Option<usize> {
        match self {
            Field::Leaf(_) => None,
            Field::Object(fields) => Some(fields.len()),
        }
    }

    /// None when neither it nor anything in it is there.
    fn value<'a>(&'a self, inputs: &[Input]) -> Option<Box<dyn Val + 'a>> {
        match self {
            Field::Leaf(input) => {
                let input = inputs[*input];
                (input.present != 0).then(|| Box::new(CelDouble::from(input.value as f64)) as _)
            }
            Field::Object(fields) => {
                let object = object(fields, inputs);
                (!object.is_empty()).then(|| Box::new(CelMap::from(object)) as _)
            }
        }
    }
}

fn object<'a>(
    fields: &'a [(String, Field)],
    inputs: &[Input],
) -> HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> {
    fields
        .iter()
        .filter_map(|(name, field)| Some((CelMapKey::from(name.as_str()), field.value(inputs)?)))
        .collect()
}

pub struct CelProgram {
    program: Program,
    roots: Vec<(String, Field)>,
    inputs: usize,
}

const _: fn() = || {
    fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<CelProgram>();
};

fn environment() -> Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    ENV.get_or_init(|| Arc::new(Env::stdlib().with_optional_support(false))).clone()
}

impl CelProgram {
    pub fn compile(source: &str, paths: &[&str], limits: &Limits) -> Result<Self, Failure> {
        if source.len() > limits.source_bytes {
            return Err(Failure::invalid(format!(
                "the expression has {} bytes of at most {}",
                source.len(),
                limits.source_bytes
            )));
        }
        cel_check::check_nesting(source, limits.depth).map_err(Failure::invalid)?;
        let program = environment().compile(source).map_err(|errors| {
            let first = &errors.errors[0];
            let (line, column) = first.pos;
            Failure::invalid(format!("{line}:{column}: {}", first.msg))
        })?;
        let mut tree = Field::Object(Vec::new());
        for (input, path) in paths.iter().enumerate() {
            tree.insert(&path.split('.').collect::<Vec<_>>(), input);
        }
        let Field::Object(roots) = tree else { unreachable!() };
        let variables: Vec<_> =
            roots.iter().map(|(name, field)| (name.as_str(), field.count())).collect();
        // A bound on what lies in a variable: every name of every path, and its number.
        let size = paths.iter().map(|path| path.len() + 1).sum();
        cel_check::check(&program, &variables, size, limits).map_err(Failure::invalid)?;
        Ok(CelProgram { program, roots, inputs: paths.len() })
    }

    pub fn evaluate(&self, inputs: &[Input]) -> Result<Answer, Failure> {
        assert_eq!(inputs.len(), self.inputs, "one input for each path");
        let mut context = Context::with_env(environment());
        for (name, field) in &self.roots {
            match field {
                Field::Object(fields) => {
                    let value = Box::new(CelMap::from(object(fields, inputs)));
                    context.add_variable_as_val(name.as_str(), value);
                }
                Field::Leaf(_) => {
                    if let Some(value) = field.value(inputs) {
                        context.add_variable_as_val(name.as_str(), value);
                    }
                }
            }
        }
        match self.program.execute(&context) {
            Ok(Value::Int(value)) => Ok(Answer::Int(value)),
            Ok(Value::Float(value)) => Ok(Answer::Double(value)),
            Ok(Value::Bool(value)) => Ok(Answer::Bool(value)),
            Ok(other) => Err(Failure::failed(format!(
                "the result is neither int, double nor bool: {}",
                other.type_of()
            ))),
            Err(error) => Err(Failure::failed(error.to_string())),
        }
    }
}

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_cel_compile(
    source: Slice,
    paths: *const Slice,
    path_count: usize,
    limits: *const Limits,
    program: *mut *mut CelProgram,
    error: *mut Message,
) -> i32 {
    call(error, || {
        let source = text(source)?;
        let mut names = Vec::with_capacity(path_count);
        for path in elements(paths, path_count) {
            names.push(text(*path)?);
        }
        let compiled = CelProgram::compile(source, &names, &*limits)?;
        *program = Box::into_raw(Box::new(compiled));
        Ok(())
    })
}

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_cel_evaluate(
    program: *const CelProgram,
    inputs: *const Input,
    input_count: usize,
    result: *mut CelValue,
    error: *mut Message,
) -> i32 {
    call(error, || {
        *result = match (*program).evaluate(elements(inputs, input_count))? {
            Answer::Int(value) => CelValue { kind: 0, integer: value, number: 0.0 },
            Answer::Double(value) => CelValue { kind: 1, integer: 0, number: value },
            Answer::Bool(value) => CelValue { kind: 2, integer: value as i64, number: 0.0 },
        };
        Ok(())
    })
}

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_cel_free(program: *mut CelProgram) {
    if !program.is_null() {
        call(std::ptr::null_mut(), || {
            drop(Box::from_raw(program));
            Ok(())
        });
    }
}
