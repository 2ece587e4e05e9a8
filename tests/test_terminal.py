"""What a terminal is shown: colors where they are wanted, completions and nothing else where a line is completed."""

import os
import select
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from segtrain.run.logging import log, start_log, stop_log

SCRIPT = Path(sys.executable).parent / "segtrain"
COMPLETE = """
set -e
eval "$(segtrain -sc install=bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDS=($1) COMP_CWORD=1
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""


@contextmanager
def terminal():
    """A real terminal as standard output and error; yields a list that then holds what it was sent."""
    ours, theirs = os.openpty()
    sent = []
    with os.fdopen(theirs, "w", encoding="utf-8", buffering=1) as stream:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            yield sent
        received = b""
        while select.select([ours], [], [], 0.2)[0]:  # a terminal passes on what it gets in parts
            received += os.read(ours, 2**16)
        sent.append(received.decode())
    os.close(ours)


@pytest.mark.parametrize(("settings", "has_colors"), [
    ({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": ""}, True), ({"TERM": "xterm", "NO_COLOR": "0"}, False),
    ({"TERM": "dumb"}, False)])
def test_an_error_is_red_on_a_terminal_unless_its_user_wants_no_colors(segtrain, monkeypatch, settings, has_colors):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with terminal() as sent:
        assert segtrain("model=link") == 2
    assert sent[0].startswith("\x1b[31msegtrain:\x1b[0m model=link " if has_colors else "segtrain: model=link ")


def test_a_warning_is_yellow_on_a_terminal_and_plain_in_the_file(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with terminal() as sent:
        start_log(tmp_path / "run.log")
        log.info("epoch: 1")
        log.warning("warning: %s", "a name with \x1b[2J in it")
        stop_log()
    assert sent[0] == "epoch: 1\r\n\x1b[33mwarning:\x1b[0m a name with \\x1b[2J in it\r\n"
    assert "\x1b" not in (tmp_path / "run.log").read_text()


def test_what_is_no_terminal_gets_no_colors(segtrain, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    assert segtrain("model=link") == 2
    assert capsys.readouterr().err.startswith("segtrain: model=link ")


@pytest.mark.skipif(not SCRIPT.exists() or not shutil.which("bash"), reason="needs bash and the installed command")
def test_bash_completes_groups_and_keys():
    asked = subprocess.run(["bash", "-c", COMPLETE, "bash", "segtrain model=fcn"], capture_output=True, text=True,
                           env={**os.environ, "PATH": f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"})
    assert (asked.returncode, asked.stdout.split(), asked.stderr) == (0, ["model=fcn8", "model=fcn8_separable"], "")


@pytest.mark.parametrize(("line", "completed"), [
    ("segtrain task=predict checkpoint=x task.in", "task.input="), ("segtrain --con", ""),
    ("segtrain 'task.input=a b", "")])
def test_a_line_is_completed_or_left_alone_without_a_word(segtrain, monkeypatch, capsys, line, completed):
    monkeypatch.setenv("COMP_LINE", line)
    segtrain("-sc", "query=bash")
    said = capsys.readouterr()
    assert (said.out.strip(), said.err) == (completed, "")
