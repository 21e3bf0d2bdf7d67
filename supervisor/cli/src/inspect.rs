//! `mozart inspect`.

use clap::Args;
use common::AgentName;
use common::api::{AgentDetail, ApiError};
use common::files::Files;
use common::spec::{
    AgentSpec, IfThen, Keep, Limits, Replace, Restart, RestartPolicy, Sanctum, Schedule,
};

use super::client::Client;
use super::{output, table};
use crate::args::Global;

/// `mozart inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The agent
    agent: AgentName,
}

/// Shows everything known about an agent.
///
/// # Errors
/// 3 no such agent, 6 no supervisor.
pub(crate) async fn run(global: &Global, args: &InspectArgs) -> Result<u8, ApiError> {
    let client = Client::to_read(global).await?;
    let detail = client.inspect(args.agent.clone()).await?;
    if client.json() {
        output::json(&detail)?;
    } else {
        output::line(render(&detail))?;
    }
    Ok(0)
}

fn render(detail: &AgentDetail) -> String {
    let AgentDetail { row, config, .. } = detail;
    let wanted = if detail.desired_running { "running" } else { "stopped" };
    let worker = match (&config.worker, &config.image) {
        (Some(words), _) => words.join(" "),
        (None, Some(_)) => "the image's own, or the built-in echo".to_owned(),
        (None, None) => "built-in echo".to_owned(),
    };
    let mut pairs = vec![
        ("agent", detail.id.to_string()),
        ("state", row.state.as_str().to_owned()),
        ("reason", table::or_none(row.reason.as_deref())),
        ("wanted", wanted.to_owned()),
        ("generation", row.generation.to_string()),
        ("incarnation", row.incarnation.to_string()),
        ("node", table::or_none(row.node.as_deref())),
        ("started", table::or_none(row.started_at)),
        ("restarts", row.restart_count.to_string()),
        ("last exit", table::or_none(row.last_exit.as_deref())),
        ("next try", table::or_none(row.next_try)),
        ("messages", format!("{} in the journal", row.message_count)),
        ("inbox", super::ps::busy(row)),
        ("oldest", table::or_none(row.oldest)),
        ("model", config.model.clone()),
        ("identity", table::one_line(&config.identity, 80)),
        ("worker", worker),
        ("image", table::or_none(config.image.as_deref())),
        ("concurrency", config.concurrency.to_string()),
        ("attempts", attempts(config)),
        ("turn timeout", table::short(config.timeout.turn)),
        ("drain timeout", table::short(config.timeout.drain)),
        ("ready timeout", table::short(config.timeout.ready)),
        ("restart", restart(&config.restart)),
        ("replace", replace(config).to_owned()),
        ("keep", keep(&config.keep)),
        ("soul", config.source_path.clone()),
        ("files", table::or_none(config.files.as_ref().map(files))),
    ];
    pairs.extend(limits(&config.limits).map(|limit| ("limit", limit)));
    pairs.extend(
        config
            .env
            .iter()
            .map(|(name, value)| ("env", table::one_line(&format!("{name}={value}"), 80))),
    );
    // A value is nowhere but in the worker.
    pairs.extend(config.secrets.iter().map(|name| ("secret", name.clone())));
    pairs.extend(config.sanctums.iter().map(|Sanctum { host, path, read_only, shared }| {
        let mode = if *read_only { ", read-only" } else { "" };
        let shared = if *shared { ", shared" } else { "" };
        ("sanctum", format!("{host} at {path}{mode}{shared}"))
    }));
    pairs.extend(config.skills.iter().map(|skill| ("skill", skill.clone())));
    pairs.extend(config.schedule.iter().map(|Schedule { cron, tz, prompt, .. }| {
        let zone = tz.as_ref().map(|tz| format!(" {tz}")).unwrap_or_default();
        ("schedule", format!("{cron}{zone}: {}", table::one_line(prompt, 60)))
    }));
    pairs.extend(config.if_then.iter().map(|IfThen { condition, reaction }| {
        ("if", format!("{} then {}", table::one_line(condition, 40), table::one_line(reaction, 40)))
    }));
    pairs.extend(config.labels.iter().map(|(key, value)| ("label", format!("{key}={value}"))));
    pairs.extend(config.require.iter().map(|(key, value)| ("require", format!("{key}={value}"))));
    pairs.extend(detail.pinned_to.iter().map(|node| ("pinned to", node.to_string())));
    pairs.extend(detail.placement.iter().map(|row| ("placement", row.text.clone())));
    let line = |(name, value): &(&str, String)| format!("{name:<14}{value}");
    pairs.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn files(files: &Files) -> String {
    format!("sha256 {}, {}", files.sha256, indicatif::HumanBytes(files.bytes))
}

fn attempts(config: &AgentSpec) -> String {
    let (first, max) = (table::short(config.retry.first), table::short(config.retry.max));
    match config.retry.is_default() {
        true => config.attempts.to_string(),
        false => format!("{}, after {first} to {max}", config.attempts),
    }
}

fn replace(config: &AgentSpec) -> &'static str {
    match config.replace_mode() {
        Replace::StartFirst => "start-first",
        Replace::StopFirst => "stop-first",
    }
}

fn keep(keep: &Keep) -> String {
    let all = [("history", keep.history), ("events", keep.events), ("logs", keep.logs)];
    let said = all.into_iter().filter_map(|(what, time)| Some((what, time?)));
    let said = said.map(|(what, time)| format!("{what} {}", table::exact(time)));
    let said = said.collect::<Vec<_>>().join(", ");
    if said.is_empty() { "fleet default".to_owned() } else { said }
}

fn restart(restart: &Restart) -> String {
    let Restart { policy, max, period, backoff_first, backoff_max } = restart;
    let policy = match policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => return "never".to_owned(),
    };
    let (first, most) = (table::exact(*backoff_first), table::exact(*backoff_max));
    let bound = match max {
        0 => "no limit".to_owned(),
        max => format!("at most {max} in {}", table::exact(*period)),
    };
    format!("{policy}, after {first} to {most}, {bound}")
}

/// What it may use, where that is bounded.
fn limits(limits: &Limits) -> impl Iterator<Item = String> {
    let memory = limits.memory.map(|bytes| format!("memory {}", table::bytes(bytes)));
    let cpus = limits.milli_cpus.map(|milli| format!("{}.{:03} CPUs", milli / 1000, milli % 1000));
    let pids = limits.pids.map(|pids| table::count(pids.into(), "process", "processes"));
    [memory, cpus, pids].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::row;
    use super::*;
    use common::api::AgentState;
    use common::spec::AgentSpec;

    #[test]
    fn nothing_is_shown_as_nothing_and_the_echo_worker_by_name() {
        let id = AgentName::new("a").expect("valid");
        let shown = render(&AgentDetail {
            row: row("a", AgentState::Running),
            config: AgentSpec::new(id.clone(), "test/model", "test agent"),
            desired_running: true,
            running_config: None,
            exit: None,
            placement: Vec::new(),
            pinned_to: None,
            id,
        });
        assert!(shown.contains("worker        built-in echo"), "{shown}");
        assert!(shown.contains("last exit     <none>"), "{shown}");
    }

    #[test]
    fn all_of_a_soul_is_shown_but_no_value_of_a_secret() {
        let id = AgentName::new("a").expect("valid");
        let mut config = AgentSpec::new(id.clone(), "test/model", "test agent");
        config.image = Some("acme/agent:1".to_owned());
        config.limits = Limits { memory: Some(1 << 30), milli_cpus: Some(1500), pids: Some(64) };
        config.env.insert("MODE".to_owned(), "fast".to_owned());
        config.secrets.push("API_KEY".to_owned());
        config.sanctums.push(Sanctum {
            host: "/srv/a".to_owned(),
            path: "/data".to_owned(),
            read_only: true,
            shared: true,
        });
        config.skills.push("search".to_owned());
        config.schedule.push(Schedule {
            cron: "0 9 * * *".to_owned(),
            tz: Some("Europe/Berlin".to_owned()),
            prompt: "report".to_owned(),
            options: Default::default(),
        });
        config.require.insert("zone".to_owned(), "eu".to_owned());
        let shown = render(&AgentDetail {
            row: row("a", AgentState::Running),
            config,
            desired_running: true,
            running_config: None,
            exit: None,
            placement: Vec::new(),
            pinned_to: None,
            id,
        });
        for line in [
            "worker        the image's own, or the built-in echo",
            "image         acme/agent:1",
            "restart       always, after 1s to 60s, at most 10 in 10m",
            "limit         memory 1 GiB",
            "limit         1.500 CPUs",
            "limit         64 processes",
            "env           MODE=fast",
            "secret        API_KEY",
            "sanctum       /srv/a at /data, read-only, shared",
            "skill         search",
            "schedule      0 9 * * * Europe/Berlin: report",
            "require       zone=eu",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
    }
}
