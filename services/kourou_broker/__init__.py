"""The broker: one shard, one log, one process."""
