"""What a processor answered to a charge, a cancel or a refund. An answer is a value, never an exception."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Approved:
    """The money was taken. `reference` is the processor's own id of the charge."""

    reference: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The processor said no, and no money moved. `code` is its decline code, for example insufficient_funds."""

    code: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Certainly no money moved, and none will: a charge was never sent or refused unread; a key was cancelled.

    `reason` is for operators.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows yet. A timeout is this, and so is everything that is not certain."""


Outcome = Approved | Declined | Failed | Unknown
