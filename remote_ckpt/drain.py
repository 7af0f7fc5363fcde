"""The end of one writer's work at the interpreter's exit, also where nobody refers to the writer any more."""

from __future__ import annotations

from remote_ckpt import exits
from remote_ckpt.errors import DrainError
from remote_ckpt.logs import print_error
from remote_ckpt.pipeline import Pipeline


class Drain:
    """Finishes a pipeline at exit. It holds no writer, and so no model."""

    def __init__(self, pipeline: Pipeline):
        """Take the pipeline; nothing is registered yet."""
        self._pipeline = pipeline
        pipeline.at_end = self.cancel

    def register(self) -> None:
        """See to it that what the pipeline has is finished before the interpreter ends. Repeating is harmless."""
        exits.register(self)

    def cancel(self) -> None:
        """Leave the exit alone: nothing is left to finish."""
        exits.unregister(self)

    def close(self, timeout: float) -> None:
        """Flush, then let the threads end and the spool be anybody's; also after an error, or Ctrl-C.

        Raises:
            DrainError: As `Pipeline.flush`.
        """
        try:
            self._pipeline.flush(timeout)
        finally:
            self.cancel()
            self._pipeline.stop(release=True)

    def drain_at_exit(self, timeout: float) -> None:
        """Close, and report on stderr how it goes, and what was lost or is left.

        Raises:
            KeyboardInterrupt: The user will not wait; `left` returns what is not done.
        """
        name = self._pipeline.spool.location.name
        if self._pipeline.pending:
            print_error(f"finishing uploads to {name} before exit (at most {timeout:.0f} s; Ctrl-C to stop)")
        try:
            self.close(timeout)
        except DrainError as exc:
            print_error(str(exc))
        if self._pipeline.is_news(self._pipeline.lost):
            print_error(f"a checkpoint could not be brought into {name}: {self._pipeline.lost}")

    def left(self) -> str:
        """Return what is not in the bucket and where it waits, as lines for people."""
        return self._pipeline.leftovers.told()
