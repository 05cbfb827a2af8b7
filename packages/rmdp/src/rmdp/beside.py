"""Critics that learn in processes of their own, while this one moves the policies.

Threads of one process would not do: a step consists of NumPy's calls of some ten microseconds, and threads hand
Python's lock to each other around each of them, which takes as long.

The critics' parameters and the samples lie in memory that the processes share; what else there is to say goes through
a pipe. A process ends when its pipe is closed, and leaves Ctrl-C and requests to end to the one that started it.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import torch
import torch.multiprocessing
from gt_core.errors import RunError
from torch import Tensor

from rmdp.arrays import one_blas_thread
from rmdp.backpropagation import adopt
from rmdp.learners import CriticLearners
from rmdp.policies import Critics

__all__ = ["CriticProcess"]


class CriticProcess:
    """Some critics' learners in a process; they do what they would do here, to the last bit.

    Args:
        critics: Moved in place.
        matrices: Their parameters, in shared memory (see `rmdp.backpropagation.join`).
        k: How many representatives.
        units: See `CriticLearners`.
        together: Likewise.
    """

    def __init__(
        self, critics: Critics, matrices: Sequence[Tensor], k: int, units: Sequence[slice], together: int
    ) -> None:
        context = torch.multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.optimisers = len(units) * len(matrices)
        """How many the learners have."""
        process = context.Process(target=_serve, args=(theirs, critics, matrices, k, units, together), daemon=True)
        with _signals_held():
            process.start()
        theirs.close()
        self._unheard = 0
        Finalize(self, self._pipe.close, exitpriority=1)  # before the end of this process waits for that one

    def ask(self, method: str, *arguments: object) -> None:
        """Begin to call a method of `CriticLearners`, after those that were asked for before.

        Raises:
            RunError: The process ended.
        """
        with _its_end():
            self._pipe.send((method, arguments))
            self._unheard += 1

    def answers(self) -> list[Any]:
        """What the methods returned that were asked for since the last answers.

        Raises:
            RunError: The process ended.
        """
        said = []
        with _its_end():
            while self._unheard:
                said.append(self._pipe.recv())
                self._unheard -= 1
        return said


def _serve(
    pipe: Connection, critics: Critics, matrices: Sequence[Tensor], k: int, units: Sequence[slice], together: int
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    learners = CriticLearners(critics, adopt(critics, k, matrices), units, together)
    with one_blas_thread():
        while True:
            try:
                method, arguments = pipe.recv()
            except EOFError:
                return
            pipe.send(getattr(learners, method)(*arguments))


@contextmanager
def _signals_held() -> Iterator[None]:
    """Start a process that cannot be interrupted before it knows what to do about it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _its_end() -> Iterator[None]:
    """Say what a broken pipe means."""
    try:
        yield
    except (EOFError, ConnectionError):
        raise RunError(
            "the process in which the critics learn has ended, for the reason above: a script that learns on several "
            'threads needs its own code under `if __name__ == "__main__":`; or learn on one thread'
        ) from None
