"""What the tests share: a running service, its two doors, and requests to send through them."""
