import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.workers import run_tasks, worker_count


def results(work, tasks, workers) -> list:
    found = []
    run_tasks(work, tasks, found.append, workers)
    return found


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_tasks(workers):
    def slow_first(task):
        time.sleep(0.05 if task == 0 else 0)
        return task, task**2

    assert results(slow_first, range(12), workers) == [(i, i**2) for i in range(12)]
    assert results(slow_first, [], workers) == []


def test_work_runs_in_other_processes_that_share_the_memory():
    big = np.arange(1000)
    found = results(lambda task: (os.getpid(), int(big[task])), range(8), 2)
    assert [value for _, value in found] == list(range(8))
    assert os.getpid() not in {process for process, _ in found}


def test_large_tasks_and_results_pass():
    """Larger than a pipe holds."""
    found = results(lambda task: task * 2, [bytes([i]) * 300_000 for i in range(6)], 2)
    assert [len(value) for value in found] == [600_000] * 6


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_of_the_caller_passes_through(workers):
    def work(task):
        if task == 3:
            raise UsageError("row 3 is bad")
        return task

    with pytest.raises(UsageError, match="row 3 is bad"):
        results(work, range(9), workers)


def test_any_other_error_comes_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)^in a worker:\nTraceback.*ZeroDivisionError"):
        results(lambda task: 1 // task, [1, 0], 2)


def test_an_error_here_ends_the_workers():
    def tasks():
        yield 1
        raise UsageError("no more")

    def alive(task):
        return os.getpid()

    found = []
    with pytest.raises(UsageError, match="no more"):
        run_tasks(alive, tasks(), found.append, 2)
    with pytest.raises(UsageError, match="full"):
        run_tasks(alive, [1, 2], lambda _: (_ for _ in ()).throw(UsageError("full")), 2)
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_told():
    def work(task):
        if task == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    with pytest.raises(
        UsageError, match=r"a worker was killed \(exit code -9\), most often for lack"
    ):
        results(work, range(4), 2)


def test_workers_without_a_parent_end():
    """The parent is killed while its workers wait and work."""
    code = (
        "import os, time\n"
        "from loopctr_tf.prepare.workers import run_tasks\n"
        "def work(task):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    time.sleep(0.2 if task else 30)\n"
        "    return task\n"
        "def tasks():\n"
        "    yield 1\n"
        "    yield 1\n"
        "    time.sleep(30)\n"
        "    yield 1\n"
        "run_tasks(work, tasks(), lambda _: None, 2)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        workers = {int(parent.stdout.readline()) for _ in range(2)}
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)


def test_worker_count():
    assert worker_count(3) == 3
    assert worker_count(None) >= 1
    with pytest.raises(UsageError, match="workers is 0; give 1 or more"):
        worker_count(0)
