"""Formats that are known and not opened, each with what to do instead."""

from __future__ import annotations

from pathlib import Path

from stratoscope.errors import OpenError

_EXPORT = "export the model as .keras, .h5 or .onnx instead"
_FILES: dict[tuple[str, ...], str] = {
    (".pb",): f"a TensorFlow graph, which only TensorFlow reads; {_EXPORT}",
    (".tflite",): f"a TensorFlow Lite file, whose weights are compiled and mostly quantised; {_EXPORT}",
    (".msgpack",): "a Flax file; save its params as .safetensors (safetensors.flax.save_file) or with numpy.savez",
    (".pkl", ".pickle", ".joblib", ".dill"): "a pickle, which runs code when it is read; save the weights as "
    ".safetensors",
    (".ptl", ".torchscript"): "a TorchScript archive, which holds code; save the state_dict() of the module instead",
    (".pte",): "compiled by ExecuTorch; save the state_dict() of the module instead",
    (".engine", ".plan", ".trt"): "compiled by TensorRT for one device; open the model that it was made from",
    (".ort",): "compiled by ONNX Runtime; open the .onnx file that it was made from",
    (".mlmodel", ".mlpackage"): "a Core ML model; open the model that it was made from",
    (".npy",): "a single NumPy array without a name; save named arrays with numpy.savez",
    (".pdparams", ".pdmodel"): "a PaddlePaddle file; save the weights as .safetensors (safetensors.paddle.save_file)",
    (".data-00000-of-00001", ".index"): f"part of a TensorFlow checkpoint, which only TensorFlow reads; {_EXPORT}",
}
_FOLDERS = {
    "saved_model.pb": f"a TensorFlow SavedModel, which only TensorFlow reads; {_EXPORT}",
    "checkpoint": f"a folder of TensorFlow checkpoints, which only TensorFlow reads; {_EXPORT}",
    "_CHECKPOINT_METADATA": "an Orbax checkpoint; restore it and save its params as .safetensors "
    "(safetensors.flax.save_file) or with numpy.savez",
    "Manifest.json": "a Core ML package; open the model that it was made from",
}


def refuse_other_file(path: Path) -> None:
    """Say what a file of a known foreign format is.

    Raises:
        OpenError: if it is one.
    """
    for endings, what in _FILES.items():
        if path.name.lower().endswith(endings):
            raise OpenError(f"{path} is not opened here: it is {what}.")


def refuse_other_folder(folder: Path) -> None:
    """Say what a folder of a known foreign format is.

    Raises:
        OpenError: if it is one.
    """
    for name, what in _FOLDERS.items():
        if (folder / name).is_file():
            raise OpenError(f"{folder} is not opened here: it is {what}.")
