"""A Jupyter server on loopback, with settings of its own, for a browser to open notebooks from."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
import psutil

TOKEN = secrets.token_hex(16)
LONG = 120_000  # milliseconds; a loaded machine takes its time to import


class Server:
    """JupyterLab over a folder, or what another command or another Python starts there."""

    page = "doc/tree"
    """Under which path a notebook opens alone."""

    def __init__(
        self, folder: Path, command: Sequence[str] = (), python: str | Path = sys.executable, **variables: str
    ) -> None:
        self.folder, self.port = folder, _free_port()
        command = command or ("-m", "jupyterlab", "--ip=127.0.0.1", f"--notebook-dir={folder}")
        options = ["--no-browser", "--allow-root", f"--port={self.port}"]
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(
            [python, *command, *options],
            env={**os.environ, **_own_settings(folder / ".jupyter"), **variables},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                self.ask("api/status")
            except OSError:
                time.sleep(0.5)
            else:
                return
        raise TimeoutError((self.folder / "server.log").read_text())

    def ask(self, path: str, method: str = "GET") -> object:
        """One question to the server."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", method=method, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")

    def end_sessions(self) -> None:
        """End every Python session."""
        for session in self.ask("api/sessions"):
            self.ask(f"api/sessions/{session['id']}", "DELETE")

    def address(self, name: str) -> str:
        """Where a notebook opens, alone."""
        return f"http://127.0.0.1:{self.port}/{self.page}/{name}?token={TOKEN}&reset"

    def write(self, name: str, cells: Sequence[str]) -> None:
        """A notebook of these cells, not yet run."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.folder / name)

    def write_as_from_a_stranger(self, name: str, bundles: Sequence[Mapping[str, str]]) -> None:
        """A notebook whose cells have these outputs, which nobody here has made or trusted."""
        cells = []
        for bundle in bundles:
            output = nbformat.v4.new_output("execute_result", bundle, execution_count=1)
            cells.append(nbformat.v4.new_code_cell("figure", outputs=[output], execution_count=1))
        nbformat.write(nbformat.v4.new_notebook(cells=cells), self.folder / name)

    def stop(self) -> None:
        """End it and what it started."""
        started = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.terminate()
        # A command may end before the server that it started; on a loaded machine both take long.
        for process in psutil.wait_procs(started, timeout=10)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            self.process.wait(60)
        self.log.close()


def _own_settings(folder: Path) -> dict[str, str]:
    """Nothing of the settings of whoever starts it, nor a word left in them."""
    return {
        "JUPYTER_TOKEN": TOKEN,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "own data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "data"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
