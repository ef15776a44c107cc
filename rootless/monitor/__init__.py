"""The one small process behind each running container: log, attach, exit status, restarts, health."""
