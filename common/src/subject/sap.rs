//! The subjects of the Synadia Agent Protocol, which begin as that says, and those that its hosts have among themselves.

use super::Subjects;
use crate::AgentName;

/// The name of the service, and the group of those who answer for it.
pub const SAP_SERVICE: &str = "agents";
/// What kind of agents these are.
pub const SAP_KIND: &str = "mozart";

/// Where it is asked who is there (`INFO`) and who answers (`PING`): everybody, all agents, or one of them.
#[must_use]
pub fn sap_discovery() -> Vec<String> {
    ["PING", "INFO"]
        .iter()
        .flat_map(|verb| {
            let all = format!("$SRV.{verb}");
            let ours = format!("{all}.{SAP_SERVICE}");
            let one = format!("{ours}.*");
            [all, ours, one]
        })
        .collect()
}

/// What a subject of [`sap_discovery`] asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// Everything about agents; else only that they are there.
    pub info: bool,
    /// The instance that is meant; none: all.
    pub instance: Option<String>,
}

/// Parses a subject of [`sap_discovery`].
#[must_use]
pub fn parse_sap_discovery(subject: &str) -> Option<Discovery> {
    let mut tokens = subject.strip_prefix("$SRV.")?.split('.');
    let info = match tokens.next()? {
        "INFO" => true,
        "PING" => false,
        _ => return None,
    };
    match (tokens.next(), tokens.next(), tokens.next()) {
        (None, ..) | (Some(SAP_SERVICE), None, _) => Some(Discovery { info, instance: None }),
        (Some(SAP_SERVICE), Some(instance), None) => {
            Some(Discovery { info, instance: Some(instance.to_owned()) })
        }
        _ => None,
    }
}

/// What users of whichever fleet may use, for the configuration of a server that has several.
#[must_use]
pub fn sap_of_any_fleet(verb: &str) -> String {
    format!("{SAP_SERVICE}.{verb}.{SAP_KIND}.*.*")
}

/// The heartbeats of whichever host: the stock client listens to all of them.
#[must_use]
pub fn sap_heartbeats_of_all() -> String {
    format!("{SAP_SERVICE}.hb.*.*.*")
}

/// What the inboxes of the stock client are like: it takes no others.
#[must_use]
pub fn sap_inboxes() -> [String; 2] {
    // One for what it discovers, and a token more for each prompt.
    [format!("_INBOX.{SAP_SERVICE}.*"), format!("_INBOX.{SAP_SERVICE}.*.*")]
}

impl Subjects {
    fn sap(&self, verb: &str, agent: &str) -> String {
        format!("{SAP_SERVICE}.{verb}.{SAP_KIND}.{}.{agent}", self.namespace)
    }

    /// Where an agent is prompted.
    #[must_use]
    pub fn sap_prompt(&self, agent: &AgentName) -> String {
        self.sap("prompt", agent.as_str())
    }

    /// Where all of them are.
    #[must_use]
    pub fn sap_prompts(&self) -> String {
        self.sap("prompt", "*")
    }

    /// Where an agent is asked how it is.
    #[must_use]
    pub fn sap_status(&self, agent: &AgentName) -> String {
        self.sap("status", agent.as_str())
    }

    /// Where all of them are.
    #[must_use]
    pub fn sap_statuses(&self) -> String {
        self.sap("status", "*")
    }

    /// Where it is told that an agent is there.
    #[must_use]
    pub fn sap_heartbeat(&self, agent: &AgentName) -> String {
        self.sap("hb", agent.as_str())
    }

    /// Parses a prompt's subject; the agent may be one that cannot be.
    #[must_use]
    pub fn parse_sap_prompt<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(self.sap("prompt", "").as_str())
    }

    /// Parses the subject of a question how an agent is.
    #[must_use]
    pub fn parse_sap_status<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(self.sap("status", "").as_str())
    }

    /// The token that names an agent among all instances of all hosts.
    #[must_use]
    pub fn sap_instance(&self, agent: &AgentName) -> String {
        format!("{SAP_KIND}_{}_{agent}", self.namespace)
    }

    /// The agent of such a token; none if it is none of this fleet's.
    #[must_use]
    pub fn parse_sap_instance(&self, instance: &str) -> Option<AgentName> {
        let name = instance.strip_prefix(&format!("{SAP_KIND}_{}_", self.namespace))?;
        AgentName::new(name).ok()
    }

    /// What is stored here goes to the inbox of somebody who asked, once.
    #[must_use]
    pub fn reply(&self, inbox: &str) -> String {
        format!("{}.reply.{inbox}", self.prefix)
    }

    /// Everything that REPLIES takes, and what is republished of it.
    #[must_use]
    pub fn replies_filter(&self) -> String {
        self.reply("*.>")
    }

    /// Where the republish goes: to the inbox. The server takes no `>` alone, which could be the stream's own subjects.
    #[must_use]
    pub fn replies_destination(&self) -> String {
        "{{wildcard(1)}}.>".to_owned()
    }

    /// Parses a subject of [`Self::reply`].
    #[must_use]
    pub fn parse_reply<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.prefix)?.strip_prefix(".reply.")
    }

    /// Where a process of the API is asked whether it is there. `run`: of that process.
    #[must_use]
    pub fn api_alive(&self, run: &str) -> String {
        format!("{}.api.{run}.alive", self.prefix)
    }

    /// Where processes of the API tell each other that the heartbeats are sent.
    #[must_use]
    pub fn api_beat(&self) -> String {
        format!("{}.api.beat", self.prefix)
    }
}

/// Whether an inbox is one where an answer may go: what the fleet and the server have subjects for is none.
#[must_use]
pub fn is_inbox(subject: &str) -> bool {
    let Some((first, _)) = subject.split_once('.') else { return false };
    let is_plain =
        subject.split('.').all(|token| !token.is_empty() && !["*", ">"].contains(&token));
    is_plain && !first.starts_with('$') && !["mozart", SAP_SERVICE].contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Namespace;

    #[test]
    fn subjects_have_five_tokens_and_are_parsed_again() {
        let subjects = Subjects::new(Namespace::new("t").expect("valid"), 1);
        let agent = AgentName::new("echo").expect("valid");
        let prompt = subjects.sap_prompt(&agent);
        assert_eq!(prompt, "agents.prompt.mozart.t.echo");
        assert_eq!(subjects.parse_sap_prompt(&prompt), Some("echo"));
        assert_eq!(subjects.parse_sap_prompt("agents.prompt.mozart.u.echo"), None);
        assert_eq!(subjects.parse_sap_status(&subjects.sap_status(&agent)), Some("echo"));
        assert_eq!(sap_of_any_fleet("hb"), "agents.hb.mozart.*.*");
        let instance = subjects.sap_instance(&agent);
        assert_eq!(subjects.parse_sap_instance(&instance), Some(agent));
        assert_eq!(subjects.parse_sap_instance("mozart_u_echo"), None);
        let inbox = format!("{}.x.1", subjects.user_inbox(&"ana".parse().expect("valid")));
        let user = subjects.parse_user_inbox(&inbox);
        assert_eq!(user.as_ref().map(crate::SenderName::as_str), Some("ana"));
        assert_eq!(subjects.parse_user_inbox("_INBOX.agents.x.1"), None);
        let reply = subjects.reply("_INBOX.agents.a.b");
        assert_eq!(subjects.parse_reply(&reply), Some("_INBOX.agents.a.b"));
        assert!(subjects.replies_filter().ends_with("reply.*.>"));
    }

    #[test]
    fn discovery_asks_for_all_or_for_one() {
        let parsed = |subject: &str| parse_sap_discovery(subject).map(|it| (it.info, it.instance));
        let all = sap_discovery();
        assert_eq!(all.len(), 6);
        assert_eq!(parsed("$SRV.PING"), Some((false, None)));
        assert_eq!(parsed("$SRV.INFO.agents"), Some((true, None)));
        assert_eq!(parsed("$SRV.PING.agents.x"), Some((false, Some("x".to_owned()))));
        for other in ["$SRV.STATS", "$SRV.INFO.others", "$SRV.INFO.agents.x.y", "INFO.agents"] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn no_answer_goes_where_it_would_be_something_else() {
        for inbox in ["_INBOX.agents.a.b", "_R_.x.y", "my.inbox", "_INBOX.x"] {
            assert!(is_inbox(inbox), "{inbox}");
        }
        for other in [
            "$JS.API.INFO",
            "mozart.t.control.a",
            "agents.prompt.mozart.t.a",
            "a.*",
            "a..b",
            "a",
            "",
        ] {
            assert!(!is_inbox(other), "{other}");
        }
    }
}
