//! What was found.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// As it should be.
    Fine,
    /// Ports run, slower or less safely than they could.
    Warning,
    /// Ports do not open.
    Blocking,
}

/// One thing that was looked at.
#[derive(Serialize, Clone, Debug)]
pub(super) struct Finding {
    /// What was looked at, in a word: the same in every run.
    pub(super) check: &'static str,
    pub(super) severity: Severity,
    /// The port that it is about; none if it is about the machine.
    pub(super) port: Option<String>,
    pub(super) found: String,
    /// The command that mends it, or, where none can, what does. None if all is fine.
    pub(super) mend: Option<String>,
}

impl Finding {
    pub(super) fn fine(check: &'static str, found: impl fmt::Display) -> Finding {
        Finding { check, severity: Severity::Fine, port: None, found: found.to_string(), mend: None }
    }

    pub(super) fn warning(check: &'static str, found: impl fmt::Display, mend: impl fmt::Display) -> Finding {
        Finding { severity: Severity::Warning, mend: Some(mend.to_string()), ..Finding::fine(check, found) }
    }

    pub(super) fn blocking(
        check: &'static str,
        found: impl fmt::Display,
        mend: impl fmt::Display,
    ) -> Finding {
        Finding { severity: Severity::Blocking, ..Finding::warning(check, found, mend) }
    }

    /// About one port.
    pub(super) fn of(self, port: impl fmt::Display) -> Finding {
        Finding { port: Some(port.to_string()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Fine => "fine",
            Severity::Warning => "warning",
            Severity::Blocking => "BLOCKING",
        };
        let port = self.port.as_ref().map_or(String::new(), |port| format!("{port}: "));
        writeln!(f, "{severity:<8}  {:<12}  {port}{}", self.check, self.found)?;
        match &self.mend {
            Some(mend) => writeln!(f, "{:24}-> {mend}", ""),
            None => Ok(()),
        }
    }
}
