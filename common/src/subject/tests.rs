//! Subjects as others rely on them.

use super::*;
use crate::ConversationId;
use crate::files::Sha256;

fn key() -> MessageKey {
    MessageKey {
        agent: AgentName::new("writer").expect("valid"),
        sender: SenderName::new("user").expect("valid"),
        message_id: MessageId::new("m1").expect("valid"),
    }
}

fn tag(conversation: &str) -> ConversationTag {
    let conversation = ConversationId::new(conversation).expect("valid");
    ConversationTag::of(&conversation, &key().message_id)
}

fn subjects(shards: u32) -> Subjects {
    Subjects::new(Namespace::new("t").expect("valid"), shards)
}

#[test]
fn one_shard_spells_the_plain_subject() {
    let subjects = subjects(1);
    assert_eq!(subjects.request(&key(), &tag("m1")), "mozart.t.journal.writer.user.m1.-.request");
    assert_eq!(
        subjects.final_(&key(), &tag("mail:7")),
        "mozart.t.journal.writer.user.m1.lvyg7opzmpcxr.final"
    );
    assert_eq!(subjects.final_of(&key()), "mozart.t.journal.writer.user.m1.*.final");
    assert_eq!(subjects.done(&key()), "mozart.t.done.writer.user.m1.*");
    assert_eq!(subjects.events(&key()), "mozart.t.events.writer.user.m1");
    assert_eq!(subjects.attempts(&key()), "mozart.t.attempts.writer.user.m1");
    assert_eq!(subjects.dead(&key()), "mozart.t.dead.writer.user.m1");
    assert_eq!(subjects.journal_stream(0), "MOZART_t_JOURNAL");
}

#[test]
fn what_is_spelled_is_parsed_back() {
    for shards in [1, 4] {
        for conversation in [tag("m1"), tag("c")] {
            let subjects = subjects(shards);
            let named = JournalSubject { key: key(), conversation, is_final: true };
            let subject = subjects.final_(&named.key, &named.conversation);
            assert_eq!(subjects.parse_journal(&subject), Some(named.clone()));
            assert_eq!(subjects.parse_journal(&format!("{subject}.x")), None);
            let done = subjects.done(&key()).replace('*', named.conversation.as_str());
            assert_eq!(subjects.parse_done(&done), Some(named));
            let agent = key().agent;
            let report = subjects.shim_report(&agent, 7);
            assert_eq!(subjects.parse_shim_report(&report), Some((agent.clone(), 7)));
            assert_eq!(subjects.parse_logs(&subjects.logs(&agent, 7)), Some((agent, 7)));
        }
    }
}

#[test]
fn what_belongs_to_a_message_names_all_of_it() {
    let subjects = subjects(4);
    assert_eq!(subjects.parse_events(&subjects.events(&key())), Some(key()));
    assert_eq!(subjects.parse_attempts(&subjects.attempts(&key())), Some(key()));
    assert_eq!(subjects.parse_dead(&subjects.dead(&key())), Some(key()));
    assert_eq!(subjects.parse_events(&subjects.dead(&key())), None);
    for wrong in ["mozart.t.events.writer.m1", "mozart.t.events.writer.user.m1.x", ""] {
        assert_eq!(subjects.parse_events(wrong), None, "{wrong}");
    }
}

#[test]
fn a_snapshot_is_named_by_the_plain_sequence_of_a_record() {
    let subjects = subjects(1);
    assert_eq!(subjects.parse_snapshot(&subjects.snapshot(70)), Some(70));
    for wrong in ["mozart.t.snapshot.070", "mozart.t.snapshot.+7", "mozart.t.snapshot.7.0", ""] {
        assert_eq!(subjects.parse_snapshot(wrong), None, "{wrong}");
    }
}

#[test]
fn an_archive_and_its_chunks_are_named_by_its_hash() {
    let subjects = subjects(1);
    let archive = Sha256::of([7; 32]);
    assert_eq!(subjects.parse_files(&subjects.files(&archive)), Some((archive.clone(), None)));
    let chunk = subjects.files_chunk(&archive, 12);
    assert_eq!(subjects.parse_files(&chunk), Some((archive.clone(), Some(12))));
    let whole = subjects.files(&archive);
    for wrong in [format!("{whole}.01"), format!("{whole}.+1"), format!("{whole}.1.2"), "x".into()]
    {
        assert_eq!(subjects.parse_files(&wrong), None, "{wrong}");
    }
}

#[test]
fn a_consumer_names_its_incarnation_however_often_it_was_made_anew() {
    let subjects = subjects(1);
    let agent = AgentName::new("a-7").expect("valid");
    for name in [subjects.consumer(&agent, 12), "a-7-12_k3x".to_owned()] {
        assert_eq!(subjects.parse_consumer(&name), Some((agent.clone(), 12)), "{name}");
    }
    assert_eq!(subjects.parse_consumer("follow-xyz"), None);
    let names: Vec<_> = subjects.consumers_of(&agent, 12).collect();
    assert_eq!((names.len(), names[0].as_str(), names[9].as_str()), (10, "a-7-12", "a-7-12_9"));
}

#[test]
fn a_shims_user_and_questions_name_its_incarnation() {
    let subjects = subjects(4);
    let agent = AgentName::new("a-7").expect("valid");
    let named = Some((agent.clone(), 12));
    assert_eq!(subjects.parse_shim_user(&subjects.shim_user(&agent, 12)), named);
    assert_eq!(subjects.parse_shim_ask(&subjects.shim_ask(&agent, 12)), named);
    for wrong in ["mozart", "mozart.u.shim.a-7.12", "mozart.t.shim.a-7", "mozart.t.shim.a.7.12"] {
        assert_eq!(subjects.parse_shim_user(wrong), None, "{wrong}");
    }
    let sender = SenderName::from(agent);
    assert_eq!(subjects.requests_by(&sender), "mozart.t.journal.*.a-7.*.*.request.*");
}

#[test]
fn a_shard_that_is_not_the_agents_is_refused() {
    let subjects = subjects(4);
    let wrong = (subjects.shard(&key().agent) + 1) % 4;
    let subject = format!("mozart.t.journal.writer.user.m1.-.request.{wrong}");
    assert_eq!(subjects.parse_journal(&subject), None);
}
