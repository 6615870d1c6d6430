"""Target and retain model that exist already: a hub repository, or a local folder."""

from pathlib import Path

from tif.base.errors import UserError
from tif.base.tables import writing
from tif.finetune import Published
from tif.lm.models import Card, check_folder, open_model, resolve, write_card


def refer(path: Path, block: str, settings: Published, role: str, forget_split: str, source: Path | None) -> None:
    """Write a model folder that names a hub repository and its resolved commit, or a folder below `source`.

    Raises UserError when the block has no retain model for `forget_split`, when the hub cannot be reached, or when a
    local folder is incomplete. A local model is opened once, so that a broken one fails here and not stages later.
    """
    if role == "retain" and forget_split not in settings.retain:
        raise UserError(
            f"params.yaml: {block}.retain has no model for the forget split '{forget_split}'; "
            f"it has: {', '.join(sorted(settings.retain))}"
        )
    repository = settings.target if role == "target" else settings.retain[forget_split]
    form = {"prompt": settings.prompt, "date": settings.date, "dtype": settings.dtype, "attention": settings.attention}
    if source is not None:
        card = Card(**form, local=repository.rsplit("/", 1)[-1])
        check_folder(str(source / card.local))
        open_model(str(source / card.local), None, card, "cpu")
    else:
        instead = "use model.name=scratch, or download the model and set model.source to the folder that holds it"
        commit = resolve(repository, settings.revisions.get(repository, "main"), instead)
        card = Card(**form, repository=repository, revision=commit)
    with writing(path) as folder:
        folder.mkdir()
        write_card(folder, card)
