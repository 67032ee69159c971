//! Label selectors of a document.

use std::collections::BTreeSet;
use std::ops::Range;

use super::diagnostic::{Code, quote};
use super::rules::MAX_ITEMS;
use crate::domain::container;
use crate::domain::labels::{Condition, Requirement, Selector};
use crate::domain::syntax::{Name, check_label_key, label_value};
use crate::domain::yaml::{Node, Reader};

/// A label selector: `{}` selects everything.
pub(super) fn selector(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Selector> {
    selected(reader, node, what, &["matchLabels", "matchExpressions"])
}

/// A selector of workloads of the project's own kinds, which may name a container of theirs.
pub(super) fn workloads(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Selector> {
    selected(reader, node, what, &["matchLabels", "matchExpressions", "container"])
}

fn selected(reader: &mut Reader<'_>, node: &Node, what: &str, fields: &[&str]) -> Option<Selector> {
    let errors = reader.errors();
    let selector = reader.mapping(node, what, fields)?;
    let mut requirements = Vec::new();
    if let Some(node) = selector.get("container") {
        let name = Name::Label.read(reader, node, "the name of a container");
        requirements.extend(name.map(container::is_called));
    }
    if let Some(labels) = selector.get("matchLabels")
        && let Some(labels) = reader.any_mapping(labels, "`matchLabels`")
    {
        for entry in labels.entries() {
            let valid = check_label_key(reader, &entry.key, &entry.span);
            let what = format!("the label {}", quote(&entry.key));
            if let (true, Some(value)) = (valid, label_value(reader, &entry.value, &what)) {
                let condition = Condition::In(BTreeSet::from([value.to_owned()]));
                requirements.push(Requirement { key: entry.key.clone(), condition });
            }
        }
    }
    if let Some(expressions) = selector.get("matchExpressions")
        && let Some(expressions) = reader.list(expressions, "`matchExpressions`", MAX_ITEMS)
    {
        requirements.extend(expressions.iter().filter_map(|node| expression(reader, node)));
    }
    if reader.errors() > errors {
        return None;
    }
    // One meaning, one form: selectors are compared when classes are made.
    requirements.sort();
    requirements.dedup();
    warn_impossible(reader, &selector.place(), &requirements, what);
    Some(Selector { requirements })
}

fn expression(reader: &mut Reader<'_>, node: &Node) -> Option<Requirement> {
    #[derive(Clone, Copy)]
    enum Operator {
        In,
        NotIn,
        Exists,
        DoesNotExist,
    }
    const OPERATORS: [(&str, Operator); 4] = [
        ("In", Operator::In),
        ("NotIn", Operator::NotIn),
        ("Exists", Operator::Exists),
        ("DoesNotExist", Operator::DoesNotExist),
    ];
    let what = "an item of `matchExpressions`";
    let expression = reader.mapping(node, what, &["key", "operator", "values"])?;
    let key = reader.required(&expression, what, "key", None).and_then(|node| {
        let key = reader.text(node, "`key`")?;
        check_label_key(reader, key, &node.span).then(|| key.to_owned())
    });
    let operator =
        reader.required(&expression, what, "operator", Some("one of In, NotIn, Exists, DoesNotExist"));
    let operator = operator.and_then(|node| reader.choice(node, "`operator`", &OPERATORS));
    let values = expression.get("values").and_then(|node| reader.list(node, "`values`", MAX_ITEMS));
    let texts: Vec<_> = values
        .unwrap_or_default()
        .iter()
        .filter_map(|node| label_value(reader, node, "a value").map(str::to_owned))
        .collect();
    let operator = operator?;
    let wants_values = matches!(operator, Operator::In | Operator::NotIn);
    match expression.entry("values") {
        None if wants_values => {
            reader.required(&expression, what, "values", Some("In and NotIn compare with a list of values"));
        }
        Some(entry) if wants_values && values.is_some_and(<[Node]>::is_empty) => {
            let message = "`values` is empty: `In` would match nothing, `NotIn` everything";
            let help = "list the values, or use Exists or DoesNotExist";
            reader.error(&entry.value.span, Code::EmptyValue, message).label("no value").help(help);
        }
        Some(entry) if !wants_values && values.is_some_and(|values| !values.is_empty()) => {
            let message = "Exists and DoesNotExist look at the key alone";
            let help = "remove `values`, or use In or NotIn";
            reader.error(&entry.span, Code::ConflictingFields, message).label("not used").help(help);
        }
        _ => {}
    }
    let values: BTreeSet<_> = texts.into_iter().collect();
    let condition = match operator {
        Operator::In => Condition::In(values),
        Operator::NotIn => Condition::NotIn(values),
        Operator::Exists => Condition::Exists,
        Operator::DoesNotExist => Condition::DoesNotExist,
    };
    Some(Requirement { key: key?, condition })
}

/// Warns of two conditions on one key that no label set satisfies.
fn warn_impossible(reader: &mut Reader<'_>, place: &Range<usize>, requirements: &[Requirement], what: &str) {
    let excludes = |a: &Condition, b: &Condition| match (a, b) {
        (Condition::In(a), Condition::In(b)) => a.is_disjoint(b),
        (Condition::In(a), Condition::NotIn(b)) => a.is_subset(b),
        (Condition::In(_) | Condition::Exists, Condition::DoesNotExist) => true,
        _ => false,
    };
    // Sorted by key, so conditions on one key are neighbours.
    for group in requirements.chunk_by(|a, b| a.key == b.key) {
        let exclude = group
            .iter()
            .enumerate()
            .any(|(index, a)| group[index + 1..].iter().any(|b| excludes(&a.condition, &b.condition)));
        if exclude {
            let message = format!(
                "{what} selects nothing: its conditions on {} exclude each other",
                quote(&group[0].key)
            );
            reader.warning(place, Code::NeverMatches, message).label("selects nothing");
        }
    }
}
