"""Proves that no event is lost on its way: dispatchers are killed while they send, and a checker looks from outside."""
