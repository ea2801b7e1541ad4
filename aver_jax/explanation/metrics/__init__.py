"""Numbers of relevance maps, clip by clip."""
