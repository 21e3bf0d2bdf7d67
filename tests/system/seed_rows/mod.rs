//! The behaviour that Mozart started from: a test for each of its sentences, through the real stack, with agents that are processes
//! and with agents in containers.

mod journal;
mod lifecycle;
mod streams;

/// The same rows for each runtime: what a sentence says does not depend on what an agent runs in.
macro_rules! rows {
    ($runtime:expr; $($file:ident: $($row:ident),+;)+) => {
        $(mod $file {
            use system_tests::harness::Runtime;

            $(#[tokio::test]
            async fn $row() {
                // None where that is not there, which was said.
                if let Some(runtime) = $runtime {
                    crate::seed_rows::$file::$row(runtime).await;
                }
            })+
        })+
    };
}

/// Every row, in a module for each runtime.
macro_rules! in_both {
    ($($rows:tt)+) => {
        mod process {
            rows! { Some(Runtime::Process); $($rows)+ }
        }

        mod docker {
            rows! { Runtime::docker().await; $($rows)+ }
        }
    };
}

in_both! {
    journal:
        stream_chat_records_a_journal_entry,
        pending_messages_are_replayed_on_container_restart,
        ack_message_marks_journal_entry_as_acknowledged,
        failed_messages_are_not_replayed_after_max_attempts,
        route_done_resolves_via_journal;
    lifecycle:
        replace_container_shuts_down_existing_container_before_spawning_new_one,
        old_container_exit_does_not_trigger_restart_when_replaced,
        restart_timer_from_old_container_is_cancelled_on_replacement,
        schedule_restart_is_no_op_when_agent_was_replaced_and_new_one_is_running,
        crashed_container_triggers_restart_and_recovers,
        stop_prevents_restart_after_crash;
    streams:
        stream_chat_terminates_with_error_when_container_crashes,
        stop_closes_event_bus_and_terminates_active_streams,
        restart_closes_old_event_bus_before_creating_new_container;
}
