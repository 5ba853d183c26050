"""Everything that knows Ray: pools of engine actors, trainers, placement, the driver and the CLI."""
