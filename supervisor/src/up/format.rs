//! The format of the data folder.

use common::api::ApiError;
use common::failure;
use runtime::home::Home;

/// The one that this build writes.
const FORMAT: u32 = 1;

/// Records the format, if none is recorded.
pub(super) fn note(home: &Home) -> Result<(), ApiError> {
    let path = home.dir.join("format");
    if path.exists() {
        return Ok(());
    }
    home.put("format", format!("{FORMAT}\n").as_bytes()).map_err(|error| {
        let what = format!("cannot use the data folder {}", home.dir.display());
        failure::file(what, &error, "check the disk space and permissions there")
    })
}

/// A folder of a newer version is not touched.
pub(super) fn check(home: &Home) -> Result<(), ApiError> {
    let path = home.dir.join("format");
    let what = || format!("cannot use the data folder {}", home.dir.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(found) if found <= FORMAT => Ok(()),
            _ => {
                let cause =
                    format!("its format is {:?}, this mozart knows up to {FORMAT}", text.trim());
                Err(failure::error(
                    failure::FAILED,
                    what(),
                    cause,
                    "use the newer mozart that wrote it, or --dir DIR",
                ))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failure::file(what(), &error, "--dir DIR for another one")),
    }
}
