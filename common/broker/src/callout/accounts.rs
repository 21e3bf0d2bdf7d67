//! The accounts of nats-server: the fleet in one, shims, nodes and users in others that reach into it by a few subjects only. So no answer that
//! one of them asks for can be sent where it may not publish itself, such as into a stream.

use std::fmt::Write as _;

use common::subject::{of_any_fleet, sap_discovery, sap_of_any_fleet};

use super::{AGENTS, APP, NODES, OPS, SYS};

/// What shims, nodes and users may request, of what their rights then are a part: with whether the answers are many, and whose it is. Those of
/// fleets are without their beginning.
const SERVICES: [(&str, bool, &[&str]); 24] = [
    ("$JS.API.CONSUMER.MSG.NEXT.*.*", true, &[AGENTS]),
    ("$JS.ACK.>", false, &[AGENTS]),
    ("events.>", false, &[AGENTS]),
    ("logs.>", false, &[AGENTS]),
    ("steps.>", false, &[AGENTS]),
    ("question.>", false, &[AGENTS]),
    ("shim.*.*.report", false, &[AGENTS]),
    ("shim.*.*.ask", false, &[AGENTS]),
    ("node.*.report", false, &[NODES]),
    ("node.*.ask", false, &[NODES]),
    ("attempts.>", false, &[AGENTS, OPS]),
    ("flush", false, &[AGENTS, NODES, OPS]),
    ("journal.>", false, &[AGENTS, OPS]),
    ("later.>", false, &[OPS]),
    ("dead.>", false, &[OPS]),
    ("disk", false, &[OPS]),
    ("files.>", false, &[OPS]),
    ("query.>", false, &[OPS]),
    ("$JS.API.INFO", false, &[OPS]),
    ("$JS.API.STREAM.INFO.*", false, &[OPS]),
    ("$JS.API.STREAM.MSG.GET.*", false, &[OPS]),
    ("$JS.API.CONSUMER.INFO.*.*", false, &[OPS]),
    ("$JS.API.CONSUMER.NAMES.*", false, &[OPS]),
    ("$JS.API.DIRECT.GET.>", true, &[OPS]),
];
/// What they may hear, without the beginning.
const STREAMS: [(&str, &[&str]); 7] = [
    ("shim.*.*.command", &[AGENTS]),
    ("node.*.command", &[NODES]),
    ("done.>", &[AGENTS, OPS]),
    ("events.>", &[OPS]),
    ("logs.>", &[OPS]),
    ("control.>", &[OPS]),
    ("journal.>", &[OPS]),
];
/// A service that the fleet exports.
struct Service {
    subject: String,
    /// Whether the answers are many.
    many: bool,
    /// Whether the server says whose request it is.
    named: bool,
    accounts: &'static [&'static str],
}

/// All of them: those above, and those of the Synadia Agent Protocol, whose callers have no subject of their own.
fn services() -> Vec<Service> {
    let own = SERVICES.iter().map(|(subject, many, accounts)| Service {
        subject: whole(subject),
        many: *many,
        named: false,
        accounts,
    });
    let sap = sap_discovery().into_iter().chain([sap_of_any_fleet("prompt")]);
    let sap = sap.map(|subject| (subject, true)).chain([(sap_of_any_fleet("status"), false)]);
    let sap = sap.map(|(subject, many)| Service { subject, many, named: true, accounts: &[OPS] });
    own.chain(sap).collect()
}

/// All that may be heard.
fn streams() -> Vec<(String, &'static [&'static str])> {
    let own = STREAMS.iter().map(|(subject, accounts)| (whole(subject), *accounts));
    own.chain([(sap_of_any_fleet("hb"), &[OPS][..])]).collect()
}

/// What supervisors ask the servers: who is connected, and to end a connection.
const OF_SERVERS: [(&str, bool); 2] =
    [("$SYS.REQ.SERVER.PING.CONNZ", true), ("$SYS.REQ.SERVER.*.KICK", false)];

/// A user whose password the servers know themselves: it connects whether a supervisor is there or not.
#[derive(Debug, Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password, as nats-server's configuration spells it: in quotes, or a variable.
    pub password: String,
}

/// What nats-server's configuration says of users.
#[derive(Debug, Clone)]
pub struct Accounts<'a> {
    /// The fleet's own user.
    pub fleet: User,
    /// That of the servers' account; none: nobody connects there.
    pub system: Option<User>,
    /// The supervisors' key: its issuer and its xkey.
    pub issuer: String,
    /// See `issuer`.
    pub xkey: String,
    /// The public key of a user that nobody is.
    pub nobody: String,
    /// More exports of the fleet's account, and more accounts, each as nats-server spells it.
    pub exports: &'a [String],
    /// See `exports`.
    pub others: &'a str,
    /// Users of these, that the servers know themselves.
    pub known: &'a [&'a str],
}

impl Accounts<'_> {
    /// The part of the configuration.
    #[must_use]
    pub fn conf(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "accounts {{")?;
        writeln!(out, "  {APP} {{")?;
        writeln!(out, "    jetstream: enabled")?;
        let nobody = &self.nobody;
        writeln!(
            out,
            "    # Nobody has the key of the second one: it makes the server ask for signatures."
        )?;
        writeln!(out, "    users: [{}, {{ nkey: {nobody} }}]", user(&self.fleet))?;
        writeln!(out, "    exports: [")?;
        for Service { subject, many, accounts, .. } in services() {
            writeln!(out, "      {}", service(&subject, many, &accounts.join(", ")))?;
        }
        for (subject, accounts) in streams() {
            let accounts = accounts.join(", ");
            writeln!(out, "      {{ stream: \"{subject}\", accounts: [{accounts}] }}")?;
        }
        for export in self.exports {
            writeln!(out, "      {export}")?;
        }
        writeln!(out, "    ]")?;
        writeln!(out, "    imports: [")?;
        for (subject, _) in OF_SERVERS {
            writeln!(out, "      {{ service: {{ account: {SYS}, subject: \"{subject}\" }} }}")?;
        }
        writeln!(out, "    ]\n  }}")?;
        out.push_str("  # Shims, nodes, and people: each may use its own part of these, as the supervisors say when it connects.\n");
        for account in [AGENTS, NODES, OPS] {
            imports(out, account)?;
        }
        out.push_str(self.others);
        writeln!(out, "  {SYS} {{")?;
        if let Some(system) = &self.system {
            writeln!(out, "    users: [{}]", user(system))?;
        }
        writeln!(out, "    exports: [")?;
        for (subject, many) in OF_SERVERS {
            writeln!(out, "      {}", service(subject, many, APP))?;
        }
        writeln!(out, "    ]\n  }}\n}}")?;
        let system = self.system.iter().map(|system| system.name.as_str());
        let known: Vec<&str> = std::iter::once(self.fleet.name.as_str())
            .chain(system)
            .chain(self.known.iter().copied())
            .collect();
        writeln!(
            out,
            "system_account: {SYS}
# Everybody else: a supervisor answers for each connection. Without any, no agent connects; those that are connected stay.
authorization {{
  timeout: 5
  auth_callout {{
    issuer: {issuer}
    xkey: {xkey}
    account: {APP}
    auth_users: [{known}]
  }}
}}",
            issuer = self.issuer,
            xkey = self.xkey,
            known = known.join(", "),
        )
    }
}

fn imports(out: &mut String, account: &str) -> std::fmt::Result {
    writeln!(out, "  {account} {{\n    imports: [")?;
    for Service { subject, named, accounts, .. } in services() {
        if accounts.contains(&account) {
            let share = if named { ", share: true" } else { "" };
            writeln!(
                out,
                "      {{ service: {{ account: {APP}, subject: \"{subject}\" }}{share} }}"
            )?;
        }
    }
    for (subject, _) in streams().iter().filter(|(_, accounts)| accounts.contains(&account)) {
        writeln!(out, "      {{ stream: {{ account: {APP}, subject: \"{subject}\" }} }}")?;
    }
    writeln!(out, "    ]\n  }}")
}

fn user(User { name, password }: &User) -> String {
    format!("{{ user: {name}, password: {password} }}")
}

/// A subject of whichever fleet, unless it is one of the server's.
fn whole(subject: &str) -> String {
    if subject.starts_with('$') { subject.to_owned() } else { of_any_fleet(subject) }
}

fn service(subject: &str, many: bool, account: &str) -> String {
    let many = if many { ", response_type: stream" } else { "" };
    format!("{{ service: \"{subject}\"{many}, accounts: [{account}] }}")
}
