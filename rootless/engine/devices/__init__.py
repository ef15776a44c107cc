"""Devices that specifications of CDI (Container Device Interface) describe: their files, and what they ask for."""
