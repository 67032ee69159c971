//! Every path that a file names: `use` trees spread out, and paths written in the code.

use super::lex::{Source, Token};

/// One named path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

impl Reference {
    pub(super) fn text(&self) -> String {
        self.segments.join("::")
    }

    /// Whether the path is `prefix` or lies below it.
    pub(super) fn is_below(&self, prefix: &str) -> bool {
        let mut own = self.segments.iter();
        prefix.split("::").all(|wanted| own.next().is_some_and(|segment| segment == wanted))
    }
}

/// The paths of the product's code, test items left out; `super` and `crate` are resolved to `crate`.
pub(super) fn of(source: &Source) -> Vec<Reference> {
    let tokens: Vec<&Token> = source.product().collect();
    let mut found = Vec::new();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        if token.text == "use" {
            index = tree(&tokens, index + 1, &[], &mut found);
        } else if is_name(&token.text) {
            index = inline(&tokens, index, &mut found);
        } else {
            index += 1;
        }
    }
    let module = module_path(source);
    found.into_iter().map(|reference| resolve(reference, &module)).collect()
}

fn is_name(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// One branch of a `use` tree; returns the index after it.
fn tree(tokens: &[&Token], from: usize, above: &[String], found: &mut Vec<Reference>) -> usize {
    let mut segments = above.to_vec();
    let mut line = tokens.get(from).map_or(0, |token| token.line);
    let mut index = from;
    while let Some(token) = tokens.get(index) {
        match token.text.as_str() {
            "{" => {
                index += 1;
                while tokens.get(index).is_some_and(|token| token.text != "}") {
                    index = tree(tokens, index, &segments, found);
                    if tokens.get(index).is_some_and(|token| token.text == ",") {
                        index += 1;
                    }
                }
                return index + 1;
            }
            "," | "}" => break,
            ";" => {
                index += 1;
                break;
            }
            // The new name is no path.
            "as" => index += 1,
            name if is_name(name) => {
                line = token.line;
                segments.push(name.to_owned());
            }
            _ => {}
        }
        index += 1;
    }
    if segments.len() > above.len() {
        found.push(Reference { segments, line });
    }
    index
}

/// A path in the code: names joined by `::`; a single name is none.
fn inline(tokens: &[&Token], from: usize, found: &mut Vec<Reference>) -> usize {
    let mut segments = Vec::new();
    let mut index = from;
    while let Some(name) = tokens.get(index).filter(|token| is_name(&token.text)) {
        segments.push(name.text.clone());
        index += 1;
        if tokens.get(index).is_none_or(|token| token.text != "::") {
            break;
        }
        index += 1;
    }
    if segments.len() > 1 {
        let line = tokens.get(from).map_or(0, |token| token.line);
        found.push(Reference { segments, line });
    }
    index.max(from + 1)
}

fn module_path(source: &Source) -> Vec<String> {
    let inner = source.module().map_or_else(String::new, |(_, inner)| inner);
    let segments = inner.split('/').filter(|name| !["lib", "main", ""].contains(name));
    segments.map(str::to_owned).collect()
}

fn resolve(mut reference: Reference, module: &[String]) -> Reference {
    let ups = reference.segments.iter().take_while(|segment| *segment == "super").count();
    if ups == 0 {
        return reference;
    }
    let kept = module.len().saturating_sub(ups);
    let rest = reference.segments.split_off(ups);
    reference.segments =
        std::iter::once("crate".to_owned()).chain(module[..kept].iter().cloned()).chain(rest).collect();
    reference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(path: &str, text: &str) -> Vec<String> {
        of(&Source::new(path, text)).iter().map(Reference::text).collect()
    }

    #[test]
    fn trees_are_spread_out() {
        let text = "use crate::{domain::{a, b as c}, engine};\nuse std::fs;";
        let expected = ["crate::domain::a", "crate::domain::b", "crate::engine", "std::fs"];
        assert_eq!(paths("enforcer/src/cli/x.rs", text), expected);
    }

    #[test]
    fn paths_in_code_and_upward_ones_are_found() {
        let text = "fn f() { super::super::engine::step(x); std::env::var(y) }";
        assert_eq!(paths("enforcer/src/domain/a.rs", text), ["crate::engine::step", "std::env::var"]);
    }
}
