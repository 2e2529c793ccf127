//! What an expression may be made of. Its syntax tree is walked once: what this module does not know is refused, so that no
//! misspelt name waits for a request, and what an expression can cost is bounded.

use std::collections::BTreeSet;

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, SelectExpr, operators},
};
use crossway_plugin_api::suggest;
use regex::RegexBuilder;

use super::names::Pattern;

/// Most levels of the tree: the evaluation calls itself for each.
const MAX_DEPTH: usize = 32;
/// Most nodes of the tree.
const MAX_NODES: usize = 256;
/// Most loops (`all`, `exists`). None stands within another.
const MAX_LOOPS: usize = 4;
/// Largest compiled pattern, in bytes.
const MAX_PATTERN: usize = 256 << 10;

const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::NOT_STRICTLY_FALSE,
    operators::IN,
];
const FUNCTIONS: [&str; 8] = ["size", "int", "uint", "double", "string", "bool", "timestamp", "duration"];
const METHODS: [&str; 15] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];
const ROOTS: [&str; 6] = ["request", "client", "consumer", "claims", "params", "now"];

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Fixed names below it, each with what it is.
    Names(&'static str, &'static [(&'static str, Place)]),
    /// Values by any name.
    Members(Members),
    /// A value without members.
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Members {
    Claims,
    Metadata,
    Params,
    Request,
}

const REQUEST: Place = Place::Names(
    "request",
    &[
        ("method", Place::Value),
        ("path", Place::Value),
        ("host", Place::Value),
        ("headers", Place::Members(Members::Request)),
        ("query", Place::Members(Members::Request)),
    ],
);
const CLIENT: Place = Place::Names("client", &[("address", Place::Value)]);
const CONSUMER: Place = Place::Names(
    "consumer",
    &[("name", Place::Value), ("groups", Place::Value), ("metadata", Place::Members(Members::Metadata))],
);

/// What the walk has found.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) patterns: Vec<Pattern>,
    pub(super) params: BTreeSet<String>,
    pub(super) reads_caller: bool,
}

/// What is wrong, and at which node.
pub(super) struct Wrong {
    pub(super) id: u64,
    /// The rest of a sentence that begins with the setting.
    pub(super) message: String,
}

/// Checks the tree, and puts a compiled pattern in the place of each regular expression.
pub(super) fn check(root: &mut IdedExpr) -> Result<Checked, Wrong> {
    let is_boolean = match &root.expr {
        Expr::Literal(literal) => matches!(literal, LiteralValue::Boolean(_)),
        Expr::List(_) => false,
        _ => true,
    };
    if !is_boolean {
        return Err(Wrong { id: root.id, message: "is no boolean".into() });
    }
    let mut walk = Walk::default();
    walk.node(root, 0)?;
    Ok(walk.checked)
}

#[derive(Default)]
struct Walk {
    checked: Checked,
    nodes: usize,
    loops: usize,
    /// The variables of the loop that is walked through.
    locals: Vec<String>,
}

type Step = Result<(), String>;

impl Walk {
    fn node(&mut self, node: &mut IdedExpr, depth: usize) -> Result<(), Wrong> {
        let id = node.id;
        let wrong = |message: String| Wrong { id, message };
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(wrong("is too complex: split it, or say part of it with the other settings".into()));
        }
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.ident(name).map_err(wrong),
            Expr::Select(select) => {
                if self.select(select).map_err(wrong)? {
                    return Ok(());
                }
                self.node(&mut select.operand, depth + 1)
            }
            Expr::Call(call) => {
                self.call(call).map_err(wrong)?;
                self.arguments(call, depth)
            }
            Expr::Comprehension(inner) => {
                self.enter(inner).map_err(wrong)?;
                self.comprehension(inner, depth)
            }
            Expr::List(list) if list.optional_indices.is_empty() => {
                list.elements.iter_mut().try_for_each(|element| self.node(element, depth + 1))
            }
            Expr::List(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(wrong("holds something that expressions have no use for here, such as `{...}`".into()))
            }
        }
    }

    fn ident(&self, name: &str) -> Step {
        if name == "now" || self.locals.iter().any(|local| local == name) {
            return Ok(());
        }
        if ROOTS.contains(&name) {
            return Err(format!("takes `{name}` for a value: write the name of one of its members behind it"));
        }
        let near = suggest(name, ROOTS).map(|near| format!("did you mean `{near}`?"));
        let known = || format!("there are {}", ROOTS.join(", "));
        Err(format!("names `{name}`, which there is not: {}", near.unwrap_or_else(known)))
    }

    /// Whether all has been said of what stands before the dot.
    fn select(&mut self, select: &SelectExpr) -> Result<bool, String> {
        let field = select.field.as_str();
        match place(&select.operand.expr) {
            None => return Ok(false),
            Some(Place::Value) => return Err(format!("asks for `{field}` of something that has no members")),
            Some(Place::Members(members)) => self.member(members, Some(field))?,
            Some(Place::Names(of, known)) => {
                self.checked.reads_caller |= of == "consumer";
                match known.iter().find(|(name, _)| *name == field) {
                    None => {
                        let names = known.iter().map(|(name, _)| *name);
                        let near = suggest(field, names.clone()).map(|near| format!("did you mean `{of}.{near}`?"));
                        let all = || format!("there are {}", names.collect::<Vec<_>>().join(", "));
                        return Err(format!("names `{of}.{field}`, which there is not: {}", near.unwrap_or_else(all)));
                    }
                    Some((_, Place::Value)) if select.test && of != "consumer" => {
                        return Err(format!("asks whether there is `{of}.{field}`, which is always there"));
                    }
                    Some((_, Place::Value)) => {}
                    Some(_) => {
                        return Err(format!(
                            "takes `{of}.{field}` for a value: write the name of one of its members behind it"
                        ));
                    }
                }
            }
        }
        Ok(true)
    }

    /// Something is asked of values by name; `name` where the expression says it outright.
    fn member(&mut self, members: Members, name: Option<&str>) -> Step {
        match (members, name) {
            (Members::Claims | Members::Metadata, _) => self.checked.reads_caller = true,
            (Members::Params, Some(name)) => drop(self.checked.params.insert(name.to_owned())),
            (Members::Params, None) => {
                return Err("asks for a path parameter without its name: write params.NAME".into());
            }
            (Members::Request, _) => {}
        }
        Ok(())
    }

    fn call(&mut self, call: &mut CallExpr) -> Step {
        let name = call.func_name.as_str();
        if call.target.is_none() {
            if OPERATORS.contains(&name) || name == operators::INDEX || FUNCTIONS.contains(&name) {
                return Ok(());
            }
            return Err(no_function(name, &FUNCTIONS));
        }
        if !METHODS.contains(&name) {
            return Err(no_function(name, &METHODS));
        }
        if name == "matches" {
            let [argument] = call.args.as_mut_slice() else { return Err("calls `matches` without one pattern".into()) };
            let Expr::Literal(LiteralValue::String(pattern)) = &argument.expr else {
                return Err("calls `matches` with something else than a pattern in quotes".into());
            };
            let regex = RegexBuilder::new(pattern.inner()).size_limit(MAX_PATTERN).build();
            let regex = regex.map_err(|_| "calls `matches` with a pattern that is not valid, or too large")?;
            // No name in an expression can begin with this sign.
            argument.expr = Expr::Ident(format!("@{}", self.checked.patterns.len()));
            self.checked.patterns.push(Pattern(regex));
        }
        Ok(())
    }

    fn arguments(&mut self, call: &mut CallExpr, depth: usize) -> Result<(), Wrong> {
        // The operand of `x[y]`, and the right one of `y in x`, may be values by name.
        let ((operators::INDEX, [values, asked]) | (operators::IN, [asked, values])) =
            (call.func_name.as_str(), call.args.as_mut_slice())
        else {
            let all = call.target.as_deref_mut().into_iter().chain(call.args.iter_mut());
            let mut written = all.filter(|argument| !is_pattern(&argument.expr));
            return written.try_for_each(|argument| self.node(argument, depth + 1));
        };
        match place(&values.expr) {
            Some(Place::Members(members)) => {
                let name = match &asked.expr {
                    Expr::Literal(LiteralValue::String(name)) => Some(name.inner().to_owned()),
                    _ => None,
                };
                let wrong = |message| Wrong { id: asked.id, message };
                self.member(members, name.as_deref()).map_err(wrong)?;
            }
            _ => self.node(values, depth + 1)?,
        }
        self.node(asked, depth + 1)
    }

    fn enter(&mut self, inner: &ComprehensionExpr) -> Step {
        self.loops += 1;
        if !self.locals.is_empty() {
            return Err("has a loop within a loop".into());
        }
        if self.loops > MAX_LOOPS {
            return Err(format!("has more than {MAX_LOOPS} loops"));
        }
        if matches!(inner.accu_init.expr, Expr::List(_)) || inner.iter_var2.is_some() {
            return Err("makes a list: of the loops there are `all`, `exists` and `existsOne`".into());
        }
        if ROOTS.contains(&inner.iter_var.as_str()) {
            return Err(format!("calls a variable `{}`, which has a meaning already", inner.iter_var));
        }
        Ok(())
    }

    fn comprehension(&mut self, inner: &mut ComprehensionExpr, depth: usize) -> Result<(), Wrong> {
        self.node(&mut inner.iter_range, depth + 1)?;
        self.node(&mut inner.accu_init, depth + 1)?;
        self.locals = vec![inner.iter_var.clone(), inner.accu_var.clone()];
        for part in [&mut inner.loop_cond, &mut inner.loop_step, &mut inner.result] {
            self.node(part, depth + 1)?;
        }
        self.locals.clear();
        Ok(())
    }
}

/// What a name stands for, or a name with dots; `None` for anything else, the variables of loops included.
fn place(expr: &Expr) -> Option<Place> {
    match expr {
        Expr::Ident(name) => match name.as_str() {
            "request" => Some(REQUEST),
            "client" => Some(CLIENT),
            "consumer" => Some(CONSUMER),
            "claims" => Some(Place::Members(Members::Claims)),
            "params" => Some(Place::Members(Members::Params)),
            "now" => Some(Place::Value),
            _ => None,
        },
        Expr::Select(select) if !select.test => match place(&select.operand.expr)? {
            Place::Names(_, known) => known.iter().find(|(name, _)| *name == select.field).map(|(_, place)| *place),
            _ => None,
        },
        _ => None,
    }
}

fn is_pattern(expr: &Expr) -> bool {
    matches!(expr, Expr::Ident(name) if name.strip_prefix('@').is_some_and(|rest| rest.parse::<usize>().is_ok()))
}

fn no_function(name: &str, known: &[&'static str]) -> String {
    let near = suggest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    let all = || format!("there are {}", known.join(", "));
    format!("calls `{name}`, which there is not: {}", near.unwrap_or_else(all))
}
