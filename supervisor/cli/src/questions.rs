//! `mozart questions` and `mozart answer`: what workers ask people.

use clap::Args;
use common::api::ApiError;
use common::question::OpenQuestion;
use common::{AgentName, Timestamp};

use super::client::Client;
use super::list::List;
use super::send::text;
use super::{output, table};
use crate::args::Global;

/// The longest question that is shown in a table, in characters.
const SHORT: usize = 60;

/// `mozart questions`.
#[derive(Debug, Args)]
pub struct QuestionsArgs {
    /// Only those of this agent
    agent: Option<AgentName>,
    /// Do not truncate questions and options
    #[arg(long)]
    no_trunc: bool,
}

/// `mozart answer`.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// The question: its id, AGENT/ID or AGENT/MESSAGE/ID
    #[arg(value_name = "REQUEST")]
    request: String,
    /// The answer; of a question with options, one of them or its number; `-` reads it from stdin
    #[arg(allow_negative_numbers = true)]
    text: String,
}

/// Lists the questions that are open.
///
/// # Errors
/// 3 no such agent; as [`Client::connect`].
pub(crate) async fn list(global: &Global, args: &QuestionsArgs) -> Result<u8, ApiError> {
    const HEADERS: [&str; 7] =
        ["AGENT", "MESSAGE", "REQUEST", "ASKED", "UNTIL", "OPTIONS", "QUESTION"];
    let client = Client::to_read(global).await?;
    let now = client.broker.now();
    let longest = if args.no_trunc { usize::MAX } else { SHORT };
    let mut list = List::new(client.json(), HEADERS);
    let mut pages = client.questions(args.agent.clone());
    let work = async {
        while let Some(rows) = pages.next().await? {
            for row in rows {
                list.item(&row, |row| cells(row, now, longest))?;
            }
        }
        Ok(0)
    };
    let result = work.await;
    list.end(result)
}

fn cells(row: &OpenQuestion, now: Timestamp, longest: usize) -> [String; 7] {
    let options: Vec<String> =
        row.options.iter().enumerate().map(|(at, option)| format!("{}={option}", at + 1)).collect();
    let options = (!options.is_empty()).then(|| table::one_line(&options.join(" "), longest));
    [
        row.agent.to_string(),
        row.message_id.to_string(),
        table::one_line(&row.request_id, usize::MAX),
        table::age(Some(row.asked), now),
        table::until(Some(row.until), now),
        table::or_none(options),
        table::one_line(&row.text, longest),
    ]
}

/// Answers a question.
///
/// # Errors
/// 2 it is none of the options, 3 no such question, 4 several, or it is answered; as [`Client::connect`].
pub(crate) async fn answer(global: &Global, args: AnswerArgs) -> Result<u8, ApiError> {
    let text = text(args.text).await?;
    let client = Client::to_change(global).await?;
    let by = client.sender().to_string();
    let taken = client.answer_question(None, args.request, text, by).await?;
    let written = match client.json() {
        true => output::json(&taken),
        false => output::line(format!("{}/{}", taken.agent, taken.request_id)),
    };
    output::result(written, || format!("question {} is answered", taken.request_id)).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use common::{ConversationId, MessageId, SenderName};

    use super::*;

    #[test]
    fn options_are_shown_with_their_numbers() {
        let mut row = OpenQuestion {
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            message_id: MessageId::new("m").expect("valid"),
            conversation_id: ConversationId::new("c").expect("valid"),
            request_id: "deploy".to_owned(),
            text: "Deploy?\nReally?".to_owned(),
            options: vec!["yes".to_owned(), "no".to_owned()],
            default: None,
            asked: Timestamp::from_millis(0),
            until: Timestamp::from_millis(120_000),
        };
        let shown = cells(&row, Timestamp::from_millis(60_000), SHORT);
        assert_eq!(shown[..4], ["a", "m", "deploy", "60s"]);
        assert_eq!(shown[4..6], ["in 60s", "1=yes 2=no"]);
        assert!(!shown[6].contains('\n'), "{}", shown[6]);
        row.options.clear();
        assert_eq!(cells(&row, Timestamp::from_millis(60_000), SHORT)[5], "<none>");
    }
}
