//! The schemas that editors and API servers get know what the check knows: every field of every object, and every word of every
//! choice, for each kind. Neither is read from the other, so each object of a schema is put into a document with a field
//! and with words that nobody knows, and what the check says it knows there is compared.

use std::collections::{BTreeMap, BTreeSet};

use enforcer::domain::policy::diagnostic::{Code, Diagnostic};
use enforcer::domain::policy::schema::schema;
use serde_json::{Map, Value, json};

use super::check_one;

/// Near nothing that anybody knows.
const NONSENSE: &str = "zzzzzzzzzzzz";
const KINDS: [&str; 4] = ["TrafficPolicy", "ClusterTrafficPolicy", "NetworkPolicy", "ClusterNetworkPolicy"];

/// Puts a value into its place in a document.
type Wrap<'a> = &'a dyn Fn(Value) -> Value;

/// A walk through the schema of a kind.
struct Walk<'a> {
    root: &'a Value,
    /// What is wrong, by place.
    wrong: BTreeMap<String, String>,
    objects: usize,
    choices: usize,
}

/// The words in backquotes behind `known fields: ` or `known values: ` of the one diagnostic about the nonsense.
fn known(diagnostics: &[Diagnostic], code: Code) -> Result<BTreeSet<String>, String> {
    let about = diagnostics.iter().filter(|it| it.code == code && it.message.contains(NONSENSE));
    let about: Vec<&Diagnostic> = about.collect();
    let [one] = about.as_slice() else {
        return Err(format!("not one diagnostic about it but {diagnostics:?}"));
    };
    let help = one.help.clone().unwrap_or_default();
    let (_, list) = help.split_once(": ").ok_or_else(|| format!("it tells nothing: {help}"))?;
    Ok(list.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

impl<'a> Walk<'a> {
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(at) => self.root.pointer(&at[1..]).unwrap_or_else(|| panic!("{at}")),
            None => schema,
        }
    }

    fn compare(&mut self, place: &str, document: &Value, code: Code, expected: &BTreeSet<String>) {
        let outcome = check_one(&document.to_string());
        match known(&outcome.diagnostics, code) {
            Ok(found) if found == *expected => {}
            Ok(found) => {
                let schema: Vec<_> = expected.difference(&found).collect();
                let check: Vec<_> = found.difference(expected).collect();
                let said = format!("only the schema knows {schema:?}, only the check knows {check:?}");
                self.wrong.insert(place.to_owned(), said);
            }
            Err(said) => _ = self.wrong.insert(place.to_owned(), format!("{said} of {document}")),
        }
    }

    fn visit(&mut self, place: &str, schema: &'a Value, wrap: Wrap<'_>) {
        let schema = self.resolve(schema);
        for branch in schema["anyOf"].as_array().into_iter().flatten() {
            self.visit(place, branch, wrap);
        }
        if let Some(words) = schema["enum"].as_array() {
            self.choices += 1;
            let words = words.iter().map(|word| word.as_str().expect("a word").to_owned()).collect();
            self.compare(place, &wrap(json!(NONSENSE)), Code::UnknownValue, &words);
        }
        if let Some(items) = schema.get("items") {
            self.visit(&format!("{place}[]"), items, &|value| wrap(json!([value])));
        }
        let Some(fields) = schema["properties"].as_object() else { return };
        self.objects += 1;
        let names = fields.keys().cloned().collect();
        self.compare(place, &wrap(self.object(schema, NONSENSE, json!(0))), Code::UnknownField, &names);
        for (name, inner) in fields {
            let place = format!("{place}.{name}");
            let objects: Vec<Value> = vec![self.object(schema, name, Value::Null)];
            self.visit(&place, inner, &|value| {
                let mut object = objects[0].clone();
                object[name] = value;
                wrap(object)
            });
        }
    }

    /// An object with this field and those that it needs.
    fn object(&self, schema: &'a Value, name: &str, value: Value) -> Value {
        let mut object = Map::new();
        for needed in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            object.insert(needed.to_owned(), self.least(&schema["properties"][needed]));
        }
        // One that the check looks at beside another one only.
        if name == "namespaceSelector" && schema["properties"].get("workloads").is_some() {
            object.insert("workloads".to_owned(), json!({}));
        }
        object.insert(name.to_owned(), value);
        Value::Object(object)
    }

    /// Something that the schema takes.
    fn least(&self, schema: &'a Value) -> Value {
        let schema = self.resolve(schema);
        if let Some(one) = schema.get("const") {
            return one.clone();
        }
        let first = |field: &str| schema[field].as_array().and_then(|all| all.first());
        if let Some(branch) = first("anyOf") {
            return self.least(branch);
        }
        if let Some(word) = first("enum") {
            return word.clone();
        }
        match schema["type"].as_str() {
            Some("integer") => schema.get("minimum").cloned().unwrap_or(json!(1)),
            Some("string") => json!("a"),
            Some("array") if schema.get("minItems").is_some() => json!([self.least(&schema["items"])]),
            Some("array") => json!([]),
            _ => {
                let mut object = self.object(schema, "", Value::Null);
                let fields = object.as_object_mut().expect("an object");
                fields.remove("");
                let one = schema["properties"].as_object().and_then(|fields| fields.iter().next());
                if let Some((name, inner)) = one.filter(|_| schema.get("minProperties").is_some()) {
                    fields.insert(name.clone(), self.least(inner));
                }
                object
            }
        }
    }
}

#[test]
fn schema_and_check_know_the_same_fields_and_words() {
    let (mut objects, mut choices) = (0, 0);
    for kind in KINDS {
        let schema = schema(Some(kind));
        let mut walk = Walk { root: &schema, wrong: BTreeMap::new(), objects: 0, choices: 0 };
        walk.visit(kind, &schema, &|value| value);
        assert!(walk.wrong.is_empty(), "{kind}: {:#?}", walk.wrong);
        objects += walk.objects;
        choices += walk.choices;
    }
    assert!(objects >= 60 && choices >= 25, "{objects} objects and {choices} choices are few");
}
