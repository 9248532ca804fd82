"""The measurements. Each section starts what it needs, and leaves nothing running."""
