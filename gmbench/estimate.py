"""A number that is never bare: value, standard error, sample size and what kind of estimate it is."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

Kind = Literal["exact", "unbiased", "consistent", "lower_bound", "upper_bound"]
Direction = Literal["lower", "higher"]


class Estimate(BaseModel):
    """One measured number.

    Arguments:
        value: The number itself, in the unit that its metric documents. May be infinite, never NaN.
        stderr: One standard error of `value`, or None when there is none; then `note` says why.
        n: How many independent draws (test points, chains, groups) stand behind `value`.
        kind: `exact`, `unbiased`, `consistent` (plug-in, or the log of an unbiased estimate: its bias vanishes
            with n), `lower_bound` (at most the truth, in expectation) or `upper_bound`.
        note: Anything a reader must know, such as the reason for a missing standard error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    value: float
    stderr: float | None = None
    n: int = 1
    kind: Kind = "unbiased"
    note: str = ""

    @model_validator(mode="after")
    def _is_a_number(self) -> Self:
        if math.isnan(self.value):
            raise ValueError("an estimate cannot be NaN")
        if self.stderr is not None and not self.stderr >= 0:
            raise ValueError(f"a standard error is at least 0, not {self.stderr}")
        if self.stderr is None and self.kind != "exact" and not self.note:
            raise ValueError("an estimate without a standard error needs a note that says why")
        return self

    def optimistic(self, direction: Direction) -> bool:
        """Whether the bias flatters the model: a bound on the good side of the truth."""
        flattering: Kind = "lower_bound" if direction == "lower" else "upper_bound"
        return self.kind == flattering
