"""Figures' modules run in Node, as a page would run them, with JSON in and JSON out."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hgsr_lite.live.modules import one_text


@pytest.fixture
def in_node(tmp_path: Path) -> Callable[..., Any]:
    """`in_node(module, body, given)`: what a function's body returns over `live`, the module, and `given`."""
    node = shutil.which("node")
    if node is None:
        pytest.skip(
            "needs Node: the figures' modules are run as a page runs them (Debian: apt-get install nodejs)"
        )

    def run(module: str, body: str, given: Any = None) -> Any:
        (tmp_path / "module.mjs").write_text(one_text(module), encoding="utf-8")
        (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
        (tmp_path / "script.mjs").write_text(
            'import * as live from "./module.mjs";\n'
            'import { readFileSync, writeFileSync } from "node:fs";\n'
            'const given = JSON.parse(readFileSync("given.json", "utf-8"));\n'
            f"const answer = await (async () => {{{body}}})();\n"
            'writeFileSync("answer.json", JSON.stringify(answer));\n',
            encoding="utf-8",
        )
        done = subprocess.run([node, "script.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))

    return run
