//! Whether traces are exported, and which: OpenTelemetry's own environment variables.

use common::trace::Share;

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Of the traces that begin with a message, these are recorded. Others are if their sender says so.
    pub share: Share,
}

/// What the environment says; none if nothing is to be exported. `var`: the value of a variable.
///
/// # Errors
/// What is wrong with a variable.
pub fn settings(var: impl Fn(&str) -> Option<String>) -> Result<Option<Settings>, String> {
    let set =
        |name: &str| var(name).map(|value| value.trim().to_owned()).filter(|it| !it.is_empty());
    let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let Some((name, endpoint)) = endpoints.iter().find_map(|name| Some((name, set(name)?))) else {
        return Ok(None);
    };
    let is_off = set("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|it| it == "none");
    if is_off {
        return Ok(None);
    }
    if !endpoint.starts_with("http://") {
        return Err(format!(
            "{name} is {endpoint:?}: traces are sent to an http:// address, such as that of a collector on this host, http://127.0.0.1:4318"
        ));
    }
    let protocols = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    if let Some((name, other)) = protocols.iter().find_map(|name| Some((name, set(name)?)))
        && other != "http/protobuf"
    {
        return Err(format!("{name} is {other:?}: traces are sent by http/protobuf"));
    }
    let share = share(set("OTEL_TRACES_SAMPLER").as_deref(), set("OTEL_TRACES_SAMPLER_ARG"))?;
    Ok(Some(Settings { share }))
}

fn share(sampler: Option<&str>, arg: Option<String>) -> Result<Share, String> {
    match sampler {
        None | Some("always_on" | "parentbased_always_on") => Ok(Share::ALL),
        Some("always_off" | "parentbased_always_off") => Ok(Share::NONE),
        Some("traceidratio" | "parentbased_traceidratio") => {
            let arg = arg.unwrap_or_else(|| "1".to_owned());
            let part = arg.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part));
            let part = part.ok_or_else(|| {
                format!("OTEL_TRACES_SAMPLER_ARG is {arg:?}: expected a number from 0 to 1")
            })?;
            Ok(Share::of(part))
        }
        Some(other) => Err(format!(
            "OTEL_TRACES_SAMPLER is {other:?}: expected always_on, always_off, traceidratio, or one of them after parentbased_"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        settings(|name| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const TO: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn nothing_is_exported_unless_there_is_a_receiver() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        assert_eq!(of(&[TO, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
        assert_eq!(of(&[TO, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert_eq!(of(&[TO]), Ok(Some(Settings { share: Share::ALL })));
    }

    #[test]
    fn the_samplers_are_those_of_opentelemetry() {
        let sampler =
            |name, arg| of(&[TO, ("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)]);
        let share = |name, arg| sampler(name, arg).map(|it| it.expect("it exports").share);
        assert_eq!(share("always_off", ""), Ok(Share::NONE));
        assert_eq!(share("parentbased_traceidratio", "0.25"), Ok(Share::of(0.25)));
        assert!(share("traceidratio", "2").is_err() && share("jaeger_remote", "").is_err());
    }

    #[test]
    fn what_cannot_be_sent_is_said_at_once() {
        assert!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector")]).is_err());
        assert!(of(&[TO, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).is_err());
        assert!(of(&[TO, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).is_ok());
    }
}
