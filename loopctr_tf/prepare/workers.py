"""Runs one function over many tasks in forked processes that share the parent's memory.

Tasks and results go through pipes; everything else that the function needs is in its closure, which a
forked process shares without copying. A worker ends when its parent dies.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from typing import Any

from loopctr_tf.errors import UsageError


def worker_count(workers: int | None) -> int:
    """``workers``, or the number of this process's cores if None.

    Raises:
      UsageError: if less than one.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if workers < 1:
        raise UsageError(f"workers is {workers!r}; give 1 or more")
    return workers


def run_tasks(
    work: Callable[[Any], Any],
    tasks: Iterable[Any],
    done: Callable[[Any], None],
    workers: int,
) -> None:
    """Calls ``done(work(task))`` for every task, in the order of the tasks.

    Args:
      work: runs in any of the workers; must not depend on earlier tasks.
      tasks: picklable; taken one by one in this process when a worker is idle.
      done: runs in this process.
      workers: number of processes; 1 runs everything in this process.

    Raises:
      UsageError: raised by ``work``, or if a worker was killed.
      RuntimeError: for any other error of ``work``, with its traceback.
    """
    if workers == 1 or "fork" not in multiprocessing.get_all_start_methods():
        for task in tasks:
            done(work(task))
        return
    team = _Team(work, workers)
    try:
        results: dict[int, Any] = {}
        finished = sent = 0
        tasks, more = iter(tasks), True
        while more or finished < sent:
            if more and team.idle:
                try:
                    team.send((sent, next(tasks)))
                    sent += 1
                except StopIteration:
                    more = False
                continue
            for number, result in team.receive():
                results[number] = result
            while finished in results:
                done(results.pop(finished))
                finished += 1
    finally:
        team.end()


class _Team:
    """Processes that each do one task at a time."""

    def __init__(self, work: Callable[[Any], Any], workers: int):
        context = multiprocessing.get_context("fork")
        pipes = [context.Pipe() for _ in range(workers)]
        self._processes = [
            context.Process(target=_serve, args=(work, own, pipes), daemon=True)
            for own in range(workers)
        ]
        for process in self._processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()
        self._pipes = [ours for ours, _ in pipes]
        self.idle = list(self._pipes)

    def send(self, task: tuple[int, Any]) -> None:
        """Sends a task to an idle worker."""
        pipe = self.idle.pop()
        try:
            pipe.send(task)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._killed(pipe) from error

    def receive(self) -> list[tuple[int, Any]]:
        """Waits for at least one result; returns (task number, result) pairs."""
        results = []
        for pipe in wait([pipe for pipe in self._pipes if pipe not in self.idle]):
            try:
                number, result, error = pipe.recv()
            except (EOFError, ConnectionResetError) as cause:
                raise self._killed(pipe) from cause
            if error is not None:
                raise error
            self.idle.append(pipe)
            results.append((number, result))
        return results

    def end(self) -> None:
        """Terminates all processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()

    def _killed(self, pipe: Connection) -> Exception:
        process = self._processes[self._pipes.index(pipe)]
        process.join()
        if process.exitcode >= 0:
            return RuntimeError(f"a worker exited unexpectedly (exit code {process.exitcode})")
        return UsageError(
            f"a worker was killed (exit code {process.exitcode}), most often for lack of memory; "
            "give fewer --workers, or more memory"
        )


def _serve(work: Callable[[Any], Any], own: int, pipes: list[tuple[Connection, Connection]]):
    """A worker: runs the tasks from its pipe until the pipe is closed."""
    # Ctrl-C reaches every process; the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Keep only its own end of its own pipe, so that the pipe closes when the parent dies.
    for number, (theirs, ours) in enumerate(pipes):
        theirs.close()
        if number != own:
            ours.close()
    pipe = pipes[own][1]
    try:
        while True:
            number, task = pipe.recv()
            result = error = None
            try:
                result = work(task)
            except UsageError as mistake:
                error = mistake
            except BaseException:
                error = RuntimeError(f"in a worker:\n{traceback.format_exc()}")
            pipe.send((number, result, error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
