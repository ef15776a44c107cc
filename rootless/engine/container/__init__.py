"""The life of containers: create, start, exec, attach, logs, stop, what they use, and their removal."""
