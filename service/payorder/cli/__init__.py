"""The `payorder` command."""
