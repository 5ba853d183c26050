"""How much memory, disk and time a run needs, from its configuration and the ``config.json`` of its models alone."""
