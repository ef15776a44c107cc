"""From options, an image and facts of the host to what a container will be: config.json, launch plan, record."""
