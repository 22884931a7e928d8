"""A network and what changes it: one optimiser step at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from common.compute import autocast, gradient_scaler, repeatable, seed_torch
from common.distributed import Processes
from common.memory import enough_memory
from common.networks.gradient_checkpointing import checkpointed
from common.networks.unet import PneumothoraxNet
from common.recipes.recipe import Recipe
from common.refusal import Refusal
from common.training.losses import TaskLoss
from common.training.moving_average import moving_average
from common.training.teachers import Teachers

_SMALLEST_SCALE = 1.0  # 65,536 at first, halved at each step that is left out: 16 more than were done


class Learner:
    """A network in training.

    Several processes average their gradients (DistributedDataParallel); on GPUs BatchNorm then sees the
    films of all of them, as if one GPU had the whole batch (timm's conversion, which keeps the activation
    that its BatchNorm carries). Accumulated batches are smaller ones to BatchNorm.

    Args:
        net: Network with its first weights.
        recipe: Numbers of the run.
        processes: The processes that train together.
        checkpointing: Whether activations are computed again in the backward pass instead of kept.
        teachers: Those of a student; None: it learns from masks and labels alone.
    """

    def __init__(
        self,
        net: PneumothoraxNet,
        recipe: Recipe,
        processes: Processes,
        checkpointing: bool = False,
        teachers: Teachers | None = None,
    ) -> None:
        self.recipe, self.processes, self.device = recipe, processes, processes.device
        self.teachers = teachers
        with _memory_for(recipe, self.device):
            net = net.to(self.device)
        # SyncBatchNorm exists for GPUs only: processes on a CPU, as in the tests, see their own films.
        if processes.count > 1 and self.device.type == "cuda":
            from timm.layers import convert_sync_batchnorm  # as slow to import as the networks

            net = convert_sync_batchnorm(net)
        self.average = moving_average(net, recipe.ema_decay) if recipe.ema_decay else None
        if checkpointing:
            checkpointed(net)
        # `net` is what is trained and saved; `model`, the same network, averages gradients.
        self.net = net
        self.model: nn.Module = net
        if processes.count > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            shallow = len(net.unet.decoder.blocks) < 5  # timm then keeps a last stage that nothing uses
            self.model = DistributedDataParallel(
                net,
                device_ids=devices,
                gradient_as_bucket_view=True,  # saves a copy: gradients lie where they are averaged
                broadcast_buffers=devices is None,  # on GPUs BatchNorm's are the same in all processes
                find_unused_parameters=shallow,
            )
        self.optimiser = torch.optim.AdamW(
            net.parameters(),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,  # one pass over each tensor: 5% of a small step on a CPU
        )
        self.not_repeatable: list[str] = []  # operations without such a kernel on this GPU
        self.scaler = gradient_scaler(self.device, recipe.precision)
        self.loss_of = TaskLoss(recipe)

    @property
    def state(
        self,
    ) -> tuple[PneumothoraxNet, torch.optim.Optimizer, torch.amp.GradScaler, AveragedModel | None]:
        """All that a checkpoint must hold for its steps to go on."""
        return self.net, self.optimiser, self.scaler, self.average

    @property
    def judged(self) -> PneumothoraxNet:
        """What is validated and kept: the moving average of the weights, or the weights themselves."""
        if self.average is None:
            return self.net
        average = self.average.module
        assert isinstance(average, PneumothoraxNet)  # a copy of `net`
        return average

    def step(self, batch: dict[str, torch.Tensor], rate: float, key: tuple[int, ...]) -> torch.Tensor:
        """One optimiser step.

        Args:
            batch: Batch of this process, as `common.training.batches` gives it.
            rate: Learning rate.
            key: Seed, epoch and step, which key the random numbers of this step.

        Returns:
            Mean loss and share of positives over the batch of all processes, (2,) float32 on the device. It
            is not waited for.

        Raises:
            Refusal: Memory runs out, or no step counts any more in fp16.
        """
        # The rate follows from the step's number: a torch scheduler would be one more state to save.
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with _memory_for(self.recipe, self.device):
            found = repeatable(lambda: self._gradients(batch, key), self.not_repeatable)
            self.scaler.unscale_(self.optimiser)  # before the norm, which would be that of scaled gradients
            norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip_norm)
            self.scaler.step(self.optimiser)
            self.scaler.update()
        self._refuse_standstill()
        if self.average is not None:
            self.average.update_parameters(self.net)
        if not self.scaler.is_enabled():  # which leaves out such a step, and lowers its scale
            found[0] += norm * 0  # of a gradient that is not finite nothing must follow: the loss says it
        return self.processes.mean(found)

    def _gradients(self, batch: dict[str, torch.Tensor], key: tuple[int, ...]) -> torch.Tensor:
        """The gradients of a batch; its loss and share of positives."""
        seed_torch(*key, self.processes.rank)  # by rank, or all would drop the same places
        self.optimiser.zero_grad(set_to_none=True)
        pieces = self.recipe.accumulation
        found = torch.zeros(2, device=self.device)
        for number in range(pieces):
            # Pieces are equal (`inputs.py` refuses others), so that their mean is the mean of the batch.
            own = {name: tensor.chunk(pieces)[number] for name, tensor in batch.items()}
            found += self._backward(own, last=number == pieces - 1) / pieces
        return found

    def _refuse_standstill(self) -> None:
        """Refuse to train on where every step is left out: loss scaling was halved until nothing was left."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < _SMALLEST_SCALE:
            raise Refusal(
                "the gradient is not finite in fp16, however small the loss is scaled: no step counts",
                found=f"loss scale {self.scaler.get_scale():.3g}",
                do="start anew (--fresh): lower --learning-rate, or --precision fp32",
            )

    def _backward(self, batch: dict[str, torch.Tensor], last: bool) -> torch.Tensor:
        """Add the gradients of a piece of the batch; its loss and share of positives."""
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        alone: AbstractContextManager[None] = nullcontext()
        if isinstance(self.model, DistributedDataParallel) and not last:
            alone = self.model.no_sync()  # gradients are averaged once a step
        said = self.teachers.say(batch["film"]) if self.teachers else None
        with alone:
            with autocast(self.device, self.recipe.precision):
                output = self.model(batch["film"])
            # In float32: outside `autocast`
            loss = self.loss_of(output, batch["mask"], batch["label"], said, batch.get("labelled"))
            self.scaler.scale(loss / self.recipe.accumulation).backward()
        return torch.stack([loss.detach(), batch["label"].mean()])  # `item()` would wait for the GPU


def _memory_for(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """Where memory runs out: a refusal that names the flags that would help this run."""
    films = recipe.batch_size // recipe.accumulation
    help_lines = ["--checkpointing (about a third slower, the same result)"]
    if films > 1:  # a batch of one cannot be cut
        help_lines.append(
            f"--accumulation {recipe.accumulation * 2} (BatchNorm then sees "
            f"{films // 2} films at a time: not quite the same result)"
        )
    if recipe.precision == "fp32":
        help_lines.append("--precision auto (half the activations on a GPU)")
    return enough_memory(
        f"a batch of {recipe.batch_size} at {recipe.image_size} px",
        device,
        "add " + ", or ".join(help_lines) + "; --check estimates the memory beforehand",
    )
