"""TimeSformer (Bertasius et al. 2021)."""
