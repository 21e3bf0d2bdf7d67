//! The worker of the agent `assistant`.

fn main() -> std::io::Result<()> {
    mozart_worker::run(|turn| {
        // What was said before in this conversation, the newest first.
        let past = match &turn.conversation_id {
            Some(_) if turn.number != Some(0) => turn.history(20, None)?.turns,
            _ => Vec::new(),
        };
        // Call your model here. Each piece that you `say` is streamed.
        turn.say(&format!("You said: {}", turn.text))?;
        if let Some(before) = past.first() {
            turn.say(&format!(" (and before that: {})", before.message))?;
        }
        Ok(None)
    })
}
