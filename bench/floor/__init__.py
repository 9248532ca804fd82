"""The least that a PayOrder can cost: what is left when everything but the work itself is taken away."""
