"""The tutorial is run from top to bottom, as a reader would, and prints what it says it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Figures may differ in their last digits from processor to processor, and times and checksums do in every run;
# a number that is longer than another makes its column wider.
_MASKS = ((r"[0-9a-f]{16}…", "#"), (r"[\d.,]+", "#"), (r"[─━]+", "─"), (r" +", " "))


def _masked(text: str) -> list[str]:
    for pattern, mask in _MASKS:
        text = re.sub(pattern, mask, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_tutorial_prints_what_it_says(tmp_path: Path) -> None:
    """Every command of docs/tutorial.md ends well, and its output has the words, rows and columns that are shown."""
    bin_folder = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "COLUMNS": "100", "NO_COLOR": "1"}
    printed, n_commands, n_outputs = "", 0, 0
    for language, name, body in _BLOCK.findall(TUTORIAL.read_text()):
        if name:
            (tmp_path / name).write_text(body)
        elif language == "bash":
            ran = subprocess.run(
                ["bash", "-ec", body], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False
            )
            assert ran.returncode == 0, f"{body}\n{ran.stderr}"
            printed, n_commands = ran.stdout, n_commands + 1
        else:
            assert language == "text", f"a block of {language} without a file name: nothing runs it"
            assert _masked(printed) == _masked(body)
            n_outputs += 1
    assert n_commands >= 8
    assert n_outputs >= 7
