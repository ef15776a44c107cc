"""Names made up for containers that were given none. Their grammar and uniqueness are storage's."""

from __future__ import annotations

import os

_ADJECTIVES = (
    "able amber awake brave breezy bright brisk calm candid cheerful clever cosy crisp curious daring "
    "dapper eager earnest fair fearless fleet fond frank gentle glad golden grand handy happy hardy "
    "hearty honest humble jolly keen kind lively lucid lucky mellow merry mild modest neat nimble noble "
    "patient placid plucky polite proud quick quiet ready robust rosy sharp shy silent silver simple "
    "sincere smart snug sober solid spry steady stout sunny swift tender thrifty tidy trusty upbeat "
    "valiant vivid warm wise witty zesty"
)
_NOUNS = (
    "acorn alder anchor ant apple aspen badger barge bay beacon beaver beech birch bison brook canoe "
    "cedar clover comet coral cove crane creek daisy dolphin dove dune eagle elm falcon fern finch fjord "
    "fox gannet geyser glacier grove gull harbor hare hawk hazel heron hill iris island ivy jay kestrel "
    "kite lagoon lake lark laurel lemur lily linden lynx maple marten meadow mesa moon moss newt oak "
    "olive orchid osprey otter owl panda pebble pine plover pond poppy puffin quail raven reef river "
    "robin rowan seal sparrow spruce star stork swan thrush tide tulip walnut willow wren"
)


def suggest_name(attempt: int = 0) -> str:
    """A made-up name, "adjective_noun"; later attempts add a digit, as docker does."""
    first, second = os.urandom(2)
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    name = f"{adjectives[first % len(adjectives)]}_{nouns[second % len(nouns)]}"
    return name if attempt == 0 else f"{name}{int.from_bytes(os.urandom(2), 'big') % 10 ** min(attempt, 4)}"
