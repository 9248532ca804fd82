"""Receivers over HTTP: which URLs are acceptable, which addresses, and one POST that believes nothing it hears."""
