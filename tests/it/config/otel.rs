//! The standard variables of OpenTelemetry.

use std::time::Duration;

use flotilla::config::{Env, Settings};
use flotilla::telemetry::{SamplerConfig, TraceConfig};

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

fn load(pairs: &[(&str, &str)]) -> Result<(Settings, Vec<String>), Vec<String>> {
    let env: Env = pairs.iter().copied().collect();
    match Settings::load(&env) {
        Ok((settings, warnings)) => {
            Ok((settings, warnings.iter().map(ToString::to_string).collect()))
        }
        Err(faults) => Err(faults.iter().map(ToString::to_string).collect()),
    }
}

fn traces(more: &[(&str, &str)]) -> TraceConfig {
    let pairs = [&[ENDPOINT], more].concat();
    load(&pairs).expect("the settings are good").0.traces.expect("traces are on")
}

#[test]
fn traces_are_off_without_an_endpoint() {
    let off = |pairs: &[(&str, &str)]| load(pairs).expect("good").0.traces.is_none();
    assert!(off(&[]));
    // What belongs to traces that are off is nobody's mistake.
    assert!(off(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_SAMPLER", "x")]));
    assert!(off(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]));
    assert!(off(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]));
    assert!(!off(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_SDK_DISABLED", "false")]));
}

#[test]
fn an_endpoint_gets_its_path_unless_it_is_that_of_traces() {
    let url = |pairs: &[(&str, &str)]| {
        load(pairs).expect("good").0.traces.expect("on").endpoint.to_string()
    };
    let general = |text| url(&[("OTEL_EXPORTER_OTLP_ENDPOINT", text)]);
    assert_eq!(general("http://c:4318"), "http://c:4318/v1/traces");
    assert_eq!(general("https://c/otel/"), "https://c/otel/v1/traces");
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t/my/path");
    assert_eq!(url(&[ENDPOINT, own]), "https://t/my/path");
}

#[test]
fn defaults_are_those_of_the_standard() {
    let config = traces(&[]);
    assert_eq!((config.queue, config.batch), (2048, 512));
    assert_eq!((config.delay, config.timeout), (Duration::from_secs(5), Duration::from_secs(10)));
    assert_eq!(config.sampler, SamplerConfig { parent_based: true, ratio: 1.0 });
    assert!(config.headers.is_empty());
    let resource: Vec<_> = config.resource.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(resource, ["service.name", "service.version", "service.instance.id"]);
}

#[test]
fn every_variable_is_read() {
    let config = traces(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "x=general"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Authorization=Basic%20canary%3D, x-scope = a"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "7"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_SERVICE_NAME", "gateway"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=a%2Cb"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "200"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]);
    let headers: Vec<_> =
        config.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("authorization", "Basic canary="), ("x-scope", "a")]);
    assert_eq!(config.timeout, Duration::from_millis(2500));
    assert_eq!(config.sampler, SamplerConfig { parent_based: true, ratio: 0.25 });
    let get = |name: &str| config.resource.iter().find(|(key, _)| key == name);
    assert_eq!(get("service.name").map(|(_, value)| value.as_str()), Some("gateway"));
    assert_eq!(get("deployment.environment.name").map(|(_, value)| value.as_str()), Some("a,b"));
    // A batch is no larger than the queue.
    assert_eq!((config.queue, config.batch), (100, 100));
    assert_eq!(config.delay, Duration::from_millis(50));
    // T31d
    assert!(!format!("{config:?}").contains("canary"));
}

#[test]
fn every_sampler_of_the_standard_is_known() {
    for (name, parent_based, ratio) in [
        ("always_on", false, 1.0),
        ("always_off", false, 0.0),
        ("traceidratio", false, 0.5),
        ("parentbased_always_on", true, 1.0),
        ("parentbased_always_off", true, 0.0),
        ("parentbased_traceidratio", true, 0.5),
    ] {
        let config = traces(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", "0.5")]);
        assert_eq!(config.sampler, SamplerConfig { parent_based, ratio }, "{name}");
    }
}

#[test]
fn what_is_wrong_is_said_with_what_to_set() {
    for (name, value, said) in [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "\"grpc\" is not served, only http/protobuf; set it",
        ),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "only http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318", "not an http or https URL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://u:canary@c", "not an http or https URL"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "canary", "something else than name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=canary%0A", "something else than name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "host=canary", "something else than name=value"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "not a number of milliseconds from 1 to 300000"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "the default is 10000"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "\"jaeger_remote\" is no sampler; use always_on"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "not otlp or none; leave it unset"),
        ("OTEL_RESOURCE_ATTRIBUTES", "x", "something else than name=value"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "not a number from 1 to 65536; the default is 2048"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "70000", "not a number from 1 to 65536"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "not a number of milliseconds"),
    ] {
        let faults = load(&[ENDPOINT, (name, value)]).expect_err(name);
        let [fault] = &faults[..] else { unreachable!("one fault of {name}: {faults:?}") };
        assert!(fault.starts_with(&format!("{name}: ")) && fault.contains(said), "{fault}");
        assert!(!fault.contains("canary"), "{fault}");
    }
    let ratio =
        [ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
    let faults = load(&ratio).expect_err("a ratio above 1");
    assert!(faults[0].starts_with("OTEL_TRACES_SAMPLER_ARG: \"2\" is not between 0 and 1"));
}

#[test]
fn what_is_ignored_is_warned_of() {
    for name in ["OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_CERTIFICATE"] {
        let (_, warnings) = load(&[ENDPOINT, (name, "x")]).expect("good");
        assert_eq!(warnings, [format!("{name}: is not served and is ignored")]);
        assert!(load(&[(name, "x")]).expect("good").1.is_empty());
    }
    let metrics = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c");
    let (settings, warnings) = load(&[metrics]).expect("good");
    assert!(settings.traces.is_none());
    assert!(warnings[0].contains("only traces are exported"), "{warnings:?}");
}
