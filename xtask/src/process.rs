//! Running programs: what is run is what is printed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;

/// A command of cargo, the one that runs this chore, in the workspace's root.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(crate::workspace::root());
    command
}

/// A command as one would type it, with the environment that was set for it.
pub(crate) fn shown(command: &Command) -> String {
    let mut parts = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            parts.push(format!("{}={}", name.to_string_lossy(), quoted(value)));
        }
    }
    let program = std::path::Path::new(command.get_program());
    parts.push(match program.file_name() {
        Some(name) if name == "cargo" => "cargo".to_owned(),
        _ => quoted(command.get_program()),
    });
    parts.extend(command.get_args().map(quoted));
    parts.join(" ")
}

fn quoted(text: &OsStr) -> String {
    let text = text.to_string_lossy();
    if text.is_empty() || text.contains([' ', '\'', '"', '$', ';']) {
        format!("'{}'", text.replace('\'', r"'\''"))
    } else {
        text.into_owned()
    }
}

/// Runs a command with this process's input and output.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    let status = command
        .status()
        .map_err(|source| start_error(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(failure(command, status))
}

/// Runs a command and returns what it printed; its errors go to this process's stderr.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| start_error(command, source))?;
    if !output.status.success() {
        return Err(failure(command, output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| Error::Form {
        origin: shown(command),
        expected: format!("its output should be UTF-8, but {error}"),
    })
}

/// Runs a command, shows what it prints as it comes, and returns it.
pub(crate) fn echoed(command: &mut Command) -> Result<String, Error> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| start_error(command, source))?;
    let mut printed = String::new();
    if let Some(pipe) = child.stdout.take() {
        for line in BufReader::new(pipe).lines() {
            let line = line.map_err(|source| start_error(command, source))?;
            println!("{line}");
            printed.push_str(&line);
            printed.push('\n');
        }
    }
    let status = child
        .wait()
        .map_err(|source| start_error(command, source))?;
    if status.success() {
        return Ok(printed);
    }
    Err(failure(command, status))
}

/// Runs a command for at most `limit` and returns what it printed; where it fails that is shown.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Result<String, Error> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| start_error(command, source))?;
    let pipe = child.stdout.take();
    // Read beside the waiting, so that a full pipe does not stop the program.
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let outcome = pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes));
        outcome.map(|_| bytes)
    });
    let start = Instant::now();
    let failed = |source| start_error(command, source);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break Some(status);
        }
        if start.elapsed() >= limit {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let bytes = match reader.join() {
        Ok(bytes) => bytes.map_err(failed)?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let printed = String::from_utf8_lossy(&bytes).into_owned();
    match status {
        Some(status) if status.success() => Ok(printed),
        Some(status) => {
            print!("{printed}");
            Err(failure(command, status))
        }
        None => {
            print!("{printed}");
            Err(Error::Slow {
                command: shown(command),
                limit,
            })
        }
    }
}

/// Whether a command starts and succeeds; what it prints is not shown.
pub(crate) fn quietly(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn failure(command: &Command, status: ExitStatus) -> Error {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Error::Status {
        command: shown(command),
        code: code.unwrap_or(1),
    }
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/opt/bin/cargo");
        command
            .args(["doc", "a b", ""])
            .env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(
            shown(&command),
            "RUSTDOCFLAGS='-D warnings' cargo doc 'a b' ''"
        );
    }

    #[test]
    fn the_exit_status_is_kept() {
        let error = run(Command::new("sh").args(["-c", "exit 7"])).unwrap_err();
        assert!(matches!(error, Error::Status { code: 7, .. }), "{error}");
    }

    #[test]
    fn output_of_a_failing_command_is_no_output() {
        assert!(output(Command::new("sh").args(["-c", "echo text; exit 1"])).is_err());
        assert_eq!(
            output(Command::new("sh").args(["-c", "echo text"])).unwrap(),
            "text\n"
        );
    }

    #[test]
    fn a_limit_on_time_ends_a_command() {
        let mut quick = Command::new("sh");
        quick.args(["-c", "echo text"]);
        let text = output_within(&mut quick, Duration::from_secs(60)).unwrap();
        assert_eq!(text, "text\n");
        let mut slow = Command::new("sleep");
        let error = output_within(slow.arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, Error::Slow { .. }), "{error}");
        let mut failing = Command::new("sh");
        failing.args(["-c", "exit 7"]);
        let error = output_within(&mut failing, Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, Error::Status { code: 7, .. }), "{error}");
    }
}
