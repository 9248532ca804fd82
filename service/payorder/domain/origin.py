"""Who wants something, by which call, and of whose orders."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class _AnyOwner(Enum):
    ANY_OWNER = "any owner"


# The scope of services that do what they do on behalf of anybody.
ACT_FOR_ANY_OWNER = "act:any-owner"

# Where an owner is asked for: it does not matter whose the order is.
ANY_OWNER = _AnyOwner.ANY_OWNER
Owner = str | Literal[_AnyOwner.ANY_OWNER]


@dataclass(frozen=True, slots=True)
class Origin:
    """What the audit log will say of a change: `actor` is the `sub` of a verified token, or this service.

    `request_id` is that of the call, if there is one. Idempotency keys are the actor's, whoever owns the order.
    """

    actor: str
    request_id: str | None = None
    acts_for_any_owner: bool = False

    @property
    def owner(self) -> Owner:
        """Whose orders the actor may read and change."""
        return ANY_OWNER if self.acts_for_any_owner else self.actor

    def as_service(self) -> "Origin":
        """This service, on behalf of the same call."""
        return Origin(SERVICE.actor, self.request_id)


# Who acts when it is no caller: this service, on what the processor has answered.
SERVICE = Origin("payorder")
