//! Conditions in the Common Expression Language.
//!
//! An expression is parsed and checked once, when the configuration is loaded. What is shared by all of them, the standard
//! library, is made once for the process: it costs more than running an expression.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    thread,
};

use cel::{
    Context, Env, ExecutionError, IdedExpr, Value,
    common::types::{CelBool, STRING_TYPE},
    parser::Parser,
};
use crossway_plugin_api::{Clock, Ctx};
use pingora_http::RequestHeader;

use super::{
    grammar::{self, Checked},
    names::{Account, Names, Pattern},
};

/// Longest expression, in bytes.
pub(super) const MAX_LENGTH: usize = 1024;
/// Most brackets within brackets.
const MAX_NESTING: u16 = 16;
/// Longest part of the parser's own words that is shown, in characters.
const MAX_WORDS: usize = 160;
/// The parser calls itself for each operator and bracket; this is many times what the longest expression takes.
const PARSER_STACK: usize = 16 << 20;

/// An expression, checked.
pub(super) struct Expression {
    root: IdedExpr,
    patterns: Vec<Pattern>,
    /// The path parameters it reads.
    pub(super) params: BTreeSet<String>,
    /// Whether it reads anything that is known of the caller.
    pub(super) reads_caller: bool,
}

impl Expression {
    /// Parses and checks. The error is the rest of a sentence that begins with the setting.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("is empty".into());
        }
        if text.len() > MAX_LENGTH {
            return Err(format!("is longer than {MAX_LENGTH} bytes"));
        }
        LazyLock::force(&ENV);
        let text = text.to_owned();
        // On a thread of its own: there the stack is known to be large enough, and a panic of the parser is an error.
        let parsing = thread::Builder::new().name("expression".into()).stack_size(PARSER_STACK);
        let parsing = parsing.spawn(move || parse(&text)).map_err(|error| format!("cannot be read now: {error}"))?;
        parsing.join().unwrap_or_else(|_| Err("is not an expression".into()))
    }

    /// Whether it is true of this request. What fails or is no boolean is an error, which says why without any value.
    pub(super) fn holds(&self, req: &RequestHeader, ctx: &Ctx, clock: &Clock) -> Result<bool, &'static str> {
        let names = Names { req, ctx, clock, patterns: &self.patterns, account: Account::default() };
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&names);
        let value = Value::resolve_val(&self.root, &context).map_err(|error| reason(&error))?;
        value.downcast_ref::<CelBool>().map(|value| *value.inner()).ok_or("the expression is no boolean")
    }
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let arguments = vec![super::names::PATTERN.to_owned()];
    env.add_member_overload("matches", "matches-compiled", STRING_TYPE, arguments, super::names::matches)
        .expect("the standard library has no overload for our own type");
    Arc::new(env)
});

pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let parser = Parser::new().max_recursion_depth(MAX_NESTING).error_recovery_limit(4);
    let (mut root, places) = parser.parse_with_source_info(text).map_err(|errors| {
        let Some(first) = errors.errors.first() else { return "is not an expression".to_owned() };
        // All that could have stood there would be said behind this word.
        let words = first.msg.lines().next().and_then(|line| line.split(" expecting ").next()).unwrap_or_default();
        let words: String = words.chars().take(MAX_WORDS).collect();
        format!("is not an expression: line {}, column {}: {words}", first.pos.0.max(1), first.pos.1.max(1))
    })?;
    let Checked { patterns, params, reads_caller } = grammar::check(&mut root).map_err(|wrong| {
        let before = places.offset_for(wrong.id).and_then(|(start, _)| text.get(..start as usize));
        let place = before.map(|before| format!(" (at character {})", before.chars().count() + 1));
        wrong.message + &place.unwrap_or_default()
    })?;
    Ok(Expression { root, patterns, params, reads_caller })
}

/// Why an expression failed: for the log, hence without the values in the error.
fn reason(error: &ExecutionError) -> &'static str {
    match error {
        ExecutionError::NoSuchKey(_) => "the expression asks for something that is not there",
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..) => "the expression takes a value for one of another type",
        _ => "the expression fails",
    }
}
