"""The command isc as a whole: help, version, completion, and that none of it loads what it does not need."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from isc import __version__
from isc.cli.main import COMMANDS, HYDRA, isc, main

WITHOUT = "torch numpy cv2 hydra omegaconf h5py faiss onnxruntime PIL scipy"


def commands() -> list[tuple[str, ...]]:
    """Every command and every command of a group."""
    context = click.Context(isc)
    found: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        found.append((name,))
        command = isc.get_command(context, name)
        if isinstance(command, click.Group):
            found += [(name, one) for one in command.list_commands(context)]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_says_its_version_and_helps_without_any_library(words):
    code = (
        "import sys; from isc.cli.main import main; words = sys.argv[1:]\n"
        "for flag in ('--version', '--help', '-h'):\n"
        "    try: main([*words, flag])\n"
        "    except SystemExit as end: assert not end.code\n"
        f"assert not set('{WITHOUT}'.split()) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"isc {__version__}\n")
    assert " ".join(("isc", *words)) in done.stdout


def test_every_option_has_its_sentence():
    context = click.Context(isc)
    for words in commands():
        command: click.Command = isc
        for word in words:
            assert isinstance(command, click.Group)
            found = command.get_command(context, word)
            assert found is not None
            command = found
        if words[:1] and words[0] in HYDRA:
            continue  # tests/test_cli.py
        for one in command.params:
            if isinstance(one, click.Option):
                sentence = (one.help or "").partition("  [")[0]
                assert sentence[:1].isupper(), (words, one.name, sentence)
                assert sentence.endswith("."), (words, one.name, sentence)


@pytest.mark.parametrize(("typed", "offered"), [
    ("", "find"), ("in", "index"), ("index s", "sync"), ("find --f", "--format"), ("match qu", "queries="),
    ("train loss.te", "loss.teacher="),
])  # fmt: skip
def test_the_shell_completes_commands_options_and_keys(typed, offered):
    words = f"isc {typed}"
    environment = {"_ISC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    command = [sys.executable, "-m", "isc.cli.main"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert f"plain,{offered}" in done.stdout.split(), done.stderr


def test_isc_alone_shows_what_there_is(capsys):
    main([])
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["indx"], "no such command 'indx'; did you mean index?; see isc --help"),
        (["index", "qeury"], "no such command 'qeury'; did you mean query?; see isc index --help"),
        (["find", "--fromat"], "No such option '--fromat'. (Did you mean one of: '--fast', '--format'?)"),
        (["fusion"], "no command; expected one of fit; see isc fusion --help"),
    ],
)
def test_what_is_misspelt_is_named_with_what_was_meant(capsys, typed, said):
    with pytest.raises(SystemExit) as end:
        main(typed)
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
