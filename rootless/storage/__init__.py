"""What lies on disk: blobs, unpacked layers, writable layers, volumes, records. It starts no container."""
