"""Passphrases that disfs makes up: common words, which can be read from paper and typed. Pure but for its dice."""

from __future__ import annotations

import secrets

WORD_COUNT = 7
LEAST_CHARACTERS = 8
"""A passphrase of one's own that is shorter is refused: it would be guessed."""


def make_passphrase() -> str:
    """Seven words of `WORDS`, drawn independently: 65 bits, each guess of which costs an attacker one scrypt."""
    return "-".join(secrets.choice(WORDS) for _ in range(WORD_COUNT))


WORDS = tuple(
    """
able acid acorn acre actor adult agent alarm album alert alley amber anchor angel ankle apple apron arch arena
argue armor arrow artist ashes aspen atlas attic autumn award axis bacon badge bagel baker balm bamboo banana
banjo bank barley barn basil basket beach beacon beard beaver bell belt bench berry bike birch bishop bison
blade blank blaze blend block bloom blue board boat bold bonus book boot border bottle bowl bracket brain
branch brass brave bread breeze brick bridge bright broom brown brush bubble bucket buffalo bugle bulb bunny
bureau butter button cabin cable cactus camel camera camp canal candle candy cannon canoe canvas carbon cargo
carpet carrot castle cedar cello cement chain chair chalk charm cheese cherry chess chest chief chin chorus
cider cinema circle circus citrus city clam clay clever cliff clock cloud clover coast cobalt cocoa coffee
coin comet compass copper coral corner cotton couch cousin crab cradle crane crater cream creek crest cricket
crisp crown crystal cube curtain cushion cycle dagger dairy daisy dance dawn deck deer delta denim depot
desert desk dial diamond diary dinner disk dock doctor dolphin donkey door dove dragon dream drift drum duck
dune dust eagle earth easel echo eclipse edge elbow elder elm ember emerald engine envoy equal ermine escort
evening exit fable fabric falcon family farm feather fence fern ferry fiddle field fig filter finch finger
fire flag flame flask flax flint float flock flood floor flour flute foam focus fog forest fork fossil fox
frame freight frost fruit galaxy gallop garage garden garlic garnet gate gazelle gecko gem ghost giant ginger
giraffe glacier glass glide globe glove goat gold goose grain granite grape gravel green grid grove guitar
gulf habit hammer harbor harp harvest hazel heart hedge helmet herb heron hill hinge hollow honey hood horn
horse hotel hummus hunter husky iceberg igloo index indigo ink insect iris iron island ivory ivy jacket jaguar
jasmine jelly jewel jigsaw journey judge juice jungle juniper kayak kernel kettle key kidney king kiosk
kitchen kite kiwi knee knight knot koala label ladder lagoon lake lamp lantern larch laser laurel lava lawn
leaf ledge lemon lens lentil leopard letter level lily lime linen lion lizard llama lobster locket lodge lotus
lumber lunar lynx magnet mango manor maple marble margin market marsh mask meadow medal melon mentor merit
metal meteor mill mimosa mineral mint mirror mitten moat model monk moon moose moss motor mouse mule museum
music mustard napkin narrow nation nectar needle nest nickel night noble noodle north nugget nutmeg oak oasis
oat ocean olive onion onyx opal opera orange orbit orchid organ otter oval oven owl oxygen oyster paddle
palace palm panda panther papaya paper parade parcel parrot pasta patrol peach peanut pearl pebble pelican
pencil penguin pepper piano pickle picnic pigeon pillow pilot pine pirate planet plaza plum pocket poem polar
pond pony poppy portal potato powder prairie prism pulse pumpkin puppet puzzle pyramid quartz quest quilt
quince quiver rabbit radar radio raft rail rain ranch raven reef relay ribbon rice ridge river robin rocket
root rope rose ruby rudder rug saddle saffron sail salmon salt sand satin sauce scarf school scooter seal
season seed shadow shark shelf shell shield ship shore shovel signal silk silver siren sketch ski slate sled
smoke snail snow soap socket sofa solar sonata soup south spark spice spider spiral sponge spoon spring spruce
squash stable statue steam steel stone stork storm stove straw stream studio sugar summer sun sunset swan
sweater symbol table tango target teapot temple tent thistle throne thunder ticket tiger timber toast tomato
topaz torch tower trail train travel trout trumpet tulip tunnel turnip turtle twig uncle union unit urban
valley vanilla velvet vendor venue violet violin vista volcano voyage waffle wagon walnut walrus water wave
wheat wheel whisk willow wind window winter wizard wolf wood wool wreath yacht yard yarn yellow yogurt zebra
zenith zero zigzag zinc zipper zone
""".split()  # noqa: SIM905 - a list with a line for each word would be 650 lines long
)
"""Lower-case letters alone, 3 to 7 of them; no word twice."""
