//! Why a program does not start, if the system's error says too little: "No such file" is also the error for a script whose interpreter is
//! missing, and for one with the line ends of another system.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

/// What is read of a program, in bytes: its first line, or an ELF file's headers.
const READ: u64 = 4096;

/// What is wrong with a program, if that can be seen. `path`: where a name without a slash is looked for.
pub(crate) fn of(program: &str, path: &str) -> Option<String> {
    let Some(file) = find(program, path) else {
        return Some(if !program.contains('/') {
            format!("there is no program {program:?} in PATH ({path})")
        } else if Path::new(program).is_absolute() {
            format!("there is no file {program}")
        } else {
            let folder = std::env::current_dir().unwrap_or_default();
            format!("there is no file {program} in {}", folder.display())
        });
    };
    let shown = file.display();
    if file.is_dir() {
        return Some(format!("{shown} is a folder"));
    }
    if access(&file, Access::EXEC_OK).is_err() {
        return Some(not_executable(&file));
    }
    let mut begins = Vec::new();
    File::open(&file).ok()?.take(READ).read_to_end(&mut begins).ok()?;
    if let Some(line) = begins.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        return interpreter(&String::from_utf8_lossy(line), path)
            .map(|why| format!("{shown}: {why}"));
    }
    match begins.strip_prefix(b"\x7fELF") {
        Some(_) => elf(&begins).map(|why| format!("{shown} {why}")),
        None => Some(format!(
            "{shown} is neither a binary nor a script whose first line names its interpreter, such as `#!/usr/bin/env python3`"
        )),
    }
}

/// The file that is meant, if it is there.
fn find(program: &str, path: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return fs::symlink_metadata(program).is_ok().then(|| program.into());
    }
    let mut files = path.split(':').map(|folder| Path::new(folder).join(program));
    files.find(|file| file.is_file())
}

fn not_executable(file: &Path) -> String {
    let shown = file.display();
    let Ok(about) = fs::metadata(file) else {
        return format!(
            "{shown} is a link to a file that does not exist, or that this user cannot see"
        );
    };
    if about.permissions().mode() & 0o111 == 0 {
        return format!("{shown} is not executable; try: chmod +x {shown}");
    }
    let mount = statvfs(file).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOEXEC));
    if mount {
        return format!("{shown} is on a file system that is mounted with `noexec`");
    }
    format!("{shown} is not executable for user {}", rustix::process::geteuid().as_raw())
}

/// What is wrong with a script's first line.
fn interpreter(line: &str, path: &str) -> Option<String> {
    if line.ends_with('\r') {
        return Some(
            "its first line ends with CR LF, and the interpreter's name with CR; try: sed -i 's/\\r$//' on it"
                .to_owned(),
        );
    }
    let mut words = line.split_whitespace();
    let program = words.next()?;
    if !Path::new(program).exists() {
        return Some(format!("its interpreter {program} does not exist"));
    }
    if Path::new(program).file_name().is_some_and(|name| name == "env") {
        let named = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
        if find(named, path).is_none() {
            return Some(format!("its interpreter {named:?} is not in PATH ({path})"));
        }
    }
    None
}

/// What is wrong with an ELF file, by its headers.
fn elf(file: &[u8]) -> Option<String> {
    /// `e_machine`, as the ELF specification numbers them.
    const MACHINES: [(u64, &str); 7] = [
        (3, "x86"),
        (40, "arm"),
        (62, "x86_64"),
        (183, "aarch64"),
        (243, "riscv64"),
        (21, "powerpc64"),
        (22, "s390x"),
    ];
    /// `PT_INTERP`.
    const LOADER: u64 = 3;
    let number = |at: usize, bytes: usize| {
        let field = file.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let own = std::env::consts::ARCH;
    let machine = number(18, 2)?;
    let name = MACHINES.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name);
    if name != Some(own) && MACHINES.iter().any(|(_, name)| *name == own) {
        let name = name.map_or_else(|| format!("number {machine}"), str::to_owned);
        return Some(format!("is for another architecture ({name}); this one is {own}"));
    }
    let (table, size, count) = (
        usize::try_from(number(32, 8)?).ok()?,
        usize::try_from(number(54, 2)?).ok()?,
        number(56, 2)?,
    );
    for nth in 0..usize::try_from(count).ok()? {
        let header = table.checked_add(nth.checked_mul(size)?)?;
        if number(header, 4)? == LOADER {
            let start = usize::try_from(number(header + 8, 8)?).ok()?;
            let loader = file.get(start..)?.split(|byte| *byte == 0).next()?;
            let loader = String::from_utf8_lossy(loader).into_owned();
            return (!Path::new(&loader).exists()).then(|| {
                format!("needs {loader}, which does not exist: it is linked for another C library")
            });
        }
    }
    None
}

/// The program that a shell's command line begins with, if that is plain to see.
pub(crate) fn first_word(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let word = words.find(|word| *word != "exec" && !is_assignment(word))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    word.chars().all(plain).then_some(word)
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &[u8], mode: u32) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("worker");
        fs::write(&file, text).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
        let name = file.to_string_lossy().into_owned();
        (folder, name)
    }

    #[track_caller]
    fn says(text: &[u8], mode: u32, words: &str) {
        let (_folder, file) = script(text, mode);
        let why = of(&file, "/usr/bin:/bin").expect("a cause");
        assert!(why.contains(words), "{why}");
    }

    #[test]
    fn causes_are_named() {
        says(b"#!/bin/sh\r\necho\r\n", 0o755, "CR LF");
        says(b"#!/no/such/python3\n", 0o755, "its interpreter /no/such/python3 does not exist");
        says(b"#!/usr/bin/env no-such-python\n", 0o755, "\"no-such-python\" is not in PATH");
        says(b"#!/bin/sh\n", 0o644, "not executable; try: chmod +x");
        says(b"print(1)\n", 0o755, "neither a binary nor a script");
        says(b"", 0o755, "neither a binary nor a script");
        let mut elf = fs::read("/bin/sh").expect("a binary");
        elf[18..20].copy_from_slice(&[183, 0]);
        if std::env::consts::ARCH != "aarch64" {
            says(&elf, 0o755, "is for another architecture (aarch64)");
        }
        assert_eq!(of("/bin/sh", ""), None);
        assert_eq!(of("sh", "/usr/bin:/bin"), None);
        assert_eq!(
            of("no-such", "/bin").as_deref(),
            Some(r#"there is no program "no-such" in PATH (/bin)"#)
        );
        assert_eq!(of("/no/such", "").as_deref(), Some("there is no file /no/such"));
        assert!(
            of("./no/such", "")
                .is_some_and(|why| why.starts_with("there is no file ./no/such in /"))
        );
        assert_eq!(of("/tmp", "").as_deref(), Some("/tmp is a folder"));
    }

    #[test]
    fn damaged_binaries_are_no_cause_and_no_harm() {
        let elf = fs::read("/bin/sh").expect("a binary");
        for length in 4..100 {
            let (_folder, file) = script(&elf[..length], 0o755);
            let _cause = of(&file, "");
        }
        let (_folder, file) = script(&[&b"\x7fELF"[..], &[0xff; 200]].concat(), 0o755);
        let _cause = of(&file, "");
    }

    #[test]
    fn a_shells_command_begins_with_a_program() {
        assert_eq!(first_word("exec A=1 python3 -u x.py"), Some("python3"));
        assert_eq!(first_word("./run.sh | tee log"), Some("./run.sh"));
        for line in ["", "$PROGRAM x", "(cd x; y)", "\"a b\""] {
            assert_eq!(first_word(line), None, "{line}");
        }
    }
}
