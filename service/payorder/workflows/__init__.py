"""What the service does, one file for each thing it can be asked."""
