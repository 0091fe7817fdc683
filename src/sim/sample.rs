//! A value that satisfies a JSON schema, for structured answers and the arguments of tools.

use std::cell::Cell;

use serde_json::{Map, Value, json};

/// Schemas may refer to themselves; beyond this depth everything is null.
const DEEPEST: u32 = 16;

/// A value has about so many bytes at most: a schema of one line can refer to itself many times on
/// each level, and all else would be null.
const LARGEST: usize = 64 << 10;

/// The smallest obvious value of this schema; null where it says nothing.
pub(super) fn sample(schema: &Value) -> Value {
    Sample { root: schema, left: Cell::new(LARGEST) }.of(schema, 0)
}

/// A value that is being made.
struct Sample<'a> {
    root: &'a Value,
    /// How many bytes it may still have.
    left: Cell<usize>,
}

impl Sample<'_> {
    fn of(&self, schema: &Value, depth: u32) -> Value {
        if depth > DEEPEST || !self.spend(4) {
            return Value::Null;
        }
        let inner = |schema: &Value| self.of(schema, depth + 1);
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let target = target.strip_prefix('#').and_then(|at| self.root.pointer(at));
            return target.map_or(Value::Null, inner);
        }
        let first = |list: &str| schema.get(list).and_then(Value::as_array)?.first();
        if let Some(value) = schema.get("const").or_else(|| first("enum")) {
            let fits = self.spend(value.to_string().len());
            return if fits { value.clone() } else { Value::Null };
        }
        if let Some(choice) = first("anyOf").or_else(|| first("oneOf")).or_else(|| first("allOf")) {
            return inner(choice);
        }
        let kind =
            schema.get("type").and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
        match kind {
            Some("string") => json!("simulated"),
            Some("integer") => json!(1),
            Some("number") => json!(1.5),
            Some("boolean") => json!(true),
            Some("array") => Value::Array(schema.get("items").map(inner).into_iter().collect()),
            Some("object") => Value::Object(self.members(schema, &inner)),
            _ if schema.get("properties").is_some() => Value::Object(self.members(schema, &inner)),
            _ => Value::Null,
        }
    }

    fn members(&self, schema: &Value, inner: &dyn Fn(&Value) -> Value) -> Map<String, Value> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let properties = properties.into_iter().flatten();
        let fitting = properties.take_while(|(name, _)| self.spend(name.len() + 4));
        fitting.map(|(name, schema)| (name.clone(), inner(schema))).collect()
    }

    /// True while there is room; once there is none, there is none for anything.
    fn spend(&self, bytes: usize) -> bool {
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }
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

    #[test]
    fn a_schema_that_holds_itself_many_times_makes_no_endless_value() {
        let properties: Map<String, Value> =
            (0..100).map(|place| (place.to_string(), json!({ "$ref": "#" }))).collect();
        let value = sample(&json!({ "type": "object", "properties": properties }));
        assert!(value.to_string().len() < 2 * LARGEST);
        let long = "x".repeat(LARGEST / 2);
        let all = json!({ "a": { "const": long }, "b": { "const": long }, "c": { "const": long } });
        let value = sample(&json!({ "type": "object", "properties": all }));
        assert!(value.to_string().len() < 2 * LARGEST);
    }
}
