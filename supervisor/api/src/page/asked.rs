//! What workers ask people, with a form for each answer.

use common::message::{MAX_TEXT, MessageKey};
use common::question::OpenQuestion;
use common::users::Scope;
use maud::{Markup, html};

use super::attention::Found;
use super::parts::{self, Context, time};
use crate::caller::Caller;

/// Questions that are shown.
const QUESTIONS: usize = 50;

/// The oldest open questions, oldest first: of a token's agents, or of all.
pub(super) async fn load(caller: &Caller) -> Found<OpenQuestion> {
    caller.client.oldest_questions(&caller.token.agents, QUESTIONS).await
}

pub(super) fn section(context: &Context<'_>, found: &Found<OpenQuestion>) -> Markup {
    html! {
        h2 id="questions-title" { "Questions" }
        section id="questions" aria-labelledby="questions-title" {
            @match found {
                Err(error) => (parts::trouble("questions-trouble", error)),
                Ok((questions, has_more)) => {
                    @if questions.is_empty() { p id="questions-none" { "No agent waits for an answer." } }
                    @for one in questions { (question(context, one)) }
                    @if *has_more { p id="questions-more" { "There are later ones." } }
                }
            }
        }
        (parts::as_command("questions-command", "mozart questions"))
    }
}

fn question(context: &Context<'_>, one: &OpenQuestion) -> Markup {
    let key = MessageKey {
        agent: one.agent.clone(),
        sender: one.sender.clone(),
        message_id: one.message_id.clone(),
    };
    let id = format!("question-{}-{}-{}", one.agent, one.message_id, one.tag());
    html! {
        article class="card" id=(id) {
            h3 { a href=(parts::message_path(&key)) { (one.agent) " asks" } }
            (parts::text(&parts::short(&one.text, MAX_TEXT)))
            p {
                "Asked " (time(one.asked)) "; until " (parts::still(one.until)) ", then "
                @match &one.default {
                    Some(default) => { "the answer is " (parts::short(default, 200)) "." }
                    None => "it has no answer.",
                }
            }
            @if context.may(Scope::Send) { (answer(context, one, &id)) }
        }
    }
}

/// What is being typed stays, whatever else changes.
fn answer(context: &Context<'_>, one: &OpenQuestion, id: &str) -> Markup {
    let named = format!("{}/{}/{}", one.agent, one.message_id, one.request_id);
    let field = format!("{id}-text");
    html! {
        form id={ (id) "-answer" } class="send" method="post" action="/questions/answer" data-keep {
            input type="hidden" name="form" value=(context.visit.form);
            input type="hidden" name="back" value=(context.path);
            input type="hidden" name="agent" value=(one.agent);
            input type="hidden" name="message" value=(one.message_id);
            input type="hidden" name="request" value=(one.request_id);
            label for=(field) { "Answer to " (one.agent) }
            @if one.options.is_empty() {
                textarea id=(field) name="text" rows="2" required {}
            } @else {
                select id=(field) name="text" required {
                    @for option in &one.options { option value=(option) { (option) } }
                }
            }
            button type="submit" { "Answer" span class="hidden" { " " (one.agent) } }
            " " (parts::command(&format!("mozart answer {} TEXT", quoted(&named))))
        }
    }
}

/// A word of a shell's, in quotes where it needs them.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    if word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_command_can_be_copied_whatever_the_worker_calls_its_question() {
        assert_eq!(quoted("a/m/q-1"), "a/m/q-1");
        assert_eq!(quoted("a/m/it's $HOME"), r"'a/m/it'\''s $HOME'");
    }
}
