"""One typed wrapper per system call: raises OSError, holds no policy. The only room that imports ctypes."""
