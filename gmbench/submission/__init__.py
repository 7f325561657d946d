"""Submissions: results that somebody offers to the leaderboards. Validating one never executes a plugin."""
