//! Numbers: what a scrape tells of a fleet, that every number is documented, and that rules and dashboard name only numbers that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use system_tests::harness::{Child, Fleet, Signal, Until, eventually, flaky, kill};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::roles;

/// What a scrape has told.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    text: String,
    /// The type of each metric, by its name without the suffix.
    types: BTreeMap<String, String>,
    /// The value of each series.
    series: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(text: String) -> Self {
        let words = |line: &str| line.rsplit_once(' ').map(|(one, two)| (one.into(), two.into()));
        let types = text.lines().filter_map(|line| words(line.strip_prefix("# TYPE ")?)).collect();
        let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a series and its value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        let series = series.collect();
        Self { types, series, text }
    }

    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        let value = self.series.get(series);
        *value.unwrap_or_else(|| panic!("{series} is not in\n{}", self.text))
    }

    /// The names of all series, without labels, and with what a histogram adds to its own left out.
    fn names(&self) -> BTreeSet<String> {
        let name = |series: &String| {
            let name = series.split('{').next().unwrap_or_default();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                let base = name.strip_suffix(suffix)?;
                (self.types.get(base)? == "histogram").then_some(base)
            });
            of_histogram.unwrap_or(name).to_owned()
        };
        self.series.keys().map(name).collect()
    }
}

/// Asks for a page; the answer with its head.
async fn get(port: u16, path: &str, accept: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn scrape(port: u16) -> Until<Scrape> {
    let answer = get(port, "/metrics", "application/openmetrics-text").await;
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    if !head.starts_with("HTTP/1.1 200") || !head.contains("application/openmetrics-text") {
        return Err(head.to_owned());
    }
    if !body.ends_with("# EOF\n") {
        return Err(format!("cut off: {body}"));
    }
    Ok(Scrape::of(body.to_owned()))
}

/// Scrapes until it is so.
pub(crate) async fn until(what: &str, port: u16, is: impl Fn(&Scrape) -> bool) -> Scrape {
    eventually(what, async || {
        let scrape = scrape(port).await?;
        if is(&scrape) { Ok(scrape) } else { Err(scrape.text) }
    })
    .await
}

pub(crate) fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn finished(scrape: &Scrape, outcome: &str) -> f64 {
    scrape.get(&format!("mozart_messages_finished_total{{outcome=\"{outcome}\"}}"))
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of our metrics in a text of queries.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("mozart_"));
    words.map(str::to_owned).collect()
}

/// The rows of the table of all metrics: name, type, labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = file("docs/metrics.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let code = |text: &str| -> Vec<String> {
            text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let name = code(cells.first()?).into_iter().next()?;
        let labels = code(cells.get(2)?).into_iter().collect();
        name.starts_with("mozart_").then(|| (name, (cells[1].trim().to_owned(), labels)))
    };
    page.lines().filter(|line| line.starts_with("| `mozart_")).filter_map(row).collect()
}

#[tokio::test]
async fn what_happens_in_a_fleet_is_told_and_all_that_is_told_is_documented() {
    let port = roles::free_port();
    // Nobody takes the traces: their numbers are there nevertheless.
    let nobody = format!("http://127.0.0.1:{}", roles::free_port());
    let souls = [("a", flaky("ATTEMPTS 2 backoff=1ms..1ms\nCONCURRENCY 4")), ("b", flaky(""))];
    let souls = souls.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut fleet = Fleet::new(&souls).env("OTEL_EXPORTER_OTLP_ENDPOINT", &nobody);
    fleet.up(&["--metrics", &at(port), "--api", "127.0.0.1:0"]).await;
    for agent in ["a", "b"] {
        let _row = fleet.wait_state(agent, "running").await;
    }
    for n in 0..3 {
        assert_eq!(fleet.ask("a", &format!("say {n}")).await, n.to_string());
    }
    let _failed = fleet.cli(["send", "a", "fail no", "--wait"]).await.exit(1);
    let _again = fleet.cli(["send", "a", "retry no", "--wait"]).await.exit(1);
    let _asked = fleet.ask("a", "ask b say hello").await;
    let open = fleet.json(["send", "b", "sleep 60"]).await;
    let id = open["messageId"].as_str().expect("an id").to_owned();
    let told = until("everything is counted", port, |told| {
        finished(told, "completed") >= 5.0
            && finished(told, "failed") >= 2.0
            && told.series.contains_key("mozart_agent_queue_messages{agent=\"b\"}")
            && told.series.contains_key("mozart_stream_messages{stream=\"DEAD\"}")
            && told.get("mozart_turns_open") == 1.0
            && told.get("mozart_traces_dropped_total{reason=\"refused\"}") > 0.0
    })
    .await;
    assert_eq!((finished(&told, "completed"), finished(&told, "failed")), (5.0, 2.0));
    assert_eq!(told.get("mozart_messages_started_total"), 8.0);
    assert_eq!(told.get("mozart_attempts_total"), 9.0, "one was tried again");
    assert_eq!(told.get("mozart_dead_letters_total"), 2.0);
    assert_eq!(told.get("mozart_questions_total"), 1.0);
    assert_eq!(told.get("mozart_message_duration_seconds_count"), 7.0);
    assert_eq!(told.get("mozart_message_first_text_seconds_count"), 5.0);
    assert_eq!(told.get("mozart_queue_messages"), 1.0);
    assert_eq!(told.get("mozart_agents{state=\"running\"}"), 2.0);
    assert_eq!(told.get("mozart_nodes{state=\"up\"}"), 1.0);
    assert_eq!(told.get("mozart_node_incarnations"), 2.0);
    assert_eq!((told.get("mozart_leader"), told.get("mozart_leader_elections_total")), (1.0, 1.0));
    assert!(told.get("mozart_leader_term") > 0.0 && told.get("mozart_node_connected") == 1.0);

    let _cancelled = fleet.cli(["cancel", &id]).await.ok();
    let shim = fleet.shim("b");
    kill(shim, Signal::KILL);
    let told = until("the end of an incarnation is counted", port, |told| {
        told.get("mozart_incarnation_exits_total{cause=\"failed\"}") >= 1.0
            && told.get("mozart_incarnation_starts_total") >= 3.0
    })
    .await;
    assert_eq!(told.get("mozart_node_exits_total{cause=\"failed\"}"), 1.0);

    // An agent that does not run, with a message: what waits for it is seen, too.
    let never = "ENV FLAKY_START=\"exit 3\"\nRESTART always max=1/10m backoff=100ms..1s";
    let _broken = fleet.soul("c", &flaky(never));
    let _applied = fleet.cli(["apply", "c.soul"]).await.ok();
    let _sent = fleet.cli(["send", "c", "say hello"]).await.ok();
    let told = until("an agent fails, and a message waits for it", port, |told| {
        let of_c = |name: &str| told.series.contains_key(&format!("{name}{{agent=\"c\"}}"));
        of_c("mozart_agent_failing") && of_c("mozart_agent_queue_messages")
    })
    .await;
    let documented = documented();
    let known: BTreeSet<String> = documented.keys().cloned().collect();
    assert_eq!(told.names(), known, "docs/metrics.md has exactly what a scrape has");
    for (name, (kind, labels)) in &documented {
        let base = name.strip_suffix("_total").or_else(|| name.strip_suffix("_info"));
        let base = base.filter(|base| told.types.contains_key(*base)).unwrap_or(name);
        assert_eq!(&told.types[base], kind, "{name}");
        assert!(told.text.contains(&format!("# HELP {base} ")), "{name}");
        let of_it = |series: &&String| series.split('{').next() == Some(name);
        for series in told.series.keys().filter(of_it) {
            let has: BTreeSet<String> = labels_of(series);
            assert_eq!(&has, labels, "{series}");
        }
    }
    for path in ["deploy/alerts.yaml", "deploy/grafana.json"] {
        let unknown: Vec<String> = queried(path)
            .into_iter()
            .filter(|name| {
                let base = name.strip_suffix("_bucket").filter(|base| known.contains(*base));
                base.is_none() && !known.contains(name)
            })
            .collect();
        assert_eq!(unknown, [""; 0], "{path} names what no scrape has");
    }

    // The older form, and what is not there.
    let plain = get(port, "/metrics", "*/*").await.expect("an answer");
    assert!(plain.contains("text/plain; version=0.0.4") && !plain.contains("# EOF"), "{plain}");
    let missing = get(port, "/", "*/*").await.expect("an answer");
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
}

fn labels_of(series: &str) -> BTreeSet<String> {
    let Some((_, labels)) = series.split_once('{') else { return BTreeSet::new() };
    let keys = labels.trim_end_matches('}').split("\",");
    keys.filter_map(|one| Some(one.split_once('=')?.0.to_owned())).collect()
}

/// The metrics in the queries of a file.
fn queried(path: &str) -> BTreeSet<String> {
    let text = file(path);
    let mut queries = Vec::new();
    if path.ends_with(".json") {
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        assert!(panels.len() > 10);
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"))
        {
            queries.push(target["expr"].as_str().expect("a query").to_owned());
        }
        for annotation in dashboard["annotations"]["list"].as_array().expect("a list") {
            queries.push(annotation["expr"].as_str().expect("a query").to_owned());
        }
    } else {
        for rule in rules(&text) {
            queries.push(rule["expr"].as_str().expect("a query").to_owned());
        }
    }
    for query in &queries {
        let count = |c: char| query.chars().filter(|one| *one == c).count();
        for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
            assert_eq!(count(open), count(close), "{query}");
        }
    }
    queries.iter().flat_map(|query| named(query)).collect()
}

/// YAML, as the same document would be in JSON.
fn yaml(text: &str) -> Value {
    serde_yaml_ng::from_str(text).expect("YAML")
}

fn rules(text: &str) -> Vec<Value> {
    let document = yaml(text);
    let groups = document["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

#[test]
fn every_rule_has_what_prometheus_and_whoever_is_woken_need() {
    let rules = rules(&file("deploy/alerts.yaml"));
    assert!(rules.len() > 10);
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(names.insert(name), "{name} is there twice");
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: {severity:?}");
        for words in ["summary", "description"] {
            let text = rule["annotations"][words].as_str();
            assert!(text.is_some_and(|text| text.len() > 10), "{name}");
        }
        if let Some(time) = rule.get("for") {
            let time = time.as_str().expect("a time");
            assert!(time.ends_with(['s', 'm', 'h']), "{name}: {time}");
        }
        let known = ["alert", "expr", "for", "labels", "annotations"];
        let keys = rule.as_object().expect("a rule").keys();
        assert!(keys.into_iter().all(|key| known.contains(&key.as_str())), "{name}");
    }
    let scraped = yaml(&file("deploy/prometheus.yaml"));
    let job = scraped["scrape_configs"][0]["job_name"].as_str();
    assert_eq!(job, Some("mozart"), "the rules name it");
}

/// Two supervisors and a node, each with its own numbers.
struct Roles {
    fleet: Fleet,
    supervisors: Vec<Child>,
    ports: [u16; 2],
    node: Child,
    node_port: u16,
    _server: tokio::process::Child,
}

impl Roles {
    async fn start() -> Self {
        let port = roles::free_port();
        let fleet = roles::fleet_at(port);
        let server = roles::server_at(&fleet, port, "");
        let [one, two, node_port] = [0; 3].map(|_| roles::free_port());
        let supervisor =
            |id: &str, port| fleet.spawn_cli(["supervisor", "--id", id, "--metrics", &at(port)]);
        let supervisors = vec![supervisor("s1", one), supervisor("s2", two)];
        let node = fleet.spawn_cli(["node", "--name", "n", "--metrics", &at(node_port)]);
        roles::apply(&fleet).await;
        let _row = fleet.wait_state("a", "running").await;
        Self { fleet, supervisors, ports: [one, two], node, node_port, _server: server }
    }

    async fn leader(&self, among: &[usize]) -> usize {
        eventually("one supervisor leads", async || {
            for index in among {
                if scrape(self.ports[*index]).await?.get("mozart_leader") == 1.0 {
                    return Ok(*index);
                }
            }
            Err("none does".to_owned())
        })
        .await
    }
}

#[tokio::test]
async fn two_supervisors_count_each_message_once_and_only_the_leader_shows_what_it_knows() {
    const CHATS: usize = 12;
    let mut roles = Roles::start().await;
    let leader = roles.leader(&[0, 1]).await;
    let follower = 1 - leader;
    for n in 0..CHATS {
        assert_eq!(roles.fleet.ask("a", &format!("say {n}")).await, n.to_string());
    }
    let sum = async |ports: &[u16]| -> Until<f64> {
        let mut sum = 0.0;
        for port in ports {
            sum += finished(&scrape(*port).await?, "completed");
        }
        Ok(sum)
    };
    let all = roles.ports;
    eventually("all are counted", async || {
        let sum = sum(&all).await?;
        if sum >= CHATS as f64 { Ok(()) } else { Err(sum.to_string()) }
    })
    .await;
    assert_eq!(sum(&all).await, Ok(CHATS as f64), "no message twice");
    let shows = |told: &Scrape| told.series.contains_key("mozart_agents{state=\"running\"}");
    assert!(!shows(&scrape(all[follower]).await.expect("it answers")));
    let shown = until("the leader shows the fleet", all[leader], shows).await;
    assert_eq!(shown.get("mozart_agents{state=\"running\"}"), 1.0);
    let node = scrape(roles.node_port).await.expect("it answers");
    assert_eq!(node.get("mozart_node_incarnations"), 1.0);
    assert!(!node.text.contains("mozart_messages"), "a node knows none");

    let term = shown.get("mozart_leader_term");
    let dead = roles.supervisors.remove(leader);
    dead.signal(Signal::KILL);
    let _killed = dead.output().await;
    assert_eq!(roles.leader(&[follower]).await, follower);
    let next = until("the next leader shows the fleet", all[follower], shows).await;
    assert!(next.get("mozart_leader_term") > term);
    let before = finished(&next, "completed");
    for n in 0..3 {
        assert_eq!(roles.fleet.ask("a", &format!("say {n}")).await, n.to_string());
    }
    let counted = |told: &Scrape| finished(told, "completed") >= before + 3.0;
    let _told = until("it counts on", all[follower], counted).await;
    for role in roles.supervisors.into_iter().chain([roles.node]) {
        role.signal(Signal::TERM);
        let _ended = role.output().await;
    }
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_out_for_long() {
    let port = roles::free_port();
    let mut fleet = Fleet::new(&[]);
    fleet.up(&["--metrics", &at(port)]).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.expect("it listens"));
    }
    // Three times as many as are served at once, each of which has 10 s.
    let scraped = tokio::time::timeout(Duration::from_secs(60), scrape(port)).await;
    let scraped = scraped.expect("in time").expect("an answer");
    assert_eq!(scraped.get("mozart_build_info{version=\"0.1.0\",role=\"up\"}"), 1.0);
    drop(silent);
    // The address is taken.
    let other = Fleet::new(&[]);
    let refused = other.cli(["up", "--metrics", &at(port)]).await.exit(1);
    refused.says("cannot serve metrics").says("--metrics");
    let _bad = other.cli(["up", "--metrics", "here"]).await.exit(2);
    let https = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://x".as_ref())];
    other.cli_with(["up"], &https).await.exit(2).says("cannot export traces");
}
