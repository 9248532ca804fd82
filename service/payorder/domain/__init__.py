"""What an order and a payment are, and what may happen to them. Standard library only."""
