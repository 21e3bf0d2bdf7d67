//! What comes of the tasks that have ended.

use common::api::Reply;

use super::{Done, Supervisor};

impl Supervisor {
    /// Takes what came of a task.
    pub(super) async fn done(&mut self, done: Done) {
        match done {
            Done::Appended { seq, waiting } => {
                if let Some(waiting) = waiting {
                    self.waiting.push((seq, waiting));
                }
            }
            Done::NotAppended { record, error, waiting } => {
                tracing::error!("cannot append to the control log: {error}");
                if let Some(leading) = &mut self.leading {
                    leading.unsaid(&record);
                }
                if let Some(waiting) = waiting {
                    let error = broker::failure("the change was not recorded", error);
                    self.refuse(waiting, error).await;
                }
            }
            Done::Turn(ended) => self.turn_ended(ended),
            Done::Swept(checked) => self.swept(checked),
            Done::Deadlines(looks) => self.read_deadlines(looks),
            Done::Expired(rest) => self.expired(rest),
            Done::Snapshot { seq, written } => self.snapshot_taken(seq, written),
            Done::Collected => self.collected(),
            Done::Carried(heard) => self.carry_heard(heard),
            Done::MoveChecked(checked) => self.move_checked(*checked).await,
            Done::Pruned => self.pruned(),
            Done::Stored(apply, Ok(())) => self.append_applied(*apply),
            Done::Stored(apply, Err(error)) => {
                self.reply(&apply.reply, &Reply::Error(error)).await;
            }
            Done::Shown(counted) => self.shown(counted),
            Done::Late(event) => self.decide(event),
            Done::Consumers(consumers) => self.drop_consumers(consumers),
            Done::Waits(counted) => self.waits_counted(counted),
            Done::Clock(term, told) => self.clock_told(term, told),
            Done::SchedulesRead(term, keys, last) => self.schedules_read(term, keys, last),
            Done::Decided(term, decided) => self.decided(term, decided),
            Done::PersonAnswered(told) => self.person_answered(told).await,
            Done::SchedulesTidied => self.schedules_tidied(),
            Done::Nothing => {}
        }
    }
}
