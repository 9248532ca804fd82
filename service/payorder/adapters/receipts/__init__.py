"""Receipts that people read and print. To serve, only printer.py is imported: what it needs is slow to load."""
