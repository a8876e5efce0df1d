"""Learn, log, validate, draw, save: the training of any perception task on any pictures.

Time is counted in updates. They tell the epoch and the place in it; and what is random, the order
of the pictures, their augmentation and dropout, is drawn from the seed and that number alone. So a
resumed training needs no more to do what the uninterrupted one would have done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from rlplay import checkpoint, run, transfer
from rlplay.config import Lesson, rules
from rlplay.core import Array, Mistake, NonFinite, State
from rlplay.metrics import Averages
from rlplay.nets import hardware
from rlplay.nets.optimize import Optimizer
from rlplay.perception.task import Batch, Task
from rlplay.record import tensorboard_image
from rlplay.session import Column, Interrupt, Interrupted, Table, keep_batch

ADAM_EPS = 1e-8  # Kingma & Ba 2015
LARGE = 64  # pixels from which bfloat16 pays, where the processor has it
TINY = 16  # pixels below which a second thread does not pay
WHEN_EXAMINED = 4  # batches of learning in one of validation, which keeps no gradients


class Learning:
    """One training of a perception task from its start, or from a checkpoint, to its end."""

    def __init__(
        self, lesson: Lesson, announce: Callable[[str], None], begins: bool = True
    ) -> None:
        """Load the data and build the task; where it `begins`, and is not to be restored, its
        encoder starts from another run's if it is to. Raises Mistake where they do not fit each
        other or the machine."""
        self.experiment = self.lesson = lesson
        self.announce = announce
        self.source = lesson.data.make(rules)
        self.device = hardware.device(lesson.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(lesson.seed)
            self.task: Task = lesson.task.make(self.source)
        if begins:
            transfer.lend_task(self.task.encoder, lesson.task.encoder, self.source.shape, announce)
        self.task.to(self.device)
        self.task.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        _, *size = self.source.shape
        hardware.spare_threads(pays=min(size) >= TINY)
        dtype = hardware.precision(lesson.precision, self.device, pays=min(size) >= LARGE)
        self.optimizer = Optimizer(
            self.task,
            dtype,
            lesson.learning_rate,
            ADAM_EPS,
            lesson.max_grad_norm,
            lesson.weight_decay,
        )
        self.augment = lesson.augmentation.make(*size, labels=self.source.wanted)
        self.num_examples = self.task.num_examples("train")
        self.batch_size = min(lesson.batch_size, self.num_examples)
        self.per_epoch = self.num_examples // self.batch_size  # what is left over waits its turn
        self.updates = 0
        self.examined = 0  # epochs after which it was validated
        self.waited = 0  # epochs since the best one
        self.best = -np.inf  # the best validation, more being better
        self.seconds = 0.0  # spent learning, over all sessions of the run
        self.averages = Averages()

    # What the command line says of it.

    @property
    def about(self) -> str:
        return (
            f"{self.lesson.task.name} learns {self.source.name}, {self.num_examples:,} pictures,"
            f" epochs {self.updates // self.per_epoch:,} to {self.lesson.epochs:,}"
        )

    @property
    def spec(self) -> State:
        """What is to be known of the data, to compare runs."""
        return {
            "name": self.source.name,
            "shape": list(self.source.shape),
            "classes": list(self.source.classes),
            "kinds": list(self.source.kinds),
            "variables": list(self.source.variables),
            "examples": {name: len(index) for name, index in self.source.splits.items()},
            "parameters": sum(p.numel() for p in self.task.parameters()),
            "encoder_channels": list(self.task.encoder.channels),
            "encoder_strides": list(self.task.encoder.strides),
        }

    @property
    def where(self) -> str:
        return f"epoch {self.updates / self.per_epoch:.2f}"

    @property
    def more(self) -> str:
        """The setting that makes a finished training go on; empty where it is not finished."""
        if not self.is_over:
            return ""
        return f"--epochs {2 * self.lesson.epochs}" + " --patience 0" * bool(self.lesson.patience)

    def verbs(self, path: str) -> list[str]:
        """Return what may be typed next about the run in `path`."""
        return [f"evaluate {path}"]

    # The work.

    @property
    def is_over(self) -> bool:
        stopped = 0 < self.lesson.patience <= self.waited
        return stopped or self.examined >= self.lesson.epochs

    def run(self, folder: run.Run) -> int:
        """Train to the end; return the exit code: 0, 128 + the signal that ended it early, or 1
        after a loss that is not finite. Raises Mistake where another process trains there."""
        with folder.locked(), Interrupt() as self.interrupt:
            return self.run_in(folder)

    def run_in(self, folder: run.Run) -> int:
        self.folder = folder
        self.log = run.Log(folder.folder, self.updates)
        start = (self.updates, self.examined)
        self.saved_at = start if self.updates else None  # a new run has not even saved its start
        self.logged = (self.updates, self.seconds)
        num_updates = self.lesson.epochs * self.per_epoch
        self.table = Table(self.announce, num_updates, COLUMNS, ALWAYS)
        if self.task.remark:
            self.announce(self.task.remark)
        if not self.updates:
            self.log.write_settings(self.lesson)
        try:
            self.learn()
            self.table.close()
            self.save()
            if not self.interrupt.signal:
                self.finish()
        except Interrupted:
            self.save()
        except NonFinite as error:
            self.announce(keep_batch(error, folder.folder))
            return 1
        finally:
            self.log.close()
        return 128 + self.interrupt.signal if self.interrupt.signal else 0

    def learn(self) -> None:
        """Learn and validate, epoch by epoch, until the end, or until a signal."""
        while not self.is_over and not self.interrupt.signal:
            if self.updates < (self.examined + 1) * self.per_epoch:
                self.learn_epoch()
            else:
                self.validate()
                self.save()

    def learn_epoch(self) -> None:
        """Learn from what is left of the epoch, or until a signal."""
        epoch, place = divmod(self.updates, self.per_epoch)
        self.task.train()
        started = time.perf_counter()
        order = self.order(epoch)[place * self.batch_size :]
        for batch in self.task.batches("train", self.batch_size, order):
            torch.manual_seed(self.drawn(self.updates))
            metrics = self.update(batch)
            self.averages.add({f"train/{name}": value for name, value in metrics.items()})
            self.updates += 1
            now = time.perf_counter()
            self.seconds, started = self.seconds + now - started, now
            if self.updates % self.lesson.log_every == 0 or self.updates % self.per_epoch == 0:
                self.write_log()
            if self.interrupt.signal:
                return

    def order(self, epoch: int) -> Array:
        """Return in which order an epoch takes the examples, whole batches of them."""
        generator = np.random.default_rng([*b"order", self.lesson.seed, epoch])
        return generator.permutation(self.num_examples)[: self.per_epoch * self.batch_size]

    def drawn(self, updates: int) -> int:
        """Return the seed of what is random in an update."""
        sequence = np.random.SeedSequence([*b"update", self.lesson.seed, updates])
        return int(sequence.generate_state(1)[0])

    def update(self, batch: Batch) -> dict[str, float]:
        """Make one step of gradient descent on a batch. Returns metrics. Where one of them is not a
        number, raises NonFinite and changes nothing."""
        if self.augment is not None:
            batch = self.augment(batch)
        batch = self.on_device(batch)
        progress = self.updates / (self.lesson.epochs * self.per_epoch)
        rate = self.lesson.learning_rate * self.lesson.decay(progress)
        self.optimizer.set_learning_rate(rate)
        loss, metrics = self.task.loss(batch)
        norm = self.optimizer.step(loss)
        if not (np.isfinite(norm) and np.isfinite(loss.item())):
            raise NonFinite(
                f"loss {loss.item()} or gradient {norm} is not finite",
                {name: tensor.cpu().numpy() for name, tensor in batch.items()},
            )
        numbers = {name: value.item() for name, value in metrics.items()}
        return {"loss": loss.item(), **numbers, "grad_norm": norm, "learning_rate": rate}

    def on_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def write_log(self) -> None:
        """Write one line to the terminal, metrics.jsonl and TensorBoard: the same numbers."""
        updates, seconds = self.logged
        self.logged = (self.updates, self.seconds)
        rate = (self.updates - updates) / max(self.seconds - seconds, 1e-9)
        metrics = {
            **self.averages.take(),
            "time/updates": self.updates,
            "time/epoch": self.updates / self.per_epoch,
            "time/time_elapsed": self.seconds,
            "time/pictures_per_second": rate * self.batch_size,
            "time/updates_per_second": rate,
        }
        self.log.write(metrics, self.updates)
        self.table.add(metrics)

    def validate(self) -> None:
        """See how well it does on the validation; keep it as `best` where it never did better, the
        later of two that do as well."""
        metrics = self.examine("validation")
        self.log.write({f"validation/{k}": v for k, v in metrics.items()}, self.updates)
        self.draw("validation")
        self.examined += 1
        self.announce(f"epoch {self.examined}, validation: {self.task.sentence(metrics)}")
        reached = -metrics["goal"] if self.task.minimize else metrics["goal"]
        self.waited = 0 if reached > self.best else self.waited + 1
        if reached >= self.best:
            self.best = reached
            checkpoint.save(self.folder.checkpoints, "best", self.parts())
        if self.is_over and self.examined < self.lesson.epochs:
            self.announce(f"no better validation in {self.waited} epochs: stopping early")

    def finish(self) -> None:
        """Test the best there was."""
        best = self.folder.checkpoints / "best"
        if best.is_dir():
            self.load_weights(checkpoint.load(best))
        with self.interrupt.breakable():
            metrics = self.examine("test")
            self.draw("test")
        self.log.write({f"test/{k}": v for k, v in metrics.items()}, self.updates)
        self.announce(f"test: {self.task.sentence(metrics)}")

    @torch.inference_mode()
    def examine(self, split: str) -> dict[str, float]:
        """Return how well it does on a split, by name; "goal" is what counts."""
        self.task.eval()
        metrics = self.task.examine(self.batches(split))
        return {**metrics, "goal": metrics[self.task.goal]}

    def batches(self, split: str) -> Iterator[Batch]:
        yield from map(self.on_device, self.task.batches(split, WHEN_EXAMINED * self.batch_size))

    @torch.inference_mode()
    def draw(self, split: str) -> None:
        """Draw what it makes of a few pictures, the same ones every time, as files in the run
        folder and in TensorBoard."""
        num = min(self.lesson.num_drawn, self.task.num_examples(split))
        if not num:
            return
        self.task.eval()
        chosen = np.linspace(0, self.task.num_examples(split) - 1, num).astype(int)
        batch = self.on_device(next(self.task.batches(split, num, chosen)))
        self.folder.pictures.mkdir(exist_ok=True)
        for name, picture in self.task.draw(batch).items():
            encoded = BytesIO()
            Image.fromarray(picture).save(encoded, "png")
            path = self.folder.pictures / f"{split}-{name}-{self.updates:09d}.png"
            path.write_bytes(encoded.getvalue())
            tensorboard_image(self.log.writer, f"{split}/{name}", encoded.getvalue(), self.updates)

    # What is saved.

    def parts(self) -> dict[str, State]:
        """Return all that a resumed run needs, as the parts of a checkpoint."""
        buffers = {
            name: buffer.float().cpu().numpy()
            for name, buffer in self.task.state_dict().items()
            if name not in self.optimizer.names
        }
        own = {
            "updates": self.updates,
            "per_epoch": self.per_epoch,
            "examined": self.examined,
            "waited": self.waited,
            "best": self.best,
            "seconds": self.seconds,
            "averages": self.averages.state_dict(),
        }
        task = {"buffers": buffers, "optimizer": self.optimizer.state_dict()}
        return {"weights": self.optimizer.weights(), "task": task, "train": own}

    def save(self) -> None:
        """Save a checkpoint of this update, once, and drop the oldest ones."""
        now = (self.updates, self.examined)
        if self.saved_at == now:
            return
        name = f"{self.updates:09d}"
        checkpoint.save(self.folder.checkpoints, name, self.parts())
        checkpoint.prune(self.folder.checkpoints, self.lesson.keep, name)
        self.saved_at = now

    def restore(self, parts: dict[str, State]) -> None:
        """Continue where the checkpoint stands."""
        own = parts["train"]
        if own["per_epoch"] != self.per_epoch:
            raise Mistake(
                f"an epoch had {own['per_epoch']:,} updates and would now have {self.per_epoch:,}:"
                " resume the run with the data and batch_size that it was begun with"
            )
        self.load_weights(parts)
        self.optimizer.load_state_dict(parts["task"]["optimizer"])
        self.updates, self.examined = own["updates"], own["examined"]
        self.waited, self.best, self.seconds = own["waited"], own["best"], own["seconds"]
        self.averages.load_state_dict(own["averages"])

    @torch.no_grad()
    def load_weights(self, parts: dict[str, State]) -> None:
        """Take over what was learned. Raises Mistake where it is another network's."""
        self.optimizer.load_weights(dict(parts["weights"]))
        saved = parts["task"]["buffers"]
        for name, buffer in self.task.named_buffers():
            if name in saved:
                buffer.copy_(torch.from_numpy(np.array(saved[name])))


COLUMNS: tuple[Column, ...] = (
    ("updates", "time/updates", "{:,.0f}"),
    ("epoch", "time/epoch", "{:.2f}"),
    ("loss", "train/loss", "{:.5f}"),
    ("accuracy", "train/accuracy", "{:.2%}"),
    ("step size", "train/learning_rate", "{:.1e}"),
    ("pictures/s", "time/pictures_per_second", "{:,.0f}"),
    ("updates/s", "time/updates_per_second", "{:,.1f}"),
)
ALWAYS = ("updates", "epoch", "loss", "pictures/s", "updates/s")


def load(folder: run.Run, which: str, announce: Callable[[str], None], *settings: str) -> Learning:
    """Load the task of a run: the best of its validations, or the checkpoint called `which`, with
    `settings` as typed laid over those of the run. Raises Mistake where there is none."""
    lesson = folder.experiment_any(settings)
    if not isinstance(lesson, Lesson):
        raise Mistake(f"{folder.name} has trained an agent, and no perception task")
    if not which and (folder.checkpoints / "best").is_dir():
        which = "best"
    parts = run.load_parts(folder, which, announce)
    learning = Learning(lesson, announce, begins=False)
    learning.load_weights(parts)
    learning.updates = parts["train"]["updates"]
    return learning
