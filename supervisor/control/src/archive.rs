//! The leader's archiver: moves finished messages from the journal to HISTORY while it leads, and leaves the broker most of its time.

use std::time::Duration;

use broker::{Archiver, Moment, Retries};
use tokio_util::sync::CancellationToken;

use super::{Done, Supervisor};

/// The pause after a round that found nothing more to do.
const IDLE: Duration = Duration::from_secs(5);

/// After a round, this many times as long passes until the next: a fifth of the broker's time at most.
const PAUSES: u32 = 4;

impl Supervisor {
    /// Archives as long as this leadership lasts. Another leader's archiver that does not know yet that it is over does no harm.
    pub(super) fn keep_archiving(&mut self) {
        let Some(leading) = self.leading.as_mut() else { return };
        let over = CancellationToken::new();
        leading.archiving = Some(over.clone().drop_guard());
        let archiver = Archiver::new(self.reads.broker.clone(), self.archive);
        let idle = IDLE.min(self.archive.hot / 2).max(Duration::from_secs(1));
        self.task(async move {
            let _ended = over.run_until_cancelled(keep(archiver, idle)).await;
            Done::Nothing
        });
    }
}

/// Archives for ever: at its pace while there is more to do, else every now and then.
async fn keep(mut archiver: Archiver, idle: Duration) -> ! {
    let mut retries = Retries::new("archiving finished messages");
    loop {
        let began = Moment::now();
        let pause = match archiver.round().await {
            Ok(round) => {
                retries = Retries::new("archiving finished messages");
                if round.archived + round.removed > 0 {
                    tracing::debug!("archived {}, removed {}", round.archived, round.removed);
                }
                if round.more { (Moment::now().since(began) * PAUSES).min(idle) } else { idle }
            }
            Err(error) => {
                retries.pause(&error).await;
                continue;
            }
        };
        tokio::time::sleep(pause).await;
    }
}
