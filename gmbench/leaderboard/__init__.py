"""Leaderboards: Markdown made from records alone, deterministically. Nothing here imports numpy or torch."""
