"""One function over many tasks, in forked processes that share what the parent holds in memory.

Tasks and results go through pipes; everything else that the function needs is in its closure and is
there in a forked process without being copied. A worker without a parent ends by itself.
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
    """``workers``, or the number of this process's cores where it is None.

    Raises:
      UsageError: for less than one.
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
      work: runs in the workers, any of them; it must not depend on the tasks before.
      tasks: taken one by one, in this process, when a worker is free. Sent to it, so picklable.
      done: runs in this process.
      workers: how many; 1 does everything in this process.

    Raises:
      UsageError: out of ``work``, or where a worker was killed.
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
        """Gives a task to a worker that is idle."""
        pipe = self.idle.pop()
        try:
            pipe.send(task)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._killed(pipe) from error

    def receive(self) -> list[tuple[int, Any]]:
        """Waits for the result of at least one worker; (number of the task, result) of each."""
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
        """Ends every process, whatever it does."""
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
            return RuntimeError(f"a worker ended by itself (exit code {process.exitcode})")
        return UsageError(
            f"a worker was killed (exit code {process.exitcode}), most often because memory ran out; "
            "give fewer --workers, or more memory"
        )


def _serve(work: Callable[[Any], Any], own: int, pipes: list[tuple[Connection, Connection]]):
    """A worker: does what comes through its pipe until the pipe ends."""
    # Ctrl-C reaches every process; the parent answers for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Only its own end of its own pipe stays open: so it sees the parent's end close, if only by death.
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
