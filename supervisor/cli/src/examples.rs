//! The help of the commands: examples at the end of each, and the global options in one place.

use clap::Command;

/// By the command's words.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "up",
        &[
            "mozart up fleet/",
            "mozart up fleet/ -d --wait",
            "mozart up fleet/ --env-file secrets.env",
            "mozart up -d --cluster prod --listen 10.0.0.1",
        ],
    ),
    ("join", &["mozart join @join.txt -d"]),
    ("join-token", &["mozart join-token"]),
    ("down", &["mozart down", "mozart down --timeout 5m"]),
    ("reset", &["mozart reset --messages", "mozart reset --all --yes"]),
    (
        "restore",
        &["mozart restore fleet.backup", "mozart restore fleet.backup monday.backup --dry-run"],
    ),
    ("supervisor", &["mozart supervisor --nats nats://broker:4222 --store /var/lib/nats"]),
    (
        "api",
        &[
            "mozart api --nats nats://broker:4222 --listen 0.0.0.0:4141 --tls-cert api.pem --tls-key api-key.pem",
        ],
    ),
    (
        "node",
        &["mozart node --name n1 --nats nats://broker:4222 --label gpu=yes", "mozart node ls"],
    ),
    ("node ls", &["mozart node ls"]),
    ("node show", &["mozart node show n1"]),
    ("node drain", &["mozart node drain n1", "mozart node drain n1 --parallel 4 --timeout 10m"]),
    ("node undrain", &["mozart node undrain n1"]),
    ("node rm", &["mozart node rm n1"]),
    ("apply", &["mozart apply fleet/ --wait", "mozart apply fleet/ --prune --diff"]),
    ("validate", &["mozart validate fleet/", "mozart validate scribe.soul -o json"]),
    ("init", &["mozart init fleet/", "mozart init fleet/ --template python"]),
    ("ps", &["mozart ps", "mozart ps scribe --no-trunc", "mozart ps --watch"]),
    ("send", &["mozart send scribe 'Write a haiku' --wait", "mozart send scribe - < letter.txt"]),
    ("chat", &["mozart chat scribe", "mozart chat scribe 'Write a haiku' --follow"]),
    ("attach", &["mozart attach 0198c2f1-7d3a", "mozart attach 0198c2f1-7d3a --from 12"]),
    ("cancel", &["mozart cancel 0198c2f1-7d3a"]),
    (
        "journal ls",
        &["mozart journal ls --agent scribe --status open", "mozart journal ls --follow"],
    ),
    ("journal show", &["mozart journal show 0198c2f1-7d3a"]),
    ("history", &["mozart history scribe", "mozart history scribe --conversation letters"]),
    ("conversations", &["mozart conversations scribe"]),
    ("forget", &["mozart forget scribe --before 30d --dry-run"]),
    ("dead ls", &["mozart dead ls --agent scribe"]),
    ("dead show", &["mozart dead show 0198c2f1-7d3a"]),
    ("dead redrive", &["mozart dead redrive 0198c2f1-7d3a", "mozart dead redrive --agent scribe"]),
    ("dead drop", &["mozart dead drop 0198c2f1-7d3a"]),
    ("questions", &["mozart questions", "mozart questions scribe -o json"]),
    ("answer", &["mozart answer budget-1 yes", "mozart answer scribe/budget-1 2"]),
    ("schedule ls", &["mozart schedule ls", "mozart schedule ls scribe -o json"]),
    (
        "schedule history",
        &["mozart schedule history scribe", "mozart schedule history scribe k3j --limit 100"],
    ),
    ("schedule run", &["mozart schedule run scribe"]),
    ("schedule pause", &["mozart schedule pause scribe"]),
    ("schedule resume", &["mozart schedule resume scribe"]),
    ("start", &["mozart start scribe"]),
    ("stop", &["mozart stop scribe editor"]),
    ("restart", &["mozart restart scribe"]),
    ("replace", &["mozart replace scribe --wait", "mozart replace scribe --image scribe:2 --wait"]),
    ("move", &["mozart move scribe --to n2 --wait"]),
    ("rebalance", &["mozart rebalance --dry-run", "mozart rebalance"]),
    ("rollout history", &["mozart rollout history scribe"]),
    ("rollout undo", &["mozart rollout undo scribe --to-generation 3 --wait"]),
    ("rm", &["mozart rm scribe"]),
    ("commit", &["mozart commit scribe"]),
    ("export", &["mozart export scribe scribe.tar"]),
    ("import", &["mozart import scribe.tar", "mozart import scribe.tar --name editor"]),
    ("backup", &["mozart backup fleet.backup", "mozart backup monday.backup --since fleet.backup"]),
    ("wait", &["mozart wait scribe", "mozart wait scribe --for idle --timeout 5m"]),
    ("inspect", &["mozart inspect scribe"]),
    (
        "logs",
        &[
            "mozart logs scribe -f",
            "mozart logs scribe editor --since 10m",
            "mozart logs --tail 20",
        ],
    ),
    ("events", &["mozart events scribe", "mozart events --security"]),
    ("auth-key", &["mozart auth-key"]),
    ("explain", &["mozart explain scribe", "mozart explain 0198c2f1-7d3a"]),
    (
        "user add",
        &["mozart user add ana --scope send", "mozart user add ci --scope operate --file -"],
    ),
    (
        "token create",
        &[
            "mozart token create shop --scope send --agent scribe --expires 90d",
            "mozart token create ci --scope operate --file ci.token",
        ],
    ),
    ("token ls", &["mozart token ls"]),
    ("token revoke", &["mozart token revoke shop"]),
    ("ui", &["mozart ui", "mozart ui --no-open --token shop"]),
    ("mcp", &["mozart mcp", "mozart mcp --agent scribe"]),
    ("user ls", &["mozart user ls"]),
    ("user revoke", &["mozart user revoke ana"]),
    (
        "chaos",
        &[
            "mozart chaos --minutes 5",
            "mozart chaos --minutes 0.5 --kinds kill,cut --seed 7 --keep",
        ],
    ),
    ("usage", &["mozart usage --storage"]),
    ("doctor", &["mozart doctor", "mozart doctor --fix"]),
    ("completions", &["source <(mozart completions bash)"]),
];

/// The grammar with its examples. What every command takes is shown once, in the program's own help.
#[must_use]
pub fn with(grammar: Command) -> Command {
    let mut grammar = within(grammar, "");
    // Only now each command has the options of all.
    grammar.build();
    let inner: Vec<String> =
        grammar.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    inner.into_iter().fold(grammar, |grammar, name| grammar.mut_subcommand(name, without_global))
}

fn without_global(mut command: Command) -> Command {
    command = command.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
    let inner: Vec<String> =
        command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    inner.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_global))
}

fn within(mut command: Command, above: &str) -> Command {
    let inner: Vec<String> =
        command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    for name in inner {
        let words = if above.is_empty() { name.clone() } else { format!("{above} {name}") };
        command = command.mut_subcommand(name, |inner| within(inner, &words));
    }
    match EXAMPLES.iter().find(|(words, _)| *words == above) {
        Some((_, examples)) => {
            let text = examples.iter().map(|example| format!("\n  {example}"));
            let text: String = text.collect();
            command.after_help(format!("Examples:{text}\n\nGlobal options: `mozart --help`"))
        }
        None => command,
    }
}

/// The words of an example behind the program's name, without what a shell does with the rest.
#[must_use]
pub fn words() -> Vec<Vec<String>> {
    let all = EXAMPLES.iter().flat_map(|(_, examples)| *examples);
    let plain = all.filter_map(|example| example.strip_prefix("mozart "));
    plain
        .map(|example| {
            let example = example.split(" < ").next().unwrap_or(example);
            // One argument may be quoted.
            let mut parts = example.split('\'');
            let mut words: Vec<String> = Vec::new();
            while let Some(bare) = parts.next() {
                words.extend(bare.split_whitespace().map(str::to_owned));
                words.extend(parts.next().map(str::to_owned));
            }
            words
        })
        .collect()
}
