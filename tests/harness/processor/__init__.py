"""A payment processor that misbehaves by seed: a process of its own, with a ledger of its own, and its plug-in."""
