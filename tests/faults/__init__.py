"""Kills, power cuts, failing calls, full disks and damaged files: campaigns of them, and tests of each kind."""
