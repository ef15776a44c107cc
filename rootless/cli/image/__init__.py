"""Commands on images: parse, call the engine, print."""
