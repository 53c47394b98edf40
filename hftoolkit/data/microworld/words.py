"""The words of the microworld, as lists; lexicon.py says what they are good for."""


def words(text):
    """The words of a line."""
    return tuple(text.split())


# topic: site; places, with their prepositions; roles; things
TOPICS = {
    "house": (
        "in the house",
        "in kitchen, in cellar, in attic, in garden, in hall",
        "cook, gardener, cleaner, painter, lodger",
        "lamp, cup, knife, loaf, kettle, candle, plate, basket, brush, blanket, box, spoon",
    ),
    "harbour": (
        "at the harbour",
        "on pier, in boathouse, in lighthouse, on ferry, on beach",
        "sailor, diver, rower, captain, fisher",
        "rope, net, anchor, lantern, barrel, oar, bucket, flag, shell, chest, fish, compass",
    ),
    "office": (
        "in the office",
        "in lobby, in archive, in library, in corridor, in canteen",
        "manager, clerk, lawyer, writer, typist",
        "letter, folder, stapler, pencil, ruler, mug, envelope, safe, map, key, briefcase, sandwich",
    ),
    "farm": (
        "on the farm",
        "in barn, in stable, in orchard, in field, in mill",
        "farmer, shepherd, miller, rider, beekeeper",
        "rake, shovel, saddle, egg, pear, cherry, wheel, ladder, bell, jug, sack, cabbage",
    ),
    "school": (
        "in the school",
        "in classroom, in gym, in studio, on playground, in cloakroom",
        "teacher, pupil, singer, drummer, runner",
        "ball, book, globe, flute, drum, crayon, puzzle, apple, locker, scarf, trophy, shelf",
    ),
    "market": (
        "at the market",
        "on square, in bakery, in tavern, in chapel, on bridge",
        "trader, butcher, jeweller, weaver, baker",
        "melon, peach, vase, carpet, ring, coin, watch, doll, bracelet, jar, purse, pie",
    ),
    "museum": (
        "in the museum",
        "in gallery, in tower, in vault, in courtyard, in basement",
        "guard, guide, visitor, collector, sculptor",
        "statue, mask, crown, painting, sword, shield, mirror, fossil, necklace, helmet, trunk, tooth",
    ),
    "station": (
        "at the station",
        "on platform, in tunnel, in depot, in carriage, on footbridge",
        "driver, conductor, traveller, engineer, inspector",
        "suitcase, ticket, umbrella, newspaper, hat, glove, parcel, whistle, bun, thermos, bag, toy",
    ),
    "camp": (
        "at the camp",
        "in tent, in clearing, in cave, in hut, on riverbank",
        "hunter, hiker, ranger, camper, climber",
        "torch, axe, leaf, berry, stick, bottle, boot, mushroom, hammock, canoe, toolbox, paddle",
    ),
    "theatre": (
        "in the theatre",
        "on stage, on balcony, in foyer, in wardrobe, in workshop",
        "actor, dancer, director, violinist, tailor",
        "costume, wig, violin, script, curtain, cape, fan, cushion, bow, dagger, goblet, casket",
    ),
}
STANDING = words(
    "lamp cup kettle candle basket box lantern barrel bucket chest mug safe ladder jug globe drum locker trophy "
    "shelf vase jar statue mirror trunk suitcase thermos bottle toolbox goblet casket"
)
BREAKABLES = words("lamp cup plate lantern compass mug jug globe flute vase jar mirror thermos bottle violin")
EDIBLES = words("loaf fish sandwich egg pear cherry cabbage apple melon peach pie bun berry mushroom")
LOCKABLES = words("box chest safe briefcase locker purse trunk suitcase toolbox casket")

FEMALE_NAMES = words(
    "Anna Emma Alice Ella Clara Eva Ida Helen Agnes Olivia Iris Laura Edith Esther Irene Ingrid Elena Amelia "
    "Ursula Ada Isabel Beatrice Eleanor Astrid Ruth Una Margaret Yvonne Wilma Quinta Octavia Phoebe"
)
MALE_NAMES = words(
    "Oliver Tom Adam Peter Ben Arthur Henry Paul Max Edwin Hugo Simon Oscar Ivan Jacob Albert Leo Karl Eric "
    "Victor Nathan Felix Ulrich David George Samuel Quentin William Yusuf Xavier Zachary Walter"
)
TRAITS = words("young old tall kind quiet clever short brave busy friendly unfriendly patient impatient")
COLOURS = words("red blue green white black yellow brown grey orange purple silver golden pink turquoise")
SIZES = words("tiny small large huge")  # from less to more: comparisons go by this order
GLAD_MOODS = words("happy glad cheerful hopeful thankful playful merry peaceful")
SAD_MOODS = words("sad unhappy gloomy bitter nervous sorrowful weary restless")
NUMBERS = words("no one two three four five six")
HOURS = words("one two three four five six seven eight nine ten eleven twelve")
WEATHERS = words("cold warm rainy sunny foggy windy stormy bright")
SEASONS = words("spring summer autumn winter")
DAY_PARTS = words("morning afternoon evening night")
