"""How shards become batches of records: sources and caches, the order of epochs, a tf.data service, checks before it all."""
