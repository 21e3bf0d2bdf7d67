//! `commands.py` in Rust.

use std::process::Command;
use std::time::{Duration, Instant};

use mozart_worker::{Answer, Asking, Error, Turn};

fn answer(turn: &Turn) -> Answer {
    let mut words = turn.text.split(' ');
    let command = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let response = match command {
        "say" => {
            for word in words {
                turn.say(word)?;
            }
            return Ok(None);
        }
        "ask" => turn.ask(words[0], &words[1..].join(" "), &Asking::default())?,
        "history" => {
            let (mut texts, mut before) = (Vec::new(), None);
            loop {
                let page = turn.history(2, before.as_deref())?;
                texts.extend(page.turns.into_iter().map(|past| past.message));
                match page.next {
                    Some(next) => before = Some(next),
                    None => break texts.join(","),
                }
            }
        }
        "number" => turn.number.map_or_else(|| "None".to_owned(), |number| number.to_string()),
        "crash" => {
            let first = turn.step("pid", || Ok(std::process::id()))?;
            if first == std::process::id() {
                std::process::exit(1);
            }
            format!("{first} {}", std::process::id())
        }
        "retry" if turn.steps().contains_key("tried") => "at last".to_owned(),
        "retry" => {
            turn.step("tried", || Ok(true))?;
            return Err(Error::retry_after("not yet", Duration::from_millis(50)));
        }
        "fail" => return Err(Error::new(words.join(" "))),
        "wait" => {
            turn.say("waiting")?;
            loop {
                turn.sleep(Duration::from_secs(60))?;
            }
        }
        "busy" => {
            let end = Instant::now() + Duration::from_secs_f64(words[0].parse()?);
            while Instant::now() < end {
                turn.progress()?;
                turn.sleep(Duration::from_millis(100))?;
            }
            "done".to_owned()
        }
        _ => {
            println!("printed {}", words.join(" "));
            Command::new("echo").arg("by a child").args(words).status()?;
            "printed".to_owned()
        }
    };
    Ok(Some(response))
}

fn main() -> std::io::Result<()> {
    mozart_worker::run(answer)
}
