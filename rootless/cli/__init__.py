"""The command line: parse, call the engine, render. No logic."""
