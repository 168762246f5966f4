"""From a path on the command line to a graph, a program, and arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcc.errors import EffccError, InputError, ParseError, UnsupportedError
from effcc.files import beside

if TYPE_CHECKING:
    import numpy as np

    from effcc.ir.graph import Graph
    from effcc.program import Program

KINDS = (".onnx", ".effir", ".effcc")


def check_path(model: Path) -> None:
    """Refuse what is no file of a kind that effcc reads."""
    if not model.is_file():
        what = "is a folder" if model.is_dir() else "there is no such file"
        raise ParseError(what, where=model, hint="give the path of a .onnx, .effir or .effcc file")
    if model.suffix not in KINDS:
        raise UnsupportedError(
            "not a model that effcc knows by its name", where=model, hint=f"effcc reads {', '.join(KINDS)}"
        )


def graph_of(model: Path, shapes: Mapping[str, Any] | None = None, values: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a model, as imported (of an artifact: as compiled)."""
    check_path(model)
    if model.suffix == ".effcc":
        from effcc.artifact import load

        return load(model).graph
    frontend = import_module("effcc.frontends").find(str(model))
    return frontend.load(str(model), shapes=shapes, fixed=values or None)


def program_of(
    model: Path, shapes: Mapping[str, Any] | None, threads: int | None, tell: Callable[[str], None], **options: Any
) -> Program:
    """A program: an artifact is loaded, anything else compiled."""
    check_path(model)
    if model.suffix == ".effcc":
        given = [name for name, value in {"shapes": shapes, **options}.items() if value not in (None, "cpu", False)]
        if given:
            raise InputError(
                f"an artifact is compiled already: {', '.join(given)} cannot change it",
                where=model,
                hint="give the model that it was compiled from",
            )
        from effcc.artifact import load

        tell("loading")
        return load(model, threads)
    from effcc.driver import compile
    from effcc.program import Program

    watch = (_tell_passes(tell),)
    options = {name: value for name, value in options.items() if value is not None}
    program = compile(str(model), shapes=shapes, threads=threads, progress=tell, instruments=watch, **options)
    if not isinstance(program, Program):
        raise many_programs(model, program)
    return program


def _tell_passes(tell: Callable[[str], None]) -> Any:
    """An instrument that says which pass is running."""
    from effcc.pipeline import Instrument

    class Told(Instrument):
        def before(self, p: Any, graph: Graph, ctx: Any) -> None:
            tell(f"pass {p}, {len(graph.nodes)} ops")

    return Told()


def many_programs(model: Path, program: Any) -> UnsupportedError:
    """The refusal of a model whose structure depends on the shapes or contents of inputs that are not fixed."""
    if program.values:
        message = f"its structure depends on the contents of {', '.join(program.values)}, so it is many programs"
        values = " ".join(f"--value {name}=..." for name in program.values)
        return UnsupportedError(message, where=model, hint=f"fix them by {values}")
    shapes = " ".join(f"--shape {name}=..." for name in program.shapes) or "--shape"
    message = f"its structure depends on the shape of {', '.join(program.shapes) or 'its inputs'}"
    return UnsupportedError(message, where=model, hint=f"fix it by {shapes}")


def parse_sizes(texts: Sequence[str] | None) -> dict[str, int]:
    """{symbol: value} of --size options.

    >>> parse_sizes(["N=8,L=128"])
    {'N': 8, 'L': 128}
    """
    sizes = {}
    for text in texts or ():
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if not equals or not value.isdigit():
                raise InputError(f"cannot read {part!r}", where=f"--size {text}", hint="write NAME=8")
            sizes[name] = int(value)
    return sizes


def read_inputs(files: Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays by input name from .npz files and name=FILE.npy (or FILE.npy alone where there is one input)."""
    arrays: dict[str, np.ndarray] = {}
    for text in files:
        name, equals, file = text.rpartition("=")
        loaded = load_arrays(Path(file))
        if isinstance(loaded, dict):
            arrays.update({key: value for key, value in loaded.items() if not equals or key == name})
            continue
        if not equals and len(names) != 1:
            hint = f"write NAME={file}; inputs: {', '.join(names)}"
            raise InputError("which input is it?", where=file, hint=hint)
        arrays[name if equals else names[0]] = loaded
    return arrays


def load_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of an .npy file, or those of an .npz file by name."""
    import numpy as np

    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=path) from error
    except Exception as error:  # numpy raises ValueError, EOFError, BadZipFile, KeyError for what is no array
        message = "is no .npy or .npz file of plain arrays"
        raise InputError(message, where=path, hint="save it with numpy.savez") from error


def random_inputs(graph: Graph, names: Sequence[str], sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Arrays that fit a graph: normal floats, integers that are 0 or 1 (valid as masks and as indices), random bools.

    Sizes that are not given are the least that their symbols allow, but at least 1.
    """
    import numpy as np

    from effcc.ir.types import Tensor
    from effcc.report import at, smallest

    generator = np.random.default_rng(seed)
    known = {s.name for s in graph.symbols}
    if unknown := set(sizes) - known:
        raise InputError(
            f"the model has no size {min(unknown)!r}",
            where="--size",
            hint=f"it has {', '.join(sorted(known)) or 'no sizes that vary'}",
        )
    bound = {**smallest(graph), **sizes}
    arrays = {}
    for value, name in zip(graph.inputs, names, strict=True):
        if not isinstance(value.type, Tensor):
            raise UnsupportedError(
                f"random inputs of type {value.type}", where=f"input {name!r}", hint="call it from Python"
            )
        shape, dtype = tuple(at(d, bound) for d in value.shape), value.dtype
        if dtype.is_float:
            array = generator.standard_normal(shape).astype(dtype.numpy)
        else:
            array = generator.integers(0, 2, shape).astype(dtype.numpy)
        arrays[name] = np.asarray(array)
    return arrays


def inputs_of(
    program: Program,
    files: Sequence[str] | None,
    sizes: Sequence[str] | None,
    seed: int,
    graph: Graph | None = None,
) -> dict[str, Any]:
    """The inputs that the command line gives: from files, or random."""
    if files:
        if sizes:
            raise InputError("sizes are those of the given inputs", where="--size", hint="leave it out")
        return read_inputs(files, program.input_names)
    arrays = random_inputs(graph or program.graph, program.input_names, parse_sizes(sizes), seed)
    return {
        name: array if name not in program.fixed else _filled(array, program.fixed[name])
        for name, array in arrays.items()
    }


def _filled(array: np.ndarray, value: Any) -> np.ndarray:
    """The contents that a program was compiled for, as the input's dtype and shape."""
    array[...] = value
    return array


def samples_of(calibration: Path | None, graph: Graph) -> Any:
    """The samples of --calibration, if there are any."""
    if calibration is None:
        return None
    from effcc.search.data import Samples

    return Samples.load(calibration, graph)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """An .npz file, written whole or not at all."""
    import numpy as np

    if path.suffix != ".npz":
        raise EffccError("outputs are saved as .npz", where=path, hint="name it so")
    with beside(path) as file:
        np.savez(file, **arrays)
