"""The process that carries out the steps of a build, and the wire between it and the build."""
