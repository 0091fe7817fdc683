//! The list of models, in OpenAI's shape.

use actix_http::StatusCode;
use actix_http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Serialize;

use crate::domain::{Code, Fault};
use crate::proxy::{Body, Reply};

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// OpenAI's clients want a number; ours are not made at any time.
    created: u64,
    owned_by: &'static str,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

impl<'a> Model<'a> {
    fn new(id: &'a str) -> Self {
        Self { id, object: "model", created: 0, owned_by: "flotilla" }
    }
}

/// All of them.
pub(super) fn list(models: &[String]) -> Reply {
    let data = models.iter().map(|name| Model::new(name)).collect();
    json(&List { object: "list", data })
}

/// One of them.
pub(super) fn one(models: &[String], name: &str) -> Reply {
    match models.iter().find(|known| *known == name) {
        Some(known) => json(&Model::new(known)),
        None => {
            let message =
                "There is no such model for this key; GET /v1/models lists those there are.";
            Reply::fault(&Fault::new(Code::ModelNotFound, message))
        }
    }
}

fn json(value: &impl Serialize) -> Reply {
    let text = serde_json::to_vec(value).expect("strings and numbers are always JSON");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Reply { status: StatusCode::OK, headers, body: Body::Whole(text.into()) }
}
