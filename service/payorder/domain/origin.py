"""Who wants a change, and by which call: what the audit log will say of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """`actor` is the `sub` of a verified token, or this service; `request_id` is that of the call, if there is one."""

    actor: str
    request_id: str | None = None

    def as_service(self) -> "Origin":
        """This service, on behalf of the same call."""
        return Origin(SERVICE.actor, self.request_id)


# Who acts when it is no caller: this service, on what the processor has answered.
SERVICE = Origin("payorder")
