"""A small web service: who it is, and what it runs as."""

import os

import bottle

application = bottle.Bottle()


@application.get("/")
def index() -> dict[str, object]:
    return {"service": "web", "uid": os.getuid(), "files": sorted(os.listdir("."))}
