"""Proves money safety by killing the service: a faulty processor, real service processes, an outside checker."""
