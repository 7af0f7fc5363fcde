"""Finish a writer's work at the interpreter's exit, even if nothing refers to the writer any more."""

from __future__ import annotations

from remote_ckpt.errors import DrainError
from remote_ckpt.logs import print_error
from remote_ckpt.saving import exit_drain
from remote_ckpt.saving.pipeline import Pipeline


class Drain:
    """A hook that finishes a pipeline at exit. Holds the pipeline but no writer, and so no model."""

    def __init__(self, pipeline: Pipeline):
        """Take the pipeline; nothing is registered yet."""
        self._pipeline = pipeline
        pipeline.at_end = self.cancel

    def register(self) -> None:
        """Register the pipeline to be finished before the interpreter ends. Repeating is harmless."""
        exit_drain.register(self)

    def cancel(self) -> None:
        """Remove the pipeline from the register: nothing is left to finish at exit."""
        exit_drain.unregister(self)

    def close(self, timeout: float) -> None:
        """Flush, end the threads and release the spool's locks. The last two happen also after an error or Ctrl-C.

        Afterwards any process may take over what is left in the spool, once both threads have ended.

        Args:
            timeout: Seconds for the flush.

        Raises:
            DrainError: As `Pipeline.flush`.
        """
        try:
            self._pipeline.flush(timeout)
        finally:
            self.cancel()
            self._pipeline.stop(release=True)

    def drain_at_exit(self, timeout: float) -> None:
        """Close, and print on stderr the progress and the checkpoints lost or left.

        Raises:
            KeyboardInterrupt: The user will not wait; `left` returns which checkpoints are not in the bucket.
        """
        name = self._pipeline.spool.location.name
        if self._pipeline.pending:
            print_error(f"finishing uploads to {name} before exit (at most {timeout:.0f} s; Ctrl-C to stop)")
        try:
            self.close(timeout)
        except DrainError as exc:  # printed: nothing that calls an exit hook would catch an error
            print_error(str(exc))
        if self._pipeline.is_news(self._pipeline.lost):
            print_error(f"a checkpoint could not be brought into {name}: {self._pipeline.lost}")

    def left(self) -> str:
        """Return how many checkpoints are not in the bucket and where they wait, as lines for people."""
        return self._pipeline.leftovers.told()
