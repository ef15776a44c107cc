"""What must not be lost: full disks, power cuts and damaged files."""
