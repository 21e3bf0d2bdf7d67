//! Twenty thousand broken souls: none makes the parser panic, run on, or point outside of its text.
//!
//! The same as the fuzz target in `fuzz/`, without a nightly compiler: seeded, so that a failure comes back.

use std::path::Path;
use std::time::{Duration, Instant};

use common::AgentName;
use common::soul::parse_bytes;

const INPUTS: usize = 20_000;
const SEED: u64 = 0x5eed;

const GOOD: [&str; 6] = [
    "MODEL test/model\nSOUL test agent",
    "# c\nMODEL m\nSOUL <<END\nYou are\n\n  kind \\\nEND\nIF a b THEN c\nIF x THEN <<E\ny\nE\n",
    "MODEL m\r\nSOUL a \\\r\n  b\r\nSCHEDULE \"0 8 * * MON-FRI\" TZ Europe/Berlin hi\r\nSCHEDULE \"@daily\" <<X\r\nd\r\nX\r\n",
    "MODEL m\nSOUL s\nSKILL a/b\nSANCTUM data:/data:ro\nSANCTUM \"a b:/x\"\nWORKER [\"python3\", \"w\\u00f6.py\"]\nIMAGE r.io:5000/a/b:1@sha256:00\n",
    "\u{feff}MODEL m\nSOUL äöü 你好 👋🏽\nENV A=\"x\\ny\"\nENV B='z'\nSECRET K\nWORKER exec node w.js\n",
    "MODEL m\nSOUL s\nLIMIT memory=512m cpus=1.5 pids=128\nCONCURRENCY 4\nATTEMPTS 5\nTIMEOUT turn=1h30m drain=1s ready=5ms\n\
     RESTART on-failure max=10/10m backoff=1s..60s\nREPLACE stop-first\nKEEP history=0 logs=7d\nLABEL a=b\nREQUIRE zone=eu\n",
];

/// Bytes that mean something, or that are easily mishandled.
const PIECES: [&[u8]; 30] = [
    b"\n",
    b"\r\n",
    b"\r",
    b"\\",
    b"\\\n",
    b"<<",
    b"<<END\n",
    b"END\n",
    b"\"",
    b"'",
    b"=",
    b":",
    b"[",
    b"]",
    b"..",
    b"/",
    b"#",
    b" ",
    b"\t",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xf0\x9f\x91",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"9999999999",
    b"MODEL",
    b"TZ",
    b"THEN",
    b"-",
];

/// xorshift64*: enough to choose mutations, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).expect("31 bits") % sides.max(1)
    }
}

/// A good soul with one to six things done to it.
fn mutant(dice: &mut Dice) -> Vec<u8> {
    let mut soul = GOOD[dice.roll(GOOD.len())].as_bytes().to_vec();
    for _ in 0..=dice.roll(6) {
        let at = dice.roll(soul.len());
        let end = (at + 1 + dice.roll(12)).min(soul.len());
        match dice.roll(7) {
            0 => soul.truncate(at),
            1 => drop(soul.drain(at..end)),
            2 => soul[at..end].reverse(),
            3 => {
                let copy = soul[at..end].to_vec();
                let to = dice.roll(soul.len());
                soul.splice(to..to, copy);
            }
            4 if at < soul.len() => soul[at] = u8::try_from(dice.roll(256)).expect("a byte"),
            5 => {
                let other = GOOD[dice.roll(GOOD.len())].as_bytes();
                soul.extend_from_slice(&other[dice.roll(other.len())..]);
            }
            _ => {
                let piece = PIECES[dice.roll(PIECES.len())];
                soul.splice(at..at, piece.iter().copied());
            }
        }
        if soul.is_empty() {
            break;
        }
    }
    soul
}

#[test]
fn no_broken_soul_makes_the_parser_panic() {
    let name = AgentName::new("writer").expect("valid");
    let mut dice = Dice(SEED);
    let (mut good, mut bad) = (0, 0);
    for index in 0..INPUTS {
        let soul = mutant(&mut dice);
        match parse_bytes(name.clone(), Path::new("/f/writer.soul"), &soul) {
            Ok(_) => good += 1,
            Err(errors) => {
                bad += 1;
                assert!(!errors.problems().is_empty(), "input {index}: {soul:?}");
                let plain = errors.plain();
                assert!(plain.starts_with("/f/writer.soul:"), "input {index}: {plain}");
                let length = String::from_utf8_lossy(&soul).len();
                for problem in errors.problems() {
                    let end = problem.span.offset() + problem.span.len();
                    assert!(end <= length, "input {index}: {problem:?}");
                }
            }
        }
    }
    // Both ways are taken often, or the mutations are of no use.
    assert!(good > INPUTS / 50 && bad > INPUTS / 2, "{good} good, {bad} bad");
}

/// Inputs that would take long in a parser whose work is not bounded.
#[test]
fn no_large_soul_takes_long() {
    let name = AgentName::new("writer").expect("valid");
    let line = |line: &str| line.repeat((common::soul::MAX_FILE - 1) / line.len());
    let zone = format!("SCHEDULE \"0 8 * * *\" TZ {} x\n", "Europe/Berlim".repeat(4));
    let range = format!("SCHEDULE \"{} * * * *\" x\n", "0-59,".repeat(200));
    for text in [
        line("X\n"),
        line("\u{7}\n"),
        line("SOUL a \\\n"),
        line("IF a THEN <<E\n"),
        line("WORKER cat <<E\n"),
        line("x <<E\n"),
        (0..20_000).map(|n| format!("ENV A{n}=b <<E{n}\n")).collect(),
        line("LIMIT a=b"),
        line("a=b "),
        line("\\"),
        format!("LIMIT {}", line("a=b ")),
        format!("SANCTUM {}", line("a:")),
        format!("SOUL {}\u{7}", line("é")),
        line(&zone),
        line(&range),
        line("SCHEDULE \"0 8 * * *\" TZ Europe/Berlim x\n"),
    ] {
        let start = Instant::now();
        let errors = parse_bytes(name.clone(), Path::new("w.soul"), text.as_bytes());
        let plain = errors.expect_err("all of them are wrong").plain();
        let took = start.elapsed();
        let shown: String = text.chars().take(40).collect();
        // An unoptimised build takes half a second; quadratic work over the whole file takes minutes.
        assert!(took < Duration::from_secs(20), "{took:?} for {shown:?}");
        assert!(plain.len() < 1 << 20, "{} bytes about {shown:?}", plain.len());
    }
}
