"""Commands on containers: parse, call the engine, print."""
