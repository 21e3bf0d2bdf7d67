//! Which archives leave FILES, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::files::{Files, Sha256};
use serde_json::json;

use super::{Head, expecting};
use crate::api::Published;
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::encode;
use crate::wire::CALL;

/// The most archives that one round looks at more closely.
const ROUND: usize = 200;

impl Broker {
    /// Removes archives that are not needed, and parts of some whose storing was interrupted, once they have been there for a while since
    /// they were last stored. How many; the next round finds more, if there are very many.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn collect_files(&self, needed: &BTreeSet<Sha256>, kept: Duration) -> Result<u64> {
        let stream = self.files_stream();
        let index = self.wire().index(&stream, &self.subjects().files_filter()).await?;
        // Whether each has a head.
        let mut there: BTreeMap<Sha256, bool> = BTreeMap::new();
        for subject in index.subjects.keys() {
            if let Some((archive, chunk)) = self.subjects().parse_files(subject) {
                *there.entry(archive).or_default() |= chunk.is_none();
            }
        }
        there.retain(|archive, _| !needed.contains(archive));
        if there.is_empty() {
            return Ok(0);
        }
        let now = self.wire().stream_info(&stream, CALL).await??.ts.unwrap_or_default();
        let mut collected = 0;
        for (archive, has_head) in there.into_iter().take(ROUND) {
            let subjects = self.subjects();
            let last = match has_head {
                true => subjects.files(&archive),
                false => subjects.files_chunks(&archive),
            };
            // By the server's own clock, both.
            let Some(last) = self.wire().last(&stream, &last).await? else { continue };
            if now.since(last.at) < kept {
                continue;
            }
            let expected = if has_head { last.seq } else { 0 };
            let mark = encode(&Head::Leaving)?;
            let subject = self.subjects().files(&archive);
            match self.wire().publish(subject, expecting(expected), mark, CALL).await?.0 {
                Published::Stored(seq) | Published::Duplicate(seq) => {
                    let files = Files { sha256: archive, bytes: 0 };
                    self.drop_chunks(&files, seq).await?;
                    // Only the mark: a head that was stored since then stays.
                    let subject = self.subjects().files(&files.sha256);
                    let body = json!({ "filter": subject, "seq": seq + 1 });
                    self.wire().purge_as(&stream, &body).await?;
                    collected += 1;
                }
                // It was just stored again.
                Published::WrongLast => {}
            }
        }
        Ok(collected)
    }

    /// Removes the chunks that were there when an archive was marked, at that sequence.
    pub(super) async fn drop_chunks(&self, files: &Files, marked: u64) -> Result<()> {
        let filter = self.subjects().files_chunks(&files.sha256);
        let body = json!({ "filter": filter, "seq": marked });
        self.wire().purge_as(&self.files_stream(), &body).await.map(drop)
    }
}
