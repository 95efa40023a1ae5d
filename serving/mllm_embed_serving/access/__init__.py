"""Who may ask, how much, and what happens when everybody asks at once: keys, rates, the queue, draining."""
