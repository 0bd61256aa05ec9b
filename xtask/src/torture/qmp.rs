//! QEMU's machine protocol: one JSON object a line, over a Unix socket.
//!
//! A command's answer is the next object with `return` or `error`; events in between are passed over. Every wait is
//! bounded: a QEMU that hangs must not hang what watches it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a guest is to listen; the file is removed when this is dropped.
pub(super) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// A name that nobody else has. It is in the folder for temporary files because the path of a socket may have 107
    /// bytes at most.
    pub(super) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("quiesce-{}-{number}.qmp", process::id()));
        // What a process with the same number left behind.
        let _ = fs::remove_file(&path);
        Self { path }
    }

    /// For QEMU.
    pub(super) fn arguments(&self) -> Vec<String> {
        // A comma in an option's value is written twice.
        let path = self.path.display().to_string().replace(',', ",,");
        vec!["-qmp".to_owned(), format!("unix:{path},server=on,wait=off")]
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A connection.
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Waits until QEMU listens, and says that it speaks the protocol.
    pub(super) fn connect(path: &Path) -> Result<Self> {
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if begun.elapsed() > PATIENCE => {
                    return Err(error).context("QEMU does not listen for its machine protocol");
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.object()?;
        qmp.ask("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// A command and its answer.
    pub(super) fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let text = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.stream
            .get_mut()
            .write_all(text.as_bytes())
            .with_context(|| format!("asking QEMU to `{command}`"))?;
        loop {
            let mut object =
                self.object().with_context(|| format!("waiting for the answer to `{command}`"))?;
            if let Some(error) = object.get("error") {
                bail!("QEMU refuses `{command}`: {}", error["desc"].as_str().unwrap_or("no reason given"));
            }
            if let Some(answer) = object.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// The text that a command of QEMU's monitor prints, on behalf of a CPU.
    pub(super) fn monitor(&mut self, cpu: usize, line: &str) -> Result<String> {
        let answer = self.ask("human-monitor-command", json!({ "command-line": line, "cpu-index": cpu }))?;
        Ok(answer.as_str().unwrap_or_default().replace('\r', ""))
    }

    /// The host's threads that are the guest's CPUs.
    pub(super) fn threads(&mut self) -> Result<Vec<i32>> {
        let cpus = self.ask("query-cpus-fast", json!({}))?;
        let number = |cpu: &Value| cpu["thread-id"].as_i64().and_then(|id| i32::try_from(id).ok());
        Ok(cpus.as_array().into_iter().flatten().filter_map(number).collect())
    }

    fn object(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("QEMU has closed its machine protocol");
        }
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn events_are_passed_over_and_errors_told() {
        let socket = Socket::new();
        let listener = UnixListener::bind(socket.path()).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"{\"QMP\": {}}\n").unwrap();
            let answers = [
                "{\"return\": {}}\n",
                "{\"event\": \"STOP\"}\n{\"return\": [{\"thread-id\": 12}, {\"thread-id\": 13}]}\n",
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n",
            ];
            let mut asked = Vec::new();
            for answer in answers {
                asked.push(lines.next().unwrap().unwrap());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        let mut qmp = Qmp::connect(socket.path()).unwrap();
        assert_eq!(qmp.threads().unwrap(), [12, 13]);
        let said = format!("{:#}", qmp.ask("inject-nmi", json!({})).unwrap_err());
        assert!(said.contains("inject-nmi") && said.contains("not now"), "{said}");
        let asked = server.join().unwrap();
        assert!(asked[0].contains("qmp_capabilities") && asked[2].contains("inject-nmi"));
        assert!(qmp.ask("stop", json!({})).is_err(), "the other end is gone");
        let path = socket.path().to_owned();
        drop(socket);
        assert!(!path.exists());
    }
}
