"""What each figure means, in a sentence for people who never met it. It knows no numbers."""

MEANINGS = {
    "nats": "What the model pays for one code of a held-out picture, given its caption. The ceiling is what it pays on "
    "pictures that it learned.",
    "bits": "The same for a whole picture: how large a file it would be.",
    "orders": "The same when the codes are read in other orders than reading order, each picture in several.",
    "reading": "Nats that reading order costs on a picture more than other orders do. 0: the model is one likelihood.",
    "none": "Nats that the true caption saves on a held-out picture, against none. 0: captions are not read.",
    "other": "Nats that the true caption saves, against the caption of another picture. 0: captions are not read.",
    "rank": "By the model's own likelihood of a held-out picture; no judge is needed.",
    "first": "Share of held-out pictures whose own caption makes them likeliest.",
    "psnr": "Held-out pictures, encoded and decoded again.",
    "ssim": "The same by structure: 1 is equal.",
    "distance": "1 - cosine of what a network sees in a picture and in its reconstruction.",
    "agreement": "Share of reconstructions whose five likeliest classes hold the picture's own likeliest.",
    "usage": "Codes that held-out pictures use at all; the ceiling is the vocabulary.",
    "perplexity": "How many codes, used equally, would be as varied.",
    "kid": "Distance of the drawings from the learned photographs, without bias: sets of other sizes compare.",
    "fd": "Fréchet distance from the learned photographs, on their principal components, {size} pictures each.",
    "fid": "Fréchet Inception distance of all drawings from the learned photographs; it falls as there are more.",
    "precision": "Share of drawings that lie among photographs; {size} pictures each.",
    "recall": "Share of photographs that lie among drawings; {size} pictures each.",
    "density": "In how many photographs' surroundings a drawing lies, about 1 for photographs; {size} pictures each.",
    "coverage": "Share of photographs with a drawing in their surroundings; {size} pictures each.",
    "subject": "Share of pictures with half of the probability on the {classes} classes that hold 90 % of the "
    "photographs' own likeliest ones.",
    "r_precision": "Share of drawings whose own caption fits best, by the judge. The ceiling is what the judge finds "
    "in held-out photographs.",
    "words through codes": "The same, with probes trained on what the codes keep of photographs.",
    "words": "How well linear probes find the words of a caption in its drawing: 0.5 is chance.",
    "near": "Share of drawings as near to a training picture as 1 % of the training pictures are to each other.",
    "authentic": "Share of drawings farther from their nearest training picture than that one is from the next.",
    "c_t": "z-score of the drawings' distances to training pictures, against those of held-out pictures: below -3 they "
    "are nearer.",
    "run": "Codes in a row, at the same places, that a drawing has in common with one training picture.",
    "runs": "Share of drawings with more than half of their codes in one such run.",
    "membership": "Chance that a learned picture is likelier than a held-out one. 0.5: nothing tells them apart.",
}
"""By the short name under which figures ask for it."""
COVERS = (
    "The 95 % interval of one run covers other pictures and, for drawings, other drawing seeds. It does not cover "
    "training again: another seed of the same recipe can lie outside. Three runs of a recipe that differ in --seed "
    "alone give the interval that does: tessera compare RUN,RUN,RUN."
)
"""What the intervals of a run alone say, and what they do not."""
