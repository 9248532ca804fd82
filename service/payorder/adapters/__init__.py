"""The world behind the ports: databases, processors, key sets."""
