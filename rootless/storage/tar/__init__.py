"""Archives as streams: headers, members, compression, and the recipe that makes a tar again. No file system."""
