"""Forked commands: started from several threads at once, and the environment of the tests is as before."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver

from tests import forked


def test_threads_that_start_commands_at_once_leave_the_environment_as_it_was(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import os; print(os.environ.get('PYTHONPATH'))")
    monkeypatch.setenv("PYTHONPATH", "mine")
    ensure = forkserver.ensure_running

    def slow():
        time.sleep(0.2)
        ensure()

    monkeypatch.setattr(forkserver, "ensure_running", slow)
    several = range(3)
    with ThreadPoolExecutor(len(several)) as pool:
        done = list(pool.map(lambda _one: forked.run(script, [], folder=tmp_path), several))
    assert [(one.status, one.out, one.err) for one in done] == [(0, "mine\n", "")] * len(several)
    assert os.environ["PYTHONPATH"] == "mine"
