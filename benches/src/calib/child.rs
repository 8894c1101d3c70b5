//! Another process that is asked line by line: a line of JSON for a line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::BenchError;

/// A process that answers questions until it is dropped.
pub(super) struct Child {
    peer: &'static str,
    process: process::Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What a process answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Answer<A> {
    /// Why there is no answer.
    Failed { error: String },
    /// The answer.
    Done(A),
}

impl Child {
    /// Starts a process; what it prints to stderr is shown.
    pub(super) fn start(peer: &'static str, command: &mut Command) -> Result<Self, BenchError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |reason: String| BenchError::Peer { peer, reason };
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| failed(format!("{program} does not start: {source}")))?;
        let (questions, answers) = (process.stdin.take(), process.stdout.take());
        let answers = answers.ok_or_else(|| failed(format!("{program} has no output")))?;
        Ok(Self {
            peer,
            process,
            questions,
            answers: BufReader::new(answers),
        })
    }

    /// Asks and waits for the answer.
    pub(super) fn ask<A: DeserializeOwned>(
        &mut self,
        question: &impl Serialize,
    ) -> Result<A, BenchError> {
        let peer = self.peer;
        let failed = |reason: String| BenchError::Peer { peer, reason };
        let mut line = serde_json::to_string(question).map_err(|e| failed(e.to_string()))?;
        line.push('\n');
        let ended = |source| failed(format!("its process does not listen: {source}"));
        if let Some(questions) = &mut self.questions {
            questions.write_all(line.as_bytes()).map_err(ended)?;
            questions.flush().map_err(ended)?;
        }
        line.clear();
        self.answers.read_line(&mut line).map_err(ended)?;
        if line.is_empty() {
            return Err(failed("its process ended without an answer".to_owned()));
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Done(answer)) => Ok(answer),
            Ok(Answer::Failed { error }) => Err(failed(error)),
            Err(error) => Err(failed(format!("its answer is none: {error}: {line}"))),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // At the end of its input it ends.
        self.questions = None;
        let _ = self.process.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(code: &str) -> Child {
        Child::start("shell", Command::new("sh").args(["-c", code])).unwrap()
    }

    #[test]
    fn questions_are_answered_in_turn() {
        let mut cat = Child::start("cat", &mut Command::new("cat")).unwrap();
        for i in 0..3 {
            assert_eq!(cat.ask::<Vec<i32>>(&[i, -i]).unwrap(), [i, -i]);
        }
    }

    #[test]
    fn whatever_goes_wrong_is_said() {
        let said = |code| {
            let error = shell(code).ask::<Vec<i32>>(&1).unwrap_err();
            error.to_string()
        };
        assert!(said(r#"read x; echo '{"error": "no numpy"}'"#).contains("shell: no numpy"));
        assert!(said("read x; exit 0").contains("without an answer"));
        assert!(said("read x; echo text").contains("text"));
        let missing = Child::start("none", &mut Command::new("/nonexistent/program"));
        assert!(missing.err().unwrap().to_string().contains("/nonexistent"));
    }
}
