//! The JSON schema of the fleet document, made from its types.
//!
//! One text for two readers: the walk that checks documents, and editors, which complete and check
//! while typing. It is committed as `docs/fleet.schema.json`; a test keeps that file current.

use std::sync::OnceLock;

use serde_json::Value;

use super::document::Fleet;

/// The schema as a value.
pub(super) fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut schema = schemars::schema_for!(Fleet).to_value();
        remove_null(&mut schema);
        schema
    })
}

/// The schema as the committed file has it.
#[must_use]
pub fn json_schema() -> String {
    let mut text =
        serde_json::to_string_pretty(schema()).expect("a JSON value can always be written");
    text.push('\n');
    text
}

/// An optional field may be left out, but `null` is no value for it: an empty field in a document
/// is a slip, not a wish for the default.
fn remove_null(schema: &mut Value) {
    if let Value::Object(fields) = schema {
        if let Some(Value::Array(types)) = fields.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                fields.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(branches)) = fields.get_mut("anyOf") {
            branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = branches.as_mut_slice() {
                let only = std::mem::take(only);
                fields.remove("anyOf");
                for (name, value) in only {
                    fields.entry(name).or_insert(value);
                }
            }
        }
        if fields.get("default").is_some_and(Value::is_null) {
            fields.remove("default");
        }
        fields.values_mut().for_each(remove_null);
    } else if let Value::Array(items) = schema {
        items.iter_mut().for_each(remove_null);
    }
}
