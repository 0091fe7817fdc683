//! A value that satisfies a JSON schema, for structured answers and the arguments of tools.

use serde_json::{Map, Value, json};

/// Schemas may refer to themselves; beyond this depth everything is null.
const DEEPEST: u32 = 16;

/// The smallest obvious value of this schema; null where it says nothing.
pub(super) fn sample(schema: &Value) -> Value {
    of(schema, schema, 0)
}

fn of(schema: &Value, root: &Value, depth: u32) -> Value {
    if depth > DEEPEST {
        return Value::Null;
    }
    let inner = |schema: &Value| of(schema, root, depth + 1);
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        return target.strip_prefix('#').and_then(|at| root.pointer(at)).map_or(Value::Null, inner);
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    let first = |list: &str| schema.get(list).and_then(Value::as_array)?.first();
    if let Some(value) = first("enum") {
        return value.clone();
    }
    if let Some(choice) = first("anyOf").or_else(|| first("oneOf")).or_else(|| first("allOf")) {
        return inner(choice);
    }
    let kind = schema.get("type").and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
    match kind {
        Some("string") => json!("simulated"),
        Some("integer") => json!(1),
        Some("number") => json!(1.5),
        Some("boolean") => json!(true),
        Some("array") => Value::Array(schema.get("items").map(inner).into_iter().collect()),
        Some("object") => Value::Object(members(schema, &inner)),
        _ if schema.get("properties").is_some() => Value::Object(members(schema, &inner)),
        _ => Value::Null,
    }
}

fn members(schema: &Value, inner: &dyn Fn(&Value) -> Value) -> Map<String, Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(|(name, schema)| (name.clone(), inner(schema))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_gets_a_value_of_its_kind() {
        let schema = json!({
            "type": "object",
            "properties": {
                "city": { "type": "string" },
                "days": { "type": ["integer", "null"] },
                "unit": { "enum": ["c", "f"] },
                "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" } },
            },
            "$defs": { "tag": { "anyOf": [{ "const": "t" }, { "type": "null" }] } },
        });
        let expected = json!({ "city": "simulated", "days": 1, "unit": "c", "tags": ["t"] });
        assert_eq!(sample(&schema), expected);
    }

    #[test]
    fn a_schema_that_holds_itself_comes_to_an_end() {
        let schema = json!({ "type": "object", "properties": { "next": { "$ref": "#" } } });
        assert!(sample(&schema).to_string().ends_with("null}}}}}}}}}"));
    }
}
