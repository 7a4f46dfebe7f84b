//! A file that says how far a tail has got: the cursor and a line break. At every moment it holds one whole cursor, the
//! old or the new.

use crate::{exit::Failure, output};
use std::{io, path::PathBuf};
use tokio::io::AsyncWriteExt;

/// A cursor that names no channel and leaves some out.
const UNREADABLE: &str = "~";

#[derive(Debug)]
pub(super) struct CursorFile {
    path: PathBuf,
    /// In the same directory, as only a rename within a file system is atomic; this process's own, so that two tails
    /// that were given one file by mistake do not tear it.
    scratch: PathBuf,
}

impl CursorFile {
    pub(super) fn new(path: PathBuf) -> Self {
        let mut scratch = path.clone().into_os_string();
        scratch.push(format!(".{}.tmp", std::process::id()));
        Self { path, scratch: scratch.into() }
    }

    /// The cursor recorded; `None` if there is no file yet. A file that holds anything but one line is as good as a
    /// cursor that cannot be read: the gateway then says that something may be missing.
    ///
    /// # Errors
    /// When there is a file that cannot be read: to begin anew then would leave events out.
    pub(super) fn read(&self) -> Result<Option<String>, Failure> {
        match std::fs::read(&self.path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
                if text.is_empty() || text.contains(char::is_control) {
                    output::say(&format!(
                        "{} holds no cursor; what came before now may be missing",
                        self.path.display()
                    ));
                    return Ok(Some(UNREADABLE.to_owned()));
                }
                Ok(Some(text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::Failed(format!("cannot read {}: {error}", self.path.display()))),
        }
    }

    /// # Errors
    /// When the directory or the disk does not allow it.
    pub(super) async fn write(&self, cursor: &str) -> Result<(), Failure> {
        let replaced = async {
            let mut file = tokio::fs::File::create(&self.scratch).await?;
            file.write_all(format!("{cursor}\n").as_bytes()).await?;
            // A rename that reaches the disk before the bytes do would leave an empty file after a power cut.
            file.sync_data().await?;
            tokio::fs::rename(&self.scratch, &self.path).await
        };
        replaced.await.map_err(|error| Failure::Failed(format!("cannot write {}: {error}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cursor_is_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = CursorFile::new(directory.path().join("cursor"));
        assert_eq!(file.read().expect("no file is no error"), None);
        file.write("a.1-2").await.expect("writes");
        file.write("a.1-3").await.expect("writes");
        assert_eq!(file.read().expect("reads").as_deref(), Some("a.1-3"));
        assert_eq!(std::fs::read_dir(directory.path()).expect("lists").count(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_taken_for_a_beginning() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(CursorFile::new(directory.path().to_owned()).read().is_err());
        for torn in ["", "\n", "a.1-2\nb", "a\r\nX: 1"] {
            let path = directory.path().join("torn");
            std::fs::write(&path, torn).expect("writes");
            assert_eq!(CursorFile::new(path).read().expect("reads").as_deref(), Some(UNREADABLE), "{torn:?}");
        }
    }
}
