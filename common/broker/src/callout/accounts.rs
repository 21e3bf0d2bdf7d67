//! The accounts of nats-server: the fleet in one, the shims in another that reaches into it by a few subjects only. So no answer that a shim
//! asks for can be sent where it may not publish itself, such as into a stream.

use std::fmt::Write as _;

use super::{AGENTS, APP, SYS};

/// What shims may request, of what their rights then are a part. The answers to a pull are many.
const SERVICES: [(&str, bool); 9] = [
    ("$JS.API.CONSUMER.MSG.NEXT.*.*", true),
    ("$JS.ACK.>", false),
    ("mozart.*.journal.>", false),
    ("mozart.*.events.>", false),
    ("mozart.*.attempts.>", false),
    ("mozart.*.logs.>", false),
    ("mozart.*.shim.*.*.report", false),
    ("mozart.*.shim.*.*.ask", false),
    ("mozart.*.flush", false),
];
/// What they may hear.
const STREAMS: [&str; 2] = ["mozart.*.shim.*.*.command", "mozart.*.done.>"];
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
        writeln!(out, "    users: [{}]", user(&self.fleet))?;
        writeln!(out, "    exports: [")?;
        for (subject, many) in SERVICES {
            writeln!(out, "      {}", service(subject, many, AGENTS))?;
        }
        for subject in STREAMS {
            writeln!(out, "      {{ stream: \"{subject}\", accounts: [{AGENTS}] }}")?;
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
        writeln!(
            out,
            "  # The shims: each may use its own part of these, as the supervisors say when it connects."
        )?;
        writeln!(out, "  {AGENTS} {{\n    imports: [")?;
        for (subject, _) in SERVICES {
            writeln!(out, "      {{ service: {{ account: {APP}, subject: \"{subject}\" }} }}")?;
        }
        for subject in STREAMS {
            writeln!(out, "      {{ stream: {{ account: {APP}, subject: \"{subject}\" }} }}")?;
        }
        writeln!(out, "    ]\n  }}")?;
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

fn user(User { name, password }: &User) -> String {
    format!("{{ user: {name}, password: {password} }}")
}

fn service(subject: &str, many: bool, account: &str) -> String {
    let many = if many { ", response_type: stream" } else { "" };
    format!("{{ service: \"{subject}\"{many}, accounts: [{account}] }}")
}
