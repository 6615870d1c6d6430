"""How much memory unlearning takes, and over how many GPUs FSDP has to shard it: numbers from shapes alone.

Weights are counted exactly (a model without storage is built from its configuration); activations follow the formula
of `layer_bytes`, which is that of a Llama. docs/memory.md compares the sum with measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from tif.base.errors import UserError, first_line
from tif.lm import adapters
from tif.lm.logits import LOGIT_BUDGET
from tif.methods import Needs

GIB = 2**30
GPUS = (1, 2, 4, 8)
SIZES = (24, 80)  # GiB of GPUs
USABLE = 0.9  # of a GPU's memory; the rest is its context, kernels' workspaces and gaps between allocations
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NEEDED = ("hidden_size", "num_attention_heads")  # of a configuration
OPTIONAL = ("head_dim", "num_key_value_heads", "intermediate_size")
ROW_CHUNKS = 7  # chunks of logits that exist at a time in a loss of whole rows; measured, see docs/memory.md
ROW_BYTES = 8 + 1 + 4 + 4 + 4  # an answer token: id, unwanted, score, reference logit and log-probability


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. Counts are of numbers, not of bytes.

    parameters: all weights. block, blocks: weights of the largest decoder layer and of all. head: of the head.
    hidden, intermediate: widths. query, key: heads x head size of the queries, and of the keys (or values).
    adapters: how many a layer has. rank: of each, or 0. inputs: sum of the widths of their inputs; distinct_inputs: the
    same, but inputs that several of them share count once.
    trainable, trainable_block: weights that training changes, in all and in one layer.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    query: int
    key: int
    vocabulary: int
    parameters: int
    block: int
    blocks: int
    head: int
    adapters: int
    rank: int
    inputs: int
    distinct_inputs: int
    trainable: int
    trainable_block: int


@dataclass(frozen=True)
class Load:
    """The largest micro-batch, and what is kept of the target model.

    rows, length: rows of the micro-batch, and tokens of the longest, to which all are padded. answers: its answer
    tokens at most. table: answer tokens of the reference table. cached: answer tokens whose hidden states are kept.
    whole: whether whole rows of logits enter the loss.
    """

    rows: int
    length: int
    answers: int
    table: int
    cached: int
    whole: bool = False


@dataclass(frozen=True)
class Setup:
    """How the model is trained; see `unlearn` in params.yaml. dtype: of the model's card. dropout: of the adapters."""

    dtype: str
    precision: Literal["weights", "mixed"]
    checkpointing: bool
    fsdp: bool
    processes: int
    dropout: bool = False

    @property
    def weight(self) -> int:
        """Bytes of a weight."""
        return 4 if self.precision == "mixed" else BYTES[self.dtype]

    @property
    def compute(self) -> int:
        """Bytes of a number in matrix products."""
        return 2 if self.precision == "mixed" else BYTES[self.dtype]

    @property
    def autocast(self) -> bool:
        """Whether products are cast one by one, as against FSDP, which casts the weights it gathers."""
        return self.precision == "mixed" and not self.fsdp


@dataclass(frozen=True)
class Memory:
    """Bytes that one process needs on its device, by what they are for."""

    weights: int
    gradients: int
    optimiser: int
    gathered: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def shape_of(config: PreTrainedConfig, lora: adapters.Lora | None) -> Shape:
    """The sizes of a model that has this configuration. Raises UserError where it lacks what the formula needs."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # a model raises whatever senseless sizes lead to
        raise UserError(f"--plan: no causal language model can be made of config.json: {first_line(error)}") from None
    parameters = sum(weight.numel() for weight in model.parameters())
    kinds = set(model._no_split_modules or ())
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    blocks = max(([m for m in part if type(m).__name__ in kinds] for part in lists), key=len, default=[])
    head = model.get_output_embeddings()
    if not blocks or head is None:
        raise UserError(f"--plan: {type(model).__name__} does not say what its decoder layers and its head are")
    sizes = {name: getattr(config, name, None) for name in (*NEEDED, *OPTIONAL)}
    for name, value in sizes.items():
        if not isinstance(value, int) and (name in NEEDED or value is not None):
            raise UserError(f"--plan: {type(config).__name__} has no single {name}, which the formula of memory needs")
    largest = max(blocks, key=_count)
    block, all_blocks = _count(largest), sum(_count(module) for module in blocks)
    if lora:
        adapters.attach(model, lora, seed=0)
    # what has one parent, such as query and key, reads one input of a width
    ends = "lora_A." + adapters.NAME
    widths = [(n.split(".")[0], m.in_features) for n, m in largest.named_modules() if n.endswith(ends)]
    changed = [weight for weight in model.parameters() if weight.requires_grad]
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    size = sizes["head_dim"] or hidden // heads
    keys = sizes["num_key_value_heads"] or heads
    return Shape(
        layers=len(blocks),
        hidden=hidden,
        intermediate=sizes["intermediate_size"] or 4 * hidden,
        heads=heads,
        query=heads * size,
        key=keys * size,
        vocabulary=head.weight.shape[0],
        parameters=parameters,
        block=block,
        blocks=all_blocks,
        head=head.weight.numel(),
        adapters=len(widths),
        rank=lora.rank if lora else 0,
        inputs=sum(width for _, width in widths),
        distinct_inputs=sum(width for _, width in set(widths)),
        trainable=sum(weight.numel() for weight in changed),
        trainable_block=_count(largest, changed=True),
    )


def _count(module: torch.nn.Module, changed: bool = False) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not changed)


def load_of(
    lengths: Sequence[tuple[int, int]],
    others: Sequence[tuple[int, int]],
    needs: Needs,
    batch: int,
    micro_batch: int,
    processes: int,
) -> Load:
    """The largest micro-batch that these samples can make, and what a method keeps of them.

    lengths, others: (tokens, answer tokens) of the forget samples (the longer of answer and refusal, where the method
    uses refusals) and of the retain samples; the latter count only where the method needs them. batch: forget samples
    of a step, which the processes share.
    """
    used = [*lengths, *(others if needs.retain else ())]
    answers = 1 + needs.refusals  # rows of a sample, which are never separated
    rows = min(max(1, micro_batch // answers), -(-batch * (1 + needs.retain) // processes)) * answers
    kept = {"forget": sum(answer for _, answer in lengths), "retain": sum(answer for _, answer in others)}
    return Load(
        rows=rows,
        length=max(length for length, _ in used),
        answers=rows * max(answer for _, answer in used),
        table=2 * kept["forget"],
        cached=sum(kept[name] for name in needs.cached),
        whole=needs.rows,
    )


def layer_bytes(shape: Shape, setup: Setup) -> float:
    """Bytes of activations that a decoder layer keeps for its backward pass, a token.

        all weights:  2 n d + s (2 q + 2 k) + 4 h + 8 + 4 s i
        LoRA:         8 d + s (2 q + 2 k) + 4 h + 8 + 3 s i + sum over adapters of (c in + 4 rank)

    d, i: hidden and intermediate width. q, k: heads x head size of queries and of keys. h: heads. s: bytes of a number
    in products. n: what a norm keeps of a number: the float32 input, the normalised input, the output; n = 12 in
    float32 and 8 in bfloat16. in: width of an adapter's input, of which each keeps a float32 copy (c = 4), and with
    dropout a mask (c = 5); in float32 without dropout they share the input itself.

    With autocast the residual stream is float32, so that n = 8, and every matrix product keeps its own bfloat16 copy of
    its input: 10 d more for query, key, value, gate and up; an adapter's copy is bfloat16 too, c smaller by 2.

    Assumes RMSNorm that computes in float32, rotary positions, a gated feed-forward layer and attention without
    stored scores (SDPA's flash or memory-efficient kernels), and no mixture of experts.
    """
    size, d = setup.compute, shape.hidden
    attention = size * (2 * shape.query + 2 * shape.key) + 4 * shape.heads
    if not shape.rank:
        norms = 2 * 8 * d + 10 * d if setup.autocast else 2 * (4 + 2 * size) * d
        return norms + attention + 8 + 4 * size * shape.intermediate
    if size == 4 and not setup.dropout:
        kept = 4 * shape.distinct_inputs
    else:
        kept = ((2 if setup.autocast else 4) + setup.dropout) * shape.inputs
    adapted = kept + (2 if setup.autocast else 4) * shape.rank * shape.adapters
    return 2 * 4 * d + attention + 8 + 3 * size * shape.intermediate + adapted


def activation_bytes(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of activations kept for the backward pass: of all layers; with checkpointing their inputs, and one layer.

    Beside them the last norm, and of every answer token its hidden state, in the dtype it has and twice in float32.
    """
    stream = 4 if setup.autocast else setup.compute
    layer = layer_bytes(shape, setup)
    layers = shape.layers * stream * shape.hidden + layer if setup.checkpointing else shape.layers * layer
    last = (4 + 2 * stream) * shape.hidden
    return round(load.rows * load.length * (layers + last) + load.answers * shape.hidden * (8 + 2 * stream))


def chunk_numbers(shape: Shape, load: Load) -> int:
    """Logits that exist at a time: those of all answer tokens, or LOGIT_BUDGET of them."""
    return min(load.answers * shape.vocabulary, max(LOGIT_BUDGET, shape.vocabulary))


def working_bytes(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes that come and go: the larger of what the head needs and what the backward pass of a layer needs.

    The head holds a chunk of logits in float32, with a copy in its own dtype where that is another, or a copy with the
    gradient of its weights; a loss of whole rows holds ROW_CHUNKS of them. A layer holds gradients of 2 i + 2 d numbers
    a token, while the head's gradient waits for the embeddings'. A frozen head has no gradient.
    """
    size, head = setup.compute, 0 if shape.rank else shape.head * setup.compute
    numbers = chunk_numbers(shape, load)
    chunk = max(numbers * (4 + size if size < 4 else 4), numbers * size + head)
    if load.whole:
        chunk = ROW_CHUNKS * numbers * 4 + head
    layer = load.rows * load.length * size * 2 * (shape.intermediate + shape.hidden)
    return max(chunk, layer + head)


def memory(shape: Shape, setup: Setup, load: Load) -> Memory:
    """What one process needs at the moment of the step when it needs most.

    AdamW keeps two numbers a trained weight in that weight's dtype; adapters are float32. Data parallel processes hold
    a second copy of the gradients (buckets). FSDP shards weights, gradients and optimiser state, and gathers the head,
    the weights of two layers (one is used while the next arrives) and their gradients. Autocast keeps a bfloat16 copy
    of every matrix.
    """
    trained = 4 if shape.rank else setup.weight
    frozen = shape.parameters * setup.weight + (shape.trainable * 4 if shape.rank else 0)
    parts = setup.processes if setup.fsdp else 1
    gathered = 0
    if setup.fsdp and setup.processes > 1:
        gathered = setup.compute * (2 * shape.block + shape.head)
        gathered += (4 if shape.rank else setup.compute) * 2 * shape.trainable_block
    elif setup.autocast:
        gathered = 2 * (shape.blocks + shape.head)
    copies = 2 if setup.processes > 1 and not setup.fsdp else 1
    return Memory(
        weights=frozen // parts,
        gradients=copies * trained * shape.trainable // parts,
        optimiser=2 * trained * shape.trainable // parts,
        gathered=gathered,
        activations=activation_bytes(shape, setup, load),
        working=working_bytes(shape, setup, load),
    )


def kept_bytes(shape: Shape, setup: Setup, load: Load) -> int:
    """Main memory of the reference table's values and of cached hidden states, in every process."""
    return load.table * ROW_BYTES + load.cached * shape.hidden * BYTES[setup.dtype]


def sharded(setup: Setup, gpus: int) -> Setup:
    """The same on so many GPUs, sharded over them."""
    return replace(setup, fsdp=gpus > 1, processes=gpus)
