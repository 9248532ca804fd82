"""The process that calls the servers. It shares the machine with them, but no process."""
