"""The figures' modules are plain JavaScript that Node accepts, alone and put together."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from hgsr_lite.live.modules import FOLDER, one_text

MODULES = sorted(path.name for path in FOLDER.glob("*.js"))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
@pytest.mark.parametrize("name", MODULES)
def test_each_module_is_sound_alone_and_as_one_text(name: str):
    for text in ((FOLDER / name).read_text(encoding="utf-8"), one_text(name)):
        check = ["node", "--input-type=module", "--check"]
        checked = subprocess.run(check, input=text, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", MODULES)
def test_one_text_needs_nothing_from_anywhere(name: str):
    assert not re.search(r"^import |\bimport\(|https?://(?!www\.w3\.org/)", one_text(name), re.MULTILINE)


@pytest.mark.parametrize("name", MODULES)
def test_each_picture_has_words_before_it_is_drawn(name: str):
    """On a slow machine a picture that waits for its first numbers is there for a second and more."""
    for made in re.findall(r'{[^{}]*(?:\${[^{}]*}[^{}]*)*role: "img"[^{}]*}', (FOLDER / name).read_text()):
        assert '"aria-label"' in made, made


def test_a_module_that_two_others_import_stands_once():
    assert one_text("training.js").count("function power(") == 1
