"""What is different between two trees, and how it becomes a layer."""
