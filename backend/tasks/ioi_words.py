"""What prompts of indirect object identification are made of: sentences, names, places, objects."""

from __future__ import annotations

TEMPLATES = (
    "After {first} and {second} walked to the {place}, {third} handed a {object} to",
    "While {first} and {second} waited at the {place}, {third} passed a {object} to",
    "When {first} and {second} met near the {place}, {third} showed a {object} to",
    "Before {first} and {second} left for the {place}, {third} lent a {object} to",
    "As {first} and {second} drove past the {place}, {third} described a {object} to",
    "Once {first} and {second} arrived at the {place}, {third} offered a {object} to",
    "When {first} and {second} stood outside the {place}, {third} sold a {object} to",
    "After {first} and {second} returned from the {place}, {third} sent a {object} to",
    "While {first} and {second} rested inside the {place}, {third} threw a {object} to",
    "Since {first} and {second} worked near the {place}, {third} brought a {object} to",
    "Because {first} and {second} met inside the {place}, {third} promised a {object} to",
    "As {first} and {second} ran toward the {place}, {third} tossed a {object} to",
    "Once {first} and {second} got inside the {place}, {third} gave a {object} to",
    "Before {first} and {second} moved to the {place}, {third} presented a {object} to",
    "While {first} and {second} sat behind the {place}, {third} read a {object} to",
    "When {first} and {second} drove to the {place}, {third} delivered a {object} to",
    "After {first} and {second} talked about the {place}, {third} mailed a {object} to",
    "As {first} and {second} stayed at the {place}, {third} returned a {object} to",
)
"""One skeleton: the names, the place and the object are at the same words in each."""

_NAMES = """
Aaron Adam Albert Alexander Alice Amanda Amy Andrea Andrew Angela Anna Anne Anthony Arthur
Ashley Barbara Benjamin Betty Brandon Brian Carl Carol Catherine Charles Christine Christopher
Daniel David Deborah Dennis Diane Donald Donna Edward Elizabeth Emily Emma Eric Ethan Frank
Fred Gary George Gregory Harold Heather Helen Henry Howard Jack Jacob James Jane Janet Jason
Jeffrey Jennifer Jeremy Jerry Jessica Joan John Jonathan Joseph Joshua Julia Julie Justin Karen
Kate Katherine Kathleen Keith Kenneth Kevin Kyle Larry Laura Linda Lisa Louis Lucy Margaret
Maria Martha Martin Mary Matthew Melissa Michael Michelle Nancy Nathan Nicholas Nicole Oliver
Patricia Patrick Paul Peter Philip Rachel Raymond Rebecca Richard Robert Roger Ronald Ruth Ryan
Samantha Samuel Sandra Sarah Sean Sharon Simon Stephanie Stephen Steven Susan Thomas Timothy
Tyler Victoria Walter William
"""

_PLACES = """
airport bank bar castle church cinema club factory farm gallery garage hotel kitchen library
mall market museum palace park prison shop stadium studio temple theater tower university
warehouse
"""

_OBJECTS = """
bag ball basket bell book bottle box camera card chair clock coat cup dress flag flower gift
guitar hat key knife lamp letter map newspaper phone picture radio shirt ticket toy watch
"""

NAMES, PLACES, OBJECTS = (tuple(words.split()) for words in (_NAMES, _PLACES, _OBJECTS))
