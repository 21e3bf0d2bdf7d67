//! Archives as they should be, and as nobody should make them.

use std::io::Write as _;

use super::super::slice::spool;
use super::super::unpack::Draft;
use super::*;
use tar::{Builder, Header};

/// An archive with a SANCTUM, a SKILL and two messages, one of them open.
struct Made {
    manifest: Value,
    soul: String,
    journal: String,
    builder: Builder<Vec<u8>>,
}

const REQUEST: &str = r#"{"request":{"at":"2026-01-01T00:00:00Z","record":{"messageId":"M","agent":"a","sender":"user","kind":"chat","conversationId":"M","message":"hello","createdAt":"2026-01-01T00:00:00Z"}}}"#;
const FINAL: &str = r#"{"final":{"at":"2026-01-01T00:00:01Z","sender":"user","messageId":"m1","record":{"status":"completed","response":"r","attempts":1,"at":"2026-01-01T00:00:01Z"}}}"#;

impl Made {
    fn new() -> Self {
        let folder = |archive: &str| serde_json::json!({ "archive": archive, "host": "/h" });
        Self {
            manifest: serde_json::json!({
                "format": 1, "agent": "a", "at": "2026-01-01T00:00:00Z", "mozart": "0.1.0",
                "sanctums": [folder("sanctums/0")], "skills": [folder("skills/0/x.md")],
                "counts": { "messages": 2, "open": 1, "deadLetters": 0, "files": 2, "bytes": 2 },
            }),
            soul: "MODEL m\nSOUL s\nSANCTUM sanctums/0:/data\n".to_owned(),
            journal: [REQUEST.replace('M', "m1"), FINAL.to_owned(), REQUEST.replace('M', "m2")]
                .map(|line| line + "\n")
                .concat(),
            builder: Builder::new(Vec::new()),
        }
    }

    /// An entry, under a name that the crate itself would refuse.
    fn entry(&mut self, name: &str, kind: EntryType, text: &[u8], link: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_uid(u64::from(rustix::process::getuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getgid().as_raw()));
        header.set_mtime(1);
        header.set_size(text.len() as u64);
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        self.builder.append(&header, text).expect("written");
    }

    fn file(&mut self, name: &str, text: &str) {
        self.entry(name, EntryType::Regular, text.as_bytes(), "");
    }

    fn folder(&mut self, name: &str) {
        self.entry(name, EntryType::Directory, b"", "");
    }

    fn link(&mut self, name: &str, target: &str) {
        self.entry(name, EntryType::Symlink, b"", target);
    }

    fn head(&mut self) {
        let (manifest, soul, journal) =
            (self.manifest.to_string(), self.soul.clone(), self.journal.clone());
        self.file("manifest.json", &manifest);
        self.file("agent.soul", &soul);
        self.file("journal.jsonl", &journal);
        self.folder("sanctums/0");
        self.file("sanctums/0/file", "1");
        self.file("skills/0/x.md", "2");
    }

    fn bytes(self) -> Vec<u8> {
        self.builder.into_inner().expect("written")
    }
}

fn stored(bytes: &[u8]) -> File {
    let mut file = spool(&std::env::temp_dir()).expect("made");
    file.write_all(bytes).expect("written");
    file
}

async fn of(bytes: &[u8]) -> Result<Checked, String> {
    check(&stored(bytes), false).await
}

async fn refused(made: Made, words: &str) {
    let error = of(&made.bytes()).await.expect_err(words);
    assert!(error.contains(words), "{error:?} does not say {words:?}");
}

fn changed(change: impl FnOnce(&mut Made)) -> Made {
    let mut made = Made::new();
    change(&mut made);
    made.head();
    made
}

fn with(more: impl FnOnce(&mut Made)) -> Made {
    let mut made = Made::new();
    made.head();
    more(&mut made);
    made
}

#[tokio::test]
async fn an_archive_as_it_should_be_is_taken() {
    let made = with(|made| {
        made.folder("sanctums/0/sub");
        made.link("sanctums/0/sub/up", "../file");
    });
    let checked = of(&made.bytes()).await.expect("it is as it should be");
    let open: Vec<_> = checked.open.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!(open, ["m2"]);
    assert_eq!((checked.manifest.counts.messages, checked.image), (2, None));
}

#[tokio::test]
async fn names_and_links_do_not_lead_out() {
    for name in ["../x", "/etc/x", "sanctums/0/../../x", "other", "sanctums/1/x"] {
        of(&with(|made| made.file(name, "")).bytes()).await.expect_err(name);
    }
    for target in ["/etc/passwd", "../../x", "..", "file/../.."] {
        let made = with(|made| made.link("sanctums/0/l", target)).bytes();
        let error = of(&made).await.expect_err(target);
        assert!(error.contains("points outside its folder"), "{error}");
        check(&stored(&made), true).await.expect("it was allowed");
    }
    // Nothing is written through a link, wherever it leads.
    let through = with(|made| {
        made.link("sanctums/0/l", "sub");
        made.file("sanctums/0/l/x", "");
    });
    refused(through, "not in a folder of the archive").await;
    refused(with(|made| made.link("sanctums/1", ".")), "is not a folder").await;
    let hard = with(|made| made.entry("sanctums/0/h", EntryType::Link, b"", "/etc/passwd"));
    refused(hard, "not a file, folder or link").await;
    let device = with(|made| made.entry("sanctums/0/d", EntryType::Char, b"", ""));
    refused(device, "not a file, folder or link").await;
}

#[tokio::test]
async fn a_format_that_is_not_known_is_said_with_its_maker() {
    let newer = changed(|made| {
        made.manifest["format"] = 2.into();
        made.manifest["mozart"] = "9.0".into();
    });
    refused(newer, "format 2, written by mozart 9.0").await;
    refused(changed(|made| made.manifest["format"] = Value::Null), "names no format").await;
}

#[tokio::test]
async fn what_is_missing_or_too_much_is_noticed() {
    let counts = changed(|made| made.manifest["counts"]["messages"] = 3.into());
    refused(counts, "2 messages of 3").await;
    refused(changed(|made| made.manifest["sanctums"] = Value::Array(Vec::new())), "sanctums/0")
        .await;
    refused(with(|made| made.file("image.tar", "")), "an image that its manifest does not").await;
    refused(with(|made| made.file("agent.soul", "")), "twice").await;
    refused(changed(|made| made.journal.push_str("{}\n")), "line 4 of its journal").await;
    let other =
        changed(|made| made.journal = made.journal.replace(r#""agent":"a""#, r#""agent":"b""#));
    refused(other, "another agent: b").await;
    refused(changed(|made| made.file("x", "")), "it is not an archive that").await;
}

#[tokio::test]
async fn no_name_is_there_twice() {
    for name in ["sanctums/0/file", "sanctums/0//file", "skills/0/x.md"] {
        refused(with(|made| made.file(name, "")), "appears twice").await;
        refused(with(|made| made.folder(name)), "appears twice").await;
    }
    refused(with(|made| made.link("sanctums/0/file", "x")), "appears twice").await;
    refused(with(|made| made.folder("sanctums/0")), "appears twice").await;
    let link = with(|made| {
        made.link("sanctums/0/l", "file");
        made.file("sanctums/0/l", "");
    });
    refused(link, "appears twice").await;
}

#[tokio::test]
async fn an_archive_that_was_cut_short_is_noticed_wherever_that_was() {
    let whole = Made::new();
    let whole = changed(|made| *made = whole).bytes();
    of(&whole).await.expect("it is whole");
    let end = whole.len() - 1024;
    for len in (0..end).step_by(256).chain([end, end + 512]) {
        of(&whole[..len]).await.expect_err("it is not whole");
    }
    for bytes in [b"".as_slice(), b"not a tar", &[0; 4096]] {
        let why = of(bytes).await.expect_err("it is none");
        assert_eq!(why, "it is not an archive that `mozart export` wrote");
    }
}

#[tokio::test]
async fn what_was_checked_is_unpacked_with_its_modes_and_without_set_uid() {
    use std::os::unix::fs::PermissionsExt as _;
    let made = with(|made| {
        made.folder("sanctums/0/sub");
        made.link("sanctums/0/sub/up", "../file");
    });
    let file = stored(&made.bytes());
    let temp = tempfile::tempdir().expect("a temporary folder");
    let target = temp.path().join("a");
    let bar = indicatif::ProgressBar::hidden();
    let mut draft = Draft::beside(&target).expect("made");
    draft.unpack(&file, &bar).await.expect("unpacked");
    assert!(!target.exists());
    draft.place(&target).expect("it has its name");
    let mode = |path: &str| {
        let metadata = std::fs::metadata(target.join(path)).expect("it is there");
        (metadata.permissions().mode() & 0o7777, metadata.modified().expect("known"))
    };
    let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    assert_eq!(mode("sanctums/0/file"), (0o755, at));
    assert_eq!(mode("sanctums/0/sub"), (0o755, at));
    assert_eq!(std::fs::read(target.join("sanctums/0/sub/up")).expect("it leads there"), b"1");
    assert_eq!(std::fs::read_dir(temp.path()).expect("readable").count(), 1);

    // What is not placed leaves nothing, nor do two drafts get in each other's way.
    let mut draft = Draft::beside(&temp.path().join("b")).expect("made");
    let other = Draft::beside(&temp.path().join("b")).expect("made");
    draft.unpack(&file, &bar).await.expect("unpacked");
    drop((draft, other));
    assert_eq!(std::fs::read_dir(temp.path()).expect("readable").count(), 1);
}
