//! The query string of an admin request: every name known, none twice.

use std::collections::HashMap;

use actix_http::StatusCode;
use actix_web::web;

use super::{Answer, error};

/// The parameters of a query string.
#[derive(Debug)]
pub(super) struct Query(HashMap<String, String>);

impl Query {
    /// Reads a query string of these parameters.
    ///
    /// # Errors
    /// A parameter that is not known, or stands twice; a typo must not widen what is asked for.
    pub(super) fn read(text: &str, known: &[&str]) -> Result<Self, Answer> {
        let bad = |message: &str| error(StatusCode::BAD_REQUEST, "invalid_request", message);
        let pairs = web::Query::<Vec<(String, String)>>::from_query(text);
        let pairs = pairs.map_err(|_| bad("The query string cannot be read."))?.into_inner();
        let mut found = HashMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                return Err(bad(&format!("`{name}` is not known; known: {}.", known.join(", "))));
            }
            if found.insert(name.clone(), value).is_some() {
                return Err(bad(&format!("`{name}` stands twice.")));
            }
        }
        Ok(Self(found))
    }

    /// The value of this parameter; an empty one is none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}
