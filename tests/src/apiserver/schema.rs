//! Structural schemas of definitions: whether one is sound, and what it makes of an object.

use serde_json::Value;

type Cause = (String, String);

/// What a definition lacks to be accepted, by the rules for structural schemas.
pub fn unsound(definition: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &definition["spec"];
    let name = format!(
        "{}.{}",
        spec["names"]["plural"].as_str().unwrap_or_default(),
        spec["group"].as_str().unwrap_or_default()
    );
    if definition["metadata"]["name"] != name.as_str() {
        causes.push((
            "metadata.name".into(),
            format!("Invalid value: must be spec.names.plural+\".\"+spec.group: {name}"),
        ));
    }
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        causes.push((
            "spec.versions".into(),
            "Invalid value: must have exactly one version marked as storage version".into(),
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}].schema.openAPIV3Schema");
        match version["schema"].get("openAPIV3Schema") {
            None => causes.push((at, "Required value: schemas are required".into())),
            Some(schema) => {
                if schema["type"] != "object" {
                    causes.push((format!("{at}.type"), "Invalid value: must be object at the root".into()));
                }
                structural(schema, &at, &mut causes);
            }
        }
    }
    causes
}

fn structural(schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    let is_free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["type"].as_str().unwrap_or_default().is_empty() && !is_free {
        causes.push((
            format!("{at}.type"),
            "Required value: must not be empty for specified object fields".into(),
        ));
    }
    for word in ["$ref", "definitions", "dependencies", "patternProperties", "deprecated", "id", "readOnly"] {
        if schema.get(word).is_some() {
            causes.push((format!("{at}.{word}"), "Forbidden: not supported".into()));
        }
    }
    if schema["uniqueItems"] == true {
        causes.push((
            format!("{at}.uniqueItems"),
            "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
                .into(),
        ));
    }
    if schema["additionalProperties"] == false {
        causes.push((
            format!("{at}.additionalProperties"),
            "Forbidden: additionalProperties cannot be set to false".into(),
        ));
    }
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_some() {
        causes.push((
            format!("{at}.additionalProperties"),
            "Forbidden: additionalProperties and properties are mutual exclusive".into(),
        ));
    }
    if schema["type"] == "array" && !schema["items"].is_object() {
        causes.push((format!("{at}.items"), "Required value: must be specified".into()));
    }
    if schema["x-kubernetes-list-type"] == "map" {
        let keys = schema["x-kubernetes-list-map-keys"].as_array().cloned().unwrap_or_default();
        if keys.is_empty() {
            causes.push((
                format!("{at}.x-kubernetes-list-map-keys"),
                "Required value: must not be empty if x-kubernetes-list-type is map".into(),
            ));
        }
        let required = schema["items"]["required"].as_array().cloned().unwrap_or_default();
        for key in keys {
            let property = &schema["items"]["properties"][key.as_str().unwrap_or_default()];
            if property.get("default").is_none() && !required.contains(&key) {
                causes.push((format!("{at}.items.properties[{key}].default"), "Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property".into()));
            }
        }
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        structural(inner, &format!("{at}.properties[{name}]"), causes);
    }
    for word in ["items", "additionalProperties"] {
        if schema[word].is_object() {
            structural(&schema[word], &format!("{at}.{word}"), causes);
        }
    }
}

/// Takes fields away that the schema does not have; their paths.
pub fn prune(object: &mut Value, schema: &Value) -> Vec<String> {
    let mut gone = Vec::new();
    // The server itself knows these.
    let Value::Object(fields) = object else { return gone };
    let properties = &schema["properties"];
    fields.retain(|name, value| {
        if matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            return true;
        }
        let Some(inner) = properties.get(name) else {
            if schema["x-kubernetes-preserve-unknown-fields"] == true {
                return true;
            }
            gone.push(name.clone());
            return false;
        };
        prune_below(value, inner, name, &mut gone);
        true
    });
    gone
}

fn prune_below(value: &mut Value, schema: &Value, at: &str, gone: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            let path = format!("{at}.{name}");
            let inner = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
            let keeps = schema["x-kubernetes-preserve-unknown-fields"] == true;
            match inner {
                Some(inner) => prune_below(value, inner, &path, gone),
                None if keeps => {}
                None => {
                    gone.push(path);
                    return false;
                }
            }
            true
        }),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune_below(item, &schema["items"], &format!("{at}[{index}]"), gone);
            }
        }
        _ => {}
    }
}

/// Fills in what an object leaves out and the schema has a default for.
pub fn fill(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                let default = inner.get("default");
                let is_nullable = inner["nullable"] == true;
                if let Some(default) = default
                    && fields.get(name).is_none_or(|value| value.is_null() && !is_nullable)
                {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    fill(field, inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, &schema["items"])),
        _ => {}
    }
}

/// What in an object is not as the schema wants it. Rules in CEL are not evaluated.
pub fn wrong(object: &Value, schema: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let root = schema["properties"].as_object().into_iter().flatten();
    for (name, inner) in root.filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"))
    {
        if let Some(value) = object.get(name) {
            check(value, inner, name, &mut causes);
        }
    }
    require(object, schema, "", &mut causes);
    causes
}

fn require(value: &Value, schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            let path = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
            causes.push((path, "Required value".into()));
        }
    }
}

fn check(value: &Value, schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let is_either = schema["x-kubernetes-int-or-string"] == true;
    let fits = match schema["type"].as_str() {
        _ if is_either => value.is_i64() || value.is_u64() || value.is_string(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !fits {
        let wanted = schema["type"].as_str().unwrap_or("integer or string");
        causes.push((at.into(), format!("Invalid value: {value}: {at} in body must be of type {wanted}")));
        return;
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        causes.push((
            at.into(),
            format!("Unsupported value: {value}: supported values: {}", Value::Array(choices.clone())),
        ));
    }
    let too_much = |limit: &str, size: Option<u64>| {
        size.zip(schema[limit].as_u64()).is_some_and(|(size, limit)| size > limit)
    };
    if too_much("maxItems", value.as_array().map(|items| items.len() as u64))
        || too_much("maxLength", value.as_str().map(|text| text.chars().count() as u64))
    {
        causes.push((at.into(), "Too long: may not be longer than the schema says".into()));
    }
    let (number, items) = (value.as_f64(), value.as_array());
    if number.zip(schema["minimum"].as_f64()).is_some_and(|(number, least)| number < least) {
        let least = &schema["minimum"];
        let wrong =
            format!("Invalid value: {value}: {at} in body should be greater than or equal to {least}");
        causes.push((at.into(), wrong));
    }
    if number.zip(schema["maximum"].as_f64()).is_some_and(|(number, most)| number > most) {
        let most = &schema["maximum"];
        let wrong = format!("Invalid value: {value}: {at} in body should be less than or equal to {most}");
        causes.push((at.into(), wrong));
    }
    if items.zip(schema["minItems"].as_u64()).is_some_and(|(items, least)| (items.len() as u64) < least) {
        let least = &schema["minItems"];
        causes.push((
            at.into(),
            format!("Invalid value: {value}: {at} in body should have at least {least} items"),
        ));
    }
    require(value, schema, at, causes);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(inner) =
                    schema["properties"].get(name).or_else(|| schema.get("additionalProperties"))
                {
                    check(field, inner, &format!("{at}.{name}"), causes);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(item, &schema["items"], &format!("{at}[{index}]"), causes);
            }
        }
        _ => {}
    }
}
