"""Cgroups of containers: OCI resources as files (`version2`, `version1`), groups made of them, their use read."""
