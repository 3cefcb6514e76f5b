"""Requests for concept sentences, to a person or a language model."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.words.checks import check_names, check_text, tidy
from scripts.words.sentences import article, name_sentence

# What is asked for under each concept of the paper's template, and, for any other concept, the last line below.
FIELDS = {
    "title": "the name of the structure and the kind of image, as in: {example}",
    "shape": "its form and proportions, as they look on slices and in three dimensions",
    "location": "where it lies, relative to structures that are seen beside it",
    "appearance": "its brightness or density, compared with its surroundings",
    "contour": "its border, sharp or blurred, smooth or irregular, and whether it is symmetric",
    "texture": "what its inside looks like, even or patchy, layered, streaked or with spots",
}
OTHER_FIELD = "what is seen of its {concept}"
LONGEST = 25  # words a sentence, as asked for
_RULES = f"""\
- Say only what can be seen in such an image. Nothing about what the structure does, nothing about diseases or their
  diagnosis, no advice.
- One complete, plain sentence for each field, of at most {LONGEST} words, that also makes sense on its own.
- Left and right are the patient's own.
- Be specific and definite. What is true of nearly everything, or only of some patients, tells nothing apart.
- If two structures look alike in one respect, repeat the very same sentence for both."""
_YAML = """\
Answer with this YAML and nothing else, one entry for each structure, in the order given. Put a sentence in quotes if
it has a colon in it.

modality: {modality}
reviewed: false
concepts: [{names}]
classes:
  - name: {first}
{fields}"""


def concept_prompt(classes: Sequence[str], modality: str, concepts: Sequence[str] | None = None) -> str:
    """Return the task, its fields and its rules, without the form of the answer.

    The fields are those of section 3.1, "[class], [shape], [location], [appearance/density],
    [contour/symmetry], [internal texture] in [modality]", unless others are named.

    Args:
        classes: the names of the structures.
        modality: as it stands in a sentence: "CT", "MR".
        concepts: the names of the fields.

    Raises:
        ValueError: a name is empty, given twice or no text.
    """
    classes, modality, concepts = checked(classes, modality, concepts)
    fields = "\n".join(f"- {concept}: {_field(concept, classes[0], modality)}" for concept in concepts)
    return (
        f"Describe how each of the following structures looks in {article(modality)} {modality} image, for a reader "
        f"who has to find and outline it: {', '.join(classes)}.\n\n"
        f"Write these {len(concepts)} fields for each of them:\n{fields}\n\n"
        f"Rules, which hold throughout:\n{_RULES}\n"
    )


def yaml_prompt(classes: Sequence[str], modality: str, concepts: Sequence[str] | None = None) -> str:
    """Return `concept_prompt` with a concept table as the form of the answer."""
    classes, modality, concepts = checked(classes, modality, concepts)
    fields = "\n".join(f"    {concept}: ..." for concept in concepts)
    answer = _YAML.format(modality=modality, names=", ".join(concepts), first=classes[0], fields=fields)
    return f"{concept_prompt(classes, modality, concepts)}\n{answer}"


def checked(
    classes: Sequence[str], modality: str, concepts: Sequence[str] | None
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return classes, modality and concepts without stray whitespace; a text is split at its commas.

    Raises:
        ValueError: a name is empty, given twice or no text.
    """
    lists = []
    for names, kind in ((classes, "class"), (tuple(FIELDS) if concepts is None else concepts, "concept")):
        parts = names.split(",") if isinstance(names, str) else names
        lists.append(tuple(tidy(name) for name in parts))
        check_names(lists[-1], kind, "the request")
    check_text(modality, "the request: modality")
    for key in {"name", "code"} & set(lists[1]):
        raise ValueError(f"'{key}' is a key of the class itself; give the concept another name.")
    return lists[0], tidy(modality), lists[1]


def print_prompt(classes: Sequence[str], modality: str, concepts: Sequence[str] | None = None) -> None:
    """Print a request for concept sentences to paste into a chat; save the answer as a concept table.

    Args:
        classes: names in label order, "spleen,left kidney" or a list
        modality: CT, MR, ...
        concepts: names of the concepts; by default those of the paper
    """
    print(yaml_prompt(classes, modality, concepts))


def _field(concept: str, class_name: str, modality: str) -> str:
    text = FIELDS.get(concept, OTHER_FIELD)
    return text.format(example=name_sentence(class_name, modality), concept=concept)
