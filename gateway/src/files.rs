//! Reading the files that settings name.

use std::{io, path::Path};

/// Reads a file that is one: a pipe in its place would be waited for without end.
///
/// # Errors
/// When it is no regular file, or cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.is_file() {
        std::fs::read(path)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        for path in ["/dev/zero", "/", "/nowhere"] {
            assert!(read(Path::new(path)).is_err(), "{path}");
        }
    }
}
