"""Model folders: load and save them, and check what they hold.

A model folder holds trained weights (safetensors), or an adapter to the model of another folder, or, for a model that
is not ours, just the repository and the resolved commit. `tif.json` in it says which, and how prompts are written.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from tif.base.errors import UserError, disk_is_full, first_line
from tif.base.params import Compute
from tif.base.tables import writing
from tif.lm import adapters
from tif.lm.prompts import PromptFormat


def prepare(compute: Compute, progress: bool = False) -> None:
    """Fix what else could change bits: thread count, non-deterministic kernels. UserError for an absent device.

    progress: whether transformers may show bars of its own.
    """
    if not progress:
        logging.disable_progress_bar()
    device = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(compute.device)
    if device and not device.is_available():
        raise UserError(
            f"params.yaml: compute.device is {compute.device}, but no such device is available; set compute.device=cpu"
        )
    torch.set_num_threads(compute.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it only
    torch.use_deterministic_algorithms(True)


@dataclass(frozen=True)
class Card:
    """`tif.json` of a model folder.

    prompt, date: see `PromptFormat`. dtype: of the weights. attention: the attention kernel.
    repository, revision: a hub model and its resolved commit, or None. local: the folder's name below
    `model.source`, or None. With neither, the weights lie in the model folder itself.
    base: where the folder holds an adapter, the name of the model folder beside it that the adapter belongs to, and
    base_sha256 its `folder_sha256`; repository, revision and local are then those of that model.
    """

    prompt: str
    date: str
    dtype: str
    attention: str
    repository: str | None = None
    revision: str | None = None
    local: str | None = None
    base: str | None = None
    base_sha256: str | None = None


T = TypeVar("T")


def _call(model: PreTrainedModel, function: Callable[[PreTrainedModel], T]) -> T:
    return function(model)


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model, its tokenizer, and how its prompts are written.

    around: calls a function of the model where its weights can be used; of sharded ones, where they are gathered.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    card: Card
    around: Callable[[PreTrainedModel, Callable[[PreTrainedModel], T]], T] = _call

    def call(self, function: Callable[[PreTrainedModel], T]) -> T:
        """function(model); every process that shares a sharded model has to make the same calls."""
        return self.around(self.model, function)

    @property
    def form(self) -> PromptFormat:
        return PromptFormat(self.card.prompt, self.card.date)


def write_card(folder: Path, card: Card) -> None:
    """Write `tif.json` into a model folder."""
    content = {key: value for key, value in asdict(card).items() if value is not None or not key.startswith("base")}
    (folder / "tif.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save(path: Path | str, language_model: LanguageModel, state: dict[str, Tensor] | None = None) -> None:
    """Write weights (safetensors), tokenizer and card as one folder, in one step; of a model with adapter just that.

    state: the model's `state_dict` where it is known already, as that of sharded weights that were gathered.
    """
    model, card = language_model.model, language_model.card
    with writing(path) as folder:
        if card.base is None:
            model.save_pretrained(folder, state_dict=state)
            language_model.tokenizer.save_pretrained(folder)
        else:
            folder.mkdir()
            adapters.save(folder, model, card.repository, card.revision, state)
        write_card(folder, card)


def of_adapter(card: Card, base: Path) -> Card:
    """The card of an adapter to the model of the folder `base`, which has the card `card`."""
    return replace(card, base=base.name, base_sha256=folder_sha256(base))


def load(path: Path | str, source: Path | None, device: str) -> LanguageModel:
    """The model of a model folder, in evaluation mode.

    source: the folder `model.source`, where a local model's weights lie. device: torch device.
    Raises UserError when weights or tokenizer are missing, when the tokenizer has no end-of-sequence token or no
    character offsets, when the head is not a plain linear layer, or when an adapter belongs to another model.
    """
    path = Path(path)
    card = read_card(path)
    if card.base is not None:
        return _load_adapter(path, card, source, device)
    name, revision = located(path, card, source)
    return open_model(name, revision, card, device)


def read_card(path: Path) -> Card:
    """`tif.json` of a model folder. Raises UserError when it is missing or damaged."""
    try:
        return Card(**json.loads((path / "tif.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path}/tif.json is missing; `dvc repro` makes {path}") from None
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}/tif.json is not a model card ({first_line(error)}); delete {path}, run again"
        ) from None


def located(path: Path, card: Card, source: Path | None) -> tuple[str, str | None]:
    """Name and revision of what a model folder stands for: itself, a folder below `source`, or a hub repository.

    Raises UserError when `source` is needed and not given.
    """
    if card.local is not None:
        if source is None:
            raise UserError(
                f"{path} was made from model.source, which is not set now; set model.source, or, where only"
                f" identify.source is read, name the folder {card.local} in it"
            )
        return str(source / card.local), None
    return card.repository or str(path), card.revision


def _load_adapter(path: Path, card: Card, source: Path | None, device: str) -> LanguageModel:
    base = path.parent / card.base
    if not base.is_dir():
        raise UserError(f"{path} is an adapter to the model in {base}, which is missing; `dvc repro` makes it")
    if folder_sha256(base) != card.base_sha256:
        raise UserError(f"{path} is an adapter to another model than {base} holds now; run `dvc repro`")
    below = load(base, source, device)
    adapters.load(path, below.model)
    return replace(below, card=card)


def open_model(name: str, revision: str | None, card: Card, device: str) -> LanguageModel:
    """Load weights and tokenizer of a folder or hub repository and check them; see `load`."""
    tokenizer = open_tokenizer(name, revision)
    check_tokenizer(name, tokenizer, card.prompt)
    dtype, attention = getattr(torch, card.dtype), card.attention
    model = open_weights(AutoModelForCausalLM, name, revision, dtype=dtype, attn_implementation=attention)
    model = model.to(device).eval()
    _check_head(name, model)
    return LanguageModel(model, tokenizer, card)


def open_tokenizer(name: str, revision: str | None) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder or hub repository. Raises UserError when there is none."""
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:  # damaged files raise whatever their contents lead to, KeyError and Exception among it
        if disk_is_full(error):
            raise
        raise UserError(f"no tokenizer in {name}: {first_line(error)}") from None


def open_weights(kind: type, name: str, revision: str | None, **options) -> PreTrainedModel:
    """The model of a folder or hub repository, from safetensors alone.

    kind: an `AutoModelFor...` class. options: further arguments of its `from_pretrained`.
    Raises UserError when the weights are missing, damaged or incomplete.
    """
    try:
        model, loading = kind.from_pretrained(
            name, revision=revision, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if disk_is_full(error):
            raise
        raise UserError(f"no usable safetensors weights in {name}: {first_line(error)}") from None
    if loading["missing_keys"]:
        # transformers would fill them with random numbers and only warn
        some = ", ".join(sorted(loading["missing_keys"])[:3])
        raise UserError(f"the weights in {name} lack {some}; they do not belong to its config.json")
    return model


def check_tokenizer(name: str, tokenizer: PreTrainedTokenizerFast, prompt: str) -> None:
    """Raises UserError for a tokenizer without end of sequence, offsets, or a chat template that is asked for."""
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {name} has no end-of-sequence token; set eos_token in tokenizer_config.json")
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of {name} gives no character offsets; a fast tokenizer (tokenizer.json) is needed"
        )
    if prompt == "chat" and tokenizer.chat_template is None:
        raise UserError(f"the tokenizer of {name} has no chat template; set prompt: plain in the model's block")


def check_folder(name: str) -> None:
    """Raises UserError for a local folder that lacks a config, weights or a tokenizer, before anything is loaded."""
    folder = Path(name)
    if not folder.is_dir():
        raise UserError(f"model folder {name} does not exist; see model.source and the model's block in params.yaml")
    needs = {"config.json": "config.json", "safetensors weights": "*.safetensors", "tokenizer.json": "tokenizer.json"}
    for what, pattern in needs.items():
        if not list(folder.glob(pattern)):
            raise UserError(f"model folder {name} has no {what}; save the model with save_pretrained into it")


def resolve(repository: str, revision: str, instead: str) -> str:
    """The commit that a revision of a hub model stands for now.

    instead: what the message of the UserError advises when the hub cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return huggingface_hub.HfApi().model_info(repository, revision=revision, timeout=30).sha
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise UserError(f"hub model {repository} at revision {revision} was not found: {first_line(error)}") from None
    except (HTTPError, OSError) as error:
        raise UserError(f"the hub cannot be reached for {repository} ({first_line(error)}); {instead}") from None


def locate(folder: Path | None, repository: str, revision: str) -> tuple[str, str | None, dict[str, str]]:
    """Name and revision that an identifier loads its model by, and what tells that model from others in metadata.

    With the local folder of `identify.source`: (folder, None, {"model_sha256": see `folder_sha256`}); no path is in the
    metadata. Without: (repository, commit, {"model": repository, "revision": commit}).
    Raises UserError for a folder that lacks a config, weights or a tokenizer, and for a revision that the hub lacks.
    """
    if folder is None:
        commit = resolve(repository, revision, "download the model and set identify.source to its folder")
        return repository, commit, {"model": repository, "revision": commit}
    if not folder.is_dir():
        raise UserError(f"params.yaml: identify.source = '{folder}' is a file; give a model folder or 'data/none'")
    check_folder(str(folder))
    return str(folder), None, {"model_sha256": folder_sha256(folder)}


def folder_sha256(folder: Path) -> str:
    """SHA-256 of a model folder: of its weights, configuration, tokenizer, chat template and card, with their names."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.suffix in (".json", ".jinja", ".safetensors")):
        with file.open("rb") as content:
            digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


@torch.no_grad()
def _check_head(name: str, model: PreTrainedModel) -> None:
    """The dot product that trains unwanted tokens must be the model's own logit (no soft cap, no scale)."""
    ids = torch.arange(1, 5, device=model.device)[None]
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    logits = model(input_ids=ids, use_cache=False).logits
    if not isinstance(head, torch.nn.Linear) or not torch.allclose(
        head(hidden).float(), logits.float(), rtol=1e-2, atol=1e-2
    ):
        raise UserError(
            f"{name}: its logits are not a linear map of its last hidden state; such models are not supported"
        )
