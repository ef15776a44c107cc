"""Where a build takes files from: directories, archives, git and URLs, and what of them is left out."""
