"""Payment processors. Others come from outside packages by the entry point group `payorder.processors`."""
