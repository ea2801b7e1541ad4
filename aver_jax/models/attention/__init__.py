"""Multi-head self-attention, and what computes it on each kind of device."""
