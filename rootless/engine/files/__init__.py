"""The files of containers: copied in and out, exported, compared with their image, committed as an image."""
