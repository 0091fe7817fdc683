//! From a document to the snapshot that a node serves from: defaults filled in, names linked,
//! variables resolved, keys hashed.
//!
//! What is missing on this node only (a variable, or a good value in it) disables what needs it,
//! loudly, and never the document: other nodes may have it.

mod limits;
mod link;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;

use super::check::{DEFAULT_TENANT, is_key, is_sendable};
use super::counting;
use super::document::{self, Document, Fleet};
use super::env::{Env, ExpandError, expand};
use super::fault::{DocumentFault, Faults, Warning, nearest, shown};
use super::tree::Path;
use crate::domain::{BaseUrl, KeyHash, Secret};
use crate::provider::Protocol;
use crate::snapshot::{Key, Provider, Route, Snapshot, Tenant};
use limits::{Limits, budget};
use link::{globs, pools, routes, targets, tenant, tenants};

/// OpenAI's own address.
const OPENAI: &str = "https://api.openai.com/v1";

/// The name of everybody while no keys are configured.
const ANONYMOUS: &str = "anonymous";

/// Compiles a document for this node.
///
/// # Errors
/// Where two keys turn out to be the same once this node's variables are in their place.
pub fn compile(
    document: &Document,
    env: &Env,
    revision: u64,
) -> Result<(Snapshot, Vec<Warning>), Vec<DocumentFault>> {
    let fleet = &document.fleet;
    let mut compiler =
        Compiler { document, env, faults: Faults::new(&document.file), warnings: Vec::new() };
    let providers = compiler.providers(fleet);
    let targets = targets(fleet, &providers);
    let pools = pools(fleet, &targets);
    let routes = routes(fleet, &pools);
    let tenants = tenants(fleet);
    let limits = Limits::of(fleet);
    let keys = compiler.keys(fleet, &tenants, &limits);
    compiler.remarks(fleet, &routes);
    if !compiler.faults.is_empty() {
        return Err(compiler.faults.into_list());
    }
    let default = tenant(&tenants, DEFAULT_TENANT);
    let anonymous = Key {
        name: ANONYMOUS.into(),
        limits: limits.to(ANONYMOUS, &default),
        tenant: default,
        models: None,
        upstream_models: None,
        expires: None,
        budget: None,
        places: OnceLock::new(),
    };
    let of_targets = targets.values().flat_map(|target| &target.limits);
    let limits = limits.all.iter().chain(of_targets).cloned().collect();
    let snapshot = Snapshot {
        revision,
        checksum: document.checksum.as_str().into(),
        providers: providers.into_values().collect(),
        limits,
        targets: targets.into_values().collect(),
        pools: pools.into_values().collect(),
        routes,
        keys,
        keys_required: !fleet.keys.is_empty(),
        anonymous: Arc::new(anonymous),
    };
    Ok((snapshot, compiler.warnings))
}

type Named<T> = BTreeMap<String, Arc<T>>;

struct Compiler<'a> {
    document: &'a Document,
    env: &'a Env,
    faults: Faults,
    warnings: Vec<Warning>,
}

impl Compiler<'_> {
    fn warn(&mut self, path: &Path, what: String, hint: Option<String>) {
        self.warnings.push(Warning { name: path.to_string(), what, hint });
    }

    /// The text with this node's variables, or what is wrong with it here.
    fn resolve(&self, text: &Secret) -> Result<String, String> {
        expand(text.expose(), self.env).map_err(|error| match error {
            ExpandError::Missing(names) => format!("{} is not set", names.join(", ")),
            // The walk has refused it.
            ExpandError::Malformed => "a malformed variable".to_owned(),
        })
    }

    fn providers(&mut self, fleet: &Fleet) -> Named<Provider> {
        let compiled = fleet.providers.iter().map(|(name, spec)| {
            let path = Path::default().field("providers").field(name);
            (name.clone(), Arc::new(self.provider(name, spec, &path)))
        });
        compiled.collect()
    }

    fn provider(&mut self, name: &str, spec: &document::Provider, path: &Path) -> Provider {
        let own: BaseUrl = OPENAI.parse().expect("the vendor's own address is a base URL");
        let base = match &spec.base_url {
            None => Ok(own.clone()),
            Some(text) => self.resolve(&text.0).and_then(|text| {
                text.parse::<BaseUrl>().map_err(|error| format!("its base_url here is {error}"))
            }),
        };
        let credential = spec.api_key.as_ref().map(|text| {
            let text = self.resolve(&text.0)?;
            // A file that was read into a variable often ends with a line end.
            let text = text.trim();
            if is_sendable(text) {
                Ok(Secret::new(text.to_owned()))
            } else {
                Err("its api_key here holds a character that no header can carry".to_owned())
            }
        });
        let mut enabled = true;
        let problems = [base.as_ref().err(), credential.as_ref().and_then(|c| c.as_ref().err())];
        for problem in problems.into_iter().flatten() {
            enabled = false;
            let what = format!("disabled on this node: {problem}");
            self.warn(path, what, Some("set it and start again".to_owned()));
        }
        if spec.base_url.is_none() && spec.api_key.is_none() {
            let hint = "add api_key: \"${OPENAI_API_KEY}\"".to_owned();
            self.warn(path, "has no api_key for the vendor's own address".to_owned(), Some(hint));
        }
        let base = base.unwrap_or(own);
        Provider {
            name: name.into(),
            protocol: Protocol::OpenAi,
            base,
            credential: credential.and_then(Result::ok),
            usage_in_stream: spec.usage_in_stream,
            trace_context: spec.trace_context,
            enabled,
        }
    }

    fn keys(
        &mut self,
        fleet: &Fleet,
        tenants: &Named<Tenant>,
        limits: &Limits<'_>,
    ) -> HashMap<KeyHash, Arc<Key>, RandomState> {
        let mut keys: HashMap<KeyHash, Arc<Key>, RandomState> = HashMap::default();
        for (index, spec) in fleet.keys.iter().enumerate() {
            let path = Path::default().field("keys").item(index);
            let hash = match (&spec.hash, &spec.key) {
                (Some(hash), _) => hash.0,
                (None, None) => continue,
                (None, Some(text)) => match self.resolve(&text.0) {
                    Ok(text) if is_key(text.trim()) => KeyHash::of(text.trim().as_bytes()),
                    Ok(_) => {
                        let what = "its value here is no key: visible ASCII characters only";
                        self.left_out(&path, &spec.name, what);
                        continue;
                    }
                    Err(what) => {
                        self.left_out(&path, &spec.name, &what);
                        continue;
                    }
                },
            };
            let tenant = tenant(tenants, spec.tenant.as_deref().unwrap_or(DEFAULT_TENANT));
            let own = counting::key_budget(&spec.name);
            let key = Key {
                name: spec.name.as_str().into(),
                limits: limits.to(&spec.name, &tenant),
                tenant,
                models: globs(spec.models.as_deref()),
                upstream_models: globs(spec.upstream_models.as_deref()),
                expires: spec.expires.map(|time| time.0.as_second()),
                budget: spec.budget.as_ref().map(|spec| budget(&own, spec)),
                places: OnceLock::new(),
            };
            if let Some(first) = keys.insert(hash, Arc::new(key)) {
                let what = format!("the same key as `{}`", shown(&first.name));
                let hint = Some("each key has one name".to_owned());
                self.faults.push(self.document.place(&path), &path, what, hint);
            }
        }
        keys
    }

    fn left_out(&mut self, path: &Path, name: &str, why: &str) {
        let what = format!("the key `{}` is left out on this node: {why}", shown(name));
        self.warn(path, what, Some("set it and start again".to_owned()));
    }

    /// What is allowed but hardly meant.
    fn remarks(&mut self, fleet: &Fleet, routes: &[Route]) {
        for (name, tenant) in &fleet.tenants {
            let path = Path::default().field("tenants").field(name).field("regions");
            let known = || fleet.targets.values().filter_map(|target| target.region.as_deref());
            for (index, region) in tenant.regions.iter().flatten().enumerate() {
                if !known().any(|known| known == region) {
                    let hint =
                        nearest(region, known()).map(|name| format!("did you mean `{name}`?"));
                    let what = format!("no target is in the region `{}`", shown(region));
                    self.warn(&path.item(index), what, hint);
                }
            }
        }
        if counts_cost(fleet) {
            for (name, _) in fleet.targets.iter().filter(|(_, target)| target.price.is_none()) {
                let what = "has no price, so budgets and limits of cost do not count it";
                let hint = "if it is free, write price: { input: 0, output: 0 }".to_owned();
                self.warn(
                    &Path::default().field("targets").field(name),
                    what.to_owned(),
                    Some(hint),
                );
            }
        }
        let pools = || fleet.pools.keys().map(String::as_str);
        for (index, key) in fleet.keys.iter().enumerate() {
            let path = Path::default().field("keys").item(index).field("models");
            for (at, model) in key.models.iter().flatten().enumerate() {
                let known = fleet.pools.contains_key(model)
                    || routes.iter().any(|route| route.model.matches(model));
                if !model.contains('*') && !known {
                    let hint =
                        nearest(model, pools()).map(|name| format!("did you mean `{name}`?"));
                    let what = format!("no pool and no route knows the model `{}`", shown(model));
                    self.warn(&path.item(at), what, hint);
                }
            }
        }
    }
}

/// Whether anything in the document depends on what a request costs.
fn counts_cost(fleet: &Fleet) -> bool {
    let of_targets = fleet.targets.values().flat_map(|target| &target.limits);
    let metrics = fleet.limits.iter().map(|limit| limit.metric);
    fleet.tenants.values().any(|tenant| tenant.budget.is_some())
        || fleet.keys.iter().any(|key| key.budget.is_some())
        || metrics.chain(of_targets.map(|limit| limit.metric)).any(|m| m == document::Metric::Cost)
}
