"""The embedded server in a process of its own."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from loopctr_tf.errors import UsageError
from traffic.messages import MODEL

_START = "import loopctr_tf.cli; loopctr_tf.cli.main()"


class Server:
    """`loopctr serve` on a free port.

    Args:
      folder: of the versions.
      log: file that takes what the server prints.
    """

    def __init__(self, folder: Path, log: Path):
        self._folder, self._log = folder, log
        self._process: subprocess.Popen | None = None
        self.target = ""

    def __enter__(self) -> "Server":
        arguments = ("serve", str(self._folder), "--name", MODEL, "--port", "0")
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *arguments], stdout=log, stderr=subprocess.STDOUT
            )
        while not self.target:
            if self.ended is not None:
                raise UsageError(f"the server did not start: {self.log().strip()[-500:]}")
            found = re.search(r"\bat ([\w.:\[\]]+:\d+); Ctrl-C", self.log())
            self.target = found[1] if found else ""
            time.sleep(0.05)
        return self

    @property
    def ended(self) -> int | None:
        """The exit code, once the process has ended."""
        return self._process.poll()

    def log(self) -> str:
        """What the server has printed."""
        return self._log.read_text(errors="replace")

    def memory_mb(self) -> float | None:
        """Resident memory; None where the process has ended or the system does not tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) / 1024 if found else None

    def stop(self, seconds: float = 30.0) -> int | None:
        """Sends SIGTERM and waits; the exit code, or None when it did not end in time."""
        if self.ended is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def __exit__(self, *exc_info) -> None:
        if self.ended is None:
            self._process.kill()
            self._process.wait()
