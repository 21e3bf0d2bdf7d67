//! The frames of a backup: what it is made of, and the checksums by which damage is found, and where.
//!
//! A file is [`MAGIC`], then frames: a kind (1 byte), a length (4 bytes, little endian), the content, and the first 8 bytes of a SHA-256 of all
//! that and of the SHA-256 of the frame before. So a frame that is changed, missing or in another place is noticed where it is. The last frame is
//! the [`Kind::End`], and nothing comes after it: without it, the file is truncated. Its whole SHA-256 names the file.

use std::fmt;
use std::io::{self, Read};

use common::api::ApiError;
use sha2::{Digest as _, Sha256};

use crate::outfile::OutFile;

/// How every backup begins.
pub(super) const MAGIC: [u8; 8] = *b"MOZBAK\x00\x01";

/// The longest content of a frame, in bytes: a record of a mebibyte and what is known of it.
const LONGEST: usize = 4 << 20;

/// How many bytes of a frame's SHA-256 are behind it.
const CHECK: usize = 8;

/// Written at once, in bytes.
const BUFFER: usize = 256 << 10;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the file is of; JSON.
    Head,
    /// The head of the state of the control log; JSON.
    StateHead,
    /// A piece of that state.
    State,
    /// A stream begins; JSON.
    Part,
    /// One of its records.
    Record,
    /// What it all came to; JSON.
    End,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Head, Self::StateHead, Self::State, Self::Part, Self::Record, Self::End];

    fn byte(self) -> u8 {
        match self {
            Self::Head => b'H',
            Self::StateHead => b'S',
            Self::State => b's',
            Self::Part => b'P',
            Self::Record => b'R',
            Self::End => b'E',
        }
    }
}

/// The checksum so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Chain([u8; 32]);

impl Chain {
    /// Goes on with a frame; what is to be behind it.
    fn next(&mut self, head: [u8; 5], content: &[u8]) -> [u8; CHECK] {
        let mut digest = Sha256::new();
        digest.update(self.0);
        digest.update(head);
        digest.update(content);
        self.0 = digest.finalize().into();
        let mut check = [0; CHECK];
        check.copy_from_slice(&self.0[..CHECK]);
        check
    }

    fn name(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A backup that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    out: OutFile,
    buffer: Vec<u8>,
    chain: Chain,
    written: u64,
}

impl Writer {
    pub(super) fn new(out: OutFile) -> Self {
        Self { out, buffer: MAGIC.to_vec(), chain: Chain::default(), written: 0 }
    }

    /// Writes a frame of some pieces.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn frame(&mut self, kind: Kind, pieces: &[&[u8]]) -> Result<(), ApiError> {
        let content = pieces.concat();
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let mut head = [kind.byte(); 5];
        head[1..].copy_from_slice(&length.to_le_bytes());
        let check = self.chain.next(head, &content);
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(&content);
        self.buffer.extend_from_slice(&check);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ApiError> {
        self.out.write(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Gives the file its name; its length, and what it is named by.
    ///
    /// # Errors
    /// When it cannot be written, or a file of that name has appeared.
    pub(super) fn finish(mut self) -> Result<(u64, String), ApiError> {
        self.flush()?;
        self.out.finish()?;
        Ok((self.written, self.chain.name()))
    }
}

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not begin as a backup does.
    NoBackup,
    /// It ends in the middle.
    Truncated { at: u64 },
    /// What is there is not what was written.
    Damaged { at: u64, how: String },
    /// It cannot be read.
    Unreadable(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBackup => f.write_str("it is not a backup that `mozart backup` wrote"),
            Self::Truncated { at } => write!(f, "it is truncated: it ends at byte {at}"),
            Self::Damaged { at, how } => write!(f, "it is damaged at byte {at}: {how}"),
            Self::Unreadable(how) => write!(f, "it cannot be read: {how}"),
        }
    }
}

/// A backup that is being read.
#[derive(Debug)]
pub(super) struct Reader<R> {
    input: R,
    chain: Chain,
    /// How many bytes were read.
    at: u64,
    /// Where the last frame began.
    began: u64,
}

impl<R: Read> Reader<R> {
    /// Reads how it begins.
    ///
    /// # Errors
    /// When it is no backup.
    pub(super) fn new(input: R) -> Result<Self, Fault> {
        let mut reader = Self { input, chain: Chain::default(), at: 0, began: 0 };
        let mut magic = [0; MAGIC.len()];
        match reader.fill(&mut magic)? {
            read if read == magic.len() && magic == MAGIC => Ok(reader),
            _ => Err(Fault::NoBackup),
        }
    }

    /// Where the last frame began, in bytes.
    pub(super) fn began(&self) -> u64 {
        self.began
    }

    /// Damage in the content of the last frame.
    pub(super) fn damaged(&self, how: impl fmt::Display) -> Fault {
        Fault::Damaged { at: self.began, how: how.to_string() }
    }

    /// The next frame. `End` is the last one, and that nothing comes after it is checked then.
    ///
    /// # Errors
    /// When the file is truncated or damaged.
    pub(super) fn next(&mut self) -> Result<(Kind, Vec<u8>), Fault> {
        self.began = self.at;
        let mut head = [0; 5];
        self.whole(&mut head)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.byte() == head[0]);
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST);
        let (Some(kind), Some(length)) = (kind, length) else {
            return Err(self.damaged("no frame begins there"));
        };
        let mut content = vec![0; length];
        self.whole(&mut content)?;
        let mut check = [0; CHECK];
        self.whole(&mut check)?;
        if self.chain.next(head, &content) != check {
            return Err(self.damaged("its checksum is not that of its content"));
        }
        if kind == Kind::End && self.fill(&mut [0])? > 0 {
            return Err(Fault::Damaged {
                at: self.at - 1,
                how: "something comes after its end".into(),
            });
        }
        Ok((kind, content))
    }

    /// What the file is named by, once its last frame was read.
    pub(super) fn name(&self) -> String {
        self.chain.name()
    }

    fn whole(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        match self.fill(buffer)? {
            read if read == buffer.len() => Ok(()),
            _ => Err(Fault::Truncated { at: self.at }),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Unreadable(error.to_string())),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENTS: [(Kind, &[u8]); 4] =
        [(Kind::Head, b"{}"), (Kind::Record, b"one"), (Kind::Record, b""), (Kind::End, b"{}")];

    fn written(contents: &[(Kind, &[u8])]) -> Vec<u8> {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let path = temp.path().join("backup");
        let mut writer = Writer::new(OutFile::create(&path, false).expect("made"));
        for (kind, content) in contents {
            writer.frame(*kind, &[content]).expect("written");
        }
        let (length, _) = writer.finish().expect("written");
        let bytes = std::fs::read(path).expect("it is there");
        assert_eq!(length, bytes.len() as u64);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Kind, Vec<u8>)>, Fault> {
        let mut reader = Reader::new(bytes)?;
        let mut frames = Vec::new();
        loop {
            let frame = reader.next()?;
            let is_last = frame.0 == Kind::End;
            frames.push(frame);
            if is_last {
                return Ok(frames);
            }
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let frames = read(&written(&CONTENTS)).expect("whole");
        let expected: Vec<_> =
            CONTENTS.iter().map(|(kind, content)| (*kind, content.to_vec())).collect();
        assert_eq!(frames, expected);
    }

    #[test]
    fn a_file_that_ends_anywhere_is_truncated_there() {
        let bytes = written(&CONTENTS);
        for end in 0..bytes.len() {
            let fault = read(&bytes[..end]).expect_err("truncated");
            if end < MAGIC.len() {
                assert_eq!(fault, Fault::NoBackup, "{end}");
            } else {
                assert_eq!(fault, Fault::Truncated { at: end as u64 });
            }
        }
    }

    #[test]
    fn every_bit_counts_and_the_frame_that_is_damaged_is_named() {
        let bytes = written(&CONTENTS);
        let begins: Vec<u64> = {
            let mut reader = Reader::new(&*bytes).expect("whole");
            CONTENTS.iter().map(|_| reader.next().map(|_| reader.began()).expect("whole")).collect()
        };
        for place in MAGIC.len()..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[place] ^= 1 << bit;
                let begin = *begins.iter().rfind(|begin| **begin <= place as u64).expect("a frame");
                match read(&bytes).expect_err("damaged") {
                    Fault::Damaged { at, .. } => assert_eq!(at, begin, "{place}"),
                    // A length that says more than there is.
                    Fault::Truncated { .. } => assert!((1..5).contains(&(place as u64 - begin))),
                    fault @ (Fault::NoBackup | Fault::Unreadable(_)) => panic!("{fault}"),
                }
            }
        }
    }

    #[test]
    fn frames_in_another_order_or_of_another_file_are_noticed() {
        let bytes = written(&CONTENTS);
        let swapped = written(&[CONTENTS[0], CONTENTS[2], CONTENTS[1], CONTENTS[3]]);
        let (one, other) = (8 + 5 + 2 + 8, 5 + 3 + 8);
        let mut moved = bytes[..one].to_vec();
        moved.extend_from_slice(&bytes[one + other..one + other + 13]);
        moved.extend_from_slice(&bytes[one..one + other]);
        moved.extend_from_slice(&bytes[one + other + 13..]);
        assert_eq!(moved.len(), bytes.len());
        read(&moved).expect_err("out of order");
        read(&swapped).expect("whole");
        assert_ne!(moved, swapped);
        let mut longer = bytes.clone();
        longer.push(0);
        let fault = read(&longer).expect_err("longer");
        assert_eq!(
            fault,
            Fault::Damaged { at: bytes.len() as u64, how: "something comes after its end".into() }
        );
    }
}
