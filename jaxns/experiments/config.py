"""What an experiment can be told: one frozen model per experiment, every key with its default."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["float64", "float32"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Mesh(Section):
    """batch: over how many devices the repetitions are spread, each working alone."""

    batch: Count


class Base(Section):
    """What every config says.

    title: in one line.   paper: and figure.   minutes: on two cores, about.
    limits: what of the paper is not here, and why.
    device: by default what JAX prefers.   mesh: of several such devices, also of several hosts.
    reduced: overrides (dotted keys) for a run in seconds that makes the same checks.
    """

    experiment: str
    title: str
    paper: str = ""
    limits: str = ""
    minutes: Positive = 1.0
    precision: Precision = "float64"
    device: Literal["cpu", "gpu", "tpu"] | None = None
    mesh: Mesh | None = None
    reduced: dict[str, Any] = Field(default_factory=dict, exclude=True)


class Data(Section):
    """scikit-learn's diabetes data, or a CSV file: polynomial features, a split by `seed`.

    degree: of the polynomials.   path: of the file, from where the command is run; its first line
    names the columns.   target: the one to predict.   ignore: those to leave out.
    """

    path: str | None = None
    target: str | None = None
    ignore: tuple[str, ...] = ()
    degree: Annotated[int, Field(ge=1, le=3)] = 2
    validation_fraction: Fraction = 1 / 3
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _of_a_file(self) -> Self:
        if self.path is not None and self.target is None:
            raise ValueError("path needs target, the column to predict")
        if self.path is None and (self.target is not None or self.ignore):
            raise ValueError("target and ignore are of a file: path is missing")
        return self

    @property
    def name(self) -> str:
        return "diabetes" if self.path is None else Path(self.path).stem


class Search(Section):
    """The range of every penalty, and where the gradient methods start.

    As fractions of the penalty above which the lasso solution is zero.
    """

    lowest: Fraction = 1e-3
    highest: Annotated[float, Field(gt=0, le=1)] = 1.0
    start: Annotated[float, Field(gt=0, le=1)] = 1e-2

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lowest < self.highest or not self.lowest <= self.start <= self.highest:
            raise ValueError("needs lowest <= start <= highest and lowest < highest")
        return self


class Outer(Section):
    """The outer optimiser, from optax, on the logarithm of the penalties."""

    optimizer: Literal["adam", "adabelief", "rmsprop", "sgd"] = "adam"
    learning_rate: Positive = 0.2
    schedule: Literal["constant", "cosine"] = "cosine"
    steps: Count = 40


class Inner(Section):
    """When an inner solve stops: see `jaxns.Stop`."""

    tol: Positive = 1e-12
    max_steps: Count = 100_000


class Grid(Section):
    """Points per penalty: of the grid search, and of the curve or map drawn in the figure."""

    points: Annotated[int, Field(ge=2)] = 30
    curve: Annotated[int, Field(ge=2)] = 100


class DerivativeError(Section):
    """The right panel of the figure: up to how many inner iterations."""

    steps: Annotated[int, Field(ge=10)] = 2000


class Mode(Section):
    """A differentiation mode; `steps` is K of one-step differentiation."""

    name: Literal["implicit", "piggyback", "one_step"]
    steps: Count | None = None

    @model_validator(mode="after")
    def _steps_of_one_step(self) -> Self:
        if self.steps is not None and self.name != "one_step":
            raise ValueError(f"steps belongs to one_step; {self.name} has none")
        return self

    @property
    def label(self) -> str:
        return f"one-step, K = {self.steps or 1}" if self.name == "one_step" else self.name


class PenaltySelection(Base):
    """Hold-out selection of the penalties of a lasso or an elastic net, by gradient and by grid."""

    model: Literal["lasso", "elastic_net"] = "lasso"
    data: Data = Data()
    search: Search = Search()
    outer: Outer = Outer()
    inner: Inner = Inner()
    grid: Grid = Grid()
    derivative_error: DerivativeError = DerivativeError()
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)] = (
        Mode(name="implicit"),
        Mode(name="piggyback"),
        Mode(name="one_step", steps=1),
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({mode.label for mode in self.modes}) < len(self.modes):
            raise ValueError("modes must differ from one another")
        return self


class Problem(Section):
    """Random instances of min ½‖Ax − b‖² + g(x), differentiated with respect to the penalty.

    A has independent N(0, 1) entries (divided by √rows if `scaled`), b = A x₀ + noise with x₀ of
    `nonzeros` ones, and θ = penalty_ratio · max |Aᵀb|.
    """

    id: str
    penalty: Literal["ridge", "lasso"]
    rows: Count
    columns: Count
    scaled: bool = False
    nonzeros: Count = 5
    noise: Annotated[float, Field(ge=0)] = 0.1
    penalty_ratio: Positive = 0.1
    steps: Annotated[int, Field(ge=20)] = 400
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _few_nonzeros(self) -> Self:
        if self.nonzeros > self.columns:
            raise ValueError(f"nonzeros must be at most columns = {self.columns}")
        return self


class DerivativeConvergence(Base):
    """Convergence of the iterates of forward-backward and of their derivatives."""

    repetitions: Count = 20
    perturbations: Annotated[int, Field(ge=0)] = 20
    perturbation_size: Positive = 1e-3
    problems: Annotated[tuple[Problem, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({problem.id for problem in self.problems}) < len(self.problems):
            raise ValueError("problems must have distinct ids")
        return self
