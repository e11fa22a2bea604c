"""The running daemon: attach tiers, keep them carrying, and fall back when one fails."""
