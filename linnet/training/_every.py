"""What hooks have in common that act every so many steps, and after the last one."""

from __future__ import annotations

from linnet.core._check import check_size
from linnet.training._fit import Run


class Every:
    """A hook that acts at multiples of `every`, and after the last step.

    What is to be done at the last step is left to `on_finish`: only then it is known to
    be the last, since any hook may end the run.
    """

    def __init__(self, every: int) -> None:
        self.every = check_size(type(self).__name__, "every", every)
        self._done = 0

    def on_start(self, run: Run) -> None:
        """Notes where the run begins: without a step there is nothing to do."""
        self._done = run.step

    def on_step(self, run: Run) -> None:
        """Acts, if it is time."""
        if run.step % self.every == 0 and not run.is_last:
            self._act_once(run)

    def on_finish(self, run: Run) -> None:
        """Acts, if it has not at this step."""
        self._act_once(run)

    def _act_once(self, run: Run) -> None:
        if run.step != self._done:
            self._done = run.step
            self._act(run)

    def _act(self, run: Run) -> None:
        raise NotImplementedError
