"""From a checked request to vectors: pictures, cache, equal items in flight, engine."""
