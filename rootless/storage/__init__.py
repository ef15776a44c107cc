"""What lies on disk: blobs, unpacked layers, writable directories, volumes, records. It starts no container."""
