"""The NameServer: which brokers, topics and queues there are, kept in memory."""
