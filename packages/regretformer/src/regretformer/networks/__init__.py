"""The mechanisms that are learnt, one per file; each maps bids [B, n, m] to an `Outcome`."""
