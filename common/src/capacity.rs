//! What a node can take, and what of it is taken.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::spec::Limits;
use crate::words;

/// What a node can take: `--capacity agents=20,memory=8g,cpus=4`. What is not given is not bounded. Part of a
/// frame: no field may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// How many agents.
    #[serde(default)]
    pub agents: Option<u32>,
    /// Bytes of memory.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    #[serde(default)]
    pub milli_cpus: Option<u64>,
}

impl Capacity {
    /// Whether nothing is bounded.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        *self == Self::default()
    }

    /// What is given here, and else what is found.
    #[must_use]
    pub fn or(self, found: Self) -> Self {
        Self {
            agents: self.agents.or(found.agents),
            memory: self.memory.or(found.memory),
            milli_cpus: self.milli_cpus.or(found.milli_cpus),
        }
    }

    /// What `used` lacks for `more` here, in words that go on after the node's name; none if it fits.
    #[must_use]
    pub fn lacks(&self, used: Load, more: Load) -> Option<String> {
        let short = |all: Option<u64>, used: u64, more: u64, words: fn(u64) -> String| {
            let all = all?;
            let free = all.saturating_sub(used);
            let lacks = more > 0 && more > free;
            lacks.then(|| {
                format!("has {} free of {}, {} is needed", words(free), words(all), words(more))
            })
        };
        let full = self.agents.filter(|all| used.agents.saturating_add(more.agents) > *all);
        if let Some(all) = full {
            return Some(format!("has its {}", words::count(all.into(), "agent", "agents")));
        }
        let cpus = |milli: u64| format!("{} CPU", words::thousandths(milli));
        short(self.memory, used.memory, more.memory, words::bytes)
            .or_else(|| short(self.milli_cpus, used.milli_cpus, more.milli_cpus, cpus))
    }
}

impl fmt::Display for Capacity {
    /// As the command line takes it; nothing where nothing is bounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.agents.map(|agents| format!("agents={agents}")),
            self.memory.map(|memory| format!("memory={memory}")),
            self.milli_cpus.map(|milli| format!("cpus={}", words::thousandths(milli))),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const USAGE: &str = "expected agents=N,memory=SIZE,cpus=N, or some of these";
        let mut capacity = Self::default();
        for part in text.split(',') {
            let (key, value) = part.trim().split_once('=').ok_or(USAGE)?;
            let bad = |what: &str| format!("{value:?} is not {what}");
            let twice = match key {
                "agents" => {
                    let agents = value.parse().map_err(|_| bad("a number of agents"))?;
                    capacity.agents.replace(agents).is_some()
                }
                "memory" => {
                    let bytes = size(value).ok_or_else(|| bad("a size such as 512m or 8g"))?;
                    capacity.memory.replace(bytes).is_some()
                }
                "cpus" => {
                    let cpus = milli_cpus(value).ok_or_else(|| bad("a number such as 4 or 1.5"))?;
                    capacity.milli_cpus.replace(cpus).is_some()
                }
                _ => return Err(USAGE.to_owned()),
            };
            if twice {
                return Err(format!("`{key}` is given twice"));
            }
        }
        Ok(capacity)
    }
}

/// As `LIMIT memory=` takes it, and with `KiB` and so on.
fn size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix("ib").or_else(|| text.strip_suffix('b')).unwrap_or(&text);
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        b't' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| digits.parse::<u64>().ok()?.checked_mul(1 << shift)).flatten()
}

fn milli_cpus(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(part) || part.len() > 3 {
        return None;
    }
    let part = format!("{part:0<3}").parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

/// What is taken of a node, or needed there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Agents.
    pub agents: u32,
    /// Bytes of memory that their LIMITs allow.
    pub memory: u64,
    /// Thousandths of a CPU that their LIMITs allow.
    pub milli_cpus: u64,
}

impl Load {
    /// Whether nothing is taken.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What one agent with these limits takes: without a LIMIT, nothing but its place.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        let (memory, milli_cpus) = (limits.memory, limits.milli_cpus);
        Self { agents: 1, memory: memory.unwrap_or(0), milli_cpus: milli_cpus.unwrap_or(0) }
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            agents: self.agents.max(other.agents),
            memory: self.memory.max(other.memory),
            milli_cpus: self.milli_cpus.max(other.milli_cpus),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            agents: self.agents.saturating_add(other.agents),
            memory: self.memory.saturating_add(other.memory),
            milli_cpus: self.milli_cpus.saturating_add(other.milli_cpus),
        }
    }

    /// What is left without another.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            agents: self.agents.saturating_sub(other.agents),
            memory: self.memory.saturating_sub(other.memory),
            milli_cpus: self.milli_cpus.saturating_sub(other.milli_cpus),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_is_read_as_it_is_written_on_the_command_line() {
        let all = Capacity { agents: Some(20), memory: Some(8 << 30), milli_cpus: Some(1500) };
        assert_eq!("agents=20,memory=8g,cpus=1.5".parse(), Ok(all));
        assert_eq!(all.to_string().parse(), Ok(all));
        let some = Capacity { memory: Some(512 << 20), ..Capacity::default() };
        for text in ["memory=512m", "memory=512MiB", "memory=536870912"] {
            assert_eq!(text.parse(), Ok(some), "{text}");
        }
        let bad = [
            "",
            "agents",
            "agents=x",
            "agents=-1",
            "memory=g",
            "memory=1.5g",
            "cpus=",
            "cpus=1.2345",
            "disk=1",
            "agents=1,agents=2",
            "memory=99999999999t",
        ];
        for text in bad {
            assert!(text.parse::<Capacity>().is_err(), "{text}");
        }
        let found = Capacity { memory: Some(1), milli_cpus: Some(2000), agents: None };
        let given = Capacity { memory: Some(5), ..Capacity::default() };
        assert_eq!(given.or(found), Capacity { memory: Some(5), ..found });
    }

    #[test]
    fn what_is_lacking_is_said_with_what_there_is() {
        let capacity = Capacity { agents: Some(2), memory: Some(4 << 30), milli_cpus: Some(2000) };
        let load = |agents, mib: u64, milli_cpus| Load { agents, memory: mib << 20, milli_cpus };
        let used = load(1, 3584, 1500);
        assert_eq!(capacity.lacks(used, load(1, 512, 500)), None);
        assert_eq!(capacity.lacks(used, load(1, 0, 0)), None);
        let lacks = |used, more| capacity.lacks(used, more).expect("it does not fit");
        let memory = "has 512 MiB free of 4 GiB, 1 GiB is needed";
        assert_eq!(lacks(used, load(1, 1024, 0)), memory);
        let cpus = "has 0.5 CPU free of 2 CPU, 1 CPU is needed";
        assert_eq!(lacks(used, load(1, 0, 1000)), cpus);
        assert_eq!(lacks(load(2, 0, 0), load(1, 0, 0)), "has its 2 agents");
        // What needs nothing fits where nothing is left; what has no bound takes everything.
        assert_eq!(capacity.lacks(load(1, 9999, 9999), load(1, 0, 0)), None);
        assert_eq!(Capacity::default().lacks(load(9, 9, 9), load(u32::MAX, u64::MAX, 9)), None);
    }
}
