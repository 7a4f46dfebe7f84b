//! Reads the files again when they change, as after a renewal.
//!
//! It looks at what stands in them and not at their times or places, so that it does not matter how they are replaced:
//! written over, renamed, or behind a link that is turned, as Kubernetes does it. A change that cannot be used leaves
//! what is in force as it is; one that is half done is complete at the next look.

use super::{
    InForce, Tls,
    identity::{Contents, Identity, InvalidFile},
};
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in force.
    Taken,
    /// It cannot be used, and what was in force before still is.
    Refused(InvalidFile),
}

/// What is wrong with the files at present, told once it has lasted.
#[derive(Default)]
struct Trouble {
    found: Option<InvalidFile>,
    is_told: bool,
}

impl Trouble {
    /// What is to be told of this look.
    fn after(&mut self, looked: Result<bool, InvalidFile>) -> Option<Change> {
        match looked {
            Ok(changed) => {
                *self = Self::default();
                changed.then_some(Change::Taken)
            }
            Err(wrong) if self.found.as_ref() != Some(&wrong) => {
                *self = Self { found: Some(wrong), is_told: false };
                None
            }
            Err(_) if self.is_told => None,
            Err(wrong) => {
                self.is_told = true;
                Some(Change::Refused(wrong))
            }
        }
    }
}

impl Tls {
    /// Looks at the files for ever, and tells of each change.
    pub async fn follow(self: Arc<Self>, mut told: impl FnMut(Change)) {
        let mut trouble = Trouble::default();
        loop {
            tokio::time::sleep(EVERY).await;
            let tls = Arc::clone(&self);
            // A disk or network that does not answer holds up this task alone.
            let Ok(looked) = tokio::task::spawn_blocking(move || tls.look()).await else { continue };
            if let Some(change) = trouble.after(looked) {
                told(change);
            }
        }
    }

    /// Takes what stands in the files, if it is something else than before.
    fn look(&self) -> Result<bool, InvalidFile> {
        let contents = Contents::read(&self.files)?;
        if self.in_force.read().unwrap_or_else(PoisonError::into_inner).contents == contents {
            return Ok(false);
        }
        let identity = Identity::of(&contents)?;
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = InForce { identity, contents };
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Files, *};
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use std::fs;

    fn pair() -> (String, String) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn a_pair_is_taken_when_it_is_whole_and_until_then_the_old_one_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let (certificate, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
        let (old, new) = (pair(), pair());
        fs::write(&certificate, &old.0).expect("written");
        fs::write(&key, &old.1).expect("written");
        let tls = Tls::load(Files { certificate: certificate.clone(), key: key.clone(), client_ca: None });
        let tls = tls.expect("a good pair");
        let in_force = || Arc::as_ptr(&tls.in_force.read().expect("no panic").identity.config);
        let first = in_force();
        assert_eq!(tls.look(), Ok(false));

        fs::write(&certificate, &new.0).expect("written");
        let wrong = tls.look().expect_err("half a pair");
        assert!(wrong.to_string().contains("does not belong"), "{wrong}");
        fs::remove_file(&key).expect("removed");
        let wrong = tls.look().expect_err("no key");
        assert!(wrong.to_string().starts_with("tls.key = ") && wrong.why.starts_with("cannot be read"), "{wrong}");
        assert_eq!(in_force(), first);
        fs::write(&key, &new.1).expect("written");
        assert_eq!(tls.look(), Ok(true));
        assert_ne!(in_force(), first);
        assert_eq!(tls.look(), Ok(false));
    }

    #[test]
    fn trouble_is_told_once_and_only_if_it_lasts() {
        let wrong =
            |why: &str| Err(InvalidFile { file: super::super::File::Key, path: "tls.key".into(), why: why.to_owned() });
        let mut trouble = Trouble::default();
        assert_eq!(trouble.after(wrong("a")), None, "it may be half done");
        assert_eq!(trouble.after(Ok(true)), Some(Change::Taken));
        assert_eq!(trouble.after(wrong("a")), None);
        assert!(matches!(trouble.after(wrong("a")), Some(Change::Refused(_))));
        assert_eq!(trouble.after(wrong("a")), None, "told already");
        assert_eq!(trouble.after(wrong("b")), None);
        assert!(matches!(trouble.after(wrong("b")), Some(Change::Refused(_))));
        assert_eq!(trouble.after(Ok(false)), None);
    }
}
