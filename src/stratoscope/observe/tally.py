"""How much of its data a training has seen, as its loop says it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stratoscope.errors import SettingError
from stratoscope.record.rows import Passed
from stratoscope.record.values import count


@dataclass
class Tally:
    """Checks what a loop says at a step before anything is written of it.

    Attributes:
        tokens: the most that was said so far, earlier attempts included.
    """

    tokens: int = 0

    def checked(self, epoch: float | None, tokens: float | None) -> Passed:
        """What was said, as plain numbers.

        Args:
            epoch: passes over the training data so far.
            tokens: tokens seen so far.

        Raises:
            SettingError: if the epoch is no finite number, or the tokens are no count or fewer than before.

        >>> Tally(100).checked(0.5, 2e3)
        Passed(epoch=0.5, tokens=2000)
        """
        return Passed(None if epoch is None else _epoch(epoch), None if tokens is None else self._tokens(tokens))

    def keep(self, passed: Passed) -> None:
        """Remember what was said of a step that counts."""
        if passed.tokens is not None:
            self.tokens = passed.tokens

    def _tokens(self, tokens: float) -> int:
        found = count(tokens)
        if found is None:
            raise SettingError(f"tokens={tokens!r:.40} is no count; hand over a whole number, not below 0.")
        if found < self.tokens:
            raise SettingError(
                f"tokens={found} comes after tokens={self.tokens}; hand over all that was seen so far, not what is new."
            )
        return found


def _epoch(epoch: float) -> float:
    try:
        found = float(epoch)
    except (TypeError, ValueError, RuntimeError):  # the last is torch's, for tensors of many numbers
        found = math.nan
    if not math.isfinite(found):
        raise SettingError(f"epoch={epoch!r:.40} is no number of passes over the data; hand over one finite number.")
    return found
