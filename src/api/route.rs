//! Which path is which endpoint of the data listener.

use crate::provider::Endpoint;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To a model.
    Model(Endpoint),
    /// The list of models.
    Models,
    /// One model of that list.
    ModelNamed(String),
    /// Whether the process lives.
    Live,
    /// Whether it can serve now.
    Ready,
    /// Nowhere.
    NotServed,
}

impl Route {
    /// The route of a path as it came, without its query.
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/livez" => return Self::Live,
            "/readyz" => return Self::Ready,
            _ => {}
        }
        let Some(path) = path.strip_prefix("/v1") else { return Self::NotServed };
        if let Some(endpoint) = Endpoint::ALL.into_iter().find(|known| known.path() == path) {
            return Self::Model(endpoint);
        }
        match path.strip_prefix("/models") {
            Some("") => Self::Models,
            // A model's name may hold slashes of its own.
            Some(rest) => match rest.strip_prefix('/').and_then(decode) {
                Some(name) if !name.is_empty() => Self::ModelNamed(name),
                _ => Self::NotServed,
            },
            None => Self::NotServed,
        }
    }

    /// The methods it takes, as `Allow` lists them.
    pub(super) const fn methods(&self) -> &'static str {
        match self {
            Self::Model(_) => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// How metrics call it.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Model(endpoint) => endpoint.path(),
            Self::Models | Self::ModelNamed(_) => "/models",
            Self::Live | Self::Ready | Self::NotServed => "",
        }
    }
}

/// Takes the percent encoding off; `None` where that is broken.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_its_path_and_no_other_spelling() {
        for endpoint in Endpoint::ALL {
            let path = format!("/v1{}", endpoint.path());
            assert_eq!(Route::of(&path), Route::Model(endpoint));
            for other in [format!("{path}/"), format!("/{path}"), path.to_uppercase()] {
                assert_eq!(Route::of(&other), Route::NotServed, "{other}");
            }
        }
    }

    #[test]
    fn a_models_name_may_hold_slashes_and_escapes() {
        let named = |name: &str| Route::ModelNamed(name.into());
        assert_eq!(Route::of("/v1/models"), Route::Models);
        assert_eq!(Route::of("/v1/models/meta/llama-3"), named("meta/llama-3"));
        assert_eq!(Route::of("/v1/models/meta%2Fllama%203"), named("meta/llama 3"));
        for broken in
            ["/v1/models/", "/v1/models/%", "/v1/models/%zz", "/v1/models/%ff", "/v1/modelsx"]
        {
            assert_eq!(Route::of(broken), Route::NotServed, "{broken}");
        }
    }

    #[test]
    fn stateful_apis_are_not_served() {
        for path in ["/v1/files", "/v1/batches", "/v1/responses", "/", "", "/v1", "/metrics"] {
            assert_eq!(Route::of(path), Route::NotServed, "{path}");
        }
    }
}
